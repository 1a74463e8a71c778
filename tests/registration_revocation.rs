//! Revocation under full load: every packet of the hosts crosses, what goes on is sealed, and what does not open is counted.
//!
//! ```text
//!   host A ── gate A ── wire ── gate B ── gate C ── host B
//!                               2001:db8:2::/64   2001:db8:22::/64
//! ```
//!
//! Gates B and C are Secondaries of one Primary, each of an entry of its own. Each is a bump in the wire for the other one's packets.

mod common;

use common::capture::Packet;
use common::gate::Gate;
use common::lab::{Datagrams, Lab, Place, Shape, Side};
use common::site::{self, Terms};
use std::time::Duration;

const SECOND: &str = "gate-c.example";
const ENTRY: &str = "2001:db8:22::/64";
const ADDRESS: &str = "2001:db8:22::23";
/// Ports of the stream to B's entry and of that to C's.
const STAYS: u16 = 6001;
const GOES: u16 = 6002;
/// Datagrams per second. What is under way at one instant, plus what is sent until each end has heard of a revocation, is some
/// milliseconds' worth.
const RATE: u64 = 2_000;
const SECONDS: u64 = 6;
/// Packets that may be under way when a secret goes: those of 10 ms, each way.
const IN_FLIGHT: u64 = 2 * RATE / 100;

const STREAM: Datagrams = Datagrams {
    count: RATE * SECONDS,
    rate: RATE,
    size: 100,
    echo: true,
};

/// Whether each packet of a stream, in the order of the capture, was sealed.
fn sealed(packets: &[Packet], port: u16) -> Vec<bool> {
    let of_stream = packets.iter().filter_map(|packet| {
        let ip = packet.ipv6()?;
        let (.., source, destination, protocol) = ip.tuple();
        let is_it = (source, destination, protocol) == (port, port, 17);
        is_it.then(|| ip.sealed().is_some())
    });
    of_stream.collect()
}

fn count(sealed: &[bool]) -> u64 {
    sealed.iter().filter(|sealed| **sealed).count() as u64
}

/// Packets of a stream that an appliance opened.
fn opened(gate: &Gate, port: u16) -> u64 {
    gate.flow(17, (port, port))["packets_in"].as_u64().unwrap()
}

