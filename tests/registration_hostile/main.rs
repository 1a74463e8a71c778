//! Registration under attack: a running Primary, and others who do everything wrong, on purpose or not.

#[path = "../common/mod.rs"]
mod common;
#[path = "../wirepeer/mod.rs"]
mod wirepeer;

mod bounds;
mod floods;

use common::authority::Authority;
use std::time::Duration;
use time::OffsetDateTime;
use wirepeer::cbor::Cbor;
use wirepeer::conn::{Came, Conn, Door, client_config};
use wirepeer::ends::{
    Secondary, agree, kem_request, kem_response, list_request, list_response, listed,
    register_message, setup_request,
};
use wirepeer::eventually;
use wirepeer::secret::{Suite, X25519, random};
use wirepeer::site::{Primary, Site};

const OURS: &str = "2001:db8:1::/64";
const THEIRS: &str = "2001:db8:2::/64";
const SUITE: Suite = Suite {
    kem: X25519,
    aead: 1,
};
/// Seconds that a handshake and the first message may take, with some to spare.
const OPENING: Duration = Duration::from_secs(8);

fn site() -> Site {
    Site::new(&["peer.example", "gate.example", "stranger.example"])
}

fn start(site: &Site) -> Primary {
    let pairing = format!(
        "    - name: branch\n      peer: peer.example\n      role: server\n      entries: [{{ prefix: \"{OURS}\", group: web }}]\n"
    );
    let secondary = format!("    - {{ name: gate.example, entries: [\"{OURS}\"] }}\n");
    site.start(&pairing, &secondary)
}

/// A connection with which a secret was agreed on.
fn agreed(primary: &Primary) -> (Conn, Vec<u8>) {
    let mut conn = primary.connect("peer.example");
    let (prk, _) = agree(&mut conn, vec![SUITE.cbor()], None, &[]);
    (conn, prk.fingerprint())
}

/// A Secondary that registered and has what it gets.
fn registered(primary: &Primary) -> Conn {
    let mut secondary = Secondary::register(primary.connect("gate.example"), random(), &[OURS]);
    secondary.share();
    secondary.settle();
    secondary.conn
}

/// The message with one thing wrong, in many ways: not what one could still mean by it.
fn mistakes(message: &Cbor) -> Vec<Vec<u8>> {
    let mut wrong = vec![
        [message.encode(), vec![0xf6]].concat(),
        message.encode()[..message.encode().len() - 1].to_vec(),
        message.clone().with("extra", 1).encode(),
        message.clone().changed("type", "nonsense").encode(),
        message.clone().changed("type", Cbor::Uint(1)).encode(),
        Cbor::from(vec![message.clone()]).encode(),
        // In a tag.
        [&[0xc1], &message.encode()[..]].concat(),
    ];
    for (key, value) in message.pairs() {
        wrong.push(message.clone().without(key).encode());
        wrong.push(message.clone().with(key, value.clone()).encode());
        let others = match value {
            Cbor::Uint(_) => vec![Cbor::from("1"), Cbor::Null, Cbor::from(vec![1])],
            Cbor::Bytes(bytes) => vec![
                Cbor::Null,
                Cbor::from("text"),
                Cbor::from(vec![0; 300]),
                Cbor::from(vec![Cbor::from(bytes.clone())]),
            ],
            Cbor::Text(_) => vec![
                Cbor::Uint(0),
                Cbor::from("a\0b"),
                Cbor::from("x".repeat(300).as_str()),
            ],
            Cbor::Array(items) => vec![
                Cbor::Null,
                Cbor::Uint(0),
                Cbor::from(
                    items
                        .iter()
                        .cloned()
                        .cycle()
                        .take(9_000)
                        .collect::<Vec<_>>(),
                ),
            ],
            _ => vec![Cbor::Bool(true)],
        };
        // Who does not confirm sends null.
        let others = others
            .into_iter()
            .filter(|other| !(["confirm", "pms"].contains(&key.as_str()) && *other == Cbor::Null));
        wrong.extend(others.map(|other| message.clone().changed(key, other).encode()));
    }
    wrong
}

