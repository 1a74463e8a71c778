//! Builds IPv6 packets with legal extension-header chains, knowing nothing of the code that reads them, and checks
//! options headers by the rules that Linux has for them.

// Each test takes what it needs.
#![allow(dead_code)]

use std::ops::Range;

pub const SRC: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x17];
pub const DST: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// Where routing headers lead to.
pub const END: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x99];
/// What the Home Address option says.
pub const HOME: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x42];

pub const SPORT: u16 = 49_999;
pub const DPORT: u16 = 48_888;

/// An option with its alignment, `x * n + y` from the header's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlv {
    pub kind: u8,
    pub data: Vec<u8>,
    pub align: (usize, usize),
}

impl Tlv {
    pub fn home_address() -> Self {
        Self {
            kind: 0xc9,
            data: HOME.to_vec(),
            align: (8, 6),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// RFC 6275.
    Type2,
    /// RFC 8754, `left` of two segments left.
    Segments { left: u8 },
    /// An experimental type without segments left.
    Travelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    Tcp { syn: bool },
    Udp,
    Sctp,
    Echo,
    Mobility,
    Experimental,
}

#[derive(Clone, Debug)]
pub struct Spec {
    pub tags: Vec<u16>,
    pub hop_by_hop: Option<Vec<Tlv>>,
    pub first_dest_opts: Option<Vec<Tlv>>,
    pub routing: Option<Routing>,
    pub shim6: bool,
    pub dest_opts: Option<Vec<Tlv>>,
    pub upper: Upper,
    pub payload: Vec<u8>,
    /// Bytes of Ethernet padding behind the packet.
    pub trailer: usize,
}

/// A frame, and what a reader has to find in it.
#[derive(Clone, Debug)]
pub struct Built {
    pub frame: Vec<u8>,
    pub ip_at: usize,
    pub upper_at: usize,
    pub next_header_at: usize,
    pub dest_opts_at: Option<usize>,
    pub payload_len: usize,
    pub dst: [u8; 16],
    pub ports: (u16, u16),
    pub protocol: u8,
    pub is_syn: bool,
}

impl Spec {
    pub fn build(&self) -> Built {
        let mut frame = vec![2, 0, 0, 0, 0, 0x0a, 2, 0, 0, 0, 0, 0x0b];
        for (i, tag) in self.tags.iter().enumerate() {
            let kind: u16 = if i + 1 < self.tags.len() {
                0x88a8
            } else {
                0x8100
            };
            frame.extend(kind.to_be_bytes());
            frame.extend(tag.to_be_bytes());
        }
        frame.extend([0x86, 0xdd]);
        let ip_at = frame.len();

        let mut dst = DST;
        let mut headers: Vec<(u8, Vec<u8>)> = Vec::new();
        if let Some(options) = &self.hop_by_hop {
            headers.push((0, options_header(options)));
        }
        if let Some(options) = &self.first_dest_opts {
            headers.push((60, options_header(options)));
        }
        if let Some(routing) = self.routing {
            let (fixed, addresses, ends): ([u8; 8], &[_], bool) = match routing {
                Routing::Type2 => ([0, 2, 2, 1, 0, 0, 0, 0], &[END], true),
                Routing::Segments { left } => ([0, 4, 4, left, 1, 0, 0, 0], &[END, DST], left > 0),
                Routing::Travelled => ([0, 2, 253, 0, 0, 0, 0, 0], &[END], false),
            };
            headers.push((43, [&fixed[..], &addresses.concat()].concat()));
            if ends {
                dst = END;
            }
        }
        if self.shim6 {
            headers.push((140, vec![0, 0, 0x80, 0, 0, 0, 0, 7]));
        }
        if let Some(options) = &self.dest_opts {
            headers.push((60, options_header(options)));
        }

        let upper = self.upper_layer(&dst);
        let length: usize =
            headers.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + upper.len();
        frame.extend([0x60, 0, 0, 0]);
        frame.extend((length as u16).to_be_bytes());
        frame.extend([0, 64]);
        frame.extend(SRC);
        frame.extend(DST);

        let mut name_at = ip_at + 6;
        let mut dest_opts_at = None;
        for (number, bytes) in headers {
            frame[name_at] = number;
            name_at = frame.len();
            dest_opts_at = (number == 60).then_some(name_at);
            frame.extend(bytes);
        }
        let protocol = self.protocol();
        frame[name_at] = protocol;
        let upper_at = frame.len();
        frame.extend(upper);
        frame.extend(vec![0xee; self.trailer]);
        Built {
            frame,
            ip_at,
            upper_at,
            next_header_at: name_at,
            dest_opts_at,
            payload_len: length,
            dst,
            ports: match self.upper {
                Upper::Tcp { .. } | Upper::Udp | Upper::Sctp => (SPORT, DPORT),
                _ => (0, 0),
            },
            protocol,
            is_syn: self.upper == Upper::Tcp { syn: true },
        }
    }

    fn protocol(&self) -> u8 {
        match self.upper {
            Upper::Tcp { .. } => 6,
            Upper::Udp => 17,
            Upper::Sctp => 132,
            Upper::Echo => 58,
            Upper::Mobility => 135,
            Upper::Experimental => 253,
        }
    }

    /// The upper-layer header and payload, with checksum.
    fn upper_layer(&self, dst: &[u8; 16]) -> Vec<u8> {
        let ports = [SPORT.to_be_bytes(), DPORT.to_be_bytes()].concat();
        let len = (8 + self.payload.len()) as u16;
        let (header, checksum_at) = match self.upper {
            Upper::Tcp { syn } => {
                let rest = [
                    0,
                    0,
                    0,
                    1,
                    0,
                    0,
                    0,
                    2,
                    0x50,
                    if syn { 2 } else { 0x10 },
                    0xff,
                    0xff,
                    0,
                    0,
                    0,
                    0,
                ];
                ([&ports[..], &rest].concat(), Some(16))
            }
            Upper::Udp => ([&ports[..], &len.to_be_bytes(), &[0, 0]].concat(), Some(6)),
            // COOKIE ACK is a chunk of its header only; its checksum is a CRC, which nobody here reads.
            Upper::Sctp => return [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0, 11, 0, 0, 4]].concat(),
            Upper::Echo => (vec![128, 0, 0, 0, 0x12, 0x34, 0, 1], Some(2)),
            // Binding Refresh Request.
            Upper::Mobility => return self.checked(dst, vec![59, 0, 0, 0, 0, 0, 0, 0], 4),
            Upper::Experimental => (Vec::new(), None),
        };
        let message = [&header[..], &self.payload].concat();
        match checksum_at {
            Some(at) => self.checked(dst, message, at),
            None => message,
        }
    }

    /// With the Internet checksum over it and the pseudo-header, in which a home address takes the source's place.
    fn checked(&self, dst: &[u8; 16], mut message: Vec<u8>, at: usize) -> Vec<u8> {
        let src = self
            .first_dest_opts
            .iter()
            .chain(&self.dest_opts)
            .flatten()
            .rfind(|tlv| tlv.kind == 0xc9)
            .map_or(&SRC[..], |tlv| &tlv.data);
        let mut covered = [
            src,
            dst,
            &(message.len() as u32).to_be_bytes(),
            &[0, 0, 0, self.protocol()],
        ]
        .concat();
        covered.extend(&message);
        let words = covered
            .chunks(2)
            .map(|c| u64::from(c[0]) << 8 | u64::from(*c.get(1).unwrap_or(&0)));
        let sum = (0..4).fold(words.sum::<u64>(), |sum, _| (sum & 0xffff) + (sum >> 16)) as u16;
        let checksum = if sum == 0xffff && self.upper == Upper::Udp {
            0xffff
        } else {
            !sum
        };
        message[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        message
    }
}

/// Next Header (0 for now), length, and the options, each padded to its alignment and the whole to eight bytes.
fn options_header(options: &[Tlv]) -> Vec<u8> {
    let mut header = vec![0, 0];
    for tlv in options {
        let (x, y) = tlv.align;
        let gap = (0..x)
            .find(|gap| (header.len() + gap) % x == y % x)
            .unwrap();
        header.extend(padding(gap));
        header.extend([tlv.kind, tlv.data.len() as u8]);
        header.extend(&tlv.data);
    }
    let gap = header.len().next_multiple_of(8) - header.len();
    header.extend(padding(gap));
    header[1] = (header.len() / 8 - 1) as u8;
    header
}

fn padding(len: usize) -> Vec<u8> {
    match len {
        0 => vec![],
        1 => vec![0],
        _ => [&[1, len as u8 - 2][..], &vec![0; len - 2]].concat(),
    }
}

/// An option's place in its header, and all its bytes.
pub type Placed = (Range<usize>, Vec<u8>);

/// The options of a header that are no padding, with their place in it. Fails on what Linux would drop a packet for:
/// more than 7 bytes of padding in a row, padding that is not zero, an option beyond the end.
pub fn legal_options(header: &[u8]) -> Result<Vec<Placed>, String> {
    if header.len() != (usize::from(header[1]) + 1) * 8 {
        return Err("Hdr Ext Len is wrong".into());
    }
    let mut options = Vec::new();
    let (mut at, mut row) = (2, 0);
    while at < header.len() {
        let size = match header[at] {
            0 => 1,
            _ => 2 + usize::from(*header.get(at + 1).ok_or("no length byte")?),
        };
        let bytes = header
            .get(at..at + size)
            .ok_or("an option beyond the end")?;
        if header[at] > 1 {
            row = 0;
            options.push((at..at + size, bytes.to_vec()));
        } else {
            row += size;
            if row > 7 || bytes.iter().skip(2).any(|&byte| byte != 0) {
                return Err(format!("padding at {at}: {}", hex::encode(bytes)));
            }
        }
        at += size;
    }
    Ok(options)
}
