//! Registered pairings between data planes: every mode, renewal, lists that lag, revocation, eras.

use super::lab::{HZ, MS, datagram};
use super::secondary::{CLIENT, Secondary, WEB, Witness, flow};
use super::wire_model::{Dice, Faults};
use super::{Exchange, tuple};
use crate::config::{Mode, Protection};
use crate::snapshot::tests::primary::{Primary, prefix};
use crate::snapshot::{GrantError, Role};
use crate::telemetry::{Counter, Direction, PairingCounter};
use std::sync::Arc;

const SEALED: [Mode; 3] = [Mode::TrustedServers, Mode::AsymmetricPoll, Mode::Ibc];

/// Lets both ends get the secrets of the lab's pair.
fn warm_up(x: &mut Exchange, primary: &mut Primary, a: &mut Secondary, b: &mut Secondary) {
    for _ in 0..3 {
        for n in 0..3 {
            x.step(&mut a.gate, &mut b.gate, n, 1);
        }
        a.fetch(primary);
        b.fetch(primary);
        // What was asked for within a second is not asked for again.
        x.now += 2 * HZ;
    }
    x.settle(&mut a.gate, &mut b.gate);
}

fn opened(ends: [&Secondary; 2]) -> [u64; 2] {
    ends.map(|end| end.gate.count(Direction::In, Counter::Opened))
}

fn sent(ends: [&Secondary; 2]) -> [u64; 2] {
    ends.map(|end| end.gate.count(Direction::Out, Counter::MarkedSealed))
}

#[test]
fn every_mode_carries_the_hosts_bytes_there_and_back() {
    for mode in SEALED {
        let mut primary = Primary::new(mode);
        let (mut a, mut b) = (Secondary::client(&primary), Secondary::server(&primary));
        for _ in 0..3 {
            let original = vec![datagram(&flow(), 1)];
            let passed = a.gate.pass(Direction::Out, &original, HZ);
            assert_eq!(b.gate.pass(Direction::In, &passed, HZ), original);
            let back = vec![datagram(&flow().reversed(), 1)];
            let passed = b.gate.pass(Direction::Out, &back, HZ);
            assert_eq!(a.gate.pass(Direction::In, &passed, HZ), back);
            a.fetch(&mut primary);
            b.fetch(&mut primary);
        }
        for i in 0..500 {
            let original = vec![datagram(&tuple(i as u16 % 5), i)];
            let marked = a.gate.pass(Direction::Out, &original, HZ + u64::from(i));
            assert_eq!(marked[0].len(), original[0].len() + 40);
            assert_eq!(
                b.gate.pass(Direction::In, &marked, HZ + u64::from(i)),
                original
            );
            let answer = vec![datagram(&tuple(i as u16 % 5).reversed(), i)];
            let marked = b.gate.pass(Direction::Out, &answer, HZ + u64::from(i));
            assert_eq!(marked[0].len(), answer[0].len() + 40);
            assert_eq!(
                a.gate.pass(Direction::In, &marked, HZ + u64::from(i)),
                answer
            );
        }
        for (end, direction) in [(&a, Direction::In), (&b, Direction::In)] {
            assert!(
                end.gate.count(direction, Counter::Opened) >= 500,
                "{mode:?}"
            );
            let failed = end.gate.count(direction, Counter::FailedOpenAuthentication);
            assert_eq!(failed, 0, "{mode:?}");
        }
    }
}

#[test]
fn without_seals_there_are_marks_only_to_whom_somebody_serves() {
    let mut primary = Primary::new(Mode::TrustedServers);
    primary.protection = Protection::Clear;
    let (mut a, mut b) = (Secondary::client(&primary), Secondary::server(&primary));
    let original = vec![datagram(&flow(), 1)];
    let marked = a.gate.pass(Direction::Out, &original, HZ);
    assert_eq!(marked[0].len(), original[0].len() + 24);
    assert_eq!(b.gate.pass(Direction::In, &marked, HZ), original);
    assert_eq!(b.gate.count(Direction::In, Counter::ClearRead), 1);
    primary.listed(WEB).generations.clear();
    a.update(&primary);
    assert_eq!(a.gate.pass(Direction::Out, &original, HZ), original);
    assert_eq!(a.gate.count(Direction::Out, Counter::PassedKeyAwaited), 1);

    let primary = Primary::new(Mode::NoProtection);
    let (mut a, mut b) = (Secondary::client(&primary), Secondary::server(&primary));
    let passed = a.gate.pass(Direction::Out, &original, HZ);
    assert_eq!(passed, original);
    assert_eq!(b.gate.pass(Direction::In, &passed, HZ), original);
    assert_eq!(a.gate.count(Direction::Out, Counter::PassedNoProtection), 1);
    assert_eq!(b.gate.count(Direction::In, Counter::PassedNoProtection), 1);
}

