//! What most frames are, in straight lines: no VLAN tag, TCP or UDP between two hosts, behind nothing or behind a header with only a sealed
//! option in it, the way [`super::dest_opts`] writes it. Everything stands where it always does, so nothing has to be searched:
//!
//! ```text
//! 0            14            54                  54                                    94
//! +------------+-------------+---------- - -     +--------------+----------------------+---------- - -
//! | MACs, type | IPv6 header | TCP, UDP          | nh 4 PadN  0 | sealed option (36)   | TCP, UDP
//! +------------+-------------+---------- - -     +--------------+----------------------+---------- - -
//! ```
//!
//! What is done to such a frame is what [`super::frame::parse`], [`super::dest_opts::insert`] and [`super::dest_opts::strip`] do to any;
//! the tests compare them. A SYN is not common: its MSS may have to change. Nor is what comes from an address in fe00::/8: link-local
//! ones are rare where packets pass from one link to another, and are counted apart.

use super::buffer::PacketBuf;
use super::dest_opts::{CHUNK, FIRST_PLACE, ext_len};
use super::frame::{
    ETHERNET_LEN, IPV6_LEN, Ipv6Packet, OptionKind, PdmOption, TCP_FLAGS, TCP_SYN, ipv6, protocol,
};
use super::options::PADN;
use super::pdmv2::{CLEAR_SIZE, SEALED_LEN, SEALED_SIZE, VERSION};
use super::tuple::FiveTuple;

/// Bytes that a sealed option and its header add.
pub const GROWTH: usize = FIRST_PLACE + SEALED_SIZE;
/// Where the option stands once it is there.
pub const OPTION_AT: usize = UPPER_AT + FIRST_PLACE;

const UPPER_AT: usize = ETHERNET_LEN + IPV6_LEN;
const NEXT_HEADER_AT: usize = ETHERNET_LEN + ipv6::NEXT_HEADER;
const LENGTH_AT: usize = ETHERNET_LEN + ipv6::PAYLOAD_LENGTH;
const SRC_AT: usize = ETHERNET_LEN + ipv6::SRC;
const DST_AT: usize = ETHERNET_LEN + ipv6::DST;
/// The least that a frame has without the option: its headers in whole chunks.
const LEAST: usize = UPPER_AT.next_multiple_of(CHUNK);
/// Hdr Ext Len of the header with the option.
const UNITS: u8 = ext_len(GROWTH);

/// In a [`Common`], that the sealed option is there: a bit that neither protocol has.
const MARKED: u8 = 0x80;

/// A common frame: its protocol, TCP or UDP, and whether the sealed option is there. One byte, as each stage copies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Common(u8);

impl Common {
    /// Recognises a common frame; `None` for others, which [`super::frame::parse`] reads. `sealed` is the Option Type of sealed options; without
    /// one a frame that has an option is not common.
    #[inline(always)]
    #[must_use]
    pub fn parse(frame: &[u8], sealed: Option<u8>) -> Option<Self> {
        let head: &[u8; LEAST] = frame.first_chunk()?;
        // Ethertype, version with class and label, Payload Length.
        let start = word(head, ETHERNET_LEN - 2);
        if start & 0xf0_ffff != 0x60_dd86 || head[SRC_AT] >= 0xfe || head[DST_AT] == 0xff {
            return None;
        }
        let end = UPPER_AT + usize::from(((start >> 48) as u16).swap_bytes());
        let mut protocol = head[NEXT_HEADER_AT];
        let (mut upper_at, mut marked) = (UPPER_AT, 0);
        if protocol == protocol::DESTINATION_OPTIONS {
            let option_type = sealed?;
            let head: &[u8; LEAST + GROWTH] = frame.first_chunk()?;
            let header = word(head, UPPER_AT);
            let random = u16::from_be_bytes([head[OPTION_AT + 4], head[OPTION_AT + 5]]);
            // All but the upper layer, the version's reserved half and the reserved byte; and PRSEQ is not 0.
            let wanted = [0, UNITS, PADN, 0, option_type, SEALED_LEN, VERSION << 4, 0];
            if header & 0xf0_ffff_ffff_ff00 != u64::from_le_bytes(wanted) || random < 2 {
                return None;
            }
            protocol = header as u8;
            (upper_at, marked) = (UPPER_AT + GROWTH, MARKED);
        }
        let least = match protocol {
            protocol::TCP if frame.get(upper_at + TCP_FLAGS)? & TCP_SYN == 0 => 20,
            protocol::UDP => 8,
            _ => return None,
        };
        (upper_at + least <= end && end <= frame.len()).then_some(Self(protocol | marked))
    }

    /// Whether the sealed option is there.
    #[inline]
    #[must_use]
    pub fn is_marked(self) -> bool {
        self.0 & MARKED != 0
    }

    #[inline]
    fn protocol(self) -> u8 {
        self.0 & !MARKED
    }

    fn upper_at(self) -> usize {
        UPPER_AT + if self.is_marked() { GROWTH } else { 0 }
    }

