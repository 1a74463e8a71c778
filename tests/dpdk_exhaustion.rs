//! An exhausted pool is counted and survived.

mod dpdk_support;

use std::fs::File;
use std::time::Duration;

use dpdk_support::{open, start};
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pdmgate::dpdk::{Burst, free};

#[test]
fn exhausted_pool_is_counted_and_survived() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.pcap");
    let header = PcapHeader {
        datalink: DataLink::ETHERNET,
        ..Default::default()
    };
    let mut writer = PcapWriter::with_header(File::create(&input).unwrap(), header).unwrap();
    for _ in 0..300 {
        let packet = PcapPacket::new(Duration::ZERO, 100, &[7; 100]);
        writer.write_packet(&packet).unwrap();
    }
    drop(writer);

    let (eal, pool) = start(1, 255);
    let device = format!("net_pcap0,rx_pcap={}", input.display());
    let mut port = open(&eal, &pool, &device);

    let mut held: Vec<Burst> = Vec::new();
    loop {
        let mut burst = Burst::new();
        if port.rx[0].burst(&mut burst) == 0 {
            break;
        }
        held.push(burst);
    }
    assert_eq!(held.iter().map(|b| b.len()).sum::<usize>(), 255);
    assert_eq!(pool.available(), 0);
    assert!(pool.alloc().is_none());
    let lost = port.port.stats().unwrap().rx_nombuf;
    assert!(lost >= 1, "{lost}");

    // With packets returned, reception goes on.
    free(&mut held[0]);
    assert!(held[0].is_empty());
    assert_eq!(pool.available(), 64);
    let mut burst = Burst::new();
    assert!(port.rx[0].burst(&mut burst) > 0);
    drop((burst, held));
    assert_eq!(pool.available(), 255);
    assert!(pool.alloc().is_some());
}