#[test]
fn only_who_holds_the_secret_opens() {
    for mode in SEALED {
        let mut primary = Primary::new(mode);
        let (mut a, mut b) = (Secondary::client(&primary), Secondary::server(&primary));
        let mut x = Exchange::new(Faults::default(), 1);
        warm_up(&mut x, &mut primary, &mut a, &mut b);
        let marked = a.gate.pass(Direction::Out, &[datagram(&flow(), 9)], x.now);
        assert_eq!(marked[0].len(), 14 + 40 + 40 + 24);
        primary
            .pairs
            .push((prefix("2001:db8:3::/64"), prefix(CLIENT)));
        // Who has the secrets of another entry, or of another group, and claims the packet's.
        let mut others = primary.grant(Role::Server, &[("2001:db8:3::/64", 1)]);
        let grant = Arc::get_mut(&mut others).unwrap();
        grant.own[0].prefix = prefix(WEB);
        let mut third = Secondary::server(&primary);
        third.set(vec![others]);
        for _ in 0..2 {
            third.gate.pass(Direction::In, &marked, x.now);
            third.fetch_own();
        }
        assert_eq!(
            third.gate.count(Direction::In, Counter::Opened),
            0,
            "{mode:?}"
        );
        let failed = third
            .gate
            .count(Direction::In, Counter::FailedOpenAuthentication);
        assert!(failed > 0, "{mode:?}");
        // Another server of the same group: that is what this mode trusts them for.
        if mode == Mode::TrustedServers {
            let mut member = Secondary::server(&primary);
            member.gate.pass(Direction::In, &marked, x.now);
            assert_eq!(member.gate.count(Direction::In, Counter::Opened), 1);
        }
    }
}

#[test]
fn what_is_another_appliances_passes_as_it_is() {
    let primary = Primary::new(Mode::TrustedServers);
    let mut a = Secondary::client(&primary);
    let mut between = Secondary::new(&primary, Role::Server, &[("2001:db8:3::/64", 1)]);
    let marked = a.gate.pass(Direction::Out, &[datagram(&flow(), 1)], HZ);
    assert_eq!(between.gate.pass(Direction::In, &marked, HZ), marked);
    let back = vec![datagram(&flow().reversed(), 1)];
    assert_eq!(between.gate.pass(Direction::Out, &back, HZ), back);
    for direction in Direction::ALL {
        assert_eq!(between.gate.count(direction, Counter::PassedNotServed), 1);
    }
    assert!(between.gate.shared.table.is_empty());
}

#[test]
fn a_secret_that_is_awaited_is_asked_for_once_and_is_no_failure() {
    let mut primary = Primary::new(Mode::AsymmetricPoll);
    let mut a = Secondary::client(&primary);
    let mut b =
        Secondary::with_policy(&primary, Role::Server, &[(WEB, 1)], "{ failed_open: drop }");
    let original: Vec<_> = (0..2_000).map(|n| datagram(&flow(), n)).collect();
    let marked = a.gate.pass(Direction::Out, &original, HZ);
    // Each worker asks by itself.
    for worker in 0..b.gate.workers.len() {
        b.gate.burst(worker, Direction::In, &marked[..24], HZ);
    }
    assert_eq!(b.gate.pass(Direction::In, &marked, HZ), original);
    assert_eq!(b.gate.shared.awaited.len(), b.gate.workers.len());
    assert_eq!(
        b.gate.count(Direction::In, Counter::FailedOpenKeyAwaited),
        2_048
    );
    let answers: Vec<_> = (0..10).map(|n| datagram(&flow().reversed(), n)).collect();
    assert_eq!(b.gate.pass(Direction::Out, &answers, HZ), answers);
    assert_eq!(b.gate.count(Direction::Out, Counter::PassedKeyAwaited), 10);
    assert!(
        b.gate.shared.table.is_empty(),
        "nothing that waits makes a flow"
    );
    for counter in [PairingCounter::Failed, PairingCounter::Stuck] {
        let stats = b.gate.shared.telemetry.pairings.all();
        assert_eq!(stats[0].get(counter), 0);
    }
    assert!(b.fetch(&mut primary));
    assert_eq!(primary.pairs, [(prefix(WEB), prefix(CLIENT))]);
    // The very flow goes on, marked and opened.
    b.gate.pass(Direction::In, &marked[1_990..], HZ);
    assert_eq!(b.gate.count(Direction::In, Counter::Opened), 10);
    let passed = b.gate.pass(Direction::Out, &answers, HZ);
    assert!(passed.iter().all(|p| p.len() == answers[0].len() + 40));
    assert!(!b.fetch(&mut primary));
}

