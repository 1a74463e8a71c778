//! From a frame to what the appliance needs to know of it, in one pass that writes nothing.
//!
//! Ethernet with 0 to 2 VLAN tags (IEEE 802.1Q), IPv6 and its extension headers (RFC 8200 sections 3 and 4), routing
//! headers of type 2 (RFC 6275 section 6.4) and 4 (RFC 8754 section 2), jumbograms (RFC 2675), Shim6 (RFC 5533 section
//! 5), and of the upper layer its ports (RFC 9293, 768, 3828, 9260, 4340) or its ICMPv6 type (RFC 4443, 4861, 3810).
//!
//! ```text
//!            ip_at                        dest_opts_at           upper_at
//!              |                               |                    |
//! +------------+-------------+- - - - - - - - -+--------------------+- - - - - - -+- - - - - - -+
//! | MACs, tags | IPv6 header | other extension | Destination Options| TCP, UDP, … |  Ethernet   |
//! | Ethertype  |             |     headers     |   [PadN] [PDMv2]   |             |  padding    |
//! +------------+-------------+- - - - - - - - -+--------------------+- - - - - - -+- - - - - - -+
//!                           \_________________ Payload Length ___________________/
//! ```
//!
//! Nothing behind Payload Length is ever looked at: it is not part of the packet. The one exception is a jumbogram,
//! which has Payload Length 0 and says so in its Hop-by-Hop header.
//!
//! Every option of every options header that is passed is checked to end within its header. The PDM or PDMv2 option is
//! only looked for in the Destination Options header right before the upper layer; one before a routing header is
//! meant for the nodes on the way.

use thiserror::Error;

use super::pdmv2::{CLEAR_LEN, HEADER_LEN, OptionHeader, PDM_LEN, SEALED_LEN};
use super::tuple::FiveTuple;
use chain::{Chain, Walk};

mod chain;
#[cfg(test)]
mod tests;

/// IANA protocol numbers: extension headers and the upper layers that parsing knows.
#[allow(missing_docs)]
pub mod protocol {
    pub const HOP_BY_HOP: u8 = 0;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const DCCP: u8 = 33;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const ESP: u8 = 50;
    pub const AH: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const NO_NEXT_HEADER: u8 = 59;
    pub const DESTINATION_OPTIONS: u8 = 60;
    pub const SCTP: u8 = 132;
    pub const MOBILITY: u8 = 135;
    pub const UDP_LITE: u8 = 136;
    pub const HIP: u8 = 139;
    pub const SHIM6: u8 = 140;
}

/// Bytes of the fixed IPv6 header.
pub const IPV6_LEN: usize = 40;
/// Bytes of two MAC addresses and an Ethertype.
pub const ETHERNET_LEN: usize = 14;
/// Extension headers before a chain counts as malformed. RFC 8200 knows 7, of which one may come twice.
pub const MAX_EXTENSIONS: usize = 16;

/// Offsets within the fixed IPv6 header.
pub(super) mod ipv6 {
    pub const PAYLOAD_LENGTH: usize = 4;
    pub const NEXT_HEADER: usize = 6;
    pub const HOP_LIMIT: usize = 7;
    pub const SRC: usize = 8;
    pub const DST: usize = 24;
}

/// Offset of the flags in a TCP header, and the one that opens a connection.
pub(super) const TCP_FLAGS: usize = 13;
pub(super) const TCP_SYN: u8 = 0x02;

const ETHERTYPE_AT: usize = 12;
const MAX_VLAN_TAGS: usize = 2;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_CUSTOMER_TAG: u16 = 0x8100;
const ETHERTYPE_SERVICE_TAG: u16 = 0x88a8;
const ETHERTYPE_OLD_SERVICE_TAG: u16 = 0x9100;

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// An IPv6 packet that could carry the option.
    Packet(Ipv6Packet),
    /// A frame that goes on as it is.
    Untouched(Untouched),
}

