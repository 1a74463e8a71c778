//! What the options of both directions of a flow say together.
//!
//! The capture is taken somewhere between the two senders of options:
//!
//! ```text
//!   A ────────── C ────────── B
//!   │            │  PSNTP 7   │
//!   ├───────────►├───────────►┤            C sees 7 at t1
//!   │            │            │ DeltaTLR
//!   ├◄───────────┼◄───────────┤            C sees PSNLR 7 at t2
//! ```
//!
//! So `t2 - t1 - DeltaTLR` is the network round-trip time between C and B, and the same from the other side that
//! between C and A. Their sum is that between A and B, wherever C is.

use std::collections::{BTreeSet, HashMap};

use super::keys::Keys;
use super::records::{
    Direction, FlowRecord, Kind, MedianRecord, MetricsRecord, OptionRecord, SideRecord, TupleRecord,
};
use crate::wire::FiveTuple;

/// A jump of PSNTP by more than this is a new start, not a loss.
const LONGEST_GAP: u64 = 4_096;

/// A flow, named the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(FiveTuple);

impl Key {
    /// The flow of a packet, and whether the packet goes the way the flow is named.
    pub fn of(tuple: &FiveTuple) -> (Self, bool) {
        if (tuple.src, tuple.sport) <= (tuple.dst, tuple.dport) {
            (Self(*tuple), true)
        } else {
            (Self(tuple.reversed()), false)
        }
    }
}

/// Both directions of a 5-tuple.
pub(super) struct Flow {
    /// As it is shown.
    tuple: FiveTuple,
    /// Whether `tuple` goes the way the flow's key is named.
    forward_is_key: bool,
    pairing: Option<String>,
    /// The direction of the key, and the other one.
    sides: [Side; 2],
}

/// One direction.
#[derive(Default)]
pub(super) struct Side {
    pub keys: Keys,
    packets: u64,
    options: u64,
    opened: u64,
    sequence: Sequence,
    /// When the latest packet of each PSNTP was captured.
    seen_ns: HashMap<u16, u64>,
    server_delays_ns: Vec<u64>,
    rtts_ns: Vec<u64>,
}

impl Flow {
    pub fn new(first: &FiveTuple, direction: Option<Direction>, pairing: Option<String>) -> Self {
        let tuple = match direction {
            Some(Direction::ServerToClient) => first.reversed(),
            _ => *first,
        };
        Self {
            tuple,
            forward_is_key: Key::of(&tuple).1,
            pairing,
            sides: [Side::default(), Side::default()],
        }
    }

    /// One direction: that of the key if `of_key`.
    pub fn side(&mut self, of_key: bool) -> &mut Side {
        let [forward, reverse] = &mut self.sides;
        if of_key { forward } else { reverse }
    }

    /// Counts a packet.
    pub fn counted(&mut self, of_key: bool) {
        self.side(of_key).packets += 1;
    }

    /// Takes in the option of a packet captured at `time_ns`.
    pub fn option(&mut self, of_key: bool, time_ns: u64, option: &OptionRecord) {
        let [forward, reverse] = &mut self.sides;
        let (side, other) = if of_key {
            (forward, reverse)
        } else {
            (reverse, forward)
        };
        side.options += 1;
        if let Some(metrics) = &option.metrics {
            side.opened += 1;
            // Kinds do not mix within a direction, but if they did, each would count from its own start.
            if option.kind != Kind::Unknown {
                side.read(other, time_ns, metrics);
            }
        }
    }

    pub fn is_of_interest(&self) -> bool {
        self.pairing.is_some() || self.sides.iter().any(|side| side.options > 0)
    }

    pub fn record(&self) -> FlowRecord {
        let [of_key, against_key] = self.sides.each_ref().map(Side::record);
        let (forward, reverse) = if self.forward_is_key {
            (of_key, against_key)
        } else {
            (against_key, of_key)
        };
        let rtt_ns = forward.rtt_ns.zip(reverse.rtt_ns);
        FlowRecord {
            tuple: TupleRecord::from(&self.tuple),
            pairing: self.pairing.clone(),
            rtt_ns: rtt_ns.map(|(a, b)| a.median.saturating_add(b.median)),
            forward,
            reverse,
        }
    }
}

