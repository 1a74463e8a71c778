//! Outbound, third and fourth stage: give each packet of a pair its option, then seal all options at once.
//!
//! Marking runs twice over the burst. First it decides and takes numbers, and has the keys fetched that go with them. (Where a flow is several
//! workers', its number is taken by a locked instruction, before which a processor ends all writing: there is little of it yet.) Then a
//! burst's Global Pointers are reserved by one shared write, and it writes.

use super::BURST;
use super::classify::{Candidate, Candidates, Class, Whole};
use super::fate::{Fate, Fates};
use super::lookup::{Known, Pair};
use super::pointers::{OfEach, following};
use super::worker::{Tools, Turn};
use crate::crypto::{Aead, SealJob};
use crate::flow::entry::Noted;
use crate::flow::floor::FloorCells;
use crate::flow::out_key::OutKey;
use crate::flow::outgoing::{Need, Number};
use crate::flow::{self, Access, Entry, Epoch, FlowTable};
use crate::snapshot::{NotSealing, OverMtu, Protection, Route};
use crate::telemetry::{Counter, PairingCounter};
use crate::wire::{self, Common, Metrics, PacketBuf, ScaledDelta, common, pdmv2};
use arrayvec::ArrayVec;
use std::hint::cold_path;

pub(super) fn mark<'p, B: PacketBuf>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    burst: &mut [B],
    fates: &mut Fates,
    candidates: &mut Candidates<'p>,
) {
    let Candidates { all, others, .. } = candidates;
    let longest = common::longest(turn.view.snapshot.policy.mtu);
    let mut marked = OfEach::default();
    let mut known = None;
    for (at, (buf, c)) in burst.iter_mut().zip(all.iter_mut()).enumerate() {
        if let (Class::Common(common, _), Some(entry)) = (c.class, c.likely)
            && let Some(number) = settled(turn, &mut known, buf, common, entry, longest)
        {
            c.class = Class::Numbered(common, number);
            // A common packet is not from a link-local address.
            marked.other += 1;
            continue;
        }
        cold_path();
        let mark = if let (Class::Common(common, _), None) = (c.class, c.likely)
            && let Some(reason) = turn.why_passes(buf.data(), common)
        {
            Err(reason)
        } else {
            let mut of_common = None;
            match c.whole(at, buf.data(), others, &mut of_common) {
                Some(whole) => mark_any(turn, tools, buf, fates, &whole, c.likely),
                None => Ok(None),
            }
        };
        match mark {
            Ok(Some((entry, written))) => {
                *marked.of(&entry.tuple().src) += 1;
                (c.likely, c.class) = (Some(entry), written);
            }
            Ok(None) => {}
            Err(reason) => turn.count(reason),
        }
    }
    let pointers = turn.shared.pointers.reserve(marked);
    write(turn, burst, all, pointers);
}

/// Numbers what most packets are: a common one of a flow that has settled under this view, with a key that lasts, in a frame of at most
/// `longest` bytes. `None`, and nothing done, for others.
#[inline(always)]
fn settled<'p, B: PacketBuf>(
    turn: &Turn<'p>,
    known: &mut Option<Known<'p>>,
    buf: &B,
    common: Common,
    entry: &'p Entry,
    longest: usize,
) -> Option<Number<'p>> {
    let (note, frame) = (entry.noted(), buf.data());
    if note & Noted::SETTLED == 0 || !entry.tuple().is(&common.tuple(frame)?) {
        return None;
    }
    let known = turn.known(note, known)?;
    if frame.len() > longest
        || buf.headroom() < common::GROWTH
        || !FlowTable::keep_live(entry, turn.now)
    {
        return None;
    }
    let access = entry.sending(turn.pin)?;
    let outgoing = &entry.outgoing;
    let number = outgoing.next(access, turn.pin, turn.limit, turn.oldest)?;
    flow::prefetch(number.key);
    outgoing.send_times.prefetch(number.psntp);
    known.stats.add(PairingCounter::Marked, 1);
    Some(number)
}