/// Why a well-formed frame goes on as it is. Each is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Untouched {
    /// IPv4.
    Ipv4,
    /// Neither IPv4 nor IPv6, or behind more than two VLAN tags.
    NonIp,
    /// To a multicast group (or, illegally, from one), and neither of the two below.
    Multicast,
    /// ICMPv6 133 to 137: router and neighbour discovery, redirect (RFC 4861).
    NeighbourDiscovery,
    /// ICMPv6 130 to 132 and 143: multicast listener discovery (RFC 2710, RFC 3810).
    Mld,
    /// ICMPv6 that is neither echo nor one of the above, errors included.
    Icmpv6Other,
    /// Has a fragment header, be it the only fragment.
    Fragment,
    /// Encapsulating Security Payload: the option belongs behind it (RFC 8250 section 3.5), out of reach.
    Esp,
    /// Authentication Header: what it protects must not change.
    Ah,
    /// A HIP or Shim6 message, whose checksum covers its own Next Header field.
    HipShim6,
    /// Segments left in a routing header whose final destination is not known how to read.
    RoutingUnknown,
    /// The chain ends with "no next header": there is no upper layer.
    NoNextHeader,
    /// Longer than 65,575 bytes (RFC 2675).
    Jumbogram,
}

impl Untouched {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 13] = [
        Self::Ipv4,
        Self::NonIp,
        Self::Multicast,
        Self::NeighbourDiscovery,
        Self::Mld,
        Self::Icmpv6Other,
        Self::Fragment,
        Self::Esp,
        Self::Ah,
        Self::HipShim6,
        Self::RoutingUnknown,
        Self::NoNextHeader,
        Self::Jumbogram,
    ];
}

/// Why a frame is malformed. Each is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[repr(u8)]
pub enum Malformed {
    /// The Ethernet, VLAN or IPv6 header does not end within the frame, or the upper-layer header within the packet.
    #[error("expected a whole Ethernet, IPv6 and upper-layer header, found one that is cut short")]
    Truncated,
    /// The Ethertype says IPv6, the first four bits of the header do not.
    #[error("expected IP version 6 behind the IPv6 Ethertype, found another")]
    Version,
    /// Longer than the frame, or contradicted by a Jumbo Payload option.
    #[error(
        "expected a Payload Length that the frame holds and that no jumbogram option contradicts"
    )]
    PayloadLength,
    /// An extension header does not end within the packet, or there are more than [`MAX_EXTENSIONS`].
    #[error("expected at most {MAX_EXTENSIONS} extension headers that end within the packet")]
    HeaderChain,
    /// An option does not end within its header.
    #[error("expected options that end within their header, found an Option Length beyond it")]
    OptionLength,
    /// A Hop-by-Hop Options header that is not the first.
    #[error("expected Hop-by-Hop Options only right behind the IPv6 header, found them further on")]
    HopByHopOrder,
    /// A routing header of type 2 or 4 whose fields contradict each other.
    #[error("expected a routing header with as many addresses as Segments Left needs")]
    Routing,
}

impl Malformed {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 7] = [
        Self::Truncated,
        Self::Version,
        Self::PayloadLength,
        Self::HeaderChain,
        Self::OptionLength,
        Self::HopByHopOrder,
        Self::Routing,
    ];
}

/// An IPv6 packet with an upper layer that the appliance can see. Offsets count from the start of the frame.
// The compiler's own order puts the addresses at an odd distance from the enum's tag, and copying them then stalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ipv6Packet {
    /// Addresses, ports and upper-layer protocol. The destination is the final one: where a routing header of type 2
    /// or 4 has segments left, the address in that header.
    pub tuple: FiveTuple,
    /// Of the IPv6 header.
    pub ip_at: u16,
    /// Of the upper-layer header.
    pub upper_at: u16,
    /// Of the Next Header byte that names the upper layer.
    pub next_header_at: u16,
    /// Of the Destination Options header right before the upper layer, if there is one.
    pub dest_opts_at: Option<u16>,
    /// The first PDM or PDMv2 option in that header.
    pub option: Option<PdmOption>,
    /// Whether there is one in a header before that one, where it is not for the upper layer's ends: it is not read, but none joins it.
    pub has_option_before: bool,
    /// Of the Next Header byte that names the Destination Options header; without one, equals `next_header_at`.
    pub(super) dest_opts_named_at: u16,
    /// Payload Length of the IPv6 header, in bytes.
    pub payload_len: u16,
    /// Whether this is TCP (its header is at `upper_at`) with the SYN flag set.
    pub is_tcp_syn: bool,
}

