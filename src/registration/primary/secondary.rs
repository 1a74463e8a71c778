//! A connection of a Secondary: proves what it may have by its certificate's name, gets it, and again on every change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf},
    time::interval,
};

use super::{
    Primary, PrimaryError,
    counters::{Closed, who},
    now,
    peer::{End, out_of_order},
    record::{Instance, NoGeneration, PairingRecord, Who},
    share,
};
use crate::{
    config::Prefix,
    registration::{
        frame::{FrameError, Reader, Received, Writer},
        message::{Message, Ping, Poll, PollKey, Pong, Reason, Refused, Register, Share, VERSION},
        pulse::Pulse,
        store::StoreError,
    },
    snapshot::Grant,
};

const TICK: Duration = Duration::from_millis(250);
/// How long a share may stay unacknowledged. Others no longer wait for this one by then; it has secrets that may be out of date, and a
/// new connection is what may help it.
const ACK: Duration = Duration::from_secs(20);
/// How long a pairing whose document had no room is left alone.
const FULL: Duration = Duration::from_secs(60);
/// Keys that a Secondary may ask for in a second.
const POLLS: u32 = 1_000;

/// Serves a Secondary whose first message is `first`, until its certificate `expires`.
pub(super) async fn serve<S: AsyncRead + AsyncWrite>(
    primary: &Arc<Primary>,
    names: &[String],
    reader: Reader<ReadHalf<S>>,
    writer: Writer<WriteHalf<S>>,
    first: Register,
    expires: impl Future<Output = ()>,
) {
    let connection = primary.next_connection();
    let mut session = Session {
        primary,
        connection,
        name: String::new(),
        instance: first.instance,
        reader,
        writer,
        entries: Vec::new(),
        sent: 0,
        acknowledged: 0,
        sent_at: Instant::now(),
        given: BTreeMap::new(),
        full: BTreeMap::new(),
        pulse: Pulse::new(),
        polls: (Instant::now(), 0),
    };
    let end = tokio::select! {
        Err(end) = session.run(names, first) => end,
        () = expires => End::Closed(Closed::Expired, "its certificate ended".to_owned()),
    };
    // However it ended: the others would wait for its acknowledgements for ever.
    session.leave().await;
    match end {
        End::Gone(why) => tracing::info!(secondary = %session.name, "the Secondary is gone: {why}"),
        End::Closed(reason, why) => primary.counters.closed(reason, &who(names, None), &why),
        End::Refused(reason, closed, why) => {
            let refused = Message::Refused(Refused { reason });
            let _ = session.writer.send(&refused).await;
            primary.counters.closed(closed, &who(names, None), &why);
        }
    }
}

struct Session<'p, S> {
    primary: &'p Arc<Primary>,
    connection: u64,
    /// The certificate's name under which it is known.
    name: String,
    instance: Instance,
    reader: Reader<ReadHalf<S>>,
    writer: Writer<WriteHalf<S>>,
    /// What it serves, each allowed, ascending.
    entries: Vec<Prefix>,
    /// The newest share, and the newest that it acknowledged.
    sent: u64,
    acknowledged: u64,
    /// When the newest share went out.
    sent_at: Instant,
    /// Per pairing: the version of the record that the newest share was made of.
    given: BTreeMap<usize, u64>,
    /// Pairings whose documents had no room for its generations, and when.
    full: BTreeMap<usize, Instant>,
    pulse: Pulse,
    polls: (Instant, u32),
}