    /// The 5-tuple of this frame; `None` of another that is shorter.
    #[inline(always)]
    #[must_use]
    pub fn tuple(self, frame: &[u8]) -> Option<FiveTuple> {
        let head: &[u8; LEAST] = frame.first_chunk()?;
        let ports = if self.is_marked() {
            let head: &[u8; LEAST + GROWTH] = frame.first_chunk()?;
            head[UPPER_AT + GROWTH..].first_chunk()
        } else {
            head[UPPER_AT..].first_chunk()
        };
        let [s0, s1, d0, d1] = *ports?;
        Some(FiveTuple {
            src: *head[SRC_AT..].first_chunk()?,
            dst: *head[DST_AT..].first_chunk()?,
            sport: u16::from_be_bytes([s0, s1]),
            dport: u16::from_be_bytes([d0, d1]),
            protocol: self.protocol(),
        })
    }

    /// What [`super::frame::parse`] finds in this frame; `None` of another that is shorter.
    #[must_use]
    pub fn packet(self, frame: &[u8]) -> Option<Ipv6Packet> {
        let marked = |at: usize| self.is_marked().then_some(at as u16);
        let named_at = if self.is_marked() {
            UPPER_AT
        } else {
            NEXT_HEADER_AT
        };
        Some(Ipv6Packet {
            tuple: self.tuple(frame)?,
            ip_at: ETHERNET_LEN as u16,
            upper_at: self.upper_at() as u16,
            next_header_at: named_at as u16,
            dest_opts_at: marked(UPPER_AT),
            option: marked(OPTION_AT).map(|at| PdmOption {
                at,
                kind: OptionKind::Sealed,
            }),
            has_option_before: false,
            dest_opts_named_at: NEXT_HEADER_AT as u16,
            payload_len: payload_len(frame.first_chunk()?),
            is_tcp_syn: false,
        })
    }

    /// Fills the [`GROWTH`] bytes that were opened in front of this frame, which has no option: `frame` begins with them. Returns the option
    /// where it stands now, with anything where its tag has to be; `None`, and nothing done, of another frame that is shorter. Payload Length
    /// has to have room.
    #[inline(always)]
    pub fn insert<'f>(
        self,
        frame: &'f mut [u8],
        unsealed: &[u8; CLEAR_SIZE],
    ) -> Option<&'f mut [u8; SEALED_SIZE]> {
        let frame: &mut [u8; LEAST + GROWTH] = frame.first_chunk_mut()?;
        let length = payload_len(frame[GROWTH..].first_chunk()?).wrapping_add(GROWTH as u16);
        // A chunk is read before the one that is written over it: GROWTH is more than a chunk. The last one begins within the one before.
        for at in [0, CHUNK, 2 * CHUNK, UPPER_AT - CHUNK] {
            let chunk: [u8; CHUNK] = *frame[at + GROWTH..].first_chunk()?;
            *frame[at..].first_chunk_mut()? = chunk;
        }
        set_payload_len(frame, length);
        frame[NEXT_HEADER_AT] = protocol::DESTINATION_OPTIONS;
        // As one word, not byte by byte.
        let header = u32::from_le_bytes([0, UNITS, PADN, 0]) | u32::from(self.protocol());
        *frame[UPPER_AT..].first_chunk_mut()? = header.to_le_bytes();
        *frame[OPTION_AT..].first_chunk_mut()? = *unsealed;
        frame[OPTION_AT..].first_chunk_mut()
    }

    /// Takes the option and its header out of this frame, which has them. `None`, and nothing done, of another that is shorter.
    #[inline(always)]
    pub fn strip(self, buf: &mut impl PacketBuf) -> Option<()> {
        let frame: &mut [u8; LEAST + GROWTH] = buf.data_mut().first_chunk_mut()?;
        let length = payload_len(frame.first_chunk()?).wrapping_sub(GROWTH as u16);
        let mut end = UPPER_AT;
        while end > CHUNK {
            let chunk: [u8; CHUNK] = *frame[..end].last_chunk()?;
            *frame[..end + GROWTH].last_chunk_mut()? = chunk;
            end -= CHUNK;
        }
        // Over bytes that stand there already: nothing has changed where this chunk comes from.
        let chunk: [u8; CHUNK] = *frame.first_chunk()?;
        let frame: &mut [u8; LEAST] = frame.last_chunk_mut()?;
        *frame.first_chunk_mut()? = chunk;
        // Only now: a chunk that is read after a part of it was written waits for that to reach the cache.
        set_payload_len(frame, length);
        frame[NEXT_HEADER_AT] = self.protocol();
        buf.trim_front(GROWTH);
        Some(())
    }
}

/// The longest common frame, in bytes, that surely has room for an option where IPv6 packets have at most `mtu` bytes. One with bytes
/// behind the packet may be longer.
#[must_use]
pub fn longest(mtu: u16) -> usize {
    usize::from(mtu).saturating_sub(GROWTH) + ETHERNET_LEN
}

#[inline(always)]
fn word<const LEN: usize>(frame: &[u8; LEN], at: usize) -> u64 {
    let bytes = frame[at..].first_chunk();
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[inline(always)]
fn payload_len(head: &[u8; UPPER_AT]) -> u16 {
    u16::from_be_bytes([head[LENGTH_AT], head[LENGTH_AT + 1]])
}

#[inline(always)]
fn set_payload_len<const LEN: usize>(frame: &mut [u8; LEN], length: u16) {
    frame[LENGTH_AT..LENGTH_AT + 2].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests;
