//! What an option that was taken in tells: loss, reordering, server delay, and the round trip where its packet is remembered.

use super::clock::delta_ns;
use super::lookup::Pair;
use super::worker::Turn;
use crate::flow::Entry;
use crate::flow::times::cycles_between;
use crate::telemetry::PairingCounter;
use crate::wire::{Metrics, ScaledDelta};

/// Takes in the metrics of one packet, received at the turn's time. `new_key` if it is the first of its key.
pub(super) fn measure(
    turn: &Turn<'_>,
    pair: &Pair<'_>,
    entry: &Entry,
    metrics: &Metrics,
    new_key: bool,
) {
    let stats = turn.stats(pair.index);
    let before = entry.sequence.counts().lost;
    let reordered = entry.sequence.count(metrics.psntp, new_key);
    let lost = entry.sequence.counts().lost;
    if let Some(stats) = stats {
        stats.add(PairingCounter::Opened, 1);
        // A late packet takes back what its gap had added.
        if lost != before {
            stats.add(PairingCounter::Lost, lost.wrapping_sub(before));
        }
        if reordered {
            stats.add(PairingCounter::Reordered, 1);
        }
    }
    entry.measured.count_opened();
    entry.last_received.received(metrics.psntp, turn.now);
    // Both are 0 before the far end has heard anything: it then answers nothing.
    if metrics.psnlr == 0 && metrics.dtlr == ScaledDelta::ZERO {
        return;
    }
    let delay = delta_ns(metrics.dtlr);
    entry.measured.server_delay.record(delay);
    if let Some(stats) = stats {
        stats.record_server_delay_ns(delay);
    }
    let round_trip = entry
        .send_times
        .when(metrics.psnlr)
        .and_then(|sent| cycles_between(sent, turn.now))
        .and_then(|cycles| turn.shared.clock.nanoseconds(cycles).checked_sub(delay));
    if let Some(ns) = round_trip {
        entry.measured.round_trip.record(ns);
        if let Some(stats) = stats {
            stats.record_rtt_ns(ns);
        }
    }
}
