//! A connection between two Primaries (protocol section 5): agrees on master secrets, and keeps both ends' lists the same.
//!
//! ```text
//! Primary Client                                   Primary Server
//!   setup request    ──────────────────────────►     the first suite of the client's that it allows
//!   encapsulates     ◄──────────────────────────   setup response
//!   kem request      ──────────────────────────►     stores the secret, then answers
//!   stores           ◄──────────────────────────   kem response
//!   list request     ──────────────────────────►     answers when all its Secondaries hold list and secret
//!   begins to seal   ◄──────────────────────────   list response              … and the same the other way round
//! ```
//!
//! A list request goes out when our list changed, or when our Secondaries hold a new secret; its answer is what both wait for before they
//! send under anything new. Once the first exchange is over, both ends send list requests whenever they have news, also between the messages of
//! a later negotiation.

mod messages;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf},
    time::{interval, sleep, timeout},
};

use super::{
    Primary,
    counters::{Closed, who},
    negotiate::{self, Asked, NegotiationError, Offered},
    now,
    pairing::Pairing,
    record::{MasterRecord, PairingRecord, Renewal},
};
use crate::{
    registration::{
        backoff::Backoff,
        frame::{FrameError, Reader, Received, Writer},
        message::{
            KemRequest, KemResponse, ListRequest, ListResponse, Message, Ping, Pong, Reason,
            Refused, Renew, Revoke, SetupRequest, SetupResponse, Status,
        },
        pulse::{Pulse, Silent},
    },
    snapshot::Role,
};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_millis(100);
/// Negotiations that a peer may begin in [`ANSWER`].
const NEGOTIATIONS: usize = 60;
/// Requests of one peer whose answers wait for Secondaries, at most.
const UNANSWERED: usize = 16;
/// Lists of one peer that are answered in a second, at most: who waits for answers, as it should, sends no more of them.
const LISTS: u32 = 50;
/// How long to wait after the peer did not know the secret that a list came with.
const UNKNOWN: Duration = Duration::from_secs(1);
/// Least time between two negotiations that this end begins.
const BETWEEN: Duration = Duration::from_millis(200);
/// Bytes of a peer's list, as it stands in a share, at most: a share has room for several. An entry takes [`LISTED`] and its texts.
const MAX_LIST: usize = 384 << 10;
const LISTED: usize = 40;
/// How long a new secret may take to come into use before another one is tried.
const STUCK: u64 = 20;
/// How long the peer may take to close after the last word.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a connection between Primaries ended.
pub(super) enum End {
    /// The other end closed it, or the network did.
    Gone(String),
    /// This end closed it.
    Closed(Closed, String),
    /// This end closed it and said why.
    Refused(Reason, Closed, String),
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        let text = error.to_string();
        match error {
            FrameError::Decode(_) => Self::Closed(Closed::Malformed, text),
            FrameError::Length { .. } | FrameError::Late { .. } => {
                Self::Closed(Closed::Frame, text)
            }
            FrameError::Closed | FrameError::Truncated | FrameError::Io(_) | FrameError::Broken => {
                Self::Gone(text)
            }
        }
    }
}

impl From<Silent> for End {
    fn from(silent: Silent) -> Self {
        Self::Closed(Closed::Silent, silent.to_string())
    }
}

/// Where a negotiation stands.
enum Negotiation {
    None,
    /// Client: `setup` was asked.
    Asked(Asked, Instant),
    /// Client: `kem` was asked; the secret counts once it is answered.
    Encapsulated(Box<MasterRecord>, Instant),
    /// Server: `setup` was answered.
    Offered(Box<Offered>, Instant),
}

