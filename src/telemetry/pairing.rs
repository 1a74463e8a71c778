//! Numbers kept per pairing and worker: delays, and what became of the options.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

use super::counters::bump;
use super::histogram::{DelayHistogram, Delays};

/// Pairings that can have numbers at the same time: a slot fits one byte of a flow entry.
pub const MAX_PAIRINGS: usize = 256;

macro_rules! pairing_counters {
    ($( $counter:ident $name:literal $help:literal )+) => {
        /// Events counted per pairing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum PairingCounter {
            $( #[doc = concat!($help, ".")] $counter, )+
        }

        impl PairingCounter {
            /// All of them, in the order of declaration.
            pub const ALL: &[Self] = &[$( Self::$counter, )+];

            /// Name in JSON, and in Prometheus between `pdmgate_pairing_` and `_total`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$counter => $name, )+ }
            }

            /// One sentence, without a full stop.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $( Self::$counter => $help, )+ }
            }
        }
    };
}

pairing_counters! {
    Marked "marked" "Packets of the pairing that were given an option"
    Opened "opened" "Options of the pairing that opened, or were read in the clear"
    Failed "failed" "Options of the pairing that failed to open"
    Replayed "replayed" "Options of the pairing dropped as replays"
    Skipped "skipped" "Numbers that PSNTP jumped over"
    Late "late" "Packets that arrived after PSNTP had jumped over them: skipped less late is lost"
    Stuck "stuck" "Times that a thousand options in a row of a flow failed to open"
    Reordered "reordered" "Packets that arrived behind a later one"
}

const COUNT: usize = PairingCounter::ALL.len();

/// One worker's numbers of one pairing. Only that worker writes them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerPairing {
    counters: [AtomicU64; COUNT],
    rtt: DelayHistogram,
    server_delay: DelayHistogram,
}

impl WorkerPairing {
    /// Adds `n` to a counter.
    #[inline]
    pub fn add(&self, counter: PairingCounter, n: u64) {
        if let Some(slot) = self.counters.get(counter as usize) {
            bump(slot, n);
        }
    }

    /// Records a network round-trip time in nanoseconds.
    #[inline]
    pub fn record_rtt_ns(&self, ns: u64) {
        self.rtt.record(ns);
    }

    /// Records the peer's DeltaTLR, the server delay, in nanoseconds.
    #[inline]
    pub fn record_server_delay_ns(&self, ns: u64) {
        self.server_delay.record(ns);
    }
}

/// The numbers of one pairing over all workers, allocated when the pairing is registered.
#[derive(Debug)]
pub struct PairingStats {
    name: String,
    slot: u8,
    /// At least one.
    workers: Box<[WorkerPairing]>,
}

impl PairingStats {
    fn new(name: &str, slot: u8, workers: usize) -> Self {
        Self {
            name: name.to_owned(),
            slot,
            workers: (0..workers.max(1))
                .map(|_| WorkerPairing::default())
                .collect(),
        }
    }

    /// Name of the pairing.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its slot, which no other pairing has while anybody holds these numbers.
    #[must_use]
    pub fn slot(&self) -> u8 {
        self.slot
    }

    /// The part that worker `index` writes.
    #[inline]
    #[must_use]
    pub fn worker(&self, index: usize) -> &WorkerPairing {
        // An index out of range is a bug of the caller, but no reason to stop forwarding: it shares the last part.
        &self.workers[index.min(self.workers.len() - 1)]
    }

    /// A counter over all workers.
    #[must_use]
    pub fn get(&self, counter: PairingCounter) -> u64 {
        self.workers
            .iter()
            .filter_map(|w| w.counters.get(counter as usize))
            .map(|slot| slot.load(Ordering::Relaxed))
            .fold(0, u64::wrapping_add)
    }

    /// Network round-trip times over all workers.
    #[must_use]
    pub fn rtt(&self) -> Delays {
        Delays::over(self.workers.iter().map(|w| &w.rtt))
    }

