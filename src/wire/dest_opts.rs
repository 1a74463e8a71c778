//! Putting an option into a packet's Destination Options header, and taking it out (RFC 8200 sections 4.2 and 4.6;
//! protocol section 1).
//!
//! ```text
//!                 without the header                      with it, another option in it
//!
//!       | IPv6, other headers | TCP …      | IPv6, other headers | nh, len, other, pads | TCP …
//!       |                     |            |                                     |      |
//!  | IPv6, other headers |    | TCP …   | IPv6, other headers | nh, len, other |        | TCP …
//!  |                     |    |         |                     |                |        |
//!  |            nh, len, PadN, option   |                     |      pad, option, pad
//! ```
//!
//! Only the bytes in front of the gap move, towards the front: the payload never does.
//!
//! # Why every packet that this writes is legal
//!
//! **Inserting.** The option goes behind the last option that is not padding, to the next multiple of four from the
//! header's start, and the header is filled up to a multiple of eight. Options that were there keep their distance
//! from the header's start; the header starts where it started, as seen from the IPv6 header. Padding in front of the
//! option is 0 to 3 bytes and stands behind an option (or 2 in an empty header), padding behind it 0 to 7. So no row
//! of padding is longer than 7, which Linux would drop; each is one Pad1 or one PadN of zeros.
//!
//! **Taking out.** Say that the options which are not padding end at `before` in front of ours and begin again at
//! `after` behind it. What stands behind `after` moves towards the front by the largest multiple of eight that leaves
//! a gap of at least 0. RFC 8200 lets an option ask for an alignment of at most eight from the header's start, so each
//! keeps the one it has; and the gap that is left is `(after - before) mod 8`, one row of at most 7. Behind the last
//! option the header again is filled up to a multiple of eight. If none is left, the header goes whole.
//!
//! **Both, one after the other,** give the packet back: without the header, it is made and goes; with it, `before` is
//! where the options ended, and the padding behind is the shortest there is. So the bytes are the same if the padding
//! was one minimal Pad1 or PadN of zeros. Other padding that was legal comes back in that form.

use std::cmp::Ordering;
use std::ops::Range;

use thiserror::Error;

use super::buffer::{NoHeadroom, PacketBuf};
use super::frame::{Ipv6Packet, ipv6, protocol};
use super::options::{FIRST_OPTION, MAX_HEADER, Options, PADN, pad};
use super::pdmv2::{SEALED_LEN, SEALED_SIZE};

#[cfg(test)]
mod tests;

/// The option's distance from the header's start is a multiple of this, for Global Pointer's sake.
const ALIGNMENT: usize = 4;
/// The unit of an extension header's length.
const UNIT: usize = 8;
/// Where the option stands in a header that it has for itself, behind a PadN of two bytes.
pub(super) const FIRST_PLACE: usize = FIRST_OPTION.next_multiple_of(ALIGNMENT);

/// Bytes that are moved at once: less than a header with an option, so that no chunk is written over before it was read.
pub(super) const CHUNK: usize = 16;

/// Why a packet cannot take the option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CannotInsert {
    /// It has one: there is at most one in a packet.
    #[error("expected a packet without PDM or PDMv2 option, found one that has it at byte {at}")]
    Present {
        /// Offset in the frame.
        at: u16,
    },
    /// The Destination Options header would be longer than Hdr Ext Len can say.
    #[error(
        "a Destination Options header is at most {MAX_HEADER} bytes, with the option it would be {len}"
    )]
    HeaderFull {
        /// Bytes the header would have.
        len: usize,
    },
    /// The packet would be longer than Payload Length can say.
    #[error("an IPv6 payload is at most 65535 bytes, with the option it would be {len}")]
    PayloadLength {
        /// Bytes the payload would have.
        len: usize,
    },
    /// The frame is not the one that the packet was parsed from.
    #[error("expected the frame that was parsed, found one without its Destination Options header")]
    OtherFrame,
}

