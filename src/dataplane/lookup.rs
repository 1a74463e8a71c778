//! Second stage: the flow that each candidate most likely is of, and, for the stages after it, the flow that it is of and what the view
//! says of its pair.

use super::BURST;
use super::classify::{Candidates, Whole};
use super::worker::Turn;
use crate::flow::entry::Noted;
use crate::flow::{self, Entry, FlowTable};
use crate::snapshot::{Mode, Pairing, Protection, Route};
use crate::telemetry::{Counter, Direction, WorkerPairing};
use crate::wire::{self, Common, FiveTuple, PacketBuf};
use arrayvec::ArrayVec;

/// What the view says of a pair.
#[derive(Clone, Copy)]
pub(super) struct Pair<'p> {
    pub pairing: &'p Pairing,
    /// This worker's part of its numbers.
    pub stats: &'p WorkerPairing,
    /// The remote list entry.
    pub remote: u32,
    /// Whether the flow sends under this view's epoch already.
    pub settled: bool,
    /// The whole route, if it had to be looked up: a flow's first packet under a view.
    pub route: Option<Route>,
}

/// What the view says of the pair of flows whose options are sealed, as one of them noted it: found once for a row of flows with that note.
#[derive(Clone, Copy)]
pub(super) struct Known<'p> {
    note: u64,
    pub stats: &'p WorkerPairing,
}

/// Finds entries that are likely, and has them fetched. Those that are not where most are come last, so that nobody waits for where they are.
#[inline]
pub(super) fn look_up<'p>(turn: &Turn<'p>, candidates: &mut Candidates<'p>) {
    let table = &turn.shared.table;
    let mut elsewhere = ArrayVec::<u8, BURST>::new();
    // There are at most as many as packets in a burst.
    for (at, c) in candidates.all.iter_mut().enumerate() {
        let Some(hash) = c.hash() else {
            continue;
        };
        c.likely = table.likely(hash, turn.pin);
        match c.likely {
            Some(entry) => turn.prefetch(entry),
            None => _ = elsewhere.try_push(at as u8),
        }
    }
    for at in elsewhere {
        if let Some(c) = candidates.all.get_mut(usize::from(at))
            && let Some(hash) = c.hash()
        {
            c.likely = table.less_likely(hash, turn.pin);
            c.likely.iter().for_each(|entry| turn.prefetch(entry));
        }
    }
}

impl<'p> Turn<'p> {
    #[inline]
    fn prefetch(&self, entry: &Entry) {
        match self.direction {
            Direction::Out => entry.prefetch_outgoing(),
            Direction::In => entry.prefetch_incoming(),
        }
    }

