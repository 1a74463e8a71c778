//! Finds the key of an option in a capture that may begin anywhere.
//!
//! An appliance looks a few indices ahead of what opened last, under a budget. Here there is time, but nothing is
//! remembered from before the capture. Keys are tried in this order, each only if its parity is the packet's F:
//!
//! 1. the keys that opened something in this direction of the flow before;
//! 2. in their epochs, `kri` indices ahead, and a few behind for packets that were overtaken;
//! 3. from index 0, the epochs in which anything between the two entries opened;
//! 4. the first indices of epochs with newer generations than the latest of these (than the configured or listed ones if
//!    there are none), as after a restart of either end, and of those that come with another master secret;
//! 5. everything, each from index 0: of static pairings generations from the configured ones on, `generations` ahead for
//!    both ends; of registered ones the listed generations, and `generations` before them.
//!
//! The last step tries hundreds of thousands of keys. A flow of which nothing can be opened, or a corrupted packet,
//! must not cost that each time, so it is taken for a direction's first failures and then ever more rarely.

use arrayvec::ArrayVec;

use super::Windows;
use super::book::Book;
use super::records::KeyRecord;
use crate::crypto::{Kernel, OpenJob, SessionKey};
use crate::flow::Epoch;
use crate::snapshot::Route;
use crate::wire::pdmv2::SEALED_SIZE;
use crate::wire::{FiveTuple, Metrics};

/// Keys kept per direction of a flow. A flow changes keys at most every 256 packets, so older ones come late.
const KEPT: usize = 8;
/// Indices tried behind the last one.
const BEHIND: u32 = 8;
/// Indices tried of an epoch that nothing points to but a newer generation.
const FIRST_INDICES: u32 = 8;
/// Failures that each may try everything.
const THOROUGH_FAILURES: u64 = 4;

/// What looking for keys needs.
pub(super) struct Finder<'a> {
    pub book: &'a Book,
    pub kernel: &'a Kernel,
    pub windows: Windows,
    /// When the packet was captured, in Unix seconds.
    pub time: u64,
}

/// One option to open.
struct Sealed<'a> {
    route: &'a Route,
    tuple: &'a FiveTuple,
    option: &'a [u8; SEALED_SIZE],
    f: bool,
}

/// A key that opened something.
struct Found {
    epoch: Epoch,
    kri: u32,
    key: SessionKey,
}

/// The keys of one direction of a flow, the latest first.
#[derive(Default)]
pub(super) struct Keys {
    found: ArrayVec<Found, KEPT>,
    failures: u64,
}

impl Keys {
    /// Opens an option of a packet `tuple`; `route` takes its source as the local end. `heard` are the epochs in which
    /// anything from the one entry to the other opened, the latest first.
    pub fn open(
        &mut self,
        finder: &Finder<'_>,
        route: &Route,
        tuple: &FiveTuple,
        option: &[u8; SEALED_SIZE],
        f: bool,
        heard: &mut Vec<Epoch>,
    ) -> Option<(KeyRecord, Metrics)> {
        let sealed = Sealed {
            route,
            tuple,
            option,
            f,
        };
        if let Some((at, metrics)) = self.kept(finder, &sealed) {
            let found = self.found.get(at)?;
            return Some((KeyRecord::new(&found.epoch, found.kri), metrics));
        }
        let Some((found, metrics)) = self.search(finder, &sealed, heard) else {
            self.failures += 1;
            return None;
        };
        heard.retain(|epoch| *epoch != found.epoch);
        heard.insert(0, found.epoch);
        let record = KeyRecord::new(&found.epoch, found.kri);
        if self.found.is_full() {
            self.found.pop();
        }
        self.found.insert(0, found);
        Some((record, metrics))
    }

    /// Step 1: the place of the key that opens it.
    fn kept(&self, finder: &Finder<'_>, sealed: &Sealed<'_>) -> Option<(usize, Metrics)> {
        let kept = self.found.iter().enumerate();
        kept.filter(|(_, found)| is_odd(found.kri) == sealed.f)
            .find_map(|(at, found)| Some((at, finder.try_key(sealed, &found.epoch, &found.key)?)))
    }

    fn search(
        &self,
        finder: &Finder<'_>,
        sealed: &Sealed<'_>,
        heard: &[Epoch],
    ) -> Option<(Found, Metrics)> {
        let Windows { kri, generations } = finder.windows;
        // Step 2.
        for epoch in self.epochs() {
            let newest = self.newest(epoch);
            let behind = newest.saturating_sub(BEHIND);
            let found = finder
                .try_indices(sealed, epoch, newest, newest.saturating_add(kri))
                .or_else(|| finder.try_indices(sealed, epoch, behind, newest));
            if found.is_some() {
                return found;
            }
        }
        // Step 3.
        let others = heard
            .iter()
            .filter(|epoch| self.found.iter().all(|found| found.epoch != **epoch));
        for epoch in others {
            let found = finder.try_indices(sealed, *epoch, 0, kri);
            if found.is_some() {
                return found;
            }
        }
        // Step 4.
        let latest = heard.first().copied();
        let mut begun = finder
            .book
            .begun(sealed.route, latest, generations, finder.time);
        let found = begun.find_map(|epoch| finder.try_indices(sealed, epoch, 0, FIRST_INDICES));
        if found.is_some() {
            return found;
        }
        // Step 5.
        if self.failures >= THOROUGH_FAILURES && !(self.failures + 1).is_power_of_two() {
            return None;
        }
        let mut all = finder.book.all(sealed.route, generations, finder.time);
        all.find_map(|epoch| finder.try_indices(sealed, epoch, 0, kri))
    }

    /// The epochs of the keys that are kept, each once.
    fn epochs(&self) -> impl Iterator<Item = Epoch> {
        let epochs: ArrayVec<Epoch, KEPT> = self.found.iter().map(|found| found.epoch).collect();
        (0..epochs.len()).filter_map(move |at| {
            let epoch = *epochs.get(at)?;
            (!epochs.get(..at)?.contains(&epoch)).then_some(epoch)
        })
    }

    fn newest(&self, epoch: Epoch) -> u32 {
        let of_epoch = self.found.iter().filter(|found| found.epoch == epoch);
        of_epoch.map(|found| found.kri).max().unwrap_or(0)
    }
}

fn is_odd(kri: u32) -> bool {
    kri & 1 == 1
}

impl Finder<'_> {
    /// Tries the indices of an epoch from `first` to `last` that have the right parity.
    fn try_indices(
        &self,
        sealed: &Sealed<'_>,
        epoch: Epoch,
        first: u32,
        last: u32,
    ) -> Option<(Found, Metrics)> {
        let first = first.saturating_add(u32::from(is_odd(first) != sealed.f));
        (first..=last).step_by(2).find_map(|kri| {
            let key = self
                .book
                .session_key(sealed.route, &epoch, sealed.tuple, kri)?;
            let metrics = self.try_key(sealed, &epoch, &key)?;
            Some((Found { epoch, kri, key }, metrics))
        })
    }

    fn try_key(&self, sealed: &Sealed<'_>, epoch: &Epoch, key: &SessionKey) -> Option<Metrics> {
        let aead = self.book.aead(sealed.route, epoch)?;
        let mut jobs = [OpenJob::new(key, sealed.option)];
        self.kernel.open(aead, &mut jobs);
        let [job] = jobs;
        job.opened.metrics().map(Metrics::from_bytes)
    }
}
