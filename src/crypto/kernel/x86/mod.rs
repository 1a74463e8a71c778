//! AES-GCM for exactly one shape, a few options at once: 6 bytes of additional data, 14 of text, a key each.
//!
//! [`lanes`] is the algorithm, written once over "one block of each option". [`aesni`] holds two options in two 128-bit registers,
//! [`vaes`] four in two of 256 bits, [`avx512`] eight in two of 512. `docs/seal-kernel.md` explains the algebra.

#![allow(unsafe_code)]

mod aesni;
mod avx512;
mod lanes;
mod vaes;

pub(super) use aesni::AesNi;
pub(super) use avx512::Avx512;
pub(super) use vaes::Vaes;

use crate::crypto::seal::{OPTION_LEN, OpenJob, SealJob};
use crate::crypto::session::SessionKey;
use core::arch::x86_64::{__m128i, _mm_set_epi64x, _mm_setzero_si128, _mm_storeu_si128};

/// Nobody's, for jobs that nobody reads.
static NO_KEY: SessionKey = SessionKey::none();

/// A block in a register, byte 0 lowest.
#[inline]
#[target_feature(enable = "sse2")]
fn load(block: [u8; 16]) -> __m128i {
    let value = u128::from_le_bytes(block);
    _mm_set_epi64x((value >> 64) as i64, value as i64)
}

/// The reverse of [`load`].
#[inline]
#[target_feature(enable = "sse2")]
fn store(block: __m128i) -> [u8; 16] {
    let mut bytes = [0; 16];
    // SAFETY: the pointer is to 16 bytes that this function owns, and the instruction asks for no alignment.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), block) };
    bytes
}

/// `N` bytes from `AT` on.
#[inline]
fn part<const AT: usize, const N: usize, const LEN: usize>(bytes: &[u8; LEN]) -> [u8; N] {
    const { assert!(AT + N <= LEN) };
    bytes[AT..].first_chunk().copied().unwrap_or([0; N])
}

/// Writes `part` from `AT` on.
#[inline]
fn put<const AT: usize, const N: usize, const LEN: usize>(bytes: &mut [u8; LEN], part: [u8; N]) {
    const { assert!(AT + N <= LEN) };
    if let Some(place) = bytes[AT..].first_chunk_mut() {
        *place = part;
    }
}

/// The jobs, `N` at a time; the last few are made as many by some of `spare` that nobody reads.
fn to_seal<'c, const N: usize>(
    jobs: &'c mut [SealJob<'_>],
    spare: &'c mut [[u8; OPTION_LEN]; N],
) -> impl Iterator<Item = [SealJob<'c>; N]> {
    let again = |job: &'c mut SealJob<'_>| SealJob {
        key: job.key,
        option: &mut *job.option,
    };
    let (whole, rest) = jobs.as_chunks_mut::<N>();
    let last = (!rest.is_empty()).then(|| {
        let mut rest = rest.iter_mut();
        spare.each_mut().map(|option| match rest.next() {
            Some(job) => again(job),
            None => SealJob {
                key: &NO_KEY,
                option,
            },
        })
    });
    let whole = whole.iter_mut().map(move |jobs| jobs.each_mut().map(again));
    whole.chain(last)
}

/// [`to_seal`] for opening.
fn to_open<'c, 'j, const N: usize>(
    jobs: &'c mut [OpenJob<'j>],
    spare: &'c mut [OpenJob<'j>; N],
) -> impl Iterator<Item = [&'c mut OpenJob<'j>; N]> {
    let (whole, rest) = jobs.as_chunks_mut::<N>();
    let last = (!rest.is_empty()).then(|| {
        let mut rest = rest.iter_mut();
        spare.each_mut().map(|job| rest.next().unwrap_or(job))
    });
    whole.iter_mut().map(|jobs| jobs.each_mut()).chain(last)
}

/// Jobs for [`to_open`] to spare.
fn spare<'j, const N: usize>() -> [OpenJob<'j>; N] {
    [(); N].map(|()| OpenJob::new(&NO_KEY, &[0; OPTION_LEN]))
}

/// The block that starts at `AT` of each.
#[inline]
#[target_feature(enable = "sse2")]
fn blocks<const AT: usize, const LEN: usize, const N: usize>(
    bytes: [&[u8; LEN]; N],
) -> [__m128i; N] {
    let mut blocks = [_mm_setzero_si128(); N];
    for (block, bytes) in blocks.iter_mut().zip(bytes) {
        *block = load(part::<AT, 16, LEN>(bytes));
    }
    blocks
}

#[cfg(test)]
mod tests;