/// How an option goes into one packet. Valid for that packet as long as it is not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Bytes that the packet grows by; 0 if a header's overlong padding has room for the option.
    pub growth: u16,
    /// Offset of the header in the frame before.
    header_at: u16,
    /// Bytes of the header that are there and stay: 0 if there is none, else up to the end of the last option.
    kept: u16,
    /// Bytes of the header before: 0 if there is none.
    old_len: u16,
    /// Bytes of the header after.
    new_len: u16,
    /// Offset of the option from the header's start.
    option_at: u16,
    option_size: u16,
}

/// Works out how an option of `option_size` bytes, type and length included, goes into `p`, parsed from `frame`.
///
/// # Errors
/// [`CannotInsert`]; the packet then passes unmarked.
#[inline]
pub fn plan_insert(frame: &[u8], p: &Ipv6Packet, option_size: usize) -> Result<Plan, CannotInsert> {
    let new_len = option_size.saturating_add(FIRST_PLACE);
    let payload_len = new_len.saturating_add(p.payload_len.into());
    let alone = p.dest_opts_at.is_none() && new_len.is_multiple_of(UNIT);
    if !alone || new_len > MAX_HEADER || payload_len > u16::MAX.into() {
        return plan_among_options(frame, p, option_size);
    }
    Ok(Plan {
        growth: new_len as u16,
        header_at: p.upper_at,
        kept: 0,
        old_len: 0,
        new_len: new_len as u16,
        option_at: FIRST_PLACE as u16,
        option_size: option_size as u16,
    })
}

/// [`plan_insert`] for any packet: above, for one without the header and an option that fills a new one, it finds the same.
#[inline(never)]
fn plan_among_options(
    frame: &[u8],
    p: &Ipv6Packet,
    option_size: usize,
) -> Result<Plan, CannotInsert> {
    if let Some(option) = p.option {
        return Err(CannotInsert::Present { at: option.at });
    }
    let (header_at, kept, old_len) = match p.dest_opts_at {
        None => (p.upper_at, 0, 0),
        Some(at) => {
            let header = whole_header(frame, at).ok_or(CannotInsert::OtherFrame)?;
            (at, end_of_options(header), header.len())
        }
    };
    let option_at = kept.max(FIRST_OPTION).next_multiple_of(ALIGNMENT);
    let end = option_at.saturating_add(option_size);
    if end > MAX_HEADER {
        return Err(CannotInsert::HeaderFull { len: end });
    }
    let new_len = end.next_multiple_of(UNIT);
    let payload_len = (usize::from(p.payload_len) + new_len).saturating_sub(old_len);
    if payload_len > u16::MAX.into() {
        return Err(CannotInsert::PayloadLength { len: payload_len });
    }
    // All of these are at most MAX_HEADER, which is itself a multiple of UNIT.
    Ok(Plan {
        growth: new_len.saturating_sub(old_len) as u16,
        header_at,
        kept: kept as u16,
        old_len: old_len as u16,
        new_len: new_len as u16,
        option_at: option_at as u16,
        option_size: option_size as u16,
    })
}

/// Puts `option` into the packet and returns the offset of its first byte in the new frame, where all of it stands in
/// one piece. `p` and `plan` are of the packet that `buf` holds; their offsets are not valid any more afterwards.
///
/// # Errors
/// [`NoHeadroom`] leaves the packet as it was. So does a plan or an option that is not for this packet: a caller's
/// mistake, answered the same way rather than by a panic.
#[inline(always)]
pub fn insert(
    buf: &mut impl PacketBuf,
    p: &Ipv6Packet,
    plan: &Plan,
    option: &[u8],
) -> Result<usize, NoHeadroom> {
    let gap = FIRST_PLACE + option.len();
    let fills_its_header = plan.old_len == 0
        && usize::from(plan.option_at) == FIRST_PLACE
        && usize::from(plan.new_len) == gap
        && usize::from(plan.option_size) == option.len();
    if !fills_its_header {
        return insert_among_options(buf, p, plan, option);
    }
    let misfit = NoHeadroom { wanted: gap };
    let front = usize::from(plan.header_at);
    if buf.data().len() < front {
        return Err(misfit);
    }
    buf.prepend(gap)?;
    write_alone(buf.data_mut(), p, front, option).ok_or(misfit)
}

