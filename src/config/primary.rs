//! `primary`: this process is a Primary (protocol section 5): its name and addresses, its store, its peers and its Secondaries.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{
    pairing::{Aead, Kem, Mode, Protection, Suite},
    scalar::{At, Period, text, words},
    types::{DnsName, Group, HostPort, Listen, Name, Prefix, SecretBytes},
};

/// `primary`. All its relative paths start at the configuration's folder.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Primary {
    /// Addresses and TCP ports where Secondaries, analyzers and Primary Clients connect. Default `[::]:8250`; `[]` if nobody does.
    #[serde(default = "listen")]
    pub listen: At<Vec<At<Listen>>>,
    /// The certificate and its chain, PEM. Must be given.
    pub certificate: At<PathBuf>,
    /// The certificate's private key, PEM, not accessible to others. Must be given.
    pub key: At<PathBuf>,
    /// The authorities that sign the others' certificates, PEM. Must be given.
    pub authorities: At<PathBuf>,
    /// What these have revoked (CRL), PEM. Default null: nothing.
    #[serde(default)]
    pub revocations: Option<At<PathBuf>>,
    /// Where generations, lists and secrets are kept. Default: a file, /var/lib/pdmgate/primary.redb.
    #[serde(default)]
    pub store: PrimaryStore,
    /// Path of the local socket of `pdmgate registrations`, `renew`, `revoke` and `lists`. Default /run/pdmgate/primary.sock; null for none.
    #[serde(default = "socket")]
    pub socket: Option<PathBuf>,
    /// A file to which each pairing secret is appended, for `pdmgate decode` afterwards: who reads it reads all metrics. Default null: none.
    #[serde(default)]
    pub keylog: Option<PathBuf>,
    /// The pairings with other Primaries, at most 256. Default none.
    #[serde(default)]
    pub pairings: Vec<PrimaryPairing>,
    /// The Secondaries that may register. Default none.
    #[serde(default)]
    pub secondaries: Vec<AllowedSecondary>,
    /// How long a Secondary that is away keeps its place in the lists. 1s to 1day, default 5m.
    #[serde(default = "five_minutes")]
    pub forget_after: Period<1_000, 86_400_000>,
}

impl Primary {
    /// The pairing whose Primary Client has a certificate for `peer`: what an accepted connection is looked up by.
    #[must_use]
    pub fn pairing_with_client(&self, peer: &str) -> Option<&PrimaryPairing> {
        self.pairings
            .iter()
            .find(|pairing| *pairing.role == PairingRole::Server && pairing.peer.as_str() == peer)
    }

    /// The Secondary of a name.
    #[must_use]
    pub fn secondary(&self, name: &str) -> Option<&AllowedSecondary> {
        self.secondaries
            .iter()
            .find(|secondary| secondary.name.as_str() == name)
    }

    /// The files that TLS needs.
    #[must_use]
    pub fn tls(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.certificate.to_path_buf(),
            key: self.key.to_path_buf(),
            authorities: self.authorities.to_path_buf(),
            revocations: self.revocations.as_deref().cloned(),
        }
    }
}

/// The files that one end of TLS needs, each PEM; paths are ready to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its chain.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The authorities that sign the others' certificates.
    pub authorities: PathBuf,
    /// What these have revoked.
    pub revocations: Option<PathBuf>,
}

impl TlsFiles {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &PathBuf> {
        let files = [&self.certificate, &self.key, &self.authorities];
        files.into_iter().chain(&self.revocations)
    }
}

fn listen() -> At<Vec<At<Listen>>> {
    let any = std::net::Ipv6Addr::UNSPECIFIED;
    vec![Listen::new((any, 8250).into()).into()].into()
}

fn socket() -> Option<PathBuf> {
    Some("/run/pdmgate/primary.sock".into())
}

fn five_minutes() -> Period<1_000, 86_400_000> {
    Period(Duration::from_secs(300))
}

/// `primary.store`: where generations, lists and secrets are kept; one of the two.
#[derive(Debug, Deserialize)]
pub enum PrimaryStore {
    /// `path`: a file of this process alone, mode 0600; its folder must exist.
    #[serde(rename = "path")]
    Embedded(PathBuf),
    /// `etcd`: shared by the replicas of one Primary.
    #[serde(rename = "etcd")]
    Etcd(Box<EtcdStore>),
}

impl Default for PrimaryStore {
    fn default() -> Self {
        Self::Embedded("/var/lib/pdmgate/primary.redb".into())
    }
}

