//! Outbound, third and fourth stage: give each packet of a pair its option, then seal all options at once.
//!
//! Marking runs twice over the burst: first it decides and takes numbers, so that the burst's Global Pointers can be reserved by one
//! shared write; then it writes.

use super::BURST;
use super::classify::{Candidate, Candidates};
use super::fate::{Fate, Fates};
use super::lookup::{Flows, Pair};
use super::pointers::is_link_local;
use super::worker::{Tools, Turn};
use crate::crypto::{Aead, SealJob};
use crate::flow::outgoing::{Need, OutKey};
use crate::flow::{Entry, Epoch};
use crate::snapshot::{NotSealing, OverMtu, Protection, Route};
use crate::telemetry::{Counter, PairingCounter, WorkerPairing};
use crate::wire::{self, Metrics, PacketBuf, Plan, Prseq, ScaledDelta, pdmv2};
use arrayvec::ArrayVec;

/// A packet that gets an option.
struct Mark<'c, 'p> {
    candidate: &'c Candidate,
    plan: Plan,
    entry: &'p Entry,
    prseq: Prseq,
    psntp: u16,
    /// How to seal it; `None` in the clear.
    seal: Option<(Aead, &'p OutKey)>,
    stats: Option<&'p WorkerPairing>,
}

pub(super) fn mark<'p, B: PacketBuf>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    burst: &mut [B],
    fates: &mut Fates,
    candidates: &Candidates,
    flows: &Flows<'p>,
) {
    let mut marks = ArrayVec::<Mark<'_, 'p>, BURST>::new();
    for (c, entry) in candidates.iter().zip(flows) {
        let Some(buf) = burst.get_mut(c.at) else {
            continue;
        };
        let decided = decide(turn, tools, buf, fates, c, *entry, |mark| {
            // There are at most as many marks as packets in a burst.
            let _ = marks.try_push(mark);
        });
        if let Err(reason) = decided {
            turn.count(reason);
        }
    }
    write(turn, burst, &marks);
}

impl Mark<'_, '_> {
    fn is_link_local(&self) -> bool {
        is_link_local(&self.candidate.packet.tuple.src)
    }
}

/// Whether a packet gets an option, and with which numbers: `accept` gets these. Neither happens if its fate is settled already.
#[inline(always)]
fn decide<'c, 'p, B: PacketBuf>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    buf: &mut B,
    fates: &mut Fates,
    c: &'c Candidate,
    entry: Option<&'p Entry>,
    accept: impl FnOnce(Mark<'c, 'p>),
) -> Result<(), Counter> {
    let pair = turn.pair(c, entry)?;
    let policy = &turn.view.snapshot.policy;
    let option_size = match pair.pairing.protection {
        Protection::Sealed => pdmv2::SEALED_SIZE,
        Protection::Clear => pdmv2::CLEAR_SIZE,
    };
    turn.clamp_mss(buf, c, &pair);
    let plan = wire::plan_insert(buf.data(), &c.packet, option_size)
        .map_err(|_| Counter::PassedCannotInsert)?;
    if c.packet.l3_len() + u32::from(plan.growth) > u32::from(policy.mtu) {
        return too_big(turn, tools, buf, fates, c, plan.growth);
    }
    // Before there is a flow: packets of a pair that is not ready make none.
    let fresh = fresh(turn, tools, c, &pair)?;
    let entry = turn.flow(c, entry, || tools.random.next() as u16)?;
    let (prseq, psntp, seal) = match pair.pairing.protection {
        Protection::Clear => {
            let (prseq, psntp) = entry.outgoing.number_in_clear();
            turn.note(entry, &pair, true);
            (prseq, psntp, None)
        }
        Protection::Sealed => {
            let (prseq, psntp, key) = number(turn, tools, c, &pair, fresh, entry)?;
            (prseq, psntp, Some((pair.pairing.suite.aead, key)))
        }
    };
    accept(Mark {
        candidate: c,
        plan,
        entry,
        prseq,
        psntp,
        seal,
        stats: turn.stats(pair.index),
    });
    Ok(())
}

/// The epoch that a flow has to send in, unless it has settled in it under this view already.
#[inline(always)]
fn fresh(
    turn: &Turn<'_>,
    tools: &mut Tools,
    c: &Candidate,
    pair: &Pair<'_>,
) -> Result<Option<(Route, Epoch)>, Counter> {
    if pair.settled {
        return Ok(None);
    }
    epoch_of(turn, tools, c, pair)
}

