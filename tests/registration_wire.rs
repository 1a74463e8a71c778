//! Registration, byte by byte, by peers that were written apart from the appliance's.

mod common;
mod wirepeer;

use serde_json::Value;
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;
use wirepeer::cbor::Cbor;
use wirepeer::conn::{Came, Door};
use wirepeer::ends::{
    self, Event, Peer, Secondary, Terms, agree, agree_as_server, entry, exchange, generation,
    grant, kem_request, kem_response, list_request, list_response, listed, register_message, seals,
    setup_request,
};
use wirepeer::eventually;
use wirepeer::secret::{P256, Prk, Psk, Suite, X25519, random, suite};
use wirepeer::site::{Primary, Site};

const OURS: &str = "2001:db8:1::/64";
const OURS_TOO: &str = "2001:db8:11::/64";
const THEIRS: &str = "2001:db8:2::/64";
const THEIRS_TOO: &str = "2001:db8:22::/64";

const PSK: Psk = Psk {
    id: "hq and the peer",
    key: [0x5a; 32],
};
const DEFAULT: Suite = Suite {
    kem: X25519,
    aead: 1,
};
/// Pairing, its peer, its suite, and whether there is a PSK.
const EXCHANGES: [(&str, &str, Suite, Option<Psk>); 4] = [
    ("x-base", "peer-1.example", DEFAULT, None),
    (
        "p-base",
        "peer-2.example",
        Suite { kem: P256, aead: 2 },
        None,
    ),
    (
        "x-psk",
        "peer-3.example",
        Suite {
            kem: X25519,
            aead: 3,
        },
        Some(PSK),
    ),
    (
        "p-psk",
        "peer-4.example",
        Suite { kem: P256, aead: 1 },
        Some(PSK),
    ),
];
const PEERS: [&str; 4] = [
    "peer-1.example",
    "peer-2.example",
    "peer-3.example",
    "peer-4.example",
];

/// A pairing in which the Primary under test is the server.
fn as_server(name: &str, peer: &str, extra: &str) -> String {
    format!(
        "    - name: {name}\n      peer: {peer}\n      role: server\n      entries: [{{ prefix: \"{OURS}\", group: web }}, {{ prefix: \"{OURS_TOO}\", group: mail }}]\n{extra}"
    )
}

/// A pairing in which the Primary under test is the client.
fn as_client(name: &str, peer: &str, door: &Door, extra: &str) -> String {
    format!(
        "    - name: {name}\n      peer: {peer}\n      role: client\n      connect: [\"127.0.0.1:{}\"]\n      entries: [{{ prefix: \"{OURS}\" }}, {{ prefix: \"{OURS_TOO}\" }}]\n{extra}",
        door.port()
    )
}

fn sealing(primary: &Primary, pairing: &str, prk: &Prk) -> bool {
    let newest = &primary.pairing(pairing)["secrets"][0];
    newest["id"] == hex::encode(prk.fingerprint()) && newest["sealing"] == true
}

fn assert_same_secret(primary: &Primary, pairing: &str, prk: &Prk) {
    let prk = hex::encode(&prk.bytes);
    eventually("it is in the keylog", || {
        primary.keylog(pairing).last() == Some(&prk)
    });
    assert!(!primary.log().contains(&prk), "a secret is in the log");
}

/// The lists' entries without generations.
fn prefixes(list: &Cbor) -> Vec<(Vec<u8>, String)> {
    let listed = |l: &Cbor| {
        (
            l.get("entry").bytes().to_vec(),
            l.get("group").text().to_owned(),
        )
    };
    list.items().iter().map(listed).collect()
}

#[test]
fn a_client_of_its_own_agrees_with_the_server() {
    let site = Site::new(&PEERS);
    let pairings = EXCHANGES.map(|(name, peer, _, psk)| {
        let psk = psk.map_or(String::new(), |psk| site.psk_yaml(name, &psk));
        as_server(name, peer, &psk)
    });
    let primary = site.start(&pairings.concat(), "");
    thread::scope(|scope| {
        for exchange in EXCHANGES {
            let primary = &primary;
            scope.spawn(move || client_of_its_own(primary, exchange));
        }
    });
    assert_eq!(primary.registrations()["closed"], serde_json::json!({}));
}

