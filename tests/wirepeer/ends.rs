//! What a Primary Client, a Primary Server and a Secondary say, step by step.

use super::SOON;
use super::cbor::Cbor;
use super::conn::{Came, Conn};
use super::secret::{self, Prk, Psk, Suite, random};
use crate::common::oracle::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// `address/length`.
pub fn entry(text: &str) -> Entry {
    let (address, length) = text.split_once('/').unwrap();
    Entry(address.parse().unwrap(), length.parse().unwrap())
}

/// One of a list.
pub fn listed(prefix: &str, group: &str, generations: &[u64]) -> Cbor {
    let generations: Vec<Cbor> = generations.iter().map(|n| Cbor::from(*n)).collect();
    Cbor::map()
        .with("entry", entry(prefix).bytes())
        .with("group", group)
        .with("generations", generations)
}

pub fn setup_request(suites: Vec<Cbor>) -> Cbor {
    Cbor::message("setup-request")
        .with("version", 1)
        .with("suites", suites)
        .with("random", random::<32>())
}

pub fn list_request(serial: u64, pms: impl Into<Cbor>, entries: &[Cbor]) -> Cbor {
    Cbor::message("list-request")
        .with("serial", serial)
        .with("pms", pms)
        .with("entries", entries.to_vec())
}

pub fn list_response(request: &Cbor, status: &str) -> Cbor {
    Cbor::message("list-response")
        .with("serial", request.get("serial").clone())
        .with("status", status)
}

/// A Primary Client's `kem-request` for a response, and the PRK.
pub fn kem_request(
    request: &[u8],
    response: (&Cbor, &[u8]),
    psk: Option<&Psk>,
    entries: &[Cbor],
) -> (Cbor, Prk) {
    let (response, bytes) = response;
    let suite = Suite::read(response.get("suite"));
    let info = secret::info(request, bytes);
    let (enc, pms) = secret::encapsulate(suite, response.get("pk").bytes(), &info, psk);
    let salt = random::<32>();
    let prk = Prk::extract(suite, &salt, &pms);
    let message = Cbor::message("kem-request")
        .with("enc", enc)
        .with("salt", salt)
        .with("entries", entries.to_vec())
        .with("confirm", prk.fingerprint());
    (message, prk)
}

/// Both commands as a client, with nothing between their messages: the first exchange of a connection. Returns the PRK and the server list.
pub fn agree(conn: &mut Conn, suites: Vec<Cbor>, psk: Option<&Psk>, list: &[Cbor]) -> (Prk, Cbor) {
    agree_by(Conn::message, conn, suites, psk, list)
}

/// Both commands as a client again, between lists.
pub fn agree_again(
    conn: &mut Conn,
    suites: Vec<Cbor>,
    psk: Option<&Psk>,
    list: &[Cbor],
) -> (Prk, Cbor) {
    agree_by(besides_lists, conn, suites, psk, list)
}

fn agree_by(
    next: fn(&mut Conn) -> (Cbor, Vec<u8>),
    conn: &mut Conn,
    suites: Vec<Cbor>,
    psk: Option<&Psk>,
    list: &[Cbor],
) -> (Prk, Cbor) {
    let request = conn.send(&setup_request(suites));
    let (response, bytes) = next(conn);
    assert_eq!(response.kind(), "setup-response", "{response:?}");
    let (kem, prk) = kem_request(&request, (&response, &bytes), psk, list);
    conn.send(&kem);
    let (response, _) = next(conn);
    assert_eq!(response.kind(), "kem-response", "{response:?}");
    assert_eq!(response.get("status").text(), "ok");
    (prk, response.get("entries").clone())
}

/// The next message that is no list, which may come at any time once a secret was agreed on; lists are answered.
fn besides_lists(conn: &mut Conn) -> (Cbor, Vec<u8>) {
    loop {
        let (message, bytes) = conn.message();
        if message.kind() != "list-request" {
            return (message, bytes);
        }
        conn.send(&list_response(&message, "ok"));
    }
}

/// What a server says about a pairing.
#[derive(Clone, Copy)]
pub struct Terms {
    pub suite: Suite,
    pub mode: &'static str,
    pub protection: &'static str,
    pub psk: Option<Psk>,
}

/// A Primary Server's half of a setup.
pub struct Offer {
    terms: Terms,
    private: Vec<u8>,
    info: Vec<u8>,
}

/// A Primary Server's answer to the `setup-request` that is `bytes`.
pub fn offer(terms: Terms, bytes: &[u8]) -> (Offer, Cbor) {
    let (private, pk) = secret::generate(terms.suite);
    let response = Cbor::message("setup-response")
        .with("suite", terms.suite.cbor())
        .with("pk", pk)
        .with("mode", terms.mode)
        .with("protection", terms.protection)
        .with("random", random::<32>());
    let info = secret::info(bytes, &response.encode());
    let offer = Offer {
        terms,
        private,
        info,
    };
    (offer, response)
}

