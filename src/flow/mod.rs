//! The flow table and what a flow remembers. All workers share it; nobody locks.
//!
//! | module | holds |
//! |---|---|
//! | [`table`] | entries, look-up, insert, ageing |
//! | [`index`] | buckets from hash to entry |
//! | [`entry`] | one flow, split by who writes what |
//! | [`outgoing`], [`out_key`] | the one source of (Kri, PRSEQ, PSNTP), keys that seal |
//! | [`floor`] | where Kris may start |
//! | [`owner`] | which worker a flow's half belongs to |
//! | [`incoming`], [`replay`] | keys that open, windows |
//! | [`places`] | where those are, for all flows |
//! | `free` | which entries and places are free |
//! | [`memory`] | what evicted flows had accepted |
//! | [`sequence`], [`times`] | loss, reordering, send times |
//! | [`quiescence`] | when something shared may be reused |
#![allow(unsafe_code)]

pub mod entry;
pub mod epoch;
pub mod floor;
mod free;
pub mod hash;
pub mod incoming;
pub mod index;
pub mod memory;
#[cfg(all(test, feature = "loom"))]
mod model;
pub mod out_key;
pub mod outgoing;
pub mod owner;
pub mod places;
pub mod published;
pub mod quiescence;
pub mod replay;
pub mod sequence;
pub mod slab;
mod sync;
pub mod table;
pub mod times;

pub use entry::Entry;
pub use epoch::Epoch;
pub use owner::Access;
pub use published::{Published, Publisher};
pub use quiescence::{Pin, Quiescence, Reader, Stamp};
pub use table::{Ageing, FlowTable, NoFlow};

/// Fetches the first cache line of a value that will be read soon.
pub(crate) fn prefetch<T>(value: &T) {
    crate::prefetch::prefetch_line(std::ptr::from_ref(value).cast());
}

/// Fetches all cache lines of a value that will be written soon.
pub(crate) fn prefetch_whole<T>(value: &T) {
    let start = std::ptr::from_ref(value).cast::<u8>();
    for at in (0..size_of::<T>()).step_by(64) {
        crate::prefetch::prefetch_line(start.wrapping_add(at));
    }
}
