//! The Maximum Segment Size of a TCP SYN (RFC 9293 section 3.7.1), and the checksum that has to follow (RFC 1624).
//!
//! ```text
//!  upper_at
//!   |  0      2      4            8            12  13 14     16     18     20
//!   |  +------+------+------------+------------+---+--+------+------+------+- - - - - - - - - - -
//!   +->| src  | dst  |  sequence  |  acknowl.  |off|fl| wind.| check| urg. | options to 4 * off
//!      +------+------+------------+------------+---+--+------+------+------+- - - - - - - - - - -
//!
//!      an option:  0 (end)    1 (no operation)    kind, length, data: 2, 4, MSS (16 bits)
//! ```

use super::buffer::PacketBuf;
use super::frame::Ipv6Packet;

mod field {
    pub const DATA_OFFSET: usize = 12;
    pub const CHECKSUM: usize = 16;
    pub const OPTIONS: usize = 20;
}

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;

/// Lowers the MSS option of a TCP SYN to `max` bytes. A lower one, and any other packet, stays as it is.
///
/// Returns whether anything was changed. Options behind one whose length lies are not looked at.
pub fn clamp_mss(buf: &mut impl PacketBuf, p: &Ipv6Packet, max: u16) -> bool {
    if !p.is_tcp_syn {
        return false;
    }
    let Some(segment) = buf.data_mut().get_mut(p.upper_at.into()..p.end_at()) else {
        return false;
    };
    let header_len = segment
        .get(field::DATA_OFFSET)
        .map_or(0, |byte| usize::from(byte >> 4) * 4);
    let Some(header) = segment.get_mut(..header_len) else {
        return false;
    };
    let mut changed = false;
    let mut at = field::OPTIONS;
    while let Some(&[kind, len, ..]) = header.get(at..) {
        if kind == NO_OPERATION {
            at += 1;
            continue;
        }
        if kind == END || len < 2 {
            break;
        }
        if kind == MSS && len == 4 {
            changed |= lower(header, at + 2, max);
        }
        at += usize::from(len);
    }
    changed
}

/// Lowers the 16-bit number at `at` and corrects the checksum. Nothing happens if it does not end within the header.
fn lower(header: &mut [u8], at: usize, max: u16) -> bool {
    let read = |header: &[u8], at: usize| {
        header
            .get(at..)?
            .first_chunk()
            .copied()
            .map(u16::from_be_bytes)
    };
    let (Some(mss), Some(checksum)) = (read(header, at), read(header, field::CHECKSUM)) else {
        return false;
    };
    if mss <= max {
        return false;
    }
    // The sum is one of 16-bit words from the header's start. A number at an odd offset is the low half of one word
    // and the high half of the next, which adds up to the number with its bytes swapped.
    let word = |number: u16| {
        if at.is_multiple_of(2) {
            number
        } else {
            number.swap_bytes()
        }
    };
    let checksum = update(checksum, word(mss), word(max));
    for (at, number) in [(at, max), (field::CHECKSUM, checksum)] {
        if let Some(place) = header.get_mut(at..at + 2) {
            place.copy_from_slice(&number.to_be_bytes());
        }
    }
    true
}

/// The Internet checksum after one word changed (RFC 1624 equation 3).
fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests;
