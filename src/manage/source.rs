//! Answers for whoever asks the running appliance.

use crate::dataplane::{Shared, View};
use crate::flow::Entry;
use crate::flow::entry::SummaryValues;
use crate::registration::primary::Primary;
use crate::telemetry::records::{FlowDelays, Generations, protocol_name};
use crate::telemetry::server::Source;
use crate::telemetry::{FlowQuery, FlowRecord, Gauges, Stats};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// Entries that are looked at under one pin: a long one would hold up key changes.
const BATCH: usize = 1_024;

/// The appliance as the telemetry servers see it.
pub(super) struct Appliance {
    pub shared: Arc<Shared>,
    /// Kept by the management core.
    pub gauges: Arc<Mutex<Gauges>>,
    /// The Primary in the same process, which has numbers too.
    pub primary: Option<Arc<Primary>>,
    /// The servers' reader is one: answers are made one at a time.
    pub turn: Mutex<()>,
}

impl Appliance {
    fn gauges(&self) -> Gauges {
        let mut gauges = self
            .gauges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        gauges.flows.in_use = self.shared.table.len() as u64;
        gauges.flows.capacity = self.shared.table.capacity() as u64;
        gauges
    }

    fn each_flow(&self, visit: &mut dyn FnMut(FlowRecord)) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut reader) = self
            .shared
            .quiescence
            .reader(self.shared.telemetry_reader())
        else {
            return;
        };
        let mut next = Some(0);
        while let Some(from) = next {
            let pin = reader.pin();
            let view = self.shared.view.read(&pin);
            next = self.shared.table.visit(&pin, from, BATCH, |entry| {
                if let Some(record) = record(&self.shared, view, entry, &pin) {
                    visit(record);
                }
            });
        }
    }
}

impl Source for Appliance {
    fn stats(&self) -> Stats {
        self.shared.telemetry.stats(self.gauges())
    }

    fn flows(&self, query: &FlowQuery) -> Vec<FlowRecord> {
        query.select(|take| self.each_flow(take))
    }

    fn metrics(&self) -> String {
        let mut text = self.shared.telemetry.metrics(self.gauges());
        text.extend(self.primary.as_ref().map(|primary| primary.metrics()));
        text
    }
}

fn delays(v: SummaryValues) -> Option<FlowDelays> {
    (v.samples > 0).then(|| FlowDelays {
        last: v.last,
        min: v.least,
        smoothed: v.smoothed,
        max: v.greatest,
        samples: v.samples.into(),
    })
}

/// A flow as it is told; `None` if no list has its pair any more.
fn record(
    shared: &Shared,
    view: &View,
    entry: &Entry,
    pin: &crate::flow::Pin<'_>,
) -> Option<FlowRecord> {
    let tuple = entry.tuple();
    let route = view.snapshot.resolve(&tuple.src, &tuple.dst)?;
    let pairing = view
        .snapshot
        .pairings
        .get(view.snapshot.pairing_of(route.remote)?)?;
    let sequence = entry.sequence.counts();
    let key = entry.outgoing.key(pin);
    let heads = entry.incoming.heads(pin, &shared.table.places);
    let head = heads.iter().max_by_key(|h| h.epoch.src_generation);
    let own = view.snapshot.send_epoch(&route).src_generation;
    let unix = shared.unix_time.load(Ordering::Relaxed);
    let idle_ns = shared.clock.nanoseconds(entry.idle(super::poll::now()));
    Some(FlowRecord {
        local_address: tuple.src.into(),
        local_port: tuple.sport,
        remote_address: tuple.dst.into(),
        remote_port: tuple.dport,
        protocol: tuple.protocol,
        protocol_name: protocol_name(tuple.protocol),
        pairing: pairing.name.clone(),
        packets_out: entry.outgoing.packets(),
        packets_in: sequence.received,
        rtt_ns: delays(entry.measured.round_trip.values()),
        server_delay_ns: delays(entry.measured.server_delay.values()),
        lost: sequence.lost,
        reordered: sequence.reordered,
        replayed: entry.measured.replayed().into(),
        failed: entry.measured.failed().into(),
        kri_out: key.map(|k| k.kri),
        kri_in: head.map(|h| h.kri),
        generations: Generations {
            local: key.map_or(own, |k| k.epoch.src_generation),
            remote: head.map(|h| h.epoch.src_generation),
        },
        age_s: f64::from(unix.saturating_sub(entry.since())),
        idle_s: idle_ns as f64 * 1e-9,
    })
}
