//! Two data planes with a wire between them, on plain memory: what is promised of numbers, metrics and the way back.

mod lab;
mod policy;
mod registered;
mod returning;
mod secondary;
mod wire_model;

use crate::crypto::{Kernel, OpenJob, SessionKey};
use crate::flow::Epoch;
use crate::snapshot::State;
use crate::telemetry::{Counter, Direction};
use crate::wire::{FiveTuple, Metrics};
use lab::{Gate, HZ, MS, Setup, boot, boot_both, datagram, number_of};
use std::collections::{HashMap, HashSet};
use wire_model::{Dice, Faults, Line};

fn address(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

/// The flow of client port `n`, as the client's packets name it.
fn tuple(n: u16) -> FiveTuple {
    FiveTuple {
        src: address("2001:db8:1::17"),
        dst: address("2001:db8:2::23"),
        sport: 40_000 + n,
        dport: 53,
        protocol: 17,
    }
}

/// Opens what was on the wire by trying keys, apart from the receiver's own search, and remembers every (key, nonce).
struct Witness {
    used: HashSet<([u8; 32], u16)>,
    /// Where each direction stood: generations only go up, and Kri within them.
    last: HashMap<FiveTuple, (Epoch, u32)>,
}

impl Witness {
    fn new() -> Self {
        Self {
            used: HashSet::new(),
            last: HashMap::new(),
        }
    }

    /// Looks at every packet that `gate` sent towards the wire.
    fn watch(&mut self, gate: &Gate<'_>, log: &[Vec<u8>]) {
        let kernel = Kernel::detect();
        for packet in log {
            let Ok(crate::wire::Parsed::Packet(p)) = crate::wire::parse(packet, 0x0f) else {
                panic!("the appliance sent something malformed");
            };
            let Some(option) = p.option else { continue };
            let sealed: &[u8; 36] = packet[usize::from(option.at)..].first_chunk().unwrap();
            let prseq = u16::from_be_bytes([sealed[4], sealed[5]]) >> 1;
            let opens = |key: &SessionKey| {
                let mut jobs = [OpenJob::new(key, sealed)];
                kernel.open(crate::crypto::Aead::Aes128Gcm, &mut jobs);
                jobs[0].opened.metrics().is_some()
            };
            let key = self
                .find(gate, &p.tuple, sealed[5] & 1, opens)
                .expect("no key of the schedule opens what the appliance sealed");
            assert!(
                self.used.insert((key, prseq)),
                "a (key, nonce) pair came twice"
            );
        }
    }

    fn find(
        &mut self,
        gate: &Gate<'_>,
        tuple: &FiveTuple,
        f: u8,
        opens: impl Fn(&SessionKey) -> bool,
    ) -> Option<[u8; 32]> {
        let mut reader = gate
            .shared
            .quiescence
            .reader(gate.shared.management_reader())?;
        let pin = reader.pin();
        let snapshot = &gate.shared.view.read(&pin).snapshot;
        let route = snapshot
            .resolve(&tuple.src, &tuple.dst)
            .or_else(|| snapshot.resolve(&tuple.dst, &tuple.src))?;
        let start = Epoch {
            pms_serial: 0,
            src_generation: 1,
            dst_generation: 1,
        };
        let (last, kri) = *self.last.entry(*tuple).or_insert((start, 0));
        for ahead in 0..60 {
            for (src, dst) in (0..=ahead).flat_map(|n| [(n, ahead), (ahead, n)]) {
                let epoch = Epoch {
                    pms_serial: snapshot.send_epoch(&route).pms_serial,
                    src_generation: last.src_generation + src,
                    dst_generation: last.dst_generation + dst,
                };
                let from = if ahead == 0 { kri } else { 0 };
                for kri in (from..from + 20).filter(|kri| kri & 1 == u32::from(f)) {
                    let key = snapshot.session_key(&route, &epoch, tuple, kri)?;
                    if opens(&key) {
                        self.last.insert(*tuple, (epoch, kri));
                        return Some(*key.key());
                    }
                }
            }
        }
        None
    }
}

/// A client behind gate A asks, a server behind gate B answers each datagram that reaches it.
struct Exchange {
    ab: Line,
    ba: Line,
    now: u64,
    next: u32,
    server_delay: u64,
    /// If packets reach B one by one, those whose option was taken in.
    accepted: Option<Vec<Vec<u8>>>,
}

impl Exchange {
    fn new(faults: Faults, seed: u64) -> Self {
        Self {
            ab: Line::new(faults, seed),
            ba: Line::new(faults, seed ^ 0x5555_5555),
            now: HZ,
            next: 0,
            server_delay: 0,
            accepted: None,
        }
    }

    /// A step of 100 microseconds in which `packets` are sent on the flow `n`.
    fn step(&mut self, a: &mut Gate<'_>, b: &mut Gate<'_>, n: u16, packets: u32) {
        self.now += 100_000;
        let t = tuple(n);
        let asked: Vec<_> = (0..packets).map(|i| datagram(&t, self.next + i)).collect();
        self.next += packets;
        let sent = a.pass(Direction::Out, &asked, self.now);
        self.ab.send(sent, self.now);
        let arrived = self.ab.deliver(self.now);
        let heard = match &mut self.accepted {
            None => b.pass(Direction::In, &arrived, self.now),
            Some(accepted) => arrived
                .into_iter()
                .flat_map(|packet| {
                    let packet = [packet];
                    let before = b.count(Direction::In, Counter::Opened);
                    let heard = b.pass(Direction::In, &packet, self.now);
                    if b.count(Direction::In, Counter::Opened) > before {
                        accepted.extend(packet);
                    }
                    heard
                })
                .collect(),
        };
        let answers: Vec<_> = heard
            .iter()
            .filter(|p| p.len() == 14 + 40 + 24)
            .map(|p| datagram(&t.reversed(), number_of(p)))
            .collect();
        let answered = b.pass(Direction::Out, &answers, self.now + self.server_delay);
        self.ba.send(answered, self.now + self.server_delay);
        let arrived = self.ba.deliver(self.now);
        a.pass(Direction::In, &arrived, self.now);
    }

    fn settle(&mut self, a: &mut Gate<'_>, b: &mut Gate<'_>) {
        for _ in 0..600 {
            self.step(a, b, 0, 0);
        }
    }
}

#[test]
fn hosts_see_their_own_bytes_and_the_wire_sees_none_of_the_metrics() {
    for setup in [
        Setup::default(),
        Setup {
            aead: "aes-256-gcm",
            ..Setup::default()
        },
        Setup {
            aead: "chacha20-poly1305",
            ..Setup::default()
        },
        Setup {
            mode: "asymmetric-poll",
            ..Setup::default()
        },
        Setup {
            protection: "clear",
            ..Setup::default()
        },
    ] {
        let (sa, sb) = boot_both(&setup);
        let (mut a, mut b) = (Gate::new(&sa), Gate::new(&sb));
        for i in 0..3_000 {
            let original = vec![datagram(&tuple(i as u16 % 5), i)];
            let marked = a.pass(Direction::Out, &original, HZ + u64::from(i));
            let growth = if setup.protection == "clear" { 24 } else { 40 };
            assert_eq!(marked[0].len(), original[0].len() + growth);
            assert_eq!(b.pass(Direction::In, &marked, HZ + u64::from(i)), original);
            let answer = vec![datagram(&tuple(i as u16 % 5).reversed(), i)];
            let marked = b.pass(Direction::Out, &answer, HZ + u64::from(i));
            assert_eq!(a.pass(Direction::In, &marked, HZ + u64::from(i)), answer);
        }
        let read = if setup.protection == "clear" {
            Counter::ClearRead
        } else {
            Counter::Opened
        };
        assert_eq!(a.count(Direction::In, read), 3_000);
        assert_eq!(b.count(Direction::In, read), 3_000);
        assert_eq!(
            b.flow(&tuple(0).reversed(), |e| e.sequence.counts().lost),
            Some(0)
        );
    }
}

/// A flow's packets come to the other worker, then to both in turn. Nothing of it is lost, and no number or packet is taken twice; only the
/// other worker's first burst goes without.
#[test]
fn a_flow_may_come_to_another_worker() {
    let setup = Setup::default();
    let (sa, sb) = boot_both(&setup);
    let (mut a, mut b) = (Gate::new(&sa), Gate::new(&sb));
    let mut log = Vec::new();
    let mut number = 0;
    for (step, worker) in [0, 1, 1, 0, 1, 0, 1, 1].into_iter().enumerate() {
        let now = HZ + step as u64;
        let original: Vec<_> = (0..16).map(|n| datagram(&tuple(0), number + n)).collect();
        number += 16;
        let marked = a.burst(worker, Direction::Out, &original, now);
        let marked: Vec<_> = marked.into_iter().map(Option::unwrap).collect();
        assert_eq!(marked == original, step == 1, "step {step}");
        // The receiving flow begins at the other worker, and leaves it when `worker` is 1 for the first time with options.
        let opened = b.burst(1 - worker, Direction::In, &marked, now);
        assert!(opened.iter().flatten().eq(&original), "step {step}");
        let again = b.burst(worker, Direction::In, &marked, now);
        assert!(again.iter().flatten().eq(&original), "step {step}");
        log.extend(marked);
    }
    assert_eq!(a.count(Direction::Out, Counter::MarkedSealed), 7 * 16);
    assert_eq!(a.count(Direction::Out, Counter::PassedKeyNotReady), 16);
    // The copies came to the worker whose the flow was not.
    assert_eq!(b.count(Direction::In, Counter::Contended), 16);
    assert_eq!(b.count(Direction::In, Counter::Opened), 7 * 16);
    assert_eq!(b.count(Direction::In, Counter::ReplayedRepeated), 6 * 16);
    Witness::new().watch(&a, &log);
    let counts = b.flow(&tuple(0).reversed(), |e| e.sequence.counts());
    assert_eq!((counts.unwrap().received, counts.unwrap().lost), (112, 0));
}

#[test]
fn round_trip_and_server_delay_are_the_wires_and_the_servers() {
    let setup = Setup::default();
    let (sa, sb) = boot_both(&setup);
    let (mut a, mut b) = (Gate::new(&sa), Gate::new(&sb));
    let delay = Faults {
        delay: 5 * MS,
        ..Faults::default()
    };
    let mut x = Exchange::new(delay, 1);
    x.server_delay = 2 * MS;
    for _ in 0..2_000 {
        x.step(&mut a, &mut b, 0, 1);
    }
    x.settle(&mut a, &mut b);
    let (rtt, server) = a
        .flow(&tuple(0), |e| {
            (
                e.measured.round_trip.values(),
                e.measured.server_delay.values(),
            )
        })
        .unwrap();
    assert!(rtt.samples > 20, "{rtt:?}");
    // A step is 0.1 ms, so the wire delivers up to that much late on each way.
    for ns in [rtt.least, rtt.smoothed, rtt.greatest] {
        assert!((10 * MS..=10 * MS + 300_000).contains(&ns), "{rtt:?}");
    }
    assert!(server.smoothed.abs_diff(2 * MS) < MS / 10, "{server:?}");
}

#[test]
fn a_bad_wire_breaks_nothing_and_is_counted_as_it_was() {
    for seed in 1..=4 {
        let setup = Setup::default();
        let (sa, sb) = boot_both(&setup);
        let (mut a, mut b) = (Gate::new(&sa), Gate::new(&sb));
        let faults = Faults {
            lose: 5,
            duplicate: 5,
            reorder: 5,
            corrupt: 5,
            delay: MS,
        };
        let mut x = Exchange::new(faults, seed * 0x9e37_79b9);
        for _ in 0..4_000 {
            x.step(&mut a, &mut b, 0, 3);
        }
        x.settle(&mut a, &mut b);
        for (line, gate, tuple) in [(&x.ab, &b, tuple(0).reversed()), (&x.ba, &a, tuple(0))] {
            let (received, lost, reordered) = line.truth();
            let counts = gate.flow(&tuple, |e| e.sequence.counts()).unwrap();
            assert_eq!(
                (counts.received, counts.lost, counts.reordered),
                (received, lost, reordered),
                "seed {seed}"
            );
            let rtt = gate
                .flow(&tuple, |e| e.measured.round_trip.values())
                .unwrap();
            if rtt.samples > 0 {
                assert!(rtt.least >= 2 * MS && rtt.greatest <= 3 * MS, "{rtt:?}");
            }
        }
        let mut witness = Witness::new();
        witness.watch(&a, &x.ab.log);
        witness.watch(&b, &x.ba.log);
        assert!(a.count(Direction::Out, Counter::KeyChanges) > 10);
        assert_eq!(a.count(Direction::Out, Counter::PassedKeyNotReady), 0);
    }
}

#[test]
fn key_changes_lost_entirely_are_caught_up_with() {
    let setup = Setup::default();
    let (sa, sb) = boot_both(&setup);
    let (mut a, mut b) = (Gate::new(&sa), Gate::new(&sb));
    let mut x = Exchange::new(Faults::default(), 1);
    let kri = |g: &Gate<'_>| {
        let mut r = g
            .shared
            .quiescence
            .reader(g.shared.management_reader())
            .unwrap();
        let pin = r.pin();
        let hash = g.shared.table.hasher().hash(&tuple(0).reversed());
        let entry = g
            .shared
            .table
            .find(hash, &tuple(0).reversed(), &pin)
            .unwrap();
        entry.incoming.heads(&pin, &g.shared.table.places)[0].kri
    };
    for lost_keys in [1u32, 2, 3, 7, 15] {
        x.step(&mut a, &mut b, 0, 10);
        let before = kri(&b);
        x.ab.faults.lose = 100;
        for _ in 0..lost_keys * 40 {
            x.step(&mut a, &mut b, 0, 25);
        }
        x.ab.faults.lose = 0;
        x.step(&mut a, &mut b, 0, 25);
        assert_eq!(kri(&b), before + lost_keys);
    }
    assert_eq!(b.count(Direction::In, Counter::FailedOpenAuthentication), 0);
}

