//! Who is slow, who says nothing, and who comes in masses.

use super::*;
use crate::wirepeer::conn::ALPN;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

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
fn a_pairing_without_room_costs_the_others_nothing() {
    let entries: Vec<String> = (0..4_096)
        .map(|n| format!("2001:db8:1:{n:x}::/64"))
        .collect();
    let pairing = |name: &str, entries: &[String]| {
        let listed = entries
            .iter()
            .map(|e| format!("{{ prefix: \"{e}\", group: web }}"));
        let listed = listed.collect::<Vec<_>>().join(", ");
        format!(
            "    - name: {name}\n      peer: {name}.example\n      role: server\n      entries: [{listed}]\n"
        )
    };
    let pairings = pairing("large", &entries) + &pairing("small", &entries[..1]);
    let secondary = format!("    - {{ name: gate.example, entries: {entries:?} }}\n");
    let site = site();
    let primary = site.start(&pairings, &secondary);
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let mut secondary = Secondary::register(primary.connect("gate.example"), random(), &entries);
    eventually("the other pairing has it", || {
        let small = primary.pairing("small");
        small["own"][0]["secondaries"] != serde_json::json!([])
    });
    assert!(primary.log().contains("no generations in this pairing"));
    secondary.share();
    secondary.conn.ping(1);
}

#[test]
fn a_flood_keeps_no_honest_secondary_away() {
    many_descriptors();
    let site = site();
    let primary = start(&site);
    let dir = site.dir();
    let mut half_open = Vec::new();
    let mut silent = Vec::new();
    // Each address gets its half, and no bound of its own.
    let mut addresses = ["127.0.0.1", "127.0.0.2"].into_iter().cycle();
    let mut tcp = || TcpStream::connect((addresses.next().unwrap(), primary.port)).unwrap();
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
    assert!(!log.contains("cannot accept connections"), "{log}");
    let closed = primary.registrations()["closed"].clone();
    assert!(closed["half-open"].as_u64() > Some(500), "{closed}");
    registered(&primary);
    primary.process.stop("TERM").success();
}