impl Offer {
    /// The PRK of a `kem-request`.
    pub fn take(&self, request: &Cbor) -> Prk {
        let Terms { suite, psk, .. } = self.terms;
        let enc = request.get("enc").bytes();
        let pms = secret::decapsulate(suite, &self.private, enc, &self.info, psk.as_ref());
        Prk::extract(suite, request.get("salt").bytes(), &pms)
    }
}

pub fn kem_response(status: &str, entries: &[Cbor]) -> Cbor {
    Cbor::message("kem-response")
        .with("status", status)
        .with("entries", entries.to_vec())
}

/// Both commands as a server, from the request on; returns the PRK and the client list.
pub fn agree_as_server(conn: &mut Conn, terms: Terms, list: &[Cbor]) -> (Prk, Cbor) {
    let (request, bytes) = conn.message();
    assert_eq!(request.kind(), "setup-request", "{request:?}");
    assert!(request.get("suites").items().contains(&terms.suite.cbor()));
    let (offer, response) = offer(terms, &bytes);
    conn.send(&response);
    let kem = conn.expect("kem-request");
    let prk = offer.take(&kem);
    assert_eq!(kem.get("confirm").bytes(), prk.fingerprint());
    conn.send(&kem_response("ok", list));
    (prk, kem.get("entries").clone())
}

/// Tells our list; answers the other's until `done`; returns the other's last list. Responses are checked.
pub fn exchange(
    conn: &mut Conn,
    prk: &Prk,
    serial: u64,
    list: &[Cbor],
    mut done: impl FnMut() -> bool,
) -> Cbor {
    let pms = prk.fingerprint();
    conn.send(&list_request(serial, pms.clone(), list));
    let (mut answered, mut theirs) = (false, None);
    let until = Instant::now() + SOON;
    loop {
        match conn.next(Duration::from_millis(100)) {
            Came::Message(message, _) if message.kind() == "list-response" => {
                assert_eq!(message.get("serial").uint(), serial);
                assert_eq!(message.get("status").text(), "ok");
                answered = true;
            }
            Came::Message(message, _) if message.kind() == "list-request" => {
                assert_eq!(message.get("pms").bytes(), pms);
                conn.send(&list_response(&message, "ok"));
                theirs = Some(message.get("entries").clone());
            }
            Came::Nothing => assert!(Instant::now() < until, "lists are not exchanged"),
            other => panic!("expected lists, found {other:?}"),
        }
        if let (true, Some(theirs)) = (answered, &theirs)
            && done()
        {
            return Cbor::clone(theirs);
        }
    }
}

/// What a peer in the background tells of.
#[derive(Debug)]
pub enum Event {
    /// A secret was agreed on.
    Agreed(Prk),
    /// The other's list came.
    List(Cbor),
    /// A message came that ends the pairing or the connection.
    Over(String),
}

/// A peer in the background.
pub struct Peer {
    pub events: Receiver<Event>,
}

impl Peer {
    /// A Primary Client that does what it is asked, until the connection ends.
    pub fn client(mut conn: Conn, suite: Suite, list: Vec<Cbor>) -> Self {
        Self::spawn(move |tell| {
            let suites = vec![suite.cbor()];
            let (prk, theirs) = agree(&mut conn, suites, None, &list);
            let _ = tell.send(Event::Agreed(prk.clone()));
            let _ = tell.send(Event::List(theirs));
            let mut serial = 1;
            conn.send(&list_request(serial, prk.fingerprint(), &list));
            let mut request = Vec::new();
            let mut prk = prk;
            while let Some(message) = Self::next(&mut conn, &tell) {
                match message.0.kind() {
                    "renew" => request = conn.send(&setup_request(vec![suite.cbor()])),
                    "setup-response" => {
                        let response = (&message.0, &message.1[..]);
                        let (kem, next) = kem_request(&request, response, None, &list);
                        conn.send(&kem);
                        prk = next;
                    }
                    "kem-response" => {
                        let _ = tell.send(Event::Agreed(prk.clone()));
                        serial += 1;
                        conn.send(&list_request(serial, prk.fingerprint(), &list));
                    }
                    other => panic!("a server sent a {other}"),
                }
            }
        })
    }

    /// A Primary Server that does what it is asked, until the connection ends.
    pub fn server(mut conn: Conn, terms: Terms, list: Vec<Cbor>) -> Self {
        Self::spawn(move |tell| {
            let (mut serial, mut offered) = (0, None);
            while let Some((message, bytes)) = Self::next(&mut conn, &tell) {
                match message.kind() {
                    "setup-request" => {
                        let (offer, response) = offer(terms, &bytes);
                        conn.send(&response);
                        offered = Some(offer);
                    }
                    "kem-request" => {
                        let prk = offered.take().unwrap().take(&message);
                        assert_eq!(message.get("confirm").bytes(), prk.fingerprint());
                        conn.send(&kem_response("ok", &list));
                        serial += 1;
                        conn.send(&list_request(serial, prk.fingerprint(), &list));
                        let _ = tell.send(Event::Agreed(prk));
                        let _ = tell.send(Event::List(message.get("entries").clone()));
                    }
                    other => panic!("a client sent a {other}"),
                }
            }
        })
    }