#[test]
fn a_message_with_a_mistake_ends_the_connection_unanswered() {
    let site = site();
    let primary = start(&site);
    let mut tried = 0;
    let setup = setup_request(vec![SUITE.cbor()]);
    let list = list_request(1, random::<16>(), &[listed(THEIRS, "", &[1, 2])]);
    let analyze = Cbor::message("analyze")
        .with("version", 1)
        .with("pairing", "branch");
    for (who, message) in [
        ("peer.example", &setup),
        ("peer.example", &list),
        ("gate.example", &register_message(random(), &[OURS])),
        ("stranger.example", &analyze),
    ] {
        for wrong in mistakes(message) {
            let mut conn = primary.connect(who);
            conn.send_bytes(&wrong);
            conn.expect_end();
            tried += 1;
        }
    }
    // After the setup.
    let kem = |conn: &mut Conn| {
        let request = conn.send(&setup);
        let (response, bytes) = conn.message();
        kem_request(
            &request,
            (&response, &bytes),
            None,
            &[listed(THEIRS, "", &[1])],
        )
        .0
    };
    let mut conn = primary.connect("peer.example");
    let mut count = mistakes(&kem(&mut conn)).len();
    let twice = vec![listed(THEIRS, "", &[1]), listed(THEIRS, "", &[2])];
    let lists = [
        Cbor::from(twice),
        Cbor::from(vec![listed(THEIRS, "", &[2, 1])]),
        Cbor::from(vec![listed(THEIRS, "", &[1, 1])]),
        Cbor::from(vec![listed(THEIRS, "", &[1 << 32])]),
        Cbor::from(vec![listed(THEIRS, "", &(0..65).collect::<Vec<_>>())]),
        Cbor::from(vec![listed(THEIRS, "web", &[1])]),
        Cbor::from(vec![listed(THEIRS, "", &[1]).without("group")]),
        Cbor::from(vec![listed(THEIRS, "", &[1]).changed("entry", [129; 17])]),
        Cbor::from(vec![listed(THEIRS, "", &[1]).changed("entry", [1; 17])]),
    ];
    while count > 0 {
        let mut conn = primary.connect("peer.example");
        let kem = kem(&mut conn);
        count -= 1;
        conn.send_bytes(&mistakes(&kem)[count]);
        conn.expect_end();
        tried += 1;
    }
    for list in lists {
        let mut conn = primary.connect("peer.example");
        let kem = kem(&mut conn).changed("entries", list);
        conn.send(&kem);
        conn.expect_end();
        tried += 1;
    }
    // No point of the curve, and one that makes the secret zero.
    for enc in [vec![0; 32], vec![9; 31], vec![4; 65]] {
        let mut conn = primary.connect("peer.example");
        let kem = kem(&mut conn).changed("enc", enc);
        conn.send(&kem);
        conn.expect_end();
        tried += 1;
    }
    assert_eq!(primary.pairing("branch")["secrets"], serde_json::json!([]));
    // Of a Secondary.
    let poll = Cbor::message("poll")
        .with("pairing", "branch")
        .with("master", random::<16>())
        .with("own", [0; 17])
        .with("peer", [0; 17]);
    for message in [
        Cbor::message("ack").with("serial", 1),
        Cbor::message("new-generations"),
        poll,
        Cbor::message("ping").with("number", 1),
    ] {
        for wrong in mistakes(&message) {
            let mut conn = primary.connect("gate.example");
            conn.send(&register_message([1; 16], &[OURS]));
            conn.expect("share");
            conn.send_bytes(&wrong);
            conn.expect_end_after_shares();
            tried += 1;
        }
    }
    eventually("each is counted", || primary.closed("malformed") == tried);
    assert!(tried > 150, "{tried}");
    let warnings = primary.log().matches("WARN").count();
    assert!(warnings < 60, "{warnings} warnings");
    // All of these together are right.
    agreed(&primary);
    registered(&primary);
}

#[test]
fn frames_of_a_wrong_length_end_the_connection() {
    let site = site();
    let primary = start(&site);
    let lengths = [0, (1 << 20) + 1, 1 << 24, u32::MAX];
    for length in lengths {
        let mut conn = primary.connect("peer.example");
        conn.send_raw(&length.to_be_bytes());
        conn.expect_end();
        let mut conn = primary.connect("gate.example");
        conn.send(&register_message([1; 16], &[OURS]));
        conn.expect("share");
        conn.send_raw(&length.to_be_bytes());
        conn.expect_end_after_shares();
    }
    eventually("each is counted", || {
        primary.closed("frame") == 2 * lengths.len() as u64
    });
    // Inside each other without end: refused without a deep stack.
    let mut conn = primary.connect("peer.example");
    conn.send_bytes(&vec![0x81; 1 << 20]);
    conn.expect_end();
    eventually("it is counted", || primary.closed("malformed") == 1);
    registered(&primary);
}

