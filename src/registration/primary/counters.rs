//! What a Primary counts, by reason, and how often it logs what others do wrong.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Log lines about one reason in [`PERIOD`], at most.
const LINES: u32 = 5;
const PERIOD: Duration = Duration::from_secs(10);

/// Why a connection was closed from this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Closed {
    /// The handshake failed or took too long.
    Handshake,
    /// Too many connections were half open, and this was the oldest.
    HalfOpen,
    /// The certificate's name is allowed nothing of what was asked.
    NotAllowed,
    /// It was revoked.
    Revoked,
    /// A frame was too long, or too slow.
    Frame,
    /// A message could not be read.
    Malformed,
    /// A message came that has no place at this point.
    OutOfOrder,
    /// A list came again, or an older one.
    Replayed,
    /// The versions or suites of the two have nothing in common.
    NothingInCommon,
    /// The two derived different secrets.
    NotConfirmed,
    /// Nothing came for too long.
    Silent,
    /// Too many requests in a short time.
    TooMany,
    /// The peer's certificate ended.
    Expired,
}

impl Closed {
    /// The reason's name in metrics and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::HalfOpen => "half-open",
            Self::NotAllowed => "not-allowed",
            Self::Revoked => "revoked",
            Self::Frame => "frame",
            Self::Malformed => "malformed",
            Self::OutOfOrder => "out-of-order",
            Self::Replayed => "replayed",
            Self::NothingInCommon => "nothing-in-common",
            Self::NotConfirmed => "not-confirmed",
            Self::Silent => "silent",
            Self::TooMany => "too-many",
            Self::Expired => "expired",
        }
    }
}

#[derive(Default)]
pub(super) struct Counters {
    closed: Mutex<BTreeMap<Closed, Count>>,
}

struct Count {
    total: u64,
    since: Instant,
    lines: u32,
}

impl Counters {
    /// Counts a connection that was closed, and logs it at a bounded rate.
    pub fn closed(&self, reason: Closed, who: &str, why: &str) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = closed.entry(reason).or_insert_with(|| Count {
            total: 0,
            since: Instant::now(),
            lines: 0,
        });
        count.total += 1;
        if count.since.elapsed() > PERIOD {
            if count.lines > LINES {
                let silent = count.lines - LINES;
                tracing::warn!(
                    reason = reason.name(),
                    "{silent} more connections were closed"
                );
            }
            (count.since, count.lines) = (Instant::now(), 0);
        }
        count.lines = count.lines.saturating_add(1);
        let lines = count.lines;
        drop(closed);
        if lines <= LINES {
            tracing::warn!(reason = reason.name(), "connection of {who} closed: {why}");
        }
    }

    /// All counts, by reason.
    pub fn all(&self) -> BTreeMap<&'static str, u64> {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed
            .iter()
            .map(|(reason, count)| (reason.name(), count.total))
            .collect()
    }
}

/// Who a connection belongs to, for people.
pub(super) fn who(names: &[String], address: Option<SocketAddr>) -> String {
    let names = names.join(", ");
    match address {
        Some(address) => format!("{names} ({address})"),
        None => names,
    }
}