impl Ipv6Packet {
    /// Bytes of IPv6 header and payload: what an MTU limits.
    #[must_use]
    pub fn l3_len(&self) -> u32 {
        IPV6_LEN as u32 + u32::from(self.payload_len)
    }

    /// Offset of the first byte behind the packet, where Ethernet padding may stand.
    #[must_use]
    pub fn end_at(&self) -> usize {
        usize::from(self.ip_at) + IPV6_LEN + usize::from(self.payload_len)
    }
}

/// A PDM or PDMv2 option that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PdmOption {
    /// Offset of the Option Type byte from the start of the frame.
    pub at: u16,
    /// What follows, and thereby how long it is.
    pub kind: OptionKind,
}

/// What the option's length and first fields make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OptionKind {
    /// RFC 8250: [`super::pdm::PDM_SIZE`] bytes.
    Pdm,
    /// PDMv2 in the clear: [`super::pdmv2::CLEAR_SIZE`] bytes.
    Clear,
    /// PDMv2 sealed: [`super::pdmv2::SEALED_SIZE`] bytes.
    Sealed,
    /// The right type, but another length, another version or a Random Number of 0.
    Unknown,
}

impl OptionKind {
    fn of(option: &[u8]) -> Self {
        let Some(header) = option.first_chunk::<HEADER_LEN>() else {
            return Self::Unknown;
        };
        match header[1] {
            PDM_LEN => Self::Pdm,
            CLEAR_LEN | SEALED_LEN => match OptionHeader::from_bytes(header) {
                Ok(OptionHeader { sealed: true, .. }) => Self::Sealed,
                Ok(OptionHeader { sealed: false, .. }) => Self::Clear,
                Err(_) => Self::Unknown,
            },
            _ => Self::Unknown,
        }
    }
}

