//! What policy decides, and that everything that is not marked is counted for its reason.

use super::super::{BURST, Fate};
use super::lab::{Gate, HZ, Setup, boot, datagram};
use super::{address, tuple};
use crate::snapshot::State;
use crate::telemetry::{Counter, Direction, PairingCounter};
use crate::wire::{FiveTuple, PacketBuf, VecBuf};

fn gate_for(setup: &Setup) -> &'static crate::dataplane::Shared {
    Box::leak(Box::new(boot(setup, &mut State::in_memory())))
}

fn fate(gate: &mut Gate<'_>, direction: Direction, packet: &[u8]) -> (Fate, Vec<u8>) {
    let mut burst = [VecBuf::new(packet)];
    let worker = &mut gate.workers[0];
    let fates = match direction {
        Direction::Out => worker.outbound(&mut burst, HZ),
        Direction::In => worker.inbound(&mut burst, HZ),
    };
    (fates.get(0), burst[0].data().to_vec())
}

#[test]
fn what_is_not_marked_passes_as_it_is_and_is_counted_for_its_reason() {
    let mut gate = Gate::new(gate_for(&Setup::default()));
    let plain = datagram(&tuple(0), 0);
    let with = |at: usize, bytes: &[u8]| {
        let mut p = plain.clone();
        p[at..at + bytes.len()].copy_from_slice(bytes);
        p
    };
    let stranger = FiveTuple {
        dst: address("2001:db8:9::1"),
        ..tuple(0)
    };
    let icmp = |kind: u8| {
        let mut p = with(20, &[58]);
        p[54..58].copy_from_slice(&[kind, 0, 0, 0]);
        p
    };
    for (packet, reason) in [
        (with(12, &[0x08, 0x00]), Counter::PassedIpv4),
        (with(12, &[0x08, 0x06]), Counter::PassedNonIp),
        (with(38, &[0xff, 0x02]), Counter::PassedMulticast),
        (icmp(135), Counter::PassedNeighbourDiscovery),
        (icmp(143), Counter::PassedMld),
        (icmp(1), Counter::PassedIcmpv6Other),
        (with(20, &[44]), Counter::PassedFragment),
        (with(20, &[50]), Counter::PassedEsp),
        (with(20, &[51]), Counter::PassedAh),
        (with(20, &[59]), Counter::PassedNoNextHeader),
        (datagram(&stranger, 0), Counter::PassedNoMatch),
        (with(14, &[0x40]), Counter::MalformedVersion),
        (with(18, &[0xff, 0xff]), Counter::MalformedPayloadLength),
        (plain[..30].to_vec(), Counter::MalformedTruncated),
    ] {
        for direction in Direction::ALL {
            let before = gate.count(direction, reason);
            let (fate, after) = fate(&mut gate, direction, &packet);
            assert_eq!((fate, &after), (Fate::Forward, &packet), "{reason:?}");
            assert_eq!(
                gate.count(direction, reason),
                before + 1,
                "{reason:?} {direction:?}"
            );
        }
    }
    for (tuple, reason) in [
        (stranger.reversed(), Counter::PassedNoMatch),
        (tuple(0).reversed(), Counter::PassedNotMarked),
    ] {
        let packet = datagram(&tuple, 0);
        let before = gate.count(Direction::In, reason);
        let result = fate(&mut gate, Direction::In, &packet);
        assert_eq!(result, (Fate::Forward, packet));
        assert_eq!(gate.count(Direction::In, reason), before + 1, "{reason:?}");
    }
    assert!(gate.shared.table.is_empty(), "none of these makes a flow");
}

#[test]
fn an_option_that_came_with_the_packet_stays_the_hosts_own() {
    let mut gate = Gate::new(gate_for(&Setup::default()));
    let marked = fate(&mut gate, Direction::Out, &datagram(&tuple(0), 0)).1;
    let (fate, after) = fate(&mut gate, Direction::Out, &marked);
    assert_eq!((fate, after), (Fate::Forward, marked));
    assert_eq!(gate.count(Direction::Out, Counter::PassedAlreadyMarked), 1);
}

