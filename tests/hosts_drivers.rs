//! The same hosts by other drivers: AF_XDP and TAP.

mod common;

use common::gate::{Driver, Settings};
use common::lab::{Datagrams, Lab, Place, Shape, Side};
use common::oracle::Ledger;
use std::time::Duration;

fn carries_traffic(driver: Driver) {
    let Some(mut lab) = Lab::new(Shape::default()) else {
        return;
    };
    let settings = Settings::default();
    let gate_a = lab.gate(Side::A, driver, &settings);
    let gate_b = lab.gate(Side::B, driver, &settings);
    let between = lab.capture(Place::Outside(Side::A), "");
    assert_eq!(lab.ping(Side::A, 20, "0.05").len(), 20);
    lab.tcp(Side::A, 10_000_000, 5001, Duration::from_secs(120));
    lab.tcp(Side::B, 2_000_000, 5002, Duration::from_secs(120));
    let stream = Datagrams {
        count: 500,
        rate: 1000,
        size: 1000,
        echo: true,
    };
    let (seen, sent) = lab.udp(Side::A, 6001, &stream);
    assert_eq!(
        (&seen["distinct"], &sent["echoes"]),
        (&500.into(), &500.into())
    );

    let mut ledger = Ledger::new(&settings, 1);
    for packet in between.packets() {
        let Some(ip) = packet.ipv6() else { continue };
        if !ip.is_link_business() {
            ledger.enter(ip.tuple(), &ip.sealed().expect("a sealed option"));
        }
    }
    assert!(ledger.len() > 2_000);
    let flow = gate_a.flow(17, (6001, 6001));
    assert_eq!(
        (&flow["packets_out"], &flow["packets_in"]),
        (&500.into(), &500.into()),
        "{flow:#}"
    );
    gate_a.stop();
    gate_b.stop();
}

/// Packets of one flow meet different workers, on their way out and on their way in.
#[test]
fn two_queues() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        println!("SKIPPED: two workers need two cores");
        return;
    }
    let Some(lab) = Lab::new(Shape::default()) else {
        return;
    };
    let settings = Settings {
        queues: 2,
        rotation_packets: 256,
        ..Settings::default()
    };
    let gate_a = lab.gate(Side::A, Driver::AfPacketTwice, &settings);
    let gate_b = lab.gate(Side::B, Driver::AfPacketTwice, &settings);
    let between = lab.capture(Place::Outside(Side::A), "");
    std::thread::scope(|scope| {
        for port in 6001..6009 {
            let lab = &lab;
            scope.spawn(move || {
                let stream = Datagrams {
                    count: 1_500,
                    rate: 500,
                    size: 100,
                    echo: true,
                };
                let (seen, sent) = lab.udp(Side::A, port, &stream);
                assert_eq!(
                    (&seen["distinct"], &sent["echoes"]),
                    (&1_500.into(), &1_500.into())
                );
            });
        }
    });
    let mut ledger = Ledger::new(&settings, 1);
    for packet in between.packets() {
        let Some(ip) = packet.ipv6() else { continue };
        if !ip.is_link_business() {
            ledger.enter(ip.tuple(), &ip.sealed().expect("a sealed option"));
        }
    }
    assert_eq!(ledger.len(), 8 * 2 * 1_500);
    for gate in [&gate_a, &gate_b] {
        let stats = gate.stats();
        let workers = stats["workers"].as_array().unwrap();
        assert_eq!(workers.len(), 2);
        for worker in workers {
            let received = &worker["counters"]["packets_received"];
            assert!(received["out"].as_u64().unwrap() > 0, "{received}");
            assert!(received["in"].as_u64().unwrap() > 0, "{received}");
        }
        assert_eq!(gate.count("failed_open.authentication"), 0);
        for port in 6001..6009 {
            let flow = gate.flow(17, (port, port));
            assert_eq!(flow["packets_out"], 1_500, "{flow:#}");
            assert_eq!(flow["lost"], 0, "{flow:#}");
        }
    }
    gate_a.stop();
    gate_b.stop();
}

#[test]
fn af_xdp() {
    carries_traffic(Driver::AfXdp);
}

#[test]
fn tap() {
    carries_traffic(Driver::Tap);
}
