//! Inbound, third stage on: open the options at once, take in what opened, and take the option off.
//!
//! A packet whose flow holds a key of its F bit is tried with that key in the batch. What does not open there is tried with
//! the flow's other keys and then with keys ahead ([`super::search`]), one packet at a time and under a budget.

use super::BURST;
use super::classify::{Candidate, Candidates, Class, Whole};
use super::fate::{Fate, Fates};
use super::lookup::{Known, Pair};
use super::measure::{KeyAge, measure};
use super::search::{self, Search};
use super::worker::{Tools, Turn};
use crate::crypto::{OpenJob, Opened};
use crate::flow::entry::Noted;
use crate::flow::incoming::{Held, InKey, Refused};
use crate::flow::replay::Replay;
use crate::flow::{Access, Entry};
use crate::snapshot::Protection;
use crate::telemetry::{Counter, PairingCounter, WorkerPairing};
use crate::wire::{self, Metrics, OptionKind, PacketBuf, Pdm, PdmOption, common, pdmv2};
use arrayvec::ArrayVec;
use std::hint::cold_path;

/// A packet that is tried with the key that its flow most likely used.
struct Try<'p> {
    entry: &'p Entry,
    held: Held<'p>,
    stats: &'p WorkerPairing,
}

/// Options in a row that fail to open before a flow counts as stuck (protocol section 4, *Healing*).
const STUCK: u32 = 1_000;

pub(super) type SealedOption = [u8; pdmv2::SEALED_SIZE];

pub(super) fn open<'p, B: PacketBuf>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    burst: &mut [B],
    fates: &mut Fates,
    candidates: &Candidates<'p>,
) {
    let mut tries = ArrayVec::<Option<Try<'p>>, BURST>::new();
    let mut results = ArrayVec::<Opened, BURST>::new();
    open_batch(turn, burst, candidates, &mut tries, &mut results);
    let mut results = results.iter();
    let mut stripped = 0;
    let packets = burst.iter_mut().zip(&candidates.all).zip(&tries);
    for (at, ((buf, c), tried)) in packets.enumerate() {
        let tried = tried.as_ref();
        let opened = tried.and_then(|tried| {
            let metrics = results.next()?.metrics()?;
            Some(take_in(turn, tried, &Metrics::from_bytes(metrics)))
        });
        if let (Class::Common(common, _), Some(Ok(()))) = (c.class, opened) {
            // The frame is the one that was parsed, so it has the option.
            let _ = common.strip(buf);
            stripped += 1;
            continue;
        }
        if let (Class::Common(common, _), None) = (c.class, c.likely)
            && !common.is_marked()
        {
            let reason = turn.why_passes(buf.data(), common);
            turn.count(reason.unwrap_or(Counter::PassedNotMarked));
            continue;
        }
        let mut of_common = None;
        let Some(whole) = c.whole(at, buf.data(), &candidates.others, &mut of_common) else {
            continue;
        };
        let before = Before {
            likely: c.likely,
            tried: tried.map(|tried| tried.held.key),
            opened,
        };
        if let Err(reason) = settle(turn, tools, buf, fates, &whole, &before) {
            turn.count(reason);
        }
    }
    turn.count_many(Counter::OptionsStripped, stripped);
}

/// Tries each sealed option with the key that its flow most likely used. The results are of those that are tried, in order.
#[inline(always)]
fn open_batch<'p, B: PacketBuf>(
    turn: &Turn<'p>,
    burst: &[B],
    candidates: &Candidates<'p>,
    tries: &mut ArrayVec<Option<Try<'p>>, BURST>,
    results: &mut ArrayVec<Opened, BURST>,
) {
    let mut known = None;
    let mut jobs = ArrayVec::<OpenJob<'_>, BURST>::new();
    for (buf, c) in burst.iter().zip(&candidates.all) {
        let found = c.likely.and_then(|entry| {
            let (option, pair, held) =
                likeliest(turn, &mut known, candidates, c, buf.data(), entry)?;
            // There are at most as many as packets in a burst.
            let _ = jobs.try_push(OpenJob::new(&held.key.session, option));
            let stats = pair.stats;
            Some(Try { entry, held, stats })
        });
        // As above.
        let _ = tries.try_push(found);
    }
    open_jobs(turn, &mut jobs, tries);
    for job in &jobs {
        // As above.
        let _ = results.try_push(job.opened);
    }
}

