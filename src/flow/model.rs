//! The room's lock-free parts under loom: every order of the threads' steps that the memory model allows, up to a bound.

use super::epoch::Epoch;
use super::floor::Floors;
use super::free::{Free, Linked};
use super::incoming::{Found, Incoming, Refused};
use super::index::{Index, NotInserted};
use super::outgoing::{Limit, Need, Outgoing};
use super::owner::{Access, Owner};
use super::places::Places;
use super::quiescence::Quiescence;
use super::replay::Window;
use super::sync::{AtomicU32, AtomicU64, Ordering, SharedCell};
use crate::crypto::{Aead, SessionKey};
use loom::sync::Arc;
use loom::thread;
use std::sync::Mutex;

const EPOCH: Epoch = Epoch {
    pms_serial: 1,
    src_generation: 1,
    dst_generation: 1,
};

fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
}

fn key_for(epoch: &Epoch, kri: u32) -> SessionKey {
    let mut key = [0; 32];
    key[0] = epoch.src_generation as u8;
    key[1] = kri as u8;
    SessionKey::new(&key, &[0; 12])
}

fn need(floors: &Floors, limit: u16, max_age: u64) -> Need<'_> {
    Need {
        access: Access::shared(),
        aead: Aead::Aes128Gcm,
        epoch: EPOCH,
        secret: 1,
        serial: 1,
        floor: floors.cells(0, 0).unwrap(),
        limit: Limit::new(limit),
        max_age,
        now: 1,
        random: 0,
    }
}

/// Checks that no (Kri, PRSEQ) was taken twice.
fn assert_apart(taken: &Mutex<Vec<(u32, u16)>>) {
    let mut taken = taken.lock().unwrap();
    let all = taken.len();
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), all, "a (key, nonce) pair came twice");
}

#[test]
fn two_workers_never_share_a_number_across_a_key_change() {
    explore(3, || {
        let q = Arc::new(Quiescence::new(2));
        let floors = Arc::new(Floors::new(1, false).unwrap());
        let out = Arc::new(Outgoing::new());
        out.reset(0);
        let taken = Arc::new(Mutex::new(Vec::new()));
        let run = |worker: usize| {
            let (q, floors, out, taken) = (q.clone(), floors.clone(), out.clone(), taken.clone());
            move || {
                let mut reader = q.reader(worker).unwrap();
                for _ in 0..2 {
                    let pin = reader.pin();
                    let need = need(&floors, 2, u64::MAX);
                    let number = out.number(&pin, &need, |e, k| Some(key_for(e, k)));
                    if let Ok((n, _)) = number {
                        assert_eq!(n.key.session.key()[1], n.key.kri as u8);
                        taken.lock().unwrap().push((n.key.kri, n.prseq().get()));
                    }
                }
            }
        };
        let other = thread::spawn(run(1));
        run(0)();
        other.join().unwrap();
        assert_apart(&taken);
    });
}

#[test]
fn a_settled_flows_numbers_and_a_key_change_never_meet() {
    explore(3, || {
        let q = Arc::new(Quiescence::new(2));
        let floors = Arc::new(Floors::new(1, false).unwrap());
        let out = Arc::new(Outgoing::new());
        out.reset(0);
        let taken = Arc::new(Mutex::new(Vec::new()));
        let run = |worker: usize, ages: &'static [u64]| {
            let (q, floors, out, taken) = (q.clone(), floors.clone(), out.clone(), taken.clone());
            move || {
                let mut reader = q.reader(worker).unwrap();
                for &max_age in ages {
                    let pin = reader.pin();
                    let need = need(&floors, 8, max_age);
                    let oldest = need.now.saturating_sub(max_age);
                    let next = out.next(Access::shared(), &pin, need.limit, oldest);
                    let number = match next {
                        Some(number) => Ok((number, true)),
                        None => out.number(&pin, &need, |e, k| Some(key_for(e, k))),
                    };
                    if let Ok((n, _)) = number {
                        assert_eq!(n.key.session.key()[1], n.key.kri as u8);
                        taken.lock().unwrap().push((n.key.kri, n.prseq().get()));
                    }
                }
            }
        };
        // To one worker the key seems too old, so it changes it while the other goes on.
        let other = thread::spawn(run(1, &[u64::MAX, u64::MAX]));
        run(0, &[u64::MAX, 0, u64::MAX])();
        other.join().unwrap();
        assert!(!taken.lock().unwrap().is_empty());
        assert_apart(&taken);
    });
}

