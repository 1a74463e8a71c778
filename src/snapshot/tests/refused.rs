//! Grants that are not put in force, and what goes on instead.

use super::granted::{Appliance, CLIENT, client, edited};
use super::primary::{Primary, prefix};
use super::*;
use std::sync::Arc;

#[test]
fn a_secret_that_was_replaced_never_seals_again() {
    let mut primary = Primary::new(Mode::TrustedServers);
    let first = client(&primary, 1);
    let mut near = Appliance::new(&[Arc::clone(&first)]);
    primary.renew();
    let both = client(&primary, 1);
    near.next(&[Arc::clone(&both)]);
    // Already a newer one is known.
    let refused = |near: &Appliance| match near.snapshot.refused.as_slice() {
        [GrantError::SecretCameBack { master, .. }] => Some(*master),
        [] => None,
        other => panic!("{other:?}"),
    };
    near.next(&[Arc::clone(&first)]);
    assert_eq!(refused(&near), Some(primary.id(1)));
    assert_eq!(near.snapshot.pairings.len(), 1, "the one before stays");
    let kept = near.serial();
    assert_eq!(near.next(&[Arc::clone(&both)]).refused, []);
    assert_eq!(near.serial(), kept);
    primary.seal_with_newest();
    let sealed = client(&primary, 1);
    near.next(&[Arc::clone(&sealed)]);
    for old in [&first, &both] {
        near.next(&[Arc::clone(old)]);
        assert!(refused(&near).is_some());
        let route = client_side(&near.snapshot);
        assert_eq!(near.snapshot.send_epoch(&route).pms_serial, kept);
    }
    // Nor after the pairing was gone, nor as an older one that nobody had.
    near.next(&[]);
    assert_eq!(near.snapshot.pairings.len(), 0);
    assert_eq!(near.next(&[first]).pairings.len(), 0);
    assert_eq!(refused(&near), Some(primary.id(1)));
    primary.prks.swap(0, 1);
    near.next(&[client(&primary, 1)]);
    assert!(refused(&near).is_some(), "the other way round");
    assert_eq!(near.next(&[sealed]).refused, []);
    assert_eq!(near.serial(), kept);
    let mut other = Primary::new(Mode::TrustedServers);
    other.renew();
    other.renew();
    other.given = 1;
    other.seal_with_newest();
    let mut near = Appliance::new(&[client(&other, 1)]);
    other.given = 2;
    near.next(&[client(&other, 1)]);
    assert_eq!(refused(&near), Some(other.id(1)));
}

#[test]
fn an_older_generation_of_its_own_is_refused() {
    let primary = Primary::new(Mode::TrustedServers);
    let mut near = Appliance::new(&[client(&primary, 4)]);
    near.next(&[client(&primary, 3)]);
    let expected = GrantError::GenerationWentDown {
        pairing: "campus".to_owned(),
        entry: EntryKey {
            role: Role::Client,
            prefix: prefix(CLIENT),
        },
        known: 4,
        found: 3,
    };
    assert_eq!(near.snapshot.refused, [expected]);
    assert_eq!(near.sealing(), Ok((4, 1)));
    // Nor after a while without it.
    near.next(&[]);
    assert_eq!(near.next(&[client(&primary, 3)]).pairings.len(), 0);
    near.next(&[client(&primary, 4)]);
    assert_eq!(near.sealing(), Ok((4, 1)));
    near.next(&[client(&primary, 6)]);
    assert_eq!(near.sealing(), Ok((6, 1)));
}

