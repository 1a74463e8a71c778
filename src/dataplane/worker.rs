//! One worker: its own counters, budgets and random numbers, and the two ways through the stages.

use super::classify::{Candidates, classify};
use super::fate::Fates;
use super::rate::{Budget, Noted, Rate, Throttles};
use super::shared::{Shared, View};
use super::{lookup, mark, open};
use crate::flow::outgoing::Limit;
use crate::flow::{Pin, Reader};
use crate::snapshot::Awaited;
use crate::telemetry::{Counter, Direction, DirectionCounters, WorkerCounters, WorkerPairing};
use crate::wire::{OptionKind, PacketBuf};
use std::sync::atomic::Ordering;

/// A worker's own things.
pub struct Worker<'s> {
    shared: &'s Shared,
    index: usize,
    reader: Reader<'s>,
    counters: &'s WorkerCounters,
    tools: Tools,
    /// Whether a poll has found nothing since the last burst from outside.
    keeps_up: bool,
}

/// What a worker's stages change.
pub(super) struct Tools {
    pub random: Random,
    /// Keys that may be derived in search of one that opens.
    pub search: Budget,
    /// Packet Too Big messages that may be sent.
    pub icmp: Budget,
    pub search_rate: Rate,
    icmp_rate: Rate,
    /// The view that `search_rate` is of.
    serial: u32,
    pub throttles: Throttles,
    awaited: Noted,
}

/// One burst under way.
pub(super) struct Turn<'p> {
    pub shared: &'p Shared,
    pub pin: &'p Pin<'p>,
    pub view: &'p View,
    pub direction: Direction,
    /// When the burst was received, in cycles.
    pub now: u64,
    /// Keys that were in use then, in cycles, or before, are due to change.
    pub oldest: u64,
    /// Packets that a key may seal.
    pub limit: Limit,
    counters: &'p DirectionCounters,
    worker: usize,
}

/// Packet Too Big messages a second, as routers limit them (RFC 4443 section 2.4 (f)).
const ICMP_PER_SECOND: u32 = 1_000;

/// Packets that earn the search one key while a worker does not keep up, whatever time has passed. A search takes as long as a dozen packets for
/// each key, so of a worker that gets nothing but forged options the keys take less than a third.
const PACKETS_A_KEY: u32 = 32;

impl<'s> Worker<'s> {
    /// Worker `index` of those that `shared` was made for, with a seed of its own for numbers that need no secrecy; `None` if
    /// there is no such worker.
    #[must_use]
    pub fn new(shared: &'s Shared, index: usize, seed: u64, now: u64) -> Option<Self> {
        let mut reader = shared.quiescence.reader(index)?;
        let search_rate = {
            let pin = reader.pin();
            search_rate(shared, shared.view.read(&pin))
        };
        reader.rest();
        let icmp_rate = Rate::new(ICMP_PER_SECOND, shared.clock.hz());
        Some(Self {
            shared,
            index,
            reader,
            counters: shared.telemetry.workers.get(index)?,
            tools: Tools {
                random: Random(seed | 1),
                search: Budget::full(search_rate, now),
                icmp: Budget::full(icmp_rate, now),
                search_rate,
                icmp_rate,
                serial: 0,
                throttles: Throttles::default(),
                awaited: Noted::default(),
            },
            keeps_up: true,
        })
    }

    /// Takes a burst from the inside port, received at `now` (cycles): marks and seals.
    pub fn outbound<B: PacketBuf>(&mut self, burst: &mut [B], now: u64) -> Fates {
        self.turn(
            Direction::Out,
            burst,
            now,
            |turn, tools, burst, fates, candidates| {
                classify(turn, burst, fates, not_yet_marked, candidates);
                lookup::look_up(turn, candidates);
                mark::mark(turn, tools, burst, fates, candidates);
            },
        )
    }

    /// Takes a burst from the outside port, received at `now` (cycles): opens, measures and strips.
    pub fn inbound<B: PacketBuf>(&mut self, burst: &mut [B], now: u64) -> Fates {
        self.turn(
            Direction::In,
            burst,
            now,
            |turn, tools, burst, fates, candidates| {
                classify(turn, burst, fates, |_| Ok(()), candidates);
                lookup::look_up(turn, candidates);
                open::open(turn, tools, burst, fates, candidates);
            },
        )
    }