#[test]
fn a_renewal_that_all_receivers_hold_first_loses_nothing() {
    for mode in SEALED {
        let mut primary = Primary::new(mode);
        let (mut a, mut b) = (Secondary::client(&primary), Secondary::server(&primary));
        let delay = Faults {
            delay: MS,
            ..Faults::default()
        };
        let mut x = Exchange::new(delay, 3);
        warm_up(&mut x, &mut primary, &mut a, &mut b);
        let before = (opened([&a, &b]), sent([&a, &b]));
        for round in 0..6 {
            let seal_first = round % 2 == 0;
            primary.renew();
            for end in [&mut b, &mut a] {
                end.update(&primary);
                end.catch_up(&mut primary);
            }
            for n in 0..20 {
                x.step(&mut a.gate, &mut b.gate, n % 3, 7);
            }
            primary.seal_with_newest();
            let order = if seal_first {
                [true, false]
            } else {
                [false, true]
            };
            for is_a in order {
                if is_a { &mut a } else { &mut b }.update(&primary);
                for n in 0..20 {
                    x.step(&mut a.gate, &mut b.gate, n % 3, 7);
                }
            }
        }
        x.settle(&mut a.gate, &mut b.gate);
        let after = (opened([&a, &b]), sent([&a, &b]));
        // What A sent B opened, and the other way round.
        for (from, to) in [(0, 1), (1, 0)] {
            let sent = after.1[from] - before.1[from];
            assert!(sent > 2_000);
            assert_eq!(after.0[to] - before.0[to], sent, "{mode:?}");
        }
        for end in [&a, &b] {
            assert_eq!(
                end.gate
                    .count(Direction::In, Counter::FailedOpenAuthentication),
                0
            );
        }
        let mut witness = Witness::new();
        witness.watch(&primary, &x.ab.log, 1);
        witness.watch(&primary, &x.ba.log, 1);
        assert!(witness.sealed > 4_000);
    }
}

#[test]
fn many_renewals_and_lists_that_change_never_repeat_a_nonce() {
    let mut primary = Primary::new(Mode::TrustedServers);
    let (mut a, mut b) = (Secondary::client(&primary), Secondary::server(&primary));
    let mut x = Exchange::new(
        Faults {
            delay: MS,
            ..Faults::default()
        },
        5,
    );
    let mut witness = Witness::new();
    witness.clients.push("2001:db8:1::/80");
    let mut lost = 0;
    for round in 0..120u32 {
        primary.renew();
        // An entry comes and goes that takes some hosts away, with the same generations.
        if round % 3 == 0 {
            primary.clients.truncate(1);
        } else if primary.clients.len() == 1 {
            let mut host = primary.clients[0].clone();
            host.prefix = prefix("2001:db8:1::/80");
            primary.clients.push(host);
        }
        let serves_host = primary.clients.len() > 1;
        a.own = vec![(CLIENT, 1)];
        if serves_host {
            a.own.push(("2001:db8:1::/80", 1));
        }
        b.update(&primary);
        a.update(&primary);
        primary.seal_with_newest();
        let before = (sent([&a, &b]), opened([&a, &b]));
        a.update(&primary);
        b.update(&primary);
        for n in 0..12 {
            x.step(&mut a.gate, &mut b.gate, n % 3, 5 + round % 40);
        }
        x.settle(&mut a.gate, &mut b.gate);
        let after = (sent([&a, &b]), opened([&a, &b]));
        lost += (after.0[0] - before.0[0]) - (after.1[1] - before.1[1]);
        witness.watch(&primary, &x.ab.log, 1);
        witness.watch(&primary, &x.ba.log, 1);
        x.ab.forget();
        x.ba.forget();
    }
    assert_eq!(lost, 0);
    assert!(witness.sealed > 20_000, "{}", witness.sealed);
}

