//! What flow table and packets both ask the processor for: cache lines that are needed soon.

#![allow(unsafe_code)]

/// Has the processor fetch the cache line at an address, which may be any: of one that is none nothing comes. It goes to the second-level
/// cache: requests for the first one are few at a time, and of more than that AMD's processors drop what is only a hint.
#[inline]
pub(crate) fn prefetch_line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program can see, and ignores an address that is none.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The same for a line that will be written: it is taken from the core that wrote it last at once, not first shared with it. It goes to the
/// first-level cache, so only few are to be asked for at a time. Processors that do not know this instruction do nothing.
#[inline]
pub(crate) fn prefetch_line_to_write(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above. It is no intrinsic, as the compiler would not use this instruction for all processors that have it.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
