//! Round-trip time against a truth that is known: the wire's delay.

mod common;

use common::gate::{Driver, Settings};
use common::lab::{Datagrams, Lab, Middle, Shape, Side, report};
use serde_json::Value;
use std::time::Duration;

fn milliseconds(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
        / 1e6
}

/// Within 5 % of what the wire is known to take both ways.
fn assert_true(what: &str, found: f64) {
    assert!(
        (19.0..=21.0).contains(&found),
        "{what}: {found} ms, expected 20 ms within 5 %"
    );
}

#[test]
fn the_median_is_the_delay_of_the_wire() {
    let Some(mut lab) = Lab::new(Shape {
        middle: Middle::Wire,
        ..Shape::default()
    }) else {
        return;
    };
    let settings = Settings::default();
    let gate_a = lab.gate(Side::A, Driver::AfPacket, &settings);
    let gate_b = lab.gate(Side::B, Driver::AfPacket, &settings);
    let wire = lab.wire(&["--delay", "10ms"]);

    // One packet at a time, answered at once.
    assert_eq!(lab.ping(Side::A, 100, "0.03").len(), 100);
    // Many packets under way: the last one received is rarely the last one sent.
    let stream = Datagrams {
        count: 2_000,
        rate: 1_000,
        size: 200,
        echo: true,
    };
    lab.udp(Side::A, 6001, &stream);
    // Little enough that the machine is not what delays it.
    lab.tcp(Side::A, 200_000, 5001, Duration::from_secs(60));

    for (name, gate) in [("A", &gate_a), ("B", &gate_b)] {
        let stats = gate.stats();
        let rtt = &stats["pairings"][0]["rtt_ns"];
        assert_true(
            &format!("median of appliance {name}"),
            milliseconds(&rtt["p50"]),
        );
        println!("appliance {name}: {rtt}");
    }
    for (protocol, ports) in [(58, (0, 0)), (17, (6001, 6001))] {
        let flow = gate_a.flow(protocol, ports);
        let rtt = &flow["rtt_ns"];
        assert!(rtt["samples"].as_u64().unwrap() > 50, "{flow:#}");
        assert_true(
            &format!("protocol {protocol}, smoothed"),
            milliseconds(&rtt["smoothed"]),
        );
        assert!(milliseconds(&rtt["min"]) >= 20.0, "{flow:#}");
    }
    println!("{}", report(wire));
    gate_a.stop();
    gate_b.stop();
}

#[test]
fn the_hosts_own_delay_is_told_apart() {
    let Some(lab) = Lab::new(Shape {
        middle: Middle::Wire,
        ..Shape::default()
    }) else {
        return;
    };
    let settings = Settings::default();
    let gate_a = lab.gate(Side::A, Driver::AfPacket, &settings);
    let gate_b = lab.gate(Side::B, Driver::AfPacket, &settings);
    let wire = lab.wire(&["--delay", "10ms"]);
    // A server that takes 30 ms to answer.
    let stream = Datagrams {
        count: 50,
        rate: 10,
        size: 200,
        echo: true,
    };
    lab.udp_served(Side::A, 6001, &stream, "30ms");
    let flow = gate_a.flow(17, (6001, 6001));
    assert_true("round trip", milliseconds(&flow["rtt_ns"]["smoothed"]));
    let delay = milliseconds(&flow["server_delay_ns"]["smoothed"]);
    assert!((30.0..33.0).contains(&delay), "{flow:#}");
    report(wire);
    gate_a.stop();
    gate_b.stop();
}