#[test]
fn a_key_that_is_taken_back_is_never_read() {
    explore(3, || {
        let q = Arc::new(Quiescence::new(2));
        let floors = Arc::new(Floors::new(1, false).unwrap());
        let out = Arc::new(Outgoing::new());
        out.reset(0);
        let taken = Arc::new(Mutex::new(Vec::new()));
        let run = |worker: usize, generation: u32, packets: usize| {
            let (q, floors, out, taken) = (q.clone(), floors.clone(), out.clone(), taken.clone());
            move || {
                let mut reader = q.reader(worker).unwrap();
                for _ in 0..packets {
                    let pin = reader.pin();
                    let need = Need {
                        epoch: Epoch {
                            src_generation: generation,
                            ..EPOCH
                        },
                        serial: generation,
                        ..need(&floors, 2, u64::MAX)
                    };
                    if let Ok((n, _)) = out.number(&pin, &need, |e, k| Some(key_for(e, k))) {
                        let key = key_for(&n.key.epoch, n.key.kri);
                        assert_eq!(n.key.session.key(), key.key());
                        let named = n.key.epoch.src_generation << 8 | n.key.kri;
                        taken.lock().unwrap().push((named, n.prseq().get()));
                    }
                }
            }
        };
        // The first key is used up, and the one after it ready.
        run(0, 1, 2)();
        // One worker still wants that one, and the other already has another epoch.
        let other = thread::spawn(run(1, 2, 1));
        run(0, 1, 1)();
        other.join().unwrap();
        assert_apart(&taken);
    });
}

#[test]
fn a_key_is_overwritten_only_when_nobody_reads_it() {
    explore(2, || {
        let q = Arc::new(Quiescence::new(2));
        let floors = Arc::new(Floors::new(1, false).unwrap());
        let out = Arc::new(Outgoing::new());
        out.reset(0);
        let run = |worker: usize, packets: usize| {
            let (q, floors, out) = (q.clone(), floors.clone(), out.clone());
            move || {
                let mut reader = q.reader(worker).unwrap();
                for _ in 0..packets {
                    let pin = reader.pin();
                    let need = need(&floors, 1, u64::MAX);
                    // The cell's own tracking finds a write that meets a read.
                    if let Ok((n, _)) = out.number(&pin, &need, |e, k| Some(key_for(e, k))) {
                        assert_eq!(n.key.session.key()[1], n.key.kri as u8);
                    }
                }
            }
        };
        let other = thread::spawn(run(1, 1));
        run(0, 4)();
        other.join().unwrap();
    });
}

