//! What all workers of a process share.

use super::clock::Clock;
use super::pointers::GlobalPointers;
use crate::crypto::Kernel;
use crate::flow::{FlowTable, Published, Quiescence};
use crate::snapshot::{self, Awaited, Snapshot};
use crate::telemetry::pairing::{self, TooManyPairings};
use crate::telemetry::{PairingStats, Telemetry};
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// Notes of pairs without secret that may wait for the management core.
const AWAITED: usize = 1_024;

const _: () = assert!(
    snapshot::MAX_PAIRINGS == pairing::MAX_PAIRINGS,
    "each pairing of a snapshot has numbers of its own"
);

/// A snapshot with the numbers that its pairings keep across snapshots.
pub struct View {
    /// Pairings, lists and policy.
    pub snapshot: Snapshot,
    /// The numbers of each pairing, in the snapshot's order.
    pub stats: Vec<Arc<PairingStats>>,
}

/// The flow table, the view in force, and what else there is once.
pub struct Shared {
    /// When what left the workers' sight may be reused. Two readers more than there are workers: the management core's and the
    /// telemetry servers'.
    pub quiescence: Quiescence,
    /// All flows.
    pub table: FlowTable,
    /// The view in force.
    pub view: Published<View>,
    /// Global Pointer.
    pub pointers: GlobalPointers,
    /// Secrets of pairs that workers lack. A note that finds no room is left again by a later packet.
    pub awaited: ArrayQueue<Awaited>,
    /// Seals and opens.
    pub kernel: Kernel,
    /// TSC conversions.
    pub clock: Clock,
    /// Counters and delays, a part of them for each worker.
    pub telemetry: Telemetry,
    /// Unix time in seconds, kept by the management core so that no worker has to ask the system.
    pub unix_time: AtomicU32,
}

impl View {
    /// The snapshot with its pairings' numbers, which `telemetry` has from earlier snapshots or makes.
    ///
    /// # Errors
    /// [`TooManyPairings`].
    pub fn new(snapshot: Snapshot, telemetry: &Telemetry) -> Result<Self, TooManyPairings> {
        let stats = snapshot
            .pairings
            .iter()
            .map(|pairing| telemetry.pairings.register(&pairing.name))
            .collect::<Result<_, _>>()?;
        Ok(Self { snapshot, stats })
    }
}

impl Shared {
    /// Everything for as many workers as `telemetry` was made for.
    #[must_use]
    pub fn new(
        telemetry: Telemetry,
        table: FlowTable,
        view: View,
        kernel: Kernel,
        clock: Clock,
    ) -> Self {
        Self {
            quiescence: Quiescence::new(telemetry.workers.len() + 2),
            table,
            view: Published::new(Box::new(view)),
            pointers: GlobalPointers::default(),
            awaited: ArrayQueue::new(AWAITED),
            kernel,
            clock,
            telemetry,
            unix_time: AtomicU32::new(0),
        }
    }

    /// Which reader of `quiescence` is the management core's.
    #[must_use]
    pub fn management_reader(&self) -> usize {
        self.telemetry.workers.len()
    }

    /// Which reader of `quiescence` is the telemetry servers'.
    #[must_use]
    pub fn telemetry_reader(&self) -> usize {
        self.management_reader() + 1
    }
}
