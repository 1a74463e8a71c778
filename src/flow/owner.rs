//! Whose a half of a flow is. A network card hands all packets of one direction of a flow to one worker, so one worker at a time counts its
//! words up by plain writes, and only a half that packets come to by several workers pays for locked instructions.
//!
//! ```text
//! nobody's ──► a worker's ──► leaving it ──► shared          one byte, which only goes this way until the flow ends
//! ```
//!
//! The first worker to ask gets the half. The first *other* one takes it away: it marks the half as leaving, then asks for a [`Stamp`],
//! and until that has passed nobody writes but the worker that is left, by locked instructions as soon as it sees the mark. So its
//! plain writes are over, and seen by all, before anybody else writes. Meanwhile the others go without, for a burst or two.
//!
//! What breaks if the property is lost: a plain write undoes another worker's, and a number is given out twice, or accepted twice.

use super::quiescence::{Pin, Stamp};
use super::sync::{AtomicU8, AtomicU64, Ordering};
use std::hint::cold_path;
use std::marker::PhantomData;

/// A state below [`LEAVING`] is the [`Pin::worker`] whose the half is.
const NOBODYS: u8 = 0;
/// Set beside the worker that a half is leaving.
const LEAVING: u8 = 0x80;
const SHARED: u8 = u8::MAX;

/// Readers that there can be: [`Pin::worker`] is 1 up to this.
pub const MAX_READERS: usize = 126;

/// Whose a half is. Zero is nobody's.
pub(crate) struct Owner(AtomicU8);

/// How a worker may change the words of a half, for as long as its pin lasts.
#[derive(Clone, Copy, Debug)]
pub struct Access<'p> {
    alone: bool,
    pin: PhantomData<&'p ()>,
}

impl<'p> Access<'p> {
    fn new(alone: bool) -> Self {
        Self {
            alone,
            pin: PhantomData,
        }
    }

    /// What is right for words that any thread may change at any time.
    #[cfg(test)]
    pub(crate) fn shared() -> Self {
        Self::new(false)
    }

    /// What is right for words that only one thread changes.
    #[cfg(all(test, not(feature = "loom")))]
    pub(crate) fn alone() -> Self {
        Self::new(true)
    }

    /// Replaces `seen` in a word of the half: what the worker read there under this pin, and has not changed since.
    ///
    /// # Errors
    /// What the word is instead, where other workers change it too.
    #[inline(always)]
    pub(super) fn replace(self, word: &AtomicU64, seen: u64, next: u64) -> Result<(), u64> {
        if self.alone {
            debug_assert_eq!(word.load(Ordering::Relaxed), seen, "nobody else writes");
            word.store(next, Ordering::Release);
            return Ok(());
        }
        cold_path();
        word.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire)
            .map(|_| ())
    }
}

impl Owner {
    #[cfg(any(test, feature = "loom"))]
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(NOBODYS))
    }

    /// Nobody's, with its word for [`Owner::access`].
    #[cfg(test)]
    pub(crate) fn fresh() -> (Self, AtomicU64) {
        let (owner, left) = (Self::new(), AtomicU64::new(0));
        owner.reset(&left);
        (owner, left)
    }

    /// Makes it nobody's; to be called before anyone else can see the flow.
    pub(crate) fn reset(&self, left: &AtomicU64) {
        self.0.store(NOBODYS, Ordering::Relaxed);
        // A stamp that does not pass, until there is one.
        left.store(u64::MAX, Ordering::Relaxed);
    }

    /// How the worker of `pin` may write; `None` if it may not in this burst. `left` is this half's own word.
    #[inline]
    pub(crate) fn access<'p>(&self, left: &AtomicU64, pin: &'p Pin<'_>) -> Option<Access<'p>> {
        // What a worker reads of its own is what it wrote itself, or newer.
        let state = self.0.load(Ordering::Acquire);
        if state == pin.worker() {
            Some(Access::new(true))
        } else if state == SHARED {
            cold_path();
            Some(Access::new(false))
        } else {
            self.access_first(left, pin, state)
        }
    }

    /// [`Owner::access`] until the half has found its place.
    #[cold]
    #[inline(never)]
    fn access_first<'p>(&self, left: &AtomicU64, pin: &'p Pin<'_>, seen: u8) -> Option<Access<'p>> {
        let me = pin.worker();
        let mut state = seen;
        if state == NOBODYS {
            match self.change(NOBODYS, me) {
                Ok(()) => return Some(Access::new(true)),
                Err(others) => state = others,
            }
        }
        if state == SHARED || state == me | LEAVING {
            return Some(Access::new(false));
        }
        if state & LEAVING == 0 {
            if self.change(state, state | LEAVING).is_ok() {
                // Asked for once the mark is there: whoever pins after it sees the mark.
                let stamp = pin.quiescence().retire();
                left.store(stamp.to_bits(), Ordering::Release);
            }
            return None;
        }
        let stamp = Stamp::from_bits(left.load(Ordering::Acquire));
        if !pin.quiescence().passed(stamp) {
            return None;
        }
        self.0.store(SHARED, Ordering::Release);
        Some(Access::new(false))
    }

    fn change(&self, from: u8, to: u8) -> Result<(), u8> {
        self.0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .map(|_| ())
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::super::quiescence::Quiescence;
    use super::*;

    #[test]
    fn a_half_is_one_workers_until_another_asks_and_a_burst_has_passed() {
        let q = Quiescence::new(2);
        let (mut a, mut b) = (q.reader(0).unwrap(), q.reader(1).unwrap());
        let (owner, left) = Owner::fresh();
        let alone = |pin: &Pin<'_>| owner.access(&left, pin).map(|access| access.alone);
        let first = a.pin();
        assert_eq!(alone(&first), Some(true));
        let other = b.pin();
        assert_eq!(alone(&other), None, "it is the first one's");
        assert_eq!(alone(&other), None, "who may still be writing");
        assert_eq!(alone(&first), Some(false), "but knows now that it leaves");
        let other = b.pin();
        assert_eq!(alone(&other), None, "its burst lasts");
        let first = a.pin();
        assert_eq!(alone(&first), Some(false));
        assert_eq!(alone(&other), Some(false), "it has ended");
        assert_eq!(alone(&first), Some(false));
    }

    #[test]
    fn a_worker_that_rests_holds_nobody_up() {
        let q = Quiescence::new(2);
        let (mut a, mut b) = (q.reader(0).unwrap(), q.reader(1).unwrap());
        let (owner, left) = Owner::fresh();
        assert!(owner.access(&left, &a.pin()).is_some());
        a.rest();
        assert!(owner.access(&left, &b.pin()).is_none());
        assert!(owner.access(&left, &b.pin()).is_some());
    }

    #[test]
    fn alone_is_without_and_shared_with_a_look_at_what_is_there() {
        let word = AtomicU64::new(5);
        assert_eq!(Access::shared().replace(&word, 4, 6), Err(5));
        assert_eq!(Access::shared().replace(&word, 5, 6), Ok(()));
        assert_eq!(Access::new(true).replace(&word, 6, 7), Ok(()));
        assert_eq!(word.into_inner(), 7);
    }
}
