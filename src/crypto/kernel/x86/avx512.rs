//! Eight options in two 512-bit registers: VAES, VPCLMULQDQ, AVX-512.

use super::lanes::*;
use super::{Vaes, blocks, load, put, spare, store, to_open, to_seal};
use crate::crypto::seal::{HEADER_LEN, OPTION_LEN, OpenJob, Opened, SealJob, TAG_AT};
use crate::crypto::session::{NONCE_LEN, SESSION_LEN};
use core::arch::x86_64::*;

/// Proof that the processor has these instructions.
#[derive(Clone, Copy, Debug)]
pub(in crate::crypto) struct Avx512(());

impl Avx512 {
    pub(in crate::crypto::kernel) fn detect() -> Option<Self> {
        // What these instructions build on is asked for too: a hypervisor may hide anything.
        Vaes::detect()?;
        (is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw"))
        .then_some(Self(()))
    }
}

const WIDTH: usize = 8;

type Lanes = [__m512i; 2];

each! {
    "aes,pclmulqdq,avx512f,avx512bw,vaes,vpclmulqdq";
    xor(a, b) = _mm512_xor_si512;
    and(a, b) = _mm512_and_si512;
    shuffle(a, mask) = _mm512_shuffle_epi8;
    shift<N>(a) = _mm512_bslli_epi128::<N>;
    halve_words(a) = _mm512_srli_epi16::<1>;
    even_words(a) = _mm512_srli_epi64::<32>;
    swap(a) = _mm512_shuffle_epi32::<0b01_00_11_10>;
    round(a, key) = _mm512_aesenc_epi128;
    last_round(a, key) = _mm512_aesenclast_epi128;
    clmul<I>(a, b) = _mm512_clmulepi64_epi128::<I>;
    add_halves(a, b) = _mm512_add_epi64;
    spread_words(a) = _mm512_shuffle_epi32::<0b11_01_00_11>;
    sign_words(a) = _mm512_srai_epi32::<31>;
}

#[inline]
#[target_feature(enable = "aes,pclmulqdq,avx512f,avx512bw,vaes,vpclmulqdq")]
fn join(blocks: [__m128i; WIDTH]) -> Lanes {
    let four = |[a, b, c, d]: [__m128i; 4]| {
        let all = _mm512_castsi128_si512(a);
        let all = _mm512_inserti32x4::<1>(all, b);
        let all = _mm512_inserti32x4::<2>(all, c);
        _mm512_inserti32x4::<3>(all, d)
    };
    let [a, b, c, d, e, f, g, h] = blocks;
    [four([a, b, c, d]), four([e, f, g, h])]
}

#[inline]
#[target_feature(enable = "aes,pclmulqdq,avx512f,avx512bw,vaes,vpclmulqdq")]
fn split(lanes: Lanes) -> [__m128i; WIDTH] {
    let four = |all: __m512i| {
        [
            _mm512_castsi512_si128(all),
            _mm512_extracti32x4_epi32::<1>(all),
            _mm512_extracti32x4_epi32::<2>(all),
            _mm512_extracti32x4_epi32::<3>(all),
        ]
    };
    let [[a, b, c, d], [e, f, g, h]] = lanes.map(four);
    [a, b, c, d, e, f, g, h]
}

#[inline]
#[target_feature(enable = "aes,pclmulqdq,avx512f,avx512bw,vaes,vpclmulqdq")]
fn all(block: __m128i) -> Lanes {
    [_mm512_broadcast_i32x4(block); 2]
}

#[inline]
#[target_feature(enable = "aes,pclmulqdq,avx512f,avx512bw,vaes,vpclmulqdq")]
fn zero_halves(a: Lanes) -> Lanes {
    a.map(|half| _mm512_maskz_set1_epi64(_mm512_testn_epi64_mask(half, half), -1))
}

gcm_of_lanes!(
    Avx512,
    "aes,pclmulqdq,avx512f,avx512bw,vaes,vpclmulqdq",
    zmm_reg
);

#[cfg(test)]
use Avx512 as Tier;

#[cfg(test)]
#[path = "tests/primitives.rs"]
#[allow(clippy::duplicate_mod, reason = "each tier tests its own functions")]
pub(super) mod primitives;
