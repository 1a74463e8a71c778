//! The lab without appliances: before it judges them, it has to tell the truth itself.

mod common;

use common::lab::{Datagrams, Lab, Middle, Place, Shape, Side, report};
use std::time::Duration;

fn lab() -> Option<Lab> {
    let lab = Lab::new(Shape {
        middle: Middle::Wire,
        ..Shape::default()
    })?;
    lab.bypass(Side::A);
    lab.bypass(Side::B);
    Some(lab)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn a_wire_without_faults_carries_everything() {
    let Some(mut lab) = lab() else { return };
    let wire = lab.wire(&[]);
    let capture = lab.capture(Place::Outside(Side::A), "");
    assert_eq!(lab.ping(Side::A, 20, "0.01").len(), 20);
    lab.tcp(Side::A, 20 << 20, 5001, Duration::from_secs(60));
    lab.tcp(Side::B, 1 << 20, 5002, Duration::from_secs(60));
    let packets = capture.packets();
    let payload: usize = packets
        .iter()
        .filter_map(|p| p.ipv6())
        .filter(|ip| ip.tuple().3 == 5001)
        .map(|ip| ip.tcp_payload())
        .sum();
    assert!(payload >= 20 << 20, "{payload}");
    let report = report(wire);
    for way in ["a_to_b", "b_to_a"] {
        let way = &report[way];
        assert_eq!(way["sent"], way["received"], "{report:#}");
        for fault in [
            "lost",
            "duplicated",
            "reordered",
            "corrupted",
            "send_errors",
            "overrun",
        ] {
            assert_eq!(way[fault], 0, "{report:#}");
        }
    }
}

#[test]
fn the_delay_is_what_was_asked_for() {
    let Some(lab) = lab() else { return };
    let wire = lab.wire(&["--delay", "10ms"]);
    let times = lab.ping(Side::A, 100, "0.02");
    assert_eq!(times.len(), 100);
    let median = median(times);
    assert!(
        (19.0..21.0).contains(&median),
        "{median} ms; {}",
        report(wire)
    );
}

#[test]
fn faults_are_told_as_the_receiver_sees_them() {
    let Some(lab) = lab() else { return };
    let faults = [
        "--loss",
        "0.05",
        "--duplicate",
        "0.05",
        "--reorder",
        "0.05",
        "--corrupt",
        "0.05",
    ];
    let neighbours = ["--spare", "10", "--seed", "3", "--way", "a-to-b"];
    let wire = lab.wire(&[&faults[..], &neighbours[..]].concat());
    let stream = Datagrams {
        count: 5000,
        rate: 5000,
        size: 200,
        echo: false,
    };
    let (seen, sent) = lab.udp(Side::A, 6001, &stream);
    let report = report(wire);
    let flows = report["a_to_b"]["flows"].as_array().unwrap();
    let flow = flows
        .iter()
        .find(|f| f["destination_port"] == 6001)
        .unwrap();
    let count = |value: &serde_json::Value| value.as_u64().unwrap();
    assert_eq!(count(&sent["sent"]), count(&flow["taken"]));
    // The flow label, hop limit and traffic class are under no checksum: a bit flipped there makes no difference to the host.
    let whole = count(&flow["taken"]) - count(&flow["missing"]);
    let unnoticed = count(&seen["distinct"]) - whole;
    assert!(unnoticed <= 20, "{seen} {flow}");
    assert_eq!(count(&seen["copies"]), count(&flow["copies"]));
    assert_eq!(count(&seen["reordered"]), count(&flow["reordered"]));
    for fault in ["lost", "duplicated", "reordered", "corrupted"] {
        let count = count(&report["a_to_b"][fault]);
        assert!((180..=320).contains(&count), "{fault}: {count}");
    }
    assert_eq!(report["a_to_b"]["overrun"], 0);
}

#[test]
fn a_blackhole_opens_and_closes() {
    let Some(lab) = lab() else { return };
    let mut wire = lab.wire(&["--spare", "10"]);
    assert_eq!(lab.ping(Side::A, 5, "0.01").len(), 5);
    wire.signal("USR1");
    wire.wait_for("blackhole on", Duration::from_secs(2));
    assert_eq!(lab.ping(Side::A, 5, "0.01").len(), 0);
    wire.signal("USR1");
    wire.wait_for("blackhole off", Duration::from_secs(2));
    assert_eq!(lab.ping(Side::A, 5, "0.01").len(), 5);
    assert!(report(wire)["a_to_b"]["blackholed"].as_u64().unwrap() >= 5);
}
