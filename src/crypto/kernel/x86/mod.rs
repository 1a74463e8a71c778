//! AES-GCM for exactly one shape, four options at once: 6 bytes of additional data, 14 of text, a key each.
//!
//! [`four`] is the algorithm, written once over "one block of each of four options". [`aesni`] holds such a four in four
//! 128-bit registers, [`vaes`] in two of 256 bits. `docs/seal-kernel.md` explains the algebra.

#![allow(unsafe_code)]

mod aesni;
mod four;
mod vaes;

pub(super) use aesni::AesNi;
pub(super) use vaes::Vaes;

use crate::crypto::seal::OPTION_LEN;
use core::arch::x86_64::{__m128i, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_unpackhi_epi64};

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
    let low = _mm_cvtsi128_si64(block) as u64;
    let high = _mm_cvtsi128_si64(_mm_unpackhi_epi64(block, block)) as u64;
    (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
}

/// `N` bytes from `AT` on.
#[inline]
fn part<const AT: usize, const N: usize, const LEN: usize>(bytes: &[u8; LEN]) -> [u8; N] {
    const { assert!(AT + N <= LEN) };
    let mut part = [0; N];
    part.copy_from_slice(&bytes[AT..AT + N]);
    part
}

/// Writes `part` from `AT` on.
#[inline]
fn put<const AT: usize, const N: usize, const LEN: usize>(bytes: &mut [u8; LEN], part: [u8; N]) {
    const { assert!(AT + N <= LEN) };
    bytes[AT..AT + N].copy_from_slice(&part);
}

/// The first four jobs; the last one again where there are fewer, to be computed and thrown away.
#[inline]
fn first_four<J>(jobs: &[J]) -> Option<[&J; 4]> {
    match jobs {
        [] => None,
        [a] => Some([a, a, a, a]),
        [a, b] => Some([a, b, b, b]),
        [a, b, c] => Some([a, b, c, c]),
        [a, b, c, d, ..] => Some([a, b, c, d]),
    }
}

/// What four jobs have in common, sealing or opening.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    keys: [&'a [u8; 32]; 4],
    base_nonces: [&'a [u8; 12]; 4],
    options: [&'a [u8; OPTION_LEN]; 4],
}

/// The block that starts at `AT` of each.
#[inline]
#[target_feature(enable = "sse2")]
fn blocks<const AT: usize, const LEN: usize>(bytes: [&[u8; LEN]; 4]) -> [__m128i; 4] {
    let [a, b, c, d] = bytes;
    [
        load(part::<AT, 16, LEN>(a)),
        load(part::<AT, 16, LEN>(b)),
        load(part::<AT, 16, LEN>(c)),
        load(part::<AT, 16, LEN>(d)),
    ]
}

/// Bytes 0 to 8 and 4 to 12 of a base nonce, side by side: two loads, none of them past the end.
#[inline]
#[target_feature(enable = "sse2")]
fn nonce_halves(base_nonce: &[u8; 12]) -> __m128i {
    let low = i64::from_le_bytes(part::<0, 8, 12>(base_nonce));
    let high = i64::from_le_bytes(part::<4, 8, 12>(base_nonce));
    _mm_set_epi64x(high, low)
}

#[cfg(test)]
mod tests;