#[test]
fn messages_out_of_order_end_the_connection() {
    let site = site();
    let primary = start(&site);
    let setup = setup_request(vec![SUITE.cbor()]);
    let kem = Cbor::message("kem-request")
        .with("enc", random::<32>())
        .with("salt", random::<32>())
        .with("entries", Vec::<Cbor>::new())
        .with("confirm", Cbor::Null);
    let response = Cbor::message("setup-response")
        .with("suite", SUITE.cbor())
        .with("pk", random::<32>())
        .with("mode", "ibc")
        .with("protection", "clear")
        .with("random", random::<32>());
    let share = Cbor::message("share")
        .with("serial", 1)
        .with("grants", Vec::<Cbor>::new());
    let unasked = list_response(&Cbor::map().with("serial", 77), "ok");
    let ack = |serial: u64| Cbor::message("ack").with("serial", serial);
    let bare = |kind| Cbor::message(kind);
    let mut tried = 0;
    // First of all.
    for message in [
        &kem,
        &kem_response("ok", &[]),
        &response,
        &unasked,
        &share,
        &ack(1),
        &bare("renew"),
        &bare("revoke"),
        &bare("new-generations"),
        &bare("ping").with("number", 1),
        &bare("pong").with("number", 1),
        &bare("refused").with("reason", "revoked"),
    ] {
        for who in ["peer.example", "gate.example"] {
            let mut conn = primary.connect(who);
            conn.send(message);
            conn.expect_end();
            tried += 1;
        }
    }
    // Of a Primary Client, before and after a secret was agreed on.
    let register = register_message(random(), &[OURS]);
    for message in [
        &kem_response("ok", &[]),
        &response,
        &unasked,
        &share,
        &register,
        &bare("renew"),
        &bare("new-generations"),
        &ack(1),
    ] {
        let mut conn = primary.connect("peer.example");
        conn.send(&setup);
        conn.expect("setup-response");
        conn.send(message);
        conn.expect_end();
        tried += 1;
    }
    let (mut conn, _) = agreed(&primary);
    let told = conn.expect("list-request");
    conn.send(&list_response(&told, "ok"));
    conn.send(&kem);
    loop {
        match conn.next(OPENING) {
            Came::End => break,
            Came::Message(list, _) if list.kind() == "list-request" => {}
            other => panic!("expected the end, found {other:?}"),
        }
    }
    tried += 1;
    // Of a Secondary.
    for message in [
        &register,
        &share,
        &setup,
        &kem,
        &unasked,
        &bare("revoke"),
        &bare("renew"),
        &ack(0),
        &ack(1_000),
        &ack(u64::MAX),
    ] {
        let mut conn = registered(&primary);
        conn.send(message);
        conn.expect_end();
        tried += 1;
    }
    eventually("each is counted", || {
        primary.closed("out-of-order") == tried
    });
}

#[test]
fn a_list_that_goes_back_ends_the_connection() {
    let site = site();
    let primary = start(&site);
    let (mut conn, pms) = agreed(&primary);
    let told = conn.expect("list-request");
    conn.send(&list_response(&told, "ok"));
    conn.send(&list_request(10, pms.clone(), &[listed(THEIRS, "", &[5])]));
    loop {
        let (message, _) = conn.message();
        match message.kind() {
            "list-response" => break,
            "list-request" => conn.send(&list_response(&message, "ok")),
            other => panic!("found a {other}"),
        };
    }
    conn.send(&list_request(9, pms, &[listed(THEIRS, "", &[1])]));
    while let Came::Message(message, _) = conn.next(OPENING) {
        assert_eq!(message.kind(), "list-request", "an old list was answered");
    }
    eventually("it is counted", || primary.closed("replayed") == 1);
    let list = primary.pairing("branch")["peer_list"].clone();
    assert_eq!(list[0]["generations"], serde_json::json!([5]));
}