/// Connects to the peer of the pairing in place `at` for ever, if connecting is ours.
pub(super) async fn connect(primary: Arc<Primary>, at: usize) {
    let Some(pairing) = primary.pairings.get(at) else {
        return;
    };
    if pairing.role == Role::Server {
        return;
    }
    let mut leads = primary.store.leads();
    let mut records = primary.mirror.changes();
    let mut backoff = Backoff::new(pairing.connect.len());
    let mut addresses = pairing.connect.iter().cycle();
    loop {
        if leads.wait_for(|leads| *leads).await.is_err() {
            return;
        }
        while primary.record(pairing).has_ended() {
            if records.changed().await.is_err() {
                return;
            }
        }
        let Some(address) = addresses.next() else {
            return;
        };
        let began = Instant::now();
        let connected = tokio::select! {
            connected = attempt(&primary, at, address) => connected,
            // Another replica took over: its connection is the one that counts.
            _ = leads.wait_for(|leads| !*leads) => continue,
        };
        if let Err(why) = connected {
            tracing::warn!(pairing = %pairing.name, peer = %pairing.peer, address, "no connection to the peer: {why}");
        }
        sleep(backoff.next(began.elapsed())).await;
    }
}

async fn attempt(primary: &Arc<Primary>, at: usize, address: &str) -> Result<(), String> {
    let Some(pairing) = primary.pairings.get(at) else {
        return Ok(());
    };
    let certificate = &primary.certificate;
    let (stream, expires) = certificate.connect(address, &pairing.peer).await?;
    let (reader, writer) = tokio::io::split(stream);
    let link = Link::new(primary, at, Reader::new(reader), Writer::new(writer));
    let end = tokio::select! {
        end = link.run(None) => end,
        () = super::listen::until(expires) => {
            End::Closed(Closed::Expired, "its certificate ended".to_owned())
        }
    };
    report(primary, std::slice::from_ref(&pairing.peer), end)
}

/// Serves a peer that connected; `first` is its first message.
pub(super) async fn serve<S: AsyncRead + AsyncWrite>(
    primary: &Arc<Primary>,
    at: usize,
    names: &[String],
    reader: Reader<ReadHalf<S>>,
    writer: Writer<WriteHalf<S>>,
    first: Received,
) {
    let link = Link::new(primary, at, reader, writer);
    let end = link.run(Some(first)).await;
    if let Err(why) = report(primary, names, end) {
        tracing::info!(peer = %who(names, None), "the peer is gone: {why}");
    }
}

fn report(primary: &Primary, names: &[String], end: End) -> Result<(), String> {
    match end {
        End::Gone(why) => Err(why),
        End::Closed(reason, why) | End::Refused(_, reason, why) => {
            primary.counters.closed(reason, &who(names, None), &why);
            Err(why)
        }
    }
}

/// Counts a connection as long as it lives; it may be dropped at any time.
struct Connected<'p>(&'p Pairing);

impl<'p> Connected<'p> {
    fn new(pairing: &'p Pairing) -> Self {
        pairing.connected.send_modify(|(links, since)| {
            *links += 1;
            if *links == 1 {
                *since = now();
            }
        });
        Self(pairing)
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.connected.send_modify(|(links, _)| *links -= 1);
    }
}

/// One connection.
struct Link<'p, S> {
    primary: &'p Arc<Primary>,
    pairing: &'p Pairing,
    reader: Reader<ReadHalf<S>>,
    writer: Writer<WriteHalf<S>>,
    /// Whether this end has sent anything.
    began: bool,
    /// Whether the first exchange is over: a negotiation, or the client's list request under a secret from before.
    is_open: bool,
    negotiation: Negotiation,
    /// When negotiations began lately.
    begun: VecDeque<Instant>,
    /// The list request under way, and the newest that was answered in this connection.
    asked: Option<(u64, Instant)>,
    answered: Option<u64>,
    /// When the peer last did not know the secret that our list came with.
    unknown: Option<Instant>,
    /// The peer's newest list in this connection.
    theirs: Option<u64>,
    /// Its list requests that are to be answered when our Secondaries hold a version.
    owed: VecDeque<(u64, u64)>,
    /// How many were answered in this second, and since when that is.
    paid: (u32, Instant),
    pulse: Pulse,
    renew_sent: Option<Instant>,
}