/// `primary.store.etcd`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdStore {
    /// URLs of the cluster's members, at least one; all `https` or all `http`. Must be given.
    pub endpoints: At<Vec<At<Endpoint>>>,
    /// What all keys begin with, 1 to 255 bytes that end in `/`; the replicas of one Primary write the same. Default `pdmgate/`.
    #[serde(default)]
    pub prefix: KeyPrefix,
    /// How long the replica that renews keys may be silent before another takes over; rounded up to seconds. 1s to 5m, default 10s.
    #[serde(default = "ten_seconds")]
    pub lease: Period<1_000, 300_000>,
    /// The authorities of the members' certificates, PEM. Must be given with `https`.
    #[serde(default)]
    pub authorities: Option<At<PathBuf>>,
    /// The certificate for the members, PEM. Default null: none; with `key` or not at all.
    #[serde(default)]
    pub certificate: Option<At<PathBuf>>,
    /// Its private key, PEM, not accessible to others.
    #[serde(default)]
    pub key: Option<At<PathBuf>>,
    /// The user's name. Default null: none; with `password_file` or not at all.
    #[serde(default)]
    pub user: Option<At<String>>,
    /// A file with the user's password and nothing else but a line end, not accessible to others.
    #[serde(default)]
    pub password_file: Option<At<PathBuf>>,
    /// What stands in `password_file`, UTF-8; empty without one.
    #[serde(skip)]
    pub password: SecretBytes,
}

fn ten_seconds() -> Period<1_000, 300_000> {
    Period(Duration::from_secs(10))
}

/// URL of a member of the cluster: `https://host:port` or `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the connection is TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.0.starts_with("https:")
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let allowed = "https://host:port, such as https://etcd1.example:2379 (or http://…, readable on the way)";
        text(from, allowed, |word| {
            let host = word
                .strip_prefix("https://")
                .or_else(|| word.strip_prefix("http://"))?;
            HostPort::parse(host).map(|_| Self(word.to_owned()))
        })
    }
}

/// What a Primary's keys in the cluster begin with: 1 to 255 bytes without control characters that end in `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPrefix(String);

impl KeyPrefix {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for KeyPrefix {
    fn default() -> Self {
        Self("pdmgate/".to_owned())
    }
}

impl<'de> Deserialize<'de> for KeyPrefix {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let allowed = "1 to 255 bytes of text that end in /, so that no prefix begins another";
        text(from, allowed, |word| {
            (word.len() <= 255 && word.ends_with('/') && !word.chars().any(char::is_control))
                .then(|| Self(word.to_owned()))
        })
    }
}

/// One of `primary.pairings`: what we and one other Primary agree on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrimaryPairing {
    /// 1 to 64 letters, digits, dots, dashes and underscores, once in the file. Local: the peer may call it otherwise. Must be given.
    pub name: At<Name>,
    /// The name in the peer's certificate; once a role. Must be given.
    pub peer: At<DnsName>,
    /// Whether we connect and own the client list, or are connected to and own the server list. Must be given.
    pub role: At<PairingRole>,
    /// Where the peer listens, tried in turn. Must be given for `client`, and only there.
    #[serde(default)]
    pub connect: Option<At<Vec<HostPort>>>,
    /// Who shares which secret. For `server` only; default `trusted-servers`. Use [`mode`](Self::mode).
    #[serde(default, rename = "mode")]
    pub(super) given_mode: Option<At<Mode>>,
    /// Whether the metrics are sealed. For `server` only; default `sealed`. Use [`protection`](Self::protection).
    #[serde(default, rename = "protection")]
    pub(super) given_protection: Option<At<Protection>>,
    /// What we can, best first: the peer's wish counts where it connects. 1 to 6, each once. Default all six, x25519 with aes-128-gcm first.
    #[serde(default = "all_suites")]
    pub suites: At<Vec<At<Suite>>>,
    /// A secret that both have from elsewhere, for HPKE's PSK mode. Both ends have it or neither. Default null.
    #[serde(default)]
    pub psk: Option<Psk>,
    /// The age of a PairMasterSecret at which a `client` agrees on another, and a `server` asks for another. 1s to 30days. Default 24h for
    /// `client`, null (never asks) for `server`. Use [`renew_after`](Self::renew_after).
    #[serde(default, rename = "renew_after")]
    pub(super) given_renew_after: Option<Period<1_000, 2_592_000_000>>,
    /// In asymmetric-poll, whether our Secondaries ask for the keys of pairs or hold them from the start. Default `ask` for `server`, `hold`
    /// for `client`. Use [`asymmetric_poll`](Self::asymmetric_poll).
    #[serde(default, rename = "asymmetric_poll")]
    pub(super) given_asymmetric_poll: Option<PairKeys>,
    /// Our own list: the clients for `client`, the servers for `server`. 1 to 8192 entries. Must be given.
    pub entries: At<Vec<PrimaryEntry>>,
    /// The addresses that the peer may list: a list with an entry that lies in none of these is refused. Default none: the peer is
    /// trusted with whatever it lists.
    #[serde(default)]
    pub peer_entries: Vec<At<Prefix>>,
    /// Names in the certificates of those who may have the pairing's secrets to analyse captures. Default none.
    #[serde(default)]
    pub analyzers: Vec<At<DnsName>>,
}

