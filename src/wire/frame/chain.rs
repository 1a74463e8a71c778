//! The extension headers between the IPv6 header and the upper layer (RFC 8200 section 4).
//!
//! ```text
//!   named_at            at
//!    |                   |
//! - -+------+------------+------+-------------+- - - - - -
//!    | next | this one…  | next | Hdr Ext Len | the header that `next` names, 8 * (Hdr Ext Len + 1) bytes
//! - -+------+------------+------+-------------+- - - - - -
//! ```

use super::super::options::{JUMBO_PAYLOAD, Options};
use super::{MAX_EXTENSIONS, Malformed, OptionKind, PdmOption, Untouched, protocol};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DestOpts {
    /// Offset in the frame.
    pub at: u16,
    /// Offset of the Next Header byte that names it.
    pub named_at: u16,
    /// The first PDM or PDMv2 option in it.
    pub option: Option<PdmOption>,
}

/// A place in the chain of extension headers: before the first, between two, or in the end at the upper layer.
///
/// Offsets into the frame fit 16 bits: at most 22 bytes of link, 40 of IPv6 and 17 headers of 2,048.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain<'a> {
    /// What the header at this place is.
    pub next: u8,
    /// Offset of the byte that says so.
    pub named_at: u16,
    /// Offset of the header.
    pub at: u16,
    /// The payload from it on.
    pub rest: &'a [u8],
    /// The final destination, as far as known.
    pub dst: &'a [u8; 16],
    /// The header before this one, if that was Destination Options.
    pub dest_opts: Option<DestOpts>,
    /// Whether a header before that one has a PDM or PDMv2 option.
    pub has_option: bool,
}

/// Where a walk ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Walk<'a> {
    /// At the upper layer.
    Upper(Chain<'a>),
    /// At what keeps the packet from being marked.
    Stops(Untouched),
}

impl<'a> Chain<'a> {
    /// Passes the extension headers.
    #[inline(never)]
    pub fn walk(mut self, option_type: u8) -> Result<Walk<'a>, Malformed> {
        let payload_len = self.rest.len();
        for _ in 0..=MAX_EXTENSIONS {
            let too_short = |least| match self.rest.len() < least {
                true => Err(Malformed::HeaderChain),
                false => Ok(()),
            };
            match self.next {
                protocol::FRAGMENT => {
                    return too_short(8).map(|()| Walk::Stops(Untouched::Fragment));
                }
                protocol::ESP => return too_short(8).map(|()| Walk::Stops(Untouched::Esp)),
                protocol::AH => return too_short(12).map(|()| Walk::Stops(Untouched::Ah)),
                protocol::NO_NEXT_HEADER => return Ok(Walk::Stops(Untouched::NoNextHeader)),
                protocol::HOP_BY_HOP if self.rest.len() != payload_len => {
                    return Err(Malformed::HopByHopOrder);
                }
                protocol::HOP_BY_HOP
                | protocol::DESTINATION_OPTIONS
                | protocol::ROUTING
                | protocol::HIP
                | protocol::SHIM6 => {}
                _ => return Ok(Walk::Upper(self)),
            }
            let (extension, rest) = Extension::split(self.rest)?;
            let has_option =
                self.has_option || self.dest_opts.is_some_and(|passed| passed.option.is_some());
            let mut dest_opts = None;
            match self.next {
                protocol::HOP_BY_HOP if has_jumbo_payload(extension.whole)? => {
                    return Err(Malformed::PayloadLength);
                }
                protocol::HOP_BY_HOP => {}
                protocol::DESTINATION_OPTIONS => {
                    dest_opts = Some(DestOpts {
                        at: self.at,
                        named_at: self.named_at,
                        option: find_option(extension.whole, self.at, option_type)?,
                    });
                }
                protocol::ROUTING => match final_destination(&extension)? {
                    Route::Travelled => {}
                    Route::Ends(address) => self.dst = address,
                    Route::Unknown => return Ok(Walk::Stops(Untouched::RoutingUnknown)),
                },
                // Shim6's payload header has the P bit, and no checksum.
                protocol::SHIM6 if extension.head[2] & 0x80 != 0 => {}
                _ => return Ok(Walk::Stops(Untouched::HipShim6)),
            }
            self = Self {
                next: extension.head[0],
                named_at: self.at,
                at: self.at + extension.whole.len() as u16,
                rest,
                dst: self.dst,
                dest_opts,
                has_option,
            };
        }
        Err(Malformed::HeaderChain)
    }
}

/// A packet of Payload Length 0 that begins with a Hop-by-Hop header, `frame` from there on: a jumbogram or nothing legal.
#[cold]
pub(super) fn jumbogram(frame: &[u8]) -> Result<Untouched, Malformed> {
    let (hop_by_hop, _) = Extension::split(frame)?;
    match has_jumbo_payload(hop_by_hop.whole)? {
        true => Ok(Untouched::Jumbogram),
        false => Err(Malformed::PayloadLength),
    }
}

/// Checks all options of a Hop-by-Hop header, and whether one claims that the packet is a jumbogram.
fn has_jumbo_payload(header: &[u8]) -> Result<bool, Malformed> {
    let mut found = false;
    for option in Options::of(header) {
        found |= option.map_err(|_| Malformed::OptionLength)?.kind == JUMBO_PAYLOAD;
    }
    Ok(found)
}

/// Checks all options of a Destination Options header, and finds the first of the wanted type.
#[inline(always)]
fn find_option(
    header: &[u8],
    header_at: u16,
    option_type: u8,
) -> Result<Option<PdmOption>, Malformed> {
    let mut found = None;
    for option in Options::of(header) {
        let option = option.map_err(|_| Malformed::OptionLength)?;
        if option.kind == option_type && found.is_none() {
            found = Some(PdmOption {
                at: header_at + option.at as u16,
                kind: OptionKind::of(option.bytes),
            });
        }
    }
    Ok(found)
}

/// What a routing header says about the destination.
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
        // Each address takes two units. A reduced list lacks the first segment, so that one more may be left.
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
