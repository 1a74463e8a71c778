//! Generations over starts, reloads, changed secrets and what is heard.

use super::*;

fn key(snapshot: &Snapshot, route: &Route, epoch: &Epoch) -> Option<[u8; 32]> {
    let key = snapshot.session_key(route, epoch, &tuple(), 0)?;
    Some(*key.key())
}

#[test]
fn the_first_start_uses_the_configured_generations() {
    let snapshot = build(
        &config(&pairing("a", '1', LISTS)),
        &mut State::in_memory(),
        None,
    );
    let serial = snapshot.pairings[0].pms_serial().expect("sealed");
    let epoch = |src_generation, dst_generation| Epoch {
        pms_serial: serial,
        src_generation,
        dst_generation,
    };
    assert_eq!(snapshot.send_epoch(&client_side(&snapshot)), epoch(4, 7));
    assert_eq!(snapshot.send_epoch(&server_side(&snapshot)), epoch(7, 4));
    // No start before, so no own generation before.
    let expected: Vec<_> = (7..=15).map(|peer| (serial, peer, 4)).collect();
    assert_eq!(epochs(&snapshot, &client_side(&snapshot)), expected);
}

#[test]
fn each_start_raises_and_accepts_the_one_before() {
    let config = config(&pairing("a", '1', LISTS));
    let mut state = State::in_memory();
    drop(build(&config, &mut state, None));
    drop(build(&config, &mut state, None));
    let third = build(&config, &mut state, None);
    let route = client_side(&third);
    assert_eq!(third.send_epoch(&route).src_generation, 6);
    let serial = third.pairings[0].pms_serial().expect("sealed");
    let order: Vec<_> = epochs(&third, &route).into_iter().take(4).collect();
    assert_eq!(
        order,
        [
            (serial, 7, 6),
            (serial, 7, 5),
            // The configured one, which is all that a peer may know that never heard a packet.
            (serial, 7, 4),
            (serial, 8, 6)
        ]
    );
    assert_eq!(epochs(&third, &route).len(), 3 * 9);
}

#[test]
fn what_was_heard_is_looked_for_sent_and_kept() {
    let config = config(&pairing("a", '1', LISTS));
    let mut state = State::in_memory();
    for _ in 0..3 {
        drop(build(&config, &mut state, None));
    }
    let fourth = build(&config, &mut state, None);
    let route = client_side(&fourth);
    let serial = fourth.pairings[0].pms_serial().expect("sealed");
    // Own generation 7 now. The peer is at 9 and still knows of the first start only.
    let heard = Epoch {
        pms_serial: serial,
        src_generation: 9,
        dst_generation: 4,
    };
    assert!(fourth.is_live(route.remote, &heard));
    fourth.heard(&route, &heard);
    assert!(!fourth.is_live(
        route.remote,
        &Epoch {
            src_generation: 8,
            ..heard
        }
    ));
    assert!(!fourth.is_live(
        route.remote,
        &Epoch {
            pms_serial: serial + 1,
            ..heard
        }
    ));
    assert_eq!(
        epochs(&fourth, &route)[..2],
        [(serial, 9, 7), (serial, 9, 4)]
    );
    // Sending follows with the next snapshot only; older news change nothing.
    assert_eq!(fourth.send_epoch(&route).dst_generation, 7);
    fourth.heard(
        &route,
        &Epoch {
            src_generation: 8,
            dst_generation: 1,
            ..heard
        },
    );
    let lessons: Vec<_> = fourth.lessons().collect();
    assert!(state.learn(&lessons).expect("learnt"));
    assert!(!state.learn(&lessons).expect("nothing new"));
    let next = build(&config, &mut state, Some(&fourth));
    assert_eq!(next.pairings[0].pms_serial(), Some(serial));
    assert_eq!(
        next.send_epoch(&route),
        Epoch {
            pms_serial: serial,
            src_generation: 7,
            dst_generation: 9
        }
    );
    assert_eq!(epochs(&next, &route)[..2], [(serial, 9, 7), (serial, 9, 4)]);
    // The cells are shared: what a worker hears under the old snapshot counts in the new one.
    fourth.heard(
        &route,
        &Epoch {
            src_generation: 10,
            dst_generation: 7,
            ..heard
        },
    );
    assert_eq!(
        epochs(&next, &route)[..2],
        [(serial, 10, 7), (serial, 10, 6)]
    );
    // And over a restart: own 8, the peer known at 9 and at the start before.
    state
        .learn(&next.lessons().collect::<Vec<_>>())
        .expect("learnt");
    let restarted = build(&config, &mut state, None);
    let order: Vec<_> = epochs(&restarted, &route)
        .iter()
        .map(|e| (e.1, e.2))
        .take(2)
        .collect();
    assert_eq!(order, [(10, 8), (10, 7)]);
}