fn client_of_its_own(
    primary: &Primary,
    (name, peer, wanted, psk): (&str, &str, Suite, Option<Psk>),
) {
    let mut conn = primary.connect(peer);
    // What it does not know it passes over; of two that it allows, the client's first counts.
    let last = if wanted == DEFAULT {
        (P256, 3)
    } else {
        (X25519, 1)
    };
    let request = setup_request(vec![
        suite(0x7777, 1, 1),
        suite(wanted.kem, 3, wanted.aead),
        suite(wanted.kem, 1, 0xffff),
        wanted.cbor(),
        suite(last.0, 1, last.1),
    ]);
    // The secret is bound to the bytes, here longer than need be, not to what they mean.
    let bytes = request.encode();
    let at = bytes.windows(9).position(|w| w == b"gversion\x01").unwrap() + 8;
    let bytes = [
        &bytes[..at],
        &[0x1b, 0, 0, 0, 0, 0, 0, 0, 1],
        &bytes[at + 1..],
    ]
    .concat();
    conn.send_bytes(&bytes);
    let (response, response_bytes) = conn.message();
    assert_eq!(Suite::read(response.get("suite")), wanted);
    assert_eq!(response.get("mode").text(), "trusted-servers");
    assert_eq!(response.get("protection").text(), "sealed");
    let npk = if wanted.kem == X25519 { 32 } else { 65 };
    assert_eq!(response.get("pk").bytes().len(), npk);

    let mut list = vec![
        listed(THEIRS, "", &[3, 7]),
        listed("2001:db8:99::5/128", "", &[]),
    ];
    let (kem, prk) = kem_request(&bytes, (&response, &response_bytes), psk.as_ref(), &list);
    conn.send(&kem);
    let response = conn.expect("kem-response");
    assert_eq!(response.get("status").text(), "ok");
    let expected = [(OURS, "web"), (OURS_TOO, "mail")];
    let expected =
        expected.map(|(prefix, group)| (entry(prefix).bytes().to_vec(), group.to_owned()));
    assert_eq!(prefixes(response.get("entries")), expected);
    assert_same_secret(primary, name, &prk);

    let theirs = exchange(&mut conn, &prk, 1, &list, || sealing(primary, name, &prk));
    assert_eq!(prefixes(&theirs), expected);
    let status = primary.pairing(name);
    assert!(status["connected"].is_u64());
    assert_eq!(
        status["peer_list"][0]["generations"],
        serde_json::json!([3, 7])
    );
    assert_eq!(conn.ping(7), Vec::<Cbor>::new());

    // A list may change at either end.
    list.push(listed(THEIRS_TOO, "", &[1]));
    conn.send(&list_request(2, prk.fingerprint(), &list));
    let response = conn.expect("list-response");
    assert_eq!(
        (response.get("serial").uint(), response.get("status").text()),
        (2, "ok")
    );
    assert_eq!(
        primary.pairing(name)["peer_list"].as_array().unwrap().len(),
        3
    );
    primary
        .operate(&["lists", "add", name, "2001:db8:111::/64", "--group", "web"])
        .success();
    let request = conn.expect("list-request");
    assert_eq!(prefixes(request.get("entries")).len(), 3);
    conn.send(&list_response(&request, "ok"));
    // One that names another secret is not taken.
    conn.send(&list_request(3, random::<16>(), &list[..1]));
    assert_eq!(
        conn.expect("list-response").get("status").text(),
        "unknown-pms"
    );
    conn.send(&list_request(4, Cbor::Null, &list[..1]));
    assert_eq!(
        conn.expect("list-response").get("status").text(),
        "unknown-pms"
    );
    assert_eq!(
        primary.pairing(name)["peer_list"].as_array().unwrap().len(),
        3
    );

    // The server asks, the client renews.
    primary.operate(&["renew", name]).success();
    conn.expect("renew");
    let (next, _) = agree(&mut conn, vec![wanted.cbor()], psk.as_ref(), &list);
    assert_ne!(next.bytes, prk.bytes);
    assert_same_secret(primary, name, &next);
    exchange(&mut conn, &next, 5, &list, || sealing(primary, name, &next));

    // The client ends it.
    conn.send(&Cbor::message("revoke"));
    conn.expect_end();
    eventually("nothing is left of the pairing", || {
        let status = primary.pairing(name);
        status["secrets"] == serde_json::json!([]) && status["peer_list"] == serde_json::json!([])
    });
}

