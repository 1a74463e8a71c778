//! Inbound, third stage on: open the options at once, take in what opened, and take the option off.
//!
//! A packet whose flow holds a key of its F bit is tried with that key in the batch. What does not open there is tried with
//! the flow's other keys and then with keys ahead ([`super::search`]), one packet at a time and under a budget.

use super::BURST;
use super::classify::{Candidate, Candidates};
use super::fate::{Fate, Fates};
use super::lookup::{Flows, Pair};
use super::measure::{KeyAge, measure};
use super::search::{self, Search};
use super::worker::{Tools, Turn};
use crate::crypto::{Aead, OpenJob};
use crate::flow::Entry;
use crate::flow::incoming::{Held, Refused};
use crate::flow::replay::Replay;
use crate::snapshot::Protection;
use crate::telemetry::{Counter, PairingCounter};
use crate::wire::{self, Metrics, OptionKind, PacketBuf, Pdm, PdmOption, pdmv2};
use arrayvec::ArrayVec;

/// A candidate with an option of a pair that wants it read.
struct Marked<'p> {
    candidate: usize,
    option: PdmOption,
    pair: Pair<'p>,
    entry: Option<&'p Entry>,
    /// What the batch opened.
    opened: Option<(Held<'p>, Metrics)>,
}

/// Options in a row that fail to open before a flow counts as stuck (protocol section 4, *Healing*).
const STUCK: u32 = 1_000;

pub(super) type SealedOption = [u8; pdmv2::SEALED_SIZE];

pub(super) fn open<'p, B: PacketBuf>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    burst: &mut [B],
    fates: &mut Fates,
    candidates: &Candidates,
    flows: &Flows<'p>,
) {
    let mut marked = ArrayVec::<Marked<'p>, BURST>::new();
    for (n, (c, entry)) in candidates.iter().zip(flows).enumerate() {
        let Some(buf) = burst.get_mut(c.at) else {
            continue;
        };
        match wanted(turn, buf, c, *entry) {
            Ok((option, pair)) => {
                // There are at most as many as packets in a burst.
                let _ = marked.try_push(Marked {
                    candidate: n,
                    option,
                    pair,
                    entry: *entry,
                    opened: None,
                });
            }
            Err(reason) => turn.count(reason),
        }
    }
    // Their names were just read, so their roles are there, and tell which keys are needed.
    for entry in marked.iter().filter_map(|m| m.entry) {
        entry.incoming.prefetch_keys();
    }
    open_batch(turn, burst, candidates, &mut marked);
    for m in marked {
        let Some(c) = candidates.get(m.candidate) else {
            continue;
        };
        if let Some(buf) = burst.get_mut(c.at) {
            settle(turn, tools, buf, fates, c, m);
        }
    }
}

/// The option of a candidate and its pair, if it is to be read.
fn wanted<'p, B: PacketBuf>(
    turn: &Turn<'p>,
    buf: &mut B,
    c: &Candidate,
    entry: Option<&Entry>,
) -> Result<(PdmOption, Pair<'p>), Counter> {
    let pair = turn.pair(c, entry)?;
    turn.clamp_mss(buf, c, &pair);
    let option = c.packet.option.ok_or(Counter::PassedNotMarked)?;
    match (option.kind, pair.pairing.protection) {
        // The far host's own RFC 8250 option: with protection it could be anybody's, and is not read.
        (OptionKind::Pdm, Protection::Sealed) => Err(Counter::PassedAlreadyMarked),
        _ => Ok((option, pair)),
    }
}

fn sealed_option<'b>(data: &'b [u8], option: &PdmOption) -> Option<&'b SealedOption> {
    data.get(usize::from(option.at)..)?.first_chunk()
}

