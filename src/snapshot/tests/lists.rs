//! Which pairing and which entries.

use super::*;
use proptest::prelude::*;

/// The definition, word by word: the first pairing that matches, the most specific entries in it, the smaller address as the client.
fn naive(snapshot: &Snapshot, local: u128, remote: u128) -> Option<Route> {
    let best = |pairing: u32, role: Role, address: u128| {
        (0..)
            .zip(snapshot.entries())
            .filter(|(_, entry)| entry.pairing == pairing && entry.role == role)
            .filter(|(_, entry)| (entry.prefix.first()..=entry.prefix.last()).contains(&address))
            .max_by_key(|(_, entry)| entry.prefix.length())
            .map(|(at, _): (u32, _)| at)
    };
    (0..snapshot.pairings.len() as u32).find_map(|pairing| {
        let forth = best(pairing, Role::Client, local).zip(best(pairing, Role::Server, remote));
        let back = best(pairing, Role::Server, local).zip(best(pairing, Role::Client, remote));
        let local_is_client = forth.is_some() && (back.is_none() || local < remote);
        let (local, remote) = if local_is_client { forth } else { back }?;
        Some(Route {
            pairing,
            local,
            remote,
            local_is_client,
        })
    })
}

/// Prefixes of a world of few addresses, so that they nest, touch and reach the ends.
fn prefix() -> impl Strategy<Value = Prefix> {
    let world = prop_oneof![
        Just(0u128),
        Just(u128::MAX),
        (0u128..16).prop_map(|n| n << 124),
        0u128..8
    ];
    (world, prop_oneof![0u8..6, 124u8..=128]).prop_map(|(address, length)| {
        Prefix::holding(address.to_be_bytes(), length).expect("a prefix")
    })
}

fn lists() -> impl Strategy<Value = String> {
    let list = || prop::collection::btree_set(prefix(), 1..6);
    prop::collection::vec((list(), list()), 1..5).prop_map(|pairings| {
        let list = |prefixes: &std::collections::BTreeSet<Prefix>| {
            let entries: Vec<_> = prefixes
                .iter()
                .map(|p| format!("{{ prefix: '{p}' }}"))
                .collect();
            entries.join(", ")
        };
        let mut text = String::new();
        for (at, (clients, servers)) in pairings.iter().enumerate() {
            text += &format!(
                "- name: p{at}\n  mode: no-protection\n  clients: [ {} ]\n  servers: [ {} ]\n",
                list(clients),
                list(servers)
            );
        }
        text
    })
}

proptest! {
    #[test]
    fn resolve_is_the_naive_search(text in lists(), more in prop::collection::vec(any::<u128>(), 4)) {
        let snapshot = build(&config(&text), &mut State::in_memory(), None);
        // Both sides of every border, and some addresses anywhere.
        let mut addresses: Vec<u128> = snapshot.entries().iter()
            .flat_map(|e| [e.prefix.first(), e.prefix.last()])
            .flat_map(|a| [a.wrapping_sub(1), a, a.wrapping_add(1)])
            .chain(more)
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        for &local in &addresses {
            for &remote in &addresses {
                let found = snapshot.resolve(&local.to_be_bytes(), &remote.to_be_bytes());
                prop_assert_eq!(found, naive(&snapshot, local, remote), "{:x} {:x}", local, remote);
                // The other end agrees on who the client is, unless a packet is from and to one address.
                let back = snapshot.resolve(&remote.to_be_bytes(), &local.to_be_bytes());
                prop_assert_eq!(found.is_some(), back.is_some());
                if let (Some(found), Some(back)) = (found, back) && local != remote {
                    prop_assert_eq!(found.pairing, back.pairing);
                    prop_assert_eq!((found.local, found.remote), (back.remote, back.local));
                    prop_assert_ne!(found.local_is_client, back.local_is_client);
                }
            }
        }
    }
}

