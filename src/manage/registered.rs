//! What the management core does for registered pairings: takes what the Primary granted, has the secrets of pairs fetched or computed, and
//! tells when every worker sees it.
//!
//! ```text
//! agent ── set of grants ─► take ─► (snapshot built and published) ─► in_force ─► seen ── applied ─► agent
//! workers ── notes ─► notes ─┬─ AsymmetricPoll: PairKey ─► agent, comes back as a set
//!                            └─ IBC: compute, a few at a time ─► (snapshot)
//! ```

use crate::registration::link::{CoreEnd, Want};
use crate::snapshot::{Awaited, Grant, PairId, Snapshot, Source, State};
use crossbeam::queue::ArrayQueue;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Least time between two wishes for the key of one pair.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Pairings on curves that a tick has time for.
const COMPUTED_A_TICK: usize = 2;
/// How long computed secrets wait for more before a snapshot has them.
const GATHER: Duration = Duration::from_millis(20);
/// How long a new PairMasterSecret waits for its pairs' secrets before it counts as held all the same: the Primary may have none to give.
const PAIRS_WITHIN: Duration = Duration::from_secs(5);

/// A set of grants in force that the agent was not told of yet.
struct Untold {
    serial: u64,
    since: Instant,
}

/// The core's side of the registration.
pub(super) struct Registered {
    end: Option<CoreEnd>,
    grants: Vec<Arc<Grant>>,
    /// The serial of `grants`, until a snapshot has them.
    taken: Option<u64>,
    untold: Option<Untold>,
    /// When pairs were last looked through for such as have no secret under a new PairMasterSecret, and in which snapshot.
    looked_at: Option<(Instant, u32)>,
    asked: HashMap<PairId, Instant>,
    to_compute: VecDeque<PairId>,
    queued: HashSet<PairId>,
    /// When the first secret was computed that no snapshot has yet.
    computed: Option<Instant>,
}

impl Registered {
    /// Without a link nothing is ever granted.
    pub fn new(end: Option<CoreEnd>) -> Self {
        Self {
            end,
            grants: Vec::new(),
            taken: None,
            untold: None,
            looked_at: None,
            asked: HashMap::new(),
            to_compute: VecDeque::new(),
            queued: HashSet::new(),
            computed: None,
        }
    }

    /// What the next snapshot is to be built from.
    pub fn grants(&self) -> &[Arc<Grant>] {
        &self.grants
    }

    /// Takes a new set, if there is one.
    pub fn take(&mut self) -> bool {
        let Some((serial, grants)) = self.end.as_mut().and_then(CoreEnd::take) else {
            return false;
        };
        self.grants = grants;
        self.taken = Some(serial);
        true
    }

    /// Notes that a snapshot with the set is published.
    pub fn in_force(&mut self, snapshot: &Snapshot) {
        self.computed = None;
        let Some(serial) = self.taken.take() else {
            return;
        };
        for error in &snapshot.refused {
            tracing::error!(set = serial, "not put in force: {error}");
        }
        // What was refused is told of too: it would hold up the Primary, and with it all others, for good.
        // A set of keys that were asked for replaces one that still waits for others: the time runs on.
        let since = self.untold.take().map(|untold| untold.since);
        self.untold = Some(Untold {
            serial,
            since: since.unwrap_or_else(Instant::now),
        });
        self.looked_at = None;
    }

    /// Tells the agent of the set in force, of which every worker's snapshot now is.
    pub fn seen(&mut self, snapshot: &Snapshot) {
        let Some(untold) = &self.untold else {
            return;
        };
        let serial = untold.serial;
        let in_time = untold.since.elapsed() < PAIRS_WITHIN;
        if in_time && self.lacks_pairs(snapshot) {
            return;
        }
        self.untold = None;
        if let Some(end) = &self.end {
            end.report(serial);
        }
    }

    /// Whether pairs have no secret under a new PairMasterSecret, which is seen to.
    fn lacks_pairs(&mut self, snapshot: &Snapshot) -> bool {
        let lately = |(when, serial): &mut (Instant, u32)| {
            *serial == snapshot.serial && when.elapsed() < ASK_EVERY
        };
        if self.looked_at.as_mut().is_some_and(lately) {
            return true;
        }
        let behind = snapshot.behind();
        self.looked_at = Some((Instant::now(), snapshot.serial));
        for awaited in &behind {
            self.note(snapshot, awaited);
        }
        !behind.is_empty()
    }

    /// Sees to the pairs that workers lack secrets of.
    pub fn notes(&mut self, snapshot: &Snapshot, awaited: &ArrayQueue<Awaited>) {
        if awaited.is_empty() {
            return;
        }
        self.asked.retain(|_, asked| asked.elapsed() < ASK_EVERY);
        // Workers go on noting meanwhile; what they add is for the next tick.
        for _ in 0..awaited.len() {
            if let Some(awaited) = awaited.pop() {
                self.note(snapshot, &awaited);
            }
        }
    }

    fn note(&mut self, snapshot: &Snapshot, awaited: &Awaited) {
        let Some((pairing, pair, source)) = snapshot.wanted(awaited) else {
            return;
        };
        match source {
            Source::Computed => {
                if self.queued.insert(pair) {
                    self.to_compute.push_back(pair);
                }
            }
            Source::Primary => {
                let asked = self.asked.get(&pair);
                if asked.is_some_and(|asked| asked.elapsed() < ASK_EVERY) {
                    return;
                }
                let want = Want::PairKey {
                    pairing: pairing.to_owned(),
                    master: pair.master,
                    own: pair.own.prefix,
                    peer: pair.peer.prefix,
                };
                if self.end.as_ref().is_some_and(|end| end.want(want)) {
                    self.asked.insert(pair, Instant::now());
                }
            }
        }
    }

    /// Computes a few secrets of pairs into `state`; whether it is time for a snapshot that has them.
    pub fn compute(&mut self, snapshot: &Snapshot, state: &mut State) -> bool {
        for _ in 0..COMPUTED_A_TICK {
            let Some(pair) = self.to_compute.pop_front() else {
                break;
            };
            self.queued.remove(&pair);
            if state.has_pair(&pair) {
                continue;
            }
            match snapshot.compute(&pair) {
                None => {}
                Some(Ok(secret)) => {
                    state.keep_pair(pair, secret);
                    self.computed.get_or_insert_with(Instant::now);
                }
                Some(Err(error)) => {
                    tracing::error!(own = %pair.own, peer = %pair.peer, "no secret for a pair: {error}");
                }
            }
        }
        self.computed
            .is_some_and(|first| self.to_compute.is_empty() || first.elapsed() >= GATHER)
    }

    /// Asks the Primary for new generations of everything that is registered.
    pub fn ask_for_generations(&self, snapshot: &Snapshot) {
        if !snapshot.has_registered_secrets() {
            return;
        }
        if let Some(end) = &self.end
            && !end.want(Want::NewGenerations)
        {
            tracing::warn!(
                "the Primary's agent does not take wishes: no new generations are asked for now"
            );
        }
    }
}

#[cfg(test)]
mod tests;
