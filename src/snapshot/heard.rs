//! What workers hear of a peer's generations, in cells that all snapshots of a secret share.

use std::sync::atomic::{AtomicU32, Ordering};

/// What was heard from the appliance of one entry under one secret. Numbers that only go up, each of worth by itself, so nothing has to
/// be ordered with anything.
#[derive(Debug)]
pub(super) struct Heard {
    /// Its newest generation.
    peer: AtomicU32,
    /// One more than the newest start of ours that it has heard of; 0 while none is known.
    start: AtomicU32,
}

impl Heard {
    pub(super) fn new(peer: u32, start: Option<u32>) -> Self {
        Self {
            peer: AtomicU32::new(peer),
            start: AtomicU32::new(start.map_or(0, |start| start.saturating_add(1))),
        }
    }

    /// The newest generation heard, or where to begin looking.
    pub(super) fn peer(&self) -> u32 {
        self.peer.load(Ordering::Relaxed)
    }

    /// The newest start of ours that the peer has heard of.
    pub(super) fn start(&self) -> Option<u32> {
        self.start.load(Ordering::Relaxed).checked_sub(1)
    }

    pub(super) fn note(&self, peer: u32, start: Option<u32>) {
        raise(&self.peer, peer);
        if let Some(start) = start {
            raise(&self.start, start.saturating_add(1));
        }
    }
}

/// Most calls bring nothing new and leave the cache line alone.
fn raise(cell: &AtomicU32, to: u32) {
    if cell.load(Ordering::Relaxed) < to {
        cell.fetch_max(to, Ordering::Relaxed);
    }
}
