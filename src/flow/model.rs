//! The room's lock-free parts under loom: every order of the threads' steps that the memory model allows, up to a bound.

use super::epoch::Epoch;
use super::floor::Floors;
use super::incoming::{Found, Incoming, Refused};
use super::index::{Index, NotInserted};
use super::outgoing::{Need, Outgoing};
use super::quiescence::Quiescence;
use super::replay::Window;
use super::sync::{AtomicU32, Ordering, SharedCell};
use crate::crypto::SessionKey;
use loom::sync::{Arc, Mutex};
use loom::thread;

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
    SessionKey {
        key,
        base_nonce: [0; 12],
    }
}

fn need(floors: &Floors, limit: u16, max_age: u64) -> Need<'_> {
    Need {
        epoch: EPOCH,
        secret: 1,
        serial: 1,
        floor: floors.cells(0, 0).unwrap(),
        limit,
        max_age,
        now: 0,
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
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let (q, floors, out, taken) =
                    (q.clone(), floors.clone(), out.clone(), taken.clone());
                thread::spawn(move || {
                    let mut reader = q.reader(worker).unwrap();
                    for _ in 0..2 {
                        let pin = reader.pin();
                        let need = need(&floors, 2, u64::MAX);
                        let number = out.number(&pin, &need, |e, k| Some(key_for(e, k)));
                        if let Ok(n) = number {
                            assert_eq!(n.key.key[1], n.key.kri as u8);
                            taken.lock().unwrap().push((n.key.kri, n.prseq.get()));
                        }
                    }
                })
            })
            .collect();
        for w in workers {
            w.join().unwrap();
        }
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
        let run = |worker: usize, ages: [u64; 3]| {
            let (q, floors, out, taken) = (q.clone(), floors.clone(), out.clone(), taken.clone());
            move || {
                let mut reader = q.reader(worker).unwrap();
                for max_age in ages {
                    let pin = reader.pin();
                    let need = need(&floors, 8, max_age);
                    let next = out.next(&pin, need.limit, need.max_age, need.now);
                    let number = match next {
                        Some(number) => Ok(number),
                        None => out.number(&pin, &need, |e, k| Some(key_for(e, k))),
                    };
                    if let Ok(n) = number {
                        assert_eq!(n.key.key[1], n.key.kri as u8);
                        taken.lock().unwrap().push((n.key.kri, n.prseq.get()));
                    }
                }
            }
        };
        // To one worker the key seems too old, so it changes it while the other goes on.
        let other = thread::spawn(run(1, [u64::MAX, u64::MAX, u64::MAX]));
        run(0, [u64::MAX, 0, u64::MAX])();
        other.join().unwrap();
        assert!(!taken.lock().unwrap().is_empty());
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
                    if let Ok(n) = out.number(&pin, &need, |e, k| Some(key_for(e, k))) {
                        assert_eq!(n.key.key[1], n.key.kri as u8);
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
                        if window.accept(n).is_ok() {
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
        let wins = Arc::new(AtomicU32::new(0));
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let (q, incoming, wins) = (q.clone(), incoming.clone(), wins.clone());
                thread::spawn(move || {
                    let mut reader = q.reader(worker).unwrap();
                    let pin = reader.pin();
                    let session = key_for(&EPOCH, 0);
                    let found = Found {
                        epoch: EPOCH,
                        kri: 0,
                        session: &session,
                        psntp: 5,
                        now: 1,
                    };
                    let held = incoming.keys(false, &pin).next();
                    let result = match held {
                        Some(held) => held.accept(5, 1),
                        None => incoming.take_in(&found, &pin, |_| true),
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