/// Opens rows of options of one algorithm. Which it is stands with the key: by now that is here.
fn open_jobs(turn: &Turn<'_>, jobs: &mut [OpenJob<'_>], tries: &[Option<Try<'_>>]) {
    let aeads = tries.iter().flatten();
    let mut aeads = aeads.map(|tried| tried.held.key.aead()).peekable();
    let mut rest = jobs;
    while let Some(aead) = aeads.next() {
        let more = std::iter::from_fn(|| aeads.next_if_eq(&aead)).count();
        let Some((row, others)) = rest.split_at_mut_checked(1 + more) else {
            return;
        };
        turn.shared.kernel.open(aead, row);
        rest = others;
    }
}

/// The sealed option of a packet of `entry`'s flow, and the key of its F bit that was used last. Its cache lines are on their way.
#[inline(always)]
fn likeliest<'p, 'b>(
    turn: &Turn<'p>,
    known: &mut Option<Known<'p>>,
    candidates: &Candidates<'_>,
    c: &Candidate<'_>,
    frame: &'b [u8],
    entry: &'p Entry,
) -> Option<(&'b SealedOption, Known<'p>, Held<'p>)> {
    let (tuple, option_at) = match c.class {
        Class::Common(common, _) if common.is_marked() => (common.tuple(frame)?, common::OPTION_AT),
        Class::Other(place, _) => {
            cold_path();
            let packet = candidates.others.get(usize::from(place))?;
            let option = packet.option.filter(|o| o.kind == OptionKind::Sealed)?;
            (packet.tuple, option.at.into())
        }
        _ => return None,
    };
    if !entry.tuple().is(&turn.outgoing(&tuple)) {
        return None;
    }
    // What has settled is what goes out; what comes in is of the same pair.
    let pair = turn.known(entry.noted() | Noted::SETTLED, known)?;
    let option: &SealedOption = frame.get(option_at..)?.first_chunk()?;
    let places = &turn.shared.table.places;
    let held = entry
        .incoming
        .keys(f_bit(option), turn.pin, places)
        .next()?;
    held.prefetch();
    entry.prefetch_measured();
    Some((option, pair, held))
}

/// Takes in a packet that opened with a key that its flow holds.
#[inline(always)]
fn take_in<'p>(turn: &Turn<'p>, tried: &Try<'p>, metrics: &Metrics) -> Result<(), Counter> {
    let entry = turn.kept(tried.entry)?;
    let access = receiving(turn, entry)?;
    tried
        .held
        .accept(metrics.psntp, turn.now, access)
        .map_err(refused)?;
    turn.count(Counter::Opened);
    measure(
        turn,
        tried.stats,
        entry,
        metrics,
        KeyAge::of(&tried.held, entry),
        access,
    );
    Ok(())
}

/// How this worker may take in what opened of the flow.
#[inline]
pub(super) fn receiving<'p>(turn: &Turn<'p>, entry: &Entry) -> Result<Access<'p>, Counter> {
    entry.receiving(turn.pin).ok_or(Counter::Contended)
}

pub(super) fn f_bit(option: &SealedOption) -> bool {
    option[pdmv2::HEADER_LEN - 1] & 1 == 1
}

/// What is known of a packet before it is looked at by itself.
struct Before<'p> {
    likely: Option<&'p Entry>,
    /// The key that it was tried with in the batch.
    tried: Option<&'p InKey>,
    /// If that opened it, what came of it.
    opened: Option<Result<(), Counter>>,
}

/// Brings one packet to its end. An error says why it passes as it is.
#[cold]
#[inline(never)]
fn settle<'p, B: PacketBuf>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    buf: &mut B,
    fates: &mut Fates,
    c: &Whole<'_>,
    before: &Before<'p>,
) -> Result<(), Counter> {
    let entry = turn.find(c, before.likely);
    let pair = turn.pair(c, entry)?;
    turn.clamp_mss(buf, c, &pair);
    let option = c.packet.option.ok_or(Counter::PassedNotMarked)?;
    let m = Marked {
        whole: c,
        option,
        pair,
        entry,
    };
    let result = match (option.kind, pair.pairing.protection) {
        // The far host's own RFC 8250 option: with protection it could be anybody's, and is not read.
        (OptionKind::Pdm, Protection::Sealed) => return Err(Counter::PassedAlreadyMarked),
        // The far host put it in and the near one may want it: it is read, and stays.
        (OptionKind::Pdm, Protection::Clear) => return pdm(turn, tools, buf, &m),
        (OptionKind::Sealed, Protection::Sealed) => before
            .opened
            .unwrap_or_else(|| sealed(turn, tools, buf, &m, before.tried)),
        (OptionKind::Clear, Protection::Clear) => in_clear(turn, tools, buf, &m),
        (OptionKind::Clear, Protection::Sealed) => Err(Counter::FailedOpenClearOnSealed),
        (OptionKind::Sealed, Protection::Clear) => Err(Counter::FailedOpenAuthentication),
        (OptionKind::Unknown, _) => Err(Counter::FailedOpenUnknownOption),
    };
    let failed = match result {
        Ok(()) => false,
        Err(reason) => {
            turn.count(reason);
            count_failure(&m, reason)
        }
    };
    if failed && turn.view.snapshot.policy.drop_failed_open {
        turn.count(Counter::DroppedFailedOpen);
        fates.set(c.at, Fate::Drop);
    } else if wire::strip(buf, c.packet) {
        turn.count(Counter::OptionsStripped);
    }
    Ok(())
}

