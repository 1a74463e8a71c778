//! Which version of each pairing's record all Secondaries work with: what *make before break* waits for.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// How long a Secondary may take to acknowledge before the others no longer wait for it.
const LAG: Duration = Duration::from_secs(8);

/// One replica's Secondaries.
pub(super) struct Barrier {
    /// Per pairing, by connection.
    pairings: Vec<Mutex<HashMap<u64, Holder>>>,
    changes: watch::Sender<u64>,
}

struct Holder {
    /// The version that it acknowledged; `None` before its first.
    holds: Option<u64>,
    /// When it was sent the oldest version that it has not acknowledged.
    waits: Option<Instant>,
}

impl Barrier {
    pub fn new(pairings: usize) -> Self {
        Self {
            pairings: std::iter::repeat_with(Mutex::default)
                .take(pairings)
                .collect(),
            changes: watch::Sender::new(0),
        }
    }

    /// Told after every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn with<T>(
        &self,
        pairing: usize,
        edit: impl FnOnce(&mut HashMap<u64, Holder>) -> T,
    ) -> Option<T> {
        let holders = self.pairings.get(pairing)?;
        Some(edit(
            &mut holders.lock().unwrap_or_else(PoisonError::into_inner),
        ))
    }

    /// A connection was sent `version`.
    pub fn sent(&self, pairing: usize, connection: u64, version: u64) {
        self.with(pairing, |holders| {
            let holder = holders.entry(connection).or_insert(Holder {
                holds: None,
                waits: None,
            });
            if holder.holds.is_none_or(|holds| holds < version) && holder.waits.is_none() {
                holder.waits = Some(Instant::now());
            }
        });
    }

    /// A connection works with `version`, the newest that it was sent.
    pub fn acknowledged(&self, pairing: usize, connection: u64, version: u64) {
        self.with(pairing, |holders| {
            if let Some(holder) = holders.get_mut(&connection) {
                holder.holds = holder.holds.max(Some(version));
                holder.waits = None;
            }
        });
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// A connection has nothing of a pairing any more.
    pub fn leave(&self, pairing: usize, connection: u64) {
        self.with(pairing, |holders| holders.remove(&connection));
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// A connection ended.
    pub fn gone(&self, connection: u64) {
        for at in 0..self.pairings.len() {
            self.with(at, |holders| holders.remove(&connection));
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// The oldest version that any Secondary works with, of those that keep up; `u64::MAX` if there are none.
    pub fn held(&self, pairing: usize) -> u64 {
        let now = Instant::now();
        let oldest = self.with(pairing, |holders| {
            let keep_up = holders.values().filter(|holder| {
                holder
                    .waits
                    .is_none_or(|since| now.duration_since(since) < LAG)
            });
            keep_up.map(|holder| holder.holds.unwrap_or(0)).min()
        });
        oldest.flatten().unwrap_or(u64::MAX)
    }
}
