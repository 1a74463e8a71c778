//! HKDF-Expand with SHA-256 (RFC 5869 section 2.3) of a key whose HMAC blocks, two fifths of the work, are hashed once.
//!
//! Two libraries do it. Where a processor has instructions for SHA-256, `hkdf` with `sha2` takes five sixths of the cycles that `ring` takes,
//! and clears its hash states; what HMAC and HKDF have on the stack meanwhile, neither clears. Where it has none, `ring`'s assembly is half as fast
//! again as `sha2`.

use core::hint::black_box;
use hkdf::Hkdf;
use ring::hkdf::{HKDF_SHA256, KeyType, Prk};
use sha2::Sha256;

/// A pseudorandom key, ready to be expanded. Zeroed when dropped.
pub(super) enum Expander {
    /// By `hkdf`.
    Hkdf(Hkdf<Sha256>),
    /// By `ring`.
    Ring(Prk),
}

impl Expander {
    /// Of a key of `Nh` bytes; the caller clears its own copy.
    pub(super) fn new(prk: &[u8; 32]) -> Self {
        if has_sha_instructions() {
            Self::by_hkdf(prk)
        } else {
            Self::by_ring(prk)
        }
    }

    fn by_hkdf(prk: &[u8; 32]) -> Self {
        Self::Hkdf(Hkdf::from_prk(prk).expect("a key of 32 bytes is as long as SHA-256's output"))
    }

    fn by_ring(prk: &[u8; 32]) -> Self {
        Self::Ring(Prk::new_less_safe(HKDF_SHA256, prk))
    }

    /// Fills `okm` with output keying material for the pieces of `info` put together.
    pub(super) fn expand(&self, info: &[&[u8]], okm: &mut [u8]) {
        // Both fail for an output longer than 255 blocks of 32; the longest is what IBC's scalar is made of, 48 bytes.
        const ENOUGH: &str = "at most 48 bytes are asked for, HKDF gives up to 8160";
        match self {
            Self::Hkdf(prk) => prk.expand_multi_info(info, okm).expect(ENOUGH),
            Self::Ring(prk) => prk
                .expand(info, OkmLen(okm.len()))
                .and_then(|expanded| expanded.fill(okm))
                .expect(ENOUGH),
        }
    }
}

impl Drop for Expander {
    fn drop(&mut self) {
        // `ring` clears nothing, and has nothing to be cleared by; so another key is written over this one. The compiler is told that
        // somebody looks at it.
        if let Self::Ring(prk) = self {
            *prk = Prk::new_less_safe(HKDF_SHA256, &[0; 32]);
            black_box(prk);
        }
    }
}

struct OkmLen(usize);

impl KeyType for OkmLen {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(target_arch = "x86_64")]
fn has_sha_instructions() -> bool {
    is_x86_feature_detected!("sha")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_sha_instructions() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_libraries_say_the_same() {
        for len in [16, 28, 32, 33, 44, 48] {
            let prk = [len as u8; 32];
            let parts: [&[u8]; 3] = [b"a label", b"", &[7; 81]];
            let of = |expander: &Expander, info: &[&[u8]]| {
                let mut okm = vec![0; len];
                expander.expand(info, &mut okm);
                okm
            };
            let okm = of(&Expander::by_ring(&prk), &parts);
            assert_eq!(of(&Expander::by_hkdf(&prk), &parts), okm, "{len}");
            assert_eq!(of(&Expander::new(&prk), &[&parts.concat()]), okm, "{len}");
        }
    }
}