#[test]
fn a_tuple_never_has_two_live_entries() {
    explore(3, || {
        let index = Arc::new(Index::new(1, false).unwrap());
        let live = Arc::new(AtomicU32::new(0));
        let workers: Vec<_> = [1u32, 2]
            .into_iter()
            .map(|entry| {
                let (index, live) = (index.clone(), live.clone());
                thread::spawn(move || match index.insert(0, entry, |_| true) {
                    Ok(()) => {
                        live.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(NotInserted::Exists(other)) => assert_ne!(other, entry),
                    Err(NotInserted::Contended) => {}
                    Err(NotInserted::Full) => panic!("there is room"),
                })
            })
            .collect();
        for w in workers {
            w.join().unwrap();
        }
        assert!(live.load(Ordering::Relaxed) <= 1);
    });
}

/// Each worker counts a word up in so many bursts, where its owner lets it: the first one as whose it is.
fn count_up(workers: &'static [usize]) {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    // Of all orders: the most bursts in which a worker other than the first counted.
    let by_others = std::sync::Arc::new(AtomicUsize::new(0));
    let most = by_others.clone();
    explore(3, move || {
        let q = Arc::new(Quiescence::new(workers.len()));
        let (owner, left) = Owner::fresh();
        let owner = Arc::new((owner, left, AtomicU64::new(0)));
        let taken = Arc::new(Mutex::new(Vec::new()));
        let run = |worker: usize, bursts: usize| {
            let (q, owner, taken) = (q.clone(), owner.clone(), taken.clone());
            move || {
                let (owner, left, word) = &*owner;
                let mut reader = q.reader(worker).unwrap();
                let mut counted = 0;
                for _ in 0..bursts {
                    let pin = reader.pin();
                    let Some(access) = owner.access(left, &pin) else {
                        continue;
                    };
                    let mut seen = word.load(Ordering::Acquire);
                    while let Err(other) = access.replace(word, seen, seen + 1) {
                        seen = other;
                    }
                    taken.lock().unwrap().push((0, seen as u16));
                    counted += 1;
                }
                counted
            }
        };
        // The first worker to ask has it.
        assert_eq!(run(0, 1)(), 1);
        let others: Vec<_> = (1..workers.len())
            .map(|worker| thread::spawn(run(worker, workers[worker])))
            .collect();
        run(0, workers[0])();
        for other in others {
            most.fetch_max(other.join().unwrap(), Relaxed);
        }
        assert_apart(&taken);
        let total = taken.lock().unwrap().len() as u64;
        assert_eq!(owner.2.load(Relaxed), total, "none was undone");
    });
    assert!(by_others.load(Relaxed) > 0, "another worker gets there");
}

#[test]
fn a_half_that_another_worker_comes_to_counts_on() {
    count_up(&[3, 3]);
}

#[test]
fn a_half_that_two_other_workers_come_to_counts_on() {
    count_up(&[1, 2, 2]);
}

#[test]
fn a_window_accepts_a_number_once() {
    explore(3, || {
        let window = Arc::new(Window::new());
        let wins = Arc::new(AtomicU32::new(0));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (window, wins) = (window.clone(), wins.clone());
                thread::spawn(move || {
                    // The second number takes the first one's word away.
                    for n in [200, 200 + 128] {
                        if window.accept(n, Access::shared()).is_ok() {
                            wins.fetch_add(1 << (8 * (n / 300)), Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        for w in workers {
            w.join().unwrap();
        }
        let wins = wins.load(Ordering::Relaxed);
        assert!(wins & 0xff <= 1 && wins >> 8 == 1, "{wins:#x}");
    });
}

#[test]
fn what_is_out_of_sight_and_quiet_is_free_to_write() {
    explore(3, || {
        let q = Arc::new(Quiescence::new(1));
        let shown = Arc::new(AtomicU32::new(1));
        let cell = Arc::new(SharedCell::new(7u32));
        let worker = {
            let (q, shown, cell) = (q.clone(), shown.clone(), cell.clone());
            thread::spawn(move || {
                let mut reader = q.reader(0).unwrap();
                for _ in 0..2 {
                    let _pin = reader.pin();
                    if shown.load(Ordering::Acquire) == 1 {
                        // SAFETY: what the test is about: the writer waits for this pin.
                        assert_eq!(*unsafe { cell.read() }, 7);
                    }
                }
                reader.rest();
            })
        };
        shown.store(0, Ordering::Release);
        let stamp = q.retire();
        if q.passed(stamp) {
            // SAFETY: out of sight, and the worker has ended its burst.
            unsafe { cell.write(|v| *v = 0) };
        }
        worker.join().unwrap();
    });
}

#[test]
fn a_packet_is_taken_in_once_whoever_finds_its_key() {
    explore(3, || {
        let q = Arc::new(Quiescence::new(2));
        let incoming = Arc::new(Incoming::new());
        let places = Arc::new(Places::new(1, false).unwrap());
        let wins = Arc::new(AtomicU32::new(0));
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let (q, incoming, places, wins) =
                    (q.clone(), incoming.clone(), places.clone(), wins.clone());
                thread::spawn(move || {
                    let mut reader = q.reader(worker).unwrap();
                    let pin = reader.pin();
                    let session = key_for(&EPOCH, 0);
                    let found = Found {
                        access: Access::shared(),
                        aead: Aead::Aes128Gcm,
                        epoch: EPOCH,
                        kri: 0,
                        session: &session,
                        psntp: 5,
                        after: None,
                        now: 1,
                    };
                    let held = incoming.keys(false, &pin, &places).next();
                    let result = match held {
                        Some(held) => held.accept(5, 1, Access::shared()),
                        None => incoming.take_in(&found, &pin, &places, |_| true),
                    };
                    match result {
                        Ok(()) => {
                            wins.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(Refused::Busy | Refused::Replay(_)) => {}
                        Err(Refused::Behind) => panic!("it is the flow's first key"),
                    }
                })
            })
            .collect();
        for w in workers {
            w.join().unwrap();
        }
        assert!(wins.load(Ordering::Relaxed) <= 1);
    });
}

/// A value with a link, and with contents that loom watches.
struct Value {
    link: AtomicU32,
    contents: SharedCell<u32>,
}

impl Linked for Value {
    fn link(&self) -> u32 {
        self.link.load(Ordering::Relaxed)
    }

    fn set_link(&self, link: u32) {
        self.link.store(link, Ordering::Relaxed);
    }
}

/// Takes a value and writes it, as its owner alone may.
fn take(free: &Free, values: &[Value]) -> Option<u32> {
    let number = free.take(values)?;
    // SAFETY: what the models are about: nobody else has the value.
    unsafe { values[number as usize].contents.write(|v| *v += 1) };
    Some(number)
}

fn values(n: usize) -> Arc<Vec<Value>> {
    let value = |_| Value {
        link: AtomicU32::new(0),
        contents: SharedCell::new(0),
    };
    Arc::new((0..n).map(value).collect())
}

#[test]
fn a_free_value_is_taken_once_though_it_comes_back_meanwhile() {
    explore(3, || {
        let (free, values) = (Arc::new(Free::new()), values(2));
        let both = [take(&free, &values), take(&free, &values)];
        for number in both.into_iter().flatten() {
            free.give_back(&values, number);
        }
        let other = {
            let (free, values) = (free.clone(), values.clone());
            thread::spawn(move || take(&free, &values))
        };
        let first = take(&free, &values);
        let second = take(&free, &values);
        // Back on top, below it what it was above of is gone.
        if let Some(number) = first {
            free.give_back(&values, number);
        }
        let again = take(&free, &values);
        let mut kept: Vec<u32> = [second, again, other.join().unwrap()]
            .into_iter()
            .flatten()
            .collect();
        let all = kept.len();
        kept.sort_unstable();
        kept.dedup();
        assert_eq!(kept.len(), all, "in two hands");
        assert_eq!(free.in_use(), all);
    });
}

#[test]
fn values_are_handed_on_by_threads_that_take_and_give_back() {
    explore(3, || {
        let (free, values) = (Arc::new(Free::new()), values(2));
        let run = || {
            let (free, values) = (free.clone(), values.clone());
            move || {
                for _ in 0..2 {
                    if let Some(number) = take(&free, &values) {
                        free.give_back(&values, number);
                    }
                }
            }
        };
        let other = thread::spawn(run());
        run()();
        other.join().unwrap();
        assert_eq!(free.in_use(), 0);
        assert!(take(&free, &values).is_some());
    });
}

#[test]
fn a_place_goes_to_another_flow_only_when_nobody_reads_it() {
    explore(3, || {
        let q = Arc::new(Quiescence::new(2));
        let places = Arc::new(Places::new(1, false).unwrap());
        let flow = Arc::new(Incoming::new());
        let shown = Arc::new(AtomicU32::new(1));
        let take_in = |flow: &Incoming, reader: usize, kri: u32| {
            let mut reader = q.reader(reader).unwrap();
            let pin = reader.pin();
            let session = key_for(&EPOCH, kri);
            let found = Found {
                access: Access::shared(),
                aead: Aead::Aes128Gcm,
                epoch: EPOCH,
                kri,
                session: &session,
                psntp: 5,
                after: None,
                now: 1,
            };
            assert_eq!(flow.take_in(&found, &pin, &places, |_| true), Ok(()));
        };
        // In its own place, and in one of the pool.
        take_in(&flow, 0, 1);
        take_in(&flow, 0, 2);
        let worker = {
            let (q, places, flow, shown) = (q.clone(), places.clone(), flow.clone(), shown.clone());
            thread::spawn(move || {
                let mut reader = q.reader(0).unwrap();
                for _ in 0..2 {
                    let pin = reader.pin();
                    // As the index shows a flow, or does not.
                    if shown.load(Ordering::Acquire) == 1 {
                        let held = flow.keys(false, &pin, &places).next().unwrap();
                        assert_eq!(held.key.session.key()[1], 2);
                    }
                }
                reader.rest();
            })
        };
        shown.store(0, Ordering::Release);
        let stamp = q.retire();
        if q.passed(stamp) {
            // SAFETY: out of sight, and the worker has ended its burst.
            unsafe { flow.wipe(&places) };
            let next = Incoming::new();
            take_in(&next, 1, 3);
            take_in(&next, 1, 4);
            assert_eq!(places.in_use(), 1, "the same place");
        }
        worker.join().unwrap();
    });
}
