//! Secondaries: what they are given, under which generations, and for how long.

use super::*;
use crate::wirepeer::cbor::Cbor;
use crate::wirepeer::conn::Door;
use crate::wirepeer::ends::{
    Event, Peer, Secondary, Terms, entry, generation, grant, listed, register_message, seals,
};
use crate::wirepeer::eventually;
use crate::wirepeer::secret::{Prk, Suite, random};
use crate::wirepeer::site::{Primary, Site};
use serde_json::Value;
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

/// Pairing, mode, protection, and whether Secondaries ask for the keys of pairs.
const MODES: [(&str, &str, &str, Option<&str>); 6] = [
    ("trusted", "trusted-servers", "sealed", None),
    ("hold", "asymmetric-poll", "sealed", Some("hold")),
    ("ask", "asymmetric-poll", "sealed", Some("ask")),
    ("ibc", "ibc", "sealed", None),
    ("none", "no-protection", "sealed", None),
    ("clear", "trusted-servers", "clear", None),
];

fn key(kind: &str, key: Vec<u8>) -> Cbor {
    Cbor::map().with("kind", kind).with("key", key)
}

/// What protocol section 3 gives a Secondary for `own`; nothing where nothing is sealed.
fn material(
    pairing: &str,
    prk: &Prk,
    server: bool,
    own: &str,
    peers: &[(&str, &str)],
) -> Option<Cbor> {
    let own = entry(own);
    Some(match (pairing, server) {
        ("trusted", true) => key("server", prk.server_secret("web")),
        ("trusted", false) => {
            let groups: BTreeSet<&str> = peers.iter().map(|(_, group)| *group).collect();
            let groups = groups.into_iter().map(|group| {
                let secret = prk.client_secret(group, own);
                Cbor::map().with("group", group).with("key", secret)
            });
            let groups: Vec<Cbor> = groups.collect();
            Cbor::map().with("kind", "client").with("groups", groups)
        }
        ("hold", false) => key("poll-client", prk.poll_client(own)),
        ("hold", true) => {
            let keys = peers.iter().map(|(peer, _)| {
                Cbor::map()
                    .with("peer", entry(peer).bytes())
                    .with("key", prk.pair_device_key(entry(peer), own))
            });
            let keys: Vec<Cbor> = keys.collect();
            Cbor::map().with("kind", "pair-keys").with("keys", keys)
        }
        ("ask", _) => Cbor::map()
            .with("kind", "pair-keys")
            .with("keys", Vec::<Cbor>::new()),
        ("ibc", false) => key("ibc-client", prk.ibc_client(own)),
        ("ibc", true) => key("ibc-server", prk.ibc_server(own)),
        _ => return None,
    })
}

fn poll(pairing: &str, prk: &Prk, own: &str, peer: &str) -> Cbor {
    Cbor::message("poll")
        .with("pairing", pairing)
        .with("master", prk.fingerprint())
        .with("own", entry(own).bytes())
        .with("peer", entry(peer).bytes())
}

const NAMES: [&str; 8] = [
    "trusted.example",
    "hold.example",
    "ask.example",
    "ibc.example",
    "none.example",
    "clear.example",
    "gate-1.example",
    "gate-2.example",
];

fn secondaries() -> String {
    format!(
        "    - {{ name: gate-1.example, entries: [\"{OURS}\"] }}\n    - {{ name: gate-2.example, entries: [\"{OURS_TOO}\", \"{OURS}\"] }}\n"
    )
}

