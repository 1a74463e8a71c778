//! Values with a form of their own: devices, prefixes, names, addresses and secrets.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use serde::{
    Deserialize, Deserializer,
    de::{self, Unexpected, Visitor},
};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::scalar::{text, text_or};

/// A port's device, as the environment abstraction layer names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// A PCI function, `domain:bus:device.function` in hexadecimal; the domain has four digits, more only if it needs them.
    Pci(String),
    /// A virtual device: driver name and arguments, `net_af_packet0,iface=in0`.
    Vdev(String),
}

impl Device {
    const ALLOWED: &str = "a PCI address domain:bus:device.function such as 0000:03:00.0, \
         or a virtual device net_NAME or eth_NAME with its arguments, such as net_af_packet0,iface=in0";

    /// Reads a PCI address or a virtual device; `None` if it is neither.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        if is_vdev(word) {
            return Some(Self::Vdev(word.to_owned()));
        }
        let (domain, rest) = word.split_once(':').filter(|_| is_pci(word))?;
        let domain = u32::from_str_radix(domain, 16).ok()?;
        let address = format!("{domain:04x}:{rest}");
        Some(Self::Pci(address.to_ascii_lowercase()))
    }

    /// The whole string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pci(device) | Self::Vdev(device) => device,
        }
    }

    /// The part that must differ between two ports: the string in front of the arguments.
    #[must_use]
    pub fn name(&self) -> &str {
        let device = self.as_str();
        device.split_once(',').map_or(device, |(name, _)| name)
    }

    /// The network interface behind a virtual device, its argument `iface`.
    #[must_use]
    pub fn interface(&self) -> Option<&str> {
        let mut arguments = self.as_str().split(',').skip(1);
        arguments.find_map(|argument| argument.strip_prefix("iface="))
    }
}

fn is_pci(word: &str) -> bool {
    let hex = |digits: &str, lengths: std::ops::RangeInclusive<usize>, max: u32| {
        lengths.contains(&digits.len())
            && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
            && u32::from_str_radix(digits, 16).is_ok_and(|number| number <= max)
    };
    let parts = word.split_once(':').and_then(|(domain, rest)| {
        let (bus, rest) = rest.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        Some((domain, bus, device, function))
    });
    parts.is_some_and(|(domain, bus, device, function)| {
        hex(domain, 4..=8, u32::MAX)
            && hex(bus, 2..=2, 0xff)
            && hex(device, 2..=2, 0x1f)
            && hex(function, 1..=1, 7)
    })
}

fn is_vdev(word: &str) -> bool {
    let mut parts = word.split(',');
    let name = parts.next().unwrap_or_default();
    let driver = name
        .strip_prefix("net_")
        .or_else(|| name.strip_prefix("eth_"));
    driver.is_some_and(|driver| {
        !driver.is_empty()
            && driver
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'_')
    }) && parts.all(|argument| {
        argument.split_once('=').is_some_and(|(key, value)| {
            !key.is_empty() && !value.is_empty() && argument.bytes().all(|c| c.is_ascii_graphic())
        })
    })
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        text(from, Self::ALLOWED, Self::parse)
    }
}

/// An IPv6 prefix whose bits behind the length are 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: [u8; 16],
    length: u8,
}

impl Prefix {
    const ALLOWED: &str = "an IPv6 prefix, address/length, such as 2001:db8:1::/64";

    /// The prefix of `length` bits that holds `address`; `None` for more than 128 bits.
    #[must_use]
    pub fn holding(address: [u8; 16], length: u8) -> Option<Self> {
        (length <= 128).then(|| Self {
            address: (u128::from_be_bytes(address) & mask(length)).to_be_bytes(),
            length,
        })
    }

    /// Whether every address of `other` is one of this prefix.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.first() <= other.first() && other.last() <= self.last()
    }

    /// The first address, network order.
    #[must_use]
    pub fn address(&self) -> [u8; 16] {
        self.address
    }

    /// Length in bits, 0 to 128.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// The first address as a number.
    #[must_use]
    pub fn first(&self) -> u128 {
        u128::from_be_bytes(self.address)
    }

    /// The last address as a number.
    #[must_use]
    pub fn last(&self) -> u128 {
        self.first() | !mask(self.length)
    }
}

/// A text that is no prefix with zero bits behind its length.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected {allowed}")]
pub struct NotAPrefix {
    /// What the text could have been.
    pub allowed: String,
}

impl FromStr for Prefix {
    type Err = NotAPrefix;

    fn from_str(word: &str) -> Result<Self, NotAPrefix> {
        let not = |allowed: String| NotAPrefix { allowed };
        let Some((address, length)) = word.split_once('/') else {
            return Err(not(match word.parse::<Ipv6Addr>() {
                Ok(host) => format!("{}; one host is {host}/128", Self::ALLOWED),
                Err(_) => Self::ALLOWED.to_owned(),
            }));
        };
        let address = address
            .parse::<Ipv6Addr>()
            .map_err(|_| not(Self::ALLOWED.to_owned()))?
            .octets();
        let prefix = length
            .parse::<u8>()
            .ok()
            .filter(|_| length.bytes().all(|c| c.is_ascii_digit()))
            .and_then(|length| Self::holding(address, length))
            .ok_or_else(|| not(format!("{} (length 0 to 128)", Self::ALLOWED)))?;
        if prefix.address != address {
            return Err(not(format!(
                "a prefix whose bits behind the length are 0: {prefix}"
            )));
        }
        Ok(prefix)
    }
}