/// Restarts of either end, evictions, reloads and eras in any order, under an attacker who replays whatever was ever sent.
#[test]
fn whatever_happens_no_number_comes_twice_nothing_is_accepted_twice_and_no_flow_is_stuck() {
    for seed in 1..=4u64 {
        let setup = Setup {
            rotation: "{ packets: 300 }",
            ..Setup::default()
        };
        let mut dice = Dice(seed * 0x1234_5677);
        let (mut state_a, mut state_b) = (State::in_memory(), State::in_memory());
        let mut x = Exchange::new(
            Faults {
                delay: MS,
                ..Faults::default()
            },
            seed,
        );
        let mut witness = Witness::new();
        let mut accepted_b = 0;
        let mut distinct = HashSet::new();
        let mut replayed = 0u64;
        for life in 0..6 {
            // One end restarts, or both.
            let (sa, sb) = (boot(&setup, &mut state_a), boot(&setup, &mut state_b));
            let (mut a, mut b) = (Gate::new(&sa), Gate::new(&sb));
            x.ab.forget();
            x.ba.forget();
            x.accepted = Some(Vec::new());
            for round in 0..40 {
                match dice.roll(12) {
                    // Long enough for both tables to forget the flow.
                    0 => {
                        x.now += 3 * HZ;
                        for _ in 0..6 {
                            a.manage(&setup, &mut state_a, x.now);
                            b.manage(&setup, &mut state_b, x.now);
                            a.pass(Direction::Out, &[vec![0; 60]], x.now);
                            b.pass(Direction::Out, &[vec![0; 60]], x.now);
                        }
                    }
                    1 => a.reload(&setup, &mut state_a, false),
                    2 => {
                        a.pass(Direction::Out, &[vec![0; 60]], x.now);
                        a.manage(&setup, &mut state_a, x.now);
                        let era = {
                            let mut r = sa.quiescence.reader(sa.management_reader()).unwrap();
                            let pin = r.pin();
                            sa.view.read(&pin).snapshot.era
                        };
                        sa.table.floors.prepare(era.wrapping_add(1));
                        a.reload(&setup, &mut state_a, true);
                    }
                    3 => {
                        let accepted = x.accepted.as_ref().unwrap();
                        if accepted.is_empty() {
                            continue;
                        }
                        let old = accepted[dice.roll(accepted.len() as u64) as usize].clone();
                        replayed += 1;
                        let before = b.count(Direction::In, Counter::Opened);
                        b.pass(Direction::In, &[old], x.now);
                        // Not by one who remembers: the flow, or the memory of evicted ones.
                        assert_eq!(
                            b.count(Direction::In, Counter::Opened),
                            before,
                            "seed {seed} life {life} round {round}: replay accepted"
                        );
                    }
                    _ => {}
                }
                for _ in 0..1 + dice.roll(6) {
                    x.step(&mut a, &mut b, (round % 3) as u16, 1 + dice.roll(40) as u32);
                }
                a.manage(&setup, &mut state_a, x.now);
                b.manage(&setup, &mut state_b, x.now);
            }
            // Both directions of every flow open again.
            for n in 0..3 {
                for _ in 0..40 {
                    x.step(&mut a, &mut b, n, 1);
                    a.manage(&setup, &mut state_a, x.now);
                    b.manage(&setup, &mut state_b, x.now);
                }
                let opened = (
                    a.count(Direction::In, Counter::Opened),
                    b.count(Direction::In, Counter::Opened),
                );
                for _ in 0..40 {
                    x.step(&mut a, &mut b, n, 1);
                }
                let now = (
                    a.count(Direction::In, Counter::Opened),
                    b.count(Direction::In, Counter::Opened),
                );
                assert!(
                    now.0 > opened.0 + 20 && now.1 > opened.1 + 20,
                    "seed {seed} life {life}: flow {n} is stuck: {opened:?} {now:?}"
                );
            }
            x.settle(&mut a, &mut b);
            accepted_b += b.count(Direction::In, Counter::Opened);
            distinct.extend(x.ab.log.iter().cloned());
            witness.watch(&a, &x.ab.log);
            witness.watch(&b, &x.ba.log);
        }
        assert!(
            accepted_b <= distinct.len() as u64,
            "seed {seed}: more accepted than sent"
        );
        assert!(replayed > 3);
    }
}

