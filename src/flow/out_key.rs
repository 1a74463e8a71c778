//! The key of packets that go out, and what belongs to it alone: its algorithm, and the walk of PRSEQ under it.
//!
//! PRSEQ walks `offset + count * step` modulo 2^15 with an odd step, which meets each number once in 2^15 steps. 0 is no PRSEQ: where the walk
//! meets it, `offset` takes its place, which stands where a packet 0 would be, and packets are counted from 1 to 2^15 - 1. The
//! entropy is that of (step, offset), drawn anew for each key: 29 bits.

use super::epoch::Epoch;
use crate::crypto::{Aead, SessionKey};
use crate::wire::Prseq;
use zeroize::Zeroize;

const OFFSET_SHIFT: u32 = 15;
/// Bits of a PRSEQ, of an offset and of a step.
const MASK: u32 = Prseq::MAX as u32;
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
        // Memory that is all zero has no key.
        Aead::try_from((self.walk >> AEAD_SHIFT) as u16).unwrap_or_default()
    }

    /// Whether [`OutKey::aead`] is this one: fewer instructions than to make it out.
    #[inline]
    #[must_use]
    pub fn is_for(&self, aead: Aead) -> bool {
        self.walk >> AEAD_SHIFT == u32::from(aead.id())
    }

    /// Makes it a key that seals with `aead`, with a walk that `random` draws.
    pub(super) fn draw_walk(&mut self, aead: Aead, random: u32) {
        let offset = random >> 16 & MASK;
        let step = (random & MASK) | 1;
        self.walk = u32::from(aead.id()) << AEAD_SHIFT | offset << OFFSET_SHIFT | step;
    }

    /// The F bit of its packets: the lowest bit of Kri.
    #[must_use]
    pub fn f(&self) -> bool {
        self.kri & 1 == 1
    }

    /// PRSEQ of the `count`th packet, counted from 1: each of 1 … 32,767 once in so many packets.
    #[inline]
    pub(super) fn prseq(&self, count: u16) -> Prseq {
        let (step, offset) = (self.walk & MASK, self.walk >> OFFSET_SHIFT & MASK);
        let at = (u32::from(count) * step + offset) & MASK;
        Prseq::saturating(if at == 0 { offset } else { at } as u16)
    }

    /// Overwrites the secrets.
    pub(super) fn wipe(&mut self) {
        self.session.zeroize();
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::super::outgoing::MAX_PACKETS_PER_KEY;
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_walk_meets_each_prseq_once_and_never_0() {
        let some = (0..32u32).map(|n| n.wrapping_mul(0x9e37_79b9));
        let edges = [1, 2, 0x7fff, 0x8000, 0xffff, 0x7fff_0000, 0xffff_ffff];
        for random in some.chain(edges) {
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
