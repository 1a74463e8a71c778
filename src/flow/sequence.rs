//! Loss and reordering of what comes in, from PSNTP alone.
//!
//! ```text
//! word   highest number (32) | missing below it (32)
//! ```
//!
//! A packet that jumps ahead adds the numbers that it skipped to *missing*; one that fills a hole takes one off and counts as
//! reordered (RFC 4737: it is below the highest before it). Numbers are PSNTP carried on to 32 bits.
//!
//! A sender that starts over (restart, eviction) begins at a random PSNTP, and that is no loss. It is told by a new key that is of
//! another generation, or whose packet has forgotten what it had heard; packets of older keys that are still under way then are
//! far off, and are left out. In the clear there is no key, and a long jump alone is a new beginning.

use super::owner::Access;
use super::sync::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// A jump longer than this is a new beginning where there can be one: of the numbers that a sender may begin with, 1.6 % lie
/// nearer and look like loss or reordering.
const LONGEST_GAP: u32 = 512;

/// A longer jump ahead is a new beginning even where a new key shows no other sign of one: of such a sender nobody knows whether it
/// started over, as nothing is ever sent to it.
const LONGEST_LOSS: u32 = 8_192;

/// Where numbers begin, so that earlier ones than the first do not fall below 0.
const ORIGIN: u32 = 1 << 30;
/// When a series has become as long as this, it is put away and another begins, so that the counts do not wrap.
const LONGEST_SERIES: u32 = 1 << 29;

/// Counts of one direction. All zero is a fresh one.
///
/// What every packet reads comes first: a flow's entry has it on a line that is fetched.
#[repr(C)]
pub struct Sequence {
    word: AtomicU64,
    first: AtomicU32,
    track: AtomicU8,
    reordered: AtomicU32,
    earlier_received: AtomicU64,
    earlier_lost: AtomicU64,
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

/// What a packet's key says of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAge {
    /// The first packet of a new key, by a sender that has started over; or the flow is another sender's again.
    Fresh,
    /// The first packet of a new key, by a sender that goes on for all that is known.
    New,
    /// The key in use: it numbers on.
    Current,
    /// An older key: a number far off is none of this series.
    Old,
    /// No key: only the number itself tells.
    None,
}

/// What one packet changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Numbers that it jumped over.
    pub skipped: u32,
    /// Whether it filled a hole.
    pub late: bool,
    /// Whether it came below the highest number.
    pub reordered: bool,
}

fn pack(top: u32, missing: u32) -> u64 {
    (u64::from(top) << 32) | u64::from(missing)
}

fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

/// The number nearest to `top` that ends in `psntp`.
fn near(top: u32, psntp: u16) -> u32 {
    top.wrapping_add_signed(i32::from(psntp.wrapping_sub(top as u16) as i16))
}

fn is_far(top: u32, number: u32) -> bool {
    (number.wrapping_sub(top) as i32).unsigned_abs() > LONGEST_GAP
}

/// Whether a packet far ahead of the highest number, or behind it, begins a series.
fn is_beginning(key: KeyAge, ahead: i32) -> bool {
    match key {
        KeyAge::Fresh | KeyAge::None => true,
        KeyAge::New => ahead < 0 || ahead.unsigned_abs() > LONGEST_LOSS,
        KeyAge::Current | KeyAge::Old => false,
    }
}

/// A number that ends in `psntp` and is ahead of everything before `top`.
fn beyond(top: u32, psntp: u16) -> u32 {
    (top & 0xffff_0000).wrapping_add(0x2_0000) | u32::from(psntp)
}

