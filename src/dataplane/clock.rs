//! TSC cycles as attoseconds and nanoseconds, without a division.

use crate::wire::ScaledDelta;

/// Factors for one TSC frequency.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    hz: u64,
    /// Attoseconds a cycle, times 2^24.
    attoseconds: u64,
    /// Nanoseconds a cycle, times 2^32.
    nanoseconds: u64,
}

const ATTO_SHIFT: u32 = 24;
const NANO_SHIFT: u32 = 32;

impl Clock {
    /// For a TSC of `hz` cycles a second (1 MHz or more, as every TSC has).
    #[must_use]
    pub fn new(hz: u64) -> Self {
        let hz = hz.max(1_000_000);
        let per_cycle = |units: u128, shift| ((units << shift) / u128::from(hz)) as u64;
        Self {
            hz,
            attoseconds: per_cycle(1_000_000_000_000_000_000, ATTO_SHIFT),
            nanoseconds: per_cycle(1_000_000_000, NANO_SHIFT),
        }
    }

    /// Cycles a second.
    #[must_use]
    pub fn hz(&self) -> u64 {
        self.hz
    }

    /// A span of cycles as the option writes it.
    #[must_use]
    pub fn scaled(&self, cycles: u64) -> ScaledDelta {
        let attoseconds = (u128::from(cycles) * u128::from(self.attoseconds)) >> ATTO_SHIFT;
        ScaledDelta::from_attoseconds(attoseconds)
    }

    /// A span of cycles in nanoseconds.
    #[must_use]
    pub fn nanoseconds(&self, cycles: u64) -> u64 {
        ((u128::from(cycles) * u128::from(self.nanoseconds)) >> NANO_SHIFT) as u64
    }
}

/// A delta of the option in nanoseconds, saturating at 2^64 - 1.
#[must_use]
pub fn delta_ns(delta: ScaledDelta) -> u64 {
    // 2^scale by building the number: 255 + 1,023 is a legal exponent. The product is exact to 2^-52, the delta to 2^-15.
    let scale = f64::from_bits((u64::from(delta.scale) + 1_023) << 52);
    (f64::from(delta.delta) * scale * 1e-9) as u64
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
                let scaled = clock.scaled(cycles).attoseconds() as f64 * 1e-9;
                assert!((scaled - exact).abs() <= exact * 1e-4, "{hz} {cycles}");
            }
        }
    }

    #[test]
    fn reads_deltas_of_any_scale() {
        let d = |delta, scale| delta_ns(ScaledDelta { delta, scale });
        assert_eq!(d(0, 0), 0);
        assert_eq!(
            d(42_632, 46),
            2_999_960_301,
            "three seconds, truncated to 16 bits"
        );
        assert_eq!(d(65_535, 255), u64::MAX);
    }
}