#[test]
fn several_secondaries_serve_one_entry() {
    let mut primary = Primary::new(Mode::TrustedServers);
    primary.listed(CLIENT).generations = vec![1, 2];
    let mut a = [1, 2].map(|g| Secondary::new(&primary, Role::Client, &[(CLIENT, g)]));
    let mut b = Secondary::server(&primary);
    let mut witness = Witness::new();
    // Each numbers from a place of its own.
    for n in 0..2_000 {
        a[1].gate.pass(Direction::Out, &[datagram(&flow(), n)], HZ);
    }
    for n in 0..600u32 {
        // The flow moves between the two all the time; its answers too.
        let (there, back) = ((n / 7 % 2) as usize, (n / 5 % 2) as usize);
        let marked = a[there]
            .gate
            .pass(Direction::Out, &[datagram(&flow(), n)], HZ);
        witness.watch(&primary, &marked, 2);
        b.gate.pass(Direction::In, &marked, HZ);
        let marked = b
            .gate
            .pass(Direction::Out, &[datagram(&flow().reversed(), n)], HZ);
        witness.watch(&primary, &marked, 2);
        a[back].gate.pass(Direction::In, &marked, HZ);
    }
    assert_eq!(b.gate.count(Direction::In, Counter::Opened), 600);
    let counts = b.gate.flow(&flow().reversed(), |e| e.sequence.counts());
    let counts = counts.unwrap();
    assert_eq!(
        (counts.received, counts.lost, counts.reordered),
        (600, 0, 0)
    );
    let back: u64 = a
        .iter()
        .map(|a| a.gate.count(Direction::In, Counter::Opened))
        .sum();
    assert_eq!(back, 600);
    assert_eq!(witness.sealed, 1_200);
}

#[test]
fn lists_that_lag_cost_what_they_must_and_no_more() {
    let mut primary = Primary::new(Mode::TrustedServers);
    let (mut a, mut b) = (Secondary::client(&primary), Secondary::server(&primary));
    let mut x = Exchange::new(Faults::default(), 7);
    x.step(&mut a.gate, &mut b.gate, 0, 10);
    // B still takes 1 for A's newest, which A accepts.
    primary.listed(CLIENT).generations = vec![1, 2];
    a.update(&primary);
    x.step(&mut a.gate, &mut b.gate, 0, 10);
    assert_eq!(opened([&a, &b]), [20, 20]);
    // A sends under a generation that B's list lacks: against the rule, and lost until the list comes.
    a.own = vec![(CLIENT, 2)];
    a.update(&primary);
    x.step(&mut a.gate, &mut b.gate, 0, 10);
    assert_eq!(opened([&a, &b])[1], 20);
    assert_eq!(
        b.gate
            .count(Direction::In, Counter::FailedOpenAuthentication),
        10
    );
    b.update(&primary);
    x.step(&mut a.gate, &mut b.gate, 0, 10);
    assert_eq!(opened([&a, &b]), [40, 30]);
    // The old generation is taken off: what of it comes late still opens by the key that the flow holds.
    primary.listed(CLIENT).generations = vec![2];
    b.update(&primary);
    a.update(&primary);
    x.step(&mut a.gate, &mut b.gate, 0, 10);
    assert_eq!(opened([&a, &b]), [50, 40]);
}