/// Checks all that a Secondary for [`OURS`] is given, where `peer` sets up a pairing of a mode with the Primary.
fn assert_shares(
    primary: &Primary,
    server: bool,
    peers: &[(&str, &str)],
    mut peer: impl FnMut(usize) -> Peer,
) {
    let mut secondary = Secondary::register(primary.connect("gate-1.example"), random(), &[OURS]);
    assert_eq!(secondary.share(), []);
    let mut secrets = Vec::new();
    for (at, (name, mode, protection, _)) in MODES.into_iter().enumerate() {
        let prk = peer(at).agreed();
        // Everybody holds it before anybody seals under it.
        let first = secondary.until(|grants| grant(grants, name).cloned());
        let is_sealed = material(name, &prk, server, OURS, peers).is_some();
        let last = match is_sealed {
            false => first.clone(),
            true => secondary
                .until(|grants| seals(grants, name).then(|| grant(grants, name).cloned().unwrap())),
        };
        for (grant, sealing) in [(&first, false), (&last, true)] {
            assert_eq!(grant.get("mode").text(), mode);
            assert_eq!(grant.get("protection").text(), protection);
            assert_eq!(Suite::read(grant.get("suite")), DEFAULT);
            assert_eq!(
                grant.get("role").text(),
                if server { "server" } else { "client" }
            );
            let (own, others) = match server {
                true => (grant.get("servers"), grant.get("clients")),
                false => (grant.get("clients"), grant.get("servers")),
            };
            let sent: Vec<Cbor> = peers
                .iter()
                .map(|(p, group)| listed(p, group, &[4]))
                .collect();
            assert_eq!(others.sorted(), Cbor::from(sent).sorted());
            let entries = grant.get("own").items();
            assert_eq!(entries.len(), 1);
            assert_eq!(entries[0].get("entry").bytes(), entry(OURS).bytes());
            let generation = entries[0].get("generation");
            let groups = if server { ["web", "mail"] } else { ["", ""] };
            let expected = vec![
                listed(OURS, groups[0], &[generation.uint()]),
                listed(OURS_TOO, groups[1], &[]),
            ];
            assert_eq!(own.sorted(), Cbor::from(expected).sorted());
            let masters = match material(name, &prk, server, OURS, peers) {
                None => vec![],
                Some(material) => vec![
                    Cbor::map()
                        .with("id", prk.fingerprint())
                        .with("sealing", Cbor::Bool(sealing))
                        .with("material", vec![material]),
                ],
            };
            assert_eq!(
                grant.get("masters").sorted(),
                Cbor::from(masters).sorted(),
                "{name}"
            );
        }
        secrets.push(prk);
    }

    // AsymmetricPoll: the key of each pair of its own, and of no other.
    let ask = &secrets[2];
    let device_key = |peer: &str| match server {
        true => ask.pair_device_key(entry(peer), entry(OURS)),
        false => ask.pair_device_key(entry(OURS), entry(peer)),
    };
    secondary.settle();
    for (peer, _) in peers {
        let question = poll("ask", ask, OURS, peer);
        secondary.conn.send(&question);
        let answer = secondary.conn.expect("poll-key");
        for key in ["pairing", "master", "own", "peer"] {
            assert_eq!(answer.get(key), question.get(key));
        }
        assert_eq!(answer.get("key").bytes(), device_key(peer));
    }
    let peer = peers[0].0;
    for not_its_own in [
        poll("ask", ask, OURS_TOO, peer),
        poll("ask", ask, OURS, "2001:db8:777::/64"),
        poll("ask", &secrets[1], OURS, peer),
        poll("hold", ask, OURS, peer),
        poll("nobody", ask, OURS, peer),
        poll("trusted", &secrets[0], OURS, peer),
        poll("ibc", &secrets[3], OURS, peer),
    ] {
        secondary.conn.send(&not_its_own);
        assert_eq!(secondary.conn.ping(1), [], "{not_its_own:?}");
    }
}

#[test]
fn a_server_s_secondary_gets_what_its_mode_gives_and_no_more() {
    let site = Site::new(&NAMES);
    let pairings = MODES.map(|(name, mode, protection, asks)| {
        let asks = asks.map_or(String::new(), |a| format!("      asymmetric_poll: {a}\n"));
        let terms = format!("      mode: {mode}\n      protection: {protection}\n{asks}");
        as_server(name, &format!("{name}.example"), &terms)
    });
    let primary = site.start(&pairings.concat(), &secondaries());
    let peers = [(THEIRS, ""), (THEIRS_TOO, "")];
    assert_shares(&primary, true, &peers, |at| {
        let conn = primary.connect(NAMES[at]);
        let list = peers.iter().map(|(p, group)| listed(p, group, &[4]));
        Peer::client(conn, DEFAULT, list.collect())
    });
}

