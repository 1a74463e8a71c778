//! Four options in two 256-bit registers: VAES, VPCLMULQDQ, AVX2.

use super::lanes::*;
use super::{AesNi, blocks, load, put, spare, store, to_open, to_seal};
use crate::crypto::seal::{HEADER_LEN, OPTION_LEN, OpenJob, Opened, SealJob, TAG_AT};
use crate::crypto::session::{NONCE_LEN, SESSION_LEN};
use core::arch::x86_64::*;

/// Proof that the processor has these instructions.
#[derive(Clone, Copy, Debug)]
pub(in crate::crypto) struct Vaes(());

impl Vaes {
    pub(in crate::crypto::kernel) fn detect() -> Option<Self> {
        // What these instructions build on is asked for too: a hypervisor may hide anything.
        AesNi::detect()?;
        (is_x86_feature_detected!("sse4.2")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq"))
        .then_some(Self(()))
    }
}

const WIDTH: usize = 4;

type Lanes = [__m256i; 2];

each! {
    "aes,pclmulqdq,ssse3,sse4.1,avx2,vaes,vpclmulqdq";
    xor(a, b) = _mm256_xor_si256;
    and(a, b) = _mm256_and_si256;
    shuffle(a, mask) = _mm256_shuffle_epi8;
    shift<N>(a) = _mm256_slli_si256::<N>;
    halve_words(a) = _mm256_srli_epi16::<1>;
    even_words(a) = _mm256_srli_epi64::<32>;
    swap(a) = _mm256_shuffle_epi32::<0b01_00_11_10>;
    round(a, key) = _mm256_aesenc_epi128;
    last_round(a, key) = _mm256_aesenclast_epi128;
    clmul<I>(a, b) = _mm256_clmulepi64_epi128::<I>;
    add_halves(a, b) = _mm256_add_epi64;
    spread_words(a) = _mm256_shuffle_epi32::<0b11_01_00_11>;
    sign_words(a) = _mm256_srai_epi32::<31>;
}

#[inline]
#[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1,avx2,vaes,vpclmulqdq")]
fn join(blocks: [__m128i; WIDTH]) -> Lanes {
    let [a, b, c, d] = blocks;
    [_mm256_set_m128i(b, a), _mm256_set_m128i(d, c)]
}

#[inline]
#[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1,avx2,vaes,vpclmulqdq")]
fn split(lanes: Lanes) -> [__m128i; WIDTH] {
    let [ab, cd] = lanes;
    [
        _mm256_castsi256_si128(ab),
        _mm256_extracti128_si256::<1>(ab),
        _mm256_castsi256_si128(cd),
        _mm256_extracti128_si256::<1>(cd),
    ]
}

#[inline]
#[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1,avx2,vaes,vpclmulqdq")]
fn all(block: __m128i) -> Lanes {
    [_mm256_broadcastsi128_si256(block); 2]
}

#[inline]
#[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1,avx2,vaes,vpclmulqdq")]
fn zero_halves(a: Lanes) -> Lanes {
    a.map(|half| _mm256_cmpeq_epi64(half, _mm256_setzero_si256()))
}

gcm_of_lanes!(
    Vaes,
    "aes,pclmulqdq,ssse3,sse4.1,avx2,vaes,vpclmulqdq",
    ymm_reg
);

#[cfg(test)]
use Vaes as Tier;

#[cfg(test)]
#[path = "tests/primitives.rs"]
#[allow(clippy::duplicate_mod, reason = "each tier tests its own functions")]
pub(super) mod primitives;
