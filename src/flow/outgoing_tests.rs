use super::super::floor::Floors;
use super::super::owner::Owner;
use super::super::quiescence::Quiescence;
use super::*;
use std::collections::HashSet;
use std::sync::Mutex;

const EPOCH: Epoch = Epoch {
    pms_serial: 1,
    src_generation: 1,
    dst_generation: 1,
};

/// A key that tells its epoch and Kri, so that tests can see which one a number came with.
fn key_for(epoch: &Epoch, kri: u32) -> SessionKey {
    let mut key = [0; 32];
    key[..4].copy_from_slice(&epoch.src_generation.to_be_bytes());
    key[4..8].copy_from_slice(&kri.to_be_bytes());
    SessionKey::new(&key, &[0; 12])
}

#[test]
fn keys_and_number_begin_lines() {
    use std::mem::offset_of;
    assert_eq!(offset_of!(Outgoing, keys), 64);
    assert_eq!(size_of::<OutKey>(), 64);
    assert_eq!(offset_of!(Outgoing, word), 192);
    assert_eq!(size_of::<Outgoing>(), 352);
}

fn derive(epoch: &Epoch, kri: u32) -> Option<SessionKey> {
    Some(key_for(epoch, kri))
}

fn need(floors: &Floors, epoch: Epoch, limit: u16) -> Need<'_> {
    Need {
        access: Access::alone(),
        aead: Aead::Aes128Gcm,
        epoch,
        secret: 7,
        serial: epoch.src_generation,
        floor: floors
            .cells(0, u64::from(epoch.src_generation) * 0x0000_0003_0000_0005)
            .unwrap(),
        limit: Limit::new(limit),
        max_age: u64::MAX,
        now: 0,
        random: 0x5555_1234,
    }
}

#[test]
fn the_second_half_of_a_key_sees_to_the_next_one_now_and_then() {
    for packets in 1..=MAX_PACKETS_PER_KEY {
        let limit = Limit::new(packets);
        let prepare: Vec<u16> = (0..packets).filter(|n| limit.prepares(*n)).collect();
        assert!(prepare.iter().all(|n| *n >= packets / 2));
        let wanted = if packets < 64 { 1..=32 } else { 32..=64 };
        assert!(
            wanted.contains(&prepare.len()),
            "{packets}: {}",
            prepare.len()
        );
        let mut others = (0..packets).filter(|n| !limit.prepares(*n));
        assert!(others.all(|n| limit.only_counts(n)), "{packets}");
    }
}

#[test]
fn counts_rotates_at_the_limit_and_flips_f() {
    let q = Quiescence::new(1);
    let mut reader = q.reader(0).unwrap();
    let floors = Floors::new(64, false).unwrap();
    let out = Outgoing::new();
    out.reset(100);
    let need = need(&floors, EPOCH, 300);
    let mut seen = HashSet::new();
    for i in 0..3_000u32 {
        let pin = reader.pin();
        let (n, current) = out.number(&pin, &need, derive).unwrap();
        assert_eq!(n.key.kri, i / 300);
        assert_eq!(n.key.f(), (i / 300) % 2 == 1);
        assert_eq!(n.psntp, 101u16.wrapping_add(i as u16));
        assert_eq!(n.is_first_of_key(), i % 300 == 0);
        assert!(current);
        assert!(seen.insert((n.key.kri, n.prseq().get())));
    }
    assert_eq!(out.packets(), 3_000);
}

#[test]
fn a_new_epoch_starts_at_kri_0_and_an_old_snapshot_never_leads_back() {
    let q = Quiescence::new(1);
    let mut reader = q.reader(0).unwrap();
    let floors = Floors::new(64, false).unwrap();
    let out = Outgoing::new();
    let first = need(&floors, EPOCH, 1_000);
    let newer = Epoch {
        src_generation: 2,
        ..EPOCH
    };
    let second = need(&floors, newer, 1_000);
    assert_eq!(
        out.number(&reader.pin(), &first, derive)
            .unwrap()
            .0
            .key
            .epoch,
        EPOCH
    );
    assert_eq!(
        out.number(&reader.pin(), &second, derive)
            .unwrap()
            .0
            .key
            .epoch,
        newer
    );
    let n = reader.pin();
    let (back, current) = out.number(&n, &first, derive).unwrap();
    assert_eq!((back.key.epoch, back.key.kri, current), (newer, 0, false));
}

#[test]
fn each_new_epoch_begins_with_the_next_packet() {
    let q = Quiescence::new(1);
    let mut reader = q.reader(0).unwrap();
    let floors = Floors::new(64, false).unwrap();
    let out = Outgoing::new();
    for generation in 1..9 {
        let epoch = Epoch {
            src_generation: generation,
            ..EPOCH
        };
        for _ in 0..2 {
            let pin = reader.pin();
            let need = need(&floors, epoch, 1_000);
            assert!(out.number(&pin, &need, derive).unwrap().1);
        }
    }
    assert_eq!(out.packets(), 16);
    // Two changes in one burst would overwrite a key that may be in sight.
    let pin = reader.pin();
    let current = [9, 10].map(|generation| {
        let epoch = Epoch {
            src_generation: generation,
            ..EPOCH
        };
        let need = need(&floors, epoch, 1_000);
        out.number(&pin, &need, derive).unwrap().1
    });
    assert_eq!(current, [true, false]);
}

