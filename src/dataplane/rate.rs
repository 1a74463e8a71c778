//! A budget that refills with time: what attackers could make expensive is bounded by one.

use crate::snapshot::{Awaited, Throttle};

/// Tokens, refilled at a steady rate up to a tenth of a second's worth.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Tokens times 2^32.
    tokens: u128,
    refilled: u64,
}

/// How fast a [`Budget`] refills.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Tokens a cycle, times 2^32.
    per_cycle: u64,
    /// The most that a budget holds, times 2^32.
    most: u128,
}

impl Rate {
    /// `per_second` tokens with a clock of `hz`; at least one can be saved up.
    pub(super) fn new(per_second: u32, hz: u64) -> Self {
        Self {
            per_cycle: ((u128::from(per_second) << 32) / u128::from(hz.max(1))) as u64,
            most: u128::from((per_second / 10).max(1)) << 32,
        }
    }
}

impl Budget {
    pub(super) fn full(rate: Rate, now: u64) -> Self {
        Self {
            tokens: rate.most,
            refilled: now,
        }
    }

    /// To be called once a burst, or before a take.
    pub(super) fn refill(&mut self, rate: Rate, now: u64) {
        self.earn(rate, now, u128::MAX);
    }

    /// [`Budget::refill`] that earns no more than a token for each `a_token` of so many packets.
    pub(super) fn refill_by(&mut self, rate: Rate, now: u64, packets: usize, a_token: u32) {
        self.earn(rate, now, ((packets as u128) << 32) / u128::from(a_token));
    }

    #[inline]
    fn earn(&mut self, rate: Rate, now: u64, most: u128) {
        let cycles = now.saturating_sub(self.refilled);
        self.refilled = now;
        let earned = u128::from(cycles) * u128::from(rate.per_cycle);
        self.tokens = (self.tokens + earned.min(most)).min(rate.most);
    }

    /// Whether more than half of the most is there.
    pub(super) fn is_ample(&self, rate: Rate) -> bool {
        self.tokens > rate.most / 2
    }

    /// Whether there are `tokens`, or half of the most if that is less.
    pub(super) fn has(&self, tokens: u32, rate: Rate) -> bool {
        self.tokens >= (u128::from(tokens) << 32).min(rate.most / 2)
    }

    pub(super) fn take(&mut self) -> bool {
        let left = self.tokens.checked_sub(1 << 32);
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }
}

/// Failed opens by peer entry, in cells that entries may share: one that shares with an attacker's is only spared searches.
pub(super) struct Throttles([ThrottleCell; CELLS]);

const CELLS: usize = 256;

#[derive(Clone, Copy, Default)]
struct ThrottleCell {
    since: u64,
    failures: u32,
}

impl Default for Throttles {
    fn default() -> Self {
        Self([ThrottleCell::default(); CELLS])
    }
}

impl Throttles {
    fn cell(&mut self, entry: u32, throttle: &Throttle, now: u64) -> &mut ThrottleCell {
        let cell = &mut self.0[entry as usize % CELLS];
        if now.saturating_sub(cell.since) >= throttle.window_cycles {
            *cell = ThrottleCell {
                since: now,
                failures: 0,
            };
        }
        cell
    }

    /// Whether searches for the entry's keys wait until the window ends.
    pub(super) fn closed(&mut self, entry: u32, throttle: &Throttle, now: u64) -> bool {
        self.cell(entry, throttle, now).failures >= throttle.failures
    }

    pub(super) fn count_failure(&mut self, entry: u32, throttle: &Throttle, now: u64) {
        let cell = self.cell(entry, throttle, now);
        cell.failures = cell.failures.saturating_add(1);
    }
}

/// Pairs whose secret was asked for in the last second, so that not each of their packets asks. Pairs share cells; that only costs notes.
pub(super) struct Noted([NotedCell; NOTED]);

const NOTED: usize = 64;

#[derive(Clone, Copy)]
struct NotedCell {
    pair: Awaited,
    since: u64,
}

impl Default for Noted {
    fn default() -> Self {
        let nobody = Awaited {
            serial: 0,
            pms_serial: 0,
            local: 0,
            remote: 0,
        };
        Self(
            [NotedCell {
                pair: nobody,
                since: 0,
            }; NOTED],
        )
    }
}

impl Noted {
    /// Whether the pair was not noted within the last `second` cycles; then it is now.
    pub(super) fn is_news(&mut self, pair: &Awaited, now: u64, second: u64) -> bool {
        let place = pair.local.wrapping_mul(31) ^ pair.remote ^ pair.pms_serial.wrapping_mul(7);
        let cell = &mut self.0[place as usize % NOTED];
        let known = cell.pair == *pair && now.saturating_sub(cell.since) < second;
        if !known {
            *cell = NotedCell {
                pair: *pair,
                since: now,
            };
        }
        !known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refills_at_its_rate_and_saves_up_a_tenth_of_a_second() {
        let rate = Rate::new(1_000, 1_000_000);
        let mut b = Budget::full(rate, 0);
        let spend = |b: &mut Budget| (0..).take_while(|_| b.take()).count();
        assert_eq!(spend(&mut b), 100);
        b.refill(rate, 10_100);
        assert_eq!(spend(&mut b), 10);
        b.refill(rate, 90_000_000);
        assert_eq!(spend(&mut b), 100);
    }

    #[test]
    fn earns_no_more_than_is_allowed() {
        let rate = Rate::new(1_000, 1_000_000);
        let mut b = Budget::full(rate, 0);
        while b.take() {}
        b.refill_by(rate, 50_000, 96, 32);
        assert!(b.has(3, rate) && !b.has(4, rate));
        b.refill_by(rate, 52_010, 96, 32);
        assert!(b.has(5, rate) && !b.has(6, rate), "two in so many cycles");
        b.refill(rate, u64::MAX);
        assert!(b.has(1_000, rate), "more than it can hold");
    }

    #[test]
    fn a_throttle_closes_for_the_rest_of_its_window() {
        let throttle = Throttle {
            failures: 2,
            window_cycles: 100,
        };
        let mut t = Throttles::default();
        for now in [10, 20] {
            assert!(!t.closed(7, &throttle, now));
            t.count_failure(7, &throttle, now);
        }
        assert!(t.closed(7, &throttle, 99));
        assert!(!t.closed(8, &throttle, 99), "another entry");
        assert!(!t.closed(7, &throttle, 110));
    }

    #[test]
    fn a_rate_of_0_still_allows_one_at_first() {
        let rate = Rate::new(0, 1_000_000);
        let mut b = Budget::full(rate, 0);
        assert!(b.take());
        b.refill(rate, u64::MAX);
        assert!(!b.take());
    }
}
