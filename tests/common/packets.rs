//! Packets made by hand, and where an option belongs in them: the protocol page's section 1 and RFC 8200, written apart from the
//! appliance's.

use pcap_file::pcap::{PcapPacket, PcapWriter};
use std::fs::File;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

/// Destination Options header.
pub const DESTINATION: u8 = 60;

/// An IPv6 packet to be written into a frame.
#[derive(Clone, Debug)]
pub struct Build {
    pub tags: Vec<(u16, u16)>,
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    /// Each extension header's number and its bytes from Hdr Ext Len on.
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub protocol: u8,
    pub upper: Vec<u8>,
}

/// A UDP packet.
pub fn udp(source: &str, destination: &str, ports: (u16, u16), payload: &[u8]) -> Build {
    let mut upper = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    upper.extend((8 + payload.len() as u16).to_be_bytes());
    upper.extend([0, 0]);
    upper.extend(payload);
    Build::new(source, destination, 17, upper)
}

/// A TCP segment with ACK set.
pub fn tcp(source: &str, destination: &str, ports: (u16, u16), payload: &[u8]) -> Build {
    let mut upper = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    upper.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    upper.extend(payload);
    Build::new(source, destination, 6, upper)
}

/// An ICMPv6 echo request.
pub fn echo(source: &str, destination: &str, number: u8) -> Build {
    Build::new(
        source,
        destination,
        58,
        vec![128, 0, 0, 0, 0x12, 0x34, 0, number, 1, 2, 3, 4],
    )
}

impl Build {
    pub fn new(source: &str, destination: &str, protocol: u8, upper: Vec<u8>) -> Self {
        let address = |text: &str| text.parse().unwrap();
        let (source, destination) = (address(source), address(destination));
        let mut build = Self {
            tags: Vec::new(),
            source,
            destination,
            extensions: Vec::new(),
            protocol,
            upper,
        };
        let at = match protocol {
            6 => 16,
            17 => 6,
            58 => 2,
            _ => return build,
        };
        let sum = build.checksum();
        build.upper[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        build
    }

    /// RFC 8200 section 8.1; the checksum field has to be 0, or the result is 0 if it is right.
    pub fn checksum(&self) -> u16 {
        let mut bytes = [self.source.octets(), self.destination.octets()].concat();
        bytes.extend((self.upper.len() as u32).to_be_bytes());
        bytes.extend([0, 0, 0, self.protocol]);
        bytes.extend(&self.upper);
        let mut sum: u32 = bytes
            .chunks(2)
            .map(|p| u32::from(p[0]) << 8 | u32::from(*p.get(1).unwrap_or(&0)))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    pub fn tag(mut self, kind: u16, id: u16) -> Self {
        self.tags.push((kind, id));
        self
    }

    /// Adds an extension header; `rest` is what follows its Hdr Ext Len, which is worked out.
    pub fn extension(mut self, number: u8, rest: &[u8]) -> Self {
        assert_eq!(
            (rest.len() + 2) % 8,
            0,
            "an extension header is a multiple of 8 bytes"
        );
        let mut bytes = vec![((rest.len() + 2) / 8 - 1) as u8];
        bytes.extend(rest);
        self.extensions.push((number, bytes));
        self
    }

    pub fn frame(&self) -> Vec<u8> {
        let mut frame = vec![0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1];
        for (kind, id) in &self.tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
        frame.extend([0x86, 0xdd, 0x6a, 0xbc, 0xde, 0xf0]);
        let length: usize = self
            .extensions
            .iter()
            .map(|(_, e)| 1 + e.len())
            .sum::<usize>()
            + self.upper.len();
        frame.extend((length as u16).to_be_bytes());
        let mut numbers = self
            .extensions
            .iter()
            .map(|(number, _)| *number)
            .chain([self.protocol]);
        frame.push(numbers.next().unwrap());
        frame.push(61);
        frame.extend(self.source.octets());
        frame.extend(self.destination.octets());
        for ((_, bytes), next) in self.extensions.iter().zip(numbers) {
            frame.push(next);
            frame.extend(bytes);
        }
        frame.extend(&self.upper);
        frame
    }

    /// The same packet with `option` in the Destination Options header right before the upper layer.
    pub fn with_option(&self, option: &[u8]) -> Self {
        let mut packet = self.clone();
        // Options that are there stay where they are; padding behind them gives way. Offsets count from the header's start,
        // whose first two bytes are Next Header and Hdr Ext Len.
        let options = match packet.extensions.pop() {
            Some((DESTINATION, bytes)) => without_trailing_padding(&bytes[1..]),
            Some(other) => {
                packet.extensions.push(other);
                Vec::new()
            }
            None => Vec::new(),
        };
        let mut body = [&[0, 0], &options[..]].concat();
        pad(&mut body, 4);
        body.extend(option);
        pad(&mut body, 8);
        packet.extension(DESTINATION, &body[2..])
    }
}

fn without_trailing_padding(options: &[u8]) -> Vec<u8> {
    let (mut at, mut end) = (0, 0);
    while at < options.len() {
        let size = if options[at] == 0 {
            1
        } else {
            2 + usize::from(options[at + 1])
        };
        at += size;
        if options[at - size] > 1 {
            end = at;
        }
    }
    options[..end].to_vec()
}

/// Fills up to a multiple of `to` by one Pad1 or PadN.
fn pad(bytes: &mut Vec<u8>, to: usize) {
    match bytes.len().next_multiple_of(to) - bytes.len() {
        0 => {}
        1 => bytes.push(0),
        n => {
            bytes.extend([1, n as u8 - 2]);
            bytes.resize(bytes.len() + n - 2, 0);
        }
    }
}

/// Writes frames into a capture.
pub fn write(file: &Path, frames: &[Vec<u8>]) {
    let mut writer = PcapWriter::new(File::create(file).unwrap()).unwrap();
    for (number, frame) in frames.iter().enumerate() {
        let time = Duration::from_micros(number as u64);
        writer
            .write_packet(&PcapPacket::new(time, frame.len() as u32, frame))
            .unwrap();
    }
}
