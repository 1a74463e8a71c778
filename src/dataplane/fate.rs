//! What becomes of each packet of a burst.

use super::BURST;

/// What the worker's loop does with a packet after the stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// Send it out of the other port.
    #[default]
    Forward,
    /// Send it out of the port that it came from: it was turned into an answer.
    Return,
    /// Drop it. Already counted.
    Drop,
}

/// The fates of one burst, by position.
#[derive(Clone, Copy, Debug)]
pub struct Fates([Fate; BURST]);

impl Default for Fates {
    fn default() -> Self {
        Self([Fate::Forward; BURST])
    }
}

impl Fates {
    /// The fate of the packet at `at`; positions beyond a burst are forwarded.
    #[must_use]
    pub fn get(&self, at: usize) -> Fate {
        self.0.get(at).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, at: usize, fate: Fate) {
        if let Some(place) = self.0.get_mut(at) {
            *place = fate;
        }
    }

    /// Whether every packet is forwarded, as nearly always.
    #[must_use]
    pub fn all_forward(&self) -> bool {
        self.0.iter().all(|f| *f == Fate::Forward)
    }
}
