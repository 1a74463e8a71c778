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
        let packet = match wire::parse_common(buf.data(), policy.option_type) {
            Some(packet) => Ok(packet),
            None => any(turn, at, buf.data(), fates),
        };
        let decided = packet.and_then(|packet| {
            wanted(&packet)?;
            let hash = turn.hash(&packet.tuple);
            turn.shared.table.prefetch(hash);
            // A burst has at most BURST packets, so there is room.
            let _ = candidates.try_push(Candidate { at, packet, hash });
            Ok(())
        });
        if let Err(reason) = decided {
            turn.count(reason);
        }
    }
    candidates
}

/// Parses a frame that is not a common one.
#[inline(never)]
fn any(turn: &Turn<'_>, at: usize, frame: &[u8], fates: &mut Fates) -> Result<Ipv6Packet, Counter> {
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
    /// The hash of a packet's flow: of its tuple as it goes out.
    #[inline]
    fn hash(&self, tuple: &wire::FiveTuple) -> u64 {
        self.shared.table.hasher().hash(&self.outgoing(tuple))
    }

    /// A packet's tuple as its flow is named.
    #[inline]
    pub(super) fn outgoing(&self, tuple: &wire::FiveTuple) -> wire::FiveTuple {
        match self.direction {
            Direction::Out => *tuple,
            Direction::In => tuple.reversed(),
        }
    }
}