#[test]
fn a_client_s_secondary_gets_what_its_mode_gives_and_no_more() {
    let site = Site::new(&NAMES);
    let doors: Vec<Door> = NAMES[..6]
        .iter()
        .map(|name| Door::open(site.dir(), name))
        .collect();
    let pairings = MODES.iter().zip(&doors).map(|((name, _, _, asks), door)| {
        let asks = asks.map_or(String::new(), |a| format!("      asymmetric_poll: {a}\n"));
        as_client(name, &format!("{name}.example"), door, &asks)
    });
    let pairings: String = pairings.collect();
    let primary = site.start(&pairings, &secondaries());
    let peers = [
        (THEIRS, "web"),
        (THEIRS_TOO, "mail"),
        ("2001:db8:222::/64", "web"),
    ];
    assert_shares(&primary, false, &peers, |at| {
        let (_, mode, protection, _) = MODES[at];
        let terms = Terms {
            suite: DEFAULT,
            mode,
            protection,
            psk: None,
        };
        let list = peers.iter().map(|(p, group)| listed(p, group, &[4]));
        Peer::server(doors[at].accept(), terms, list.collect())
    });
}

/// A Primary with one peer, and the peer.
fn with_peer(site: &Site) -> (Primary, Peer) {
    let primary = site.start(&as_server("branch", "peer-1.example", ""), &secondaries());
    let conn = primary.connect("peer-1.example");
    let peer = Peer::client(conn, DEFAULT, vec![listed(THEIRS, "", &[1])]);
    (primary, peer)
}

fn small_site() -> Site {
    Site::new(&[
        "peer-1.example",
        "gate-1.example",
        "gate-2.example",
        "stranger.example",
    ])
}

#[test]
fn generations_are_never_given_twice() {
    let site = small_site();
    let (primary, peer) = with_peer(&site);
    peer.agreed();
    let [first, second, third, fourth]: [[u8; 16]; 4] = std::array::from_fn(|_| random());
    let register = |primary: &Primary, name: &str, instance| {
        Secondary::register(primary.connect(name), instance, &[OURS])
    };

    let mut one = register(&primary, "gate-1.example", first);
    let g1 = one.generation("branch", OURS);
    let one = one.in_background();
    let mut two = register(&primary, "gate-2.example", second);
    let g2 = two.generation("branch", OURS);
    assert!(g2 > g1);
    let two = two.in_background();
    // The peer is told of both, as soon as both hold what they need.
    peer.wait(|event| match event {
        Event::List(list) => {
            let generations = list.items()[0].get("generations").items().to_vec();
            (generations == [Cbor::from(g1), Cbor::from(g2)]).then_some(())
        }
        _ => None,
    });
    let sends = |generation| {
        let status = primary.pairing("branch");
        let given = status["own"][0]["secondaries"].as_array().unwrap().clone();
        let sends = |g: &Value| g["generation"] == generation && g["state"] == "sending";
        given.iter().any(sends)
    };
    eventually("both send", || sends(g1) && sends(g2));

    // A connection that breaks is resumed; another process of the same name is another sender.
    drop(one());
    let mut one = register(&primary, "gate-1.example", first);
    assert_eq!(one.generation("branch", OURS), g1);
    drop(one);
    let mut three = register(&primary, "gate-1.example", third);
    let g3 = three.generation("branch", OURS);
    assert!(g3 > g2);
    let three = three.in_background();
    eventually("the third sends", || sends(g3));

    // Healing: the memory is kept, the generation is not.
    let mut three = three();
    three.conn.send(&Cbor::message("new-generations"));
    let g4 = three.until(|grants| generation(grants, "branch", OURS).filter(|g| *g != g3));
    assert!(g4 > g3);
    let three = three.in_background();
    eventually("the third sends anew", || sends(g4));
    drop(three());
    drop(two());

    // Nor after a restart of the Primary.
    primary.process.stop("TERM").success();
    let primary = site.start(&as_server("branch", "peer-1.example", ""), &secondaries());
    let mut two = register(&primary, "gate-2.example", second);
    assert_eq!(two.generation("branch", OURS), g2);
    let mut four = register(&primary, "gate-1.example", fourth);
    assert!(four.generation("branch", OURS) > g4);
}