#[inline(never)]
fn epoch_of(
    turn: &Turn<'_>,
    tools: &mut Tools,
    c: &Candidate,
    pair: &Pair<'_>,
) -> Result<Option<(Route, Epoch)>, Counter> {
    let snapshot = &turn.view.snapshot;
    let route = turn.route(c, pair).ok_or(Counter::PassedNoMatch)?;
    match pair.pairing.protection {
        Protection::Clear if snapshot.marks_in_clear(&route) => Ok(None),
        Protection::Clear => Err(Counter::PassedKeyAwaited),
        Protection::Sealed => match snapshot.sealing(&route) {
            Ok(epoch) => Ok(Some((route, epoch))),
            Err(NotSealing::NotYet) => Err(Counter::PassedKeyAwaited),
            Err(NotSealing::Awaited(awaited)) => {
                turn.await_key(tools, awaited);
                Err(Counter::PassedKeyAwaited)
            }
        },
    }
}

/// The packet's number under the flow's key, which is changed first where that is due.
#[inline(always)]
fn number<'p>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    c: &Candidate,
    pair: &Pair<'_>,
    fresh: Option<(Route, Epoch)>,
    entry: &'p Entry,
) -> Result<(Prseq, u16, &'p OutKey), Counter> {
    if pair.settled {
        let policy = &turn.view.snapshot.policy;
        let (limit, max_age) = (policy.packets_per_key, policy.key_age_cycles);
        if let Some(n) = entry.outgoing.next(turn.pin, limit, max_age, turn.now) {
            return Ok((n.prseq, n.psntp, n.key));
        }
    }
    number_under_change(turn, tools, c, pair, fresh, entry)
}

/// [`number`] where the flow's key may be due to change.
#[inline(never)]
fn number_under_change<'p>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    c: &Candidate,
    pair: &Pair<'_>,
    fresh: Option<(Route, Epoch)>,
    entry: &'p Entry,
) -> Result<(Prseq, u16, &'p OutKey), Counter> {
    let snapshot = &turn.view.snapshot;
    let policy = &snapshot.policy;
    let (epoch, secret, route) = match fresh {
        Some((route, epoch)) => (epoch, snapshot.secret_id(&route), Some(route)),
        None => {
            let running = entry.outgoing.key(turn.pin);
            let key = running.ok_or(Counter::PassedKeyNotReady)?;
            (key.epoch, entry.outgoing.secret(), None)
        }
    };
    let floor_hash = turn.shared.table.hasher().extend(
        c.hash,
        [
            u64::from(epoch.pms_serial),
            (u64::from(epoch.src_generation) << 32) | u64::from(epoch.dst_generation),
        ],
    );
    let floor = turn
        .shared
        .table
        .floors
        .cells(pair.pairing.era, floor_hash)
        .ok_or(Counter::PassedKeyNotReady)?;
    let need = Need {
        epoch,
        secret,
        serial: snapshot.serial,
        floor,
        limit: policy.packets_per_key,
        max_age: policy.key_age_cycles,
        now: turn.now,
        random: tools.random.next(),
    };
    let number = entry
        .outgoing
        .number(turn.pin, &need, |epoch, kri| {
            let route = route.or_else(|| turn.route(c, pair))?;
            turn.count(Counter::KeyDerivations);
            snapshot.session_key(&route, epoch, &c.packet.tuple, kri)
        })
        .map_err(|_| Counter::PassedKeyNotReady)?;
    if number.first_of_key {
        turn.count(Counter::KeyChanges);
    }
    turn.note(entry, pair, number.current);
    Ok((number.prseq, number.psntp, number.key))
}