#[test]
fn a_generation_is_raised_without_a_loss_and_never_goes_back() {
    let mut primary = Primary::new(Mode::TrustedServers);
    let (mut a, mut b) = (Secondary::client(&primary), Secondary::server(&primary));
    let mut x = Exchange::new(
        Faults {
            delay: MS,
            ..Faults::default()
        },
        9,
    );
    let mut witness = Witness::new();
    for newest in 2..8 {
        let before = a.own.clone();
        // First everybody who receives knows it, then it is used, then the one before goes.
        primary.listed(CLIENT).generations = vec![newest - 1, newest];
        b.update(&primary);
        a.update(&primary);
        x.step(&mut a.gate, &mut b.gate, 0, 20);
        x.settle(&mut a.gate, &mut b.gate);
        a.own = vec![(CLIENT, newest)];
        a.update(&primary);
        x.step(&mut a.gate, &mut b.gate, 0, 20);
        x.settle(&mut a.gate, &mut b.gate);
        primary.listed(CLIENT).generations = vec![newest];
        a.update(&primary);
        b.update(&primary);
        x.step(&mut a.gate, &mut b.gate, 0, 20);
        x.settle(&mut a.gate, &mut b.gate);
        // An old grant comes again.
        let after = std::mem::replace(&mut a.own, before);
        a.update(&primary);
        let refused = a.snapshot().refused.as_slice();
        assert!(matches!(refused, [GrantError::GenerationWentDown { .. }]));
        a.own = after;
        x.step(&mut a.gate, &mut b.gate, 0, 20);
        x.settle(&mut a.gate, &mut b.gate);
    }
    let (sent, opened) = (sent([&a, &b]), opened([&a, &b]));
    assert_eq!((sent[0], sent[1]), (opened[1], opened[0]));
    witness.watch(&primary, &x.ab.log, 8);
    witness.watch(&primary, &x.ba.log, 8);
}

#[test]
fn a_revoked_pairing_is_gone_with_its_secrets_and_comes_back_above_its_floors() {
    let primary = Primary::new(Mode::TrustedServers);
    let (mut a, mut b) = (Secondary::client(&primary), Secondary::server(&primary));
    let mut x = Exchange::new(Faults::default(), 11);
    let mut witness = Witness::new();
    for _ in 0..6 {
        x.step(&mut a.gate, &mut b.gate, 0, 50);
        let grant = primary.grant(Role::Client, &[(CLIENT, 1)]);
        let watch = Arc::downgrade(&grant);
        a.set(vec![grant]);
        x.step(&mut a.gate, &mut b.gate, 0, 50);
        a.set(Vec::new());
        let plain = vec![datagram(&flow(), 1)];
        assert_eq!(a.gate.pass(Direction::Out, &plain, x.now), plain);
        assert!(a.gate.collect(x.now));
        assert!(watch.upgrade().is_none(), "nobody holds the secrets");
        // The flow is forgotten meanwhile.
        x.now += 3 * HZ;
        for _ in 0..6 {
            for end in [&mut a, &mut b] {
                end.gate.collect(x.now);
                end.gate.pass(Direction::Out, &plain[..0], x.now);
                end.gate.pass(Direction::Out, &[vec![0; 60]], x.now);
            }
        }
        assert!(a.gate.flow(&flow(), |_| ()).is_none());
        a.update(&primary);
    }
    x.settle(&mut a.gate, &mut b.gate);
    witness.watch(&primary, &x.ab.log, 1);
    witness.watch(&primary, &x.ba.log, 1);
    assert_eq!(sent([&a, &b])[0], opened([&a, &b])[1]);
}

