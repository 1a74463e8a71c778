//! Captures: pcap and pcapng, told apart by their first four bytes.
//!
//! Formats: draft-ietf-opsawg-pcap (microseconds and nanoseconds, both byte orders) and draft-ietf-opsawg-pcapng
//! (enhanced and simple packet blocks, any number of sections and interfaces, `if_tsresol` and `if_tsoffset`). Packets
//! must have an Ethernet header.

use std::borrow::Cow;
use std::io::{self, Cursor, Read};

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::PcapNgReader;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::{ENHANCED_PACKET_BLOCK, SIMPLE_PACKET_BLOCK};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};
use thiserror::Error;

/// Bytes in front of the packet in an enhanced packet block.
const ENHANCED_HEADER: usize = 20;
/// Bytes in front of the packet in a simple packet block.
const SIMPLE_HEADER: usize = 4;

/// Why a capture, or the rest of it, cannot be read.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// Not a capture.
    #[error(
        "expected a pcap or pcapng file, found one that begins with {}",
        hex::encode(found)
    )]
    NotACapture {
        /// Its first bytes, at most four.
        found: Vec<u8>,
    },
    /// Packets without an Ethernet header.
    #[error("expected packets with an Ethernet header (link type 1), found link type {found}")]
    LinkType {
        /// The link type found, a LINKTYPE_ number.
        found: u32,
    },
    /// The file ends within a packet, or within a header.
    #[error("the capture ends in the middle of packet {number}")]
    Truncated {
        /// The packet that is not whole, from 1.
        number: u64,
    },
    /// The file contradicts itself.
    #[error("the capture is damaged at packet {number}: {source}")]
    Damaged {
        /// The packet that should have come, from 1.
        number: u64,
        /// What is wrong.
        source: PcapError,
    },
    /// The file cannot be read.
    #[error("cannot read the capture: {0}")]
    Read(#[from] io::Error),
}

/// One packet of a capture.
#[derive(Debug)]
pub struct Captured<'a> {
    /// Its number in the capture, from 1.
    pub number: u64,
    /// When it was captured, in nanoseconds since 1970. 0 if the capture does not say.
    pub time_ns: u64,
    /// The bytes that were kept.
    pub data: Cow<'a, [u8]>,
    /// Its length on the wire, which may be more.
    pub original_len: usize,
}

/// A capture that is being read.
pub struct Capture<R: Read> {
    format: Format<Input<R>>,
    packets: u64,
}

type Input<R> = io::Chain<Cursor<Vec<u8>>, R>;

enum Format<R: Read> {
    Pcap(PcapReader<R>),
    PcapNg(PcapNgReader<R>),
}

impl<R: Read> Capture<R> {
    /// Reads the file's header.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub fn new(mut reader: R) -> Result<Self, CaptureError> {
        let mut magic = Vec::new();
        reader.by_ref().take(4).read_to_end(&mut magic)?;
        let found = magic.clone();
        let input = Cursor::new(magic).chain(reader);
        let format = match found[..] {
            [0x0a, 0x0d, 0x0d, 0x0a] => {
                Format::PcapNg(PcapNgReader::new(input).map_err(|e| broken(1, e))?)
            }
            [0xa1, 0xb2, 0xc3, 0xd4]
            | [0xd4, 0xc3, 0xb2, 0xa1]
            | [0xa1, 0xb2, 0x3c, 0x4d]
            | [0x4d, 0x3c, 0xb2, 0xa1] => {
                let reader = PcapReader::new(input).map_err(|e| broken(1, e))?;
                ethernet(reader.header().datalink)?;
                Format::Pcap(reader)
            }
            _ => return Err(CaptureError::NotACapture { found }),
        };
        Ok(Self { format, packets: 0 })
    }

    /// The next packet, or none at the end.
    ///
    /// # Errors
    /// [`CaptureError`]; nothing more can be read then.
    pub fn next_packet(&mut self) -> Result<Option<Captured<'_>>, CaptureError> {
        self.packets += 1;
        match &mut self.format {
            Format::Pcap(reader) => next_of_pcap(reader, self.packets),
            Format::PcapNg(reader) => next_of_pcapng(reader, self.packets),
        }
    }
}

/// A file that ends too early shows as an unexpected end, at whatever it was reading.
fn broken(number: u64, error: PcapError) -> CaptureError {
    match error {
        PcapError::IncompleteBuffer => CaptureError::Truncated { number },
        PcapError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            CaptureError::Truncated { number }
        }
        PcapError::IoError(error) => CaptureError::Read(error),
        source => CaptureError::Damaged { number, source },
    }
}

