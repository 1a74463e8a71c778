//! Packets from a file, grown at the front by a worker, into a file.

mod dpdk_support;

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use dpdk_support::{open, start};
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pdmgate::dpdk::Burst;
use pdmgate::wire::PacketBuf;

fn write(path: &Path, packets: &[Vec<u8>]) {
    let header = PcapHeader {
        datalink: DataLink::ETHERNET,
        ..Default::default()
    };
    let mut writer = PcapWriter::with_header(File::create(path).unwrap(), header).unwrap();
    for packet in packets {
        let length = packet.len() as u32;
        let packet = PcapPacket::new(Duration::from_secs(1), length, packet);
        writer.write_packet(&packet).unwrap();
    }
}

fn read(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(File::open(path).unwrap()).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        packets.push(packet.unwrap().data.into_owned());
    }
    packets
}

#[test]
fn packets_pass_from_file_to_file() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    let packets: Vec<Vec<u8>> = (0..200_usize)
        .map(|n| (0..60 + n * 7).map(|at| (n * 31 + at) as u8).collect())
        .collect();
    write(&input, &packets);

    let (eal, pool) = start(1, 2048);
    let device = format!(
        "net_pcap0,rx_pcap={},tx_pcap={}",
        input.display(),
        output.display()
    );
    let mut opened = open(&eal, &pool, &device);
    let (mut rx, mut tx) = (opened.rx.remove(0), opened.tx.remove(0));
    let worker = eal
        .launch(0, move || {
            let mut burst = Burst::new();
            while rx.burst(&mut burst) > 0 {
                for packet in &mut burst {
                    packet.prepend(40).unwrap();
                    packet.data_mut()[..40].fill(0xaa);
                }
                while tx.burst(&mut burst) > 0 {}
            }
        })
        .unwrap();
    worker.wait();

    let stats = opened.port.stats().unwrap();
    assert_eq!((stats.ipackets, stats.opackets), (200, 200));
    drop(opened); // closes the file

    let expected: Vec<Vec<u8>> = packets
        .iter()
        .map(|packet| [&[0xaa; 40][..], packet].concat())
        .collect();
    let found = read(&output);
    assert_eq!(found.len(), expected.len());
    for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found, expected, "packet {number}");
    }
    assert_eq!(pool.available(), pool.capacity());
}