/// Marks any packet, if it is to be: its flow, and what is left to do for it.
#[cold]
#[inline(never)]
fn mark_any<'p, B: PacketBuf>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    buf: &mut B,
    fates: &mut Fates,
    c: &Whole<'_>,
    likely: Option<&'p Entry>,
) -> Result<Option<(&'p Entry, Class<'p>)>, Counter> {
    let entry = turn.find(c, likely);
    let pair = turn.pair(c, entry)?;
    let back = turn.way_back(c, &pair, entry);
    let policy = &turn.view.snapshot.policy;
    let option_size = match pair.pairing.protection {
        Protection::Sealed => pdmv2::SEALED_SIZE,
        Protection::Clear => pdmv2::CLEAR_SIZE,
    };
    turn.clamp_mss(buf, c, &pair);
    let plan = wire::plan_insert(buf.data(), c.packet, option_size)
        .map_err(|_| Counter::PassedCannotInsert)?;
    if c.packet.l3_len() + u32::from(plan.growth) > u32::from(policy.mtu) {
        too_big(turn, tools, buf, fates, c, plan.growth)?;
        return Ok(None);
    }
    // Before there is a flow: packets of a pair that is not ready make none.
    let fresh = fresh(turn, tools, c, &pair)?;
    if back.is_some_and(|back| turn.hears(&back)) {
        return Err(Counter::PassedNotServed);
    }
    let entry = turn.flow(c, entry, || tools.random.next() as u16)?;
    let insert = |buf: &mut B, option: &[u8]| {
        let at = wire::insert(buf, c.packet, &plan, option);
        at.map_err(|_| Counter::PassedCannotInsert)
    };
    let (at, psntp, seal) = match pair.pairing.protection {
        Protection::Clear => {
            let (prseq, psntp) = entry.outgoing.number_in_clear(sending(turn, entry)?);
            turn.note(entry, &pair, true);
            let metrics = metrics(turn, entry, psntp, 0);
            let option = pdmv2::write_clear(policy.option_type, prseq, false, &metrics);
            (insert(buf, &option)?, psntp, None)
        }
        Protection::Sealed => {
            let n = number(turn, tools, c, &pair, fresh, entry)?;
            let metrics = metrics(turn, entry, n.psntp, 0);
            let unsealed = pdmv2::unsealed(policy.option_type, n.prseq(), n.key.f(), &metrics);
            let mut option = [0; pdmv2::SEALED_SIZE];
            option[..pdmv2::CLEAR_SIZE].copy_from_slice(&unsealed);
            (insert(buf, &option)?, n.psntp, Some(n.key))
        }
    };
    entry.outgoing.send_times.sent(psntp, turn.now);
    pair.stats.add(PairingCounter::Marked, 1);
    Ok(Some((entry, Class::Written(at as u16, seal))))
}

/// Writes the options that were only numbered, the Global Pointers of all, and seals them. `pointers` are those before the first.
fn write<'p, B: PacketBuf>(
    turn: &Turn<'p>,
    burst: &mut [B],
    candidates: &[Candidate<'p>],
    mut pointers: OfEach,
) {
    let option_type = turn.view.snapshot.policy.option_type;
    let mut batch = Batch::new(turn);
    for (buf, c) in burst.iter_mut().zip(candidates) {
        match (&c.class, c.likely) {
            (Class::Numbered(common, n), Some(entry)) => {
                let pointer = following(&mut pointers.other);
                let metrics = metrics(turn, entry, n.psntp, pointer);
                let unsealed = pdmv2::unsealed(option_type, n.prseq(), n.key.f(), &metrics);
                // There is room in front, and the frame is the one that was parsed.
                let _ = buf.prepend(common::GROWTH);
                if let Some(option) = common.insert(buf.data_mut(), &unsealed) {
                    batch.seal(n.key, option);
                }
                entry.outgoing.send_times.sent(n.psntp, turn.now);
            }
            (Class::Written(at, key), Some(entry)) => {
                cold_path();
                let (at, frame) = (usize::from(*at), buf.data_mut());
                let pointer = following(pointers.of(&entry.tuple().src));
                if let Some(option) = option_at(frame, at) {
                    pdmv2::set_global_pointer(option, pointer);
                }
                match key {
                    None => turn.count(Counter::MarkedClear),
                    Some(key) => {
                        if let Some(option) = option_at(frame, at) {
                            batch.seal(key, option);
                        }
                    }
                }
            }
            _ => {}
        }
    }
    batch.finish();
}

/// The epoch that a flow has to send in, unless it has settled in it under this view already.
#[inline(always)]
fn fresh(
    turn: &Turn<'_>,
    tools: &mut Tools,
    c: &Whole<'_>,
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
    c: &Whole<'_>,
    pair: &Pair<'_>,
) -> Result<Option<(Route, Epoch)>, Counter> {
    let snapshot = &turn.view.snapshot;
    let route = turn.route(c, pair).ok_or(Counter::PassedNoMatch)?;
    match pair.pairing.protection {
        Protection::Clear if snapshot.marks_in_clear(&route) => Ok(None),
        Protection::Clear => Err(Counter::PassedKeyAwaited),
        Protection::Sealed => match snapshot.sealing(&route) {
            Ok(epoch) => {
                // There is time until its first key.
                floor(turn, c, pair, &epoch).inspect(FloorCells::prefetch);
                Ok(Some((route, epoch)))
            }
            Err(NotSealing::NotYet) => Err(Counter::PassedKeyAwaited),
            Err(NotSealing::Awaited(awaited)) => {
                turn.await_key(tools, awaited);
                Err(Counter::PassedKeyAwaited)
            }
        },
    }
}

/// Where the Kri of a flow may start in an epoch.
fn floor<'t>(
    turn: &'t Turn<'_>,
    c: &Whole<'_>,
    pair: &Pair<'_>,
    epoch: &Epoch,
) -> Option<FloorCells<'t>> {
    let table = &turn.shared.table;
    let generations = (u64::from(epoch.src_generation) << 32) | u64::from(epoch.dst_generation);
    let named = [u64::from(epoch.pms_serial), generations];
    let hash = table.hasher().extend(c.hash, named);
    table.floors.cells(pair.pairing.era, hash)
}