/// Tries each sealed option with the key that its flow most likely used.
fn open_batch<'p, B: PacketBuf>(
    turn: &Turn<'p>,
    burst: &[B],
    candidates: &Candidates,
    marked: &mut ArrayVec<Marked<'p>, BURST>,
) {
    let mut jobs = ArrayVec::<OpenJob<'_>, BURST>::new();
    let mut held = ArrayVec::<(usize, Aead, Held<'p>), BURST>::new();
    for (n, m) in marked.iter().enumerate() {
        let sealed =
            m.option.kind == OptionKind::Sealed && m.pair.pairing.protection == Protection::Sealed;
        let (Some(entry), true) = (m.entry, sealed) else {
            continue;
        };
        let option = candidates
            .get(m.candidate)
            .and_then(|c| burst.get(c.at))
            .and_then(|buf| sealed_option(buf.data(), &m.option));
        let Some(option) = option else {
            continue;
        };
        let Some(key) = entry.incoming.likeliest(f_bit(option), turn.pin) else {
            continue;
        };
        let job = OpenJob::new(&key.key.key, &key.key.base_nonce, option);
        // There are at most as many as packets in a burst.
        let _ = jobs.try_push(job);
        let _ = held.try_push((n, m.pair.pairing.suite.aead, key));
    }
    let mut rest = &mut jobs[..];
    for run in held.chunk_by(|a, b| a.1 == b.1) {
        let (batch, after) = rest.split_at_mut_checked(run.len()).unwrap_or_default();
        rest = after;
        if let Some((_, aead, _)) = run.first() {
            turn.shared.kernel.open(*aead, batch);
        }
    }
    let results: ArrayVec<_, BURST> = jobs.iter().map(|job| (job.ok, job.metrics)).collect();
    drop(jobs);
    for ((n, _, key), (ok, metrics)) in held.into_iter().zip(results) {
        if let (true, Some(m)) = (ok, marked.get_mut(n)) {
            m.opened = Some((key, Metrics::from_bytes(&metrics)));
        }
    }
}

pub(super) fn f_bit(option: &SealedOption) -> bool {
    option[pdmv2::HEADER_LEN - 1] & 1 == 1
}

/// Brings one packet to its end.
fn settle<'p, B: PacketBuf>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    buf: &mut B,
    fates: &mut Fates,
    c: &Candidate,
    m: Marked<'p>,
) {
    let result = match (m.option.kind, m.pair.pairing.protection) {
        (OptionKind::Sealed, Protection::Sealed) => sealed(turn, tools, buf, c, &m),
        (OptionKind::Clear, Protection::Clear) => in_clear(turn, tools, buf, c, &m),
        (OptionKind::Pdm, _) => {
            // The far host put it in and the near one may want it: it is read, and stays.
            if let Err(reason) = pdm(turn, tools, buf, c, &m) {
                turn.count(reason);
            }
            return;
        }
        (OptionKind::Clear, Protection::Sealed) => Err(Counter::FailedOpenClearOnSealed),
        (OptionKind::Sealed, Protection::Clear) => Err(Counter::FailedOpenAuthentication),
        (OptionKind::Unknown, _) => Err(Counter::FailedOpenUnknownOption),
    };
    let failed = match result {
        Ok(()) => false,
        Err(reason) => {
            turn.count(reason);
            count_failure(turn, &m, reason)
        }
    };
    if failed && turn.view.snapshot.policy.drop_failed_open {
        turn.count(Counter::DroppedFailedOpen);
        fates.set(c.at, Fate::Drop);
    } else if wire::strip(buf, &c.packet) {
        turn.count(Counter::OptionsStripped);
    }
}

/// Notes a failure with its flow and pairing; whether it counts as a failed open for policy.
fn count_failure(turn: &Turn<'_>, m: &Marked<'_>, reason: Counter) -> bool {
    let stats = turn.stats(m.pair.index);
    match reason {
        Counter::ReplayedRepeated | Counter::ReplayedTooOld => {
            if let Some(entry) = m.entry {
                entry.measured.count_replayed();
            }
            if let Some(stats) = stats {
                stats.add(PairingCounter::Replayed, 1);
            }
            false
        }
        Counter::Contended
        | Counter::PassedFlowTableFull
        | Counter::LateFlowCreationContended
        | Counter::FailedOpenKeyAwaited => false,
        _ => {
            let stuck = m.entry.is_some_and(|entry| entry.count_failed() == STUCK);
            if let Some(stats) = stats {
                stats.add(PairingCounter::Failed, 1);
                stats.add(PairingCounter::Stuck, u64::from(stuck));
            }
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
    c: &Candidate,
    m: &Marked<'p>,
) -> Result<(), Counter> {
    if let Some((held, metrics)) = &m.opened {
        let entry = turn.flow(c, m.entry, || tools.random.next() as u16)?;
        held.accept(metrics.psntp, turn.now).map_err(refused)?;
        turn.count(Counter::Opened);
        measure(turn, &m.pair, entry, metrics, KeyAge::of(held));
        return Ok(());
    }
    let option = sealed_option(buf.data(), &m.option).ok_or(Counter::FailedOpenUnknownOption)?;
    let search = Search {
        candidate: c,
        pair: &m.pair,
        option,
    };
    search::search(turn, tools, &search, m.entry)
}

fn in_clear<'p, B: PacketBuf>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    buf: &B,
    c: &Candidate,
    m: &Marked<'p>,
) -> Result<(), Counter> {
    let body: &[u8; pdmv2::METRICS_LEN] = buf
        .data()
        .get(usize::from(m.option.at) + pdmv2::HEADER_LEN..)
        .and_then(|b| b.first_chunk())
        .ok_or(Counter::FailedOpenUnknownOption)?;
    let metrics = Metrics::from_bytes(body);
    accept_in_clear(turn, tools, c, m, &metrics)?;
    turn.count(Counter::ClearRead);
    Ok(())
}

fn pdm<'p, B: PacketBuf>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    buf: &B,
    c: &Candidate,
    m: &Marked<'p>,
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
    accept_in_clear(turn, tools, c, m, &metrics)?;
    turn.count(Counter::PdmRead);
    Ok(())
}

fn accept_in_clear<'p>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    c: &Candidate,
    m: &Marked<'p>,
    metrics: &Metrics,
) -> Result<(), Counter> {
    let entry = turn.flow(c, m.entry, || tools.random.next() as u16)?;
    let number = entry.sequence.extend(metrics.psntp);
    entry.incoming.accept_in_clear(number).map_err(refused)?;
    turn.note(entry, &m.pair, false);
    measure(turn, &m.pair, entry, metrics, KeyAge::None);
    Ok(())
}
