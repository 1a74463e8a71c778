//! What one authenticated peer may ask of a Primary: connections, answers, patience.

use super::*;
use std::time::Instant;

/// Connections of one certificate.
const CONNECTIONS: usize = 64;
/// Lists that are answered in a second.
const LISTS: u64 = 50;
/// How long a share may stay unacknowledged, with some to spare.
const PATIENCE: Duration = Duration::from_secs(24);

#[test]
fn an_answer_that_nobody_asked_for_ends_the_connection() {
    let site = site();
    let primary = start(&site);
    let pong = Cbor::message("pong").with("number", 0);
    let mut gate = registered(&primary);
    let mut peer = agreed(&primary).0;
    for (conn, closed) in [(&mut gate, 1), (&mut peer, 2)] {
        conn.send(&pong);
        eventually("closed", || primary.closed("out-of-order") == closed);
    }
    // One that was asked for is welcome, once.
    let mut gate = registered(&primary);
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        assert!(Instant::now() < until, "not asked");
        match gate.next(Duration::from_secs(5)) {
            Came::Message(ping, _) if ping.kind() == "ping" => break,
            Came::Message(share, _) if share.kind() == "share" => {
                let serial = share.get("serial").clone();
                gate.send(&Cbor::message("ack").with("serial", serial));
            }
            other => panic!("expected a ping, found {other:?}"),
        }
    }
    gate.send(&pong);
    assert!(matches!(gate.next(Duration::from_secs(1)), Came::Nothing));
    gate.send(&pong);
    eventually("closed", || primary.closed("out-of-order") == 3);
}

#[test]
fn a_certificate_has_a_bounded_number_of_connections() {
    let site = site();
    let primary = start(&site);
    let one_more = || {
        let mut conn = primary.connect("gate.example");
        // One process, so that the entry's places are enough.
        conn.send(&register_message([1; 16], &[OURS]));
        conn
    };
    let mut all: Vec<Conn> = (0..CONNECTIONS).map(|_| one_more()).collect();
    for conn in &mut all {
        assert!(matches!(conn.next(OPENING), Came::Message(..)));
    }
    let mut more = one_more();
    assert!(matches!(more.next(Duration::from_secs(5)), Came::End));
    assert_eq!(primary.closed("too-many"), 1);
    // Others are no worse off, and a place that is left is free.
    agreed(&primary);
    all.pop();
    eventually("a place", || {
        matches!(one_more().next(Duration::from_secs(5)), Came::Message(..))
    });
}

#[test]
fn who_never_acknowledges_is_not_kept() {
    let site = site();
    let primary = start(&site);
    let began = Instant::now();
    let mut conn = primary.connect("gate.example");
    conn.send(&register_message(random(), &[OURS]));
    loop {
        assert!(began.elapsed() < PATIENCE, "it is still there");
        match conn.next(Duration::from_secs(1)) {
            Came::End => break,
            // Alive it is.
            Came::Nothing => {
                conn.send(&Cbor::message("ping").with("number", 7));
            }
            Came::Message(..) => {}
        }
    }
    assert_eq!(primary.closed("silent"), 1);
}

#[test]
fn lists_are_answered_at_a_bounded_rate() {
    let site = site();
    let primary = start(&site);
    let (mut conn, pms) = agreed(&primary);
    let began = Instant::now();
    let mut answered = 0;
    let mut serial = 0;
    conn.send(&list_request(serial, pms.clone(), &[]));
    while answered < 2 * LISTS + 1 {
        let (message, _) = conn.message();
        match message.kind() {
            "list-response" => {
                answered += 1;
                serial += 1;
                // Another one each time.
                let list = [listed(THEIRS, "", &[serial])];
                conn.send(&list_request(serial, pms.clone(), &list));
            }
            "list-request" => {
                conn.send(&list_response(&message, "ok"));
            }
            other => panic!("a {other} has no place here"),
        }
    }
    // The second that the first of them count in may have begun before they were sent; the next one passes as a whole.
    assert!(
        began.elapsed() > Duration::from_secs(1),
        "{answered} lists in {:?}",
        began.elapsed()
    );
}
