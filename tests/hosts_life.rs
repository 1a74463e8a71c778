//! Starting, reloading, stopping, crashing and starting again, with traffic crossing all the while.

mod common;

use common::capture::Packet;
use common::gate::{Driver, Settings};
use common::lab::{Datagrams, Lab, Place, Shape, Side};
use common::oracle::Ledger;
use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

fn lab() -> Option<(Lab, Settings)> {
    Some((Lab::new(Shape::default())?, Settings::default()))
}

#[test]
fn a_reload_loses_neither_a_packet_nor_a_flow() {
    let Some((lab, settings)) = lab() else { return };
    let gate_a = lab.gate(Side::A, Driver::AfPacket, &settings);
    let gate_b = lab.gate(Side::B, Driver::AfPacket, &settings);
    let stream = Datagrams {
        count: 4_000,
        rate: 1_000,
        size: 100,
        echo: true,
    };
    let (seen, sent) = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| lab.udp(Side::A, 6001, &stream));
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(500));
            gate_a.reload();
            gate_b.reload();
        }
        traffic.join().unwrap()
    });
    assert_eq!(
        (&seen["distinct"], &sent["echoes"]),
        (&4_000.into(), &4_000.into())
    );
    for (gate, name) in [(&gate_a, "A"), (&gate_b, "B")] {
        let flow = gate.flow(17, (6001, 6001));
        assert_eq!(
            (&flow["packets_out"], &flow["packets_in"]),
            (&4_000.into(), &4_000.into()),
            "{name}: {flow:#}"
        );
        assert_eq!(
            (&flow["lost"], &flow["failed"]),
            (&0.into(), &0.into()),
            "{name}: {flow:#}"
        );
    }
    gate_a.stop();
    gate_b.stop();
}

#[test]
fn a_reload_takes_in_new_lists_and_refuses_bad_ones() {
    let Some((lab, settings)) = lab() else { return };
    let gate_a = lab.gate(Side::A, Driver::AfPacket, &settings);
    let gate_b = lab.gate(Side::B, Driver::AfPacket, &settings);
    let good = std::fs::read_to_string(gate_a.config()).unwrap();
    assert_eq!(lab.ping(Side::A, 5, "0.05").len(), 5);
    let marked = gate_a.count("marked.sealed");
    assert!(marked >= 5);

    std::fs::write(gate_a.config(), "ports: nonsense").unwrap();
    gate_a.reload();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(lab.ping(Side::A, 5, "0.05").len(), 5);
    assert_eq!(
        gate_a.count("marked.sealed"),
        marked + 5,
        "{}",
        gate_a.log()
    );

    std::fs::write(
        gate_a.config(),
        good.replace("2001:db8:2::/64", "2001:db8:9::/64"),
    )
    .unwrap();
    gate_a.reload();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(lab.ping(Side::A, 5, "0.05").len(), 5);
    assert_eq!(
        gate_a.count("marked.sealed"),
        marked + 5,
        "the pair is in no list any more"
    );

    std::fs::write(gate_a.config(), good).unwrap();
    gate_a.reload();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(lab.ping(Side::A, 5, "0.05").len(), 5);
    assert_eq!(gate_a.count("marked.sealed"), marked + 10);
    gate_a.stop();
    gate_b.stop();
}

#[test]
fn restarts_and_crashes_recover_and_no_key_meets_a_number_twice() {
    let Some((lab, settings)) = lab() else { return };
    let mut gate_a = lab.gate(Side::A, Driver::AfPacket, &settings);
    let mut gate_b = lab.gate(Side::B, Driver::AfPacket, &settings);
    let between = lab.capture(Place::Outside(Side::A), "ip6");
    let ports = (6001, 6001);
    let stream = Datagrams {
        count: 300,
        rate: 1_000,
        size: 100,
        echo: true,
    };
    let all_sealed = |what: &str| {
        let (seen, sent) = lab.udp(Side::A, 6001, &stream);
        assert_eq!(
            (&seen["distinct"], &sent["echoes"]),
            (&300.into(), &300.into()),
            "{what}"
        );
    };
    all_sealed("at first");

    gate_a.stop();
    gate_a = lab.gate(Side::A, Driver::AfPacket, &settings);
    all_sealed("after a restart of A");
    let flow = gate_a.flow(17, ports);
    assert_eq!(
        (&flow["packets_out"], &flow["packets_in"]),
        (&300.into(), &300.into()),
        "{flow:#}"
    );
    assert_eq!(flow["generations"]["local"], 2, "{flow:#}");
    assert_eq!(gate_b.flow(17, ports)["generations"]["remote"], 2);

    gate_b.kill();
    gate_b = lab.gate(Side::B, Driver::AfPacket, &settings);
    all_sealed("after a crash of B");

    gate_a.kill();
    gate_b.stop();
    gate_a = lab.gate(Side::A, Driver::AfPacket, &settings);
    gate_b = lab.gate(Side::B, Driver::AfPacket, &settings);
    all_sealed("after both");
    for gate in [&gate_a, &gate_b] {
        let flow = gate.flow(17, ports);
        assert_eq!(
            (&flow["packets_out"], &flow["packets_in"]),
            (&300.into(), &300.into()),
            "{flow:#}"
        );
        assert_eq!(flow["generations"]["local"], 3, "{flow:#}");
        assert_eq!(gate.count("failed_open.authentication"), 0);
    }

    let packets = between.packets();
    let mut ledger = Ledger::new(&settings, 4);
    for ip in packets
        .iter()
        .filter_map(Packet::ipv6)
        .filter(|ip| !ip.is_link_business())
    {
        ledger.enter(
            ip.tuple(),
            &ip.sealed()
                .expect("each packet is sealed, after each start"),
        );
    }
    let generations = |from: Ipv6Addr| -> BTreeSet<u32> {
        ledger
            .keys()
            .iter()
            .filter(|id| id.tuple.0 == from)
            .map(|id| id.generations.0)
            .collect()
    };
    assert_eq!(generations(Side::A.address()), BTreeSet::from([1, 2, 3]));
    assert_eq!(generations(Side::B.address()), BTreeSet::from([1, 2, 3]));
    gate_a.stop();
    gate_b.stop();
}

#[test]
fn ending_drains_what_is_under_way() {
    let Some((lab, settings)) = lab() else { return };
    let gate_a = lab.gate(Side::A, Driver::AfPacket, &settings);
    let gate_b = lab.gate(Side::B, Driver::AfPacket, &settings);
    let stream = Datagrams {
        count: 2_000,
        rate: 2_000,
        size: 100,
        echo: false,
    };
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| lab.udp(Side::A, 6001, &stream));
        std::thread::sleep(Duration::from_millis(1200));
        let before = std::time::Instant::now();
        gate_a.stop();
        gate_b.stop();
        assert!(before.elapsed() < Duration::from_secs(10));
        let (seen, _) = traffic.join().unwrap();
        assert_eq!(seen["copies"], 0);
    });
}
