//! A value that one thread replaces and all workers read: the snapshot.

use super::quiescence::{Pin, Quiescence, Stamp};
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The value in force.
pub struct Published<T> {
    current: AtomicPtr<T>,
}

/// The one who replaces the value, and frees what it replaced once no worker can see it.
pub struct Publisher<'a, T> {
    published: &'a Published<T>,
    retired: VecDeque<(Box<T>, Stamp)>,
}

impl<T> Published<T> {
    /// Puts the first value in force.
    #[must_use]
    pub fn new(value: Box<T>) -> Self {
        Self {
            current: AtomicPtr::new(Box::into_raw(value)),
        }
    }

    /// The value in force, for as long as the pin lasts.
    #[must_use]
    pub fn read<'p>(&'p self, _pin: &'p Pin<'_>) -> &'p T {
        // SAFETY: the pointer came from a box, and the box is freed only by `Publisher::collect`, after the pointer was
        // replaced and every pin of that time has ended, or by `drop`, which nothing that borrows `self` outlives.
        unsafe { &*self.current.load(Ordering::Acquire) }
    }
}

impl<T> Drop for Published<T> {
    fn drop(&mut self) {
        if let Some(value) = NonNull::new(*self.current.get_mut()) {
            // SAFETY: the pointer came from a box, and nobody borrows `self` any more.
            drop(unsafe { Box::from_raw(value.as_ptr()) });
        }
    }
}

// SAFETY: a published value is read by reference from many threads and dropped by whichever owns it.
unsafe impl<T: Send + Sync> Sync for Published<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Send for Published<T> {}

impl<'a, T> Publisher<'a, T> {
    /// The publisher of `published`. There is one.
    #[must_use]
    pub fn new(published: &'a Published<T>) -> Self {
        Self {
            published,
            retired: VecDeque::new(),
        }
    }

    /// Puts `value` in force from each worker's next burst on.
    pub fn publish(&mut self, value: Box<T>, quiescence: &Quiescence) {
        let old = self
            .published
            .current
            .swap(Box::into_raw(value), Ordering::AcqRel);
        // SAFETY: the pointer came from a box in `new` or `publish`, and left `current` just now, so this is its only owner.
        // Workers may still read it: the box is kept, not touched, until they cannot.
        let old = unsafe { Box::from_raw(old) };
        self.retired.push_back((old, quiescence.retire()));
    }

    /// The value in force. The publisher needs no pin: only it replaces the value.
    #[must_use]
    pub fn current(&self) -> &T {
        // SAFETY: the value stays in force until `publish`, which needs `&mut self`.
        unsafe { &*self.published.current.load(Ordering::Acquire) }
    }

    /// Frees the values that no worker can see any more; true if none waits.
    pub fn collect(&mut self, quiescence: &Quiescence) -> bool {
        while let Some((_, stamp)) = self.retired.front() {
            if !quiescence.passed(*stamp) {
                return false;
            }
            self.retired.pop_front();
        }
        true
    }
}

impl<T> Drop for Publisher<'_, T> {
    fn drop(&mut self) {
        // Workers may still be in a burst; a leak at exit is better than a value freed under them.
        for (value, _) in self.retired.drain(..) {
            std::mem::forget(value);
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn an_old_value_lives_until_the_last_burst_that_read_it() {
        let q = Quiescence::new(1);
        let mut r = q.reader(0).unwrap();
        let first = std::sync::Arc::new(1);
        let p = Published::new(Box::new(first.clone()));
        let mut publisher = Publisher::new(&p);
        {
            let pin = r.pin();
            let seen = p.read(&pin);
            publisher.publish(Box::new(std::sync::Arc::new(2)), &q);
            assert!(!publisher.collect(&q));
            assert_eq!(**seen, 1);
            assert_eq!(**p.read(&pin), 2);
        }
        r.pin();
        assert!(publisher.collect(&q));
        assert_eq!(std::sync::Arc::strong_count(&first), 1);
        assert_eq!(**publisher.current(), 2);
    }
}