    /// Server delays over all workers.
    #[must_use]
    pub fn server_delay(&self) -> Delays {
        Delays::over(self.workers.iter().map(|w| &w.server_delay))
    }
}

/// All slots are taken by pairings in use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no room for pairing '{name}': {MAX_PAIRINGS} pairings are in use, and no more can be")]
pub struct TooManyPairings {
    /// The pairing that found no slot.
    pub name: String,
}

/// The numbers of all pairings, by name: a pairing that is taken out of the configuration and comes back, or that only
/// changes its lists, goes on counting where it was.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    slots: Mutex<Vec<Arc<PairingStats>>>,
}

impl Registry {
    /// An empty registry for `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            slots: Mutex::new(Vec::new()),
        }
    }

    /// The numbers of the pairing called `name`, which keep their slot for as long as there are slots to spare. For the
    /// management core: it locks and allocates.
    ///
    /// # Errors
    /// [`TooManyPairings`] if all slots are held by others.
    pub fn register(&self, name: &str) -> Result<Arc<PairingStats>, TooManyPairings> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = slots.iter().find(|stats| stats.name == name) {
            return Ok(Arc::clone(known));
        }
        if let Ok(slot) = u8::try_from(slots.len()) {
            let stats = Arc::new(PairingStats::new(name, slot, self.workers));
            slots.push(Arc::clone(&stats));
            return Ok(stats);
        }
        // The registry holds the only reference to the numbers of pairings that no snapshot names any more. Nobody can
        // take another one meanwhile, because the lock is held.
        let gone = slots
            .iter_mut()
            .find(|stats| Arc::strong_count(stats) == 1)
            .ok_or_else(|| TooManyPairings {
                name: name.to_owned(),
            })?;
        *gone = Arc::new(PairingStats::new(name, gone.slot, self.workers));
        Ok(Arc::clone(gone))
    }

    /// The numbers of all pairings, by slot.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<PairingStats>> {
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_slot_and_numbers() {
        let registry = Registry::new(2);
        let campus = registry.register("campus").unwrap();
        let lab = registry.register("lab").unwrap();
        assert_eq!((campus.slot(), lab.slot()), (0, 1));
        campus.worker(0).add(PairingCounter::Skipped, 3);
        campus.worker(1).add(PairingCounter::Skipped, 4);
        campus.worker(1).record_rtt_ns(1_000);
        campus.worker(0).record_server_delay_ns(2_000);
        drop(campus);
        let again = registry.register("campus").unwrap();
        assert_eq!(again.slot(), 0);
        assert_eq!(again.get(PairingCounter::Skipped), 7);
        assert_eq!(again.get(PairingCounter::Marked), 0);
        assert_eq!(again.rtt().count(), 1);
        assert_eq!(again.server_delay().sum_ns, 2_000);
        assert_eq!(registry.all().len(), 2);
        assert_eq!(lab.name(), "lab");
    }

    #[test]
    fn slots_of_forgotten_pairings_are_reused_only_when_all_are_taken() {
        let registry = Registry::new(1);
        let mut held: Vec<_> = (0..MAX_PAIRINGS)
            .map(|n| registry.register(&format!("p{n}")).unwrap())
            .collect();
        let error = registry.register("one more").unwrap_err();
        assert_eq!(error.name, "one more");
        let freed = held.remove(7);
        freed.worker(0).add(PairingCounter::Opened, 1);
        drop(freed);
        let stats = registry.register("one more").unwrap();
        assert_eq!(stats.slot(), 7);
        assert_eq!(stats.get(PairingCounter::Opened), 0);
        assert_eq!(registry.all().len(), MAX_PAIRINGS);
    }

    #[test]
    fn a_worker_that_does_not_exist_gets_the_last_part() {
        let stats = PairingStats::new("x", 0, 0);
        stats.worker(9).add(PairingCounter::Failed, 1);
        assert_eq!(stats.get(PairingCounter::Failed), 1);
    }
}
