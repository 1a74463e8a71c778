//! Appliances on a bad wire: what they count is what the wire did, what they measure stays true, and no key meets a number twice.

mod common;

use common::capture::Packet;
use common::gate::{Driver, Gate, Settings};
use common::lab::{Datagrams, Lab, Middle, Place, Shape, Side, report};
use common::oracle::Ledger;
use serde_json::Value;
use std::net::Ipv6Addr;
use std::time::Duration;

fn lab(settings: &Settings) -> Option<(Lab, Gate, Gate)> {
    let lab = Lab::new(Shape {
        middle: Middle::Wire,
        ..Shape::default()
    })?;
    let gate_a = lab.gate(Side::A, Driver::AfPacket, settings);
    let gate_b = lab.gate(Side::B, Driver::AfPacket, settings);
    Some((lab, gate_a, gate_b))
}

/// What the wire did to the flow to this UDP port.
fn flow(report: &Value, way: &str, port: u16) -> Value {
    let flows = report[way]["flows"].as_array().unwrap();
    let found = flows
        .iter()
        .find(|f| f["destination_port"] == port && f["protocol"] == 17);
    found
        .unwrap_or_else(|| panic!("no flow to {port} in {report:#}"))
        .clone()
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// Enters what a host's appliance sent into the ledger.
fn enter(ledger: &mut Ledger, packets: &[Packet], from: Ipv6Addr) {
    for ip in packets
        .iter()
        .filter_map(Packet::ipv6)
        .filter(|ip| ip.source == from)
    {
        if let Some(sealed) = ip.sealed() {
            ledger.enter(ip.tuple(), &sealed);
        }
    }
}

#[test]
fn counts_are_what_the_wire_did() {
    for seed in ["1", "2"] {
        // Keys that last 256 packets: some eighty changes among the faults.
        let settings = Settings {
            rotation_packets: 256,
            ..Settings::default()
        };
        let Some((lab, gate_a, gate_b)) = lab(&settings) else {
            return;
        };
        let wire = lab.wire(&[
            "--only-marked",
            "--spare",
            "10",
            "--way",
            "a-to-b",
            "--corrupt-at",
            "option",
            "--seed",
            seed,
            "--loss",
            "0.05",
            "--duplicate",
            "0.05",
            "--reorder",
            "0.05",
            "--corrupt",
            "0.05",
        ]);
        let sealed = lab.capture(Place::Outside(Side::A), "ip6");
        let stream = Datagrams {
            count: 20_000,
            rate: 4_000,
            size: 100,
            echo: false,
        };
        let (seen, _) = lab.udp(Side::A, 6001, &stream);
        let record = gate_b.flow(17, (6001, 6001));
        let failed = gate_b.count("failed_open.authentication");
        let over_budget = gate_b.count("failed_open.search_budget");
        let report = report(wire);
        let truth = flow(&report, "a_to_b", 6001);

        assert_eq!(report["a_to_b"]["overrun"], 0);
        assert_eq!(report["a_to_b"]["send_errors"], 0);
        assert_eq!(truth["taken"], 20_000, "each datagram was sealed");
        for fault in ["lost", "duplicated", "reordered", "corrupted"] {
            let count = number(&report["a_to_b"][fault]);
            assert!((850..1150).contains(&count), "{fault}: {count}");
        }
        let whole = number(&truth["taken"]) - number(&truth["missing"]);
        assert_eq!(number(&record["packets_in"]), whole, "{record:#} {truth:#}");
        for count in ["lost", "reordered"] {
            assert_eq!(record[count], truth[count], "{count}: {record:#} {truth:#}");
        }
        assert_eq!(record["replayed"], truth["copies"], "{record:#} {truth:#}");
        assert_eq!(failed + over_budget, number(&truth["spoiled"]));
        // The datagrams themselves were whole, and go on.
        assert_eq!(number(&seen["distinct"]), whole + number(&truth["spoiled"]));
        assert_eq!(number(&seen["copies"]), number(&truth["copies"]));

        let mut ledger = Ledger::new(&settings, 1);
        enter(&mut ledger, &sealed.packets(), Side::A.address());
        assert!(ledger.keys().len() >= 20_000 / 256);
        gate_a.stop();
        gate_b.stop();
    }
}

#[test]
fn a_bad_wire_both_ways_breaks_nothing() {
    let settings = Settings {
        rotation_packets: 256,
        ..Settings::default()
    };
    let Some((mut lab, gate_a, gate_b)) = lab(&settings) else {
        return;
    };
    // Corruption anywhere in the frame. Copies and reordering make TCP back off a lot, so the transfer is small.
    let wire = lab.wire(&[
        "--only-marked",
        "--delay",
        "2ms",
        "--seed",
        "5",
        "--loss",
        "0.05",
        "--duplicate",
        "0.05",
        "--reorder",
        "0.05",
        "--corrupt",
        "0.05",
    ]);
    let before_a = lab.capture(Place::Outside(Side::A), "ip6");
    let before_b = lab.capture(Place::Outside(Side::B), "ip6");
    lab.tcp(Side::A, 3_000_000, 5001, Duration::from_secs(120));
    lab.ping(Side::B, 100, "0.01");
    let stream = Datagrams {
        count: 3_000,
        rate: 1_000,
        size: 100,
        echo: true,
    };
    let (seen, _) = lab.udp(Side::A, 6001, &stream);
    assert_eq!(
        seen["changed"], 0,
        "a changed datagram got past its checksum"
    );

    let mut ledger = Ledger::new(&settings, 1);
    enter(&mut ledger, &before_a.packets(), Side::A.address());
    enter(&mut ledger, &before_b.packets(), Side::B.address());
    for gate in [&gate_a, &gate_b] {
        for flow in gate.flows() {
            let Some(rtt) = flow["rtt_ns"].as_object() else {
                continue;
            };
            // Nothing crosses the wire twice in less than twice its delay; what is far above would be a pair of packets that
            // do not belong together.
            assert!(number(&rtt["min"]) >= 4_000_000, "{flow:#}");
            assert!(number(&rtt["max"]) < 500_000_000, "{flow:#}");
        }
        let median = number(&gate.stats()["pairings"][0]["rtt_ns"]["p50"]);
        assert!((4_000_000..9_000_000).contains(&median), "{median}");
    }
    report(wire);
    gate_a.stop();
    gate_b.stop();
}

#[test]
fn a_key_change_that_is_lost_entirely_recovers() {
    let settings = Settings {
        rotation_packets: 256,
        ..Settings::default()
    };
    let Some((lab, gate_a, gate_b)) = lab(&settings) else {
        return;
    };
    let mut wire = lab.wire(&["--only-marked"]);
    let stream = Datagrams {
        count: 4_000,
        rate: 1_000,
        size: 100,
        echo: false,
    };
    let (seen, _) = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| lab.udp(Side::A, 6001, &stream));
        // Two keys that the receiver never hears of, and less than the second of silence after which the sink ends.
        std::thread::sleep(Duration::from_millis(1500));
        wire.signal("USR1");
        wire.wait_for("blackhole on", Duration::from_secs(2));
        std::thread::sleep(Duration::from_millis(700));
        wire.signal("USR1");
        wire.wait_for("blackhole off", Duration::from_secs(2));
        traffic.join().unwrap()
    });
    let record = gate_b.flow(17, (6001, 6001));
    let failed =
        gate_b.count("failed_open.authentication") + gate_b.count("failed_open.search_budget");
    let report = report(wire);
    let truth = flow(&report, "a_to_b", 6001);
    let missing = number(&truth["missing"]);
    assert!((600..1500).contains(&missing), "{truth:#}");
    assert_eq!(number(&seen["distinct"]), 4_000 - missing);
    assert_eq!(number(&record["packets_in"]), 4_000 - missing, "{record:#}");
    assert_eq!(number(&record["lost"]), missing, "{record:#}");
    assert_eq!(failed, 0);
    gate_a.stop();
    gate_b.stop();
}
