//! Flows that come back after they were forgotten, or under another suite.

use super::lab::{Gate, HZ, Setup, boot, datagram};
use super::tuple;
use crate::snapshot::State;
use crate::telemetry::{Counter, Direction};

/// Lets a gate forget all flows.
fn forget(gate: &mut Gate<'_>, now: u64) {
    for _ in 0..8 {
        gate.collect(now);
        // Workers see that something left when they take a burst.
        gate.pass(Direction::Out, &[vec![0; 60]], now);
        gate.pass(Direction::Out, &[vec![0; 60]], now);
    }
    assert!(gate.shared.table.is_empty());
}

/// What sends more rarely than flows are kept climbs by a Kri with each packet, as far as it may: beyond all windows.
#[test]
fn a_flow_that_is_forgotten_after_each_packet_is_found_by_what_is_remembered() {
    let setup = Setup::default();
    let states = &mut [State::in_memory(), State::in_memory()];
    let [near, far] = states.each_mut().map(|state| boot(&setup, state));
    let (mut near, mut far) = (Gate::new(&near), Gate::new(&far));
    let mut now = HZ;
    for n in 0..100 {
        let sent = near.pass(Direction::Out, &[datagram(&tuple(0), n)], now);
        far.pass(Direction::In, &sent, now);
        now += 10 * HZ;
        forget(&mut near, now);
        forget(&mut far, now);
    }
    assert_eq!(near.count(Direction::Out, Counter::MarkedSealed), 100);
    assert_eq!(far.count(Direction::In, Counter::Opened), 100);
}

/// The sender still has the flow, and numbers on under the key that the receiver forgot.
#[test]
fn a_flow_that_only_the_receiver_forgot_goes_on() {
    let setup = Setup {
        rotation: "{ packets: 256 }",
        ..Setup::default()
    };
    let states = &mut [State::in_memory(), State::in_memory()];
    let [near, far] = states.each_mut().map(|state| boot(&setup, state));
    let (mut near, mut far) = (Gate::new(&near), Gate::new(&far));
    let mut now = HZ;
    let mut frames = (0..).map(|n| vec![datagram(&tuple(0), n)]);
    for round in 0..40 {
        // So many that the key changes, and that rounds begin in the middle of one.
        let mut log = Vec::new();
        for frame in frames.by_ref().take(10) {
            log.extend(near.pass(Direction::Out, &frame, now));
        }
        far.pass(Direction::In, &log, now);
        // All of it comes again before anything new does.
        now += 10 * HZ;
        forget(&mut far, now);
        let opened = far.count(Direction::In, Counter::Opened);
        assert_eq!(opened, 10 * (round + 1));
        far.pass(Direction::In, &log, now);
        assert_eq!(far.count(Direction::In, Counter::Opened), opened);
    }
}

/// Keys seal and open with the algorithm that they were made for, whatever the pairing has by now.
#[test]
fn a_key_never_meets_another_suite() {
    let suite = |aead| Setup {
        aead,
        rotation: "{ packets: 256 }",
        ..Setup::default()
    };
    let states = &mut [State::in_memory(), State::in_memory()];
    let [near, far] = states
        .each_mut()
        .map(|state| boot(&suite("aes-128-gcm"), state));
    let (mut near, mut far) = (Gate::new(&near), Gate::new(&far));
    let [near_state, far_state] = states;
    let mut number = 0;
    for aead in [
        "aes-128-gcm",
        "chacha20-poly1305",
        "aes-256-gcm",
        "aes-128-gcm",
        "aes-256-gcm",
        "chacha20-poly1305",
    ] {
        near.reload(&suite(aead), near_state, false);
        far.reload(&suite(aead), far_state, false);
        for _ in 0..20 {
            number += 1;
            let frame = datagram(&tuple(0), number);
            let sent = near.pass(Direction::Out, &[frame], HZ);
            far.pass(Direction::In, &sent, HZ);
        }
        let sealed = near.count(Direction::Out, Counter::MarkedSealed);
        let opened = far.count(Direction::In, Counter::Opened);
        // A receiver may have no place for a key that is yet another one.
        let contended = far.count(Direction::In, Counter::Contended);
        assert_eq!(opened + contended, sealed, "{aead}");
        assert!(contended <= 1);
        assert_eq!(sealed, u64::from(number), "each by the next packet");
    }
}
