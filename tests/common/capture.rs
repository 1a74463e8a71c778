//! Captures by tcpdump, and a parser for what is in them, written apart from the appliance's.

use super::netns::Netns;
use super::process::{Process, run};
use pcap_file::pcap::PcapReader;
use std::collections::BTreeSet;
use std::fs::File;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A capture that runs.
pub struct Capture {
    tcpdump: Process,
    file: PathBuf,
}

impl Capture {
    /// Captures what the filter lets through; an empty one lets everything through.
    pub fn start(netns: &Netns, interface: &str, dir: &Path, filter: &str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = dir.join(format!("{interface}-{number}.pcap"));
        let mut command = netns.command("tcpdump");
        // Small frames of a big transfer: 128 MiB of ring, so that nothing is dropped while the machine is busy.
        command
            .args([
                "-i", interface, "-n", "-U", "-s", "0", "-B", "131072", "-Z", "root", "-w",
            ])
            .arg(&file)
            .arg(filter);
        let mut tcpdump = Process::start(command);
        tcpdump.wait_for("listening on", Duration::from_secs(10));
        Self { tcpdump, file }
    }

    /// Ends the capture and yields its file; asserts that it is whole.
    pub fn file(self) -> PathBuf {
        // What was captured reaches tcpdump in blocks, at the latest after its time-out of a second.
        std::thread::sleep(Duration::from_millis(1200));
        let ended = self.tcpdump.stop("INT").success();
        assert!(
            ended.err.contains("\n0 packets dropped by kernel"),
            "the capture has holes: {}",
            ended.err
        );
        self.file
    }

    /// Ends the capture and yields its packets.
    pub fn packets(self) -> Vec<Packet> {
        read(&self.file())
    }
}

/// Reads a capture of Ethernet frames.
pub fn read(file: &Path) -> Vec<Packet> {
    let mut reader = PcapReader::new(File::open(file).unwrap()).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap();
        assert_eq!(
            packet.orig_len as usize,
            packet.data.len(),
            "a packet was cut"
        );
        packets.push(Packet {
            time: packet.timestamp,
            frame: packet.data.into_owned(),
        });
    }
    packets
}

/// All that tshark calls malformed in a capture. What streams to port 5001 carry is nothing to it: else it would guess at a protocol in random
/// bytes, and call a segment that was sent again malformed, as it overlaps what the guess has gathered.
pub fn malformed(file: &Path) -> BTreeSet<String> {
    /// Wireshark's number for experts' group "Malformed".
    const MALFORMED: &str = "117440512";
    let mut tshark = Command::new("tshark");
    tshark.args([
        "-n",
        "-d",
        "tcp.port==5001,data",
        "-Y",
        "_ws.malformed",
        "-T",
        "fields",
        "-E",
        "aggregator=;",
    ]);
    tshark
        .args(["-e", "_ws.expert.group", "-e", "_ws.expert.message", "-r"])
        .arg(file);
    let ended = run(tshark, Duration::from_secs(600)).success();
    let mut found = BTreeSet::new();
    for line in ended.out.lines() {
        let (groups, messages) = line.split_once('\t').unwrap_or((MALFORMED, line));
        let both = groups.split(';').zip(messages.split(';'));
        found.extend(
            both.filter(|(group, _)| *group == MALFORMED)
                .map(|(_, message)| message.to_owned()),
        );
    }
    found
}

/// A captured frame.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Since 1970.
    pub time: Duration,
    pub frame: Vec<u8>,
}

/// The parts of an IPv6 packet.
#[derive(Clone, Debug)]
pub struct Ipv6<'a> {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    /// Upper-layer protocol.
    pub protocol: u8,
    /// Each extension header with the number that named it.
    pub extensions: Vec<(u8, &'a [u8])>,
    /// From the upper-layer header on.
    pub upper: &'a [u8],
}

/// Source, destination, their ports (0 without), protocol.
pub type Tuple = (Ipv6Addr, Ipv6Addr, u16, u16, u8);

impl Packet {
    /// Its IPv6 packet; `None` if it is anything else, or its lengths do not add up.
    pub fn ipv6(&self) -> Option<Ipv6<'_>> {
        let mut rest = self.frame.get(12..)?;
        while let [0x81, 0x00, _, _, inner @ ..] | [0x88, 0xa8, _, _, inner @ ..] = rest {
            rest = inner;
        }
        let [0x86, 0xdd, ip @ ..] = rest else {
            return None;
        };
        let (header, rest) = ip.split_at_checked(40)?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let mut upper = rest.get(..length)?;
        let address =
            |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).unwrap());
        let mut protocol = header[6];
        let mut extensions = Vec::new();
        while matches!(protocol, 0 | 43 | 60) {
            let size = 8 + 8 * usize::from(*upper.get(1)?);
            let (extension, behind) = upper.split_at_checked(size)?;
            extensions.push((protocol, extension));
            (protocol, upper) = (extension[0], behind);
        }
        Some(Ipv6 {
            source: address(8),
            destination: address(24),
            protocol,
            extensions,
            upper,
        })
    }
}

impl<'a> Ipv6<'a> {
    pub fn tuple(&self) -> Tuple {
        let port = |at: usize| {
            let bytes = self.upper.get(at..at + 2).unwrap_or(&[0, 0]);
            u16::from_be_bytes([bytes[0], bytes[1]])
        };
        let (source, destination) = match self.protocol {
            6 | 17 | 33 | 132 | 136 => (port(0), port(2)),
            _ => (0, 0),
        };
        (
            self.source,
            self.destination,
            source,
            destination,
            self.protocol,
        )
    }

    /// Whether it is a neighbour discovery or listener message, a link's own business.
    pub fn is_link_business(&self) -> bool {
        self.protocol == 58 && matches!(self.upper.first(), Some(130..=137 | 143))
    }

    /// Bytes of upper-layer payload of a TCP segment; 0 for other protocols.
    pub fn tcp_payload(&self) -> usize {
        if self.protocol == 6 {
            self.upper.len() - 4 * usize::from(self.upper[12] >> 4)
        } else {
            0
        }
    }

    /// All options of its Destination Options headers but padding: type and data. One that is longer than its header, and what
    /// follows it, is left out.
    pub fn destination_options(&self) -> Vec<(u8, &'a [u8])> {
        let mut options = Vec::new();
        for (_, header) in self.extensions.iter().filter(|(number, _)| *number == 60) {
            let mut rest = &header[2..];
            loop {
                match rest {
                    [0, behind @ ..] => rest = behind,
                    [kind, length, tail @ ..] if tail.len() >= usize::from(*length) => {
                        let (data, behind) = tail.split_at(usize::from(*length));
                        if *kind != 1 {
                            options.push((*kind, data));
                        }
                        rest = behind;
                    }
                    _ => break,
                }
            }
        }
        options
    }

    /// The data of its sealed PDMv2 option of type 0x0F.
    pub fn sealed(&self) -> Option<Sealed> {
        let (_, data) = *self
            .destination_options()
            .iter()
            .find(|(kind, data)| *kind == 0x0f && data.len() == 0x22)?;
        let prseq_f = u16::from_be_bytes([data[2], data[3]]);
        Some(Sealed {
            prseq: prseq_f >> 1,
            f: prseq_f & 1 == 1,
            data: data.try_into().unwrap(),
        })
    }
}

/// A sealed PDMv2 option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub prseq: u16,
    pub f: bool,
    /// All of it behind Option Length.
    pub data: [u8; 0x22],
}
