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

use super::options::{JUMBO_PAYLOAD, Options};
use super::pdmv2::{CLEAR_LEN, HEADER_LEN, OptionHeader, PDM_LEN, SEALED_LEN};
use super::tuple::FiveTuple;
use thiserror::Error;

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

const ETHERTYPE_AT: usize = 12;
const VLAN_TAG: usize = 4;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    if payload_len == 0 && header[ipv6::NEXT_HEADER] == protocol::HOP_BY_HOP {
        return jumbogram(rest);
    }
    let payload = rest
        .get(..payload_len.into())
        .ok_or(Malformed::PayloadLength)?;
    let parsed = chain(ip_at, header, payload, option_type)?;
    if header[ipv6::SRC] == 0xff || header[ipv6::DST] == 0xff {
        return Ok(match parsed {
            Parsed::Untouched(Untouched::NeighbourDiscovery | Untouched::Mld) => parsed,
            _ => Parsed::Untouched(Untouched::Multicast),
        });
    }
    Ok(parsed)
}

/// The Ethertype behind VLAN tags, and the offset of what it names. A third tag's Ethertype is returned as it is.
#[inline(always)]
fn link(frame: &[u8]) -> Result<(u16, usize), Malformed> {
    let mut at = ETHERTYPE_AT;
    let mut tags = 0;
    loop {
        let ethertype = frame
            .get(at..)
            .and_then(<[u8]>::first_chunk)
            .map(|&bytes| u16::from_be_bytes(bytes))
            .ok_or(Malformed::Truncated)?;
        match ethertype {
            ETHERTYPE_CUSTOMER_TAG | ETHERTYPE_SERVICE_TAG | ETHERTYPE_OLD_SERVICE_TAG
                if tags < MAX_VLAN_TAGS =>
            {
                tags += 1;
                at += VLAN_TAG;
            }
            _ => return Ok((ethertype, at + 2)),
        }
    }
}

/// A packet of Payload Length 0 that begins with a Hop-by-Hop header: a jumbogram or nothing legal.
#[cold]
fn jumbogram(rest: &[u8]) -> Result<Parsed, Malformed> {
    let (hop_by_hop, _) = Extension::split(rest)?;
    for option in Options::of(hop_by_hop.whole) {
        if option.map_err(|_| Malformed::OptionLength)?.kind == JUMBO_PAYLOAD {
            return Ok(Parsed::Untouched(Untouched::Jumbogram));
        }
    }
    Err(Malformed::PayloadLength)
}

/// An extension header that is known to end within the packet.
struct Extension<'a> {
    /// Its first eight bytes, which all of them have.
    head: &'a [u8; 8],
    whole: &'a [u8],
}

impl<'a> Extension<'a> {
    /// One whose second byte counts the 8-byte units behind the first, and what follows it.
    #[inline(always)]
    fn split(rest: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let head = rest.first_chunk::<8>().ok_or(Malformed::HeaderChain)?;
        let len = (usize::from(head[1]) + 1) * 8;
        let (whole, rest) = rest.split_at_checked(len).ok_or(Malformed::HeaderChain)?;
        Ok((Self { head, whole }, rest))
    }
}

/// A Destination Options header that the walk has passed.
struct DestOpts {
    at: u16,
    named_at: u16,
    option: Option<PdmOption>,
}