/// The packet's number under the flow's key, which is changed first where that is due.
#[inline(always)]
fn number<'p>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    c: &Whole<'_>,
    pair: &Pair<'_>,
    fresh: Option<(Route, Epoch)>,
    entry: &'p Entry,
) -> Result<Number<'p>, Counter> {
    let access = sending(turn, entry)?;
    if pair.settled
        && let Some(n) = entry
            .outgoing
            .next(access, turn.pin, turn.limit, turn.oldest)
    {
        return Ok(n);
    }
    number_under_change(turn, tools, c, pair, fresh, entry, access)
}

/// How this worker may take a number of the flow.
fn sending<'p>(turn: &Turn<'p>, entry: &Entry) -> Result<Access<'p>, Counter> {
    entry.sending(turn.pin).ok_or(Counter::PassedKeyNotReady)
}

/// [`number`] where the flow's key may be due to change.
#[inline(never)]
fn number_under_change<'p>(
    turn: &Turn<'p>,
    tools: &mut Tools,
    c: &Whole<'_>,
    pair: &Pair<'_>,
    fresh: Option<(Route, Epoch)>,
    entry: &'p Entry,
    access: Access<'p>,
) -> Result<Number<'p>, Counter> {
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
    let floor = floor(turn, c, pair, &epoch).ok_or(Counter::PassedKeyNotReady)?;
    let need = Need {
        access,
        epoch,
        secret,
        aead: pair.pairing.suite.aead,
        serial: snapshot.serial,
        floor,
        limit: turn.limit,
        max_age: policy.key_age_cycles,
        now: turn.now,
        random: tools.random.next(),
    };
    let (number, current) = entry
        .outgoing
        .number(turn.pin, &need, |epoch, kri| {
            let route = route.or_else(|| turn.route(c, pair))?;
            turn.count(Counter::KeyDerivations);
            snapshot.session_key(&route, epoch, &c.packet.tuple, kri)
        })
        .map_err(|_| Counter::PassedKeyNotReady)?;
    if number.is_first_of_key() {
        turn.count(Counter::KeyChanges);
    }
    turn.note(entry, pair, current);
    if !current && is_gone(turn, c, pair, entry, &number.key.epoch) {
        return Err(Counter::PassedKeyNotReady);
    }
    Ok(number)
}

/// Whether the secret of a flow's key is one that nothing is to be sealed under any more. Of a key that a worker with a newer view has made
/// this one knows nothing, and goes along.
#[inline(never)]
fn is_gone(turn: &Turn<'_>, c: &Whole<'_>, pair: &Pair<'_>, entry: &Entry, epoch: &Epoch) -> bool {
    let snapshot = &turn.view.snapshot;
    let route = turn.route(c, pair);
    let has_secret = route.is_some_and(|route| snapshot.has_secret(&route, epoch));
    !has_secret && entry.outgoing.serial() <= snapshot.serial
}

/// The packet would be longer than the outside link takes.
#[inline(never)]
fn too_big<B: PacketBuf>(
    turn: &Turn<'_>,
    tools: &mut Tools,
    buf: &mut B,
    fates: &mut Fates,
    c: &Whole<'_>,
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
    match wire::icmpv6::packet_too_big(buf, c.packet, reduced, policy.icmp_source) {
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

/// The metrics of a packet that goes out now (protocol section 1).
#[inline(always)]
fn metrics(turn: &Turn<'_>, entry: &Entry, psntp: u16, global_pointer: u32) -> Metrics {
    let heard = entry.outgoing.last_received.heard(turn.now);
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
        psntp,
        psnlr,
    }
}

/// The first bytes of the option at `at` of a frame.
#[inline(always)]
fn option_at<const SIZE: usize>(frame: &mut [u8], at: usize) -> Option<&mut [u8; SIZE]> {
    frame.get_mut(at..)?.first_chunk_mut()
}

/// Options that were written, and lack their seals: of one algorithm.
struct Batch<'t, 'b, 'p> {
    turn: &'t Turn<'p>,
    aead: Aead,
    jobs: ArrayVec<SealJob<'b>, BURST>,
}

impl<'t, 'b, 'p: 'b> Batch<'t, 'b, 'p> {
    fn new(turn: &'t Turn<'p>) -> Self {
        Self {
            turn,
            aead: Aead::Aes128Gcm,
            jobs: ArrayVec::new(),
        }
    }

    /// Takes in an option, to be sealed with `key`.
    #[inline(always)]
    fn seal(&mut self, key: &'p OutKey, option: &'b mut [u8; pdmv2::SEALED_SIZE]) {
        if !key.is_for(self.aead) {
            cold_path();
            self.finish();
            self.aead = key.aead();
        }
        // There are at most as many as packets in a burst.
        let _ = self.jobs.try_push(SealJob {
            key: &key.session,
            option,
        });
    }

    /// Seals what was taken in.
    fn finish(&mut self) {
        let turn = self.turn;
        turn.count_many(Counter::MarkedSealed, self.jobs.len());
        turn.shared.kernel.seal(self.aead, &mut self.jobs);
        self.jobs.clear();
    }
}
