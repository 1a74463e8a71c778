//! Between the Secondary's agent, which talks to its Primary, and the management core, which makes snapshots.
//!
//! ```text
//!           publish: serial, all grants (the latest wins)
//!  agent  ─────────────────────────────────────────────────►  core
//!         ◄─────────────────────────────────────────────────
//!           applied: serial that every worker sees;  wanted: keys of pairs, new generations
//! ```
//!
//! The agent's end waits asynchronously; the core's never waits.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::{
    config::Prefix,
    snapshot::{Fingerprint, Grant},
};

/// Wishes that may wait for the agent. What finds no room is wished for again.
const WISHES: usize = 1_024;

/// What the core wants of the Primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// AsymmetricPoll: the key of one pair, which comes as a grant that has it.
    PairKey {
        /// The pairing's name.
        pairing: String,
        /// The PairMasterSecret that the key is to be derived from.
        master: Fingerprint,
        /// The entry that this Secondary serves.
        own: Prefix,
        /// The peer's entry.
        peer: Prefix,
    },
    /// New generations of all entries, the memory of what was sent being kept: for healing, or because an era begins.
    NewGenerations,
}

/// The complete set of grants at one time.
#[derive(Clone, Debug)]
struct Set {
    serial: u64,
    grants: Vec<Arc<Grant>>,
}

/// The agent's end.
#[derive(Debug)]
pub struct AgentEnd {
    sets: watch::Sender<Option<Set>>,
    applied: watch::Receiver<u64>,
    wishes: mpsc::Receiver<Want>,
}

/// The management core's end.
#[derive(Debug)]
pub struct CoreEnd {
    sets: watch::Receiver<Option<Set>>,
    applied: watch::Sender<u64>,
    wishes: mpsc::Sender<Want>,
}

/// Makes a link.
#[must_use]
pub fn link() -> (AgentEnd, CoreEnd) {
    let (publish, sets) = watch::channel(None);
    let (report, applied) = watch::channel(0);
    let (wish, wishes) = mpsc::channel(WISHES);
    let agent = AgentEnd {
        sets: publish,
        applied,
        wishes,
    };
    let core = CoreEnd {
        sets,
        applied: report,
        wishes: wish,
    };
    (agent, core)
}

impl AgentEnd {
    /// Replaces everything that was granted before by `grants`. `serial` names the set in [`AgentEnd::applied`]; it is not 0, and higher
    /// than the one before.
    pub fn publish(&self, serial: u64, grants: Vec<Arc<Grant>>) {
        self.sets.send_replace(Some(Set { serial, grants }));
    }

    /// The serial of the newest set that every worker sees; 0 before the first. A set that was replaced before the core saw it is never
    /// told. One of which a grant had to be refused is, since waiting would not help; the core's log says why it was.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.clone()
    }

    /// The core's next wish; `None` when the core is gone. Safe to cancel.
    pub async fn wanted(&mut self) -> Option<Want> {
        self.wishes.recv().await
    }
}

impl CoreEnd {
    /// The newest set with its serial, if it was not taken yet.
    pub fn take(&mut self) -> Option<(u64, Vec<Arc<Grant>>)> {
        if !self.sets.has_changed().unwrap_or(false) {
            return None;
        }
        let set = self.sets.borrow_and_update();
        set.as_ref().map(|set| (set.serial, set.grants.clone()))
    }

    /// Tells that every worker sees the set of this serial.
    pub fn report(&self, serial: u64) {
        self.applied.send_replace(serial);
    }

    /// Leaves a wish; false if there is no room for it now.
    pub fn want(&self, want: Want) -> bool {
        self.wishes.try_send(want).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_set_wins_and_is_taken_once() {
        let (agent, mut core) = link();
        assert!(core.take().is_none());
        agent.publish(1, Vec::new());
        agent.publish(2, Vec::new());
        assert_eq!(core.take().map(|(serial, _)| serial), Some(2));
        assert!(core.take().is_none());
        let applied = agent.applied();
        assert_eq!(*applied.borrow(), 0);
        core.report(2);
        assert_eq!(*applied.borrow(), 2);
        // What the agent left behind is still taken, and its end is no news.
        agent.publish(3, Vec::new());
        drop(agent);
        core.take();
        assert!(core.take().is_none());
    }

    #[test]
    fn wishes_wait_and_never_hold_up_the_core() {
        let (mut agent, core) = link();
        let taken = (0..2 * WISHES)
            .filter(|_| core.want(Want::NewGenerations))
            .count();
        assert_eq!(taken, WISHES);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            for _ in 0..WISHES {
                assert_eq!(agent.wanted().await, Some(Want::NewGenerations));
            }
            drop(core);
            assert_eq!(agent.wanted().await, None);
        });
    }
}
