//! Loss and reordering of what comes in, from PSNTP alone.
//!
//! ```text
//! word   highest number (32) | missing below it (32)
//! ```
//!
//! A packet that jumps ahead adds the numbers that it skipped to *missing*; one that fills a hole takes one off and counts as
//! reordered (RFC 4737: it is below the highest before it). Numbers are PSNTP carried on to 32 bits. A sender that starts over
//! (restart, eviction) begins at a random PSNTP; that is told by the key having changed together with a jump, and is no loss.

use super::sync::{AtomicU32, AtomicU64, Ordering};

/// A jump longer than this, together with a new key, is a new beginning.
const LONGEST_GAP: u32 = 8_192;

/// Where numbers begin, so that earlier ones than the first do not fall below 0.
const ORIGIN: u32 = 1 << 30;

/// Counts of one direction. All zero is a fresh one.
pub struct Sequence {
    word: AtomicU64,
    first: AtomicU32,
    reordered: AtomicU32,
    earlier_received: AtomicU32,
    earlier_lost: AtomicU32,
}

/// What a [`Sequence`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequenceCounts {
    /// Packets accepted.
    pub received: u64,
    /// Numbers skipped and not seen since.
    pub lost: u64,
    /// Packets below the highest number before them.
    pub reordered: u64,
}

fn pack(top: u32, missing: u32) -> u64 {
    (u64::from(top) << 32) | u64::from(missing)
}

fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

