//! Packets as hosts would send them: UDP over IPv6, one flow each.

use crate::bench::Result;
use crate::peer::Sealed;
use pcap_file::pcap::{PcapPacket, PcapWriter};
use pdmgate::wire::FiveTuple;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::Duration;

/// Prefixes of the two lists of the pairing, and what it all is named in a configuration.
pub const CLIENTS: &str = "2001:db8:1::/64";
pub const SERVERS: &str = "2001:db8:2::/64";

/// Ethernet, IPv6 and UDP.
const HEADERS: usize = 14 + 40 + 8;
/// A Destination Options header with a sealed option in it.
pub const OPTIONS_HEADER: usize = 40;
/// Clients; a flow more than these is another port of one.
const HOSTS: usize = 4_096;

/// Frames from clients to servers, from the Ethernet header on, without the frame check sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Bytes(usize),
    /// Seven of 80 bytes, four of 590, one of 1,474: the Internet's usual mix, with room for the option in the largest.
    Mix,
}

impl std::str::FromStr for Size {
    type Err = std::num::ParseIntError;

    fn from_str(name: &str) -> std::result::Result<Self, Self::Err> {
        match name {
            "mix" => Ok(Self::Mix),
            bytes => Ok(Self::Bytes(bytes.parse()?)),
        }
    }
}

impl Size {
    /// Sizes come again after so many frames.
    pub const PERIOD: usize = 12;

    /// How the report names it.
    pub fn name(self) -> String {
        match self {
            Self::Bytes(bytes) => bytes.to_string(),
            Self::Mix => "mix".to_owned(),
        }
    }

    /// The size of the `n`th frame.
    pub fn of(self, n: usize) -> usize {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Mix => match n % Self::PERIOD {
                0 | 2 | 4 | 6 | 8 | 9 | 11 => 80,
                1 | 3 | 5 | 10 => 590,
                _ => 1474,
            },
        }
    }
}

/// The 5-tuple of flow `flow`, one of 2^27, as its packets go out: 4,096 hosts with as many ports as it takes.
pub fn tuple(flow: usize) -> FiveTuple {
    let address = |side: u128, host: usize| {
        // 2001:db8:SIDE::HOST
        ((0x2001_0db8 << 96) | (side << 80) | host as u128).to_be_bytes()
    };
    FiveTuple {
        src: address(1, flow % HOSTS + 1),
        dst: address(2, 1),
        sport: (1024 + flow / HOSTS) as u16,
        dport: 443,
        protocol: 17,
    }
}

/// The flow of a tuple, as its packets go out.
pub fn flow(tuple: &FiveTuple) -> usize {
    let host = usize::from(u16::from_be_bytes([tuple.src[14], tuple.src[15]]));
    usize::from(tuple.sport - 1024) * HOSTS + host - 1
}

/// Flows by turns. Each is met as often as the others; with a stride their order is not that in which they were made.
#[derive(Clone, Copy, Default)]
pub struct Turns {
    /// The lowest flow, and the first turn's place above it.
    pub base: usize,
    pub first: usize,
    pub stride: usize,
    pub flows: usize,
}

impl Turns {
    /// In order.
    pub fn in_order(flows: usize) -> Self {
        Self {
            base: 0,
            first: 0,
            stride: 1,
            flows,
        }
    }

    /// All over the place: a stride that is prime to any power of two.
    pub fn scattered(flows: usize) -> Self {
        Self {
            stride: 0x9e37_79b1,
            ..Self::in_order(flows)
        }
    }

    /// The next flow.
    #[inline]
    pub fn next(&mut self) -> usize {
        let flow = self.base + self.first;
        self.first = (self.first + self.stride) % self.flows;
        flow
    }
}

/// Gives a frame a tag that no key makes, if there is an option, which Next Header says.
pub fn forge(frame: &mut [u8]) {
    if frame.get(14 + 6) == Some(&60)
        && let Some(byte) = frame.get_mut(14 + 40 + 4 + 35)
    {
        *byte ^= 0x80;
    }
}

/// A frame from a client to a server.
///
/// Nobody on the way looks at UDP's checksum, so it is left out.
pub fn outgoing(flow: usize, size: usize) -> Vec<u8> {
    frame(&tuple(flow), size, None)
}