impl Sequence {
    #[cfg(any(test, feature = "loom"))]
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            first: AtomicU32::new(0),
            reordered: AtomicU32::new(0),
            earlier_received: AtomicU64::new(0),
            earlier_lost: AtomicU64::new(0),
            track: AtomicU8::new(0),
        }
    }

    /// Forgets everything; to be called before anyone else can see the flow.
    pub(crate) fn reset(&self) {
        for counter in [&self.word, &self.earlier_received, &self.earlier_lost] {
            counter.store(0, Ordering::Relaxed);
        }
        for counter in [&self.first, &self.reordered] {
            counter.store(0, Ordering::Relaxed);
        }
        self.track.store(0, Ordering::Relaxed);
    }

    /// Whether the packet before was of this track too, where each sender has one: senders number apart.
    #[inline]
    pub fn is_of(&self, track: u8) -> bool {
        let same = self.track.load(Ordering::Relaxed) == track;
        if !same {
            self.track.store(track, Ordering::Relaxed);
        }
        same
    }

    /// The number of a packet in the clear: the one that continues what was seen and ends in `psntp`, or one beyond all of it if
    /// the sender started over.
    #[must_use]
    pub fn extend(&self, psntp: u16) -> u32 {
        let (top, _) = unpack(self.word.load(Ordering::Relaxed));
        match top {
            0 => ORIGIN | u32::from(psntp),
            top if is_far(top, near(top, psntp)) => beyond(top, psntp),
            top => near(top, psntp),
        }
    }

    /// Counts the accepted packet `psntp`; `None` if it is the next one.
    #[inline]
    pub fn count(&self, psntp: u16, key: KeyAge, access: Access<'_>) -> Option<Step> {
        let seen = self.word.load(Ordering::Acquire);
        let (top, missing) = unpack(seen);
        let next = top.wrapping_add(1);
        let first = self.first.load(Ordering::Relaxed);
        // What nearly every packet is: the next one of a series that is not too long.
        if next as u16 == psntp
            && seen != 0
            && next.wrapping_sub(first) <= LONGEST_SERIES
            && access
                .replace(&self.word, seen, pack(next, missing))
                .is_ok()
        {
            return None;
        }
        Some(self.count_any(psntp, key, access))
    }

    /// [`Sequence::count`] of any packet.
    #[cold]
    #[inline(never)]
    fn count_any(&self, psntp: u16, key: KeyAge, access: Access<'_>) -> Step {
        let mut seen = self.word.load(Ordering::Acquire);
        loop {
            let (top, _) = unpack(seen);
            let number = near(top, psntp);
            let outcome = if seen == 0 {
                self.begin(access, seen, ORIGIN | u32::from(psntp))
            } else if is_far(top, number) && key == KeyAge::Old {
                return Step::default();
            } else if is_far(top, number) && is_beginning(key, number.wrapping_sub(top) as i32) {
                self.begin(access, seen, beyond(top, psntp))
            } else if (number.wrapping_sub(top) as i32) > 0 {
                self.advance(access, seen, number)
            } else {
                self.fill(access, seen, number)
            };
            match outcome {
                Ok(step) => return step,
                Err(now) => seen = now,
            }
        }
    }

    /// Puts the series so far away and begins one at `number`.
    fn begin(&self, access: Access<'_>, seen: u64, number: u32) -> Result<Step, u64> {
        access.replace(&self.word, seen, pack(number, 0))?;
        let first = self.first.swap(number, Ordering::Relaxed);
        if seen != 0 {
            let (top, missing) = unpack(seen);
            let span = top.wrapping_sub(first).wrapping_add(1);
            let received = span.wrapping_sub(missing);
            self.earlier_received
                .fetch_add(received.into(), Ordering::Relaxed);
            self.earlier_lost
                .fetch_add(missing.into(), Ordering::Relaxed);
        }
        Ok(Step::default())
    }

    fn advance(&self, access: Access<'_>, seen: u64, number: u32) -> Result<Step, u64> {
        let (top, missing) = unpack(seen);
        let skipped = number.wrapping_sub(top) - 1;
        let first = self.first.load(Ordering::Relaxed);
        if number.wrapping_sub(first) > LONGEST_SERIES && skipped == 0 {
            return self.begin(access, seen, number);
        }
        let next = pack(number, missing.saturating_add(skipped));
        access.replace(&self.word, seen, next)?;
        Ok(Step {
            skipped,
            ..Step::default()
        })
    }

    /// A number that is not above the highest: it fills a hole, or comes from before what was taken for the first.
    fn fill(&self, access: Access<'_>, seen: u64, number: u32) -> Result<Step, u64> {
        let (top, missing) = unpack(seen);
        let first = self.first.load(Ordering::Relaxed);
        let before = first.wrapping_sub(number) as i32;
        let skipped = (before - 1).max(0) as u32;
        let missing = if before > 0 {
            missing.saturating_add(skipped)
        } else {
            missing.saturating_sub(1)
        };
        access.replace(&self.word, seen, pack(top, missing))?;
        if before > 0 {
            self.first.store(number, Ordering::Relaxed);
        }
        self.reordered.fetch_add(1, Ordering::Relaxed);
        Ok(Step {
            skipped,
            late: before <= 0,
            reordered: true,
        })
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
        let received = u64::from(span.wrapping_sub(missing));
        SequenceCounts {
            received: received + self.earlier_received.load(Ordering::Relaxed),
            lost: u64::from(missing) + self.earlier_lost.load(Ordering::Relaxed),
            reordered: self.reordered.load(Ordering::Relaxed).into(),
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::mem::offset_of;

    #[test]
    fn what_every_packet_reads_comes_first() {
        assert!(offset_of!(Sequence, track) < 16);
    }

    fn counts(numbers: &[u16]) -> SequenceCounts {
        let s = Sequence::new();
        for &n in numbers {
            s.count(n, KeyAge::Current, Access::shared());
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
            s.count(n, KeyAge::Current, Access::shared());
        }
        s.count(30_000, KeyAge::Fresh, Access::shared());
        s.count(5, KeyAge::Old, Access::shared());
        s.count(30_002, KeyAge::Current, Access::shared());
        assert_eq!(
            s.counts(),
            SequenceCounts {
                received: 5,
                lost: 2,
                reordered: 0
            }
        );
        s.count(30_005, KeyAge::New, Access::shared());
        assert_eq!(s.counts().lost, 4, "a short jump with a new key is loss");
        s.count(31_006, KeyAge::New, Access::shared());
        assert_eq!(
            s.counts().lost,
            1_004,
            "and so is a longer one, if nothing tells of a restart"
        );
    }

    #[test]
    fn in_the_clear_a_long_jump_either_way_is_a_new_beginning() {
        let s = Sequence::new();
        for n in [40_000, 40_001, 100, 101, 103, 60_000] {
            let number = s.extend(n);
            s.count(n, KeyAge::None, Access::shared());
            assert_eq!(
                s.extend(n),
                number,
                "what the window is asked is what is counted"
            );
        }
        let counts = s.counts();
        assert_eq!((counts.received, counts.lost), (6, 1));
    }

    #[test]
    fn counts_on_past_what_a_word_holds() {
        let s = Sequence::new();
        s.word
            .store(pack(ORIGIN + LONGEST_SERIES, 7), Ordering::Relaxed);
        s.first.store(ORIGIN, Ordering::Relaxed);
        let next = (ORIGIN + LONGEST_SERIES + 1) as u16;
        for n in 0..10 {
            s.count(next.wrapping_add(n), KeyAge::Current, Access::shared());
        }
        let counts = s.counts();
        assert_eq!(counts.lost, 7);
        assert_eq!(counts.received, u64::from(LONGEST_SERIES) + 1 - 7 + 10);
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
                s.count(start.wrapping_add(i as u16), KeyAge::Current, Access::shared());
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
