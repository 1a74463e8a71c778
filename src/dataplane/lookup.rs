//! Second stage: the flow of each candidate, and what the view says of its pair.

use super::BURST;
use super::classify::{Candidate, Candidates};
use super::worker::Turn;
use crate::flow::entry::Noted;
use crate::flow::{self, Entry, FlowTable};
use crate::snapshot::{Mode, Pairing, Route};
use crate::telemetry::{Counter, Direction};
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

/// Finds the flows: has all fetched that are likely, then looks at their names.
pub(super) fn look_up<'p>(turn: &Turn<'p>, candidates: &Candidates) -> Flows<'p> {
    let table = &turn.shared.table;
    let likely = |c: &Candidate| {
        let entry = table.likely(c.hash, turn.pin)?;
        match turn.direction {
            Direction::Out => entry.prefetch_outgoing(),
            Direction::In => entry.prefetch_incoming(),
        }
        Some(entry)
    };
    let mut flows: Flows<'p> = candidates.iter().map(likely).collect();
    for (c, flow) in candidates.iter().zip(&mut flows) {
        let tuple = turn.outgoing(&c.packet.tuple);
        if flow.is_some_and(|entry| !entry.tuple().is(&tuple)) {
            *flow = table.find(c.hash, &tuple, turn.pin);
        }
    }
    flows
}

impl<'p> Turn<'p> {
    /// The pair of a candidate: as the flow remembers it from this same view, else by the lists.
    #[inline]
    pub(super) fn pair(&self, c: &Candidate, entry: Option<&Entry>) -> Result<Pair<'p>, Counter> {
        // Only a pair that is protected and served was noted.
        match entry.and_then(|e| e.route(self.view.snapshot.serial)) {
            Some(noted) => self.pair_of(noted.remote, noted.settled, None),
            None => self.resolve(c),
        }
    }

    #[inline]
    fn pair_of(
        &self,
        remote: u32,
        settled: bool,
        route: Option<Route>,
    ) -> Result<Pair<'p>, Counter> {
        let snapshot = &self.view.snapshot;
        let index = snapshot.pairing_of(remote);
        let index = index.ok_or(Counter::PassedNoMatch)?;
        Ok(Pair {
            pairing: snapshot.pairings.get(index).ok_or(Counter::PassedNoMatch)?,
            index,
            remote,
            settled,
            route,
        })
    }

    #[inline(never)]
    fn resolve(&self, c: &Candidate) -> Result<Pair<'p>, Counter> {
        let snapshot = &self.view.snapshot;
        let tuple = self.outgoing(&c.packet.tuple);
        let route = snapshot.resolve(&tuple.src, &tuple.dst);
        let route = route.ok_or(Counter::PassedNoMatch)?;
        let pair = self.pair_of(route.remote, false, Some(route))?;
        if pair.pairing.mode == Mode::NoProtection {
            return Err(Counter::PassedNoProtection);
        }
        if !snapshot.serves(&route) {
            return Err(Counter::PassedNotServed);
        }
        Ok(pair)
    }

    /// Notes the pair with the flow, so that its next packet need not be looked up.
    #[inline]
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
    #[inline]
    pub(super) fn clamp_mss<B: PacketBuf>(&self, buf: &mut B, c: &Candidate, pair: &Pair<'_>) {
        let policy = &self.view.snapshot.policy;
        if !policy.mss_clamp || !c.packet.is_tcp_syn {
            return;
        }
        let most = policy.mss(policy.growth(pair.pairing.protection));
        if wire::tcp::clamp_mss(buf, &c.packet, most) {
            self.count(Counter::MssClamped);
        }
    }

    /// The flow of a candidate, made if there is none.
    #[inline]
    pub(super) fn flow(
        &self,
        c: &Candidate,
        entry: Option<&'p Entry>,
        random: impl FnOnce() -> u16,
    ) -> Result<&'p Entry, Counter> {
        match entry {
            Some(entry) => self.kept(entry),
            None => self.new_flow(c, random()),
        }
    }

    /// A flow that is there, unless it is leaving.
    #[inline]
    pub(super) fn kept(&self, entry: &'p Entry) -> Result<&'p Entry, Counter> {
        if FlowTable::keep(entry, self.now) {
            Ok(entry)
        } else {
            Err(Counter::LateFlowCreationContended)
        }
    }

    #[inline(never)]
    fn new_flow(&self, c: &Candidate, random: u16) -> Result<&'p Entry, Counter> {
        let tuple = self.outgoing(&c.packet.tuple);
        // A packet before this one in the burst may have made the flow since.
        let table = &self.shared.table;
        if let Some(entry) = table.find(c.hash, &tuple, self.pin) {
            return self.kept(entry);
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