/// Moves the `front` bytes before the gap that was opened, and fills the gap with a header for `option` alone.
#[inline(always)]
fn write_alone(data: &mut [u8], p: &Ipv6Packet, front: usize, option: &[u8]) -> Option<usize> {
    let gap = FIRST_PLACE + option.len();
    move_forward(data, front, gap)?;
    let name = data.get_mut(usize::from(p.next_header_at))?;
    let upper = std::mem::replace(name, protocol::DESTINATION_OPTIONS);
    let header = data.get_mut(front..front + gap)?;
    let (start, place) = header.split_first_chunk_mut::<FIRST_PLACE>()?;
    *start = [upper, ext_len(gap), PADN, 0];
    place.get_mut(..option.len())?.copy_from_slice(option);
    set_payload_len(data, p, 0, gap)?;
    Some(front + FIRST_PLACE)
}

/// Moves `front` bytes from `gap` on to the start.
#[inline(always)]
fn move_forward(data: &mut [u8], front: usize, gap: usize) -> Option<()> {
    let whole = front.next_multiple_of(CHUNK);
    let moved = data.get_mut(..whole + gap);
    let Some(moved) = moved.filter(|_| gap >= CHUNK) else {
        data.get_mut(..front + gap)?.copy_within(gap.., 0);
        return Some(());
    };
    // Whole chunks, the last of which also fills some of the gap: so no length has to be told apart.
    let mut at = 0;
    while at < whole {
        let chunk: [u8; CHUNK] = *moved.get(at + gap..)?.first_chunk()?;
        *moved.get_mut(at..)?.first_chunk_mut()? = chunk;
        at += CHUNK;
    }
    Some(())
}

/// [`insert`] for any plan.
#[inline(never)]
fn insert_among_options(
    buf: &mut impl PacketBuf,
    p: &Ipv6Packet,
    plan: &Plan,
    option: &[u8],
) -> Result<usize, NoHeadroom> {
    let misfit = NoHeadroom {
        wanted: plan.growth.into(),
    };
    let [header_at, kept, old_len, new_len] =
        [plan.header_at, plan.kept, plan.old_len, plan.new_len].map(usize::from);
    if option.len() != usize::from(plan.option_size) || buf.data().len() < header_at + old_len {
        return Err(misfit);
    }
    move_front(buf, header_at + kept, old_len, new_len)?;
    write_option(buf.data_mut(), p, plan, option).ok_or(misfit)
}

/// Fills the gap that [`insert`] has opened. `None` only if `p` is of another packet.
#[inline(always)]
fn write_option(data: &mut [u8], p: &Ipv6Packet, plan: &Plan, option: &[u8]) -> Option<usize> {
    let [header_at, kept, old_len, new_len, option_at] = [
        plan.header_at,
        plan.kept,
        plan.old_len,
        plan.new_len,
        plan.option_at,
    ]
    .map(usize::from);
    if plan.old_len == 0 {
        let name = data.get_mut(usize::from(p.next_header_at))?;
        let upper = std::mem::replace(name, protocol::DESTINATION_OPTIONS);
        *data.get_mut(header_at)? = upper;
    }
    let header = data.get_mut(header_at..header_at + new_len)?;
    *header.get_mut(1)? = ext_len(new_len);
    pad(header.get_mut(kept.max(FIRST_OPTION)..option_at)?);
    let (place, behind) = header
        .get_mut(option_at..)?
        .split_at_mut_checked(option.len())?;
    place.copy_from_slice(option);
    pad(behind);
    set_payload_len(data, p, old_len, new_len)?;
    Some(header_at + option_at)
}

