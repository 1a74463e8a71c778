//! Places for the keys that open packets, each with its replay window: a flow's own, and a pool that all flows of a table share.
//!
//! A flow with one sender holds one key at first, which stands in its own place, two after a key change, and needs a third place while it
//! takes in the next one; only a flow with two senders at a time may need a fourth. So a place is taken from the pool when a flow needs one
//! more, and comes back when the flow ends: between these a place is one flow's alone. The pool has two places a flow of the table's
//! capacity. Those that were never needed cost nothing but address space, or reserved hugepages, which are set aside.
//!
//! A place is 96 bytes, so every other one of the pool begins in the middle of a cache line; yet key and window of each are on two lines:
//!
//! ```text
//! even   key, key | window, -            odd   -, key | key, window            in halves of lines
//! ```
//!
//! What breaks if a place is in two flows' hands: one overwrites the key that the other's packets are opened with, and empties its
//! window, so that packets are accepted twice.

use super::free::{Free, Linked};
use super::incoming::InKey;
use super::replay::Window;
use super::slab::Slab;
use super::sync::{Ordering, SharedCell};
use crossbeam::utils::CachePadded;
use std::io;

/// Places of the pool a flow of the table's capacity.
const A_FLOW: usize = 2;

/// One place. While it is free, its window keeps the link to the next free one.
#[repr(C, align(32))]
pub(crate) struct Place {
    pub(super) key: SharedCell<InKey>,
    pub(super) window: Window,
}

/// The pool.
pub struct Places {
    places: Slab<Place>,
    free: CachePadded<Free>,
}

impl Linked for Place {
    fn link(&self) -> u32 {
        self.window.spare().load(Ordering::Relaxed) as u32
    }

    fn set_link(&self, link: u32) {
        self.window.spare().store(link.into(), Ordering::Relaxed);
    }
}

impl Place {
    #[cfg(any(test, feature = "loom"))]
    pub(super) fn new() -> Self {
        Self {
            key: SharedCell::new(InKey::default()),
            window: Window::new(),
        }
    }

    /// Overwrites the key.
    ///
    /// # Safety
    /// No worker may see the place's flow.
    pub(super) unsafe fn wipe(&self) {
        // SAFETY: the place is one flow's alone, and only the caller can reach that.
        unsafe { self.key.write(InKey::wipe) };
    }
}

impl Places {
    /// Bytes set aside for each flow of the table's capacity.
    pub(crate) const BYTES_A_FLOW: usize = A_FLOW * size_of::<Place>();

    /// Places for `flows` flows.
    pub(crate) fn new(flows: usize, huge: bool) -> io::Result<Self> {
        #[cfg(not(feature = "loom"))]
        let places = Slab::new(A_FLOW * flows, huge)?;
        #[cfg(feature = "loom")]
        let places = {
            let _ = huge;
            Slab::owned(A_FLOW * flows, Place::new)
        };
        Ok(Self {
            places,
            free: CachePadded::new(Free::new()),
        })
    }

    /// Places that flows hold.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.free.in_use()
    }

    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&Place> {
        self.places.get(number as usize)
    }

    /// Takes a free place: until it is given back, it is the caller's flow's alone. Its window is empty.
    pub(super) fn take(&self) -> Option<u32> {
        let number = self.free.take(&self.places)?;
        if let Some(next) = self.free.next(&self.places) {
            super::prefetch_whole(next);
        }
        // Nobody accepts a number here before the caller has shown the place to others. A worker that meant to take it too may
        // still read the link that was here, and finds out that it came too late.
        self.get(number)?.window.reset();
        Some(number)
    }

    /// Overwrites the key of a place, and makes the place free.
    ///
    /// # Safety
    /// The caller's flow took the place and gives it up with this call, and no worker may see the flow.
    pub(super) unsafe fn give_back(&self, number: u32) {
        let Some(place) = self.get(number) else {
            return;
        };
        // SAFETY: the place is the flow's alone since it was taken, and no worker may see that.
        unsafe { place.wipe() };
        self.free.give_back(&self.places, number);
    }
}

#[cfg(not(feature = "loom"))]
// SAFETY: a place is a cell around integers and arrays of them, and atomic integers: zero bytes are a value of each, and none of
// them needs a drop.
unsafe impl super::slab::Zeroed for Place {}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::super::owner::Access;
    use super::*;
    use crate::crypto::SessionKey;
    use std::mem::offset_of;

    #[test]
    fn key_and_window_are_on_two_lines() {
        assert_eq!(size_of::<Place>(), 96);
        for number in 0..4 {
            let start = number * size_of::<Place>();
            let lines = [
                start + offset_of!(Place, key),
                start + offset_of!(Place, window),
                start + size_of::<Place>() - 1,
            ]
            .map(|at| at / 64);
            assert_eq!(lines, [lines[0], lines[0] + 1, lines[0] + 1], "{number}");
        }
    }

    #[test]
    fn a_place_comes_back_without_key_and_is_taken_with_an_empty_window() {
        let places = Places::new(1, false).unwrap();
        let numbers = [(); 3].map(|()| places.take());
        assert_eq!(numbers, [Some(0), Some(1), None]);
        let place = places.get(1).unwrap();
        // SAFETY: no other thread is here.
        unsafe {
            place
                .key
                .write(|key| key.session = SessionKey::new(&[7; 32], &[7; 12]))
        };
        place.window.accept(500, Access::shared()).unwrap();
        for number in [0, 1] {
            // SAFETY: as above.
            unsafe { places.give_back(number) };
        }
        assert_eq!(places.in_use(), 0);
        // SAFETY: as above.
        assert_eq!(unsafe { place.key.read() }.session.key(), &[0; 32]);
        assert_eq!(places.take(), Some(1), "the last one that came back");
        assert_eq!(place.window.highest(), None);
        assert_eq!(place.window.accept(500, Access::shared()), Ok(()));
    }
}