#[test]
fn the_most_specific_entry_of_the_first_pairing() {
    let text = "- name: first
  mode: no-protection
  clients: [ { prefix: '2001:db8::/32' }, { prefix: '2001:db8:1::17/128' }, { prefix: '2001:db8:1::/64' } ]
  servers: [ { prefix: '2001:db8:2::/64' } ]
- name: second
  mode: no-protection
  clients: [ { prefix: '2001:db8:1::17/128' } ]
  servers: [ { prefix: '2001:db8:2::1/128' }, { prefix: '2001:db8:3::/64' } ]\n";
    let snapshot = build(&config(text), &mut State::in_memory(), None);
    let names = |route: Route| {
        let entry = |at: u32| snapshot.entries()[at as usize].prefix.to_string();
        let name = snapshot.pairing(&route).expect("a pairing").name.clone();
        (
            name,
            entry(route.local),
            entry(route.remote),
            route.local_is_client,
        )
    };
    let expect = |local, remote, name: &str, l: &str, r: &str, client| {
        let found = names(route(&snapshot, local, remote));
        assert_eq!(found, (name.to_owned(), l.to_owned(), r.to_owned(), client));
    };
    expect(
        "2001:db8:1::17",
        "2001:db8:2::1",
        "first",
        "2001:db8:1::17/128",
        "2001:db8:2::/64",
        true,
    );
    expect(
        "2001:db8:2::1",
        "2001:db8:1::18",
        "first",
        "2001:db8:2::/64",
        "2001:db8:1::/64",
        false,
    );
    expect(
        "2001:db8:9::1",
        "2001:db8:2::1",
        "first",
        "2001:db8::/32",
        "2001:db8:2::/64",
        true,
    );
    expect(
        "2001:db8:1::17",
        "2001:db8:3::9",
        "second",
        "2001:db8:1::17/128",
        "2001:db8:3::/64",
        true,
    );
    for (local, remote) in [
        ("2001:db8:1::18", "2001:db8:3::9"),
        ("2001:db8:1::17", "2001:db8:1::18"),
        ("::", "2001:db8:2::1"),
    ] {
        assert_eq!(snapshot.resolve(&address(local), &address(remote)), None);
    }
    assert_eq!(snapshot.pairing_of(0), Some(0));
    assert_eq!(snapshot.pairing_of(4), Some(1));
    assert_eq!(snapshot.pairing_of(99), None);
}

#[test]
fn both_ends_in_both_lists() {
    let text = "- name: mesh
  mode: no-protection
  clients: [ { prefix: '2001:db8::/32' } ]
  servers: [ { prefix: '2001:db8::/32' } ]\n";
    let snapshot = build(&config(text), &mut State::in_memory(), None);
    let smaller = route(&snapshot, "2001:db8::1", "2001:db8::2");
    assert!(smaller.local_is_client);
    assert_eq!((smaller.local, smaller.remote), (0, 1));
    assert!(!route(&snapshot, "2001:db8::2", "2001:db8::1").local_is_client);
    assert_ne!(snapshot.secret_id(&smaller), 0);
}

#[test]
fn no_pairings_match_nothing() {
    let text = "ports: { inside: { device: net_ring0 }, outside: { device: net_ring1 } }\n";
    let config = Config::parse(text, Path::new("test.yaml")).expect("valid");
    let snapshot = build(&config, &mut State::in_memory(), None);
    assert_eq!(snapshot.resolve(&[0; 16], &[0xff; 16]), None);
}

#[test]
fn nothing_sealed_has_no_epochs() {
    for rest in ["  mode: no-protection\n", "  protection: clear\n"] {
        let text = format!("- name: open\n{rest}{LISTS}");
        let snapshot = build(&config(&text), &mut State::in_memory(), None);
        let route = client_side(&snapshot);
        let epoch = snapshot.send_epoch(&route);
        assert_eq!(epoch, Epoch::default());
        assert_eq!(epochs(&snapshot, &route), []);
        assert!(snapshot.session_key(&route, &epoch, &tuple(), 0).is_none());
        assert_eq!(snapshot.lessons().count(), 0);
        assert_eq!(snapshot.pairings[0].fingerprint(), None);
    }
}

#[test]
fn a_route_of_another_snapshot_is_harmless() {
    let snapshot = build(
        &config(&pairing("a", '1', LISTS)),
        &mut State::in_memory(),
        None,
    );
    for place in [1, 2, 99, u32::MAX] {
        let stray = Route {
            pairing: place,
            local: place,
            remote: place,
            local_is_client: true,
        };
        let epoch = snapshot.send_epoch(&stray);
        assert_eq!(epoch, Epoch::default());
        snapshot.heard(&stray, &epoch);
        assert_eq!(epochs(&snapshot, &stray), []);
        assert!(snapshot.session_key(&stray, &epoch, &tuple(), 0).is_none());
        let _ = (snapshot.secret_id(&stray), snapshot.is_live(place, &epoch));
    }
}

#[test]
fn the_policy_is_in_cycles() {
    let text = format!(
        "policy: {{ mtu: 1400, malformed: drop, throttle: {{ failures: 9, window: 2s }} }}\nrotation: {{ age: 3s }}\nflows: {{ idle_timeout: 5s }}\n{PORTS}[]\n"
    );
    let config =
        Config::parse(&text.replace("pairings:\n", "pairings: "), Path::new("t")).expect("valid");
    let policy = build(&config, &mut State::in_memory(), None).policy;
    assert_eq!(
        (policy.key_age_cycles, policy.idle_cycles),
        (3 * HZ, 5 * HZ)
    );
    let throttle = Throttle {
        failures: 9,
        window_cycles: 2 * HZ,
    };
    assert_eq!(policy.throttle, Some(throttle));
    assert!(policy.drop_malformed && !policy.drop_failed_open);
    assert_eq!(
        policy.mss(policy.growth(Protection::Sealed)),
        1400 - 60 - 40
    );
    assert_eq!(policy.mss(policy.growth(Protection::Clear)), 1400 - 60 - 24);
}