/// A frame from a server to a client, with a sealed option: `size` bytes and the option's 40.
pub fn incoming(flow: usize, size: usize, option: &Sealed) -> Vec<u8> {
    frame(&tuple(flow).reversed(), size + OPTIONS_HEADER, Some(option))
}

fn frame(tuple: &FiveTuple, size: usize, option: Option<&Sealed>) -> Vec<u8> {
    let payload = (size - 14 - 40) as u16;
    let mut frame = Vec::with_capacity(size);
    frame.extend([0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1, 0x86, 0xdd]);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(payload.to_be_bytes());
    frame.extend([if option.is_some() { 60 } else { 17 }, 64]);
    frame.extend(tuple.src);
    frame.extend(tuple.dst);
    let mut udp = payload;
    if let Some(option) = option {
        frame.extend([17, (OPTIONS_HEADER / 8 - 1) as u8, 1, 0]);
        frame.extend(option);
        udp -= OPTIONS_HEADER as u16;
    }
    for number in [tuple.sport, tuple.dport, udp, 0] {
        frame.extend(number.to_be_bytes());
    }
    frame.resize(size, 0);
    frame
}

/// Frames of one size and direction, written in place: all that differs between flows is a host, a port and the option.
pub struct Template {
    headers: Vec<u8>,
    size: usize,
    host_at: usize,
    port_at: usize,
    option_at: usize,
}

impl Template {
    /// Of frames that go out, without an option.
    pub fn outgoing(size: usize) -> Self {
        Self {
            headers: outgoing(0, size)[..HEADERS].to_vec(),
            size,
            host_at: 14 + 8 + 14,
            port_at: 14 + 40,
            option_at: HEADERS,
        }
    }

    /// Of frames that come in, with a sealed option.
    pub fn incoming(size: usize) -> Self {
        Self {
            headers: incoming(0, size, &[0; 36])[..HEADERS + OPTIONS_HEADER].to_vec(),
            size: size + OPTIONS_HEADER,
            host_at: 14 + 24 + 14,
            port_at: 14 + 40 + OPTIONS_HEADER + 2,
            option_at: 14 + 40 + 4,
        }
    }

    /// Bytes of a frame.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Makes `frame`, which has [`Template::size`] bytes, one of `flow`. What is behind UDP's header stays as it is.
    #[inline]
    pub fn write(&self, frame: &mut [u8], flow: usize, option: Option<&Sealed>) {
        frame[..self.headers.len()].copy_from_slice(&self.headers);
        let host = (flow % HOSTS + 1) as u16;
        let port = (1024 + flow / HOSTS) as u16;
        frame[self.host_at..][..2].copy_from_slice(&host.to_be_bytes());
        frame[self.port_at..][..2].copy_from_slice(&port.to_be_bytes());
        if let Some(option) = option {
            frame[self.option_at..][..option.len()].copy_from_slice(option);
        }
    }
}

/// Writes a capture of `packets` frames that take turns among `flows` flows.
pub fn capture(path: &Path, size: Size, flows: usize, packets: usize) -> Result<()> {
    let mut writer = PcapWriter::new(BufWriter::new(File::create(path)?))?;
    for n in 0..packets {
        let frame = outgoing(n % flows, size.of(n));
        writer.write_packet(&PcapPacket::new(Duration::ZERO, frame.len() as u32, &frame))?;
    }
    Ok(())
}

/// That a template writes what a frame is.
pub fn check() -> Result<()> {
    let option = [7; 36];
    for flow in [0, 1, HOSTS - 1, HOSTS, 1 << 20] {
        let same = |template: Template, option: Option<&Sealed>, frame: Vec<u8>| {
            let mut written = vec![0; template.size()];
            template.write(&mut written, flow, option);
            written == frame
        };
        let right = same(Template::outgoing(80), None, outgoing(flow, 80))
            && same(
                Template::incoming(80),
                Some(&option),
                incoming(flow, 80, &option),
            )
            && self::flow(&tuple(flow)) == flow;
        if !right {
            return Err(format!("the frames of flow {flow} are not made right").into());
        }
    }
    Ok(())
}
