//! Two sites that register, while everything changes under their traffic: renewal, revocation, lists, crashes of every role.

mod common;

use common::gate::Gate;
use common::lab::{Datagrams, Lab, Place, Shape, Side};
use common::process::Process;
use common::site::{self, Terms};
use common::witness::Witness;
use serde_json::Value;
use std::time::{Duration, Instant};

fn keylog(lab: &Lab, terms: &mut Terms) -> std::path::PathBuf {
    let path = lab.dir().join("keylog.jsonl");
    // One of the two is enough; both write the same.
    terms.primary_extra = format!("  keylog: {}\n", path.display());
    path
}

#[test]
fn renewal_every_second_for_a_minute_loses_nothing() {
    let Some(lab) = Lab::new(Shape::default()) else {
        return;
    };
    site::prepare(&lab);
    let mut terms = Terms {
        client_extra: "      renew_after: 1s\n".to_owned(),
        ..Terms::default()
    };
    let keylog = keylog(&lab, &mut terms);
    let gate_a = site::embedded(&lab, Side::A, &terms);
    let gate_b = site::embedded(&lab, Side::B, &terms);
    site::wait_until_registered(&lab);
    let between = lab.capture(Place::Outside(Side::A), "ip6");
    let stream = Datagrams {
        count: 60_000,
        rate: 1_000,
        size: 100,
        echo: true,
    };
    let (seen, sent) = lab.udp(Side::A, 6001, &stream);
    assert_eq!(
        (&seen["distinct"], &sent["echoes"]),
        (&60_000.into(), &60_000.into())
    );
    let mut witness = Witness::new(&keylog, site::generations(&lab));
    let sealed = witness.take(&between.packets());
    // The first packets of a flow may meet a secret that is just being replaced; a packet takes a fraction of a millisecond.
    assert!(sealed >= 119_900, "{sealed} of 120000 were sealed");
    assert!(witness.secrets() >= 30, "{} secrets", witness.secrets());
    for gate in [gate_a, gate_b] {
        assert_eq!(
            gate.failed(),
            0,
            "{:#}\n{}",
            gate.stats()["counters"],
            gate.log()
        );
        gate.stop();
    }
}

#[test]
fn operators_renew_revoke_and_change_lists() {
    let Some(lab) = Lab::new(Shape::default()) else {
        return;
    };
    site::prepare(&lab);
    let terms = Terms::default();
    let gate_a = site::embedded(&lab, Side::A, &terms);
    let gate_b = site::embedded(&lab, Side::B, &terms);
    site::wait_until_registered(&lab);
    let secret = |side| site::registrations(&lab, side)["pairings"][0]["secrets"][0]["id"].clone();
    let first = secret(Side::A);
    assert_eq!(first, secret(Side::B));

    // Either side may ask for a new secret.
    for (side, pairing) in [(Side::A, "branch"), (Side::B, "hq")] {
        let before = secret(side);
        site::operate(&lab, side, &["renew", pairing]).success();
        site::wait_for(&lab, "a new secret that seals", |status| {
            let newest = &status["pairings"][0]["secrets"][0];
            newest["id"] != before && newest["sealing"] == true
        });
    }
    assert_eq!(lab.ping(Side::A, 10, "0.02").len(), 10);
    assert_eq!(gate_a.failed() + gate_b.failed(), 0);

    // An entry that is taken off the list is no longer marked, and comes back.
    let marked = || gate_a.count("marked.sealed");
    let crosses = || assert_eq!(lab.ping(Side::A, 5, "0.05").len(), 5);
    site::operate(&lab, Side::B, &["lists", "remove", "hq", "2001:db8:2::/64"]).success();
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let before = marked();
        crosses();
        if marked() == before {
            break;
        }
        assert!(Instant::now() < until, "still marked: {}", gate_a.log());
    }
    let add = ["lists", "add", "hq", "2001:db8:2::/64", "--group", "web"];
    site::operate(&lab, Side::B, &add).success();
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let before = marked();
        crosses();
        if marked() >= before + 5 {
            break;
        }
        assert!(Instant::now() < until, "not marked again: {}", gate_b.log());
    }

    // A Secondary that is revoked is out at once, and the secrets that it knew are replaced.
    let before = secret(Side::A);
    let name = site::secondary_name(Side::A);
    site::operate(&lab, Side::A, &["revoke", "secondary", name]).success();
    site::wait_for(&lab, "the secret replaced", |status| {
        let newest = &status["pairings"][0]["secrets"][0];
        newest["id"] != before && newest["sealing"] == true
    });
    let before = marked();
    crosses();
    assert_eq!(marked(), before, "a revoked Secondary marks nothing");
    let status = site::registrations(&lab, Side::B);
    assert_eq!(
        status["pairings"][0]["peer_list"][0]["generations"],
        Value::Array(Vec::new())
    );

    // The pairing ends at both, and bad orders are refused.
    site::operate(&lab, Side::B, &["revoke", "pairing", "hq"]).success();
    site::wait_for(&lab, "no secrets left", |status| {
        status["pairings"][0]["secrets"]
            .as_array()
            .is_some_and(Vec::is_empty)
    });
    for wrong in [
        &["revoke", "secondary", "nobody.example"][..],
        &["revoke", "pairing", "nowhere"],
        &["renew", "nowhere"],
        &["lists", "remove", "hq", "2001:db8:77::/64"],
        &["lists", "add", "hq", "2001:db8:77::/64"],
    ] {
        let ended = site::operate(&lab, Side::B, wrong);
        assert_eq!(ended.status.code(), Some(1), "{wrong:?}: {}", ended.err);
        assert!(ended.out.is_empty(), "{wrong:?}: {}", ended.out);
    }
    gate_a.stop();
    gate_b.stop();
}