impl<'p, S: AsyncRead + AsyncWrite> Link<'p, S> {
    fn new(
        primary: &'p Arc<Primary>,
        at: usize,
        reader: Reader<ReadHalf<S>>,
        writer: Writer<WriteHalf<S>>,
    ) -> Self {
        Self {
            primary,
            pairing: &primary.pairings[at],
            reader,
            writer,
            began: false,
            is_open: false,
            negotiation: Negotiation::None,
            begun: VecDeque::new(),
            asked: None,
            answered: None,
            unknown: None,
            theirs: None,
            owed: VecDeque::new(),
            paid: (0, Instant::now()),
            pulse: Pulse::new(),
            renew_sent: None,
        }
    }

    fn is_client(&self) -> bool {
        self.pairing.role == Role::Client
    }

    /// Runs until the connection ends.
    async fn run(mut self, first: Option<Received>) -> End {
        let connected = Connected::new(self.pairing);
        let Err(end) = self.serve(first).await;
        drop(connected);
        if let End::Refused(reason, ..) = &end {
            let refused = Message::Refused(Refused { reason: *reason });
            let _ = self.writer.send(&refused).await;
        }
        end
    }

    async fn serve(&mut self, first: Option<Received>) -> Result<std::convert::Infallible, End> {
        tracing::info!(pairing = %self.pairing.name, peer = %self.pairing.peer, "the peer is connected");
        let mut records = self.primary.mirror.changes();
        let mut held = self.pairing.held.subscribe();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        if let Some(first) = first {
            self.handle(first).await?;
        }
        loop {
            self.act().await?;
            tokio::select! {
                received = self.reader.next() => {
                    let received = received?;
                    self.pulse.heard();
                    self.handle(received).await?;
                }
                _ = records.changed() => {}
                _ = held.changed() => {}
                _ = tick.tick() => {}
            }
        }
    }

    async fn send(&mut self, message: &Message) -> Result<(), End> {
        self.began = true;
        self.writer.send(message).await?;
        Ok(())
    }

    /// Does what is due.
    async fn act(&mut self) -> Result<(), End> {
        let record = self.primary.record(self.pairing);
        if record.revoked {
            self.revoke(&record).await?;
            return Err(End::Gone("the pairing is revoked".to_owned()));
        }
        let held = *self.pairing.held.borrow();
        if self.paid.1.elapsed() > Duration::from_secs(1) {
            self.paid = (0, Instant::now());
        }
        while self.paid.0 < LISTS
            && let Some((serial, _)) = self.owed.pop_front_if(|(_, version)| *version <= held)
        {
            self.paid.0 += 1;
            let response = ListResponse {
                serial,
                status: Status::Ok,
            };
            self.send(&Message::ListResponse(response)).await?;
        }
        self.negotiate(&record).await?;
        self.tell(&record).await?;
        if self.pulse.asks(self.reader.is_within_frame())? && self.is_open {
            self.send(&Message::Ping(Ping { number: 0 })).await?;
        }
        let since = match &self.negotiation {
            Negotiation::None => None,
            Negotiation::Asked(_, since)
            | Negotiation::Encapsulated(_, since)
            | Negotiation::Offered(_, since) => Some(*since),
        };
        if since.is_some_and(|since| since.elapsed() > ANSWER) {
            let why = format!("a negotiation took longer than {} s", ANSWER.as_secs());
            return Err(End::Closed(Closed::Silent, why));
        }
        Ok(())
    }

    /// Tells the peer that the pairing is over.
    async fn revoke(&mut self, record: &PairingRecord) -> Result<(), End> {
        // No connection begins with `revoke`, and there is no secret to begin with.
        if self.is_client() && !self.began {
            let request = ListRequest {
                serial: record.own_serial,
                pms: None,
                entries: Vec::new(),
            };
            self.send(&Message::ListRequest(request)).await?;
            self.is_open = true;
        }
        let last = match (self.is_client(), self.is_open) {
            (_, true) => Message::Revoke(Revoke),
            // The next connection begins with it.
            (true, false) => return Ok(()),
            (false, false) => Message::Refused(Refused {
                reason: Reason::Revoked,
            }),
        };
        self.send(&last).await?;
        // What is closed with something unread may take what was just sent with it.
        let read = async { while self.reader.next().await.is_ok() {} };
        let _ = timeout(FAREWELL, read).await;
        self.update(|record| record.peer_knows = true).await
    }

