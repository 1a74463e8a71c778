//! How long to wait before the next attempt to connect: longer after each round over all addresses, and never in step with others.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
/// Short, since an end that is away may be holding the other up.
const LONGEST: Duration = Duration::from_secs(5);
/// A connection that lasted for as long was a good one, so that its end is news and nothing to wait long after.
const GOOD: Duration = Duration::from_secs(2);

/// Doubles with each round over the addresses; half of each wait is drawn at random.
#[derive(Debug)]
pub struct Backoff {
    addresses: usize,
    attempts: usize,
    next: Duration,
}

impl Backoff {
    /// Begins with a quarter of a second, for attempts at so many addresses in turn.
    #[must_use]
    pub fn new(addresses: usize) -> Self {
        Self {
            addresses: addresses.max(1),
            attempts: 0,
            next: FIRST,
        }
    }

    /// The time to wait now, after an attempt, or the connection that it led to, lasted for `lasted`.
    pub fn next(&mut self, lasted: Duration) -> Duration {
        if lasted > GOOD {
            (self.attempts, self.next) = (0, FIRST);
        }
        self.attempts += 1;
        // Another replica may be there: only when none of them is, waiting is all that is left.
        let most = if self.attempts.is_multiple_of(self.addresses) {
            let most = self.next;
            self.next = (most * 2).min(LONGEST);
            most
        } else {
            FIRST
        };
        // Without random numbers all wait alike, which is only less kind to the other end.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        most / 2 + (most / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_most(wait: Duration, most: Duration) {
        assert!(wait >= most / 2 && wait <= most, "{wait:?} of {most:?}");
    }

    #[test]
    fn waits_grow_to_a_bound_and_start_over() {
        let mut backoff = Backoff::new(1);
        let mut most = FIRST;
        for _ in 0..20 {
            assert_most(backoff.next(Duration::ZERO), most);
            most = (most * 2).min(LONGEST);
        }
        assert_most(backoff.next(2 * GOOD), FIRST);
    }

    #[test]
    fn other_addresses_are_tried_before_a_wait_grows() {
        let mut backoff = Backoff::new(3);
        for most in [FIRST, 2 * FIRST, 4 * FIRST] {
            for wait in [FIRST, FIRST, most] {
                assert_most(backoff.next(Duration::ZERO), wait);
            }
        }
    }
}