#[test]
fn a_list_beyond_what_the_peer_may_list_is_refused() {
    let Some(lab) = Lab::new(Shape::default()) else {
        return;
    };
    site::prepare(&lab);
    let terms = Terms {
        server_extra: "      peer_entries: [\"2001:db8:9::/48\"]\n".to_owned(),
        ..Terms::default()
    };
    let gate_a = site::embedded(&lab, Side::A, &terms);
    let gate_b = site::embedded(&lab, Side::B, &terms);
    let until = Instant::now() + Duration::from_secs(20);
    while site::registrations(&lab, Side::B)["closed"]["not-allowed"].is_null() {
        assert!(Instant::now() < until, "not refused: {}", gate_b.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(lab.ping(Side::A, 5, "0.05").len(), 5);
    for gate in [gate_a, gate_b] {
        assert_eq!(gate.count("marked.sealed"), 0);
        gate.stop();
    }
}

/// A generator of numbers that are the same in every run (Knuth's MMIX constants).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Kills of all roles together.
const KILLS: u32 = 100;

#[test]
fn a_hundred_crashes_of_every_role_repeat_no_number() {
    let Some(lab) = Lab::new(Shape::default()) else {
        return;
    };
    site::prepare(&lab);
    let mut terms = Terms {
        // Some renewals between the crashes.
        client_extra: "      renew_after: 7s\n".to_owned(),
        rotation_packets: 256,
        ..Terms::default()
    };
    let keylog = keylog(&lab, &mut terms);
    let start_primary = |side| Some(site::primary(&lab, side, &terms));
    let start_gate = |side| Some(site::apart(&lab, side, &terms));
    let mut primaries: [Option<Process>; 2] = [Side::A, Side::B].map(start_primary);
    let mut gates: [Option<Gate>; 2] = [Side::A, Side::B].map(start_gate);
    site::wait_until_registered(&lab);
    let first = site::generations(&lab);
    // Packets of A where they leave A, and packets of B where they leave B: what was sealed, once each.
    let from_a = lab.capture(Place::Outside(Side::A), "ip6 and src net 2001:db8:1::/64");
    let from_b = lab.capture(Place::Outside(Side::B), "ip6 and src net 2001:db8:2::/64");

    let mut dice = Dice(2026);
    for kill in 0..KILLS {
        let side = if dice.below(2) == 0 { Side::A } else { Side::B };
        let pause = Duration::from_millis(dice.below(300));
        let role = dice.below(2);
        std::thread::scope(|scope| {
            let pings = scope.spawn(|| lab.ping(Side::A, 12, "0.03"));
            std::thread::sleep(pause);
            if role == 0 {
                let primary = primaries[side as usize].take().unwrap();
                primary.stop("KILL");
                primaries[side as usize] = start_primary(side);
                // A crash of a Primary is nothing that traffic sees.
                assert_eq!(pings.join().unwrap().len(), 12, "kill {kill}");
            } else {
                gates[side as usize].take().unwrap().kill();
                gates[side as usize] = start_gate(side);
                // The box stands in the path: what crossed while it was down is lost, nothing else.
                pings.join().unwrap();
            }
        });
        assert_eq!(lab.ping(Side::A, 4, "0.02").len(), 4, "after kill {kill}");
        if kill % 10 == 9 {
            registered_again(&lab, &gates);
        }
    }
    registered_again(&lab, &gates);

    let generations = *first.start()..=*site::generations(&lab).end();
    let mut witness = Witness::new(&keylog, generations.clone());
    let mut packets = from_a.packets();
    packets.extend(from_b.packets());
    packets.sort_by_key(|packet| packet.time);
    let sealed = witness.take(&packets);
    assert!(sealed > 500, "{sealed} sealed");
    println!(
        "{sealed} options under {} secrets, generations {generations:?}, {} epochs",
        witness.secrets(),
        witness.epochs()
    );
    for gate in gates.into_iter().flatten() {
        gate.stop();
    }
    for primary in primaries.into_iter().flatten() {
        primary.stop("TERM").success();
    }
}

/// Waits until both ends seal what crosses, and what they seal opens.
fn registered_again(lab: &Lab, gates: &[Option<Gate>; 2]) {
    site::wait_until_registered(lab);
    let [Some(a), Some(b)] = gates else {
        panic!("an appliance is missing");
    };
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let before = [a, b].map(|gate| gate.count("marked.sealed"));
        let failures = [a, b].map(Gate::failed);
        let pings = lab.ping(Side::A, 4, "0.02").len();
        let marked = [a, b].map(|gate| gate.count("marked.sealed"));
        let all = (0..2).all(|at| marked[at] >= before[at] + 4);
        if pings == 4 && all && failures == [a, b].map(Gate::failed) {
            return;
        }
        assert!(
            Instant::now() < until,
            "not registered again:\n{}\n{}",
            a.log(),
            b.log()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}