/// The highest `length` bits set.
fn mask(length: u8) -> u128 {
    u128::MAX
        .checked_shl(128 - u32::from(length))
        .unwrap_or_default()
}

impl fmt::Display for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", Ipv6Addr::from(self.address), self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        text_or(from, Self::ALLOWED, |word| {
            word.parse().map_err(|not: NotAPrefix| not.allowed)
        })
    }
}

/// A pairing's name: 1 to 64 letters, digits, dots, dashes and underscores of ASCII. It labels metrics and log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let allowed = "1 to 64 letters, digits, dots, dashes and underscores";
        text(from, allowed, |word| {
            let legal = |c: u8| c.is_ascii_alphanumeric() || b".-_".contains(&c);
            ((1..=64).contains(&word.len()) && word.bytes().all(legal))
                .then(|| Self(word.to_owned()))
        })
    }
}

/// A name in a certificate's list of subject alternative names (dNSName), in small letters: letters, digits, dashes and underscores
/// between dots, at most 253 bytes; no wildcard, no address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsName(String);

impl DnsName {
    pub(crate) const ALLOWED: &str =
        "the DNS name that the certificate holds, such as hq.example: no wildcard, no address";

    /// Reads a name; `None` if it is none.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let legal = !word.ends_with('.') && rustls_pki_types::DnsName::try_from(word).is_ok();
        legal.then(|| Self(word.to_ascii_lowercase()))
    }

    /// The name, in small letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for DnsName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        text(from, Self::ALLOWED, Self::parse)
    }
}

/// A host, by name or address, and a TCP port to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// Reads `name:port`, `192.0.2.1:port` or `[2001:db8::1]:port`; `None` for anything else.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let (host, port) = word.rsplit_once(':')?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let address: Ipv6Addr = rest.strip_suffix(']')?.parse().ok()?;
                address.to_string()
            }
            None => match host.parse::<Ipv4Addr>() {
                Ok(address) => address.to_string(),
                Err(_) => DnsName::parse(host)?.0,
            },
        };
        let digits = port.bytes().all(|digit| digit.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port != 0)?;
        Some(Self { host, port })
    }

    /// The name, or the address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(out, "[{}]:{}", self.host, self.port),
            false => write!(out, "{}:{}", self.host, self.port),
        }
    }
}

impl<'de> Deserialize<'de> for HostPort {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let allowed = "host:port such as hq.example:8250, 192.0.2.1:8250 or [2001:db8::1]:8250";
        text(from, allowed, Self::parse)
    }
}

/// The name of a group of servers, 1 to 255 bytes. Both ends must write it alike, since it goes into the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group(String);

impl Group {
    /// The name, whose bytes go into the key schedule.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let allowed = "1 to 255 bytes of text without control characters";
        text(from, allowed, |word| {
            ((1..=255).contains(&word.len()) && !word.chars().any(char::is_control))
                .then(|| Self(word.to_owned()))
        })
    }
}

/// A unicast IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unicast(Ipv6Addr);

impl Unicast {
    /// The address, network order.
    #[must_use]
    pub fn octets(self) -> [u8; 16] {
        self.0.octets()
    }
}

impl fmt::Display for Unicast {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl<'de> Deserialize<'de> for Unicast {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let allowed = "one unicast IPv6 address such as 2001:db8::1, or null";
        text(from, allowed, |word| {
            let address: Ipv6Addr = word.parse().ok()?;
            (!address.is_multicast() && !address.is_unspecified()).then_some(Self(address))
        })
    }
}

/// An address and a TCP port to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(SocketAddr);

impl Listen {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self(address)
    }

    /// Address and port.
    #[must_use]
    pub fn get(self) -> SocketAddr {
        self.0
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let allowed = "address:port such as 127.0.0.1:9464 or [::1]:9464";
        text(from, allowed, |word| word.parse().ok().map(Self))
    }
}

/// 32 bytes that nobody prints: a PairMasterSecret or a salt. Zeroed when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    pub(super) const ALLOWED: &str =
        "64 hexadecimal digits (32 bytes), as `openssl rand -hex 32` prints them";

    /// The bytes, for the key schedule.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether the same two bytes come again and again, as in a sample.
    pub(super) fn is_pattern(&self) -> bool {
        let (first, rest) = self.0.split_at(2);
        rest.chunks(2).all(|pair| pair == first)
    }

    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub(super) fn from_hex(digits: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(digits, &mut *bytes).ok()?;
        Some(Self(*bytes))
    }

    /// Takes 32 raw bytes.
    #[must_use]
    pub(super) fn from_raw(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(hidden)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Digits;

        impl Visitor<'_> for Digits {
            type Value = Secret;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(Secret::ALLOWED)
            }

            // Not by `text`, which would quote the value.
            fn visit_str<E: de::Error>(self, digits: &str) -> Result<Secret, E> {
                Secret::from_hex(digits).ok_or_else(|| {
                    let wrong = digits.chars().filter(|c| !c.is_ascii_hexdigit()).count();
                    let found = format!(
                        "{} characters, {wrong} of them no hexadecimal digit",
                        digits.chars().count()
                    );
                    E::invalid_value(Unexpected::Other(&found), &self)
                })
            }
        }

        from.deserialize_str(Digits)
    }
}

/// Secret bytes of any number, from a file of their own. Zeroed when dropped, never printed.
#[derive(Default)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    pub(super) fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(hidden)")
    }
}
