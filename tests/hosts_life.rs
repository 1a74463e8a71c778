//! Starting, reloading, stopping, crashing and starting again, with traffic crossing all the while.

mod common;

use common::capture::Packet;
use common::gate::{Driver, Settings};
use common::lab::{Datagrams, Lab, Place, Shape, Side};
use common::oracle::Ledger;
use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

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
fn a_flow_that_comes_back_gets_a_new_key() {
    let Some(lab) = Lab::new(Shape::default()) else {
        return;
    };
    // Traffic ends with a silence of its own, and a busy machine adds to it, before flows are asked for.
    let settings = Settings {
        idle_timeout: "8s",
        ..Settings::default()
    };
    let gate_a = lab.gate(Side::A, Driver::AfPacket, &settings);
    let gate_b = lab.gate(Side::B, Driver::AfPacket, &settings);
    let between = lab.capture(Place::Outside(Side::A), "ip6");
    let stream = Datagrams {
        count: 50,
        rate: 1_000,
        size: 100,
        echo: true,
    };
    for time in 0..3 {
        let (seen, sent) = lab.udp(Side::A, 6001, &stream);
        assert_eq!(
            (&seen["distinct"], &sent["echoes"]),
            (&50.into(), &50.into())
        );
        for gate in [&gate_a, &gate_b] {
            let flow = gate.flow(17, (6001, 6001));
            assert_eq!(flow["packets_out"], 50, "{time}: {flow:#}");
            assert_eq!(flow["packets_in"], 50, "{time}: {flow:#}");
            assert_eq!((&flow["lost"], &flow["failed"]), (&0.into(), &0.into()));
        }
        // Idle for so long, and then as long as the table takes to notice.
        let forgotten = || gate_a.flows().is_empty() && gate_b.flows().is_empty();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !forgotten() {
            assert!(Instant::now() < deadline, "the flows were not forgotten");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    let packets = between.packets();
    let mut ledger = Ledger::new(&settings, 1);
    for ip in packets.iter().filter_map(Packet::ipv6) {
        if let Some(sealed) = ip.sealed() {
            ledger.enter(ip.tuple(), &sealed);
        }
    }
    assert_eq!(ledger.len(), 300);
    let kris: BTreeSet<u32> = ledger.keys().iter().map(|id| id.kri).collect();
    assert_eq!(kris, BTreeSet::from([0, 1, 2]));
    gate_a.stop();
    gate_b.stop();
}

#[test]
fn a_link_goes_down_and_comes_up() {
    let Some((lab, settings)) = lab() else { return };
    let gate_a = lab.gate(Side::A, Driver::AfPacket, &settings);
    let gate_b = lab.gate(Side::B, Driver::AfPacket, &settings);
    assert_eq!(lab.ping(Side::A, 5, "0.05").len(), 5);
    for interface in ["out0", "in0"] {
        lab.gate_netns(Side::A)
            .sh(&format!("ip link set {interface} down"));
        assert_eq!(lab.ping(Side::A, 2, "0.05").len(), 0);
        lab.gate_netns(Side::A)
            .sh(&format!("ip link set {interface} up"));
        // The hosts' kernels may hold the neighbour for unreachable for a moment.
        let deadline = Instant::now() + Duration::from_secs(15);
        while lab.ping(Side::A, 1, "0.05").is_empty() {
            assert!(
                Instant::now() < deadline,
                "{interface}: nothing comes through"
            );
        }
        assert_eq!(lab.ping(Side::A, 5, "0.05").len(), 5, "{interface}");
    }
    assert_eq!(gate_b.count("failed_open.authentication"), 0);
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
        let before = Instant::now();
        gate_a.stop();
        gate_b.stop();
        assert!(before.elapsed() < Duration::from_secs(10));
        let (seen, _) = traffic.join().unwrap();
        assert_eq!(seen["copies"], 0);
    });
}

/// A socket of AF_PACKET hears every interface until it is bound to one. A frame that goes back to where it came from puts
/// bridges wrong: what is for its sender is lost until the sender speaks.
#[test]
fn starting_returns_no_frame_to_where_it_came_from() {
    let Some((lab, settings)) = lab() else { return };
    lab.bypass(Side::B);
    let captures = [
        (Side::A, Place::Host(Side::A)),
        (Side::B, Place::Outside(Side::A)),
    ]
    .map(|(from, place)| {
        let filter = format!("inbound and src host {}", from.address());
        lab.capture(place, &filter)
    });
    // The hosts find each other while frames do cross.
    let first = lab.gate(Side::A, Driver::AfPacket, &settings);
    assert_eq!(lab.ping(Side::A, 2, "0.05").len(), 2);
    let stream = &Datagrams {
        count: 24_000,
        rate: 4_000,
        size: 100,
        echo: false,
    };
    let gate = std::thread::scope(|scope| {
        let lab = &lab;
        for (from, port) in [(Side::A, 6001), (Side::B, 6002)] {
            scope.spawn(move || lab.udp(from, port, stream));
        }
        (0..8).fold(first, |gate, _| {
            gate.kill();
            lab.gate(Side::A, Driver::AfPacket, &settings)
        })
    });
    let deadline = Instant::now() + Duration::from_secs(15);
    while lab.ping(Side::A, 5, "0.05").len() < 5 {
        assert!(Instant::now() < deadline, "nothing comes through");
    }
    for capture in captures {
        assert_eq!(capture.packets().len(), 0, "frames came back");
    }
    gate.stop();
}
