//! TSC cycles as attoseconds and nanoseconds, without a division.

use crate::telemetry::MAX_NS;
use crate::wire::ScaledDelta;

/// Factors for one TSC frequency.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    hz: u64,
    /// Attoseconds a cycle.
    attoseconds: f64,
    /// Nanoseconds a cycle, times 2^32.
    nanoseconds: u64,
}

const NANO_SHIFT: u32 = 32;

impl Clock {
    /// For a TSC of `hz` cycles a second (1 MHz or more, as every TSC has).
    #[must_use]
    pub fn new(hz: u64) -> Self {
        let hz = hz.max(1_000_000);
        Self {
            hz,
            attoseconds: 1e18 / hz as f64,
            nanoseconds: ((1_000_000_000 << NANO_SHIFT) / u128::from(hz)) as u64,
        }
    }

    /// Cycles a second.
    #[must_use]
    pub fn hz(&self) -> u64 {
        self.hz
    }

    /// A span of cycles, below 2^63, as the option writes it: exact to 2^-15, as its 16 bits are.
    #[inline]
    #[must_use]
    pub fn scaled(&self, cycles: u64) -> ScaledDelta {
        // A floating-point number is scaled already: its exponent, and its highest bits behind a 1 that it leaves out. A cycle has more
        // attoseconds than 16 bits hold, so every span but zero has a scale.
        let bits = (cycles as i64 as f64 * self.attoseconds).to_bits();
        let exponent = (bits >> 52) as u32;
        let scaled = ScaledDelta {
            delta: (bits >> (52 - 15)) as u16 | 1 << 15,
            scale: exponent.wrapping_sub(1_023 + 15) as u8,
        };
        if cycles == 0 {
            ScaledDelta::ZERO
        } else {
            scaled
        }
    }

    /// A span of cycles in nanoseconds.
    #[must_use]
    pub fn nanoseconds(&self, cycles: u64) -> u64 {
        ((u128::from(cycles) * u128::from(self.nanoseconds)) >> NANO_SHIFT) as u64
    }
}

/// A delta of the option in nanoseconds, to the nearest; `None` beyond [`MAX_NS`].
#[inline]
#[must_use]
pub fn delta_ns(delta: ScaledDelta) -> Option<u64> {
    // 2^scale by building the number: 255 + 1,023 is a legal exponent. The product is exact to 2^-52, the delta to 2^-15.
    let scale = f64::from_bits((u64::from(delta.scale) + 1_023) << 52);
    let ns = f64::from(delta.delta) * scale * 1e-9;
    // A conversion minds numbers of any size. With 2^52 added, the last bit of a smaller one's fraction is 1.
    let whole = (ns + (1u64 << 52) as f64).to_bits() & ((1 << 52) - 1);
    (ns <= MAX_NS as f64).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_spans_from_a_cycle_to_a_day() {
        for hz in [1_000_000, 2_600_000_000, 2_599_998_123, 5_000_000_000u64] {
            let clock = Clock::new(hz);
            for cycles in [1, 77, 1_000, hz / 1_000, hz, 86_400 * hz] {
                let exact = cycles as f64 * 1e9 / hz as f64;
                let ns = clock.nanoseconds(cycles) as f64;
                assert!(
                    (ns - exact).abs() <= 1.0 + exact * 1e-8,
                    "{hz} {cycles}: {ns} {exact}"
                );
                let scaled = clock.scaled(cycles);
                let attoseconds = u128::from(cycles) * 1_000_000_000_000_000_000 / u128::from(hz);
                let wanted = ScaledDelta::from_attoseconds(attoseconds);
                // Both are truncated, the one after it was rounded to 53 bits.
                let difference = scaled.attoseconds().abs_diff(wanted.attoseconds());
                assert!(difference <= 1 << wanted.scale, "{hz} {cycles}");
                assert!(scaled.delta >= 1 << 15, "{hz} {cycles}");
            }
        }
    }

    #[test]
    fn no_time_is_zero() {
        assert_eq!(Clock::new(2_600_000_000).scaled(0), ScaledDelta::ZERO);
    }

    #[test]
    fn reads_deltas_of_any_scale() {
        let d = |delta, scale| delta_ns(ScaledDelta { delta, scale });
        assert_eq!(d(0, 0), Some(0));
        assert_eq!(
            d(42_632, 46),
            Some(2_999_960_302),
            "three seconds, truncated to 16 bits"
        );
        assert_eq!(d(1, 30), Some(1), "1.07 ns");
        let longest = ScaledDelta::from_attoseconds(u128::from(MAX_NS) * 1_000_000_000);
        assert!(d(longest.delta, longest.scale).is_some_and(|ns| ns > MAX_NS - (MAX_NS >> 15)));
        assert_eq!(d(longest.delta, longest.scale + 1), None);
        assert_eq!(d(65_535, 255), None);
    }
}