impl<S: AsyncRead + AsyncWrite> Session<'_, S> {
    async fn run(
        &mut self,
        names: &[String],
        first: Register,
    ) -> Result<std::convert::Infallible, End> {
        self.admit(names, &first)?;
        self.register(false).await?;
        tracing::info!(
            secondary = %self.name,
            entries = self.entries.len(),
            "a Secondary registered"
        );
        let mut records = self.primary.mirror.changes();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Only after what a share depends on: it looks at all entries of all pairings, and pings may come in masses.
        let mut is_due = true;
        loop {
            if is_due {
                self.share().await?;
            }
            self.look_alive().await?;
            is_due = tokio::select! {
                received = self.reader.next() => {
                    let received = received?;
                    self.pulse.heard();
                    let changes = matches!(received.message, Message::Ack(_) | Message::NewGenerations(_));
                    self.handle(received).await?;
                    changes
                }
                _ = records.changed() => true,
                _ = tick.tick() => true,
            };
        }
    }

    /// Checks what the certificate's name is allowed.
    fn admit(&mut self, names: &[String], register: &Register) -> Result<(), End> {
        if register.version != VERSION {
            let why = format!("expected version {VERSION}, found {}", register.version);
            return Err(End::Refused(Reason::Version, Closed::NothingInCommon, why));
        }
        let known = names.iter().find_map(|name| {
            let allowed: BTreeSet<Prefix> = self.primary.allowed(name).into_iter().collect();
            (!allowed.is_empty()).then_some((name, allowed))
        });
        let Some((name, allowed)) = known else {
            let why = "its name is no Secondary's".to_owned();
            return Err(End::Refused(Reason::NotAllowed, Closed::NotAllowed, why));
        };
        if self.primary.is_revoked(name) {
            let why = format!("{name} is revoked");
            return Err(End::Refused(Reason::Revoked, Closed::Revoked, why));
        }
        if let Some(other) = register.entries.iter().find(|e| !allowed.contains(e)) {
            let why = format!("{name} asked for {other}, which it is not allowed");
            return Err(End::Refused(Reason::NotAllowed, Closed::NotAllowed, why));
        }
        self.name.clone_from(name);
        self.entries.clone_from(&register.entries);
        self.entries.sort_unstable();
        Ok(())
    }

    /// Has generations given to all entries, in every pairing that lists them.
    async fn register(&mut self, anew: bool) -> Result<(), End> {
        let who = self.who();
        let mut full = Vec::new();
        for (at, pairing) in self.primary.pairings.iter().enumerate() {
            if self.is_full(at) {
                continue;
            }
            let registered = self.primary.update(pairing, |record| {
                for entry in &self.entries {
                    match record.register(*entry, &who, anew, now()) {
                        Ok(_) | Err(NoGeneration::NoEntry | NoGeneration::Revoked) => {}
                        Err(error) => return Err((*entry, error)),
                    }
                }
                Ok(())
            });
            match registered.await {
                Ok(Ok(())) => {}
                Ok(Err((entry, error))) => {
                    return Err(End::Refused(
                        Reason::Busy,
                        Closed::TooMany,
                        format!("{entry}: {error}"),
                    ));
                }
                // One pairing's lists must not cost the others theirs.
                Err(PrimaryError::Store(error @ StoreError::TooLong { .. })) => {
                    tracing::error!(
                        secondary = %self.name,
                        pairing = %pairing.name,
                        "the Secondary gets no generations in this pairing: {error}"
                    );
                    full.push((at, Instant::now()));
                }
                Err(error) => return Err(End::Gone(error.to_string())),
            }
        }
        self.full.extend(full);
        Ok(())
    }

    /// Whether a pairing's document had no room lately.
    fn is_full(&self, at: usize) -> bool {
        let since = self.full.get(&at);
        since.is_some_and(|since| since.elapsed() < FULL)
    }

    fn who(&self) -> Who<'_> {
        Who {
            instance: self.instance,
            secondary: &self.name,
            via: self.primary.store.replica(),
        }
    }

    fn serves(&self, record: &PairingRecord) -> bool {
        let mut given = record.own.iter().flat_map(|own| &own.given);
        given.any(|given| given.is_of(&self.who()))
    }

    /// Leaves entries that an operator took from it.
    async fn give_up_what_is_not_allowed(&mut self) -> Result<(), End> {
        let allowed: BTreeSet<Prefix> = self.primary.allowed(&self.name).into_iter().collect();
        let mut lost = self.entries.clone();
        lost.retain(|entry| !allowed.contains(entry));
        if lost.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            secondary = %self.name,
            entries = lost.len(),
            "a Secondary may no longer serve entries that it registered for"
        );
        self.entries.retain(|entry| allowed.contains(entry));
        let who = self.who();
        for pairing in &self.primary.pairings {
            let withdrawn = self
                .primary
                .update(pairing, |record| record.withdraw(&who, &lost));
            if let Err(error) = withdrawn.await {
                return Err(End::Gone(error.to_string()));
            }
        }
        Ok(())
    }

    /// Whether a list lacks one of its entries, or takes it for away.
    fn is_missing(&self) -> bool {
        let who = self.who();
        let mut pairings = self.primary.pairings.iter().enumerate();
        pairings.any(|(at, pairing)| {
            !self.is_full(at) && self.primary.record(pairing).misses(&who, &self.entries)
        })
    }

    /// Sends the share if it changed.
    async fn share(&mut self) -> Result<(), End> {
        if self.primary.is_revoked(&self.name) {
            // Nothing of it is left in the lists, so this tells it to forget everything.
            let share = Share {
                serial: self.sent + 1,
                grants: Vec::new(),
            };
            self.writer.send(&Message::Share(share)).await?;
            let why = format!("{} was revoked", self.name);
            return Err(End::Refused(Reason::Revoked, Closed::Revoked, why));
        }
        self.give_up_what_is_not_allowed().await?;
        if self.is_missing() {
            self.register(false).await?;
        }
        let mut now_given = BTreeMap::new();
        let mut records = Vec::new();
        for (at, pairing) in self.primary.pairings.iter().enumerate() {
            let record = self.primary.record(pairing);
            if self.serves(&record) {
                now_given.insert(at, record.version);
                records.push((at, pairing, record));
            }
        }
        for at in self.given.keys() {
            if !now_given.contains_key(at) {
                self.primary.barrier.leave(*at, self.connection);
            }
        }
        if self.sent > 0 && now_given == self.given {
            return Ok(());
        }
        for (at, version) in &now_given {
            self.primary.barrier.sent(*at, self.connection, *version);
        }
        // One at a time; what changes meanwhile goes into the next.
        if self.sent > self.acknowledged {
            return Ok(());
        }
        let mut grants = Vec::with_capacity(records.len());
        for (_, pairing, record) in &records {
            let (terms, who) = (pairing.terms(), self.who());
            grants.extend(share::grant(&terms, record, &who, &self.entries));
        }
        self.sent += 1;
        self.sent_at = Instant::now();
        self.given = now_given;
        let mut share = Share {
            serial: self.sent,
            grants,
        };
        loop {
            let message = Message::Share(share);
            match self.writer.send(&message).await {
                Ok(_) => return Ok(()),
                Err(FrameError::Length { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            let Message::Share(too_long) = message else {
                return Ok(());
            };
            share = too_long;
            // One pairing's lists must not cost the others theirs.
            let size = |grant: &Grant| grant.clients.len() + grant.servers.len();
            let places = (0..share.grants.len()).zip(&share.grants);
            let Some((at, _)) = places.max_by_key(|(_, grant)| size(grant)) else {
                return Ok(());
            };
            let left_out = share.grants.swap_remove(at);
            tracing::error!(
                secondary = %self.name,
                pairing = %left_out.pairing,
                "the pairing is left out, since its lists and secrets do not fit into a message with the others"
            );
        }
    }

    async fn look_alive(&mut self) -> Result<(), End> {
        if self.sent > self.acknowledged && self.sent_at.elapsed() > ACK {
            let why = format!(
                "share {} was not acknowledged in {} s",
                self.sent,
                ACK.as_secs()
            );
            return Err(End::Closed(Closed::Silent, why));
        }
        if self.pulse.asks(self.reader.is_within_frame())? {
            self.writer.send(&Message::Ping(Ping { number: 0 })).await?;
        }
        Ok(())
    }

    async fn handle(&mut self, received: Received) -> Result<(), End> {
        match received.message {
            Message::Ack(ack) => self.on_ack(ack.serial),
            Message::NewGenerations(_) => {
                tracing::info!(secondary = %self.name, "a Secondary asks for new generations");
                self.register(true).await
            }
            Message::Poll(poll) => self.on_poll(&poll).await,
            Message::Ping(Ping { number }) => {
                self.writer.send(&Message::Pong(Pong { number })).await?;
                Ok(())
            }
            Message::Pong(_) if self.pulse.answered() => Ok(()),
            other => Err(out_of_order(other.kind())),
        }
    }

    fn on_ack(&mut self, serial: u64) -> Result<(), End> {
        if serial != self.sent || serial == self.acknowledged {
            let why = format!("share {serial} was acknowledged, which is not under way");
            return Err(End::Closed(Closed::OutOfOrder, why));
        }
        self.acknowledged = serial;
        for (at, version) in &self.given {
            let barrier = &self.primary.barrier;
            barrier.acknowledged(*at, self.connection, *version);
        }
        Ok(())
    }

    /// AsymmetricPoll: the key of one pair, one end of which it serves.
    async fn on_poll(&mut self, poll: &Poll) -> Result<(), End> {
        let (since, count) = &mut self.polls;
        if since.elapsed() > Duration::from_secs(1) {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        // It asks again.
        if *count > POLLS {
            return Ok(());
        }
        let pairings = &self.primary.pairings;
        let key = pairings
            .iter()
            .find(|pairing| pairing.name == poll.pairing)
            .and_then(|pairing| {
                let record = self.primary.record(pairing);
                let master = record.masters.iter().find(|m| m.id == poll.master)?;
                let polls = master.mode == crate::config::Mode::AsymmetricPoll;
                let serves = |own: &&super::record::OwnRecord| {
                    let mut given = own.given.iter();
                    own.prefix == poll.own
                        && self.entries.contains(&poll.own)
                        && given.any(|g| g.is_of(&self.who()))
                };
                record.own.iter().find(serves).filter(|_| polls)?;
                record.peer.iter().find(|peer| peer.prefix == poll.peer)?;
                share::pair_key(pairing.role, master, poll.own, poll.peer)
            });
        // What changed since it asked comes with the next share: no answer is an answer.
        let Some(key) = key else {
            return Ok(());
        };
        let key = PollKey {
            poll: poll.clone(),
            key,
        };
        self.writer.send(&Message::PollKey(key)).await?;
        Ok(())
    }

    /// Notes that the connection is gone.
    async fn leave(&self) {
        self.primary.barrier.gone(self.connection);
        for pairing in &self.primary.pairings {
            if !self.serves(&self.primary.record(pairing)) {
                continue;
            }
            let who = self.who();
            let left = self.primary.update(pairing, |record| {
                record.away(now(), |given| given.is_of(&who) && given.via == who.via);
            });
            if let Err(error) = left.await {
                tracing::warn!("the store does not take that a Secondary left: {error}");
            }
        }
    }
}
