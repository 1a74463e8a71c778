//! The receiver's way back to a sender whose key it does not hold (protocol section 4).
//!
//! Keys are tried only if their parity is the packet's F bit, in this order: the flow's other keys; each track's epoch, up to
//! `kri_window` indices ahead, where a track that an evicted flow had stands for one that it has; then live epochs that a track may move to
//! or that no track has, from index 0 up to the window, all epochs at one index before the next index, since a sender that started over
//! is at a low one; last a peer that started over more often than anyone heard, at its lowest index. Each derived key costs one of
//! the worker's tokens, so forged packets cannot buy work.

use super::classify::Whole;
use super::lookup::Pair;
use super::measure::{KeyAge, measure};
use super::open::{SealedOption, f_bit, receiving, refused};
use super::worker::{Tools, Turn};
use crate::crypto::{Aead, OpenJob, SessionKey};
use crate::flow::incoming::{Found, Head, InKey, TRACKS};
use crate::flow::memory::WAYS;
use crate::flow::{Entry, Epoch};
use crate::snapshot::Route;
use crate::telemetry::Counter;
use crate::wire::Metrics;
use arrayvec::ArrayVec;

/// Keys after which a search mostly has found what there is to be found: a few indices of a few epochs.
const USUAL_KEYS: u32 = 16;

/// A packet in search of its key.
pub(super) struct Search<'a, 'p> {
    pub candidate: &'a Whole<'a>,
    pub pair: &'a Pair<'p>,
    pub option: &'a SealedOption,
    /// A key that did not open it.
    pub tried: Option<&'p InKey>,
}

/// A key that opened the packet.
struct Hit {
    route: Route,
    epoch: Epoch,
    kri: u32,
    session: SessionKey,
    metrics: Metrics,
}

/// Looks for the packet's key, and takes the packet in.
pub(super) fn search<'p>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    s: &Search<'_, 'p>,
    entry: Option<&'p Entry>,
) -> Result<(), Counter> {
    // A packet before this one may have made the flow since.
    let entry = entry.or_else(|| turn.find_now(s.candidate));
    if let Some(entry) = entry {
        let places = &turn.shared.table.places;
        // The flow may have taken in another key since the batch, by a packet before this one.
        for held in entry.incoming.keys(f_bit(s.option), turn.pin, places) {
            // No key's place is written again while a burst lasts in which it was seen.
            if s.tried.is_some_and(|tried| std::ptr::eq(tried, held.key)) {
                continue;
            }
            let job = OpenJob::new(&held.key.session, s.option);
            if let Some(metrics) = open_one(turn, held.key.aead(), job) {
                let entry = turn.kept(entry)?;
                let access = receiving(turn, entry)?;
                held.accept(metrics.psntp, turn.now, access)
                    .map_err(refused)?;
                turn.count(Counter::Opened);
                turn.note(entry, s.pair, false);
                measure(
                    turn,
                    s.pair.stats,
                    entry,
                    &metrics,
                    KeyAge::of(&held, entry),
                    access,
                );
                return Ok(());
            }
        }
    }
    let policy = &turn.view.snapshot.policy;
    if let Some(throttle) = &policy.throttle
        && tools.throttles.closed(s.pair.remote, throttle, turn.now)
    {
        return Err(Counter::FailedOpenThrottled);
    }
    turn.count(Counter::KeySearches);
    let result = ahead(turn, tools, s, entry)
        .map_err(|reason| awaited(turn, tools, s, reason))
        .and_then(|hit| take_in(turn, tools, s, entry, &hit));
    if let (Some(throttle), Err(Counter::FailedOpenAuthentication)) = (&policy.throttle, &result) {
        tools
            .throttles
            .count_failure(s.pair.remote, throttle, turn.now);
    }
    result
}

