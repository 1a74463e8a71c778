//! Zeroed memory for the big arrays, on huge pages where there are any.

#[cfg(not(feature = "loom"))]
use memmap2::{MmapMut, MmapOptions};
#[cfg(not(feature = "loom"))]
use std::io;

/// A type of which all-zero bytes are a valid value, and which needs no drop.
///
/// # Safety
/// The implementer vouches that a value made of zero bytes is valid and that dropping one is not needed.
pub unsafe trait Zeroed {}

/// `len` values of `T`, all zero at first, at addresses that never change.
pub struct Slab<T> {
    /// The mapping's start is page-aligned, which is enough for any `T` here (checked in `new`).
    #[cfg(not(feature = "loom"))]
    memory: (MmapMut, std::marker::PhantomData<T>),
    /// Values of their own: loom's atomics are not plain zeros.
    #[cfg(feature = "loom")]
    memory: Box<[T]>,
    #[cfg(not(feature = "loom"))]
    len: usize,
}

#[cfg(not(feature = "loom"))]
const HUGE_PAGE: usize = 2 << 20;

#[cfg(not(feature = "loom"))]
impl<T: Zeroed> Slab<T> {
    /// Maps the memory. Untouched pages cost nothing until they are used, except huge ones.
    ///
    /// `huge` asks for reserved huge pages first; without enough of them normal pages are used, which the kernel may
    /// still join behind the scenes.
    ///
    /// # Errors
    /// The operating system's, when it has no memory for the mapping.
    pub fn new(len: usize, huge: bool) -> io::Result<Self> {
        assert!(
            align_of::<T>() <= 4096,
            "a page's alignment has to be enough"
        );
        let bytes = len
            .checked_mul(size_of::<T>())
            .filter(|&b| isize::try_from(b).is_ok())
            .ok_or(io::ErrorKind::OutOfMemory)?
            .max(1);
        let reserved = huge && bytes >= HUGE_PAGE;
        let map = reserved
            .then(|| {
                MmapOptions::new()
                    .len(bytes.next_multiple_of(HUGE_PAGE))
                    .huge(Some(21))
                    .map_anon()
                    .ok()
            })
            .flatten();
        let map = match map {
            Some(map) => map,
            None => {
                let map = MmapMut::map_anon(bytes)?;
                // Only advice: kernels built without transparent huge pages refuse it.
                let _ = map.advise(memmap2::Advice::HugePage);
                map
            }
        };
        Ok(Self {
            memory: (map, std::marker::PhantomData),
            len,
        })
    }
}

#[cfg(feature = "loom")]
impl<T> Slab<T> {
    /// Memory on the heap.
    pub fn owned(len: usize, make: impl Fn() -> T) -> Self {
        Self {
            memory: (0..len).map(|_| make()).collect(),
        }
    }
}

impl<T> std::ops::Deref for Slab<T> {
    type Target = [T];

    #[cfg(not(feature = "loom"))]
    #[inline]
    fn deref(&self) -> &[T] {
        let (map, _) = &self.memory;
        // SAFETY: `new` mapped at least `len * size_of::<T>()` bytes, page-aligned and so aligned for `T`; they are zero or were changed
        // through `&T` since, and zero bytes are a valid `T` (the trait's promise). The mapping is private to this value and lives as
        // long as it.
        unsafe { std::slice::from_raw_parts(map.as_ptr().cast::<T>(), self.len) }
    }

    #[cfg(feature = "loom")]
    fn deref(&self) -> &[T] {
        &self.memory
    }
}

// SAFETY: a slab gives out `&T` only, and owns its values.
unsafe impl<T: Sync + Send> Sync for Slab<T> {}
// SAFETY: as above; a mapping may be unmapped by any thread.
unsafe impl<T: Send> Send for Slab<T> {}

#[cfg(not(feature = "loom"))]
// SAFETY: an atomic's zero bytes are the number 0.
unsafe impl Zeroed for std::sync::atomic::AtomicU64 {}
#[cfg(not(feature = "loom"))]
// SAFETY: as above.
unsafe impl Zeroed for std::sync::atomic::AtomicU32 {}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn is_zero_at_first_and_keeps_what_is_written() {
        for huge in [false, true] {
            let slab = Slab::<AtomicU64>::new(1 << 19, huge).unwrap();
            assert!(slab.iter().all(|v| v.load(Ordering::Relaxed) == 0));
            slab[77].store(5, Ordering::Relaxed);
            assert_eq!(slab[77].load(Ordering::Relaxed), 5);
            assert_eq!(slab.len(), 1 << 19);
        }
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        assert!(Slab::<AtomicU64>::new(usize::MAX / 4, false).is_err());
    }
}
