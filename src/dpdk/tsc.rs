//! How fast the time stamp counter counts.
//!
//! Where the processor does not say it, DPDK rounds to 10 MHz, which is up to 0.2 % wrong. So it is counted here, on every machine.

use std::thread;
use std::time::Duration;

use super::cycles;

/// How long is counted. Clock and counter are read within some 100 ns of each other, so 200 ms tell the frequency to 1 ppm, where the
/// crystals of two hosts differ by tens; and every start waits for as long.
const SPAN: Duration = Duration::from_millis(200);

/// How often both are read; what took least counts.
const READINGS: usize = 16;

/// A count that has begun.
#[derive(Debug)]
pub struct Calibration {
    begun: Reading,
}

impl Calibration {
    /// Begins to count.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            begun: Reading::sharpest(),
        }
    }

    /// Ticks of the counter in a second of the kernel's clock, to 1 ppm: sleeps until 200 ms have passed since the beginning.
    #[must_use]
    pub fn hz(self) -> u64 {
        let passed = Reading::take().nanoseconds - self.begun.nanoseconds;
        thread::sleep(SPAN.saturating_sub(Duration::from_nanos(passed)));
        self.begun.hz(&Reading::sharpest())
    }
}

/// Counter and clock at the same moment.
#[derive(Debug)]
struct Reading {
    cycles: u64,
    nanoseconds: u64,
    /// Cycles that reading took, which bound how far the two are apart.
    took: u64,
}

impl Reading {
    fn take() -> Self {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let before = cycles();
        // SAFETY: `time` is written to. Linux has this clock, which nobody sets or slows, so it does not fail.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_RAW, &raw mut time) };
        let took = cycles().saturating_sub(before);
        Self {
            cycles: before + took / 2,
            nanoseconds: time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64,
            took,
        }
    }

    fn sharpest() -> Self {
        (1..READINGS).fold(Self::take(), |best, _| {
            let next = Self::take();
            if next.took < best.took { next } else { best }
        })
    }

    /// Ticks in a second between this reading and a later one.
    fn hz(&self, later: &Self) -> u64 {
        let cycles = u128::from(later.cycles - self.cycles) * 1_000_000_000;
        (cycles / u128::from(later.nanoseconds - self.nanoseconds)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frequency_is_not_rounded() {
        let at = |cycles, nanoseconds| Reading {
            cycles,
            nanoseconds,
            took: 0,
        };
        let begun = at(7_000_000_000, 5_000_000_000);
        let after = begun.hz(&at(7_489_080_000, 5_200_000_000));
        assert_eq!(after, 2_445_400_000);
        // EAL may take long, with many hugepages to clear.
        let minute = begun.hz(&at(153_724_000_000, 65_000_000_000));
        assert_eq!(minute, 2_445_400_000);
    }
}