#[test]
fn what_contradicts_itself_or_others_is_refused_with_its_reason() {
    let primary = Primary::new(Mode::TrustedServers);
    let good = client(&primary, 1);
    let mut near = Appliance::new(&[good]);
    type Edit = fn(&mut Grant);
    let edits: [(Edit, &str); 11] = [
        (|g| g.clients[0].generations = vec![2, 2], "ascend"),
        (
            |g| g.servers[1].prefix = g.servers[0].prefix,
            "listed twice",
        ),
        (|g| g.clients.clear(), "not listed"),
        (|g| g.own.push(g.own[0]), "given twice"),
        (
            |g| {
                g.own.clear();
                g.clients.clear();
                g.servers.clear();
            },
            "nothing is listed",
        ),
        (|g| g.role = Role::Server, "not listed"),
        (|g| g.mode = Mode::Ibc, "mode"),
        (|g| g.masters[0].material.clear(), "mode"),
        (|g| g.protection = Protection::Clear, "nothing is sealed"),
        (|g| g.mode = Mode::NoProtection, "nothing is sealed"),
        (
            |g| {
                let other = client(&Primary::new(Mode::TrustedServers), 1);
                g.masters
                    .extend(Arc::into_inner(other).expect("one").masters);
            },
            "twice",
        ),
    ];
    for (edit, reason) in edits {
        let bad = edited(client(&primary, 1), edit);
        let snapshot = near.next(&[bad]);
        let [error] = snapshot.refused.as_slice() else {
            panic!("{reason}: {:?}", snapshot.refused);
        };
        assert!(error.to_string().contains(reason), "{reason}: {error}");
        assert_eq!(snapshot.pairings.len(), 1, "the one before stays");
    }
    // Two of one name, and two of one secret.
    let snapshot = near.next(&[client(&primary, 1), client(&primary, 1)]);
    assert!(matches!(
        snapshot.refused.as_slice(),
        [GrantError::NameTaken { .. }]
    ));
    let other = edited(client(&primary, 1), |g| g.pairing = "other".to_owned());
    let snapshot = near.next(&[client(&primary, 1), other]);
    assert!(matches!(
        snapshot.refused.as_slice(),
        [GrantError::SecretTaken { .. }]
    ));
    assert_eq!(snapshot.pairings.len(), 1);
    // As many as can be counted.
    let mut open = Primary::new(Mode::NoProtection);
    open.protection = Protection::Clear;
    let many: Vec<_> = (0..=MAX_PAIRINGS)
        .map(|n| edited(client(&open, 1), |g| g.pairing = format!("p{n}")))
        .collect();
    let snapshot = near.next(&many);
    assert_eq!(snapshot.pairings.len(), MAX_PAIRINGS);
    assert!(matches!(
        snapshot.refused.as_slice(),
        [GrantError::TooMany { .. }]
    ));
}

#[test]
fn static_pairings_come_first_and_keep_their_names_and_secrets() {
    let mut state = State::in_memory();
    let fixed = config(&pairing("fixed", '1', LISTS));
    let primary = Primary::new(Mode::TrustedServers);
    let grants = [client(&primary, 1)];
    let snapshot = Snapshot::build(&fixed, &grants, &mut state, inputs(None)).expect("both");
    let names: Vec<_> = snapshot.pairings.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["fixed", "campus"]);
    assert_eq!(
        [false, true],
        [0, 1].map(|at| snapshot.pairings[at].is_registered())
    );
    let route = client_side(&snapshot);
    assert_eq!(route.pairing, 0);
    assert_eq!(snapshot.send_epoch(&route).src_generation, 4);
    let db = super::route(&snapshot, "2001:db8:1::17", "2001:db8:3::1");
    assert_eq!(db.pairing, 1);
    assert_eq!(snapshot.send_epoch(&db).src_generation, 1);
    let fixed_secret = snapshot.pairings[0].fingerprint().expect("sealed");
    let thief = edited(client(&primary, 1), |g| g.masters[0].id = fixed_secret);
    let namesake = edited(client(&primary, 1), |g| g.pairing = "fixed".to_owned());
    let grants = [namesake, thief];
    let next = Snapshot::build(&fixed, &grants, &mut state, inputs(Some(&snapshot))).expect("one");
    assert!(matches!(
        next.refused.as_slice(),
        [GrantError::NameTaken { .. }, GrantError::SecretTaken { .. }]
    ));
    // The reload of the one raises nothing of the other.
    assert_eq!(next.send_epoch(&client_side(&next)).src_generation, 4);
    assert_eq!(next.send_epoch(&db), snapshot.send_epoch(&db));
    assert!(
        next.lessons()
            .all(|lesson| lesson.fingerprint == fixed_secret)
    );
}
