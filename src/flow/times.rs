//! What a flow remembers of time: when packets were sent, and when the last one came.
//!
//! All times are TSC cycles cut to 48 bits (30 hours at 2.6 GHz): each word carries the sequence number that it belongs to in
//! its upper 16 bits, so that number and time are read together.

use super::sync::{AtomicU64, Ordering};
use std::hint::select_unpredictable;

const TIME_BITS: u32 = 48;
const TIME: u64 = (1 << TIME_BITS) - 1;

#[inline]
fn pack(psn: u16, cycles: u64) -> u64 {
    (u64::from(psn) << TIME_BITS) | (cycles & TIME)
}

/// The cycles from `earlier` to `later`, both cut to 48 bits; `None` if that is more than half the circle, so negative.
#[must_use]
pub fn cycles_between(earlier: u64, later: u64) -> Option<u64> {
    let cycles = later.wrapping_sub(earlier) & TIME;
    (cycles < 1 << (TIME_BITS - 1)).then_some(cycles)
}

const LEVELS: usize = 4;
const PLACES: usize = 4;
/// Level n keeps each 8^n-th packet.
const LEVEL_SHIFT: u32 = 3;

/// Whether a level keeps the packet.
#[inline]
fn is_kept(psntp: u16, level: u32) -> bool {
    psntp & ((1 << (level * LEVEL_SHIFT)) - 1) == 0
}

#[inline]
fn place(psntp: u16, level: u32) -> usize {
    usize::from(psntp >> (level * LEVEL_SHIFT)) % PLACES
}

/// Send times of some of the packets that may still be answered.
///
/// With pipelined traffic the packet that a peer names (PSNLR) was sent long before the last one. Keeping every time would
/// take a cache line each eight packets in flight. Instead four levels keep four times each: the last four packets, the last four
/// whose PSNTP is a multiple of 8, of 64 and of 512. So a flow with few packets in flight is measured by each answer, and one
/// with up to 2,048 in flight by at least each 512th.
pub struct SendTimes {
    places: [[AtomicU64; PLACES]; LEVELS],
}

impl SendTimes {
    #[cfg(any(test, feature = "loom"))]
    pub(crate) fn new() -> Self {
        Self {
            places: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
        }
    }

    /// Forgets everything; to be called before anyone else can see the flow.
    pub(crate) fn reset(&self) {
        for place in self.places.iter().flatten() {
            place.store(0, Ordering::Relaxed);
        }
    }

    /// Fetches what [`SendTimes::sent`] writes of this packet: four places of a level are of one cache line.
    #[inline]
    pub(crate) fn prefetch(&self, psntp: u16) {
        let [newest, eighths, ..] = &self.places;
        super::prefetch(select_unpredictable(is_kept(psntp, 1), eighths, newest));
    }

    /// Notes that the packet `psntp` is sent at `now` (cycles, not 0).
    #[inline]
    pub fn sent(&self, psntp: u16, now: u64) {
        let word = pack(psntp, now);
        let [_, _, rarer @ ..] = &self.places;
        let all = self.places.as_flattened();
        // Nobody can foretell whether it is an eighth, so another store to where it is kept already costs less than a branch.
        let (newest, eighth) = (place(psntp, 0), PLACES + place(psntp, 1));
        all[newest].store(word, Ordering::Relaxed);
        all[select_unpredictable(is_kept(psntp, 1), eighth, newest)].store(word, Ordering::Relaxed);
        for (level, places) in (2..).zip(rarer) {
            if !is_kept(psntp, level) {
                break;
            }
            places[place(psntp, level)].store(word, Ordering::Relaxed);
        }
    }

    /// [`SendTimes::when`] for one of the last four packets.
    #[inline]
    #[must_use]
    pub fn when_newest(&self, psn: u16) -> Option<u64> {
        self.when_of(psn, 0)
    }

    /// When the packet `psn` was sent, in cycles of 48 bits, if that is still known.
    #[inline]
    #[must_use]
    pub fn when(&self, psn: u16) -> Option<u64> {
        // Of the levels that keep a packet the highest one does so for longest, and needs no branch to be found.
        let highest = 1 << (LEVEL_SHIFT * (LEVELS - 1) as u32);
        let level = (psn | highest).trailing_zeros() / LEVEL_SHIFT;
        self.when_newest(psn).or_else(|| self.when_of(psn, level))
    }

    /// When the packet was sent, if this level still knows.
    #[inline]
    fn when_of(&self, psn: u16, level: u32) -> Option<u64> {
        let word = self.places.get(level as usize)?[place(psn, level)].load(Ordering::Relaxed);
        let is_there = (word != 0) & ((word >> TIME_BITS) as u16 == psn);
        is_there.then_some(word & TIME)
    }
}