impl PrimaryPairing {
    /// Where the peer listens; empty for `server`.
    #[must_use]
    pub fn addresses(&self) -> &[HostPort] {
        self.connect.as_deref().map_or(&[], Vec::as_slice)
    }

    /// The mode that we decide on as the server; without meaning for `client`, which learns it.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.given_mode.as_deref().copied().unwrap_or_default()
    }

    /// The protection that we decide on as the server; without meaning for `client`, which learns it.
    #[must_use]
    pub fn protection(&self) -> Protection {
        self.given_protection
            .as_deref()
            .copied()
            .unwrap_or_default()
    }

    /// The age at which a PairMasterSecret is renewed at our wish; `None` if that is left to the peer.
    #[must_use]
    pub fn renew_after(&self) -> Option<Duration> {
        match (self.given_renew_after, *self.role) {
            (Some(age), _) => Some(age.get()),
            (None, PairingRole::Client) => Some(Duration::from_secs(24 * 3600)),
            (None, PairingRole::Server) => None,
        }
    }

    /// Whether our Secondaries ask for the keys of pairs.
    #[must_use]
    pub fn asymmetric_poll(&self) -> PairKeys {
        match (self.given_asymmetric_poll, *self.role) {
            (Some(given), _) => given,
            (None, PairingRole::Client) => PairKeys::Hold,
            (None, PairingRole::Server) => PairKeys::Ask,
        }
    }

    /// Whether a certificate of that name may analyse the pairing.
    #[must_use]
    pub fn is_analyzer(&self, name: &str) -> bool {
        self.analyzers
            .iter()
            .any(|analyzer| analyzer.as_str() == name)
    }
}

fn all_suites() -> At<Vec<At<Suite>>> {
    let suites = [Kem::X25519, Kem::P256].into_iter().flat_map(|kem| {
        let aeads = [Aead::Aes128Gcm, Aead::Aes256Gcm, Aead::ChaCha20Poly1305];
        aeads.map(|aead| Suite { kem, aead }.into())
    });
    suites.collect::<Vec<_>>().into()
}

words! {
    /// `role`: our side of a pairing.
    PairingRole {
        /// The Primary Client: connects, owns the client list, renews.
        Client = "client",
        /// The Primary Server: is connected to, owns the server list, decides mode and protection.
        Server = "server",
    }
}

words! {
    /// `asymmetric_poll`: how our Secondaries come by the keys of pairs.
    PairKeys {
        /// They ask when the first packet of a pair comes; it and those after it pass unmarked until the answer is there.
        Ask = "ask",
        /// They hold from the start what every pair needs.
        Hold = "hold",
    }
}

/// `psk`: a secret for HPKE's PSK mode (RFC 9180 section 5.1.2).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Psk {
    /// Its name, 1 to 255 bytes of text, the same at both ends. Must be given.
    pub id: PskId,
    /// A file with at least 32 bytes, as hexadecimal digits or raw, not accessible to others: `pdmgate keygen psk`. Must be given.
    pub file: At<PathBuf>,
    /// What stands in `file`: 32 to 1024 bytes.
    #[serde(skip)]
    pub key: SecretBytes,
}

/// The name of a pre-shared key, 1 to 255 bytes of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PskId(String);

impl PskId {
    /// The name, whose bytes are HPKE's `psk_id`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for PskId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let allowed = "1 to 255 bytes of text without control characters";
        text(from, allowed, |word| {
            ((1..=255).contains(&word.len()) && !word.chars().any(char::is_control))
                .then(|| Self(word.to_owned()))
        })
    }
}

/// An entry of our own list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrimaryEntry {
    /// The hosts; one host is a /128. The most specific entry counts. Must be given, once in the list.
    pub prefix: At<Prefix>,
    /// The group whose servers share secrets, 1 to 255 bytes of text. For `server` only; must be given in trusted-servers, sealed.
    #[serde(default)]
    pub group: Option<At<Group>>,
}

/// One of `primary.secondaries`: who may register, and for what.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowedSecondary {
    /// The name in its certificate, once in the list. Must be given.
    pub name: At<DnsName>,
    /// The entries that it may serve, 1 to 4096, each of which stands in a pairing's. Others may serve them too. Must be given.
    pub entries: At<Vec<At<Prefix>>>,
}