/// Everything at once, in any order: renewals, generations, eras, revocations, restarts, evictions, pairs to be asked for.
#[test]
fn whatever_a_primary_does_no_number_comes_twice_and_no_flow_is_stuck() {
    for (seed, mode) in (1u64..).zip([SEALED, SEALED].concat()) {
        let mut dice = Dice(seed * 0x2545_f491);
        let mut primary = Primary::new(mode);
        let (mut a, mut b) = (Secondary::client(&primary), Secondary::server(&primary));
        let mut x = Exchange::new(
            Faults {
                delay: MS,
                ..Faults::default()
            },
            seed,
        );
        let mut witness = Witness::new();
        warm_up(&mut x, &mut primary, &mut a, &mut b);
        for _ in 0..60 {
            match dice.roll(9) {
                0 if primary.prks.len() < 100 => {
                    primary.renew();
                    for end in [&mut a, &mut b] {
                        end.update(&primary);
                        end.catch_up(&mut primary);
                    }
                    x.step(&mut a.gate, &mut b.gate, 0, 3);
                    primary.seal_with_newest();
                }
                1 | 2 => raise(&mut dice, &mut primary, &mut a, &mut b, &mut x),
                3 => {
                    let end = if dice.percent(50) { &mut a } else { &mut b };
                    if end.begin_era(x.now) {
                        let era = end.snapshot().era;
                        assert_ne!(end.snapshot().pairings[0].era, era);
                    }
                }
                4 => {
                    let end = if dice.percent(50) { &mut a } else { &mut b };
                    end.set(Vec::new());
                    x.step(&mut a.gate, &mut b.gate, 1, 5);
                }
                5 => {
                    x.now += 3 * HZ;
                    for _ in 0..6 {
                        for end in [&mut a, &mut b] {
                            end.gate.collect(x.now);
                            end.gate.pass(Direction::Out, &[vec![0; 60]], x.now);
                        }
                    }
                }
                6 => {
                    // A restart: a new generation, and no memory.
                    let newest = newest(&mut primary) + 1;
                    let at_a = dice.percent(50);
                    let text = if at_a { CLIENT } else { WEB };
                    primary.listed(text).generations = vec![newest];
                    if at_a {
                        a = Secondary::new(&primary, Role::Client, &[(CLIENT, newest)]);
                        b.update(&primary);
                    } else {
                        b = Secondary::new(&primary, Role::Server, &[(WEB, newest)]);
                        a.update(&primary);
                    }
                }
                _ => {}
            }
            a.update(&primary);
            b.update(&primary);
            for end in [&a, &b] {
                assert_eq!(end.snapshot().refused, []);
            }
            for n in 0..3 {
                x.step(&mut a.gate, &mut b.gate, n, 1 + dice.roll(60) as u32);
                a.fetch(&mut primary);
                b.fetch(&mut primary);
            }
            x.settle(&mut a.gate, &mut b.gate);
            let newest = newest(&mut primary);
            witness.watch(&primary, &x.ab.log, newest);
            witness.watch(&primary, &x.ba.log, newest);
            x.ab.forget();
            x.ba.forget();
        }
        warm_up(&mut x, &mut primary, &mut a, &mut b);
        // A burst in which a third key comes has no place for it yet.
        let taken = |ends: [&Secondary; 2]| {
            let contended = ends.map(|end| end.gate.count(Direction::In, Counter::Contended));
            let opened = opened(ends);
            [opened[0] + contended[0], opened[1] + contended[1]]
        };
        let before = (sent([&a, &b]), taken([&a, &b]));
        for n in 0..3 {
            x.step(&mut a.gate, &mut b.gate, n, 50);
        }
        x.settle(&mut a.gate, &mut b.gate);
        let after = (sent([&a, &b]), taken([&a, &b]));
        for (from, to) in [(0, 1), (1, 0)] {
            let sent = after.0[from] - before.0[from];
            assert_eq!(sent, 150, "seed {seed}");
            assert_eq!(after.1[to] - before.1[to], sent, "seed {seed}");
        }
        assert!(witness.sealed > 2_000);
    }
}

fn newest(primary: &mut Primary) -> u32 {
    let all = primary.clients.iter().chain(&primary.servers);
    all.flat_map(|listed| listed.generations.iter().copied())
        .max()
        .unwrap_or(1)
}

/// New generations for one end, held by all before they are used.
fn raise(
    dice: &mut Dice,
    primary: &mut Primary,
    a: &mut Secondary,
    b: &mut Secondary,
    x: &mut Exchange,
) {
    let newest = newest(primary) + 1;
    let at_a = dice.percent(50);
    let text = if at_a { CLIENT } else { WEB };
    let listed = primary.listed(text);
    let before = listed.generations.last().copied().unwrap_or(1);
    listed.generations = vec![before, newest];
    a.update(primary);
    b.update(primary);
    x.step(&mut a.gate, &mut b.gate, 2, 4);
    let end = if at_a { &mut *a } else { &mut *b };
    end.own = vec![(text, newest)];
    end.update(primary);
    x.step(&mut a.gate, &mut b.gate, 2, 4);
    primary.listed(text).generations = vec![newest];
}