#[test]
fn what_came_in_and_comes_back_out_is_not_sealed_with_the_far_ends_key() {
    let setup = Setup::default();
    let (shared_a, shared_b) = (gate_for(&setup), gate_for(&setup));
    let (mut a, mut b) = (Gate::new(shared_a), Gate::new(shared_b));
    let packet = datagram(&tuple(1), 7);
    let sent = a.pass(Direction::Out, std::slice::from_ref(&packet), HZ);
    let arrived = b.pass(Direction::In, &sent, HZ);
    assert_eq!(b.count(Direction::In, Counter::Opened), 1);
    assert_eq!(arrived, [packet]);
    let looped = b.pass(Direction::Out, &arrived, HZ);
    assert_eq!(looped, arrived);
    assert_eq!(b.count(Direction::Out, Counter::PassedNotServed), 1);
    let answer = datagram(&tuple(1).reversed(), 7);
    b.pass(Direction::Out, &[answer], HZ);
    assert_eq!(b.count(Direction::Out, Counter::MarkedSealed), 1);
}

#[test]
fn malformed_packets_and_failed_opens_are_dropped_where_policy_says_so() {
    let setup = Setup {
        policy: "{ malformed: drop, failed_open: drop }",
        ..Setup::default()
    };
    let mut a = Gate::new(gate_for(&setup));
    let mut b = Gate::new(gate_for(&setup));
    assert_eq!(fate(&mut a, Direction::Out, &[0; 9]).0, Fate::Drop);
    let mut marked = fate(&mut a, Direction::Out, &datagram(&tuple(0), 0)).1;
    *marked.get_mut(70).unwrap() ^= 1;
    assert_eq!(fate(&mut b, Direction::In, &marked).0, Fate::Drop);
    assert_eq!(b.count(Direction::In, Counter::DroppedFailedOpen), 1);
    assert!(b.shared.table.is_empty(), "a forged packet makes no flow");
}

#[test]
fn a_failed_open_goes_on_without_its_option_by_default() {
    let mut a = Gate::new(gate_for(&Setup::default()));
    let mut b = Gate::new(gate_for(&Setup::default()));
    let original = datagram(&tuple(0), 0);
    let mut marked = fate(&mut a, Direction::Out, &original).1;
    *marked.get_mut(70).unwrap() ^= 1;
    assert_eq!(
        fate(&mut b, Direction::In, &marked),
        (Fate::Forward, original)
    );
    assert_eq!(b.count(Direction::In, Counter::FailedOpenAuthentication), 1);
}

#[test]
fn a_packet_too_long_with_the_option_passes_or_is_answered() {
    let long = |len: usize| {
        let mut p = datagram(&tuple(0), 0);
        p.resize(14 + len, 0);
        let payload = (len as u16 - 40).to_be_bytes();
        p[18..20].copy_from_slice(&payload);
        p
    };
    let mut passes = Gate::new(gate_for(&Setup::default()));
    assert_eq!(
        fate(&mut passes, Direction::Out, &long(1_460)).1.len(),
        14 + 1_500
    );
    assert_eq!(
        fate(&mut passes, Direction::Out, &long(1_461)).1,
        long(1_461)
    );
    assert_eq!(passes.count(Direction::Out, Counter::PassedOverMtu), 1);

    let setup = Setup {
        policy: "{ over_mtu: packet-too-big }",
        ..Setup::default()
    };
    let mut answers = Gate::new(gate_for(&setup));
    let (fate_of, answer) = fate(&mut answers, Direction::Out, &long(1_461));
    assert_eq!(fate_of, Fate::Return);
    assert_eq!(
        answer[..12],
        [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2],
        "back to whom it came from"
    );
    assert_eq!(answer[20], 58);
    assert_eq!(answer[54..56], [2, 0], "Packet Too Big");
    assert_eq!(answer[58..62], 1_460u32.to_be_bytes());
    assert_eq!(answer.len(), 14 + 1_280);
    for _ in 0..200 {
        fate(&mut answers, Direction::Out, &long(1_461));
    }
    assert_eq!(
        answers.count(Direction::Out, Counter::PacketTooBigSent),
        100,
        "a rate limit"
    );
    assert_eq!(answers.count(Direction::Out, Counter::DroppedOverMtu), 201);
}

#[test]
fn without_protection_the_lists_match_and_nothing_is_marked() {
    let setup = Setup {
        mode: "no-protection",
        ..Setup::default()
    };
    let mut gate = Gate::new(gate_for(&setup));
    let packet = datagram(&tuple(0), 0);
    assert_eq!(fate(&mut gate, Direction::Out, &packet).1, packet);
    assert_eq!(gate.count(Direction::Out, Counter::PassedNoProtection), 1);
}

