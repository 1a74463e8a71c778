//! Which values of a slab are free: flows' entries, and the places of keys.
//!
//! The classic answer is a queue of numbers, which takes 16 bytes a value. Here a free value itself keeps the number of the next one
//! (Treiber's stack), so a list is one word; and values that nobody had yet are not in it but counted, so that their memory is not
//! touched before it is needed.
//!
//! ```text
//! head   times that one was put on (32) | number + 1 of the topmost (32)        no number: none is there
//! ```
//!
//! What is hard about such a stack is that a value may leave and come back while a worker that wants to take it sleeps between
//! reading its link and swapping the head: the swap would put a link in force that holds no longer, and give out a value that is in
//! use. So each value that is put on changes the head's upper half, and the swap fails. For it to be deceived, 2^32 values would have
//! to be put on while it sleeps, the same one last: at a million flows a second more than an hour. Reading the link of a value that
//! left meanwhile does no harm: slabs' memory stays, links are atomics, and the swap fails.
//!
//! What breaks if that is lost: two flows share an entry or a key's place, and write it while workers read it.

use super::sync::{AtomicU32, AtomicU64, Ordering};

/// A value that keeps a link while it is free. What else it uses those bytes for in use does not matter.
pub(crate) trait Linked {
    /// The link: any number if the value is in use.
    fn link(&self) -> u32;
    /// Changes it; the value is free.
    fn set_link(&self, link: u32);
}

/// Numbers of values of one slab, the last one put on to be taken first.
pub(crate) struct Stack {
    head: AtomicU64,
}

const NUMBER: u64 = 0xffff_ffff;

impl Stack {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            head: AtomicU64::new(0),
        }
    }

    /// Puts the value `number` on. What the caller did to it before is seen by whoever takes it.
    pub(crate) fn push<T: Linked>(&self, values: &[T], number: u32) {
        let Some(value) = values.get(number as usize) else {
            return;
        };
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            value.set_link(head as u32);
            let times = (head >> 32).wrapping_add(1) << 32;
            let next = times | (u64::from(number) + 1);
            // Every change of the head is a read-modify-write, so whoever takes this value, however many were put on and taken
            // since, acquires what this releases: its link, and what was done to it.
            match self
                .head
                .compare_exchange_weak(head, next, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes the topmost value.
    pub(crate) fn pop<T: Linked>(&self, values: &[T]) -> Option<u32> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let number = (head as u32).checked_sub(1)?;
            let link = values.get(number as usize)?.link();
            let next = (head & !NUMBER) | u64::from(link);
            match self
                .head
                .compare_exchange_weak(head, next, Ordering::Acquire, Ordering::Acquire)
            {
                Ok(_) => return Some(number),
                Err(now) => head = now,
            }
        }
    }
}

/// The free values of a slab: all of it at first.
pub(crate) struct Free {
    returned: Stack,
    /// Values from this on were never used.
    unused: AtomicU32,
    /// Values in use.
    in_use: AtomicU32,
}

impl Free {
    /// All are free.
    pub(crate) fn new() -> Self {
        Self {
            returned: Stack::new(),
            unused: AtomicU32::new(0),
            in_use: AtomicU32::new(0),
        }
    }

    /// Takes a free one of `values`, which are fewer than 2^32: until it is given back, no other call returns its number.
    pub(crate) fn take<T: Linked>(&self, values: &[T]) -> Option<u32> {
        let number = self
            .returned
            .pop(values)
            .or_else(|| self.take_unused(values.len()))?;
        self.in_use.fetch_add(1, Ordering::Relaxed);
        Some(number)
    }

    /// What the next call of [`Free::take`] nearly always returns, to be fetched until then.
    pub(crate) fn next<'v, T>(&self, values: &'v [T]) -> Option<&'v T> {
        let topmost = self.returned.head.load(Ordering::Relaxed) as u32;
        let number = topmost
            .checked_sub(1)
            .unwrap_or_else(|| self.unused.load(Ordering::Relaxed));
        values.get(number as usize)
    }

    fn take_unused(&self, values: usize) -> Option<u32> {
        let mut number = self.unused.load(Ordering::Relaxed);
        while (number as usize) < values {
            match self.unused.compare_exchange_weak(
                number,
                number + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(number),
                Err(now) => number = now,
            }
        }
        None
    }

    /// Gives back a number that was taken.
    pub(crate) fn give_back<T: Linked>(&self, values: &[T], number: u32) {
        self.in_use.fetch_sub(1, Ordering::Relaxed);
        self.returned.push(values, number);
    }

    /// How many are in use.
    pub(crate) fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed) as usize
    }

    /// Values from this number on were never used.
    pub(crate) fn high_water(&self) -> usize {
        self.unused.load(Ordering::Relaxed) as usize
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    struct Value {
        link: AtomicU32,
        owners: AtomicU32,
    }

    impl Linked for Value {
        fn link(&self) -> u32 {
            self.link.load(Ordering::Relaxed)
        }

        fn set_link(&self, link: u32) {
            self.link.store(link, Ordering::Relaxed);
        }
    }

    fn values(n: usize) -> Vec<Value> {
        let value = |_| Value {
            link: AtomicU32::new(0),
            owners: AtomicU32::new(0),
        };
        (0..n).map(value).collect()
    }

    #[test]
    fn gives_out_each_once_and_what_came_back_again() {
        let (free, values) = (Free::new(), values(3));
        assert_eq!(
            [(); 4].map(|()| free.take(&values)),
            [Some(0), Some(1), Some(2), None]
        );
        assert_eq!((free.in_use(), free.high_water()), (3, 3));
        for number in [1, 0] {
            free.give_back(&values, number);
        }
        assert_eq!((free.in_use(), free.high_water()), (1, 3));
        assert_eq!(
            [(); 3].map(|()| free.take(&values)),
            [Some(0), Some(1), None]
        );
    }

    #[test]
    fn what_was_never_taken_is_not_counted_as_used() {
        let (free, values) = (Free::new(), values(100));
        for _ in 0..10 {
            let number = free.take(&values).unwrap();
            free.give_back(&values, number);
        }
        assert_eq!((free.in_use(), free.high_water()), (0, 1));
    }

    #[test]
    fn threads_never_hold_one_value_at_once() {
        const VALUES: usize = 5;
        let (free, values) = (Free::new(), values(VALUES));
        std::thread::scope(|s| {
            for thread in 0..4usize {
                let (free, values) = (&free, &values);
                s.spawn(move || {
                    let mut mine = Vec::new();
                    for round in 0..100_000usize {
                        // Some are kept for a while, and given back in another order.
                        if mine.len() < 1 + (round + thread) % 3
                            && let Some(number) = free.take(values)
                        {
                            let owners = &values[number as usize].owners;
                            assert_eq!(owners.fetch_add(1, Ordering::Relaxed), 0);
                            mine.push(number);
                        } else if !mine.is_empty() {
                            let number = mine.remove(round % mine.len());
                            values[number as usize]
                                .owners
                                .fetch_sub(1, Ordering::Relaxed);
                            free.give_back(values, number);
                        }
                    }
                    for number in mine {
                        values[number as usize]
                            .owners
                            .fetch_sub(1, Ordering::Relaxed);
                        free.give_back(values, number);
                    }
                });
            }
        });
        assert_eq!(free.in_use(), 0);
        let mut all: Vec<_> = std::iter::from_fn(|| free.take(&values)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..VALUES as u32).collect::<Vec<_>>());
    }
}