#[test]
fn a_peer_that_was_never_heard_is_looked_for_where_the_configuration_says() {
    let mut state = State::in_memory();
    let wrong = LISTS.replace("generation: 7", "generation: 70");
    let first = build(&config(&pairing("a", '1', &wrong)), &mut state, None);
    assert_eq!(epochs(&first, &client_side(&first))[0].1, 70);
    let nothing: Vec<_> = first.lessons().collect();
    assert!(!state.learn(&nothing).expect("nothing to learn"));
    // Corrected, also while running.
    let second = build(&config(&pairing("a", '1', LISTS)), &mut state, Some(&first));
    assert_eq!(epochs(&second, &client_side(&second))[0].1, 7);
}

#[test]
fn nonsense_that_opened_is_not_taken_for_a_start() {
    let mut state = State::in_memory();
    let snapshot = build(&config(&pairing("a", '1', LISTS)), &mut state, None);
    let route = client_side(&snapshot);
    for dst_generation in [5, u32::MAX, 0] {
        let epoch = Epoch {
            dst_generation,
            ..snapshot.send_epoch(&server_side(&snapshot))
        };
        snapshot.heard(&route, &epoch);
    }
    assert!(
        snapshot
            .lessons()
            .all(|lesson| lesson.heard_start.is_none())
    );
}

#[test]
fn an_unchanged_reload_changes_no_key() {
    let config = config(&pairing("a", '1', LISTS));
    let mut state = State::in_memory();
    let first = build(&config, &mut state, None);
    let route = client_side(&first);
    let again = build(&config, &mut state, Some(&first));
    assert_eq!((again.serial, again.era), (2, 0));
    assert_eq!(first.send_epoch(&route), again.send_epoch(&route));
    assert_eq!(first.secret_id(&route), again.secret_id(&route));
    let epoch = first.send_epoch(&route);
    assert_eq!(key(&first, &route, &epoch), key(&again, &route, &epoch));
}

#[test]
fn changed_lists_raise_the_generation_under_the_same_secret() {
    let mut state = State::in_memory();
    let first = build(&config(&pairing("a", '1', LISTS)), &mut state, None);
    let more = LISTS.replace(
        "generation: 4 }",
        "generation: 4 }, { prefix: '2001:db8:1::17/128', generation: 2 }",
    );
    let second = build(&config(&pairing("a", '1', &more)), &mut state, Some(&first));
    assert_eq!(
        first.pairings[0].pms_serial(),
        second.pairings[0].pms_serial()
    );
    let (old, new) = (client_side(&first), client_side(&second));
    assert_ne!(first.secret_id(&old), second.secret_id(&new));
    // The new entry starts where it is configured, the old one is raised.
    assert_eq!(second.send_epoch(&new).src_generation, 2);
    let neighbour = route(&second, "2001:db8:1::18", "2001:db8:2::1");
    assert_eq!(second.send_epoch(&neighbour).src_generation, 5);
    // Back again: never the generation of before.
    let third = build(
        &config(&pairing("a", '1', LISTS)),
        &mut state,
        Some(&second),
    );
    assert_eq!(third.send_epoch(&client_side(&third)).src_generation, 6);
    let fourth = build(&config(&pairing("a", '1', &more)), &mut state, Some(&third));
    assert_eq!(fourth.send_epoch(&client_side(&fourth)).src_generation, 4);
    // The mode and the protection count as lists do.
    let poll = format!("  mode: asymmetric-poll\n{more}");
    let fifth = build(
        &config(&pairing("a", '1', &poll)),
        &mut state,
        Some(&fourth),
    );
    assert_eq!(fifth.send_epoch(&client_side(&fifth)).src_generation, 5);
}

#[test]
fn a_new_secret_leaves_the_old_one_to_open() {
    let mut state = State::in_memory();
    let (one, two, three) = (
        config(&pairing("a", '1', LISTS)),
        config(&pairing("a", '2', LISTS)),
        config(&pairing("a", '3', LISTS)),
    );
    let first = build(&one, &mut state, None);
    let route = client_side(&first);
    let old = first.send_epoch(&route);
    let old_key = key(&first, &route, &old);
    let second = build(&two, &mut state, Some(&first));
    let new = second.send_epoch(&route);
    assert!(new.pms_serial > old.pms_serial);
    assert_eq!((new.src_generation, new.dst_generation), (4, 7));
    assert_eq!(key(&second, &route, &old), old_key);
    assert_ne!(key(&second, &route, &new), old_key);
    let serials: Vec<_> = epochs(&second, &route).iter().map(|e| e.0).collect();
    assert_eq!(serials.len(), 18);
    assert!(serials[..9].iter().all(|s| *s == new.pms_serial));
    assert!(serials[9..].iter().all(|s| *s == old.pms_serial));
    // It stays over a reload that changes nothing, and goes with the next secret.
    let still = build(&two, &mut state, Some(&second));
    assert_eq!(key(&still, &route, &old), old_key);
    let third = build(&three, &mut state, Some(&still));
    assert_eq!(key(&third, &route, &old), None);
    assert!(!third.is_live(route.remote, &old));
    // A secret that comes back is a new one to the workers, with a generation that it never had.
    let back = build(&two, &mut state, Some(&third));
    let again = back.send_epoch(&route);
    assert!(again.pms_serial > third.send_epoch(&route).pms_serial);
    assert_eq!(again.src_generation, 5);
}

