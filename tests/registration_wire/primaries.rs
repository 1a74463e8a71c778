//! Primaries: both commands, lists, renewal, and the ends of a pairing; and an analyzer.

use super::*;
use crate::wirepeer::cbor::Cbor;
use crate::wirepeer::conn::{Came, Door};
use crate::wirepeer::ends::{
    self, Terms, agree, agree_again, agree_as_server, entry, exchange, kem_request, kem_response,
    list_request, list_response, listed, setup_request,
};
use crate::wirepeer::eventually;
use crate::wirepeer::secret::{P256, Prk, Psk, Suite, X25519, random, suite};
use crate::wirepeer::site::{Primary, Site};
use std::thread;
use std::time::Duration;

const PSK: Psk = Psk {
    id: "hq and the peer",
    key: [0x5a; 32],
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
const TRUSTED: Terms = Terms {
    suite: DEFAULT,
    mode: "trusted-servers",
    protection: "sealed",
    psk: None,
};
const PEERS: [&str; 4] = [
    "peer-1.example",
    "peer-2.example",
    "peer-3.example",
    "peer-4.example",
];

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
    let (next, _) = agree_again(&mut conn, vec![wanted.cbor()], psk.as_ref(), &list);
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

/// A secret that the other end does not know is given up, although it is not in use yet.
#[test]
fn a_secret_that_the_peer_lost_at_once_is_replaced() {
    let site = Site::new(&["peer-1.example"]);
    let door = Door::open(site.dir(), "peer-1.example");
    let primary = site.start(&as_client("branch", "peer-1.example", &door, ""), "");
    let list = [listed(THEIRS, "web", &[3])];
    let mut conn = door.accept();
    let (lost, _) = agree_as_server(&mut conn, TRUSTED, &list);
    // It may know the secret when it is asked again, but no later.
    for _ in 0..2 {
        let request = conn.expect("list-request");
        assert_eq!(request.get("pms").bytes(), lost.fingerprint());
        conn.send(&list_response(&request, "unknown-pms"));
    }
    let (next, _) = agree_as_server(&mut conn, TRUSTED, &list);
    exchange(&mut conn, &next, 1, &list, || {
        sealing(&primary, "branch", &next)
    });
}

/// Nothing comes between the first messages of a connection, whatever both ends have in store for each other.
#[test]
fn lists_and_wishes_wait_for_the_first_exchange() {
    let site = Site::new(&["peer-1.example", "peer-2.example"]);
    let door = Door::open(site.dir(), "peer-1.example");
    let pairings = as_client("branch", "peer-1.example", &door, "")
        + &as_server("partner", "peer-2.example", "");
    let primary = site.start(&pairings, "");
    let list = [listed(THEIRS, "web", &[3])];
    let mut conn = door.accept();
    let (prk, _) = agree_as_server(&mut conn, TRUSTED, &list);
    exchange(&mut conn, &prk, 1, &list, || {
        sealing(&primary, "branch", &prk)
    });
    drop(conn);
    primary.operate(&["renew", "branch"]).success();
    // A connection from before it was wanted begins with a list.
    let (mut conn, bytes) = loop {
        let mut conn = door.accept();
        let (first, bytes) = conn.message();
        if first.kind() == "setup-request" {
            break (conn, bytes);
        }
    };
    conn.expect_nothing(Duration::from_millis(500));
    conn.send(&ends::offer(TRUSTED, &bytes).1);
    conn.expect("kem-request");
    conn.expect_nothing(Duration::from_millis(500));

    // A client that lost its secret, of which the server still has one, and wants another.
    let list = [listed(OURS, "", &[3])];
    for _ in 0..2 {
        let mut conn = primary.connect("peer-2.example");
        agree(&mut conn, vec![DEFAULT.cbor()], None, &list);
        primary.operate(&["renew", "partner"]).success();
    }
    // One that was revoked meanwhile is told at once.
    primary.operate(&["revoke", "pairing", "partner"]).success();
    let mut conn = primary.connect("peer-2.example");
    conn.send(&setup_request(vec![DEFAULT.cbor()]));
    conn.expect("setup-response");
    conn.expect_refused("revoked");
}

/// A server's first list comes with its answer, and is bound like those that follow.
#[test]
fn a_server_lists_no_more_than_it_may() {
    let site = Site::new(&["peer-1.example"]);
    let door = Door::open(site.dir(), "peer-1.example");
    let may = "      peer_entries: [\"2001:db8:9::/48\"]\n";
    let primary = site.start(&as_client("branch", "peer-1.example", &door, may), "");
    let mut conn = door.accept();
    agree_as_server(&mut conn, TRUSTED, &[listed(THEIRS, "web", &[])]);
    conn.expect_end();
    eventually("it is counted", || primary.closed("not-allowed") == 1);
    let status = primary.pairing("branch");
    assert_eq!(status["secrets"], serde_json::json!([]));
    assert_eq!(status["peer_list"], serde_json::json!([]));
}

/// Whoever lists more than it may is told before the connection ends, and nothing of it counts.
#[test]
fn a_client_lists_no_more_than_it_may() {
    let site = Site::new(&["peer-1.example"]);
    let may = format!("      peer_entries: [\"{THEIRS}\"]\n");
    let primary = site.start(&as_server("partner", "peer-1.example", &may), "");
    let more = [listed(THEIRS, "", &[1]), listed(THEIRS_TOO, "", &[1])];

    let mut conn = primary.connect("peer-1.example");
    let request = conn.send(&setup_request(vec![DEFAULT.cbor()]));
    let (response, bytes) = conn.message();
    let (kem, _) = kem_request(&request, (&response, &bytes), None, &more);
    conn.send(&kem);
    let response = conn.expect("kem-response");
    assert_eq!(response.get("status").text(), "refused");
    assert_eq!(prefixes(response.get("entries")), []);
    conn.expect_end();
    assert_eq!(primary.pairing("partner")["secrets"], serde_json::json!([]));

    let mut conn = primary.connect("peer-1.example");
    let (prk, _) = agree(&mut conn, vec![DEFAULT.cbor()], None, &more[..1]);
    conn.send(&list_request(1, prk.fingerprint(), &more));
    loop {
        let (message, _) = conn.message();
        if message.kind() == "list-response" {
            assert_eq!(message.get("status").text(), "refused");
            break;
        }
    }
    conn.expect_end();
    eventually("both are counted", || primary.closed("not-allowed") == 2);
    let listed = primary.pairing("partner")["peer_list"].clone();
    assert_eq!(listed.as_array().unwrap().len(), 1);
}

/// What was revoked while the peer could not be reached, it is told when it can.
#[test]
fn a_peer_that_was_away_is_told_of_the_end() {
    let site = Site::new(&["peer-1.example"]);
    let door = Door::open(site.dir(), "peer-1.example");
    let primary = site.start(&as_client("branch", "peer-1.example", &door, ""), "");
    let mut conn = door.accept();
    agree_as_server(&mut conn, TRUSTED, &[listed(THEIRS, "web", &[])]);
    eventually("it has a secret", || {
        primary.pairing("branch")["secrets"] != serde_json::json!([])
    });
    drop(conn);
    let revoke = ["revoke", "pairing", "branch"];
    primary.operate(&revoke).success();
    let mut conn = door.accept();
    let request = conn.expect("list-request");
    assert_eq!(*request.get("pms"), Cbor::Null);
    assert_eq!(prefixes(request.get("entries")), []);
    conn.expect("revoke");
    drop(conn);
    // Once told, it is left alone until there is something to agree on.
    assert!(!door.knocks(Duration::from_secs(3)));
    primary
        .operate(&[&revoke[..], &["--undo"]].concat())
        .success();
    door.accept().expect("setup-request");
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

#[test]
fn a_peer_is_connected_while_any_connection_of_its_own_is() {
    let site = Site::new(&["peer-1.example"]);
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
