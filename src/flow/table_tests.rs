use super::super::incoming::Found;
use super::super::memory::Behind;
use super::super::{Access, Epoch, Reader};
use super::*;
use crate::crypto::Aead;
use crate::crypto::SessionKey;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

const TIMEOUT: u64 = 100 << 24;

fn tuple(n: u32) -> FiveTuple {
    let mut src = [0; 16];
    src[..4].copy_from_slice(&n.to_be_bytes());
    FiveTuple {
        src,
        dst: [9; 16],
        sport: 1,
        dport: 2,
        protocol: 6,
    }
}

fn table(capacity: usize) -> FlowTable {
    FlowTable::new(capacity, [1, 2], false).unwrap()
}

/// What a worker does for a packet: find, keep, or make.
fn flow<'p>(t: &'p FlowTable, n: u32, now: u64, pin: &'p Pin<'_>) -> Result<&'p Entry, NoFlow> {
    let tuple = tuple(n);
    let hash = t.hasher().hash(&tuple);
    match t.find(hash, &tuple, pin) {
        Some(e) if FlowTable::keep(e, now) => Ok(e),
        Some(_) => Err(NoFlow::Contended),
        None => t.insert(hash, &tuple, 0, now, 0, pin),
    }
}

fn age(t: &FlowTable, ageing: &mut Ageing<'_>, q: &mut Reader<'_>, now: u64) {
    let pin = q.pin();
    ageing.step(&pin, now, TIMEOUT, t.capacity());
}

/// Ages, `batch` entries a step and a tick of time each, for as long as others are `busy`.
fn age_meanwhile(
    ageing: &mut Ageing<'_>,
    reader: &mut Reader<'_>,
    batch: usize,
    busy: impl Fn() -> bool,
) {
    let mut now = 0;
    while busy() {
        now += 1u64 << 24;
        let pin = reader.pin();
        ageing.step(&pin, now, 5 << 24, batch);
    }
}

#[test]
fn holds_its_capacity_and_then_says_full() {
    let t = table(1_024);
    let q = Quiescence::new(1);
    let mut r = q.reader(0).unwrap();
    let pin = r.pin();
    for n in 0..1_024 {
        assert_eq!(*flow(&t, n, 1, &pin).unwrap().tuple(), tuple(n));
    }
    assert_eq!(flow(&t, 5_000, 1, &pin).err(), Some(NoFlow::Full));
    assert!(flow(&t, 77, 1, &pin).is_ok());
    assert_eq!(t.len(), 1_024);
    let mut seen = 0;
    let mut at = Some(0);
    while let Some(from) = at {
        at = t.visit(&pin, from, 100, |_| seen += 1);
    }
    assert_eq!(seen, 1_024);
}

#[test]
fn idle_flows_go_and_their_room_is_used_again() {
    let t = table(64);
    let q = Quiescence::new(2);
    let mut worker = q.reader(0).unwrap();
    let mut manager = q.reader(1).unwrap();
    let mut ageing = Ageing::new(&t);
    for n in 0..64 {
        flow(&t, n, 0, &worker.pin()).unwrap();
    }
    let later = TIMEOUT + (2 << 24);
    flow(&t, 3, later, &worker.pin()).unwrap();
    age(&t, &mut ageing, &mut manager, later);
    flow(&t, 4, later, &worker.pin()).unwrap();
    for _ in 0..4 {
        worker.pin();
        age(&t, &mut ageing, &mut manager, later);
    }
    assert_eq!(t.len(), 2, "3 was in use, 4 was brought back while dying");
    let pin = worker.pin();
    assert!(flow(&t, 100, later, &pin).is_ok());
}

#[test]
fn an_entry_in_a_workers_hands_is_not_reused() {
    let t = table(1);
    let q = Quiescence::new(2);
    let mut worker = q.reader(0).unwrap();
    let mut manager = q.reader(1).unwrap();
    let mut ageing = Ageing::new(&t);
    flow(&t, 1, 0, &worker.pin()).unwrap();
    let later = 2 * TIMEOUT;
    age(&t, &mut ageing, &mut manager, later);
    {
        let pin = worker.pin();
        let hash = t.hasher().hash(&tuple(1));
        assert!(
            t.find(hash, &tuple(1), &pin).is_some(),
            "dying, still there"
        );
        for _ in 0..5 {
            age(&t, &mut ageing, &mut manager, later);
        }
        // It left the index meanwhile, but this burst may still hold it.
        assert_eq!(t.len(), 1);
    }
    worker.pin();
    for _ in 0..3 {
        age(&t, &mut ageing, &mut manager, later);
        worker.rest();
    }
    assert_eq!(t.len(), 0);
}