impl Sequence {
    #[cfg(any(test, feature = "loom"))]
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            first: AtomicU32::new(0),
            reordered: AtomicU32::new(0),
            earlier_received: AtomicU32::new(0),
            earlier_lost: AtomicU32::new(0),
        }
    }

    /// Forgets everything; to be called before anyone else can see the flow.
    pub(crate) fn reset(&self) {
        self.word.store(0, Ordering::Relaxed);
        for counter in [
            &self.first,
            &self.reordered,
            &self.earlier_received,
            &self.earlier_lost,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// The number that continues what was seen and ends in `psntp`.
    #[must_use]
    pub fn extend(&self, psntp: u16) -> u32 {
        let (top, _) = unpack(self.word.load(Ordering::Relaxed));
        let top = if top == 0 {
            ORIGIN | u32::from(psntp)
        } else {
            top
        };
        let step = psntp.wrapping_sub(top as u16) as i16;
        top.wrapping_add_signed(i32::from(step))
    }

    /// Counts the accepted packet `psntp`; `new_key` if it is the first of its key. Returns whether it came out of order.
    pub fn count(&self, psntp: u16, new_key: bool) -> bool {
        let mut seen = self.word.load(Ordering::Acquire);
        loop {
            let (top, missing) = unpack(seen);
            if seen == 0 {
                let start = ORIGIN | u32::from(psntp);
                match self.swap(seen, pack(start, 0)) {
                    Ok(_) => {
                        self.first.store(start, Ordering::Relaxed);
                        return false;
                    }
                    Err(now) => seen = now,
                }
                continue;
            }
            let number = top.wrapping_add_signed(i32::from(psntp.wrapping_sub(top as u16) as i16));
            let ahead = number.wrapping_sub(top) as i32;
            if new_key && ahead.unsigned_abs() > LONGEST_GAP {
                match self.swap(seen, pack(number, 0)) {
                    Ok(_) => {
                        let first = self.first.swap(number, Ordering::Relaxed);
                        let span = top.wrapping_sub(first).wrapping_add(1);
                        self.earlier_received
                            .fetch_add(span.wrapping_sub(missing), Ordering::Relaxed);
                        self.earlier_lost.fetch_add(missing, Ordering::Relaxed);
                        return false;
                    }
                    Err(now) => seen = now,
                }
                continue;
            }
            if ahead > 0 {
                let skipped = ahead as u32 - 1;
                match self.swap(seen, pack(number, missing.saturating_add(skipped))) {
                    Ok(_) => return false,
                    Err(now) => seen = now,
                }
                continue;
            }
            // Behind the highest: it fills a hole, or comes from before what was taken for the first.
            let first = self.first.load(Ordering::Relaxed);
            let before = first.wrapping_sub(number) as i32;
            let missing = if before > 0 {
                missing.saturating_add(before as u32 - 1)
            } else {
                missing.saturating_sub(1)
            };
            match self.swap(seen, pack(top, missing)) {
                Ok(_) => {
                    if before > 0 {
                        self.first.store(number, Ordering::Relaxed);
                    }
                    self.reordered.fetch_add(1, Ordering::Relaxed);
                    return true;
                }
                Err(now) => seen = now,
            }
        }
    }

    fn swap(&self, seen: u64, next: u64) -> Result<u64, u64> {
        self.word
            .compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire)
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> SequenceCounts {
        let word = self.word.load(Ordering::Acquire);
        let (top, missing) = unpack(word);
        let span = match word {
            0 => 0,
            _ => top
                .wrapping_sub(self.first.load(Ordering::Relaxed))
                .wrapping_add(1),
        };
        let earlier = |c: &AtomicU32| u64::from(c.load(Ordering::Relaxed));
        SequenceCounts {
            received: u64::from(span.wrapping_sub(missing)) + earlier(&self.earlier_received),
            lost: u64::from(missing) + earlier(&self.earlier_lost),
            reordered: earlier(&self.reordered),
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(numbers: &[u16]) -> SequenceCounts {
        let s = Sequence::new();
        for &n in numbers {
            s.count(n, false);
        }
        s.counts()
    }

    #[test]
    fn counts_holes_and_late_packets() {
        let c = |received, lost, reordered| SequenceCounts {
            received,
            lost,
            reordered,
        };
        assert_eq!(counts(&[]), c(0, 0, 0));
        assert_eq!(counts(&[9, 10, 11]), c(3, 0, 0));
        assert_eq!(counts(&[9, 12]), c(2, 2, 0));
        assert_eq!(counts(&[9, 12, 10]), c(3, 1, 1));
        assert_eq!(counts(&[65_534, 65_535, 1, 0]), c(4, 0, 1));
        assert_eq!(
            counts(&[5, 4, 3, 6]),
            c(4, 0, 2),
            "the first was not the first"
        );
        assert_eq!(counts(&[5, 2, 6]), c(3, 2, 1));
    }

    #[test]
    fn a_jump_with_a_new_key_is_a_new_beginning() {
        let s = Sequence::new();
        for n in [1, 2, 4] {
            s.count(n, false);
        }
        s.count(30_000, true);
        s.count(30_002, false);
        assert_eq!(
            s.counts(),
            SequenceCounts {
                received: 5,
                lost: 2,
                reordered: 0
            }
        );
        s.count(30_005, true);
        assert_eq!(s.counts().lost, 4, "a short jump with a new key is loss");
    }

    proptest! {
        /// Drops and displaces by up to 50 places a run longer than the numbers wrap, and compares with the truth.
        #[test]
        fn matches_what_the_wire_did(
            start in any::<u16>(),
            fates in proptest::collection::vec((0u8..10, 0usize..50), 1..3_000)
        ) {
            let mut order: Vec<(usize, usize)> = fates.iter().enumerate()
                .filter(|(_, (drop, _))| *drop > 0)
                .map(|(i, (_, late))| (i + late, i)).collect();
            order.sort_unstable();
            let s = Sequence::new();
            let mut top = None;
            let mut reordered = 0;
            for &(_, i) in &order {
                s.count(start.wrapping_add(i as u16), false);
                if top.is_some_and(|t| i < t) { reordered += 1; }
                top = top.max(Some(i));
            }
            let lowest = order.iter().map(|o| o.1).min();
            let expected = match (lowest, top) {
                (Some(low), Some(top)) => SequenceCounts {
                    received: order.len() as u64,
                    lost: (top - low + 1 - order.len()) as u64,
                    reordered,
                },
                _ => SequenceCounts::default(),
            };
            prop_assert_eq!(s.counts(), expected);
        }
    }
}
