//! What the receiver remembers of flows that it evicted (protocol section 4): each track's epoch, Kri and last PSNTP.
//!
//! A fixed number of records in sets of four, the oldest of a set overwritten first. One thread (ageing) writes; workers
//! read when an unknown flow's packet opened. A record is guarded by a counter that is odd while it is written, so a reader
//! takes a record whole or not at all; one that is being written belongs to a flow evicted this very moment, whose
//! packets are refused until then.

use super::entry::Remembered;
use super::epoch::Epoch;
use super::slab::Slab;
use super::sync::{AtomicU64, Ordering, fence};
use arrayvec::ArrayVec;
use std::io;

/// Records of one set, so tracks that can be remembered of one flow.
pub const WAYS: usize = 4;

/// The version, then four words of content.
#[repr(C)]
pub(crate) struct Record {
    version: AtomicU64,
    hash: AtomicU64,
    generations: AtomicU64,
    key: AtomicU64,
    psntp: AtomicU64,
}

#[cfg(not(feature = "loom"))]
// SAFETY: zero bytes are five zero atomics: version 0, an empty record.
unsafe impl super::slab::Zeroed for Record {}

/// A packet is not beyond what its flow accepted before it was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind;

/// The records.
pub struct Memory {
    records: Slab<Record>,
    mask: u64,
}

impl Memory {
    /// Room for about `tracks` tracks.
    pub(crate) fn new(tracks: usize, huge: bool) -> io::Result<Self> {
        let sets = (tracks / WAYS).next_power_of_two();
        #[cfg(not(feature = "loom"))]
        let records = Slab::new(sets * WAYS, huge)?;
        #[cfg(feature = "loom")]
        let records = {
            let _ = huge;
            Slab::owned(sets * WAYS, || Record {
                version: AtomicU64::new(0),
                hash: AtomicU64::new(0),
                generations: AtomicU64::new(0),
                key: AtomicU64::new(0),
                psntp: AtomicU64::new(0),
            })
        };
        Ok(Self {
            records,
            mask: sets as u64 - 1,
        })
    }

    fn set(&self, hash: u64) -> &[Record] {
        let start = (hash & self.mask) as usize * WAYS;
        self.records.get(start..start + WAYS).unwrap_or(&[])
    }

    /// Remembers a track of the flow with this hash. Only the ageing thread calls this.
    pub(crate) fn remember(&self, hash: u64, track: &Remembered) {
        let version = |r: &Record| r.version.load(Ordering::Relaxed);
        let same = |r: &&Record| {
            version(r) != 0
                && r.hash.load(Ordering::Relaxed) == hash
                && r.generations.load(Ordering::Relaxed) >> 32
                    == u64::from(track.epoch.src_generation)
        };
        let set = self.set(hash);
        let Some(record) = set
            .iter()
            .find(same)
            .or_else(|| set.iter().min_by_key(|r| version(r)))
        else {
            return;
        };
        // Versions of a set grow together, so the least one is the oldest.
        let newest = set.iter().map(version).max().unwrap_or(0);
        let next = (newest | 1) + 1;
        record.version.store(next | 1, Ordering::Relaxed);
        fence(Ordering::Release);
        record.hash.store(hash, Ordering::Relaxed);
        let e = &track.epoch;
        record.generations.store(
            (u64::from(e.src_generation) << 32) | u64::from(e.dst_generation),
            Ordering::Relaxed,
        );
        record.key.store(
            (u64::from(e.pms_serial) << 32) | u64::from(track.kri),
            Ordering::Relaxed,
        );
        record
            .psntp
            .store(u64::from(track.psntp), Ordering::Relaxed);
        record.version.store(next + 2, Ordering::Release);
    }

    /// Whether an opened packet of the flow with this hash is beyond all that is remembered of it; and if so, the last PSNTP that was
    /// accepted under its very key, if any was.
    ///
    /// # Errors
    /// [`Behind`].
    pub fn beyond(
        &self,
        hash: u64,
        epoch: &Epoch,
        kri: u32,
        psntp: u16,
    ) -> Result<Option<u16>, Behind> {
        let tracks = self.tracks(hash);
        if !tracks.iter().all(|track| track.allows(epoch, kri, psntp)) {
            return Err(Behind);
        }
        let same_key = tracks
            .iter()
            .find(|track| track.epoch == *epoch && track.kri == kri);
        Ok(same_key.map(|track| track.psntp))
    }

    /// What is remembered of the flow with this hash.
    #[must_use]
    pub fn tracks(&self, hash: u64) -> ArrayVec<Remembered, WAYS> {
        let mut tracks = ArrayVec::new();
        for record in self.set(hash) {
            let before = record.version.load(Ordering::Acquire);
            let found = record.hash.load(Ordering::Relaxed);
            let generations = record.generations.load(Ordering::Relaxed);
            let key = record.key.load(Ordering::Relaxed);
            let psntp = record.psntp.load(Ordering::Relaxed) as u16;
            fence(Ordering::Acquire);
            let whole =
                before != 0 && before & 1 == 0 && record.version.load(Ordering::Relaxed) == before;
            if whole && found == hash {
                let _ = tracks.try_push(Remembered {
                    epoch: Epoch {
                        pms_serial: (key >> 32) as u32,
                        src_generation: (generations >> 32) as u32,
                        dst_generation: generations as u32,
                    },
                    kri: key as u32,
                    psntp,
                });
            }
        }
        tracks
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    fn track(src_generation: u32, kri: u32) -> Remembered {
        Remembered {
            epoch: Epoch {
                pms_serial: 1,
                src_generation,
                dst_generation: 1,
            },
            kri,
            psntp: 100,
        }
    }

    #[test]
    fn refuses_what_a_forgotten_flow_had_accepted() {
        let m = Memory::new(64, false).unwrap();
        let e = track(1, 0).epoch;
        assert_eq!(m.beyond(5, &e, 0, 0), Ok(None));
        m.remember(5, &track(1, 2));
        assert_eq!(m.beyond(5, &e, 2, 100), Err(Behind));
        assert_eq!(m.beyond(5, &e, 1, 101), Err(Behind));
        assert_eq!(m.beyond(5, &e, 2, 101), Ok(Some(100)));
        assert_eq!(m.beyond(5, &e, 3, 0), Ok(None), "another key");
        assert_eq!(m.beyond(6, &e, 0, 0), Ok(None), "another flow");
        m.remember(5, &track(1, 9));
        assert_eq!(m.beyond(5, &e, 8, 0), Err(Behind));
        assert_eq!(m.tracks(5).len(), 1, "a track has one record");
    }

    #[test]
    fn forgets_the_oldest_of_a_full_set() {
        let m = Memory::new(4, false).unwrap();
        for hash in 1..=5 {
            m.remember(hash, &track(1, 3));
        }
        let e = track(1, 0).epoch;
        assert_eq!(m.beyond(1, &e, 0, 0), Ok(None), "the oldest went");
        for hash in 2..=5 {
            assert_eq!(m.beyond(hash, &e, 0, 0), Err(Behind), "{hash}");
        }
    }
}