fn ethernet(link: DataLink) -> Result<(), CaptureError> {
    match link {
        DataLink::ETHERNET => Ok(()),
        other => Err(CaptureError::LinkType {
            found: other.into(),
        }),
    }
}

fn next_of_pcap<R: Read>(
    reader: &mut PcapReader<R>,
    number: u64,
) -> Result<Option<Captured<'_>>, CaptureError> {
    let unit_ns = match reader.header().ts_resolution {
        TsResolution::MicroSecond => 1_000,
        TsResolution::NanoSecond => 1,
    };
    // Raw: the reader's own checks refuse packets that are longer than the snapshot length, which is what that is for.
    let Some(packet) = reader.next_raw_packet() else {
        return Ok(None);
    };
    let packet = packet.map_err(|e| broken(number, e))?;
    Ok(Some(Captured {
        number,
        time_ns: u64::from(packet.ts_sec) * 1_000_000_000 + u64::from(packet.ts_frac) * unit_ns,
        original_len: packet.orig_len as usize,
        data: packet.data,
    }))
}

fn next_of_pcapng<R: Read>(
    reader: &mut PcapNgReader<R>,
    number: u64,
) -> Result<Option<Captured<'_>>, CaptureError> {
    let damaged = |what| CaptureError::Damaged {
        number,
        source: PcapError::InvalidField(what),
    };
    let (kind, body) = loop {
        let Some(block) = reader.next_raw_block() else {
            return Ok(None);
        };
        let block = block.map_err(|e| broken(number, e))?;
        if matches!(block.type_, ENHANCED_PACKET_BLOCK | SIMPLE_PACKET_BLOCK) {
            break (block.type_, block.body.into_owned());
        }
    };
    let section = reader.section();
    let word = |at: usize| -> Result<u32, CaptureError> {
        let bytes = body.get(at..).and_then(<[u8]>::first_chunk).copied();
        let bytes = bytes.ok_or_else(|| damaged("a packet block that is too short"))?;
        Ok(match section.endianness {
            Endianness::Big => u32::from_be_bytes(bytes),
            Endianness::Little => u32::from_le_bytes(bytes),
        })
    };
    let enhanced = kind == ENHANCED_PACKET_BLOCK;
    let interface_id = if enhanced { word(0)? } else { 0 };
    let interface = reader
        .interfaces()
        .get(interface_id as usize)
        .ok_or_else(|| damaged("a packet of an interface that was not described"))?;
    ethernet(interface.linktype)?;
    let (time_ns, start, captured_len, original_len) = if enhanced {
        let units = u64::from(word(4)?) << 32 | u64::from(word(8)?);
        (
            nanoseconds(units, interface),
            ENHANCED_HEADER,
            word(12)?,
            word(16)?,
        )
    } else {
        let original_len = word(0)?;
        let limit = match interface.snaplen {
            0 => u32::MAX,
            snaplen => snaplen,
        };
        (0, SIMPLE_HEADER, original_len.min(limit), original_len)
    };
    let mut data = body;
    data.drain(..start.min(data.len()));
    if data.len() < captured_len as usize {
        return Err(damaged("a packet that is longer than its block"));
    }
    data.truncate(captured_len as usize);
    Ok(Some(Captured {
        number,
        time_ns,
        data: data.into(),
        original_len: original_len as usize,
    }))
}

/// Timestamps count units of 1 µs, or what the interface says: a power of 10, or of 2 if the highest bit is set.
fn nanoseconds(units: u64, interface: &InterfaceDescriptionBlock<'_>) -> u64 {
    let mut resolution = 6;
    let mut offset_s = 0;
    for option in &interface.options {
        match option {
            InterfaceDescriptionOption::IfTsResol(value) => resolution = *value,
            InterfaceDescriptionOption::IfTsOffset(value) => offset_s = *value,
            _ => {}
        }
    }
    let units = u128::from(units);
    let exponent = u32::from(resolution & 0x7f);
    // No clock has units of less than 2^-64 s or 10^-19 s; such a value shows as a time of 0.
    let ns = if resolution & 0x80 != 0 {
        (units * 1_000_000_000).checked_shr(exponent).unwrap_or(0)
    } else {
        let per_second = 10u128.checked_pow(exponent).unwrap_or(u128::MAX);
        units * 1_000_000_000 / per_second
    };
    let offset = u128::from(offset_s) * 1_000_000_000;
    u64::try_from(ns + offset).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