#[test]
fn a_clear_option_on_a_sealed_pairing_is_not_believed() {
    let clear = Setup {
        protection: "clear",
        ..Setup::default()
    };
    let mut forger = Gate::new(gate_for(&clear));
    let mut gate = Gate::new(gate_for(&Setup::default()));
    let original = datagram(&tuple(0), 0);
    let forged = fate(&mut forger, Direction::Out, &original).1;
    assert_eq!(
        fate(&mut gate, Direction::In, &forged),
        (Fate::Forward, original)
    );
    assert_eq!(
        gate.count(Direction::In, Counter::FailedOpenClearOnSealed),
        1
    );
    assert!(gate.shared.table.is_empty());
}

#[test]
fn forged_options_buy_no_more_searches_than_the_budget_has() {
    let mut gate = Gate::new(gate_for(&Setup::default()));
    let mut a = Gate::new(gate_for(&Setup::default()));
    let mut forged = fate(&mut a, Direction::Out, &datagram(&tuple(0), 0)).1;
    *forged.get_mut(70).unwrap() ^= 1;
    for _ in 0..2_000 {
        fate(&mut gate, Direction::In, &forged);
    }
    // A tenth of a second's worth, since the clock stands still, less what is no whole search.
    let derived = gate.count(Direction::In, Counter::KeyDerivations);
    assert!((19_985..=20_000).contains(&derived), "{derived}");
    assert!(gate.count(Direction::In, Counter::FailedOpenSearchBudget) > 1_000);
}

#[test]
fn a_flow_is_stuck_anew_with_each_thousand_failures_in_a_row() {
    let mut gate = Gate::new(gate_for(&Setup::default()));
    let mut a = Gate::new(gate_for(&Setup::default()));
    let marked = fate(&mut a, Direction::Out, &datagram(&tuple(0), 0)).1;
    fate(&mut gate, Direction::In, &marked);
    assert_eq!(gate.count(Direction::In, Counter::Opened), 1);
    let mut forged = marked;
    *forged.get_mut(70).unwrap() ^= 1;
    for (packets, stuck) in [(999, 0), (1, 1), (999, 1), (1, 2)] {
        for _ in 0..packets {
            fate(&mut gate, Direction::In, &forged);
        }
        let stats = gate.shared.telemetry.pairings.all();
        assert_eq!(stats[0].get(PairingCounter::Stuck), stuck);
    }
}

#[test]
fn a_worker_that_does_not_keep_up_searches_little() {
    let mut gate = Gate::new(gate_for(&Setup::default()));
    let mut a = Gate::new(gate_for(&Setup::default()));
    let mut forged = fate(&mut a, Direction::Out, &datagram(&tuple(0), 0)).1;
    *forged.get_mut(70).unwrap() ^= 1;
    let mut now = HZ;
    let mut derived = |keeps_up: bool| {
        let before = gate.count(Direction::In, Counter::KeyDerivations);
        for _ in 0..1_000 {
            now += HZ / 1_000;
            if keeps_up {
                gate.workers[0].quiesce();
            }
            let mut burst = vec![VecBuf::new(&forged); BURST];
            gate.workers[0].inbound(&mut burst, now);
        }
        gate.count(Direction::In, Counter::KeyDerivations) - before
    };
    // What was saved up goes first.
    derived(false);
    let behind = derived(false);
    assert!((1_900..=2_100).contains(&behind), "two a burst: {behind}");
    let keeps_up = derived(true);
    assert!(
        (190_000..=201_000).contains(&keeps_up),
        "as the clock has it: {keeps_up}"
    );
}

#[test]
fn a_full_table_passes_new_flows_unmarked() {
    let mut gate = Gate::new(gate_for(&Setup::default()));
    for n in 0..2_000 {
        fate(&mut gate, Direction::Out, &datagram(&tuple(n), 0));
    }
    let full = gate.count(Direction::Out, Counter::PassedFlowTableFull);
    assert_eq!(
        gate.count(Direction::Out, Counter::MarkedSealed) + full,
        2_000
    );
    assert_eq!(gate.shared.table.len(), 1_024);
}
