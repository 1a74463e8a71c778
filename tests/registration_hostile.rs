//! Registration under attack: a running Primary, and others who do everything wrong, on purpose or not.

mod common;
mod wirepeer;

use common::authority::Authority;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use wirepeer::cbor::Cbor;
use wirepeer::conn::{ALPN, Came, Conn, Door, client_config};
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

/// Waits for the end of a TCP connection to which a byte is sent each second.
fn trickle(mut tcp: TcpStream, bytes: &[u8]) -> Duration {
    let since = Instant::now();
    tcp.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    for byte in bytes.iter().cycle() {
        assert!(
            since.elapsed() < Duration::from_secs(20),
            "a slow connection is kept"
        );
        let _ = tcp.write_all(&[*byte]);
        match tcp.read(&mut [0; 100]) {
            Ok(0) => break,
            Ok(_) => {}
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock) => {}
            Err(_) => break,
        }
    }
    since.elapsed()
}

#[test]
fn who_is_slow_is_not_waited_for() {
    let site = site();
    let primary = start(&site);
    let (primary, port) = (&primary, primary.port);
    let tcp = || TcpStream::connect(("127.0.0.1", port)).unwrap();
    // What is no TLS is closed at once; what could become it, after a while.
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 64],
        &[0xff; 4096],
        b"SSH-2.0-x\r\n",
    ] {
        let mut tcp = tcp();
        tcp.write_all(garbage).unwrap();
        tcp.set_read_timeout(Some(OPENING)).unwrap();
        // An alert may come, nothing else of use.
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer);
        assert!(answer.len() < 16, "{answer:02x?}");
    }
    thread::scope(|scope| {
        let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x55; 100]].concat();
        let handshake = scope.spawn(move || trickle(tcp(), &hello));
        let silent = scope.spawn(|| {
            let since = Instant::now();
            primary.connect("gate.example").expect_end();
            since.elapsed()
        });
        let slowly = |mut conn: Conn| {
            let since = Instant::now();
            let message = register_message([1; 16], &[OURS]).encode();
            let frame = [&(message.len() as u32).to_be_bytes()[..], &message].concat();
            for byte in frame {
                conn.send_raw(&[byte]);
                match conn.next(Duration::from_secs(1)) {
                    Came::Nothing => {}
                    Came::Message(share, _) if ["share", "ping"].contains(&share.kind()) => {}
                    Came::End => return since.elapsed(),
                    other => panic!("found {other:?}"),
                }
            }
            panic!("a slow frame was taken");
        };
        let first = scope.spawn(move || slowly(primary.connect("gate.example")));
        let later = scope.spawn(move || slowly(registered(primary)));
        for (what, thread, limit) in [
            ("handshake", handshake, 7),
            ("silence", silent, 7),
            ("first frame", first, 7),
            ("later frame", later, 13),
        ] {
            let took = thread.join().unwrap();
            assert!(took < Duration::from_secs(limit), "{what}: {took:?}");
        }
    });
    assert_eq!(
        (primary.closed("handshake"), primary.closed("frame")),
        (7, 1)
    );
}

/// Lets this process have many descriptors.
#[allow(unsafe_code)]
fn many_descriptors() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls get a valid structure that outlives them.
    let done = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max.min(8_192);
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    };
    assert_eq!(done, 0);
    assert!(limit.rlim_cur >= 2_048, "too few descriptors for an attack");
}

#[test]
fn a_flood_keeps_no_honest_secondary_away() {
    many_descriptors();
    let site = site();
    let primary = start(&site);
    let dir = site.dir();
    let mut half_open = Vec::new();
    let mut silent = Vec::new();
    let tcp = || TcpStream::connect(("127.0.0.1", primary.port)).unwrap();
    let mut slowest = Duration::ZERO;
    let since = Instant::now();
    // Two waves, so that the second comes while the first is being thrown out.
    for _ in 0..2 {
        half_open.extend((0..1_000).map(|_| tcp()));
        let config = client_config(dir, Some("stranger.example"), &[ALPN]);
        silent.extend((0..200).map(|_| Conn::try_connect(config.clone(), primary.port)));
        for _ in 0..3 {
            half_open.extend((0..100).map(|_| tcp()));
            let since = Instant::now();
            let mut secondary =
                Secondary::register(primary.connect("gate.example"), random(), &[OURS]);
            secondary.share();
            slowest = slowest.max(since.elapsed());
        }
    }
    assert!(
        slowest < Duration::from_secs(3),
        "an honest Secondary waited for {slowest:?}"
    );
    eprintln!(
        "flooded for {:?}, honest within {slowest:?}",
        since.elapsed()
    );
    let resident = primary.resident();
    assert!(resident < 200 * 1024, "{resident} KiB");
    drop((half_open, silent));
    let log = primary.log();
    let warnings = log.matches("WARN").count();
    assert!(warnings < 60, "{warnings} warnings\n{log}");
    let closed = primary.registrations()["closed"].clone();
    assert!(closed["half-open"].as_u64() > Some(500), "{closed}");
    registered(&primary);
    primary.process.stop("TERM").success();
}