/// Reads a frame, from its Ethernet header on. `option_type` is the type of PDM and PDMv2 options, not a padding's.
///
/// # Errors
/// [`Malformed`] says what is wrong with the frame. How the frame is to be treated is the caller's policy.
pub fn parse(frame: &[u8], option_type: u8) -> Result<Parsed, Malformed> {
    let (ethertype, ip_at) = link(frame)?;
    match ethertype {
        ETHERTYPE_IPV6 => {}
        ETHERTYPE_IPV4 => return Ok(Parsed::Untouched(Untouched::Ipv4)),
        _ => return Ok(Parsed::Untouched(Untouched::NonIp)),
    }
    let (header, rest) = frame
        .get(ip_at..)
        .and_then(<[u8]>::split_first_chunk::<IPV6_LEN>)
        .ok_or(Malformed::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Malformed::Version);
    }
    let payload_len = u16::from_be_bytes([
        header[ipv6::PAYLOAD_LENGTH],
        header[ipv6::PAYLOAD_LENGTH + 1],
    ]);
    let payload = rest
        .get(..payload_len.into())
        .ok_or(Malformed::PayloadLength)?;
    let ([src, first_dst], []) = header[ipv6::SRC..].as_chunks::<16>() else {
        return Err(Malformed::Truncated);
    };
    let to_group = src[0] == 0xff || first_dst[0] == 0xff;
    let untouched = |why| {
        Ok(Parsed::Untouched(match why {
            Untouched::NeighbourDiscovery | Untouched::Mld => why,
            _ if to_group => Untouched::Multicast,
            _ => why,
        }))
    };

    let chain = Chain {
        next: header[ipv6::NEXT_HEADER],
        named_at: (ip_at + ipv6::NEXT_HEADER) as u16,
        at: (ip_at + IPV6_LEN) as u16,
        rest: payload,
        dst: first_dst,
        dest_opts: None,
        has_option: false,
    };
    let upper = match chain.next {
        protocol::TCP | protocol::UDP => chain,
        _ if payload.is_empty() && chain.next == protocol::HOP_BY_HOP => {
            return untouched(chain::jumbogram(rest)?);
        }
        _ => match chain.walk(option_type)? {
            Walk::Upper(upper) => upper,
            Walk::Stops(why) => return untouched(why),
        },
    };
    let (sport, dport) = match upper.next {
        protocol::TCP => ports(upper.rest, 20)?,
        protocol::UDP | protocol::UDP_LITE => ports(upper.rest, 8)?,
        protocol::SCTP | protocol::DCCP => ports(upper.rest, 12)?,
        protocol::ICMPV6 => match icmpv6(upper.rest)? {
            Some(why) => return untouched(why),
            None => (0, 0),
        },
        _ => (0, 0),
    };
    if to_group || upper.dst[0] == 0xff {
        return Ok(Parsed::Untouched(Untouched::Multicast));
    }
    Ok(Parsed::Packet(Ipv6Packet {
        tuple: FiveTuple {
            src: *src,
            dst: *upper.dst,
            sport,
            dport,
            protocol: upper.next,
        },
        ip_at: ip_at as u16,
        upper_at: upper.at,
        next_header_at: upper.named_at,
        dest_opts_at: upper.dest_opts.map(|header| header.at),
        option: upper.dest_opts.and_then(|header| header.option),
        has_option_before: upper.has_option,
        dest_opts_named_at: upper
            .dest_opts
            .map_or(upper.named_at, |header| header.named_at),
        payload_len,
        is_tcp_syn: upper.next == protocol::TCP
            && upper
                .rest
                .get(TCP_FLAGS)
                .is_some_and(|flags| flags & TCP_SYN != 0),
    }))
}

/// The Ethertype behind VLAN tags, and the offset of what it names. A third tag's Ethertype is returned as it is.
#[inline(always)]
fn link(frame: &[u8]) -> Result<(u16, usize), Malformed> {
    let mut at = ETHERTYPE_AT;
    for tags in 0..=MAX_VLAN_TAGS {
        let ethertype = frame
            .get(at..)
            .and_then(<[u8]>::first_chunk)
            .ok_or(Malformed::Truncated)?;
        at += 2;
        match u16::from_be_bytes(*ethertype) {
            ETHERTYPE_IPV6 => return Ok((ETHERTYPE_IPV6, at)),
            ETHERTYPE_CUSTOMER_TAG | ETHERTYPE_SERVICE_TAG | ETHERTYPE_OLD_SERVICE_TAG
                if tags < MAX_VLAN_TAGS =>
            {
                at += 2
            }
            other => return Ok((other, at)),
        }
    }
    Err(Malformed::Truncated)
}

/// The ports with which an upper-layer header of at least `least` bytes begins.
#[inline(always)]
fn ports(header: &[u8], least: usize) -> Result<(u16, u16), Malformed> {
    match *header {
        [s0, s1, d0, d1, ..] if header.len() >= least => {
            Ok((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
        }
        _ => Err(Malformed::Truncated),
    }
}

/// Echo is a flow without ports. What keeps a link together is let through, and errors are.
fn icmpv6(header: &[u8]) -> Result<Option<Untouched>, Malformed> {
    let &[icmp_type, _, _, _] = header.first_chunk().ok_or(Malformed::Truncated)?;
    match icmp_type {
        128 | 129 if header.len() < 8 => Err(Malformed::Truncated),
        128 | 129 => Ok(None),
        130..=132 | 143 => Ok(Some(Untouched::Mld)),
        133..=137 => Ok(Some(Untouched::NeighbourDiscovery)),
        _ => Ok(Some(Untouched::Icmpv6Other)),
    }
}
