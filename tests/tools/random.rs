//! Splitmix64: small, fast, and the same on every machine, which is all that a seeded test needs.

/// A generator; two with the same seed yield the same numbers.
pub struct Random(u64);

impl Random {
    /// A generator of its own for item `index` of stream `stream`, so that what happens to one packet does not depend on what
    /// happened to those before it.
    pub fn at(seed: u64, stream: u64, index: u64) -> Self {
        let mut outer = Self(seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93));
        Self(outer.next() ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 if the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// A number in `0.0..1.0`.
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn known_numbers() {
        // The first outputs of splitmix64 seeded with 0.
        let mut random = Random(0);
        assert_eq!(random.next(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.next(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn one_item_does_not_depend_on_another() {
        assert_eq!(Random::at(1, 0, 7).next(), Random::at(1, 0, 7).next());
        assert_ne!(Random::at(1, 0, 7).next(), Random::at(1, 1, 7).next());
        assert_ne!(Random::at(1, 0, 7).next(), Random::at(2, 0, 7).next());
    }
}