#[test]
fn a_server_of_its_own_agrees_with_the_client() {
    let site = Site::new(&PEERS);
    let doors = EXCHANGES.map(|(_, peer, ..)| Door::open(site.dir(), peer));
    let pairings = EXCHANGES
        .iter()
        .zip(&doors)
        .map(|((name, peer, _, psk), door)| {
            let psk = psk.map_or(String::new(), |psk| site.psk_yaml(name, &psk));
            as_client(name, peer, door, &psk)
        });
    let pairings: String = pairings.collect();
    let primary = site.start(&pairings, "");
    thread::scope(|scope| {
        for (exchange, door) in EXCHANGES.into_iter().zip(&doors) {
            let primary = &primary;
            scope.spawn(move || server_of_its_own(primary, door, exchange));
        }
    });
    assert_eq!(primary.registrations()["closed"], serde_json::json!({}));
}

fn server_of_its_own(
    primary: &Primary,
    door: &Door,
    (name, _, suite, psk): (&str, &str, Suite, Option<Psk>),
) {
    let terms = Terms {
        suite,
        mode: "trusted-servers",
        protection: "sealed",
        psk,
    };
    let list = [listed(THEIRS, "web", &[9])];
    let mut conn = door.accept();
    let (prk, theirs) = agree_as_server(&mut conn, terms, &list);
    let expected = [OURS, OURS_TOO].map(|prefix| (entry(prefix).bytes().to_vec(), String::new()));
    assert_eq!(prefixes(&theirs), expected);
    let theirs = exchange(&mut conn, &prk, 1, &list, || sealing(primary, name, &prk));
    assert_eq!(prefixes(&theirs), expected);
    assert_same_secret(primary, name, &prk);
    assert_eq!(conn.ping(1 << 40), Vec::<Cbor>::new());

    // The server asks for another.
    conn.send(&Cbor::message("renew"));
    let (second, _) = agree_as_server(&mut conn, terms, &list);
    assert_same_secret(primary, name, &second);
    exchange(&mut conn, &second, 2, &list, || {
        sealing(primary, name, &second)
    });
    // The operator does.
    primary.operate(&["renew", name]).success();
    let (third, _) = agree_as_server(&mut conn, terms, &list);
    exchange(&mut conn, &third, 3, &list, || {
        sealing(primary, name, &third)
    });
    assert_same_secret(primary, name, &third);
    assert_eq!(primary.keylog(name).len(), 3);

    primary
        .operate(&["lists", "remove", name, OURS_TOO])
        .success();
    let request = conn.expect("list-request");
    assert_eq!(prefixes(request.get("entries")), expected[..1]);
    conn.send(&list_response(&request, "ok"));

    // Whoever comes back goes on where it was.
    drop(conn);
    let mut conn = door.accept();
    let request = conn.expect("list-request");
    assert_eq!(request.get("pms").bytes(), third.fingerprint());
    conn.send(&list_response(&request, "ok"));

    primary.operate(&["revoke", "pairing", name]).success();
    conn.expect("revoke");
    conn.expect_end();
    assert_eq!(primary.pairing(name)["secrets"], serde_json::json!([]));
}