/// Walks the extension headers to the upper layer.
#[inline(always)]
fn chain(
    ip_at: usize,
    header: &[u8; IPV6_LEN],
    payload: &[u8],
    option_type: u8,
) -> Result<Parsed, Malformed> {
    let ([src, dst], []) = header[ipv6::SRC..].as_chunks::<16>() else {
        return Err(Malformed::Truncated);
    };
    let mut dst = dst;
    let mut next = header[ipv6::NEXT_HEADER];
    let mut rest = payload;
    // Offsets into the frame fit 16 bits: at most 22 bytes of link, 40 of IPv6 and 17 headers of 2,048.
    let mut named_at = ip_at + ipv6::NEXT_HEADER;
    let mut at = ip_at + IPV6_LEN;
    // The header just passed, if it was Destination Options.
    let mut dest_opts = None::<DestOpts>;

    for _ in 0..=MAX_EXTENSIONS {
        let untouched = |least, why| match rest.len() < least {
            true => Err(Malformed::HeaderChain),
            false => Ok(Parsed::Untouched(why)),
        };
        let (extension, behind) = match next {
            protocol::DESTINATION_OPTIONS => {
                let (extension, behind) = Extension::split(rest)?;
                dest_opts = Some(DestOpts {
                    at: at as u16,
                    named_at: named_at as u16,
                    option: find_option(extension.whole, at, option_type)?,
                });
                (extension, behind)
            }
            protocol::HOP_BY_HOP => {
                if rest.len() != payload.len() {
                    return Err(Malformed::HopByHopOrder);
                }
                let (extension, behind) = Extension::split(rest)?;
                check_hop_by_hop(extension.whole)?;
                (extension, behind)
            }
            protocol::ROUTING => {
                let (extension, behind) = Extension::split(rest)?;
                match final_destination(&extension)? {
                    Route::Travelled => {}
                    Route::Ends(address) => dst = address,
                    Route::Unknown => return Ok(Parsed::Untouched(Untouched::RoutingUnknown)),
                }
                dest_opts = None;
                (extension, behind)
            }
            protocol::SHIM6 => {
                let (extension, behind) = Extension::split(rest)?;
                // The P bit sets the payload header, which has no checksum, apart from Shim6's messages.
                if extension.head[2] & 0x80 == 0 {
                    return Ok(Parsed::Untouched(Untouched::HipShim6));
                }
                dest_opts = None;
                (extension, behind)
            }
            protocol::HIP => {
                return Extension::split(rest).map(|_| Parsed::Untouched(Untouched::HipShim6));
            }
            protocol::FRAGMENT => return untouched(8, Untouched::Fragment),
            protocol::ESP => return untouched(8, Untouched::Esp),
            protocol::AH => return untouched(12, Untouched::Ah),
            protocol::NO_NEXT_HEADER => return untouched(0, Untouched::NoNextHeader),
            _ => {
                let flow = match upper_layer(next, rest)? {
                    Upper::Flow(flow) => flow,
                    Upper::Untouched(why) => return Ok(Parsed::Untouched(why)),
                };
                if dst[0] == 0xff {
                    return Ok(Parsed::Untouched(Untouched::Multicast));
                }
                return Ok(Parsed::Packet(Ipv6Packet {
                    tuple: FiveTuple {
                        src: *src,
                        dst: *dst,
                        sport: flow.sport,
                        dport: flow.dport,
                        protocol: next,
                    },
                    ip_at: ip_at as u16,
                    upper_at: at as u16,
                    next_header_at: named_at as u16,
                    dest_opts_at: dest_opts.as_ref().map(|header| header.at),
                    option: dest_opts.as_ref().and_then(|header| header.option),
                    dest_opts_named_at: dest_opts.map_or(named_at as u16, |header| header.named_at),
                    payload_len: payload.len() as u16,
                    is_tcp_syn: flow.is_tcp_syn,
                }));
            }
        };
        next = extension.head[0];
        named_at = at;
        at += extension.whole.len();
        rest = behind;
    }
    Err(Malformed::HeaderChain)
}

/// Checks all options of a Destination Options header, and finds the first of the wanted type.
#[inline(always)]
fn find_option(
    header: &[u8],
    header_at: usize,
    option_type: u8,
) -> Result<Option<PdmOption>, Malformed> {
    let mut found = None;
    for option in Options::of(header) {
        let option = option.map_err(|_| Malformed::OptionLength)?;
        if option.kind == option_type && found.is_none() {
            found = Some(PdmOption {
                at: (header_at + option.at) as u16,
                kind: OptionKind::of(option.bytes),
            });
        }
    }
    Ok(found)
}

