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

#[test]
fn af_xdp() {
    carries_traffic(Driver::AfXdp);
}

#[test]
fn tap() {
    carries_traffic(Driver::Tap);
}
