//! What an option that was taken in tells: loss, reordering, server delay, and the round trip where its packet is remembered.

use super::clock::delta_ns;
use super::worker::Turn;
use crate::flow::incoming::Held;
pub(super) use crate::flow::sequence::KeyAge;
use crate::flow::times::cycles_between;
use crate::flow::{Access, Entry};
use crate::telemetry::{PairingCounter, WorkerPairing};
use crate::wire::Metrics;

/// The far end's delay keeps 16 bits, so its error is up to 2^-15 of it, 31 ppm; and it is of the far end's clock. With clocks that
/// differ by 50 ppm, as those of ordinary crystals do, that makes 81 ppm. A round trip below 2^-9 of the delay could be off by more than
/// 4.1 %, and is not told.
const DELAY_TO_ROUND_TRIP: u32 = 9;

impl KeyAge {
    /// Of a key that the flow holds already.
    pub(super) fn of(held: &Held<'_>, entry: &Entry) -> Self {
        if !held.is_newest() {
            Self::Old
        } else if entry.sequence.is_of(held.track()) {
            Self::Current
        } else {
            Self::Fresh
        }
    }
}

/// Takes in the metrics of one packet, received at the turn's time.
#[inline]
pub(super) fn measure(
    turn: &Turn<'_>,
    stats: &WorkerPairing,
    entry: &Entry,
    metrics: &Metrics,
    key: KeyAge,
    access: Access<'_>,
) {
    stats.add(PairingCounter::Opened, 1);
    if let Some(step) = entry.sequence.count(metrics.psntp, key, access) {
        stats.add(PairingCounter::Skipped, step.skipped.into());
        stats.add(PairingCounter::Late, step.late.into());
        stats.add(PairingCounter::Reordered, step.reordered.into());
    }
    entry.count_opened();
    let last_sent = entry.outgoing.last_sent();
    entry
        .outgoing
        .last_received
        .received(metrics.psntp, turn.now, last_sent);
    if metrics.has_heard_nothing() {
        return;
    }
    // Nobody waited for an answer longer than what is counted: it would only spoil the mean.
    let Some(delay) = delta_ns(metrics.dtlr) else {
        return;
    };
    entry.measured.server_delay.record(delay);
    stats.record_server_delay_ns(delay);
    let round_trip = entry
        .outgoing
        .send_times
        .when(metrics.psnlr)
        .and_then(|sent| cycles_between(sent, turn.now))
        .and_then(|cycles| turn.shared.clock.nanoseconds(cycles).checked_sub(delay))
        .filter(|ns| *ns >= delay >> DELAY_TO_ROUND_TRIP);
    if let Some(ns) = round_trip {
        entry.measured.round_trip.record(ns);
        stats.record_rtt_ns(ns);
    }
}