/// Checks all options of a Hop-by-Hop header. A packet with a Payload Length may not claim to be a jumbogram too.
fn check_hop_by_hop(header: &[u8]) -> Result<(), Malformed> {
    for option in Options::of(header) {
        if option.map_err(|_| Malformed::OptionLength)?.kind == JUMBO_PAYLOAD {
            return Err(Malformed::PayloadLength);
        }
    }
    Ok(())
}

enum Route<'a> {
    /// No segments left: the IPv6 destination is the final one.
    Travelled,
    /// Segments left, the last of them this one.
    Ends(&'a [u8; 16]),
    Unknown,
}

/// Where a routing header leads to. Type 4 lists the last segment first, and type 2 has only one.
fn final_destination<'a>(routing: &Extension<'a>) -> Result<Route<'a>, Malformed> {
    const HOME_ADDRESS: u8 = 2;
    const SEGMENT_ROUTING: u8 = 4;
    let &[_, ext_len, routing_type, segments_left, last_entry, ..] = routing.head;
    if segments_left == 0 {
        return Ok(Route::Travelled);
    }
    let consistent = match routing_type {
        HOME_ADDRESS => ext_len == 2 && segments_left == 1,
        // Each address takes two units. A reduced list (RFC 8986) lacks the first segment, hence one more may be left.
        SEGMENT_ROUTING => {
            let listed = u16::from(last_entry) + 1;
            listed * 2 <= ext_len.into() && u16::from(segments_left) <= listed
        }
        _ => return Ok(Route::Unknown),
    };
    match routing.whole.get(8..).and_then(<[u8]>::first_chunk) {
        Some(address) if consistent => Ok(Route::Ends(address)),
        _ => Err(Malformed::Routing),
    }
}

struct Flow {
    sport: u16,
    dport: u16,
    is_tcp_syn: bool,
}

enum Upper {
    Flow(Flow),
    Untouched(Untouched),
}

/// Ports and flags, or what keeps a packet from being marked. `header` is all of the payload from the upper layer on.
#[inline(always)]
fn upper_layer(protocol: u8, header: &[u8]) -> Result<Upper, Malformed> {
    const FLAGS_AT: usize = 13;
    const SYN: u8 = 0x02;
    let least = match protocol {
        protocol::TCP => 20,
        protocol::UDP | protocol::UDP_LITE => 8,
        protocol::SCTP | protocol::DCCP => 12,
        protocol::ICMPV6 => return icmpv6(header),
        _ => {
            return Ok(Upper::Flow(Flow {
                sport: 0,
                dport: 0,
                is_tcp_syn: false,
            }));
        }
    };
    match *header {
        [s0, s1, d0, d1, ..] if header.len() >= least => Ok(Upper::Flow(Flow {
            sport: u16::from_be_bytes([s0, s1]),
            dport: u16::from_be_bytes([d0, d1]),
            is_tcp_syn: protocol == protocol::TCP
                && header.get(FLAGS_AT).is_some_and(|flags| flags & SYN != 0),
        })),
        _ => Err(Malformed::Truncated),
    }
}

/// Echo is a flow without ports. What keeps a link together, and errors, are let through.
fn icmpv6(header: &[u8]) -> Result<Upper, Malformed> {
    let &[icmp_type, _, _, _] = header.first_chunk().ok_or(Malformed::Truncated)?;
    match icmp_type {
        128 | 129 if header.len() < 8 => Err(Malformed::Truncated),
        128 | 129 => Ok(Upper::Flow(Flow {
            sport: 0,
            dport: 0,
            is_tcp_syn: false,
        })),
        130..=132 | 143 => Ok(Upper::Untouched(Untouched::Mld)),
        133..=137 => Ok(Upper::Untouched(Untouched::NeighbourDiscovery)),
        _ => Ok(Upper::Untouched(Untouched::Icmpv6Other)),
    }
}