#[test]
fn what_an_evicted_flow_accepted_is_not_accepted_again() {
    let t = table(8);
    let q = Quiescence::new(2);
    let mut worker = q.reader(0).unwrap();
    let mut manager = q.reader(1).unwrap();
    let mut ageing = Ageing::new(&t);
    let epoch = Epoch {
        pms_serial: 1,
        src_generation: 1,
        dst_generation: 1,
    };
    let hash = {
        let pin = worker.pin();
        let e = flow(&t, 1, 0, &pin).unwrap();
        let session = SessionKey::new(&[1; 32], &[0; 12]);
        for psntp in [50, 54, 52] {
            let found = Found {
                access: Access::shared(),
                aead: Aead::Aes128Gcm,
                epoch,
                kri: 2,
                session: &session,
                psntp,
                after: None,
                now: 0,
            };
            e.incoming
                .take_in(&found, &pin, &t.places, |_| true)
                .unwrap();
        }
        t.hasher().hash(e.tuple())
    };
    worker.rest();
    for _ in 0..5 {
        age(&t, &mut ageing, &mut manager, 2 * TIMEOUT);
    }
    assert!(t.is_empty());
    assert_eq!(t.memory.beyond(hash, &epoch, 2, 54), Err(Behind));
    assert_eq!(t.memory.beyond(hash, &epoch, 2, 53), Err(Behind));
    assert_eq!(t.memory.beyond(hash, &epoch, 2, 55), Ok(Some(54)));
}

#[test]
fn an_entry_given_back_after_it_aged_is_freed_once() {
    let t = table(8);
    let q = Quiescence::new(2);
    let mut worker = q.reader(0).unwrap();
    let mut manager = q.reader(1).unwrap();
    let mut ageing = Ageing::new(&t);
    {
        let pin = worker.pin();
        let entry = flow(&t, 1, 0, &pin).unwrap();
        let number = t.entries.iter().position(|e| std::ptr::eq(e, entry));
        age(&t, &mut ageing, &mut manager, 2 * TIMEOUT);
        assert_eq!(entry.life(), life::DYING);
        t.give_back(number.unwrap() as u32, entry);
    }
    worker.rest();
    for _ in 0..5 {
        age(&t, &mut ageing, &mut manager, 2 * TIMEOUT);
    }
    assert!(t.is_empty());
    let pin = worker.pin();
    let flows: Vec<_> = (0..8).map(|n| flow(&t, n, 0, &pin).unwrap()).collect();
    for (n, one) in flows.iter().enumerate() {
        assert!(flows[..n].iter().all(|other| !std::ptr::eq(*one, *other)));
    }
}

#[test]
fn places_of_flows_that_age_out_come_back() {
    const EPOCH: Epoch = Epoch {
        pms_serial: 1,
        src_generation: 1,
        dst_generation: 1,
    };
    let t = table(8);
    let q = Quiescence::new(2);
    let mut worker = q.reader(0).unwrap();
    let mut manager = q.reader(1).unwrap();
    let mut ageing = Ageing::new(&t);
    // More in all than the pool has.
    for round in 0..10u32 {
        let now = u64::from(round) * 3 * TIMEOUT;
        for n in 0..8 {
            for kri in 0..3 {
                let pin = worker.pin();
                let e = flow(&t, 8 * round + n, now, &pin).unwrap();
                let session = SessionKey::new(&[n as u8; 32], &[0; 12]);
                let found = Found {
                    access: Access::shared(),
                    aead: Aead::Aes128Gcm,
                    epoch: EPOCH,
                    kri,
                    session: &session,
                    psntp: kri as u16,
                    after: None,
                    now,
                };
                let taken = e.incoming.take_in(&found, &pin, &t.places, |_| true);
                assert_eq!(taken, Ok(()));
            }
        }
        assert_eq!((t.len(), t.places.in_use()), (8, 16));
        worker.rest();
        for _ in 0..5 {
            age(&t, &mut ageing, &mut manager, now + 2 * TIMEOUT);
        }
        assert_eq!((t.len(), t.places.in_use()), (0, 0));
    }
}

#[test]
fn capacities_out_of_range_are_refused() {
    assert!(matches!(
        FlowTable::new(0, [0, 0], false),
        Err(TableError::Capacity(0))
    ));
}

