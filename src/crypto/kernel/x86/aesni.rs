//! Two options in two 128-bit registers: AES-NI, PCLMULQDQ, AVX. Two leave registers for the round keys that are under way; of four options
//! some would stand in memory.

use super::lanes::*;
use super::{blocks, load, put, spare, store, to_open, to_seal};
use crate::crypto::seal::{HEADER_LEN, OPTION_LEN, OpenJob, Opened, SealJob, TAG_AT};
use crate::crypto::session::{NONCE_LEN, SESSION_LEN};
use core::arch::x86_64::*;

/// Proof that the processor has these instructions.
#[derive(Clone, Copy, Debug)]
pub(in crate::crypto) struct AesNi(());

impl AesNi {
    pub(in crate::crypto::kernel) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("avx"))
        .then_some(Self(()))
    }
}

const WIDTH: usize = 2;

type Lanes = [__m128i; WIDTH];

each! {
    "aes,pclmulqdq,avx";
    xor(a, b) = _mm_xor_si128;
    and(a, b) = _mm_and_si128;
    shuffle(a, mask) = _mm_shuffle_epi8;
    shift<N>(a) = _mm_slli_si128::<N>;
    halve_words(a) = _mm_srli_epi16::<1>;
    even_words(a) = _mm_srli_epi64::<32>;
    swap(a) = _mm_shuffle_epi32::<0b01_00_11_10>;
    round(a, key) = _mm_aesenc_si128;
    last_round(a, key) = _mm_aesenclast_si128;
    clmul<I>(a, b) = _mm_clmulepi64_si128::<I>;
    add_halves(a, b) = _mm_add_epi64;
    spread_words(a) = _mm_shuffle_epi32::<0b11_01_00_11>;
    sign_words(a) = _mm_srai_epi32::<31>;
}

#[inline]
#[target_feature(enable = "aes,pclmulqdq,avx")]
fn join(blocks: [__m128i; WIDTH]) -> Lanes {
    blocks
}

#[inline]
#[target_feature(enable = "aes,pclmulqdq,avx")]
fn split(lanes: Lanes) -> [__m128i; WIDTH] {
    lanes
}

#[inline]
#[target_feature(enable = "aes,pclmulqdq,avx")]
fn all(block: __m128i) -> Lanes {
    [block; WIDTH]
}

#[inline]
#[target_feature(enable = "aes,pclmulqdq,avx")]
fn zero_halves(a: Lanes) -> Lanes {
    a.map(|half| _mm_cmpeq_epi64(half, _mm_setzero_si128()))
}

gcm_of_lanes!(AesNi, "aes,pclmulqdq,avx", xmm_reg);

#[cfg(test)]
use AesNi as Tier;

#[cfg(test)]
#[path = "tests/primitives.rs"]
#[allow(clippy::duplicate_mod, reason = "each tier tests its own functions")]
pub(super) mod primitives;