/// Takes the option that `p` names out of the packet that `buf` holds, and the header with it if nothing else is in it.
/// `p`'s offsets are not valid any more afterwards. False if there is no option; the packet then is as it was.
#[inline]
pub fn strip(buf: &mut impl PacketBuf, p: &Ipv6Packet) -> bool {
    match strip_alone(buf, p) {
        Some(()) => true,
        None => strip_from_options(buf, p),
    }
}

/// [`strip`] for a sealed option that has the header for itself, the way [`insert`] writes it; `None`, and nothing done, for others.
#[inline(always)]
fn strip_alone(buf: &mut impl PacketBuf, p: &Ipv6Packet) -> Option<()> {
    const GONE: usize = FIRST_PLACE + SEALED_SIZE;
    let header_at = usize::from(p.dest_opts_at?);
    let option = p.option?;
    let named_at = usize::from(p.dest_opts_named_at);
    let length_at = usize::from(p.ip_at) + ipv6::PAYLOAD_LENGTH;
    let data = buf.data_mut();
    let header: &[u8; GONE] = data.get(header_at..)?.first_chunk()?;
    let units = const { ext_len(GONE) };
    let &[upper, len, PADN, 0, _, SEALED_LEN, ..] = header else {
        return None;
    };
    // The front is moved in chunks that may overlap, and so has to have one at least.
    let is_alone = len == units && usize::from(option.at) == header_at + FIRST_PLACE;
    if !is_alone || header_at < CHUNK || named_at >= header_at || length_at + 2 > header_at {
        return None;
    }
    let payload_len = p.payload_len.checked_sub(GONE as u16)?;
    let front = data.get_mut(..header_at + GONE)?;
    *front.get_mut(named_at)? = upper;
    front
        .get_mut(length_at..length_at + 2)?
        .copy_from_slice(&payload_len.to_be_bytes());
    let mut end = header_at;
    while end > CHUNK {
        let chunk: [u8; CHUNK] = *front.get(..end)?.last_chunk()?;
        *front.get_mut(..end + GONE)?.last_chunk_mut()? = chunk;
        end -= CHUNK;
    }
    // Over bytes that stand there already: nothing has changed where this chunk comes from.
    let chunk: [u8; CHUNK] = *front.first_chunk()?;
    *front.get_mut(GONE..)?.first_chunk_mut()? = chunk;
    buf.trim_front(GONE);
    Some(())
}

#[inline(never)]
fn strip_from_options(buf: &mut impl PacketBuf, p: &Ipv6Packet) -> bool {
    let Some((header_at, cut)) = Cut::of(buf.data(), p) else {
        return false;
    };
    if close(buf.data_mut(), p, header_at, &cut).is_none() {
        return false;
    }
    move_front(buf, header_at + cut.kept, cut.old_len, cut.new_len).is_ok()
}

/// What [`strip`] leaves of a header. Offsets count from the header's start.
struct Cut {
    /// Bytes in front that stay, up to the end of the last option before ours. 0 if the header goes.
    kept: usize,
    /// The options behind ours, as they stand now.
    tail: Range<usize>,
    /// Where they are going to stand.
    tail_at: usize,
    old_len: usize,
    /// 0 if the header goes.
    new_len: usize,
}

impl Cut {
    /// With the offset of the header that it is for.
    fn of(frame: &[u8], p: &Ipv6Packet) -> Option<(usize, Self)> {
        let at = p.dest_opts_at?;
        let header = whole_header(frame, at)?;
        let ours = usize::from(p.option?.at.checked_sub(at)?);
        let mut found = false;
        let mut before = FIRST_OPTION;
        let mut tail = None::<Range<usize>>;
        for option in Options::of(header) {
            let option = option.ok()?;
            match option.at.cmp(&ours) {
                Ordering::Equal => found = true,
                _ if option.is_padding() => {}
                Ordering::Less => before = option.end(),
                Ordering::Greater => tail = Some(tail.map_or(option.at, |t| t.start)..option.end()),
            }
        }
        if !found {
            return None;
        }
        let cut = match tail {
            None if before == FIRST_OPTION => Self {
                kept: 0,
                tail: 0..0,
                tail_at: 0,
                old_len: header.len(),
                new_len: 0,
            },
            None => Self {
                kept: before,
                tail: before..before,
                tail_at: before,
                old_len: header.len(),
                new_len: before.next_multiple_of(UNIT),
            },
            Some(tail) => {
                let tail_at = before + (tail.start - before) % UNIT;
                Self {
                    kept: before,
                    tail_at,
                    old_len: header.len(),
                    new_len: (tail_at + tail.len()).next_multiple_of(UNIT),
                    tail,
                }
            }
        };
        Some((at.into(), cut))
    }
}