/// Threads that create, use and age the same few tuples: at any time a tuple has one entry, so a counter kept in the entry
/// (here PSNTP) never shows one number twice while the flow lasts, and never reads another tuple's entry.
#[test]
fn threads_share_one_entry_a_tuple() {
    const WORKERS: usize = 3;
    let t = table(64);
    let q = Quiescence::new(WORKERS + 1);
    let made = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let numbers = std::sync::Mutex::new(HashMap::<(u32, u32), usize>::new());
    std::thread::scope(|s| {
        for w in 0..WORKERS {
            let (t, q, done, numbers, made) = (&t, &q, &done, &numbers, &made);
            s.spawn(move || {
                let mut reader = q.reader(w).unwrap();
                let mut mine = Vec::new();
                for i in 0..60_000u32 {
                    let pin = reader.pin();
                    let n = (i / 7) % 40;
                    let now = u64::from(i) << 24;
                    let tuple = tuple(n);
                    let hash = t.hasher().hash(&tuple);
                    let entry = match t.find(hash, &tuple, &pin) {
                        Some(e) if FlowTable::keep(e, now) => e,
                        Some(_) => continue,
                        None => {
                            // Each entry ever made is told apart by its `since`.
                            let id = made.fetch_add(1, Ordering::Relaxed) as u32;
                            match t.insert(hash, &tuple, 0, now, id, &pin) {
                                Ok(e) => e,
                                Err(_) => continue,
                            }
                        }
                    };
                    assert_eq!(*entry.tuple(), tuple);
                    let (_, psntp) = entry.outgoing.number_in_clear(Access::shared());
                    mine.push((entry.since(), u32::from(psntp)));
                }
                drop(reader);
                let mut numbers = numbers.lock().unwrap();
                for key in mine {
                    *numbers.entry(key).or_default() += 1;
                }
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        s.spawn(|| {
            let mut reader = q.reader(WORKERS).unwrap();
            let mut ageing = Ageing::new(&t);
            age_meanwhile(&mut ageing, &mut reader, 64, || {
                done.load(Ordering::Relaxed) < WORKERS
            });
        });
    });
    let numbers = numbers.into_inner().unwrap();
    assert!(
        numbers.values().all(|&times| times == 1),
        "a number came twice"
    );
}

/// Threads that change keys of flows that come and go: whatever key a flow shows is its own, and a place is never in two flows.
#[test]
fn threads_find_a_flows_own_keys_in_its_places() {
    const WORKERS: usize = 3;
    const PACKETS: u32 = 40_000;
    let t = table(16);
    let q = Quiescence::new(WORKERS + 1);
    let done = AtomicUsize::new(0);
    let taken_in = AtomicUsize::new(0);
    std::thread::scope(|s| {
        for w in 0..WORKERS {
            let (t, q, done, taken_in) = (&t, &q, &done, &taken_in);
            s.spawn(move || {
                let mut reader = q.reader(w).unwrap();
                for i in 0..PACKETS {
                    let pin = reader.pin();
                    let n = (i / 5) % 24;
                    let Ok(entry) = flow(t, n, u64::from(i) << 24, &pin) else {
                        continue;
                    };
                    let own = |key: &[u8; 32]| key.iter().all(|b| *b == n as u8);
                    for f in [false, true] {
                        for held in entry.incoming.keys(f, &pin, &t.places) {
                            assert!(own(held.key.session.key()), "of another flow");
                            assert_eq!(held.key.f(), f);
                        }
                    }
                    let session = SessionKey::new(&[n as u8; 32], &[0; 12]);
                    let found = Found {
                        access: Access::shared(),
                        aead: Aead::Aes128Gcm,
                        epoch: Epoch::default(),
                        kri: i,
                        session: &session,
                        psntp: i as u16,
                        after: None,
                        now: 0,
                    };
                    let taken = entry.incoming.take_in(&found, &pin, &t.places, |_| true);
                    taken_in.fetch_add(usize::from(taken.is_ok()), Ordering::Relaxed);
                }
                drop(reader);
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        s.spawn(|| {
            let mut reader = q.reader(WORKERS).unwrap();
            let mut ageing = Ageing::new(&t);
            age_meanwhile(&mut ageing, &mut reader, 16, || {
                done.load(Ordering::Relaxed) < WORKERS
            });
            let far = u64::from(2 * PACKETS) << 24;
            while !t.is_empty() {
                let pin = reader.pin();
                ageing.step(&pin, far, 5 << 24, 16);
            }
        });
    });
    assert!(taken_in.into_inner() > 0);
    assert_eq!(t.places.in_use(), 0);
}