/// A peer may begin many generations while none of its packets comes here: an entry that is quiet, or an appliance that is off.
#[test]
fn a_peer_that_started_over_many_times_unheard_is_found() {
    for starts in [3, 9, 40, 300] {
        let setup = Setup::default();
        let (mut state_a, mut state_b) = (State::in_memory(), State::in_memory());
        let sb = boot(&setup, &mut state_b);
        let mut b = Gate::new(&sb);
        for _ in 0..starts {
            drop(boot(&setup, &mut state_a));
        }
        let sa = boot(&setup, &mut state_a);
        let mut a = Gate::new(&sa);
        // One way only, then both: B knows nothing of A but its configuration.
        let mut x = Exchange::new(Faults::default(), 5);
        for _ in 0..20 {
            x.step(&mut a, &mut b, 0, 1);
            a.manage(&setup, &mut state_a, x.now);
            b.manage(&setup, &mut state_b, x.now);
            x.now += 100 * MS;
        }
        let opened = b.count(Direction::In, Counter::Opened);
        assert!(opened >= 19, "{starts} starts: {opened} of 20 opened");
        assert!(a.count(Direction::In, Counter::Opened) >= 18);
    }
}

#[test]
fn a_changed_secret_opens_both_the_old_and_the_new_packets() {
    let (old, new) = (
        Setup::default(),
        Setup {
            pms: 9,
            ..Setup::default()
        },
    );
    let (mut state_a, mut state_b) = (State::in_memory(), State::in_memory());
    let (sa, sb) = (boot(&old, &mut state_a), boot(&old, &mut state_b));
    let (mut a, mut b) = (Gate::new(&sa), Gate::new(&sb));
    let mut x = Exchange::new(
        Faults {
            delay: MS,
            ..Faults::default()
        },
        3,
    );
    for _ in 0..50 {
        x.step(&mut a, &mut b, 0, 5);
    }
    b.reload(&new, &mut state_b, false);
    for _ in 0..50 {
        x.step(&mut a, &mut b, 0, 5);
    }
    a.reload(&new, &mut state_a, false);
    for _ in 0..50 {
        x.step(&mut a, &mut b, 0, 5);
    }
    x.settle(&mut a, &mut b);
    assert_eq!(b.count(Direction::In, Counter::Opened), 750);
    // A did not know the new secret while B sealed with it already.
    let unopened = a.count(Direction::In, Counter::FailedOpenAuthentication)
        + a.count(Direction::In, Counter::FailedOpenSearchBudget);
    assert!(unopened > 0 && a.count(Direction::In, Counter::Opened) + unopened == 750);
}