#[test]
fn an_aged_key_and_a_changed_secret_are_replaced() {
    let q = Quiescence::new(1);
    let mut reader = q.reader(0).unwrap();
    let floors = Floors::new(64, false).unwrap();
    let out = Outgoing::new();
    let mut want = Need {
        max_age: 1_000,
        ..need(&floors, EPOCH, 1_000)
    };
    let mut kri_at = |now, secret| {
        want.now = now;
        want.secret = secret;
        let pin = reader.pin();
        out.number(&pin, &want, derive).unwrap().0.key.kri
    };
    assert_eq!(kri_at(5, 7), 0);
    assert_eq!(kri_at(1_004, 7), 0);
    assert_eq!(kri_at(1_005, 7), 1);
    assert_eq!(kri_at(1_006, 8), 2, "same epoch, other secret");
}

#[test]
fn a_flow_that_comes_back_starts_above_all_it_used() {
    let q = Quiescence::new(1);
    let mut reader = q.reader(0).unwrap();
    let floors = Floors::new(64, false).unwrap();
    let need = need(&floors, EPOCH, 256);
    let mut seen = HashSet::new();
    for _ in 0..5 {
        let out = Outgoing::new();
        for _ in 0..600 {
            let pin = reader.pin();
            let (n, _) = out.number(&pin, &need, derive).unwrap();
            assert!(
                seen.insert((n.key.kri, n.prseq().get())),
                "a number came back"
            );
        }
    }
}

#[test]
fn without_a_secret_there_is_no_number() {
    let q = Quiescence::new(1);
    let mut reader = q.reader(0).unwrap();
    let floors = Floors::new(64, false).unwrap();
    let out = Outgoing::new();
    let pin = reader.pin();
    assert_eq!(
        out.number(&pin, &need(&floors, EPOCH, 9), |_, _| None)
            .err(),
        Some(NoNumber)
    );
}

#[test]
fn in_clear_numbers_wrap_and_never_are_0() {
    let out = Outgoing::new();
    for i in 0..70_000u32 {
        let (prseq, psntp) = out.number_in_clear(Access::alone());
        assert_eq!(u32::from(prseq.get()), i % 32_767 + 1);
        assert_eq!(psntp, (i + 1) as u16);
    }
    assert_eq!(out.packets(), 70_000);
}

#[test]
fn a_flow_that_was_in_clear_for_a_while_goes_on_where_its_key_was() {
    let q = Quiescence::new(1);
    let mut reader = q.reader(0).unwrap();
    let floors = Floors::new(64, false).unwrap();
    let out = Outgoing::new();
    let newer = Epoch {
        src_generation: 2,
        ..EPOCH
    };
    let mut seen = HashSet::new();
    for epoch in [EPOCH, newer] {
        for _ in 0..3 {
            let pin = reader.pin();
            let (n, _) = out
                .number(&pin, &need(&floors, epoch, 1_000), derive)
                .unwrap();
            let generation = n.key.epoch.src_generation;
            assert!(seen.insert((generation, n.key.kri, n.prseq().get())));
        }
        out.number_in_clear(Access::alone());
    }
}

/// Real threads on one flow, which is the first one's until another comes, while keys are used up every 300 packets and the epoch changes under way.
#[test]
fn threads_never_share_a_number() {
    const THREADS: usize = 4;
    const BURSTS: usize = 3_000;
    let q = Quiescence::new(THREADS);
    let floors = Floors::new(1 << 10, false).unwrap();
    let out = Outgoing::new();
    let (owner, left) = Owner::fresh();
    let all = Mutex::new(Vec::new());
    let missed = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|s| {
        for worker in 0..THREADS {
            let (q, floors, out, all, missed) = (&q, &floors, &out, &all, &missed);
            let (owner, left) = (&owner, &left);
            s.spawn(move || {
                let mut reader = q.reader(worker).unwrap();
                let mut mine = Vec::new();
                for burst in 0..BURSTS {
                    let epoch = Epoch {
                        src_generation: 1 + (burst / 1_000) as u32,
                        ..EPOCH
                    };
                    let pin = reader.pin();
                    let Some(access) = owner.access(left, &pin) else {
                        missed.fetch_add(16, Ordering::Relaxed);
                        continue;
                    };
                    let need = Need {
                        access,
                        ..need(floors, epoch, 300)
                    };
                    for _ in 0..16 {
                        match out.number(&pin, &need, derive) {
                            Ok((n, _)) => {
                                let (e, k) = (n.key.epoch, n.key.kri);
                                assert_eq!(
                                    n.key.session.key(),
                                    key_for(&e, k).key(),
                                    "key of another chapter"
                                );
                                mine.push((e.src_generation, k, n.prseq().get(), n.psntp));
                            }
                            Err(NoNumber) => {
                                missed.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                }
                reader.rest();
                all.lock().unwrap().extend(mine);
            });
        }
    });
    let all = all.into_inner().unwrap();
    let distinct: HashSet<_> = all.iter().map(|(g, k, p, _)| (g, k, p)).collect();
    assert_eq!(distinct.len(), all.len(), "a (key, nonce) pair came twice");
    assert_eq!(
        all.len() + missed.load(Ordering::Relaxed),
        THREADS * BURSTS * 16
    );
    let psntp: HashSet<u16> = all.iter().map(|t| t.3).collect();
    assert_eq!(psntp.len(), all.len().min(65_536), "PSNTP has no holes");
}
