//! What the appliance tells about itself: counters, histograms, records, and the servers that hand them out.

pub mod counters;
pub mod histogram;
pub mod pairing;

pub use counters::{Counter, Direction, DirectionCounters, Totals, WorkerCounters};
pub use histogram::Delays;
pub use pairing::{PairingCounter, PairingStats, Registry, WorkerPairing};
