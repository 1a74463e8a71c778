//! The key of packets that go out, and what belongs to it alone: its algorithm, and the walk of PRSEQ under it.
//!
//! PRSEQ walks `offset + count * step` modulo 32,767 (a step prime to it), which meets each of 1 … 32,767 once: its entropy is that of
//! (step, offset), drawn anew for each key: log2(27,000 * 32,767), about 29.7 bits.

use super::epoch::Epoch;
use crate::crypto::{Aead, SessionKey};
use crate::wire::Prseq;
use zeroize::Zeroize;

const OFFSET_SHIFT: u32 = 15;
const AEAD_SHIFT: u32 = 30;

/// The key of one chapter, with the numbers that belong to it. One cache line, where a flow's entry places it.
#[derive(Default)]
#[repr(C, align(32))]
pub struct OutKey {
    /// The key and its base nonce.
    pub session: SessionKey,
    /// Key Rotation Index.
    pub kri: u32,
    /// The epoch that Kri counts in.
    pub epoch: Epoch,
    /// The AEAD (2 bits), and where PRSEQ's walk begins and its step (15 bits each).
    walk: u32,
}

impl OutKey {
    /// What the key seals with. Other workers may already see a snapshot in which the pairing has another one.
    #[inline]
    #[must_use]
    pub fn aead(&self) -> Aead {
        Aead::of_code((self.walk >> AEAD_SHIFT) as u16)
    }

    /// Whether [`OutKey::aead`] is this one: fewer instructions than to make it out.
    #[inline]
    #[must_use]
    pub fn is_for(&self, aead: Aead) -> bool {
        self.walk >> AEAD_SHIFT == u32::from(aead.code())
    }

    /// Makes it a key that seals with `aead`, with a walk that `random` draws.
    pub(super) fn draw_walk(&mut self, aead: Aead, random: u32) {
        let offset = random >> 16 & 0x7fff;
        let step = u32::from(coprime_step(random as u16));
        self.walk = u32::from(aead.code()) << AEAD_SHIFT | offset << OFFSET_SHIFT | step;
    }

    /// The F bit of its packets: the lowest bit of Kri.
    #[must_use]
    pub fn f(&self) -> bool {
        self.kri & 1 == 1
    }

    /// PRSEQ of the `count`th packet, counted from 1: each of 1 … 32,767 once in so many packets.
    #[inline]
    pub(super) fn prseq(&self, count: u16) -> Prseq {
        let (step, offset) = (self.walk & 0x7fff, self.walk >> OFFSET_SHIFT & 0x7fff);
        let sum = u32::from(count) * step + offset;
        // 2^15 = 1 modulo 32,767, so the 15-bit digits of the sum are added until one is left. The first addition leaves at most
        // 2^15 - 1 + 2^16, the second at most 2^15 + 1, so the last is a single subtraction.
        let once = (sum & 0x7fff) + (sum >> 15);
        let twice = (once & 0x7fff) + (once >> 15);
        let residue = if twice >= 32_767 {
            twice - 32_767
        } else {
            twice
        };
        Prseq::saturating(residue as u16 + 1)
    }

    /// Overwrites the secrets.
    pub(super) fn wipe(&mut self) {
        self.session.zeroize();
    }
}

/// A step prime to 32,767 = 7 * 31 * 151, out of any number.
fn coprime_step(random: u16) -> u16 {
    let mut step = random & 0x7fff;
    // Each by itself: only by a constant does the compiler divide without a division.
    while step.is_multiple_of(7) || step.is_multiple_of(31) || step.is_multiple_of(151) {
        step = step.wrapping_add(1) & 0x7fff;
    }
    step
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::super::outgoing::MAX_PACKETS_PER_KEY;
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_walk_meets_each_prseq_once_and_never_0() {
        for random in [0u32, 7, 31, 151, 0x7fff, 0xffff_ffff, 0x1234_5678] {
            let mut key = OutKey::default();
            key.draw_walk(Aead::Aes256Gcm, random);
            let seen: HashSet<u16> = (1..=MAX_PACKETS_PER_KEY)
                .map(|n| key.prseq(n).get())
                .collect();
            assert_eq!(seen.len(), 32_767, "{random:#x}");
            assert!(seen.iter().all(|p| (1..=32_767).contains(p)));
        }
    }
}
