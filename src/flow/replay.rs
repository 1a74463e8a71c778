//! The replay window of one key, over PSNTP (protocol section 4).
//!
//! The classic window is a bitmap that slides, which takes a lock once two workers share it. Here the numbers are cut into
//! blocks of 32; a block is one word of *tag* (the block's number) and 32 bits, kept at place `block % 4`:
//!
//! ```text
//! word   block's number (32) | one bit a PSNTP (32)
//! ```
//!
//! A number is accepted by replacing one word ([`super::owner`] says how), which sets its bit there or takes the place of an older block.
//! Tags only go up, so a bit once set is either still there or its block is refused as too old: no number is accepted twice,
//! whatever workers race. The window is 97 to 128 numbers wide.

use super::owner::Access;
use super::sync::{AtomicU64, Ordering};
use std::hint::cold_path;

const WORDS: usize = 4;

/// The window. All zero is not empty: it has to be reset first.
pub struct Window {
    words: [AtomicU64; WORDS],
}

/// Why a number is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// It was accepted before.
    Repeated,
    /// It is behind the window.
    TooOld,
}

/// Whether a block lies before another on the circle of 2^27 blocks.
fn is_older(tag: u32, block: u32) -> bool {
    ((tag.wrapping_sub(block) << 5) as i32) < 0
}

impl Window {
    #[cfg(any(test, feature = "loom"))]
    pub(crate) fn new() -> Self {
        Self {
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// A word for whoever has a window that is not in use: to be [`reset`](Window::reset) before it is.
    pub(super) fn spare(&self) -> &AtomicU64 {
        let [word, ..] = &self.words;
        word
    }

    /// Empties the window. The first number to come has to be 128 … 2^31 - 1; later ones may wrap.
    pub(crate) fn reset(&self) {
        for word in &self.words {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Closes an empty window for all numbers up to `last`, which is at least 128.
    pub(crate) fn close(&self, last: u32) {
        let newest = last >> 5;
        for back in 0..WORDS as u32 {
            let block = newest - back;
            let bits = if back == 0 {
                u32::MAX >> (31 - (last & 31))
            } else {
                u32::MAX
            };
            let word = (u64::from(block) << 32) | u64::from(bits);
            self.words[block as usize % WORDS].store(word, Ordering::Relaxed);
        }
    }

    /// The highest number accepted; `None` before the first.
    pub(crate) fn highest(&self) -> Option<u32> {
        let highest = self.words.iter().map(|w| w.load(Ordering::Acquire)).max()?;
        let bits = highest as u32;
        (bits != 0).then(|| ((highest >> 32) as u32) << 5 | (31 - bits.leading_zeros()))
    }

    /// Accepts `number` once.
    ///
    /// # Errors
    /// [`Replay`], and nothing changes.
    #[inline]
    pub fn accept(&self, number: u32, access: Access<'_>) -> Result<(), Replay> {
        let block = number >> 5;
        let bit = 1u64 << (number & 31);
        let fresh = (u64::from(block) << 32) | bit;
        let word = &self.words[block as usize % WORDS];
        let mut seen = word.load(Ordering::Acquire);
        loop {
            let tag = (seen >> 32) as u32;
            let next = if tag == block {
                if seen & bit != 0 {
                    cold_path();
                    return Err(Replay::Repeated);
                }
                seen | bit
            } else if is_older(tag, block) {
                fresh
            } else {
                cold_path();
                return Err(Replay::TooOld);
            };
            match access.replace(word, seen, next) {
                Ok(()) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn accepts_once_and_in_any_order_within_the_window() {
        let w = Window::new();
        for n in [1_000, 1_002, 1_001, 1_090, 1_003] {
            assert_eq!(w.accept(n, Access::shared()), Ok(()));
            assert_eq!(w.accept(n, Access::shared()), Err(Replay::Repeated));
        }
        // 1,152 takes the place of 1,024's block, four blocks before it.
        assert_eq!(w.accept(1_152, Access::shared()), Ok(()));
        assert_eq!(w.accept(1_025, Access::shared()), Err(Replay::TooOld));
        assert_eq!(w.accept(1_091, Access::shared()), Ok(()));
        assert_eq!(w.highest(), Some(1_152));
        w.reset();
        assert_eq!(w.highest(), None);
    }

    #[test]
    fn accepts_nothing_up_to_where_it_was_closed() {
        for last in [128, 999, 1_023, 1_024, 70_000] {
            let w = Window::new();
            w.close(last);
            for n in last.saturating_sub(400)..=last {
                assert!(w.accept(n, Access::shared()).is_err(), "{n} of {last}");
            }
            for n in last + 1..last + 300 {
                assert_eq!(w.accept(n, Access::shared()), Ok(()), "{n} of {last}");
            }
        }
    }

    proptest! {
        #[test]
        fn never_accepts_twice_and_never_refuses_a_fresh_number_near_the_top(
            steps in proptest::collection::vec(-96i64..200, 1..400)
        ) {
            let w = Window::new();
            let mut accepted = HashSet::new();
            let mut top = 100_000i64;
            for step in steps {
                let n = (top + step) as u32;
                top = top.max(i64::from(n));
                match w.accept(n, Access::shared()) {
                    Ok(()) => prop_assert!(accepted.insert(n)),
                    Err(Replay::Repeated) => prop_assert!(accepted.contains(&n)),
                    Err(Replay::TooOld) => prop_assert!(i64::from(n) < top - 96),
                }
            }
        }
    }

    #[test]
    fn of_threads_that_race_for_the_same_numbers_one_wins_each() {
        let w = Window::new();
        let wins = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for n in 500..60_500 {
                        if w.accept(n, Access::shared()).is_ok() {
                            wins.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(wins.into_inner(), 60_000);
    }
}
