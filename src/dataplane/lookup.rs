//! Second stage: the flow of each candidate, and what the view says of its pair.

use super::BURST;
use super::classify::{Candidate, Candidates};
use super::worker::Turn;
use crate::flow::entry::Noted;
use crate::flow::{self, Entry, FlowTable};
use crate::snapshot::{Mode, Pairing, Route};
use crate::telemetry::Counter;
use crate::wire::{self, PacketBuf};
use arrayvec::ArrayVec;

/// A candidate's flow, if there is one, in the order of the candidates.
pub(super) type Flows<'p> = ArrayVec<Option<&'p Entry>, BURST>;

/// What the view says of a pair.
#[derive(Clone, Copy)]
pub(super) struct Pair<'p> {
    pub pairing: &'p Pairing,
    /// The pairing's place in the view.
    pub index: usize,
    /// The remote list entry.
    pub remote: u32,
    /// Whether the flow sends under this view's epoch already.
    pub settled: bool,
    /// The whole route, if it had to be looked up: a flow's first packet under a view.
    pub route: Option<Route>,
}

/// Finds the flows and has them fetched.
pub(super) fn look_up<'p>(turn: &Turn<'p>, candidates: &Candidates) -> Flows<'p> {
    candidates
        .iter()
        .map(|c| {
            let tuple = turn.outgoing(&c.packet.tuple);
            let entry = turn.shared.table.find(c.hash, &tuple, turn.pin);
            if let Some(entry) = entry {
                flow::prefetch(&entry.outgoing);
                flow::prefetch(&entry.incoming);
            }
            entry
        })
        .collect()
}

impl<'p> Turn<'p> {
    /// The pair of a candidate: as the flow remembers it from this same view, else by the lists.
    pub(super) fn pair(&self, c: &Candidate, entry: Option<&Entry>) -> Result<Pair<'p>, Counter> {
        let pair = self.find_pair(c, entry).ok_or(Counter::PassedNoMatch)?;
        if pair.pairing.mode == Mode::NoProtection {
            return Err(Counter::PassedNoProtection);
        }
        // What a flow remembers was served.
        let served = |route| self.view.snapshot.serves(route);
        if !pair.route.as_ref().is_none_or(served) {
            return Err(Counter::PassedNotServed);
        }
        Ok(pair)
    }

    fn find_pair(&self, c: &Candidate, entry: Option<&Entry>) -> Option<Pair<'p>> {
        let snapshot = &self.view.snapshot;
        let known = entry.and_then(|e| e.route(snapshot.serial));
        let (remote, route) = match known {
            Some(noted) => (noted.remote, None),
            None => {
                let tuple = self.outgoing(&c.packet.tuple);
                let route = snapshot.resolve(&tuple.src, &tuple.dst)?;
                (route.remote, Some(route))
            }
        };
        let index = snapshot.pairing_of(remote)?;
        Some(Pair {
            pairing: snapshot.pairings.get(index)?,
            index,
            remote,
            settled: known.is_some_and(|noted| noted.settled),
            route,
        })
    }

    /// Notes the pair with the flow, so that its next packet need not be looked up.
    pub(super) fn note(&self, entry: &Entry, pair: &Pair<'_>, settled: bool) {
        if pair.settled || (pair.route.is_none() && !settled) {
            return;
        }
        let noted = Noted {
            remote: pair.remote,
            settled,
        };
        entry.set_route(self.view.snapshot.serial, noted);
    }

    /// The route of a pair; looked up again where the flow only remembers the remote entry.
    pub(super) fn route(&self, c: &Candidate, pair: &Pair<'_>) -> Option<Route> {
        pair.route.or_else(|| {
            let tuple = self.outgoing(&c.packet.tuple);
            self.view.snapshot.resolve(&tuple.src, &tuple.dst)
        })
    }

    /// Makes the SYN of a connection leave room for the option, where policy wants that: what the far end may send is limited by
    /// what it reads in the near one's, and the other way round.
    pub(super) fn clamp_mss<B: PacketBuf>(&self, buf: &mut B, c: &Candidate, pair: &Pair<'_>) {
        let policy = &self.view.snapshot.policy;
        let most = policy.mss(policy.growth(pair.pairing.protection));
        if policy.mss_clamp && wire::tcp::clamp_mss(buf, &c.packet, most) {
            self.count(Counter::MssClamped);
        }
    }

    /// The flow of a candidate, made if there is none.
    pub(super) fn flow(
        &self,
        c: &Candidate,
        entry: Option<&'p Entry>,
        random: u16,
    ) -> Result<&'p Entry, Counter> {
        let tuple = self.outgoing(&c.packet.tuple);
        // A packet before this one in the burst may have made the flow since.
        let table = &self.shared.table;
        if let Some(entry) = entry.or_else(|| table.find(c.hash, &tuple, self.pin)) {
            return if FlowTable::keep(entry, self.now) {
                Ok(entry)
            } else {
                Err(Counter::LateFlowCreationContended)
            };
        }
        let since = self.unix_time();
        let made = table.insert(c.hash, &tuple, random, self.now, since, self.pin);
        match made {
            Ok(entry) => {
                self.count(Counter::FlowsCreated);
                Ok(entry)
            }
            Err(flow::NoFlow::Full) => Err(Counter::PassedFlowTableFull),
            Err(flow::NoFlow::Contended) => Err(Counter::LateFlowCreationContended),
        }
    }
}
