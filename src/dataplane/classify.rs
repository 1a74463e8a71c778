//! First stage: what each packet is. Those that may concern a flow are looked up next; all others are counted and keep the
//! fate that policy gives them.

use super::BURST;
use super::fate::{Fate, Fates};
use super::worker::Turn;
use crate::flow::Entry;
use crate::flow::out_key::OutKey;
use crate::flow::outgoing::Number;
use crate::telemetry::{Counter, Direction};
use crate::wire::{self, Common, FiveTuple, Ipv6Packet, OptionKind, PacketBuf, Parsed};
use arrayvec::ArrayVec;
use std::hint::cold_path;

/// Packets that are under way from memory while one is parsed.
const AHEAD: usize = 8;

/// A packet of a burst.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'p> {
    pub class: Class<'p>,
    /// An entry that is nearly always its flow's, once it was looked up: its name has yet to be read.
    pub likely: Option<&'p Entry>,
}

/// What a packet is, and, once marking has seen it, what is left to be done.
#[derive(Clone, Copy)]
pub(super) enum Class<'p> {
    /// Concerns no flow: nothing is left to be done.
    Done,
    /// What most packets are, and the hash of the tuple, named as the flow's packets go out. All else that there is to know of it stands in
    /// the frame where it always does.
    Common(Common, u64),
    /// The place of [`Candidates::others`] that has it, and the hash.
    Other(u8, u64),
    /// A common packet of the flow that is likely, whose option is to be written with this number.
    Numbered(Common, Number<'p>),
    /// The option stands there, at this place of the frame, but for its Global Pointer, and, with a key, for its seal. The flow is the one
    /// that is likely.
    Written(u16, Option<&'p OutKey>),
}

/// What a burst is, packet by packet.
#[derive(Default)]
pub(super) struct Candidates<'p> {
    /// One a packet, in order.
    pub all: ArrayVec<Candidate<'p>, BURST>,
    pub others: ArrayVec<Ipv6Packet, BURST>,
    /// Of all packets as they came.
    pub bytes: u64,
}

/// A candidate with all that can be known of it.
pub(super) struct Whole<'c> {
    /// Position in the burst.
    pub at: usize,
    pub packet: &'c Ipv6Packet,
    pub hash: u64,
}

impl Candidate<'_> {
    /// The hash of its tuple, if there is something to be done.
    #[inline]
    pub(super) fn hash(&self) -> Option<u64> {
        match self.class {
            Class::Common(_, hash) | Class::Other(_, hash) => Some(hash),
            Class::Done | Class::Numbered(..) | Class::Written(..) => None,
        }
    }

    /// All that can be known of this candidate, at `at` of the burst, if it is not done with. What a common one is gets made out in `common`.
    pub(super) fn whole<'c>(
        &self,
        at: usize,
        frame: &[u8],
        others: &'c [Ipv6Packet],
        common: &'c mut Option<Ipv6Packet>,
    ) -> Option<Whole<'c>> {
        let hash = self.hash()?;
        let packet = match self.class {
            Class::Common(found, _) => {
                *common = found.packet(frame);
                common.as_ref()
            }
            Class::Other(place, _) => others.get(usize::from(place)),
            Class::Done | Class::Numbered(..) | Class::Written(..) => None,
        }?;
        Some(Whole { at, packet, hash })
    }
}

/// Parses a burst into `candidates`, which are empty. `wanted` has the last word on packets that parsed well, by the option in them.
#[inline]
pub(super) fn classify<B: PacketBuf>(
    turn: &Turn<'_>,
    burst: &[B],
    fates: &mut Fates,
    wanted: impl Fn(Option<OptionKind>) -> Result<(), Counter>,
    candidates: &mut Candidates<'_>,
) {
    let grows = turn.direction == Direction::Out;
    // What goes out with an option already is not marked, and rare.
    let sealed = (!grows).then_some(turn.view.snapshot.policy.option_type);
    burst.iter().take(AHEAD).for_each(|buf| buf.prefetch(grows));
    for (at, buf) in burst.iter().enumerate() {
        if let Some(later) = burst.get(at + AHEAD) {
            later.prefetch(grows);
        }
        let frame = buf.data();
        candidates.bytes += frame.len() as u64;
        let common = Common::parse(frame, sealed);
        let common = common.and_then(|common| Some((common, common.tuple(frame)?)));
        let class = match common {
            Some((common, tuple)) => {
                let option = common.is_marked().then_some(OptionKind::Sealed);
                wanted(option).map(|()| Class::Common(common, turn.hash(&tuple)))
            }
            None => other(turn, at, frame, fates).and_then(|packet| {
                if packet.has_option_before && grows {
                    return Err(Counter::PassedAlreadyMarked);
                }
                wanted(packet.option.map(|option| option.kind))?;
                let class = Class::Other(candidates.others.len() as u8, turn.hash(&packet.tuple));
                // A burst has at most BURST packets, so there is room.
                let _ = candidates.others.try_push(packet);
                Ok(class)
            }),
        };
        let class = class.unwrap_or_else(|reason| {
            cold_path();
            turn.count(reason);
            Class::Done
        });
        // As above.
        let _ = candidates.all.try_push(Candidate {
            class,
            likely: None,
        });
    }
}

/// Parses a frame that is not a common one.
#[cold]
#[inline(never)]
fn other(
    turn: &Turn<'_>,
    at: usize,
    frame: &[u8],
    fates: &mut Fates,
) -> Result<Ipv6Packet, Counter> {
    let policy = &turn.view.snapshot.policy;
    match wire::parse(frame, policy.option_type) {
        Ok(Parsed::Packet(packet)) => Ok(packet),
        Ok(Parsed::Untouched(untouched)) => Err(untouched.into()),
        Err(malformed) => {
            if policy.drop_malformed {
                fates.set(at, Fate::Drop);
                turn.count(Counter::DroppedMalformed);
            }
            Err(malformed.into())
        }
    }
}

impl Turn<'_> {
    /// The hash of a packet's tuple as its flow is named. Where it may be in the table is fetched.
    #[inline(always)]
    fn hash(&self, tuple: &FiveTuple) -> u64 {
        let hash = self.shared.table.hasher().hash(&self.outgoing(tuple));
        self.shared.table.prefetch(hash);
        hash
    }

    /// A packet's tuple as its flow is named.
    #[inline(always)]
    pub(super) fn outgoing(&self, tuple: &FiveTuple) -> FiveTuple {
        match self.direction {
            Direction::Out => *tuple,
            Direction::In => tuple.reversed(),
        }
    }
}
