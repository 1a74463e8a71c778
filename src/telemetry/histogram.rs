//! Histograms of delays that a worker records into, and that a reader merges.
//!
//! Buckets are log-linear: values below 256 ns have one each, and every octave above has 128. So a bucket is never
//! wider than 1/128 of its lower end, and its middle is within 0.4 % of every value that fell into it. The bucket of a
//! value is found by a count of leading zeros and two shifts: let `shift` be how many of the value's low bits do not
//! matter, then
//!
//! ```text
//! bucket = 128 * shift + (value >> shift)       value >> shift is 128 … 255 from 256 ns on, and the value below
//! ```
//!
//! Like counters, a histogram has one writer, whose increments are a relaxed load and a relaxed store.

use std::sync::atomic::{AtomicU64, Ordering};

use super::counters::bump;

/// Buckets an octave.
const PER_OCTAVE: usize = 128;
/// Bits of the largest value: 2^40 ns are 1,099 s. What is longer counts as that.
const VALUE_BITS: u32 = 40;
/// Largest value that is told apart, in nanoseconds.
pub const MAX_NS: u64 = (1 << VALUE_BITS) - 1;
/// Leading zeros of a value that needs no shift: 8 significant bits.
const UNSHIFTED_ZEROS: u32 = 56;
const BUCKETS: usize = (VALUE_BITS as usize - 8) * PER_OCTAVE + 2 * PER_OCTAVE;

#[inline]
fn bucket_of(ns: u64) -> usize {
    let ns = ns.min(MAX_NS);
    let shift = UNSHIFTED_ZEROS.saturating_sub(ns.leading_zeros());
    PER_OCTAVE * shift as usize + (ns >> shift) as usize
}

/// The lowest value of a bucket and how many values it holds.
fn range_of(bucket: usize) -> (u64, u64) {
    let shift = (bucket / PER_OCTAVE).saturating_sub(1);
    let top = bucket - PER_OCTAVE * shift;
    ((top as u64) << shift, 1 << shift)
}

/// Delays recorded by one worker.
#[derive(Debug)]
pub struct DelayHistogram {
    buckets: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
}

impl Default for DelayHistogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum_ns: AtomicU64::new(0),
        }
    }
}

impl DelayHistogram {
    /// Records one delay in nanoseconds; more than [`MAX_NS`] counts as that. For the owning worker only.
    #[inline]
    pub fn record(&self, ns: u64) {
        if let Some(slot) = self.buckets.get(bucket_of(ns)) {
            bump(slot, 1);
        }
        bump(&self.sum_ns, ns.min(MAX_NS));
    }
}

/// The delays of several workers as plain numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delays {
    counts: Vec<u64>,
    /// Sum of all delays in nanoseconds.
    pub sum_ns: u64,
}

impl Delays {
    /// The sum over `parts`.
    #[must_use]
    pub fn over<'a>(parts: impl IntoIterator<Item = &'a DelayHistogram>) -> Self {
        let mut all = Self {
            counts: vec![0; BUCKETS],
            sum_ns: 0,
        };
        for part in parts {
            for (sum, slot) in all.counts.iter_mut().zip(&part.buckets) {
                *sum += slot.load(Ordering::Relaxed);
            }
            all.sum_ns = all.sum_ns.wrapping_add(part.sum_ns.load(Ordering::Relaxed));
        }
        all
    }

    /// How many delays were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many delays fell between each bound and the one before it, and how many beyond the last. Bounds are in
    /// nanoseconds and rising. A bucket that straddles a bound counts where its middle is.
    #[must_use]
    pub fn between(&self, bounds_ns: &[u64]) -> Vec<u64> {
        let mut out = vec![0; bounds_ns.len() + 1];
        for (bucket, count) in self.counts.iter().enumerate() {
            let middle = middle_of(bucket);
            out[bounds_ns.partition_point(|bound| *bound < middle)] += count;
        }
        out
    }

    /// As a histogram that answers for quantiles, in nanoseconds. Its values are within 0.5 % of those recorded.
    #[must_use]
    pub fn to_hdr(&self) -> hdrhistogram::Histogram<u64> {
        // 3 digits add 0.1 % to the 0.4 % that a bucket's width already costs.
        let mut hdr = hdrhistogram::Histogram::new_with_bounds(1, MAX_NS + 1, 3)
            .expect("the bounds are constants that satisfy 1 <= low, 2 * low <= high");
        for (bucket, count) in self.counts.iter().enumerate() {
            if *count > 0 {
                hdr.saturating_record_n(middle_of(bucket), *count);
            }
        }
        hdr
    }
}

fn middle_of(bucket: usize) -> u64 {
    let (low, width) = range_of(bucket);
    low + width / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_cover_all_values_without_gap_or_overlap() {
        let mut next = 0;
        for bucket in 0..BUCKETS {
            let (low, width) = range_of(bucket);
            assert_eq!(low, next, "bucket {bucket}");
            assert_eq!(bucket_of(low), bucket);
            assert_eq!(bucket_of(low + width - 1), bucket);
            assert!(width == 1 || width * 128 <= low);
            next = low + width;
        }
        assert_eq!(next, MAX_NS + 1);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn an_empty_histogram_has_no_counts() {
        let delays = Delays::over([&DelayHistogram::default()]);
        assert_eq!(delays.count(), 0);
        assert_eq!(delays.to_hdr().value_at_quantile(0.99), 0);
        assert_eq!(delays.between(&[1_000, 2_000]), [0, 0, 0]);
    }

    #[test]
    fn values_are_counted_between_bounds() {
        let histogram = DelayHistogram::default();
        for ns in [0, 100, 101, 5_000, 1_000_000, u64::MAX] {
            histogram.record(ns);
        }
        let delays = Delays::over([&histogram]);
        assert_eq!(delays.between(&[100, 10_000, 2_000_000]), [2, 2, 1, 1]);
        assert_eq!(delays.sum_ns, 100 + 101 + 5_000 + 1_000_000 + MAX_NS);
    }

    /// Delays spread evenly over the octaves, as delays are.
    fn delay() -> impl Strategy<Value = u64> {
        (0..VALUE_BITS, any::<u64>()).prop_map(|(bits, v)| v & ((2 << bits) - 1))
    }

    proptest! {
        #[test]
        fn quantiles_are_within_one_percent(
            parts in prop::collection::vec(prop::collection::vec(delay(), 1..200), 1..4),
        ) {
            let histograms: Vec<DelayHistogram> = parts
                .iter()
                .map(|part| {
                    let histogram = DelayHistogram::default();
                    part.iter().for_each(|ns| histogram.record(*ns));
                    histogram
                })
                .collect();
            let mut exact: Vec<u64> = parts.concat();
            exact.sort_unstable();
            let delays = Delays::over(&histograms);
            let hdr = delays.to_hdr();
            prop_assert_eq!(delays.count(), exact.len() as u64);
            prop_assert_eq!(hdr.len(), exact.len() as u64);
            prop_assert_eq!(delays.sum_ns, exact.iter().sum::<u64>());
            for quantile in [0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0] {
                let rank = ((quantile * exact.len() as f64).ceil() as usize).max(1);
                let truth = exact[rank - 1];
                let found = hdr.value_at_quantile(quantile);
                prop_assert!(
                    found.abs_diff(truth) as f64 <= truth as f64 * 0.01,
                    "quantile {quantile}: {found} instead of {truth}"
                );
            }
        }
    }
}