#[test]
fn a_renamed_pairing_keeps_its_secret_and_another_suite_drops_it() {
    let mut state = State::in_memory();
    let first = build(&config(&pairing("a", '1', LISTS)), &mut state, None);
    let route = client_side(&first);
    let renamed = build(&config(&pairing("b", '1', LISTS)), &mut state, Some(&first));
    let epoch = renamed.send_epoch(&route);
    assert_eq!(epoch.pms_serial, first.send_epoch(&route).pms_serial);
    assert_eq!(epoch.src_generation, 5);
    assert_eq!(renamed.pairings[0].name, "b");
    let suite = format!("  suite: {{ aead: aes-256-gcm }}\n{LISTS}");
    let other = build(
        &config(&pairing("b", '1', &suite)),
        &mut state,
        Some(&renamed),
    );
    assert_eq!(key(&other, &route, &first.send_epoch(&route)), None);
    assert_eq!(epochs(&other, &route).len(), 9);
}

#[test]
fn a_pairing_that_was_open_for_a_while_is_raised() {
    let mut state = State::in_memory();
    let sealed = config(&pairing("a", '1', LISTS));
    let first = build(&sealed, &mut state, None);
    let clear = build(
        &config(&pairing("a", '1', &format!("  protection: clear\n{LISTS}"))),
        &mut state,
        Some(&first),
    );
    let back = build(&sealed, &mut state, Some(&clear));
    let route = client_side(&back);
    assert_eq!(back.send_epoch(&route).src_generation, 5);
    assert!(back.pairings[0].pms_serial() > first.pairings[0].pms_serial());
}

#[test]
fn a_new_era_raises_everything_once() {
    let config = config(&format!(
        "{}{}",
        pairing("a", '1', LISTS),
        pairing("b", '2', LISTS)
    ));
    let mut state = State::in_memory();
    let first = build(&config, &mut state, None);
    let inputs = Inputs {
        new_era: true,
        ..inputs(Some(&first))
    };
    let second = Snapshot::build(&config, &[], &mut state, inputs).expect("a snapshot");
    assert_eq!(second.era, 1);
    let route = client_side(&second);
    assert_eq!(second.send_epoch(&route).src_generation, 5);
    let other = Route {
        pairing: 1,
        local: 2,
        remote: 3,
        ..route
    };
    assert_eq!(second.send_epoch(&other).src_generation, 5);
    let third = build(&config, &mut state, Some(&second));
    assert_eq!((third.era, third.send_epoch(&route).src_generation), (1, 5));
}

#[test]
fn two_appliances_meet_whatever_they_remember() {
    // Each end restarts at will; after each restart it sends first, and the other must be looking for its epoch.
    let config = config(&pairing("a", '1', LISTS));
    let (mut near, mut far) = (State::in_memory(), State::in_memory());
    let mut client = build(&config, &mut near, None);
    let mut server = build(&config, &mut far, None);
    let route = client_side(&client);
    let back = server_side(&server);
    let generations = |e: Epoch| (e.src_generation, e.dst_generation);
    for round in 0..40u32 {
        let sent = client.send_epoch(&route);
        let found = server
            .receive_epochs(&back)
            .find(|e| generations(*e) == generations(sent))
            .unwrap_or_else(|| panic!("round {round}: {sent:?}"));
        server.heard(&back, &found);
        far.learn(&server.lessons().collect::<Vec<_>>())
            .expect("learnt");
        server = build(&config, &mut far, Some(&server));
        let answer = server.send_epoch(&back);
        let found = client
            .receive_epochs(&route)
            .find(|e| generations(*e) == generations(answer))
            .unwrap_or_else(|| panic!("round {round}: {answer:?}"));
        client.heard(&route, &found);
        near.learn(&client.lessons().collect::<Vec<_>>())
            .expect("learnt");
        client = build(&config, &mut near, Some(&client));
        // Up to 8 restarts without a word, of one end or the other.
        for _ in 0..round % 9 {
            if round % 2 == 0 {
                client = build(&config, &mut near, None);
            } else {
                server = build(&config, &mut far, None);
            }
        }
    }
}

#[test]
fn pairings_with_the_same_secrets_are_refused() {
    // The configuration refuses equal bytes; only a file on the way can bring two pairings to the same ones.
    let text = format!("{}{}", pairing("a", '1', LISTS), pairing("b", '2', LISTS));
    let mut config = config(&text);
    let first = Config::parse(
        &format!("{PORTS}{}", pairing("a", '1', LISTS)),
        Path::new("t"),
    )
    .expect("valid");
    config.pairings[1].pms = first.pairings.into_iter().next().expect("one").pms;
    let error =
        Snapshot::build(&config, &[], &mut State::in_memory(), inputs(None)).expect_err("refused");
    assert!(error.to_string().contains("`a` and `b`"), "{error}");
}