/// The packet would be longer than the outside link takes.
#[inline(never)]
fn too_big<B: PacketBuf>(
    turn: &Turn<'_>,
    tools: &mut Tools,
    buf: &mut B,
    fates: &mut Fates,
    c: &Candidate,
    growth: u16,
) -> Result<(), Counter> {
    let policy = &turn.view.snapshot.policy;
    if policy.over_mtu == OverMtu::Pass {
        return Err(Counter::PassedOverMtu);
    }
    let reduced = u32::from(policy.mtu.saturating_sub(growth));
    // A host that may not go below the minimum MTU (RFC 8200 section 5) cannot make room.
    if reduced < wire::icmpv6::MINIMUM_MTU {
        return Err(Counter::PassedOverMtu);
    }
    if !tools.icmp.take() {
        turn.count(Counter::PacketTooBigSuppressed);
        turn.count(Counter::DroppedOverMtu);
        fates.set(c.at, Fate::Drop);
        return Ok(());
    }
    turn.count(Counter::DroppedOverMtu);
    match wire::icmpv6::packet_too_big(buf, &c.packet, reduced, policy.icmp_source) {
        Ok(()) => {
            turn.count(Counter::PacketTooBigSent);
            fates.set(c.at, Fate::Return);
        }
        Err(_) => {
            turn.count(Counter::PacketTooBigSuppressed);
            fates.set(c.at, Fate::Drop);
        }
    }
    Ok(())
}

/// Writes the options, and seals them.
fn write<B: PacketBuf>(turn: &Turn<'_>, burst: &mut [B], marks: &ArrayVec<Mark<'_, '_>, BURST>) {
    let locals = marks.iter().filter(|m| m.is_link_local()).count() as u32;
    let mut pointers = turn
        .shared
        .pointers
        .reserve(locals, marks.len() as u32 - locals);
    let option_type = turn.view.snapshot.policy.option_type;
    let mut jobs = ArrayVec::<SealJob<'_>, BURST>::new();
    let mut aeads = ArrayVec::<Aead, BURST>::new();
    let mut bufs = burst.iter_mut();
    // The position of the next of `bufs`.
    let mut next = 0;
    for mark in marks {
        // Marks stand in the order of the burst.
        let c = mark.candidate;
        let buf = c.at.checked_sub(next).and_then(|skip| bufs.nth(skip));
        next = c.at + 1;
        let Some(buf) = buf else {
            continue;
        };
        let metrics = metrics(turn, mark, pointers.next(mark.is_link_local()));
        mark.entry.outgoing.send_times.sent(mark.psntp, turn.now);
        if let Some(stats) = mark.stats {
            stats.add(PairingCounter::Marked, 1);
        }
        match mark.seal {
            None => {
                let option = pdmv2::write_clear(option_type, mark.prseq, false, &metrics);
                turn.count(match wire::insert(buf, &c.packet, &mark.plan, &option) {
                    Ok(_) => Counter::MarkedClear,
                    Err(_) => Counter::PassedCannotInsert,
                });
            }
            Some((aead, key)) => {
                let option = pdmv2::unsealed(option_type, mark.prseq, key.f(), &metrics);
                let place = wire::insert(buf, &c.packet, &mark.plan, &option)
                    .ok()
                    .and_then(|at| buf.data_mut().get_mut(at..)?.first_chunk_mut());
                let Some(option) = place else {
                    turn.count(Counter::PassedCannotInsert);
                    continue;
                };
                // There are at most as many jobs as packets in a burst.
                let _ = jobs.try_push(SealJob {
                    key: &key.key,
                    base_nonce: &key.base_nonce,
                    option,
                });
                let _ = aeads.try_push(aead);
            }
        }
    }
    turn.count_many(Counter::MarkedSealed, jobs.len());
    let mut rest = &mut jobs[..];
    for run in aeads.chunk_by(|a, b| a == b) {
        let (batch, after) = rest.split_at_mut_checked(run.len()).unwrap_or_default();
        rest = after;
        if let Some(aead) = run.first() {
            turn.shared.kernel.seal(*aead, batch);
        }
    }
}

/// The seven metrics of a packet that goes out now (protocol section 1).
#[inline(always)]
fn metrics(turn: &Turn<'_>, mark: &Mark<'_, '_>, global_pointer: u32) -> Metrics {
    let heard = mark.entry.outgoing.last_received.heard(turn.now);
    let (psnlr, dtlr, dtls) = match heard {
        None => (0, ScaledDelta::ZERO, ScaledDelta::ZERO),
        Some(h) => (
            h.psnlr,
            turn.shared.clock.scaled(h.since_received),
            h.sent_to_received
                .map_or(ScaledDelta::ZERO, |c| turn.shared.clock.scaled(c)),
        ),
    };
    Metrics {
        dtlr,
        dtls,
        global_pointer,
        psntp: mark.psntp,
        psnlr,
    }
}
