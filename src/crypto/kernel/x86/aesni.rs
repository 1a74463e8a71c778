//! Four options in four 128-bit registers: AES-NI, PCLMULQDQ, SSSE3, SSE4.1.

use super::four::*;
use super::{blocks, load, nonce_halves, open_by_fours, part, put, seal_by_fours, store};
use crate::crypto::seal::{HEADER_LEN, METRICS_LEN, OPTION_LEN, OpenJob, SealJob, TAG_AT};
use core::arch::x86_64::*;

/// Proof that the processor has these instructions.
#[derive(Clone, Copy, Debug)]
pub(in crate::crypto) struct AesNi(());

impl AesNi {
    pub(in crate::crypto::kernel) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("sse3")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1"))
        .then_some(Self(()))
    }

    pub(in crate::crypto::kernel) fn seal<const KEY_LEN: usize>(self, jobs: &mut [SealJob<'_>]) {
        // SAFETY: `seal_four` and all that it calls enable features that `detect` asks for, with those that they imply, and
        // only `detect` makes a value of this type. Nothing else about the call is unsafe: it takes checked references.
        seal_by_fours(jobs, |four| unsafe { seal_four::<KEY_LEN>(four) });
    }

    pub(in crate::crypto::kernel) fn open<const KEY_LEN: usize>(self, jobs: &mut [OpenJob<'_>]) {
        // SAFETY: as in `seal`.
        open_by_fours(jobs, |four| unsafe { open_four::<KEY_LEN>(four) });
    }
}

type Four = [__m128i; 4];

/// Functions that do to each register of their fours what an intrinsic does to one.
macro_rules! each {
    ($($name:ident $(<$n:ident>)? ($($arg:ident),+) = $f:expr;)+) => {$(
        #[inline]
        #[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
        fn $name $(<const $n: i32>)? ($($arg: Four),+) -> Four {
            [$f($($arg[0]),+), $f($($arg[1]),+), $f($($arg[2]),+), $f($($arg[3]),+)]
        }
    )+};
}

each! {
    xor(a, b) = _mm_xor_si128;
    and(a, b) = _mm_and_si128;
    shuffle(a, mask) = _mm_shuffle_epi8;
    shift<N>(a) = _mm_slli_si128::<N>;
    halve_words(a) = _mm_srli_epi16::<1>;
    swap(a) = _mm_shuffle_epi32::<0b01_00_11_10>;
    round(a, key) = _mm_aesenc_si128;
    last_round(a, key) = _mm_aesenclast_si128;
    clmul<I>(a, b) = _mm_clmulepi64_si128::<I>;
    add_halves(a, b) = _mm_add_epi64;
    spread_words(a) = _mm_shuffle_epi32::<0b11_01_00_11>;
    sign_words(a) = _mm_srai_epi32::<31>;
}

#[inline]
#[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
fn join(blocks: [__m128i; 4]) -> Four {
    blocks
}

#[inline]
#[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
fn split(four: Four) -> [__m128i; 4] {
    four
}

#[inline]
#[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
fn all(block: __m128i) -> Four {
    [block; 4]
}

/// Shifts left by one bit. The bits that fall out of the halves, spread over the words that [`CARRIES`] has for them, tell
/// which of it to add.
#[inline]
#[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
fn double(a: Four) -> Four {
    xor(
        add_halves(a, a),
        and(sign_words(spread_words(a)), constant(CARRIES)),
    )
}

gcm_of_four!("aes,pclmulqdq,ssse3,sse4.1");

#[cfg(test)]
use AesNi as Tier;

#[cfg(test)]
#[path = "tests/primitives.rs"]
#[allow(clippy::duplicate_mod, reason = "each tier tests its own functions")]
pub(super) mod primitives;
