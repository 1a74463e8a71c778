//! What workers hear of a peer's generations, in cells that all snapshots of a secret share.

use std::sync::atomic::{AtomicU64, Ordering};

/// What was heard from the appliance of one entry under one secret. Numbers that only go up, each of worth by itself, so nothing has to
/// be ordered with anything.
#[derive(Debug, Default)]
pub(super) struct Heard {
    peer: Highest,
    start: Highest,
}

impl Heard {
    pub(super) fn new(peer: Option<u32>, start: Option<u32>) -> Self {
        let heard = Self::default();
        heard.note(peer, start);
        heard
    }

    /// The newest generation heard.
    pub(super) fn peer(&self) -> Option<u32> {
        self.peer.get()
    }

    /// The newest start of ours that the peer is known to have heard of.
    pub(super) fn start(&self) -> Option<u32> {
        self.start.get()
    }

    pub(super) fn note(&self, peer: Option<u32>, start: Option<u32>) {
        self.peer.raise(peer);
        self.start.raise(start);
    }
}

/// The highest number seen, plus 1; 0 before the first.
#[derive(Debug, Default)]
struct Highest(AtomicU64);

impl Highest {
    fn get(&self) -> Option<u32> {
        let plus_one = self.0.load(Ordering::Relaxed);
        plus_one.checked_sub(1).map(|number| number as u32)
    }

    /// Most calls bring nothing new and leave the cache line alone.
    fn raise(&self, to: Option<u32>) {
        let to = to.map_or(0, |number| u64::from(number) + 1);
        if self.0.load(Ordering::Relaxed) < to {
            self.0.fetch_max(to, Ordering::Relaxed);
        }
    }
}