#[test]
fn a_secondary_gets_only_what_its_certificate_is_allowed() {
    let site = small_site();
    let (primary, peer) = with_peer(&site);
    peer.agreed();
    for (name, entries) in [
        ("gate-1.example", &[OURS_TOO][..]),
        ("gate-1.example", &[OURS, OURS_TOO]),
        ("gate-1.example", &["2001:db8:1::/65"]),
        ("gate-1.example", &["::/0"]),
        ("gate-1.example", &[THEIRS]),
        ("peer-1.example", &[OURS]),
        ("stranger.example", &[OURS]),
    ] {
        let mut conn = primary.connect(name);
        conn.send(&register_message(random(), entries));
        conn.expect_refused("not-allowed");
    }
    let mut conn = primary.connect("gate-1.example");
    conn.send(&register_message(random(), &[OURS]).changed("version", 2));
    conn.expect_refused("version");
    assert_eq!(primary.closed("not-allowed"), 7);

    // Who knows another's instance is not the other.
    let instance = random();
    let mut other = Secondary::register(
        primary.connect("gate-2.example"),
        instance,
        &[OURS, OURS_TOO],
    );
    let generation_of_other = other.generation("branch", OURS);
    let mut thief = Secondary::register(primary.connect("gate-1.example"), instance, &[OURS]);
    let grants = thief.until(|grants| grant(grants, "branch").map(|_| grants.to_vec()));
    assert_eq!(
        generation(&grants, "branch", OURS_TOO),
        None,
        "another's entry"
    );
    assert_ne!(
        generation(&grants, "branch", OURS),
        Some(generation_of_other),
        "another's generation"
    );
}

#[test]
fn a_secondary_that_came_back_is_not_away_when_its_old_connection_ends() {
    let site = small_site();
    let (primary, _peer) = with_peer(&site);
    let instance = random();
    let mut old = Secondary::register(primary.connect("gate-1.example"), instance, &[OURS]);
    old.share();
    let mut new = Secondary::register(primary.connect("gate-1.example"), instance, &[OURS]);
    new.share();
    drop(old);
    let state = || {
        let status = primary.pairing("branch");
        status["own"][0]["secondaries"][0]["state"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    thread::sleep(Duration::from_millis(1_500));
    new.settle();
    assert_ne!(state(), "away");
    drop(new);
    eventually("it is away", || state() == "away");
}

#[test]
fn a_secondary_that_resumes_with_fewer_entries_keeps_no_others() {
    let site = small_site();
    let (primary, peer) = with_peer(&site);
    peer.agreed();
    let instance = random();
    let both = [OURS, OURS_TOO];
    let mut one = Secondary::register(primary.connect("gate-2.example"), instance, &both);
    one.generation("branch", OURS);
    drop(one);
    let mut one = Secondary::register(primary.connect("gate-2.example"), instance, &both[..1]);
    let grants = one.until(|grants| grant(grants, "branch").map(|_| grants.to_vec()));
    assert!(generation(&grants, "branch", OURS).is_some());
    assert_eq!(generation(&grants, "branch", OURS_TOO), None);
}

#[test]
fn a_revoked_secondary_forgets_everything_and_secrets_are_replaced() {
    let site = small_site();
    let (primary, peer) = with_peer(&site);
    let before = peer.agreed();
    let mut one = Secondary::register(primary.connect("gate-1.example"), random(), &[OURS]);
    one.until(|grants| seals(grants, "branch").then_some(()));
    one.settle();
    let two = Secondary::register(primary.connect("gate-2.example"), random(), &[OURS_TOO]);
    let two = two.in_background();
    primary
        .operate(&["revoke", "secondary", "gate-1.example"])
        .success();
    loop {
        let grants = one.share();
        if grants.is_empty() {
            break;
        }
    }
    one.conn.expect_refused("revoked");
    let next = peer.agreed();
    assert_ne!(next, before);
    eventually("the next secret is in use", || {
        sealing(&primary, "branch", &next)
    });
    drop(two());

    let mut conn = primary.connect("gate-1.example");
    conn.send(&register_message(random(), &[OURS]));
    conn.expect_refused("revoked");
    let own = primary.pairing("branch")["own"][0]["secondaries"].clone();
    assert_eq!(own, serde_json::json!([]));

    primary
        .operate(&["revoke", "secondary", "gate-1.example", "--undo"])
        .success();
    let mut conn = Secondary::register(primary.connect("gate-1.example"), random(), &[OURS]);
    assert!(conn.generation("branch", OURS) > 0);
}