/// Why an option that no key opened did not open: perhaps its key comes yet, and then it is asked for.
fn awaited(turn: &Turn<'_>, tools: &mut Tools, s: &Search<'_, '_>, reason: Counter) -> Counter {
    let snapshot = &turn.view.snapshot;
    if reason != Counter::FailedOpenAuthentication || !s.pair.pairing.is_registered() {
        return reason;
    }
    let Some(route) = turn.route(s.candidate, s.pair) else {
        return reason;
    };
    for awaited in snapshot.awaited(&route) {
        turn.await_key(tools, awaited);
    }
    if snapshot.is_incomplete(&route) {
        Counter::FailedOpenKeyAwaited
    } else {
        reason
    }
}

fn open_one(turn: &Turn<'_>, aead: Aead, job: OpenJob<'_>) -> Option<Metrics> {
    let mut jobs = [job];
    turn.shared.kernel.open(aead, &mut jobs);
    let [job] = jobs;
    job.opened.metrics().map(Metrics::from_bytes)
}

/// Derives keys that the flow does not hold until one opens the packet.
fn ahead(
    turn: &Turn<'_>,
    tools: &mut Tools,
    s: &Search<'_, '_>,
    entry: Option<&Entry>,
) -> Result<Hit, Counter> {
    // Before anything is looked up for a search that could not be brought to its end, which would use up what the next one needs.
    if !tools.search.has(USUAL_KEYS, tools.search_rate) {
        return Err(Counter::FailedOpenSearchBudget);
    }
    let snapshot = &turn.view.snapshot;
    let route = turn
        .route(s.candidate, s.pair)
        .ok_or(Counter::FailedOpenAuthentication)?;
    let mut from = tracks(turn, s, entry);
    // Of a secret that is not in use any more nothing can be derived, and nothing follows.
    from.retain(|track| snapshot.has_secret(&route, &track.epoch));
    let from = &from;
    let window = snapshot.policy.kri_window;
    let parity = u32::from(f_bit(s.option));
    let of_parity = |kri: &u32| kri & 1 == parity;
    for Track {
        epoch,
        kri,
        is_held,
    } in from
    {
        let next = kri.saturating_add(u32::from(*is_held));
        for kri in (next..=kri.saturating_add(window)).filter(of_parity) {
            if let Some(hit) = attempt(turn, tools, s, &route, epoch, kri)? {
                return Ok(hit);
            }
        }
    }
    for kri in (0..=window).filter(of_parity) {
        for epoch in snapshot.receive_epochs(&route) {
            if may_begin(&epoch, from)
                && let Some(hit) = attempt(turn, tools, s, &route, &epoch, kri)?
            {
                return Ok(hit);
            }
        }
    }
    // Far fetched, so never at the cost of what is near: half of the budget is kept for that.
    if !tools.search.is_ample(tools.search_rate) {
        return Err(Counter::FailedOpenAuthentication);
    }
    for epoch in snapshot.far_epochs(&route) {
        if may_begin(&epoch, from)
            && let Some(hit) = attempt(turn, tools, s, &route, &epoch, parity)?
        {
            return Ok(hit);
        }
    }
    Err(Counter::FailedOpenAuthentication)
}

/// Where a sender was last.
struct Track {
    epoch: Epoch,
    kri: u32,
    /// Whether the flow holds the key of that Kri, so that it was tried already.
    is_held: bool,
}

/// Where the flow's senders were last: by its tracks, and of senders that it has no track of by what is remembered of a flow before it.
fn tracks(
    turn: &Turn<'_>,
    s: &Search<'_, '_>,
    entry: Option<&Entry>,
) -> ArrayVec<Track, { TRACKS + WAYS }> {
    let table = &turn.shared.table;
    let heads = entry.map(|entry| entry.incoming.heads(turn.pin, &table.places));
    let held = heads.into_iter().flatten().map(|head| Track {
        epoch: head.epoch,
        kri: head.kri,
        is_held: true,
    });
    let mut tracks: ArrayVec<_, { TRACKS + WAYS }> = held.collect();
    for remembered in table.memory.tracks(s.candidate.hash) {
        let same_sender =
            |track: &Track| track.epoch.src_generation == remembered.epoch.src_generation;
        // What left the lists, or was left behind, does not come back by being remembered.
        let is_live = turn.view.snapshot.is_live(s.pair.remote, &remembered.epoch);
        if is_live && !tracks.iter().any(same_sender) {
            // There is room for all that can be remembered.
            let _ = tracks.try_push(Track {
                epoch: remembered.epoch,
                kri: remembered.kri,
                is_held: false,
            });
        }
    }
    tracks
}

