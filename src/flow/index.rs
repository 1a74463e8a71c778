//! From a 5-tuple's hash to an entry's number: buckets of eight words, two buckets a hash.
//!
//! ```text
//! word   tag (31) | pending (1) | entry's number + 1 (32)        0 is empty
//! ```
//!
//! A look-up reads at most sixteen words, so it is wait-free. Words never move, so a look-up cannot miss a flow that is there. A word goes to
//! the hash's first bucket while that is less than half full, and so does nearly every one of a table with room: which look-ups rely on to
//! read one cache line instead of two.
//!
//! Inserting has to see to it that one tuple never has two live entries, though two workers may insert it at once into
//! different words. The classic answer is a lock a bucket. Here an insert first puts its word in as *pending*, which look-ups
//! do not see, then reads both buckets again: whoever finds the same tuple, live or pending, takes its own word back. Of two
//! that race each sees the other or at least one does, since each writes before it reads and all four accesses have one order
//! (`SeqCst`); so at most one goes live. If both step back, both try again, a bounded number of times.
//!
//! What breaks if that is lost: two entries of a flow number its packets apart, and their Kris meet.

use super::slab::Slab;
use super::sync::{AtomicU64, Ordering, between_seq_cst};
use std::io;

const WORDS: usize = 8;
/// With so many words used, an entry goes to the other bucket if that has fewer: of the entries of a half-full index 9 % do, and of its
/// buckets some ten in a million are full. With one fewer 15 % would, with one more 240 in a million.
const CROWDED: usize = 5;
const PENDING: u64 = 1 << 32;
const TAG: u64 = !0 << 33;

/// One cache line of words.
#[repr(C, align(64))]
pub(crate) struct Bucket([AtomicU64; WORDS]);

impl Bucket {
    /// Bit n is set if word n seems to be live with the tag of `hash`: a hint, to be checked by loading the word.
    #[inline]
    #[cfg(all(target_arch = "x86_64", not(feature = "loom"), not(miri)))]
    fn seem(&self, hash: u64) -> u32 {
        use std::arch::asm;
        let tag = ((hash & TAG) >> 32) as u32;
        let mask: u32;
        // SAFETY: SSE2 is part of x86-64. The four loads are of this bucket, 16 bytes each and aligned, as the bucket is to 64. Other
        // threads change its words meanwhile, which no plain read of Rust's may meet; but this is the processor's own load, of which each
        // aligned 4 bytes come whole, and nothing is concluded from them: callers load the words that the mask names atomically.
        unsafe {
            asm!(
                "movd {t}, {tag:e}",
                "pshufd {t}, {t}, 0",
                "movdqa {a}, [{at}]",
                "movdqa {b}, [{at} + 32]",
                // The upper half of each word: tag and pending.
                "shufps {a}, [{at} + 16], 0xdd",
                "shufps {b}, [{at} + 48], 0xdd",
                "pcmpeqd {a}, {t}",
                "pcmpeqd {b}, {t}",
                "packssdw {a}, {b}",
                "packsswb {a}, {a}",
                "pmovmskb {mask:e}, {a}",
                tag = in(reg) tag,
                at = in(reg) self,
                t = out(xmm_reg) _,
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                mask = lateout(reg) mask,
                options(nostack, readonly, preserves_flags),
            );
        }
        mask & 0xff
    }

    #[cfg(not(all(target_arch = "x86_64", not(feature = "loom"), not(miri))))]
    fn seem(&self, hash: u64) -> u32 {
        self.seem_portably(hash)
    }

    /// The twin of [`Bucket::seem`].
    #[cfg(any(
        test,
        not(all(target_arch = "x86_64", not(feature = "loom"), not(miri)))
    ))]
    fn seem_portably(&self, hash: u64) -> u32 {
        let same =
            |word: &AtomicU64| u32::from((word.load(Ordering::Relaxed) ^ (hash & TAG)) >> 32 == 0);
        (0..).zip(&self.0).map(|(n, word)| same(word) << n).sum()
    }
}