/// Brings what is behind the front to where it belongs, while the header still starts where it did: a byte of the new
/// header stands `lost` behind its old place, because the payload stays. `None` only if `p` is of another packet.
#[inline(always)]
fn close(data: &mut [u8], p: &Ipv6Packet, header_at: usize, cut: &Cut) -> Option<()> {
    let lost = cut.old_len - cut.new_len;
    let header = data.get_mut(header_at..header_at + cut.old_len)?;
    if cut.new_len == 0 {
        let upper = *header.first()?;
        *data.get_mut(usize::from(p.dest_opts_named_at))? = upper;
    } else {
        // In bounds, and never into the front: the tail is in the header, and moves back by `lost - shift`, where
        // `shift = tail.start - tail_at` is not more than `lost`, for `new_len` only rounds `tail.end - shift` up.
        header.copy_within(cut.tail.clone(), cut.tail_at + lost);
        *header.get_mut(1)? = ext_len(cut.new_len);
        pad(header.get_mut(cut.kept + lost..cut.tail_at + lost)?);
        pad(header.get_mut(cut.tail_at + cut.tail.len() + lost..)?);
    }
    set_payload_len(data, p, cut.old_len, cut.new_len)
}

/// Moves the first `front` bytes so that a header of `old_len` bytes behind them has room for, or only for, `new_len`.
fn move_front(
    buf: &mut impl PacketBuf,
    front: usize,
    old_len: usize,
    new_len: usize,
) -> Result<(), NoHeadroom> {
    if new_len >= old_len {
        let by = new_len - old_len;
        buf.prepend(by)?;
        if let Some(moved) = buf.data_mut().get_mut(..front + by) {
            moved.copy_within(by.., 0);
        }
    } else {
        let by = old_len - new_len;
        if let Some(moved) = buf.data_mut().get_mut(..front + by) {
            moved.copy_within(..front, by);
        }
        buf.trim_front(by);
    }
    Ok(())
}

/// The whole extension header at `at`.
fn whole_header(frame: &[u8], at: u16) -> Option<&[u8]> {
    let rest = frame.get(usize::from(at)..)?;
    let len = (usize::from(*rest.get(1)?) + 1) * UNIT;
    rest.get(..len)
}

/// Where the last option ends that is not padding.
fn end_of_options(header: &[u8]) -> usize {
    Options::of(header)
        .flatten()
        .filter(|option| !option.is_padding())
        .last()
        .map_or(FIRST_OPTION, |option| option.end())
}

/// Hdr Ext Len of a header of 8 to [`MAX_HEADER`] bytes.
pub(super) const fn ext_len(len: usize) -> u8 {
    (len / UNIT).wrapping_sub(1) as u8
}

/// Writes Payload Length for a packet whose header went from `old_len` to `new_len` bytes.
fn set_payload_len(data: &mut [u8], p: &Ipv6Packet, old_len: usize, new_len: usize) -> Option<()> {
    let payload_len = (usize::from(p.payload_len) + new_len).wrapping_sub(old_len) as u16;
    let field = usize::from(p.ip_at) + ipv6::PAYLOAD_LENGTH;
    data.get_mut(field..field + 2)?
        .copy_from_slice(&payload_len.to_be_bytes());
    Some(())
}
