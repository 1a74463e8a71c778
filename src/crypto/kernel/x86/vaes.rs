//! Four options in two 256-bit registers: VAES, VPCLMULQDQ, AVX2.

use super::four::*;
use super::{Inputs, blocks, first_four, load, nonce_halves, part, put, store};
use crate::crypto::seal::{HEADER_LEN, METRICS_LEN, OPTION_LEN, OpenJob, SealJob, TAG_AT};
use core::arch::x86_64::*;

/// Proof that the processor has these instructions.
#[derive(Clone, Copy, Debug)]
pub(in crate::crypto) struct Vaes(());

impl Vaes {
    pub(in crate::crypto::kernel) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("avx2"))
        .then_some(Self(()))
    }

    pub(in crate::crypto::kernel) fn seal_128(self, jobs: &mut [SealJob<'_>]) {
        // SAFETY: `seal` and all that it calls enable the features that `detect` asks for and no others, and only `detect` makes
        // a value of this type. Nothing else about the call is unsafe: it takes checked references.
        unsafe { seal::<16>(jobs) }
    }

    pub(in crate::crypto::kernel) fn seal_256(self, jobs: &mut [SealJob<'_>]) {
        // SAFETY: as in `seal_128`.
        unsafe { seal::<32>(jobs) }
    }

    pub(in crate::crypto::kernel) fn open_128(self, jobs: &mut [OpenJob<'_>]) {
        // SAFETY: as in `seal_128`, for `open`.
        unsafe { open::<16>(jobs) }
    }

    pub(in crate::crypto::kernel) fn open_256(self, jobs: &mut [OpenJob<'_>]) {
        // SAFETY: as in `seal_128`, for `open`.
        unsafe { open::<32>(jobs) }
    }
}

type Four = [__m256i; 2];

/// Functions that do to each register of their fours what an intrinsic does to one.
macro_rules! each {
    ($($name:ident $(<$n:ident>)? ($($arg:ident),+) = $f:expr;)+) => {$(
        #[inline]
        #[target_feature(enable = "vaes,vpclmulqdq,avx2")]
        fn $name $(<const $n: i32>)? ($($arg: Four),+) -> Four {
            [$f($($arg[0]),+), $f($($arg[1]),+)]
        }
    )+};
}

each! {
    xor(a, b) = _mm256_xor_si256;
    and(a, b) = _mm256_and_si256;
    shuffle(a, mask) = _mm256_shuffle_epi8;
    shift<N>(a) = _mm256_slli_si256::<N>;
    halve_words(a) = _mm256_srli_epi16::<1>;
    swap(a) = _mm256_shuffle_epi32::<0b01_00_11_10>;
    round(a, key) = _mm256_aesenc_epi128;
    last_round(a, key) = _mm256_aesenclast_epi128;
    clmul<I>(a, b) = _mm256_clmulepi64_epi128::<I>;
    add_halves(a, b) = _mm256_add_epi64;
    spread_words(a) = _mm256_shuffle_epi32::<0b11_01_00_11>;
    sign_words(a) = _mm256_srai_epi32::<31>;
}

#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,avx2")]
fn join(blocks: [__m128i; 4]) -> Four {
    let [a, b, c, d] = blocks;
    [_mm256_set_m128i(b, a), _mm256_set_m128i(d, c)]
}

#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,avx2")]
fn split(four: Four) -> [__m128i; 4] {
    let [ab, cd] = four;
    [
        _mm256_castsi256_si128(ab),
        _mm256_extracti128_si256::<1>(ab),
        _mm256_castsi256_si128(cd),
        _mm256_extracti128_si256::<1>(cd),
    ]
}

#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,avx2")]
fn all(block: __m128i) -> Four {
    [_mm256_broadcastsi128_si256(block); 2]
}

/// Shifts the halves left by one bit each and adds what [`CARRIES`] has for the bits that fall out.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,avx2")]
fn double(a: Four) -> Four {
    xor(
        add_halves(a, a),
        and(sign_words(spread_words(a)), constant(CARRIES)),
    )
}

gcm_of_four!("vaes,vpclmulqdq,avx2");
