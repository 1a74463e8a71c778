//! The ICMPv6 error Packet Too Big (RFC 4443 sections 2.2 to 2.4 and 3.2).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+-------------------------------+
//! |    Type 2     |    Code 0     |           Checksum            |
//! +---------------+---------------+-------------------------------+
//! |                              MTU                              |
//! +---------------------------------------------------------------+
//! |      as much of the packet as fits 1,280 bytes in all         |
//! ```

use thiserror::Error;

use super::buffer::PacketBuf;
use super::frame::{ETHERNET_LEN, IPV6_LEN, Ipv6Packet, ipv6, protocol};

/// The MTU that every IPv6 link has (RFC 8200 section 5): the least to announce, and the longest an error may be.
pub const MINIMUM_MTU: u32 = 1280;

const PACKET_TOO_BIG: u8 = 2;
const ICMPV6_LEN: usize = 8;
/// Bytes of the error in front of what it quotes.
const HEADERS: usize = IPV6_LEN + ICMPV6_LEN;
/// The default for packets that hosts and routers send. 255 would say "from this link", which the receiver cannot rely on.
const HOP_LIMIT: u8 = 64;

/// Why no error is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CannotAnswer {
    /// A sender must ignore such an MTU (RFC 8201 section 4).
    #[error("expected an MTU of at least {MINIMUM_MTU}, found {mtu}")]
    MtuTooSmall {
        /// The MTU asked for.
        mtu: u32,
    },
    /// The packet does not come from one node (RFC 4443 section 2.4 (e.6)), or the frame went to more than one, whose
    /// address an answer cannot come from.
    #[error(
        "expected a packet from one node to one node of the link, found a group or the unspecified address"
    )]
    NotOneNode,
    /// No room in front for the error's headers.
    #[error("no headroom for the {HEADERS} bytes of an ICMPv6 error's headers")]
    NoHeadroom,
    /// The buffer does not hold the packet that was parsed.
    #[error("expected the frame that was parsed, found a shorter one")]
    OtherFrame,
}

/// Turns the packet that `buf` holds into the error that tells its sender `mtu`, in bytes of an IPv6 packet.
///
/// MAC addresses trade places and VLAN tags stay, so the frame goes out where the packet came in. The error comes
/// `source`, or if that is `None`, from the address that the packet is on its way to. The packet is not an ICMPv6 error
/// itself, because [`super::frame::parse`] makes no [`Ipv6Packet`] of one. Limiting the rate is up to the caller.
///
/// # Errors
/// [`CannotAnswer`] leaves the packet as it was.
pub fn packet_too_big(
    buf: &mut impl PacketBuf,
    p: &Ipv6Packet,
    mtu: u32,
    source: Option<[u8; 16]>,
) -> Result<(), CannotAnswer> {
    if mtu < MINIMUM_MTU {
        return Err(CannotAnswer::MtuTooSmall { mtu });
    }
    let ip_at = usize::from(p.ip_at);
    let frame = buf.data();
    let (Some(&[to_many, ..]), Some(packet)) = (
        frame.first_chunk::<ETHERNET_LEN>(),
        frame.get(ip_at..p.end_at()),
    ) else {
        return Err(CannotAnswer::OtherFrame);
    };
    if p.tuple.src[0] == 0xff || p.tuple.src == [0; 16] || to_many & 1 == 1 {
        return Err(CannotAnswer::NotOneNode);
    }
    let Some(&on_its_way_to) = packet.get(ipv6::DST..).and_then(<[u8]>::first_chunk) else {
        return Err(CannotAnswer::OtherFrame);
    };
    let quoted = packet.len().min(MINIMUM_MTU as usize - HEADERS);
    buf.prepend(HEADERS).map_err(|_| CannotAnswer::NoHeadroom)?;
    // Shorter than the packet and its headers, which the buffer holds now.
    let _ = buf.resize(ip_at + HEADERS + quoted);

    write(
        buf.data_mut(),
        ip_at,
        mtu,
        source.unwrap_or(on_its_way_to),
        p.tuple.src,
    )
    .ok_or(CannotAnswer::OtherFrame)
}

/// Writes link and error headers in front of what is quoted. `data` has [`HEADERS`] bytes too many in front of its link
/// header of `ip_at` bytes.
fn write(data: &mut [u8], ip_at: usize, mtu: u32, src: [u8; 16], dst: [u8; 16]) -> Option<()> {
    let moved = data.get_mut(..ip_at + HEADERS)?;
    moved.copy_within(HEADERS.., 0);
    let (to, from) = data.get_mut(..12)?.split_at_mut_checked(6)?;
    to.swap_with_slice(from);

    let packet = data.get_mut(ip_at..)?;
    let message_len = packet.len().checked_sub(IPV6_LEN)?;
    let (header, message) = packet.split_first_chunk_mut::<IPV6_LEN>()?;
    *header = [0; IPV6_LEN];
    header[0] = 6 << 4;
    header[ipv6::PAYLOAD_LENGTH..][..2].copy_from_slice(&(message_len as u16).to_be_bytes());
    header[ipv6::NEXT_HEADER] = protocol::ICMPV6;
    header[ipv6::HOP_LIMIT] = HOP_LIMIT;
    header[ipv6::SRC..][..16].copy_from_slice(&src);
    header[ipv6::DST..].copy_from_slice(&dst);

    let [m0, m1, m2, m3] = mtu.to_be_bytes();
    *message.first_chunk_mut()? = [PACKET_TOO_BIG, 0, 0, 0, m0, m1, m2, m3];
    let [c0, c1] = checksum(&src, &dst, message).to_be_bytes();
    *message.first_chunk_mut()? = [PACKET_TOO_BIG, 0, c0, c1, m0, m1, m2, m3];
    Some(())
}

/// The Internet checksum of an ICMPv6 message and its pseudo-header (RFC 4443 section 2.3, RFC 8200 section 8.1).
fn checksum(src: &[u8; 16], dst: &[u8; 16], message: &[u8]) -> u16 {
    // At most 1,280 bytes: the sum of their words fits 32 bits.
    let sum = words(src)
        + words(dst)
        + words(message)
        + message.len() as u32
        + u32::from(protocol::ICMPV6);
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// The sum of big-endian 16-bit words, the last one filled up with a zero.
fn words(bytes: &[u8]) -> u32 {
    let (pairs, last) = bytes.as_chunks::<2>();
    let sum: u32 = pairs
        .iter()
        .map(|&pair| u32::from(u16::from_be_bytes(pair)))
        .sum();
    sum + last.first().map_or(0, |&byte| u32::from(byte) << 8)
}

#[cfg(test)]
mod tests;
