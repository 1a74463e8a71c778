use super::super::quiescence::{Quiescence, Reader};
use super::*;

const E: Epoch = Epoch {
    pms_serial: 1,
    src_generation: 1,
    dst_generation: 1,
};

fn session(kri: u32) -> SessionKey {
    SessionKey::new(&[kri as u8; 32], &[0; 12])
}

/// Two places.
fn pool() -> Places {
    Places::new(1, false).unwrap()
}

/// Takes a packet in as a worker would: with a held key if there is one, else as found by a search.
fn take(
    i: &Incoming,
    p: &Places,
    r: &mut Reader<'_>,
    epoch: Epoch,
    kri: u32,
    psntp: u16,
) -> Result<(), Refused> {
    let pin = r.pin();
    let held = i
        .keys(kri & 1 == 1, &pin, p)
        .find(|h| h.key.epoch == epoch && h.key.kri == kri);
    if let Some(held) = held {
        assert_eq!(held.key.session.key()[0], kri as u8);
        return held.accept(psntp, u64::from(psntp), Access::shared());
    }
    let session = session(kri);
    let found = Found {
        access: Access::shared(),
        aead: Aead::Aes128Gcm,
        epoch,
        kri,
        session: &session,
        psntp,
        after: None,
        now: u64::from(psntp) << TICK_SHIFT,
    };
    i.take_in(&found, &pin, p, |e| e.src_generation != 9)
}

fn generation(g: u32) -> Epoch {
    Epoch {
        src_generation: g,
        ..E
    }
}

#[test]
fn follows_the_sender_from_key_to_key_and_keeps_the_one_before() {
    let q = Quiescence::new(1);
    let mut r = q.reader(0).unwrap();
    let (i, p) = (Incoming::new(), pool());
    for kri in 0..50u32 {
        let psntp = (kri * 10) as u16;
        assert_eq!(take(&i, &p, &mut r, E, kri, psntp), Ok(()));
        assert_eq!(
            take(&i, &p, &mut r, E, kri, psntp),
            Err(Refused::Replay(Replay::Repeated))
        );
        if kri > 0 {
            assert_eq!(
                take(&i, &p, &mut r, E, kri - 1, psntp - 5),
                Ok(()),
                "late, of the key before"
            );
        }
        if kri > 1 {
            assert_eq!(
                take(&i, &p, &mut r, E, kri - 2, psntp - 15),
                Err(Refused::Behind)
            );
        }
    }
    assert_eq!(p.in_use(), 2, "two that open, and one for the next");
    let pin = r.pin();
    assert_eq!(i.heads(&pin, &p)[0].kri, 49);
    assert_eq!(i.heads(&pin, &p).len(), 1);
}

#[test]
fn an_epoch_only_moves_forward() {
    let q = Quiescence::new(1);
    let mut r = q.reader(0).unwrap();
    let (i, p) = (Incoming::new(), pool());
    let newer = Epoch {
        dst_generation: 2,
        ..E
    };
    assert_eq!(take(&i, &p, &mut r, E, 5, 1), Ok(()));
    assert_eq!(take(&i, &p, &mut r, newer, 0, 2), Ok(()));
    assert_eq!(
        take(&i, &p, &mut r, E, 5, 3),
        Ok(()),
        "the key before still opens"
    );
    assert_eq!(take(&i, &p, &mut r, E, 6, 3), Err(Refused::Behind));
    assert_eq!(
        take(&i, &p, &mut r, Epoch { pms_serial: 2, ..E }, 0, 4),
        Ok(()),
        "under another secret generations start over"
    );
    assert_eq!(
        take(&i, &p, &mut r, newer, 1, 5),
        Err(Refused::Behind),
        "the secret before"
    );
}

#[test]
fn what_was_accepted_before_the_flow_was_forgotten_is_refused_under_the_same_key() {
    let q = Quiescence::new(1);
    let mut r = q.reader(0).unwrap();
    let (i, p) = (Incoming::new(), pool());
    let session = session(2);
    let found = Found {
        access: Access::shared(),
        aead: Aead::Aes128Gcm,
        epoch: E,
        kri: 2,
        session: &session,
        psntp: 5,
        after: Some(0xfffe),
        now: 0,
    };
    assert_eq!(i.take_in(&found, &r.pin(), &p, |_| true), Ok(()));
    for back in 0..1_000u16 {
        let psntp = 0xfffe_u16.wrapping_sub(back);
        assert!(take(&i, &p, &mut r, E, 2, psntp).is_err(), "{psntp}");
    }
    for psntp in [0xffff, 0, 4, 6] {
        assert_eq!(take(&i, &p, &mut r, E, 2, psntp), Ok(()), "{psntp}");
    }
}