    /// The flow of a packet, if there is one, `likely` being what looks like it.
    #[inline]
    pub(super) fn find(&self, c: &Whole<'_>, likely: Option<&'p Entry>) -> Option<&'p Entry> {
        let tuple = self.outgoing(&c.packet.tuple);
        match likely {
            Some(entry) if !entry.tuple().is(&tuple) => self.find_now(c),
            likely => likely,
        }
    }

    /// The flow of a packet, if there is one by now.
    pub(super) fn find_now(&self, c: &Whole<'_>) -> Option<&'p Entry> {
        let tuple = self.outgoing(&c.packet.tuple);
        self.shared.table.find(c.hash, &tuple, self.pin)
    }

    /// What the flow of a new flow's answers would be, named as it goes out; fetched, for [`Self::hears`]. Static pairings do not say which
    /// entries are inside: where routes loop, a packet of the far end's comes from inside, and would be sealed with the far end's own key.
    #[inline]
    pub(super) fn way_back(
        &self,
        c: &Whole<'_>,
        pair: &Pair<'_>,
        entry: Option<&Entry>,
    ) -> Option<(u64, FiveTuple)> {
        if entry.is_some() || pair.pairing.is_registered() {
            return None;
        }
        let back = c.packet.tuple.reversed();
        let hash = self.shared.table.hasher().hash(&back);
        self.shared.table.prefetch(hash);
        Some((hash, back))
    }

    /// Whether options of that flow came in.
    #[inline]
    pub(super) fn hears(&self, (hash, tuple): &(u64, FiveTuple)) -> bool {
        let table = &self.shared.table;
        let entry = table.find(*hash, tuple, self.pin);
        entry.is_some_and(|entry| !entry.incoming.heads(self.pin, &table.places).is_empty())
    }

    /// The pair that a flow noted, which nearly always is the one that the flow before it did. `None` where no note is of this view, or
    /// the pair's options are not sealed.
    #[inline(always)]
    pub(super) fn known(&self, note: u64, before: &mut Option<Known<'p>>) -> Option<Known<'p>> {
        match before {
            Some(known) if known.note == note => {}
            _ => *before = self.look_note_up(note),
        }
        *before
    }

    #[cold]
    #[inline(never)]
    fn look_note_up(&self, note: u64) -> Option<Known<'p>> {
        let noted = Noted::of(note, self.view.snapshot.serial)?;
        let pair = self.pair_of(noted.remote, noted.settled, None).ok()?;
        let is_sealed = pair.pairing.protection == Protection::Sealed;
        is_sealed.then_some(Known {
            note,
            stats: pair.stats,
        })
    }

    /// The pair of a candidate: as the flow remembers it from this same view, else by the lists.
    #[inline]
    pub(super) fn pair(&self, c: &Whole<'_>, entry: Option<&Entry>) -> Result<Pair<'p>, Counter> {
        // Only a pair that is protected and served was noted.
        match entry.and_then(|e| e.route(self.view.snapshot.serial)) {
            Some(noted) => self.pair_of(noted.remote, noted.settled, None),
            None => self.resolve(&self.outgoing(&c.packet.tuple)),
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
            stats: self.stats(index).ok_or(Counter::PassedNoMatch)?,
            remote,
            settled,
            route,
        })
    }

    /// Why a common packet without a flow passes, if it is of no pair that is protected and served.
    #[inline]
    pub(super) fn why_passes(&self, frame: &[u8], common: Common) -> Option<Counter> {
        self.resolve(&self.outgoing(&common.tuple(frame)?)).err()
    }

    /// The pair of a flow with this name, by the lists.
    #[inline(never)]
    fn resolve(&self, tuple: &FiveTuple) -> Result<Pair<'p>, Counter> {
        let snapshot = &self.view.snapshot;
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
    pub(super) fn route(&self, c: &Whole<'_>, pair: &Pair<'_>) -> Option<Route> {
        pair.route.or_else(|| {
            let tuple = self.outgoing(&c.packet.tuple);
            self.view.snapshot.resolve(&tuple.src, &tuple.dst)
        })
    }

    /// Makes the SYN of a connection leave room for the option, where policy wants that: what the far end may send is limited by
    /// what it reads in the near one's, and the other way round.
    #[inline]
    pub(super) fn clamp_mss<B: PacketBuf>(&self, buf: &mut B, c: &Whole<'_>, pair: &Pair<'_>) {
        let policy = &self.view.snapshot.policy;
        if !policy.mss_clamp || !c.packet.is_tcp_syn {
            return;
        }
        let most = policy.mss(policy.growth(pair.pairing.protection));
        if wire::tcp::clamp_mss(buf, c.packet, most) {
            self.count(Counter::MssClamped);
        }
    }

    /// The flow of a candidate, made if there is none.
    #[inline]
    pub(super) fn flow(
        &self,
        c: &Whole<'_>,
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
    fn new_flow(&self, c: &Whole<'_>, random: u16) -> Result<&'p Entry, Counter> {
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
                // Another worker may have been faster, long ago.
                self.kept(entry)
            }
            Err(flow::NoFlow::Full) => Err(Counter::PassedFlowTableFull),
            Err(flow::NoFlow::Contended) => Err(Counter::LateFlowCreationContended),
        }
    }
}