impl Side {
    fn read(&mut self, other: &Self, time_ns: u64, metrics: &MetricsRecord) {
        if !self.sequence.is_new(metrics.psntp) {
            return;
        }
        self.seen_ns.insert(metrics.psntp, time_ns);
        let delay_ns = metrics.dtlr.ns;
        // Nothing was received yet.
        if metrics.dtlr.attoseconds == 0 {
            return;
        }
        self.server_delays_ns.push(delay_ns);
        let rtt_ns = other
            .seen_ns
            .get(&metrics.psnlr)
            .and_then(|seen| time_ns.checked_sub(*seen)?.checked_sub(delay_ns));
        self.rtts_ns.extend(rtt_ns);
    }

    fn record(&self) -> SideRecord {
        SideRecord {
            packets: self.packets,
            options: self.options,
            opened: self.opened,
            failed: self.options - self.opened,
            lost: self.sequence.missing.len() as u64,
            reordered: self.sequence.reordered,
            repeated: self.sequence.repeated,
            server_delay_ns: median(&self.server_delays_ns),
            rtt_ns: median(&self.rtts_ns),
        }
    }
}

fn median(samples: &[u64]) -> Option<MedianRecord> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    Some(MedianRecord {
        median: *sorted.get(sorted.len().checked_sub(1)? / 2)?,
        samples: sorted.len() as u64,
    })
}

/// The numbers of one direction's packets, counted on over the wrap of PSNTP.
#[derive(Debug, Default)]
struct Sequence {
    /// The first and the highest number since the last new start.
    range: Option<(u64, u64)>,
    missing: BTreeSet<u64>,
    reordered: u64,
    repeated: u64,
}

impl Sequence {
    /// Takes in a packet's number; whether it is not a repetition.
    fn is_new(&mut self, psntp: u16) -> bool {
        let Some((first, highest)) = self.range else {
            // Above 0, so that there is room for earlier ones.
            let number = u64::from(psntp) + 0x1_0000;
            self.range = Some((number, number));
            return true;
        };
        let step = psntp.wrapping_sub(highest as u16).cast_signed();
        let number = highest.wrapping_add_signed(step.into());
        if number.abs_diff(highest) > LONGEST_GAP {
            // The same number one turn further on, apart from all that came before.
            let number = highest + 0x1_0000 + u64::from(psntp.wrapping_sub(highest as u16));
            self.range = Some((number, number));
        } else if number > highest {
            self.missing.extend(highest + 1..number);
            self.range = Some((first, number));
        } else if number < first {
            // The capture began with a packet that had overtaken this one.
            self.missing.extend(number + 1..first);
            self.reordered += 1;
            self.range = Some((number, highest));
        } else if self.missing.remove(&number) {
            self.reordered += 1;
        } else {
            self.repeated += 1;
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(numbers: impl IntoIterator<Item = u16>) -> (u64, u64, u64) {
        let mut sequence = Sequence::default();
        for number in numbers {
            sequence.is_new(number);
        }
        let lost = sequence.missing.len() as u64;
        (lost, sequence.reordered, sequence.repeated)
    }

    #[test]
    fn gaps_are_losses_until_they_are_filled() {
        assert_eq!(sequence([1, 2, 3]), (0, 0, 0));
        assert_eq!(sequence([1, 4, 5]), (2, 0, 0));
        assert_eq!(sequence([1, 4, 3, 5]), (1, 1, 0));
        assert_eq!(sequence([1, 4, 3, 3, 4]), (1, 1, 2));
        assert_eq!(sequence([5, 3, 6]), (1, 1, 0));
    }

    #[test]
    fn numbers_wrap() {
        assert_eq!(sequence([65_534, 65_535, 0, 1]), (0, 0, 0));
        assert_eq!(sequence([65_535, 1, 0]), (0, 1, 0));
        assert_eq!(sequence([0, 65_535]), (0, 1, 0));
        let twice_around = (0..140_000u32).map(|n| n as u16);
        assert_eq!(sequence(twice_around), (0, 0, 0));
    }

    #[test]
    fn a_new_start_is_not_a_loss() {
        assert_eq!(sequence([1, 2, 30_000, 30_001]), (0, 0, 0));
        assert_eq!(sequence([30_000, 30_002, 7, 8, 30_500]), (1, 0, 0));
    }

    #[test]
    fn a_median_is_a_sample() {
        assert_eq!(median(&[]), None);
        let median = median(&[9, 1, 5, 7]).unwrap();
        assert_eq!((median.median, median.samples), (5, 4));
    }
}
