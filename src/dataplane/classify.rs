//! First stage: what each packet is. Those that may concern a flow are looked up next; all others are counted and keep the
//! fate that policy gives them.

use super::BURST;
use super::fate::{Fate, Fates};
use super::worker::Turn;
use crate::telemetry::{Counter, Direction};
use crate::wire::{self, Ipv6Packet, PacketBuf, Parsed};
use arrayvec::ArrayVec;

/// A packet that may concern a flow.
pub(super) struct Candidate {
    /// Position in the burst.
    pub at: usize,
    /// What it is.
    pub packet: Ipv6Packet,
    /// Hash of its tuple, named as the flow's packets go out.
    pub hash: u64,
}

pub(super) type Candidates = ArrayVec<Candidate, BURST>;

/// Parses a burst. `wanted` has the last word on packets that parsed well.
pub(super) fn classify<B: PacketBuf>(
    turn: &Turn<'_>,
    burst: &[B],
    fates: &mut Fates,
    wanted: impl Fn(&Ipv6Packet) -> Result<(), Counter>,
) -> Candidates {
    let policy = &turn.view.snapshot.policy;
    let mut candidates = Candidates::new();
    for (at, buf) in burst.iter().enumerate().take(BURST) {
        let reason = match wire::parse(buf.data(), policy.option_type) {
            Ok(Parsed::Packet(packet)) => match wanted(&packet) {
                Ok(()) => {
                    let hash = turn.hash(&packet.tuple);
                    turn.shared.table.prefetch(hash);
                    // A burst has at most BURST packets, so there is room.
                    let _ = candidates.try_push(Candidate { at, packet, hash });
                    continue;
                }
                Err(reason) => reason,
            },
            Ok(Parsed::Untouched(untouched)) => untouched.into(),
            Err(malformed) => {
                if policy.drop_malformed {
                    fates.set(at, Fate::Drop);
                    turn.count(Counter::DroppedMalformed);
                }
                malformed.into()
            }
        };
        turn.count(reason);
    }
    candidates
}

impl Turn<'_> {
    /// The hash of a packet's flow: of its tuple as it goes out.
    fn hash(&self, tuple: &wire::FiveTuple) -> u64 {
        self.shared.table.hasher().hash(&self.outgoing(tuple))
    }

    /// A packet's tuple as its flow is named.
    pub(super) fn outgoing(&self, tuple: &wire::FiveTuple) -> wire::FiveTuple {
        match self.direction {
            Direction::Out => *tuple,
            Direction::In => tuple.reversed(),
        }
    }
}
