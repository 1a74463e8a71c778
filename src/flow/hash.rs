//! A keyed hash of 5-tuples, so that nobody outside can aim flows at one bucket.

use crate::wire::FiveTuple;

/// Secret words, of two drawn at start.
#[derive(Clone, Copy)]
pub struct TupleHasher {
    /// What each word that is hashed is mixed with.
    keys: [u64; 6],
}

const K: [u64; 3] = [
    0x9e37_79b9_7f4a_7c15,
    0xd1b5_4a32_d192_ed03,
    0xaef1_7502_108e_f2d9,
];

/// Multiplies to 128 bits and folds: each input bit reaches every output bit.
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ ((wide >> 64) as u64)
}

fn halves(address: &[u8; 16]) -> (u64, u64) {
    let n = u128::from_ne_bytes(*address);
    (n as u64, (n >> 64) as u64)
}

impl TupleHasher {
    /// A hasher with these secret words.
    #[must_use]
    pub fn new([a, b]: [u64; 2]) -> Self {
        Self {
            keys: [a, K[0], b, K[1], K[2], a ^ K[0]],
        }
    }

    /// 64 bits of which all are usable.
    #[must_use]
    pub fn hash(&self, t: &FiveTuple) -> u64 {
        let [k0, k1, k2, k3, k4, k5] = self.keys;
        let (s0, s1) = halves(&t.src);
        let (d0, d1) = halves(&t.dst);
        let a = fold(s0 ^ k0, s1 ^ k1);
        let b = fold(d0 ^ k2, d1 ^ k3);
        fold(a ^ t.upper() ^ k4, b.rotate_left(23) ^ k5)
    }

    /// A hash of a tuple's hash and more words, for tables of other things than flows.
    #[must_use]
    pub fn extend(&self, hash: u64, words: [u64; 2]) -> u64 {
        let [k0, _, k2, k3, k4, _] = self.keys;
        let a = fold(hash ^ words[0] ^ k2, k4);
        fold(a ^ words[1], k0 ^ k3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn tuple(n: u32) -> FiveTuple {
        let mut src = [0x20; 16];
        src[12..].copy_from_slice(&n.to_be_bytes());
        FiveTuple {
            src,
            dst: [0x30; 16],
            sport: n as u16,
            dport: 53,
            protocol: 17,
        }
    }

    #[test]
    fn spreads_neighbouring_tuples_over_every_bit_range() {
        let h = TupleHasher::new([1, 2]);
        let n = 1 << 16;
        for shift in [0, 16, 32, 48] {
            let buckets: HashSet<_> = (0..n)
                .map(|i| (h.hash(&tuple(i)) >> shift) as u16)
                .collect();
            // n balls into n bins leave n(1 - 1/e) bins used.
            let share = buckets.len() as f64 / f64::from(n);
            assert!((0.62..0.645).contains(&share), "shift {shift}: {share}");
        }
    }

    #[test]
    fn directions_seeds_and_words_differ() {
        let h = TupleHasher::new([1, 2]);
        let t = tuple(9);
        assert_ne!(h.hash(&t), h.hash(&t.reversed()));
        assert_ne!(h.hash(&t), TupleHasher::new([1, 3]).hash(&t));
        assert_ne!(h.extend(5, [0, 1]), h.extend(5, [1, 0]));
    }
}