#[test]
fn a_sender_that_left_the_lists_goes_on_but_not_back() {
    let q = Quiescence::new(1);
    let mut r = q.reader(0).unwrap();
    let (i, p) = (Incoming::new(), pool());
    let gone = generation(9);
    for kri in 3..7 {
        assert_eq!(take(&i, &p, &mut r, gone, kri, kri as u16), Ok(()));
    }
    assert_eq!(take(&i, &p, &mut r, gone, 4, 4), Err(Refused::Behind));
    assert_eq!(i.heads(&r.pin(), &p).len(), 1, "in one track");
}

#[test]
fn two_generations_have_a_track_each_and_a_third_replaces_the_dead_or_the_idle_one() {
    let q = Quiescence::new(1);
    let mut r = q.reader(0).unwrap();
    let (i, p) = (Incoming::new(), Places::new(2, false).unwrap());
    let mut go = |g, kri, psntp| take(&i, &p, &mut r, generation(g), kri, psntp);
    for kri in 0..4 {
        // With both tracks holding two keys there is no spare place, so a key change may take one burst longer.
        for g in [1, 2] {
            let psntp = 10 * kri as u16 + g as u16;
            if go(g, kri, psntp) == Err(Refused::Busy) {
                assert_eq!(go(g, kri, psntp), Ok(()));
            }
        }
    }
    assert_eq!(go(1, 3, 500), Ok(()), "generation 1 is the last one used");
    let _ = go(3, 0, 501);
    assert_eq!(go(3, 0, 502), Ok(()));
    assert_eq!(go(1, 3, 503), Ok(()), "its track is still there");
    let _ = go(9, 0, 504);
    assert_eq!(
        go(9, 0, 505),
        Ok(()),
        "takes the place of 3, the one unused for longest"
    );
    let _ = go(4, 0, 506);
    assert_eq!(go(4, 0, 507), Ok(()));
    assert_eq!(go(1, 3, 508), Ok(()), "9 was dead and went first");
    assert_eq!(p.in_use(), 3);
}

#[test]
fn of_an_older_pms_no_new_generation_is_taken() {
    let q = Quiescence::new(1);
    let mut r = q.reader(0).unwrap();
    let (i, p) = (Incoming::new(), pool());
    assert_eq!(
        take(&i, &p, &mut r, Epoch { pms_serial: 2, ..E }, 0, 1),
        Ok(())
    );
    assert_eq!(
        take(&i, &p, &mut r, generation(2), 0, 1),
        Err(Refused::Behind)
    );
}

