//! When may something shared be reused? After every worker has ended the burst in which it might have seen it.
//!
//! The rule, stated once for snapshots, flow entries and keys alike: **between two bursts a worker holds no reference to
//! anything shared.** A worker [pins](Reader::pin) for a burst and everything that it finds by following shared words
//! lives as long as that pin. Whoever takes something out of sight asks for a [`Stamp`] *afterwards* and may reuse it once
//! [`Quiescence::passed`] says so.
//!
//! Why that suffices: a stamp is the value that [`Quiescence::retire`] raised the shared clock to. A worker that pins
//! copies the clock. If its copy is not below the stamp, its read of the clock saw the raise, so it also sees all that
//! came before the raise: the thing is out of its sight. If its copy is below, `passed` waits for its next pin. A worker
//! that rests (sleeps in an idle loop) counts as passed; when it returns, a full fence on both sides makes sure that either
//! the retirer sees it awake or it sees what was taken out.
//!
//! What breaks if the rule is lost: a key being overwritten while another worker seals with it, or a flow's memory handed
//! to another flow in the middle of a packet.
//!
//! Cost: one load and one store a burst; `passed` reads one cache line a worker and is called on rare events only.

use super::owner::MAX_READERS;
use super::sync::{AtomicU64, Ordering, fence};
use crossbeam::utils::CachePadded;

const RESTING: u64 = u64::MAX;

/// The clock and each worker's copy of it.
pub struct Quiescence {
    clock: CachePadded<AtomicU64>,
    workers: Box<[CachePadded<AtomicU64>]>,
}

/// A moment of the clock: what was out of sight before it is unseen once it has [passed](Quiescence::passed).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(u64);

impl Stamp {
    /// A moment that has always passed: for memory that nobody ever saw.
    pub const ORIGIN: Self = Self(0);

    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl Quiescence {
    /// A clock for `workers` workers, all of them resting.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            clock: CachePadded::new(AtomicU64::new(1)),
            workers: (0..workers)
                .map(|_| CachePadded::new(AtomicU64::new(RESTING)))
                .collect(),
        }
    }

    /// The reader of worker `worker`; `None` if there is no such worker, or there are [`MAX_READERS`] before it.
    ///
    /// One worker has one reader: a second one for the same index would hide the first one's pins, which is why this is
    /// called once at start for each index.
    #[must_use]
    pub fn reader(&self, worker: usize) -> Option<Reader<'_>> {
        if worker >= MAX_READERS {
            return None;
        }
        Some(Reader {
            quiescence: self,
            copy: self.workers.get(worker)?,
            worker: worker as u8 + 1,
        })
    }

    /// A stamp for everything that this thread has taken out of sight so far.
    pub fn retire(&self) -> Stamp {
        Stamp(self.clock.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// Whether every worker has pinned anew, or rested, since `stamp`.
    #[must_use]
    pub fn passed(&self, stamp: Stamp) -> bool {
        fence(Ordering::SeqCst);
        self.workers
            .iter()
            .all(|copy| copy.load(Ordering::Acquire) >= stamp.0)
    }
}

/// One worker's side of the clock.
pub struct Reader<'q> {
    quiescence: &'q Quiescence,
    copy: &'q AtomicU64,
    worker: u8,
}

impl<'q> Reader<'q> {
    /// Begins a burst: everything shared that is found until the pin goes stays valid.
    pub fn pin(&mut self) -> Pin<'_> {
        let resting = self.copy.load(Ordering::Relaxed) == RESTING;
        let now = self.quiescence.clock.load(Ordering::Acquire);
        self.copy.store(now, Ordering::Release);
        if resting {
            fence(Ordering::SeqCst);
        }
        Pin {
            quiescence: self.quiescence,
            worker: self.worker,
        }
    }

    /// Ends a burst without beginning the next one: to be called before sleeping.
    pub fn rest(&mut self) {
        self.copy.store(RESTING, Ordering::Release);
    }

    /// The clock that this reader belongs to.
    #[must_use]
    pub fn quiescence(&self) -> &'q Quiescence {
        self.quiescence
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.rest();
    }
}

/// Proof that a burst is under way. What was found under it must not be kept beyond it, which its lifetime sees to.
pub struct Pin<'r> {
    quiescence: &'r Quiescence,
    worker: u8,
}

impl<'r> Pin<'r> {
    /// The clock, for what a worker itself takes out of sight.
    #[must_use]
    pub fn quiescence(&self) -> &'r Quiescence {
        self.quiescence
    }

    /// Whose burst it is: the worker's index + 1, at most [`MAX_READERS`].
    #[inline]
    #[must_use]
    pub fn worker(&self) -> u8 {
        self.worker
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_passes_when_each_worker_has_pinned_again_or_rests() {
        let q = Quiescence::new(2);
        let mut a = q.reader(0).unwrap();
        let mut b = q.reader(1).unwrap();
        assert!(q.passed(q.retire()), "all rest at first");
        a.pin();
        b.pin();
        let stamp = q.retire();
        assert!(!q.passed(stamp));
        a.pin();
        assert!(!q.passed(stamp));
        b.rest();
        assert!(q.passed(stamp));
        assert!(!q.passed(q.retire()), "a has not pinned since");
    }

    #[test]
    fn memory_nobody_saw_is_free_at_once() {
        let q = Quiescence::new(1);
        q.reader(0).unwrap().pin();
        assert!(q.passed(Stamp::ORIGIN));
        assert!(q.reader(1).is_none());
    }
}
