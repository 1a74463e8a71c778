//! What a worker does with a burst. A packet's walk reads top to bottom:
//!
//! ```text
//! outbound   classify ─► look up ─► mark ─► seal                     inside  ─► outside
//! inbound    classify ─► look up ─► open ─► measure ─► strip         outside ─► inside
//! ```
//!
//! Every stage runs over the whole burst before the next one begins, so that what one packet waits for from memory is fetched
//! while others are worked on. Nothing here allocates, locks, logs, divides by a variable or calls the system. Packets come as
//! [`PacketBuf`](crate::wire::PacketBuf)s, so all of it runs on plain memory in tests and in `pdmgate decode` alike.

mod classify;
mod clock;
mod fate;
mod lookup;
mod mark;
mod measure;
mod open;
mod pointers;
mod rate;
mod search;
mod shared;
mod worker;

pub use clock::Clock;
pub use fate::{Fate, Fates};
pub use pointers::GlobalPointers;
pub use shared::{Shared, View};
pub use worker::Worker;

/// Packets that a worker takes at once.
pub const BURST: usize = 64;

#[cfg(test)]
mod tests;
