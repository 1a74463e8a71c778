//! How long to wait before the next attempt to connect: longer each time, and never in step with others.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
/// Short, since an end that is away may be holding the other up.
const LONGEST: Duration = Duration::from_secs(5);

/// Doubles with each attempt; half of each wait is drawn at random.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Begins with a quarter of a second.
    #[must_use]
    pub fn new() -> Self {
        Self { next: FIRST }
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The time to wait now.
    pub fn next(&mut self) -> Duration {
        let most = self.next;
        self.next = (most * 2).min(LONGEST);
        // Without random numbers all wait alike, which is only less kind to the other end.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        most / 2 + (most / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_start_over() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..20).map(|_| backoff.next()).collect();
        let mut most = FIRST;
        for wait in waits {
            assert!(wait >= most / 2 && wait <= most, "{wait:?} of {most:?}");
            most = (most * 2).min(LONGEST);
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