    /// Begins a negotiation, or asks the peer to, when a new secret is due.
    async fn negotiate(&mut self, record: &PairingRecord) -> Result<(), End> {
        if !matches!(self.negotiation, Negotiation::None) || !self.is_due(record) {
            return Ok(());
        }
        let last = self.begun.back().copied().or(self.renew_sent);
        if last.is_some_and(|last| last.elapsed() < BETWEEN) {
            return Ok(());
        }
        if self.is_client() {
            self.begun.push_back(Instant::now());
            let (asked, request) = negotiate::ask(self.pairing).map_err(|error| refuse(&error))?;
            self.negotiation = Negotiation::Asked(asked, Instant::now());
            return self.send(&request).await;
        }
        // The client begins; it is asked again if that takes long.
        if self.is_open && self.renew_sent.is_none_or(|sent| sent.elapsed() > ANSWER) {
            self.renew_sent = Some(Instant::now());
            return self.send(&Message::Renew(Renew)).await;
        }
        Ok(())
    }

    /// Whether a new master secret is due.
    fn is_due(&self, record: &PairingRecord) -> bool {
        let Some(newest) = record.masters.first() else {
            return self.is_client();
        };
        // One at a time: what was agreed on last has to come into use first, also at the other end, which takes another moment. What the
        // other end does not know, and did not when it was asked again, never will.
        let settled = match self.unknown {
            _ if newest.sealing => 1,
            Some(_) => UNKNOWN.as_secs() * 2,
            None => STUCK,
        };
        // `None`: the clock went back meanwhile, so it is not known, and taken for great.
        let age = now().checked_sub(newest.since);
        if age.is_some_and(|age| age < settled) {
            return false;
        }
        if record.renewal.is_some() {
            return true;
        }
        let aged = |limit: Duration| age.is_none_or(|age| age >= limit.as_secs());
        let other_terms = (newest.mode, newest.protection)
            != (self.pairing.mode, self.pairing.protection)
            || !self.pairing.suites.contains(&newest.suite);
        self.pairing.renew_after.is_some_and(aged) || (!self.is_client() && other_terms)
    }

    /// Tells the peer our list if it changed, or if our Secondaries hold a new secret.
    async fn tell(&mut self, record: &PairingRecord) -> Result<(), End> {
        if let Some((_, since)) = self.asked {
            if since.elapsed() > ANSWER {
                let why = format!("a list was not answered in {} s", ANSWER.as_secs());
                return Err(End::Closed(Closed::Silent, why));
            }
            return Ok(());
        }
        let begins = self.is_client() && !self.began;
        if !(self.is_open || begins)
            || record.masters.is_empty()
            || self.answered >= Some(record.own_serial)
        {
            return Ok(());
        }
        if self.unknown.is_some_and(|since| since.elapsed() < UNKNOWN) {
            return Ok(());
        }
        let request = ListRequest {
            serial: record.own_serial,
            pms: record.masters.first().map(|master| master.id),
            entries: record.told(),
        };
        self.asked = Some((record.own_serial, Instant::now()));
        self.is_open = true;
        self.send(&Message::ListRequest(request)).await
    }
}

pub(super) fn out_of_order(found: &str) -> End {
    let why = format!("a {found} has no place here");
    End::Closed(Closed::OutOfOrder, why)
}

fn refuse(error: &NegotiationError) -> End {
    let why = error.to_string();
    match error {
        NegotiationError::Version { .. } => {
            End::Refused(Reason::Version, Closed::NothingInCommon, why)
        }
        NegotiationError::NoCommonSuite { .. } => {
            End::Refused(Reason::NoCommonSuite, Closed::NothingInCommon, why)
        }
        NegotiationError::NotConfirmed => End::Closed(Closed::NotConfirmed, why),
        NegotiationError::Hpke(_) => End::Closed(Closed::Malformed, why),
        NegotiationError::Random(_) => End::Gone(why),
    }
}