#[test]
fn threads_that_race_with_copies_of_a_stream_accept_each_packet_once() {
    const THREADS: usize = 3;
    const PACKETS: u32 = 40_000;
    let q = Quiescence::new(THREADS);
    let (i, p) = (Incoming::new(), pool());
    let seen: Vec<AtomicU32> = (0..PACKETS).map(|_| AtomicU32::new(0)).collect();
    let busy = AtomicU32::new(0);
    std::thread::scope(|s| {
        for w in 0..THREADS {
            let (q, i, p, seen, busy) = (&q, &i, &p, &seen, &busy);
            s.spawn(move || {
                let mut r = q.reader(w).unwrap();
                for n in 0..PACKETS {
                    match take(i, p, &mut r, E, n / 500, n as u16) {
                        Ok(()) => {
                            seen[n as usize].fetch_add(1, Ordering::Relaxed);
                        }
                        Err(Refused::Busy) => {
                            busy.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => {}
                    }
                }
                r.rest();
            });
        }
    });
    assert!(
        seen.iter().all(|c| c.load(Ordering::Relaxed) <= 1),
        "accepted twice"
    );
    let accepted = seen
        .iter()
        .filter(|c| c.load(Ordering::Relaxed) == 1)
        .count();
    // On a busy machine a thread that was kept waiting comes with packets that others have left far behind.
    assert!(accepted > PACKETS as usize / 8, "only {accepted}");
}

/// Ends a flow.
fn end(i: &Incoming, p: &Places) {
    // SAFETY: no other thread is here, and flows of these tests use one pool.
    unsafe { i.wipe(p) };
    i.reset();
}

#[test]
fn a_place_is_taken_when_it_is_needed_and_comes_back_without_its_key() {
    let q = Quiescence::new(1);
    let mut r = q.reader(0).unwrap();
    let (i, p) = (Incoming::new(), pool());
    assert_eq!(p.in_use(), 0);
    for (kri, places) in [(1, 0), (2, 1), (3, 2), (4, 2)] {
        assert_eq!(take(&i, &p, &mut r, E, kri, kri as u16), Ok(()));
        assert_eq!(p.in_use(), places);
    }
    end(&i, &p);
    assert_eq!(p.in_use(), 0);
    for place in [&i.own, p.get(0).unwrap(), p.get(1).unwrap()] {
        // SAFETY: as above.
        let key = unsafe { place.key.read() };
        assert_eq!(
            (key.session.key(), key.session.base_nonce()),
            (&[0; 32], &[0; 12])
        );
        assert_ne!(key.kri, 0, "each had been used");
    }
    let pin = r.pin();
    assert!(i.keys(true, &pin, &p).next().is_none());
}

#[test]
fn of_what_another_flow_accepted_in_a_place_nothing_is_left() {
    let q = Quiescence::new(1);
    let mut r = q.reader(0).unwrap();
    let (a, b, p) = (Incoming::new(), Incoming::new(), pool());
    // In its own place, and then in one of the pool.
    for kri in [0, 1] {
        for psntp in 40..90 {
            assert_eq!(take(&a, &p, &mut r, E, kri, psntp), Ok(()));
        }
    }
    end(&a, &p);
    for (flow, kri) in [(&a, 0), (&b, 0), (&b, 1)] {
        for psntp in 40..90 {
            assert_eq!(take(flow, &p, &mut r, E, kri, psntp), Ok(()));
            assert_eq!(
                take(flow, &p, &mut r, E, kri, psntp),
                Err(Refused::Replay(Replay::Repeated))
            );
        }
    }
    assert_eq!(p.in_use(), 1);
}

#[test]
fn without_a_free_place_a_flow_is_busy_and_keeps_what_it_has() {
    let q = Quiescence::new(1);
    let mut r = q.reader(0).unwrap();
    let (a, b, c, p) = (Incoming::new(), Incoming::new(), Incoming::new(), pool());
    for flow in [&a, &b] {
        for kri in [0, 1] {
            assert_eq!(take(flow, &p, &mut r, E, kri, 1 + kri as u16), Ok(()));
        }
    }
    assert_eq!(take(&c, &p, &mut r, E, 0, 1), Ok(()), "its own place");
    for psntp in 1..5 {
        assert_eq!(take(&c, &p, &mut r, E, 1, psntp), Err(Refused::Busy));
        assert_eq!(take(&c, &p, &mut r, E, 0, 10 + psntp), Ok(()));
    }
    // One with a key before the one in use gives that up, and goes on a burst later.
    assert_eq!(take(&b, &p, &mut r, E, 2, 3), Err(Refused::Busy));
    assert_eq!(take(&b, &p, &mut r, E, 1, 4), Ok(()));
    assert_eq!(take(&b, &p, &mut r, E, 2, 5), Ok(()));
    assert_eq!(take(&b, &p, &mut r, E, 1, 6), Ok(()), "late");
    assert_eq!(p.in_use(), 2);
    end(&a, &p);
    assert_eq!(take(&c, &p, &mut r, E, 1, 20), Ok(()));
    assert_eq!(
        take(&c, &p, &mut r, E, 0, 14),
        Err(Refused::Replay(Replay::Repeated))
    );
}

#[test]
fn a_flow_in_the_clear_counts_in_its_own_place() {
    let (a, p) = (Incoming::new(), pool());
    let accept_once = || {
        for number in [1 << 30, (1 << 30) + 1] {
            assert_eq!(a.accept_in_clear(number, Access::shared()), Ok(()));
            assert_eq!(
                a.accept_in_clear(number, Access::shared()),
                Err(Refused::Replay(Replay::Repeated))
            );
        }
    };
    accept_once();
    end(&a, &p);
    accept_once();
    assert_eq!(p.in_use(), 0);
}
