//! Captures of made-up traffic, for labs that have no kernel to talk to: what one host sends in a UDP and a TCP conversation.

use clap::Args;
use pcap_file::pcap::{PcapPacket, PcapWriter};
use std::fs::File;
use std::io;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

/// Writes a capture of one host's packets
#[derive(Args)]
pub struct Options {
    /// File to write
    #[arg(long)]
    file: PathBuf,
    /// Address of the host that sends
    #[arg(long)]
    source: Ipv6Addr,
    /// Address of the host it sends to
    #[arg(long)]
    destination: Ipv6Addr,
    /// Packets of each flow
    #[arg(long, default_value_t = 500)]
    packets: u32,
}

/// Flags of a TCP segment that acknowledges and pushes.
const ACK_PSH: u8 = 0x18;

/// Writes the capture: a UDP flow to port 4433 and a TCP flow to port 80, packet by packet in turn.
///
/// # Errors
/// The file cannot be written.
pub fn write(options: &Options) -> io::Result<()> {
    let mut writer = PcapWriter::new(File::create(&options.file)?).map_err(io::Error::other)?;
    let mut number = 0;
    for index in 0..options.packets {
        for protocol in [17, 6] {
            let frame = frame(options, protocol, index);
            let packet = PcapPacket::new(
                Duration::from_micros(100 * number),
                frame.len() as u32,
                &frame,
            );
            writer.write_packet(&packet).map_err(io::Error::other)?;
            number += 1;
        }
    }
    Ok(())
}

fn frame(options: &Options, protocol: u8, index: u32) -> Vec<u8> {
    let data = format!("packet {index:8} of a made-up conversation");
    let mut upper = Vec::new();
    if protocol == 17 {
        upper.extend([0xc0, 0x00, 0x11, 0x51]);
        upper.extend((8 + data.len() as u16).to_be_bytes());
        upper.extend([0, 0]);
    } else {
        upper.extend([0xc0, 0x01, 0x00, 0x50]);
        upper.extend((1 + index * data.len() as u32).to_be_bytes());
        upper.extend([0, 0, 0, 1, 0x50, ACK_PSH, 0xff, 0xff, 0, 0, 0, 0]);
    }
    upper.extend(data.bytes());
    let at = if protocol == 17 { 6 } else { 16 };
    let sum = checksum(options, protocol, &upper);
    upper[at..at + 2].copy_from_slice(&sum.to_be_bytes());

    let mut frame = vec![
        0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0,
    ];
    frame.extend((upper.len() as u16).to_be_bytes());
    frame.extend([protocol, 64]);
    frame.extend(options.source.octets());
    frame.extend(options.destination.octets());
    frame.extend(upper);
    frame
}

/// RFC 8200 section 8.1.
fn checksum(options: &Options, protocol: u8, upper: &[u8]) -> u16 {
    let mut bytes = options.source.octets().to_vec();
    bytes.extend(options.destination.octets());
    bytes.extend((upper.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes.extend(upper);
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    match !((sum & 0xffff) + (sum >> 16)) as u16 {
        0 => 0xffff,
        sum => sum,
    }
}
