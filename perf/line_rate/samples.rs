//! Results of the rounds of one measurement.

use serde::Serialize;

/// The median of some rounds, with the extremes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub rounds: usize,
}

impl Spread {
    /// Of at least one sample; all zero without.
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |n: usize| sorted.get(n).copied().unwrap_or_default();
        let middle = sorted.len() / 2;
        Self {
            median: match sorted.len() % 2 {
                1 => at(middle),
                _ => (at(middle.saturating_sub(1)) + at(middle)) / 2.0,
            },
            min: at(0),
            max: at(sorted.len().saturating_sub(1)),
            rounds: sorted.len(),
        }
    }

    /// Of the ratios of samples that were taken in the same rounds: what changed from round to round met both.
    pub fn of_ratios(samples: &[f64], yardstick: &[f64]) -> Self {
        let ratios: Vec<f64> = samples.iter().zip(yardstick).map(|(a, b)| a / b).collect();
        Self::of(&ratios)
    }

    /// With every number multiplied.
    pub fn scaled(self, factor: f64) -> Self {
        Self {
            median: self.median * factor,
            min: self.min * factor,
            max: self.max * factor,
            ..self
        }
    }
}