#[cfg(not(feature = "loom"))]
// SAFETY: zero bytes are eight empty words.
unsafe impl super::slab::Zeroed for Bucket {}

/// The buckets.
pub(crate) struct Index {
    buckets: Slab<Bucket>,
    mask: u64,
}

/// One of a hash's two buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Where most are.
    First,
    /// Where those are that found the first crowded.
    Second,
}

/// Why an insert did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotInserted {
    /// The tuple has a live entry by now.
    Exists(u32),
    /// Another worker is inserting the same tuple.
    Contended,
    /// Both buckets are full.
    Full,
}

fn entry_of(word: u64) -> u32 {
    (word as u32).wrapping_sub(1)
}

impl Index {
    /// Buckets for `flows` entries, at most half full on average.
    pub(crate) fn new(flows: usize, huge: bool) -> io::Result<Self> {
        let buckets = (2 * flows / WORDS).next_power_of_two().max(2);
        #[cfg(not(feature = "loom"))]
        let slab = Slab::new(buckets, huge)?;
        #[cfg(feature = "loom")]
        let slab = {
            let _ = huge;
            Slab::owned(buckets, || {
                Bucket(std::array::from_fn(|_| AtomicU64::new(0)))
            })
        };
        Ok(Self {
            buckets: slab,
            mask: buckets as u64 - 1,
        })
    }

    #[inline]
    fn place(&self, hash: u64, choice: Choice) -> usize {
        let first = hash & self.mask;
        let place = match choice {
            Choice::First => first,
            // Another one whenever there is more than one.
            Choice::Second => (first ^ (hash >> 27 | 1)) & self.mask,
        };
        place as usize
    }

    fn places(&self, hash: u64) -> [usize; 2] {
        [Choice::First, Choice::Second].map(|choice| self.place(hash, choice))
    }

    fn words(&self, hash: u64) -> impl Iterator<Item = &AtomicU64> {
        self.places(hash)
            .into_iter()
            .filter_map(|b| self.buckets.get(b))
            .flat_map(|b| &b.0)
    }

    /// The two buckets, the one to try first in front: the first one while it is not crowded, then the emptier one. That choice keeps
    /// the buckets of a half-full index from filling up, where taking the first bucket always would not.
    fn roomier_first(&self, hash: u64) -> [&[AtomicU64]; 2] {
        let [a, b] = self
            .places(hash)
            .map(|place| self.buckets.get(place).map_or(&[][..], |b| &b.0[..]));
        let used = |bucket: &[AtomicU64]| {
            let taken = |w: &&AtomicU64| w.load(Ordering::Relaxed) != 0;
            bucket.iter().filter(taken).count()
        };
        if used(a) >= CROWDED && used(b) < used(a) {
            [b, a]
        } else {
            [a, b]
        }
    }