/// Asserts that a connection gets nothing: refused in the handshake, or closed after it.
fn assert_shut(conn: std::io::Result<Conn>, what: &str) {
    let Ok(mut conn) = conn else { return };
    conn.send(&setup_request(vec![SUITE.cbor()]));
    match conn.next(OPENING) {
        Came::End => {}
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn a_wrong_certificate_gets_nothing() {
    let site = site();
    let now = OffsetDateTime::now_utc();
    site.authority.certificate_with("expired", |params| {
        params.subject_alt_names =
            vec![rcgen::SanType::DnsName("peer.example".try_into().unwrap())];
        params.not_before = now - time::Duration::days(2);
        params.not_after = now - time::Duration::days(1);
    });
    site.authority.certificate_with("early", |params| {
        params.subject_alt_names =
            vec![rcgen::SanType::DnsName("peer.example".try_into().unwrap())];
        params.not_before = now + time::Duration::days(1);
        params.not_after = now + time::Duration::days(2);
    });
    site.authority.certificate_with("server-only", |params| {
        params.subject_alt_names =
            vec![rcgen::SanType::DnsName("peer.example".try_into().unwrap())];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    site.authority.certificate_with("nameless", |params| {
        params.subject_alt_names.clear();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "peer.example");
    });
    site.authority.certificate("*.example");
    // Another authority of the same name; the test itself trusts the right one.
    let other = tempfile::tempdir().unwrap();
    Authority::new(other.path()).certificate("peer.example");
    std::fs::copy(site.dir().join("ca.pem"), other.path().join("ca.pem")).unwrap();

    let primary = start(&site);
    let dir = site.dir();
    for name in ["expired", "early", "server-only", "nameless"] {
        assert_shut(primary.connect_from(dir, Some(name)), name);
    }
    assert_shut(
        primary.connect_from(other.path(), Some("peer.example")),
        "another authority",
    );
    assert_shut(primary.connect_from(dir, None), "no certificate");
    let alpn: [&[&[u8]]; 3] = [&[], &[b"h2"], &[b"pdmv2-reg/2"]];
    for alpn in alpn {
        let config = client_config(dir, Some("peer.example"), alpn);
        assert_shut(Conn::try_connect(config, primary.port), "another protocol");
    }
    eventually("each is counted", || primary.closed("handshake") == 9);

    // Right certificates, for something else.
    let list = list_request(1, random::<16>(), &[]);
    let analyze = Cbor::message("analyze")
        .with("version", 1)
        .with("pairing", "branch");
    for (name, message) in [
        ("gate.example", &setup_request(vec![SUITE.cbor()])),
        ("gate.example", &list),
        ("stranger.example", &list),
        ("hq.example", &list),
        ("peer.example", &register_message(random(), &[OURS])),
        ("gate.example", &analyze),
        ("peer.example", &analyze),
    ] {
        let mut conn = primary.connect(name);
        conn.send(message);
        conn.expect_refused("not-allowed");
    }
    if let Ok(mut conn) = primary.connect_from(dir, Some("*.example")) {
        conn.send(&setup_request(vec![SUITE.cbor()]));
        while let Came::Message(message, _) = conn.next(OPENING) {
            assert_eq!(message.kind(), "refused");
        }
    }
    agreed(&primary);
}

/// Where the Primary connects to: it has to be who the configuration names.
#[test]
fn a_wrong_server_is_told_nothing() {
    let site = site();
    let doors = ["stranger.example", "peer.example"].map(|name| Door::open(site.dir(), name));
    let ports = format!(
        "\"127.0.0.1:{}\", \"127.0.0.1:{}\"",
        doors[0].port(),
        doors[1].port()
    );
    let pairing = format!(
        "    - name: branch\n      peer: peer.example\n      role: client\n      connect: [{ports}]\n      entries: [{{ prefix: \"{OURS}\" }}]\n"
    );
    let primary = site.start(&pairing, "");
    if let Ok(mut conn) = doors[0].try_accept() {
        conn.expect_end();
    }
    // It goes on to the next address.
    doors[1].accept().expect("setup-request");
    assert!(
        primary.log().contains("no connection to the peer"),
        "{}",
        primary.log()
    );
}

#[test]
fn a_connection_ends_with_its_certificate_and_nobody_waits_for_it() {
    let site = Site::new(&["peer.example", "gate-2.example"]);
    let pairing = format!(
        "    - name: branch\n      peer: peer.example\n      role: server\n      entries: [{{ prefix: \"{OURS}\", group: web }}]\n"
    );
    let secondaries = format!(
        "    - {{ name: gate.example, entries: [\"{OURS}\"] }}\n    - {{ name: gate-2.example, entries: [\"{OURS}\"] }}\n"
    );
    let primary = site.start(&pairing, &secondaries);
    let ends = OffsetDateTime::now_utc() + time::Duration::seconds(4);
    for name in ["gate.example", "peer.example"] {
        site.authority
            .certificate_with(name, |params| params.not_after = ends);
    }
    let (mut peer, _) = agreed(&primary);
    let mut one = registered(&primary);
    one.expect_end_after_shares();
    while let Came::Message(..) = peer.next(OPENING) {}
    eventually("both are counted", || primary.closed("expired") == 2);
    assert!(primary.pairing("branch")["connected"].is_null());

    // The next Secondary gets to send.
    site.authority.certificate("peer.example");
    let (mut peer, pms) = agreed(&primary);
    let two = Secondary::register(primary.connect("gate-2.example"), random(), &[OURS]);
    let two = two.in_background();
    peer.send(&list_request(1, pms, &[]));
    eventually("it sends", || {
        if let Came::Message(message, _) = peer.next(Duration::from_millis(50))
            && message.kind() == "list-request"
        {
            peer.send(&list_response(&message, "ok"));
        }
        let status = primary.pairing("branch");
        let given = status["own"][0]["secondaries"].as_array().unwrap().clone();
        given
            .iter()
            .any(|g| g["name"] == "gate-2.example" && g["state"] == "sending")
    });
    drop(two());
}
