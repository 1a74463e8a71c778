//! The atomics of this room: the processor's, or loom's when the room is being model-checked.

#[cfg(feature = "loom")]
pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

/// Stands between sequentially consistent accesses. They are ordered without it, but loom takes them for acquire and release, and sees no
/// such order but a fence's.
#[inline]
pub(crate) fn between_seq_cst() {
    #[cfg(feature = "loom")]
    fence(Ordering::SeqCst);
}

/// A value that one thread writes while no other can read it, and that many read afterwards.
///
/// Under loom each access is reported, so that a read that is not ordered after the write is found.
pub(crate) struct SharedCell<T> {
    value: std::cell::UnsafeCell<T>,
    #[cfg(feature = "loom")]
    track: loom::cell::UnsafeCell<()>,
}

// SAFETY: the two accessors are unsafe and hand the duty to exclude a concurrent write to their callers, so sharing the
// cell itself allows nothing that its value's own `Send + Sync` does not allow.
unsafe impl<T: Send + Sync> Sync for SharedCell<T> {}

impl<T> SharedCell<T> {
    #[cfg_attr(not(any(test, feature = "loom")), allow(dead_code))]
    pub(crate) fn new(value: T) -> Self {
        Self {
            value: std::cell::UnsafeCell::new(value),
            #[cfg(feature = "loom")]
            track: loom::cell::UnsafeCell::new(()),
        }
    }

    /// Reads the value in place.
    ///
    /// # Safety
    /// No `write` may run, nor begin, while the reference lives.
    pub(crate) unsafe fn read(&self) -> &T {
        #[cfg(feature = "loom")]
        self.track.with(|_| ());
        // SAFETY: the caller excludes writers for as long as the reference lives.
        unsafe { &*self.value.get() }
    }

    /// Changes the value in place.
    ///
    /// # Safety
    /// No other access may run until this one returns.
    pub(crate) unsafe fn write(&self, change: impl FnOnce(&mut T)) {
        #[cfg(feature = "loom")]
        self.track.with_mut(|_| ());
        // SAFETY: the caller excludes every other access meanwhile.
        change(unsafe { &mut *self.value.get() });
    }
}