    /// Fetches a bucket into the cache.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64, choice: Choice) {
        if let Some(bucket) = self.buckets.get(self.place(hash, choice)) {
            super::prefetch(bucket);
        }
    }

    /// A live entry with this hash, of one bucket.
    #[inline]
    pub(crate) fn likely(&self, hash: u64, choice: Choice) -> Option<u32> {
        let bucket = self.buckets.get(self.place(hash, choice))?;
        let seem = bucket.seem(hash);
        if seem == 0 {
            return None;
        }
        let word = bucket.0[seem.trailing_zeros() as usize % WORDS].load(Ordering::Acquire);
        let live = word & (TAG | PENDING) == hash & TAG && word != 0;
        live.then_some(entry_of(word))
    }

    /// The live entry with this hash that `is_it` recognises.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        for place in self.places(hash) {
            let bucket = self.buckets.get(place)?;
            let mut seem = bucket.seem(hash);
            while seem != 0 {
                let word = bucket
                    .0
                    .get(seem.trailing_zeros() as usize)?
                    .load(Ordering::Acquire);
                let live = word & (TAG | PENDING) == hash & TAG && word != 0;
                if live && is_it(entry_of(word)) {
                    return Some(entry_of(word));
                }
                seem &= seem - 1;
            }
        }
        None
    }

    /// Puts `entry` in, unless `is_it` recognises another one. `is_it` is asked of pending ones too.
    pub(crate) fn insert(
        &self,
        hash: u64,
        entry: u32,
        is_it: impl Fn(u32) -> bool,
    ) -> Result<(), NotInserted> {
        let live = (hash & TAG) | (u64::from(entry) + 1);
        let pending = live | PENDING;
        let mine = self
            .roomier_first(hash)
            .into_iter()
            .flatten()
            .find(|word| {
                word.load(Ordering::Relaxed) == 0
                    && word
                        .compare_exchange(0, pending, Ordering::SeqCst, Ordering::Relaxed)
                        .is_ok()
            })
            .ok_or(NotInserted::Full)?;
        between_seq_cst();
        let twin = self
            .words(hash)
            .map(|word| word.load(Ordering::SeqCst))
            .filter(|word| *word != 0 && *word != pending && word & TAG == hash & TAG)
            .find(|word| is_it(entry_of(*word)));
        match twin {
            None => {
                mine.store(live, Ordering::Release);
                Ok(())
            }
            Some(word) => {
                mine.store(0, Ordering::Release);
                Err(if word & PENDING == 0 {
                    NotInserted::Exists(entry_of(word))
                } else {
                    NotInserted::Contended
                })
            }
        }
    }

    /// Takes the live `entry` out of sight. Only the ageing thread does.
    pub(crate) fn remove(&self, hash: u64, entry: u32) {
        let live = (hash & TAG) | (u64::from(entry) + 1);
        for word in self.words(hash) {
            if word.load(Ordering::Relaxed) == live {
                word.store(0, Ordering::Release);
            }
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::super::hash::TupleHasher;
    use super::*;

    fn hash(n: u64) -> u64 {
        TupleHasher::new([5, 6]).extend(n, [0, 0])
    }

    #[test]
    fn holds_as_many_as_it_was_made_for() {
        let n = 1 << 16;
        let index = Index::new(n, false).unwrap();
        for i in 0..n as u64 {
            assert_eq!(
                index.insert(hash(i), i as u32, |e| u64::from(e) == i),
                Ok(())
            );
        }
        for i in 0..n as u64 {
            assert_eq!(index.find(hash(i), |e| u64::from(e) == i), Some(i as u32));
            let likely = [Choice::First, Choice::Second].map(|c| index.likely(hash(i), c));
            assert!(likely.contains(&Some(i as u32)));
        }
        assert_eq!(index.find(hash(1 << 40), |_| false), None);
        index.remove(hash(9), 9);
        assert_eq!(index.find(hash(9), |e| e == 9), None);
    }

    #[test]
    fn a_tuple_goes_in_once() {
        let index = Index::new(64, false).unwrap();
        assert_eq!(index.insert(7, 1, |_| false), Ok(()));
        assert_eq!(index.insert(7, 2, |e| e == 1), Err(NotInserted::Exists(1)));
        assert_eq!(index.find(7, |_| true), Some(1));
    }

    #[test]
    fn what_seems_to_be_there_is() {
        let mut n = 1u64;
        for _ in 0..10_000 {
            let words = std::array::from_fn(|_| {
                n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                // Few different tags, some pending, some empty.
                let word = (n >> 60 << 33) | ((n >> 50 & 1) << 32) | (n >> 20 & 0xff);
                AtomicU64::new(if n >> 40 & 3 == 0 { 0 } else { word })
            });
            let bucket = Bucket(words);
            let hash = (n >> 56 << 33) | 77;
            assert_eq!(bucket.seem(hash), bucket.seem_portably(hash));
        }
    }

    #[test]
    fn full_buckets_are_an_error() {
        let index = Index::new(1, false).unwrap();
        let full = (0..100).find(|&e| index.insert(7, e, |_| false) == Err(NotInserted::Full));
        assert_eq!(full, Some(16));
    }
}
