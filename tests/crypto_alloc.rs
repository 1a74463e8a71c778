//! Nothing that a worker calls in `crypto` allocates, `ring`'s key set-up included.

#![allow(unsafe_code)]

use pdmgate::crypto::{Aead, Kernel, OpenJob, SealJob, SessionInfo, SharedSecret, Suite};
use pdmgate::wire::FiveTuple;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counting what this thread asks of it.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to `System` with the arguments it came with, so `System`'s promises are this allocator's. The
// counter is a constant-initialised thread local without a destructor, so that touching it never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same for `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` by way of `alloc` above; the rest is the caller's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn allocations_are_seen() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn workers_do_not_allocate() {
    let secret = SharedSecret::from_bytes([1; 32]);
    let tuple = FiveTuple {
        src: [2; 16],
        dst: [3; 16],
        sport: 4,
        dport: 5,
        protocol: 6,
    };
    let info = SessionInfo {
        tuple: &tuple,
        src_generation: 7,
        dst_generation: 8,
        kri: 9,
    };
    for aead in [Aead::Aes128Gcm, Aead::Aes256Gcm, Aead::ChaCha20Poly1305] {
        let suite = Suite {
            aead,
            ..Suite::default()
        };
        for kernel in Kernel::available() {
            let mut sealed = [0; 36];
            let count = allocations(|| {
                let session = secret.session_key(&suite, &info);
                let (key, option) = (&session, &mut sealed);
                let mut jobs = [SealJob { key, option }];
                kernel.seal(aead, &mut jobs);
                let mut jobs = [OpenJob::new(key, &sealed)];
                kernel.open(aead, &mut jobs);
                assert!(jobs[0].opened.metrics().is_some());
            });
            assert_eq!(count, 0, "{aead:?} by {}", kernel.name());
        }
    }
}
