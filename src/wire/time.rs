//! Time differences as PDM carries them: attoseconds, scaled to 16 bits (RFC 8250 section 3.3; protocol section 1).
//!
//! ```text
//!      attoseconds   0 … 0 1 x x x x x x x x x x x x x x x | y y y … y
//!                          \______________ ______________/  \____ ___/
//!                                         v                      v
//!                                 delta, 16 bits        scale, bits dropped
//! ```
//!
//! The 16 most significant bits are kept and the rest is truncated, so a value that fits 16 bits has scale 0 and is
//! exact, and any other is short by less than one part in 32,768.

/// A time difference in units of `2^scale` attoseconds. Any pair may come off the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ScaledDelta {
    /// The 16 most significant bits.
    pub delta: u16,
    /// How many bits further left they belong. [`ScaledDelta::from_attoseconds`] makes 0 … 112.
    pub scale: u8,
}

impl ScaledDelta {
    /// No time, and also "not known yet": what both deltas are before the first packet is received.
    pub const ZERO: Self = Self { delta: 0, scale: 0 };

    /// Scales a difference in attoseconds, rounding towards zero.
    #[must_use]
    pub const fn from_attoseconds(attoseconds: u128) -> Self {
        let bits = u128::BITS - attoseconds.leading_zeros();
        let scale = bits.saturating_sub(u16::BITS);
        Self {
            delta: (attoseconds >> scale) as u16,
            scale: scale as u8,
        }
    }

    /// The difference in attoseconds; `u128::MAX` where a scale from the wire puts it beyond 128 bits.
    #[must_use]
    pub const fn attoseconds(self) -> u128 {
        let delta = self.delta as u128;
        if self.delta == 0 {
            0
        } else if self.scale as u32 <= delta.leading_zeros() {
            delta << self.scale
        } else {
            u128::MAX
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scaled(delta: u16, scale: u8) -> ScaledDelta {
        ScaledDelta { delta, scale }
    }

    #[test]
    fn scales_at_the_edges() {
        for (attoseconds, delta, scale) in [
            (0, 0, 0),
            (0xffff, 0xffff, 0),
            (0x1_0000, 0x8000, 1),
            (0x1_0001, 0x8000, 1),
            (0x1_ffff, 0xffff, 1),
            (u128::MAX, 0xffff, 112),
        ] {
            assert_eq!(
                ScaledDelta::from_attoseconds(attoseconds),
                scaled(delta, scale)
            );
        }
    }

    #[test]
    fn saturates_beyond_128_bits() {
        assert_eq!(scaled(0xffff, 112).attoseconds(), 0xffff << 112);
        assert_eq!(scaled(0xffff, 113).attoseconds(), u128::MAX);
        assert_eq!(scaled(1, 127).attoseconds(), 1 << 127);
        assert_eq!(scaled(1, 128).attoseconds(), u128::MAX);
        assert_eq!(scaled(1, 255).attoseconds(), u128::MAX);
        assert_eq!(scaled(0, 255).attoseconds(), 0);
    }

    proptest! {
        #[test]
        fn truncates_by_less_than_a_unit(bits in 0u32..=128, any in any::<u128>()) {
            let attoseconds = any.checked_shr(128 - bits).unwrap_or(0);
            let kept = ScaledDelta::from_attoseconds(attoseconds);
            prop_assert!(kept.scale == 0 || kept.delta >= 0x8000);
            prop_assert!(kept.attoseconds() <= attoseconds);
            prop_assert!(attoseconds - kept.attoseconds() < 1 << kept.scale);
            prop_assert_eq!(ScaledDelta::from_attoseconds(kept.attoseconds()), kept);
        }
    }
}