/// Whether a flow with these tracks may begin an epoch: forward of its generation's track, or of a generation without track and
/// of no PMS older than the tracks'.
fn may_begin(epoch: &Epoch, tracks: &[Track]) -> bool {
    match tracks
        .iter()
        .find(|track| track.epoch.src_generation == epoch.src_generation)
    {
        Some(track) => track.epoch.precedes(epoch),
        None => tracks
            .iter()
            .all(|track| track.epoch.pms_serial <= epoch.pms_serial),
    }
}

fn attempt(
    turn: &Turn<'_>,
    tools: &mut Tools,
    s: &Search<'_, '_>,
    route: &Route,
    epoch: &Epoch,
    kri: u32,
) -> Result<Option<Hit>, Counter> {
    if !tools.search.take() {
        return Err(Counter::FailedOpenSearchBudget);
    }
    turn.count(Counter::KeyDerivations);
    let tuple = &s.candidate.packet.tuple;
    let Some(session) = turn.view.snapshot.session_key(route, epoch, tuple, kri) else {
        return Ok(None);
    };
    let job = OpenJob::new(&session, s.option);
    let metrics = open_one(turn, s.pair.pairing.suite.aead, job);
    Ok(metrics.map(|metrics| Hit {
        route: *route,
        epoch: *epoch,
        kri,
        session,
        metrics,
    }))
}

/// Whether the sender has started over, by all that a new key and its packet tell.
fn key_age(turn: &Turn<'_>, entry: &Entry, hit: &Hit) -> KeyAge {
    let heads = entry.incoming.heads(turn.pin, &turn.shared.table.places);
    let same_sender = |h: &Head| h.epoch.src_generation == hit.epoch.src_generation;
    let forgot = hit.metrics.has_heard_nothing() && entry.outgoing.packets() > 0;
    if forgot || !heads.iter().any(same_sender) {
        KeyAge::Fresh
    } else {
        KeyAge::New
    }
}

fn take_in<'p>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    s: &Search<'_, 'p>,
    entry: Option<&'p Entry>,
    hit: &Hit,
) -> Result<(), Counter> {
    let psntp = hit.metrics.psntp;
    let table = &turn.shared.table;
    let after = table
        .memory
        .beyond(s.candidate.hash, &hit.epoch, hit.kri, psntp)
        .map_err(|_| Counter::ReplayedTooOld)?;
    let snapshot = &turn.view.snapshot;
    let entry = turn.flow(s.candidate, entry, || tools.random.next() as u16)?;
    let access = receiving(turn, entry)?;
    let key = key_age(turn, entry, hit);
    let found = Found {
        epoch: hit.epoch,
        kri: hit.kri,
        session: &hit.session,
        aead: s.pair.pairing.suite.aead,
        psntp,
        after,
        now: turn.now,
        access,
    };
    entry
        .incoming
        .take_in(&found, turn.pin, &table.places, |e| {
            snapshot.is_live(s.pair.remote, e)
        })
        .map_err(refused)?;
    turn.count(Counter::Opened);
    turn.count(Counter::KeyChanges);
    snapshot.heard(&hit.route, &hit.epoch);
    turn.note(entry, s.pair, false);
    measure(turn, s.pair.stats, entry, &hit.metrics, key, access);
    Ok(())
}