    /// Runs the stages over a burst. What it is made out to be is lent to them, as it would be copied if the first one returned it.
    fn turn<B: PacketBuf>(
        &mut self,
        direction: Direction,
        burst: &mut [B],
        now: u64,
        stages: impl for<'p> FnOnce(&Turn<'p>, &mut Tools, &mut [B], &mut Fates, &mut Candidates<'p>),
    ) -> Fates {
        let mut fates = Fates::default();
        let pin = self.reader.pin();
        let tools = &mut self.tools;
        let view = self.shared.view.read(&pin);
        if tools.serial != view.snapshot.serial {
            tools.serial = view.snapshot.serial;
            tools.search_rate = search_rate(self.shared, view);
        }
        if direction == Direction::In {
            let (search, rate) = (&mut tools.search, tools.search_rate);
            if self.keeps_up {
                search.refill(rate, now);
            } else {
                search.refill_by(rate, now, burst.len(), PACKETS_A_KEY);
            }
            self.keeps_up = false;
        }
        tools.icmp.refill(tools.icmp_rate, now);
        let policy = &view.snapshot.policy;
        let turn = Turn {
            shared: self.shared,
            pin: &pin,
            view,
            direction,
            now,
            oldest: now.saturating_sub(policy.key_age_cycles),
            limit: Limit::new(policy.packets_per_key),
            counters: self.counters.of(direction),
            worker: self.index,
        };
        let mut candidates = Candidates::default();
        stages(&turn, tools, burst, &mut fates, &mut candidates);
        // Last, so that whoever finds a packet among those received finds what became of it, too.
        turn.counters
            .add(Counter::PacketsReceived, burst.len() as u64);
        turn.counters.add(Counter::BytesReceived, candidates.bytes);
        fates
    }

    /// Says that no packet is in hand, before the worker sleeps.
    pub fn rest(&mut self) {
        self.reader.rest();
    }

    /// Says that the worker holds nothing from before, in a poll that found no packet.
    pub fn quiesce(&mut self) {
        self.keeps_up = true;
        self.reader.pin();
    }

    /// This worker's counters.
    #[must_use]
    pub fn counters(&self) -> &'s WorkerCounters {
        self.counters
    }
}

fn search_rate(shared: &Shared, view: &View) -> Rate {
    Rate::new(view.snapshot.policy.search_per_second, shared.clock.hz())
}

/// Packets that leave the inside with an option already in them are their host's own business.
fn not_yet_marked(option: Option<OptionKind>) -> Result<(), Counter> {
    match option {
        None => Ok(()),
        Some(OptionKind::Unknown) => Err(Counter::PassedCannotInsert),
        Some(_) => Err(Counter::PassedAlreadyMarked),
    }
}

impl<'p> Turn<'p> {
    #[inline]
    pub fn count(&self, counter: Counter) {
        self.counters.add(counter, 1);
    }

    pub fn count_many(&self, counter: Counter, n: usize) {
        self.counters.add(counter, n as u64);
    }

    /// This worker's part of a pairing's numbers.
    #[inline]
    pub fn stats(&self, pairing: usize) -> Option<&'p WorkerPairing> {
        Some(self.view.stats.get(pairing)?.worker(self.worker))
    }

    /// Asks for the secret of a pair.
    pub fn await_key(&self, tools: &mut Tools, awaited: Awaited) {
        // Another packet asks again if there is no room now.
        if tools
            .awaited
            .is_news(&awaited, self.now, self.shared.clock.hz())
        {
            let _ = self.shared.awaited.push(awaited);
        }
    }

    pub fn unix_time(&self) -> u32 {
        self.shared.unix_time.load(Ordering::Relaxed)
    }
}

/// xorshift64*: for numbers that only have to differ (PSNTP's start, PRSEQ's walk), not to be secret.
pub(super) struct Random(u64);

impl Random {
    pub fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}