/// A peer that lost what was agreed on says so each time. It is not asked without a pause.
#[test]
fn a_peer_that_knows_no_secret_is_not_flooded() {
    let site = Site::new(&["peer-1.example", "peer-2.example"]);
    let door = Door::open(site.dir(), "peer-1.example");
    let pairings = as_client("branch", "peer-1.example", &door, "")
        + &as_server("partner", "peer-2.example", "");
    let primary = site.start(&pairings, "");
    let terms = Terms {
        suite: DEFAULT,
        mode: "trusted-servers",
        protection: "sealed",
        psk: None,
    };
    let mut as_server = door.accept();
    agree_as_server(&mut as_server, terms, &[listed(THEIRS, "web", &[])]);
    let mut as_client = primary.connect("peer-2.example");
    agree(&mut as_client, vec![DEFAULT.cbor()], None, &[]);
    for conn in [&mut as_server, &mut as_client] {
        let until = std::time::Instant::now() + Duration::from_secs(2);
        let mut requests = 0;
        while let Came::Message(message, _) =
            conn.next(until.saturating_duration_since(std::time::Instant::now()))
        {
            if message.kind() == "list-request" {
                requests += 1;
                conn.send(&list_response(&message, "unknown-pms"));
            }
        }
        assert!((1..=20).contains(&requests), "{requests} requests in 2 s");
    }
}

#[test]
fn without_a_common_suite_both_ends_say_so() {
    let site = Site::new(&["peer-1.example", "peer-2.example"]);
    let door = Door::open(site.dir(), "peer-2.example");
    let suites = "      suites: [{ kem: p-256, aead: aes-256-gcm }]\n";
    let pairings = as_server("partner", "peer-1.example", suites)
        + &as_client("branch", "peer-2.example", &door, suites);
    let primary = site.start(&pairings, "");

    let mut conn = primary.connect("peer-1.example");
    conn.send(&setup_request(vec![DEFAULT.cbor(), suite(P256, 1, 1)]));
    conn.expect_refused("no-common-suite");

    let mut conn = door.accept();
    let (request, bytes) = conn.message();
    let offered = request.get("suites").items();
    assert_eq!(offered, [suite(P256, 1, 2)]);
    let terms = Terms {
        suite: DEFAULT,
        mode: "ibc",
        protection: "sealed",
        psk: None,
    };
    conn.send(&ends::offer(terms, &bytes).1);
    conn.expect_refused("no-common-suite");

    eventually("both are counted", || {
        primary.closed("nothing-in-common") == 2
    });
    let log = primary.log();
    for word in ["0x0020/0x0001/0x0001", "0x0010/0x0001/0x0001"] {
        let line = log
            .lines()
            .find(|line| line.contains("no suite in common") && line.contains(word));
        assert!(
            line.is_some_and(|line| line.contains("0x0010/0x0001/0x0002")),
            "{log}"
        );
    }

    let mut conn = primary.connect("peer-1.example");
    conn.send(&setup_request(vec![suite(P256, 1, 2)]).changed("version", 2));
    conn.expect_refused("version");
    let mut conn = primary.connect("peer-2.example");
    conn.send(&setup_request(vec![suite(P256, 1, 2)]));
    conn.expect_refused("not-allowed");
    for name in ["partner", "branch"] {
        assert_eq!(primary.pairing(name)["secrets"], serde_json::json!([]));
    }
}