    fn spawn(run: impl FnOnce(Sender<Event>) + Send + 'static) -> Self {
        let (tell, events) = channel();
        thread::spawn(move || run(tell));
        Self { events }
    }

    /// The next message that is neither a ping nor about lists.
    fn next(conn: &mut Conn, tell: &Sender<Event>) -> Option<(Cbor, Vec<u8>)> {
        loop {
            let Came::Message(message, bytes) = conn.next(Duration::from_secs(120)) else {
                return None;
            };
            match message.kind() {
                "ping" => {
                    let number = message.get("number").clone();
                    conn.send(&Cbor::message("pong").with("number", number));
                }
                "list-request" => {
                    conn.send(&list_response(&message, "ok"));
                    let _ = tell.send(Event::List(message.get("entries").clone()));
                }
                "list-response" => assert_eq!(message.get("status").text(), "ok"),
                "revoke" | "refused" => {
                    let _ = tell.send(Event::Over(message.kind().to_owned()));
                }
                _ => return Some((message, bytes)),
            }
        }
    }

    /// Waits for what `wanted` takes.
    pub fn wait<T>(&self, wanted: impl Fn(Event) -> Option<T>) -> T {
        loop {
            let event = self.events.recv_timeout(SOON).expect("an event");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    }

    /// Waits for the next secret.
    pub fn agreed(&self) -> Prk {
        self.wait(|event| match event {
            Event::Agreed(prk) => Some(prk),
            _ => None,
        })
    }
}

/// A Secondary.
pub struct Secondary {
    pub conn: Conn,
    serial: u64,
}

pub fn register_message(instance: [u8; 16], entries: &[&str]) -> Cbor {
    let entries: Vec<Cbor> = entries.iter().map(|e| entry(e).bytes().into()).collect();
    Cbor::message("register")
        .with("version", 1)
        .with("instance", instance)
        .with("entries", entries)
}

impl Secondary {
    /// Sends `register`.
    pub fn register(mut conn: Conn, instance: [u8; 16], entries: &[&str]) -> Self {
        conn.send(&register_message(instance, entries));
        Self { conn, serial: 0 }
    }

    /// The next share, which is acknowledged.
    pub fn share(&mut self) -> Vec<Cbor> {
        let share = self.conn.expect("share");
        let serial = share.get("serial").uint();
        assert!(serial > self.serial);
        self.serial = serial;
        let ack = Cbor::message("ack").with("serial", serial);
        self.conn.send(&ack);
        share.get("grants").items().to_vec()
    }

    /// Takes shares until one holds what is wanted.
    pub fn until<T>(&mut self, wanted: impl Fn(&[Cbor]) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(&self.share()) {
                return found;
            }
        }
    }

    /// Takes shares in the background until the returned one is called, which gives the Secondary back.
    pub fn in_background(mut self) -> impl FnOnce() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                self.take(Duration::from_millis(50));
            }
            self
        });
        move || {
            stop.store(true, Ordering::Relaxed);
            thread.join().unwrap()
        }
    }

    /// Takes shares until none comes for a while.
    pub fn settle(&mut self) {
        while self.take(Duration::from_millis(700)) {}
    }

    /// Takes a share or a ping if one comes.
    fn take(&mut self, limit: Duration) -> bool {
        match self.conn.next(limit) {
            Came::Message(share, _) if share.kind() == "share" => {
                self.serial = share.get("serial").uint();
                self.conn
                    .send(&Cbor::message("ack").with("serial", self.serial));
            }
            Came::Message(ping, _) if ping.kind() == "ping" => {
                let number = ping.get("number").clone();
                self.conn
                    .send(&Cbor::message("pong").with("number", number));
            }
            Came::Nothing => return false,
            other => panic!("expected shares, found {other:?}"),
        }
        true
    }

    /// Takes shares until one gives a generation for an entry of a pairing; returns it.
    pub fn generation(&mut self, pairing: &str, prefix: &str) -> u64 {
        self.until(|grants| generation(grants, pairing, prefix))
    }
}

/// The grant of a pairing.
pub fn grant<'g>(grants: &'g [Cbor], pairing: &str) -> Option<&'g Cbor> {
    grants
        .iter()
        .find(|grant| grant.get("pairing").text() == pairing)
}

/// The generation that a share gives for an entry of a pairing.
pub fn generation(grants: &[Cbor], pairing: &str, prefix: &str) -> Option<u64> {
    let own = grant(grants, pairing)?.get("own").items().iter();
    let mut mine = own.filter(|own| own.get("entry").bytes() == entry(prefix).bytes());
    Some(mine.next()?.get("generation").uint())
}

/// Whether a share says that the newest secret of a pairing is to be sealed under.
pub fn seals(grants: &[Cbor], pairing: &str) -> bool {
    let masters = grant(grants, pairing).map(|grant| grant.get("masters").items());
    masters.is_some_and(|masters| masters.first().is_some_and(|m| m.get("sealing").bool()))
}