#[test]
fn in_the_clear_the_metrics_are_there_for_all_to_read() {
    let setup = Setup {
        protection: "clear",
        ..Setup::default()
    };
    let sa = boot(&setup, &mut State::in_memory());
    let mut a = Gate::new(&sa);
    let first = a.pass(Direction::Out, &[datagram(&tuple(0), 0)], HZ);
    let second = a.pass(Direction::Out, &[datagram(&tuple(1), 0)], HZ);
    let read = |p: &[u8]| Metrics::from_bytes(p[14 + 40 + 4 + 6..][..14].first_chunk().unwrap());
    assert_eq!(read(&first[0]).global_pointer, 1);
    assert_eq!(read(&second[0]).global_pointer, 2);
    assert_eq!(read(&first[0]).psnlr, 0);
    assert_eq!(first[0][58..62], [0x0f, 0x12, 0x20, 0x00]);
}

#[test]
fn each_type_of_address_has_its_own_global_pointer() {
    for protection in ["clear", "sealed"] {
        let setup = Setup {
            protection,
            clients: "[ { prefix: \"2001:db8:1::/64\" }, { prefix: \"fe80::/64\" } ]",
            ..Setup::default()
        };
        let (sa, sb) = boot_both(&setup);
        let (mut a, mut b) = (Gate::new(&sa), Gate::new(&sb));
        let near = FiveTuple {
            src: address("fe80::17"),
            ..tuple(0)
        };
        let mut last = HashMap::new();
        // The second round is of flows that are there, in one burst with a new one.
        for round in 0..2 {
            let burst = [tuple(0), near, tuple(round), near, tuple(0)].map(|t| datagram(&t, 0));
            let sent = a.pass(Direction::Out, &burst, HZ + u64::from(round) * MS);
            if protection == "clear" {
                for packet in &sent {
                    let metrics = Metrics::from_bytes(packet[64..].first_chunk().unwrap());
                    let before = last.insert(packet[22], metrics.global_pointer);
                    assert_eq!(metrics.global_pointer, before.unwrap_or(0) + 1);
                }
            }
            assert_eq!(b.pass(Direction::In, &sent, 2 * HZ), burst, "{protection}");
        }
        let read = match protection {
            "clear" => Counter::ClearRead,
            _ => Counter::Opened,
        };
        assert_eq!(b.count(Direction::In, read), 10, "{protection}");
    }
}