#[test]
fn another_psk_is_noticed_by_both_ends() {
    let site = Site::new(&["peer-1.example", "peer-2.example"]);
    let door = Door::open(site.dir(), "peer-2.example");
    let psk = site.psk_yaml("psk", &PSK);
    let pairings = as_server("partner", "peer-1.example", &psk)
        + &as_client("branch", "peer-2.example", &door, &psk);
    let primary = site.start(&pairings, "");

    let other = [
        None,
        Some(Psk {
            key: [1; 32],
            ..PSK
        }),
        Some(Psk {
            id: "another",
            ..PSK
        }),
    ];
    for psk in &other {
        let mut conn = primary.connect("peer-1.example");
        let request = conn.send(&setup_request(vec![DEFAULT.cbor()]));
        let (response, bytes) = conn.message();
        let (kem, _) = kem_request(&request, (&response, &bytes), psk.as_ref(), &[]);
        conn.send(&kem);
        let response = conn.expect("kem-response");
        assert_eq!(response.get("status").text(), "not-confirmed");
        assert_eq!(response.get("entries").items(), []);
        conn.expect_end();
    }
    eventually("it is counted", || primary.closed("not-confirmed") == 3);

    let mut conn = door.accept();
    let (_, bytes) = conn.message();
    let terms = Terms {
        suite: DEFAULT,
        mode: "ibc",
        protection: "sealed",
        psk: other[1],
    };
    let (offer, response) = ends::offer(terms, &bytes);
    conn.send(&response);
    let kem = conn.expect("kem-request");
    assert_ne!(kem.get("confirm").bytes(), offer.take(&kem).fingerprint());
    conn.send(&kem_response("not-confirmed", &[]));
    conn.expect_end();
    eventually("it is counted", || primary.closed("not-confirmed") == 4);
    assert!(
        primary.log().contains("is `psk` the same at both?"),
        "{}",
        primary.log()
    );
    for name in ["partner", "branch"] {
        assert_eq!(primary.pairing(name)["secrets"], serde_json::json!([]));
    }
    assert_eq!(primary.keylog("partner"), Vec::<String>::new());

    // With the right one it goes on.
    let mut conn = primary.connect("peer-1.example");
    agree(&mut conn, vec![DEFAULT.cbor()], Some(&PSK), &[]);
}

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
fn a_peer_is_connected_while_any_connection_of_its_own_is() {
    let site = small_site();
    let primary = site.start(&as_server("branch", "peer-1.example", ""), "");
    let [old, new] = std::array::from_fn(|_| {
        let mut conn = primary.connect("peer-1.example");
        agree(&mut conn, vec![DEFAULT.cbor()], None, &[]);
        conn
    });
    drop(old);
    thread::sleep(Duration::from_millis(500));
    assert!(primary.pairing("branch")["connected"].is_u64());
    drop(new);
    eventually("nobody is connected", || {
        primary.pairing("branch")["connected"].is_null()
    });
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

#[test]
fn an_analyzer_gets_the_secrets_of_its_pairing_alone() {
    let site = Site::new(&[
        "peer-1.example",
        "peer-2.example",
        "lab.example",
        "gate-1.example",
    ]);
    let pairings = as_server(
        "branch",
        "peer-1.example",
        "      analyzers: [lab.example]\n",
    ) + &as_server("partner", "peer-2.example", "");
    let primary = site.start(&pairings, "");
    let list = vec![listed(THEIRS, "", &[1])];
    let mut conn = primary.connect("peer-1.example");
    let (prk, _) = agree(&mut conn, vec![DEFAULT.cbor()], None, &list);

    let analyze = |name: &str, pairing: &str| {
        let mut conn = primary.connect(name);
        let message = Cbor::message("analyze")
            .with("version", 1)
            .with("pairing", pairing);
        conn.send(&message);
        conn
    };
    let mut conn = analyze("lab.example", "branch");
    let analysis = conn.expect("analysis");
    assert_eq!(analysis.get("pairing").text(), "branch");
    assert_eq!(*analysis.get("clients"), Cbor::from(list));
    let masters = analysis.get("masters").items();
    assert_eq!(masters.len(), 1);
    assert_eq!(masters[0].get("prk").bytes(), prk.bytes);
    conn.expect_end();
    for (name, pairing) in [
        ("lab.example", "partner"),
        ("lab.example", "nobody"),
        ("gate-1.example", "branch"),
        ("peer-1.example", "branch"),
    ] {
        analyze(name, pairing).expect_refused("not-allowed");
    }
    assert!(primary.log().contains("lab.example"));
}
