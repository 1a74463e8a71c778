//! What the appliance tells about itself: counters, histograms, records, and the servers that hand them out.

use std::sync::Arc;

pub mod client;
pub mod counters;
pub mod histogram;
pub mod pairing;
pub mod prometheus;
pub mod records;
pub mod server;
pub mod socket;
pub mod text;

pub use counters::{Counter, Direction, DirectionCounters, Totals, WorkerCounters};
pub use histogram::{Delays, MAX_NS};
pub use pairing::{PairingCounter, PairingStats, Registry, WorkerPairing};
pub use records::{FlowQuery, FlowRecord, Gauges, Stats};

use records::{CounterTree, PairingRecord, WorkerStats};

/// Everything that is counted, from start to end of the process.
#[derive(Debug)]
pub struct Telemetry {
    /// The counters of each worker.
    pub workers: Vec<Arc<WorkerCounters>>,
    /// The numbers of each pairing.
    pub pairings: Registry,
}

impl Telemetry {
    /// All numbers at 0, for `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| Arc::default()).collect(),
            pairings: Registry::new(workers),
        }
    }

    /// The numbers as they stand, in Prometheus' text format.
    #[must_use]
    pub fn metrics(&self, gauges: Gauges) -> String {
        prometheus::render(&self.workers, self.pairings.all(), gauges)
    }

    /// The numbers as they stand, as a record.
    #[must_use]
    pub fn stats(&self, gauges: Gauges) -> Stats {
        let worker = |(index, counters): (usize, &Arc<WorkerCounters>)| WorkerStats {
            index,
            core: gauges.worker_cores.get(index).copied(),
            busy_polls: counters.busy.polls(),
            idle_polls: counters.idle.polls(),
            busy_cycles: counters.busy.cycles(),
            idle_cycles: counters.idle.cycles(),
            counters: CounterTree::of(&Totals::over([counters.as_ref()])),
        };
        let pairings = self.pairings.all();
        Stats {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: gauges.uptime_s,
            flows: gauges.flows,
            counters: CounterTree::of(&Totals::over(self.workers.iter().map(AsRef::as_ref))),
            workers: self.workers.iter().enumerate().map(worker).collect(),
            pairings: pairings.iter().map(|p| PairingRecord::from(&**p)).collect(),
            ports: gauges.ports,
        }
    }
}