#[test]
fn revocation_under_load_loses_nothing() {
    let Some(lab) = Lab::new(Shape::default()) else {
        return;
    };
    site::prepare(&lab).certificate(SECOND);
    lab.split(Side::B);
    lab.host(Side::B)
        .sh(&format!("ip address add {ADDRESS}/64 dev eth0 nodad"));
    lab.host(Side::A)
        .sh(&format!("ip route add {ENTRY} dev eth0"));
    let terms = Terms::default();
    let gate_a = site::embedded(&lab, Side::A, &terms);
    let of_b = Terms {
        interfaces: ["mid0", "out0"],
        ..terms.clone()
    };
    let gate_b = site::embedded(&lab, Side::B, &of_b);
    site::wait_until_registered(&lab);
    let add = [
        "lists",
        "add",
        "hq",
        ENTRY,
        "--group",
        "web",
        "--secondary",
        SECOND,
    ];
    site::operate(&lab, Side::B, &add).success();
    let of_c = Terms {
        interfaces: ["in0", "mid1"],
        ..terms.clone()
    };
    let gate_c = site::another(&lab, Side::B, &of_c, SECOND, ENTRY);
    site::wait_for(&lab, "both of B's Secondaries send", |status| {
        let pairing = &status["pairings"][0];
        let own = pairing["own"].as_array().unwrap().iter();
        let mut own = own.map(|own| &own["secondaries"][0]["state"]);
        let peers = pairing["peer_list"].as_array().unwrap().iter();
        let mut peers = peers.map(|peer| &peer["generations"][0]);
        own.all(|state| state == "sending") && peers.all(|generation| generation.is_u64())
    });

    // One of the two is revoked under the traffic of both.
    let between = lab.capture(Place::Outside(Side::A), "ip6");
    let one_way = Datagrams {
        echo: false,
        ..STREAM
    };
    let ((seen, sent), (others, _)) = std::thread::scope(|scope| {
        let stays = scope.spawn(|| lab.udp(Side::A, STAYS, &STREAM));
        let goes = scope.spawn(|| lab.udp_to(Side::A, ADDRESS.parse().unwrap(), GOES, &one_way));
        std::thread::sleep(Duration::from_secs(SECONDS / 3));
        site::operate(&lab, Side::B, &["revoke", "secondary", SECOND]).success();
        (stays.join().unwrap(), goes.join().unwrap())
    });
    let all = STREAM.count.into();
    assert_eq!((&seen["distinct"], &sent["echoes"]), (&all, &all));
    assert_eq!(others["distinct"], all);
    let packets = between.packets();
    let (stays, goes) = (sealed(&packets, STAYS), sealed(&packets, GOES));
    // The stream that stays is sealed all the time, both ways, though all secrets were replaced.
    assert_eq!(stays.len() as u64, 2 * STREAM.count);
    let failed = [&gate_a, &gate_b, &gate_c].map(|gate| gate.failed());
    println!(
        "{} of {} sealed; {} of {} before the end; not opened at A, B, C: {failed:?}",
        count(&stays),
        stays.len(),
        count(&goes),
        goes.len()
    );
    let unsealed = stays.len() as u64 - count(&stays);
    assert!(unsealed <= IN_FLIGHT, "{unsealed} of the stream that stays");
    // Each sealed packet was opened or is counted as not opened.
    let accounted = opened(&gate_a, STAYS) + opened(&gate_b, STAYS) + failed[0] + failed[1];
    assert_eq!(accounted, count(&stays));
    assert!(failed[0] + failed[1] <= IN_FLIGHT, "{failed:?}");
    // The other one is sealed until its Secondary is revoked, and crosses in the clear from then on.
    assert_eq!(goes.len() as u64, STREAM.count);
    let end = count(&goes) as usize;
    let third = goes.len() / 3;
    assert!(
        end > third / 2 && end < 2 * third,
        "{end} of {}",
        goes.len()
    );
    let late = count(&goes[2 * third..]);
    assert_eq!(late, 0, "sealed for somebody who was revoked");
    // It has forgotten the flow with its secrets, but not what it counted.
    assert!(failed[2] <= IN_FLIGHT, "{failed:?}");
    assert!(gate_c.log().contains("revoked"), "{}", gate_c.log());

    // The whole pairing ends under traffic.
    let between = lab.capture(Place::Outside(Side::A), "ip6");
    let (seen, sent) = std::thread::scope(|scope| {
        let stream = scope.spawn(|| lab.udp(Side::A, STAYS, &STREAM));
        std::thread::sleep(Duration::from_secs(SECONDS / 3));
        site::operate(&lab, Side::B, &["revoke", "pairing", "hq"]).success();
        stream.join().unwrap()
    });
    assert_eq!((&seen["distinct"], &sent["echoes"]), (&all, &all));
    let ends = sealed(&between.packets(), STAYS);
    assert_eq!(ends.len() as u64, 2 * STREAM.count);
    let end = count(&ends) as usize;
    let third = ends.len() / 3;
    assert!(
        end > third / 2 && end < 2 * third,
        "{end} of {}",
        ends.len()
    );
    assert_eq!(count(&ends[2 * third..]), 0, "sealed without a pairing");
    let more = [&gate_a, &gate_b].map(|gate| gate.failed());
    println!(
        "{end} of {} before the end; not opened: {more:?}",
        ends.len()
    );
    assert!(more[0] + more[1] - failed[0] - failed[1] <= IN_FLIGHT);
    for gate in [gate_a, gate_b, gate_c] {
        gate.stop();
    }
}