/// The last packet that came on a flow, for PSNLR, DeltaTLR and DeltaTLS of the packets that go out.
pub struct LastReceived {
    /// PSN and time of receipt; 0 before the first.
    at: AtomicU64,
    /// PSN and the cycles since the last packet sent before it, plus one; 0 if none was sent.
    since_sent: AtomicU64,
}

/// What a packet that goes out says of the last one that came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// PSN Last Received.
    pub psnlr: u16,
    /// Cycles from its receipt until now, for DeltaTLR.
    pub since_received: u64,
    /// Cycles from the last packet sent before it to its receipt, for DeltaTLS; `None` if none was sent before it.
    pub sent_to_received: Option<u64>,
}

impl LastReceived {
    #[cfg(any(test, feature = "loom"))]
    pub(crate) fn new() -> Self {
        Self {
            at: AtomicU64::new(0),
            since_sent: AtomicU64::new(0),
        }
    }

    /// Forgets everything; to be called before anyone else can see the flow.
    pub(crate) fn reset(&self) {
        for word in [&self.at, &self.since_sent] {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Notes that the packet `psn` came at `now`, and that the last packet before it was sent at `last_sent`.
    #[inline]
    pub fn received(&self, psn: u16, now: u64, last_sent: Option<u64>) {
        let since = last_sent.and_then(|sent| cycles_between(sent, now));
        // The deltas of two packets must not be mixed: the reader takes this one only if its PSN is the other word's.
        self.since_sent.store(
            pack(psn, since.map_or(0, |c| (c + 1).min(TIME))),
            Ordering::Relaxed,
        );
        self.at
            .store(pack(psn, (now & TIME).max(1)), Ordering::Release);
    }

    /// What to say at `now`; `None` before the first packet came.
    #[inline]
    #[must_use]
    pub fn heard(&self, now: u64) -> Option<Heard> {
        let at = self.at.load(Ordering::Acquire);
        if at == 0 {
            return None;
        }
        let psnlr = (at >> TIME_BITS) as u16;
        let since = self.since_sent.load(Ordering::Relaxed);
        let same = (since >> TIME_BITS) as u16 == psnlr;
        Some(Heard {
            psnlr,
            since_received: since_received(at, now),
            sent_to_received: (same && since & TIME != 0).then_some((since & TIME).wrapping_sub(1)),
        })
    }
}

/// As [`cycles_between`], up to 2^48 cycles, since a flow may send for long without an answer: only what two cores' clocks may differ by
/// is before.
fn since_received(at: u64, now: u64) -> u64 {
    let since = now.wrapping_sub(at) & TIME;
    if since > TIME - (1 << 32) { 0 } else { since }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_last_four_and_rarer_ones_longer() {
        let t = SendTimes::new();
        for n in 1..=5_000u32 {
            t.sent(n as u16, u64::from(n) * 10);
        }
        for n in [5_000, 4_999, 4_998, 4_997] {
            assert_eq!(t.when(n), Some(u64::from(n) * 10));
        }
        assert_eq!(t.when(4_995), None);
        assert_eq!(t.when(4_976), Some(49_760), "a multiple of 8 within 32");
        assert_eq!(t.when(4_936), None);
        assert_eq!(t.when(4_800), Some(48_000), "a multiple of 64 within 256");
        assert_eq!(
            t.when(3_584),
            Some(35_840),
            "a multiple of 512 within 2,048"
        );
        assert_eq!(t.when(2_560), None);
    }

    #[test]
    fn a_number_that_wrapped_is_not_taken_for_the_old_one() {
        let t = SendTimes::new();
        for n in 0..65_536u32 + 100 {
            t.sent(n as u16, u64::from(n) + 1);
        }
        for n in 0..=65_535u16 {
            if let Some(at) = t.when(n) {
                let newest = if n < 100 {
                    65_536 + u64::from(n)
                } else {
                    u64::from(n)
                };
                assert_eq!(at, newest + 1);
            }
        }
    }

    #[test]
    fn deltas_follow_rfc_8250() {
        let l = LastReceived::new();
        assert_eq!(l.heard(5), None);
        l.received(7, 100, None);
        assert_eq!(
            l.heard(130),
            Some(Heard {
                psnlr: 7,
                since_received: 30,
                sent_to_received: None
            })
        );
        l.received(8, 150, Some(140));
        assert_eq!(
            l.heard(151),
            Some(Heard {
                psnlr: 8,
                since_received: 1,
                sent_to_received: Some(10)
            })
        );
    }

    #[test]
    fn times_wrap_at_48_bits() {
        assert_eq!(cycles_between((1 << 48) - 5, 5), Some(10));
        assert_eq!(cycles_between(5, (1 << 48) - 5), None);
        assert_eq!(since_received((1 << 48) - 5, 5), 10);
        assert_eq!(since_received(10, 5), 0, "another core's clock");
        assert_eq!(since_received(5, 5 + (1 << 47)), 1 << 47);
    }
}