/// A packet with an option of a pair that wants it read.
struct Marked<'m, 'p> {
    whole: &'m Whole<'m>,
    option: PdmOption,
    pair: Pair<'p>,
    entry: Option<&'p Entry>,
}

fn sealed_option<'b>(data: &'b [u8], option: &PdmOption) -> Option<&'b SealedOption> {
    data.get(usize::from(option.at)..)?.first_chunk()
}

/// Notes a failure with its flow and pairing; whether it counts as a failed open for policy.
fn count_failure(m: &Marked<'_, '_>, reason: Counter) -> bool {
    let stats = m.pair.stats;
    match reason {
        Counter::ReplayedRepeated | Counter::ReplayedTooOld => {
            if let Some(entry) = m.entry {
                entry.measured.count_replayed();
            }
            stats.add(PairingCounter::Replayed, 1);
            false
        }
        Counter::Contended
        | Counter::PassedFlowTableFull
        | Counter::LateFlowCreationContended
        | Counter::FailedOpenKeyAwaited => false,
        _ => {
            // Each time again: what is done about it may come to nothing.
            let failed_again = |entry: &Entry| entry.count_failed().is_multiple_of(STUCK);
            let stuck = m.entry.is_some_and(failed_again);
            stats.add(PairingCounter::Failed, 1);
            stats.add(PairingCounter::Stuck, u64::from(stuck));
            true
        }
    }
}

pub(super) fn refused(why: Refused) -> Counter {
    match why {
        Refused::Replay(Replay::Repeated) => Counter::ReplayedRepeated,
        Refused::Replay(Replay::TooOld) | Refused::Behind => Counter::ReplayedTooOld,
        Refused::Busy => Counter::Contended,
    }
}

fn sealed<'p, B: PacketBuf>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    buf: &B,
    m: &Marked<'_, 'p>,
    tried: Option<&'p InKey>,
) -> Result<(), Counter> {
    let option = sealed_option(buf.data(), &m.option).ok_or(Counter::FailedOpenUnknownOption)?;
    let search = Search {
        candidate: m.whole,
        pair: &m.pair,
        option,
        tried,
    };
    search::search(turn, tools, &search, m.entry)
}

fn in_clear<'p, B: PacketBuf>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    buf: &B,
    m: &Marked<'_, 'p>,
) -> Result<(), Counter> {
    let body: &[u8; pdmv2::METRICS_LEN] = buf
        .data()
        .get(usize::from(m.option.at) + pdmv2::HEADER_LEN..)
        .and_then(|b| b.first_chunk())
        .ok_or(Counter::FailedOpenUnknownOption)?;
    let metrics = Metrics::from_bytes(body);
    accept_in_clear(turn, tools, m, &metrics)?;
    turn.count(Counter::ClearRead);
    Ok(())
}

fn pdm<'p, B: PacketBuf>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    buf: &B,
    m: &Marked<'_, 'p>,
) -> Result<(), Counter> {
    let pdm = buf
        .data()
        .get(usize::from(m.option.at)..)
        .and_then(|option| option.first_chunk())
        .map(Pdm::from_bytes)
        .ok_or(Counter::FailedOpenUnknownOption)?;
    let metrics = Metrics {
        dtlr: pdm.dtlr,
        dtls: pdm.dtls,
        global_pointer: 0,
        psntp: pdm.psntp,
        psnlr: pdm.psnlr,
    };
    accept_in_clear(turn, tools, m, &metrics)?;
    turn.count(Counter::PdmRead);
    Ok(())
}

fn accept_in_clear<'p>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    m: &Marked<'_, 'p>,
    metrics: &Metrics,
) -> Result<(), Counter> {
    let entry = turn.flow(m.whole, m.entry, || tools.random.next() as u16)?;
    let access = receiving(turn, entry)?;
    let number = entry.sequence.extend(metrics.psntp);
    entry
        .incoming
        .accept_in_clear(number, access)
        .map_err(refused)?;
    turn.note(entry, &m.pair, false);
    measure(turn, m.pair.stats, entry, metrics, KeyAge::None, access);
    Ok(())
}
