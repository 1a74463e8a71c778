//! Two sites that register, and their hosts: every mode, with the traffic of real kernels.

mod common;

use common::gate::Gate;
use common::lab::{Datagrams, Lab, Shape, Side};
use common::site::{self, Terms};
use std::time::Duration;

const STREAM: Datagrams = Datagrams {
    count: 500,
    rate: 1_000,
    size: 100,
    echo: true,
};

/// Sends pings, datagrams and a TCP stream; asserts that each arrives.
fn traffic(lab: &mut Lab) {
    assert_eq!(lab.ping(Side::A, 10, "0.02").len(), 10);
    let (seen, sent) = lab.udp(Side::A, 6001, &STREAM);
    assert_eq!(
        (&seen["distinct"], &sent["echoes"]),
        (&500.into(), &500.into())
    );
    lab.tcp(Side::A, 5_000_000, 7001, Duration::from_secs(60));
}

/// Asserts that both ends opened and measured all datagrams of the stream.
fn assert_measured(gates: [&Gate; 2]) {
    for gate in gates {
        let flow = gate.flow(17, (6001, 6001));
        assert_eq!(
            (&flow["packets_out"], &flow["packets_in"]),
            (&500.into(), &500.into()),
            "{flow:#}\n{}",
            gate.log()
        );
        assert_eq!((&flow["lost"], &flow["failed"]), (&0.into(), &0.into()));
        assert!(flow["rtt_ns"]["samples"].as_u64() > Some(0), "{flow:#}");
    }
}

fn mode_works(terms: &Terms) {
    let Some(mut lab) = Lab::new(Shape::default()) else {
        return;
    };
    site::prepare(&lab);
    let gate_a = site::embedded(&lab, Side::A, terms);
    let gate_b = site::embedded(&lab, Side::B, terms);
    site::wait_until_registered(&lab);
    // AsymmetricPoll and IBC make a pair's key when the first packet asks for it.
    lab.ping(Side::A, 5, "0.2");
    std::thread::sleep(Duration::from_millis(500));
    traffic(&mut lab);
    assert_measured([&gate_a, &gate_b]);
    gate_a.stop();
    gate_b.stop();
}

#[test]
fn trusted_servers() {
    mode_works(&Terms::default());
}

#[test]
fn asymmetric_poll_where_servers_ask() {
    mode_works(&Terms {
        mode: "asymmetric-poll",
        ..Terms::default()
    });
}

#[test]
fn asymmetric_poll_where_clients_ask() {
    mode_works(&Terms {
        mode: "asymmetric-poll",
        client_extra: "      asymmetric_poll: ask\n".to_owned(),
        server_extra: "      asymmetric_poll: hold\n".to_owned(),
        ..Terms::default()
    });
}

#[test]
fn identity_based() {
    mode_works(&Terms {
        mode: "ibc",
        ..Terms::default()
    });
}

#[test]
fn clear_options_need_registration_too() {
    let terms = Terms {
        protection: "clear",
        ..Terms::default()
    };
    mode_works(&terms);
}

#[test]
fn no_protection_marks_nothing() {
    let Some(mut lab) = Lab::new(Shape::default()) else {
        return;
    };
    site::prepare(&lab);
    let terms = Terms {
        mode: "no-protection",
        ..Terms::default()
    };
    let gate_a = site::embedded(&lab, Side::A, &terms);
    let gate_b = site::embedded(&lab, Side::B, &terms);
    site::wait_until_registered(&lab);
    traffic(&mut lab);
    for gate in [gate_a, gate_b] {
        assert_eq!(gate.count("marked.sealed") + gate.count("marked.clear"), 0);
        gate.stop();
    }
}

#[test]
fn primaries_stand_alone() {
    let Some(mut lab) = Lab::new(Shape::default()) else {
        return;
    };
    site::prepare(&lab);
    let terms = Terms::default();
    let primaries = [Side::A, Side::B].map(|side| site::primary(&lab, side, &terms));
    let gate_a = site::apart(&lab, Side::A, &terms);
    let gate_b = site::apart(&lab, Side::B, &terms);
    site::wait_until_registered(&lab);
    traffic(&mut lab);
    assert_measured([&gate_a, &gate_b]);
    // Without Primaries, traffic goes on with the keys at hand.
    for primary in primaries {
        primary.stop("TERM").success();
    }
    let before = gate_a.count("marked.sealed");
    assert_eq!(lab.ping(Side::A, 10, "0.02").len(), 10);
    assert!(gate_a.count("marked.sealed") >= before + 10);
    gate_a.stop();
    gate_b.stop();
}
