//! Both directions at once with 1,048,576 flows: the worker's own loop between rings, a generator on the other core.
//!
//! ```text
//! generator (harness's core)                              worker (core under test)
//!     packets from hosts      ── net_ring0 ──►  inside
//!     takes what is marked    ◄── net_ring1 ──  outside
//!     packets sealed before   ── net_ring2 ──►  outside
//!     takes what is stripped  ◄── net_ring3 ──  inside
//! ```
//!
//! Two appliances, one with 65,536 flows, take turns on the same rings and the same core.

use crate::bench::{Bench, Result, TESTED_CORE};
use crate::frames::{Template, Turns};
use crate::machine;
use crate::memory::{self, Rise};
use crate::peer::{Batch, Peer};
use crate::report::{Report, Section, Table, grouped};
use crate::rig::Rig;
use crate::samples::Spread;
use crate::setup::Setup;
use pdmgate::config::Idle;
use pdmgate::dataplane::{BURST, Shared, Worker};
use pdmgate::dpdk::{self, Burst, OpenPort, Pool, RxQueue, TxQueue};
use pdmgate::flow::Entry;
use pdmgate::manage::poll::{Side, poll};
use pdmgate::telemetry::{Counter, Direction};
use pdmgate::wire::PacketBuf;
use serde::{Deserialize, Serialize};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

const FEW: usize = 65_536;
const MANY: usize = 1 << 20;
const BYTES: usize = 80;
/// Options sealed for a second of a round: more than half of what a core carries.
const SEALED_PER_SECOND: u64 = 8_000_000;

/// How the process is started.
#[derive(clap::Args)]
pub struct Spec {
    #[arg(long)]
    rounds: usize,
    #[arg(long)]
    ms: u64,
}

/// What the process found.
#[derive(Serialize, Deserialize)]
struct Found {
    few: Vec<Round>,
    many: Vec<Round>,
    /// Bytes that the process grew by for a flow.
    bytes_per_flow: f64,
    entry_bytes: usize,
}

/// One round.
#[derive(Serialize, Deserialize)]
struct Round {
    packets: u64,
    seconds: f64,
    /// Cycles a packet of turns that found packets.
    cycles: f64,
    /// Share of the generator's attempts that found a ring full.
    full: f64,
}

/// The part: starts the process, and reports what it found.
pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    let ms = bench
        .time(std::time::Duration::from_millis(600))
        .as_millis();
    command.args([
        "million",
        "--rounds",
        &bench.rounds().to_string(),
        "--ms",
        &ms.to_string(),
    ]);
    let found: Found = serde_json::from_str(&bench.collect("million", &mut command)?)?;

    let of =
        |rounds: &[Round], get: fn(&Round) -> f64| -> Vec<f64> { rounds.iter().map(get).collect() };
    let rate: fn(&Round) -> f64 = |r| r.packets as f64 / r.seconds / 1e6;
    let (few, many) = (of(&found.few, |r| r.cycles), of(&found.many, |r| r.cycles));
    let ratio = Spread::of_ratios(&many, &few);
    let rates = Spread::of(&of(&found.many, rate));
    bench.say(&format!(
        "million: {:.2} Mpps, {:.2} times the cycles",
        rates.median, ratio.median
    ));
    report.headline("million/rate", rates);
    report.headline("million/cycles", ratio);
    report.headline("memory", Spread::of(&[found.bytes_per_flow]));

    let mut section = Section::new("Both directions at once, and a million flows");
    section.text.push(format!(
        "One worker's loop between `net_ring`s, half of the packets outgoing ({BYTES} bytes) and half incoming (40 more), sealed beforehand; each \
         incoming one names the outgoing one before it, so round trips are measured. Flows come in an order that is not the one in which they \
         were made. Every packet was sealed or opened. *Cycles* are those of turns of the worker's loop that found packets. *Ring full* \
         is the share of the generator's attempts that found no room: near 0, the generator was the limit and the worker could do more."
    ));
    let mut table = Table::new(&["flows", "Mpps", "cycles a packet", "ring full"]);
    for (flows, rounds) in [(FEW, &found.few), (MANY, &found.many)] {
        table.rows.push(vec![
            grouped(flows as i64).into(),
            Spread::of(&of(rounds, rate)).into(),
            Spread::of(&of(rounds, |r| r.cycles)).into(),
            format!(
                "{:.0} %",
                Spread::of(&of(rounds, |r| r.full)).median * 100.0
            )
            .into(),
        ]);
    }
    section.tables.push(table);
    section.text.push(format!(
        "Memory: the process grew by {:.0} bytes a flow when {} flows were made, everything included (resident pages and hugepages); an entry \
         itself has {} bytes.",
        found.bytes_per_flow,
        grouped(MANY as i64),
        grouped(found.entry_bytes as i64),
    ));
    report.sections.push(section);
    Ok(())
}

/// Queues at the generator's ends of the rings.
struct Ends {
    to_inside: TxQueue,
    from_outside: RxQueue,
    to_outside: TxQueue,
    from_inside: RxQueue,
}

/// The process.
struct Inside {
    rig: Rig,
    ends: Ends,
    /// The worker's ends, while it does not run.
    sides: Option<(Side, Side)>,
}

/// An appliance and its far side.
struct Site {
    shared: Arc<Shared>,
    peer: Peer,
    turns: Turns,
}

/// What of a run is wanted.
struct Run {
    /// Outgoing packets.
    outgoing: u64,
    /// Incoming packets.
    incoming: Batch,
    /// The longest.
    cycles: u64,
    /// Whether the far side opens what the appliance sealed.
    hear: bool,
}

/// What came of a run.
#[derive(Default)]
struct Carried {
    sent: [u64; 2],
    cycles: u64,
    /// Cycles of turns of the worker's loop that found packets.
    busy: u64,
    polls: u64,
    full: u64,
}

/// Runs the process.
pub fn process(spec: &Spec) -> Result<()> {
    let rig = Rig::start(&[TESTED_CORE], 16_384)?;
    let hz = rig.eal.tsc_hz();
    let ring = |n: usize| -> Result<(RxQueue, TxQueue)> {
        let OpenPort { mut rx, mut tx, .. } = rig.open(&format!("net_ring{n}"))?;
        Ok(rx.pop().zip(tx.pop()).ok_or("no queue")?)
    };
    // Both ends of a ring are one port's.
    let [hosts, marked, sealed, stripped] = [ring(0)?, ring(1)?, ring(2)?, ring(3)?];
    let ends = Ends {
        to_inside: hosts.1,
        from_outside: marked.0,
        to_outside: sealed.1,
        from_inside: stripped.0,
    };
    let inside = Side {
        rx: hosts.0,
        tx: stripped.1,
    };
    let outside = Side {
        rx: sealed.0,
        tx: marked.1,
    };
    let mut process = Inside {
        rig,
        ends,
        sides: Some((inside, outside)),
    };
    let (mut many, grown) = process.site(MANY, hz)?;
    let (mut few, _) = process.site(FEW, hz)?;
    let mut found = Found {
        few: Vec::new(),
        many: Vec::new(),
        bytes_per_flow: grown as f64 / MANY as f64,
        entry_bytes: size_of::<Entry>(),
    };
    for _ in 0..spec.rounds {
        for (site, rounds) in [(&mut few, &mut found.few), (&mut many, &mut found.many)] {
            rounds.push(process.round(site, hz / 1_000 * spec.ms, hz)?);
        }
    }
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

/// Bytes of memory that the process has, hugepages included.
fn resident() -> Result<u64> {
    let status = "/proc/self/status";
    Ok(
        (machine::kilobytes(status, "VmRSS:")? + machine::kilobytes(status, "HugetlbPages:")?)
            * 1024,
    )
}

impl Inside {
    /// An appliance of which every flow has sent and received, and the bytes that this took.
    fn site(&mut self, flows: usize, hz: u64) -> Result<(Site, u64)> {
        let setup = Setup {
            flows,
            ..Setup::default()
        };
        let peer = Peer::new(&setup, flows, hz)?;
        let before = resident()?;
        let mut site = Site {
            shared: Arc::new(memory::appliance(&setup, 1, hz, false)?),
            peer,
            turns: Turns::in_order(flows),
        };
        let run = Run {
            outgoing: flows as u64,
            incoming: Batch::default(),
            cycles: hz * 60,
            hear: true,
        };
        self.carry(&mut site, run)?;
        let run = Run {
            outgoing: 0,
            incoming: site.peer.seal(flows)?,
            cycles: hz * 60,
            hear: false,
        };
        self.carry(&mut site, run)?;
        if site.shared.table.len() != flows {
            return Err(format!("{} flows instead of {flows}", site.shared.table.len()).into());
        }
        let grown = resident()?.saturating_sub(before);
        site.peer.scatter();
        site.turns = Turns::scattered(flows);
        Ok((site, grown))
    }

    fn round(&mut self, site: &mut Site, cycles: u64, hz: u64) -> Result<Round> {
        let sealed = u128::from(SEALED_PER_SECOND) * u128::from(cycles) / u128::from(hz);
        let run = Run {
            outgoing: u64::MAX,
            incoming: site.peer.seal(sealed as usize)?,
            cycles,
            hear: false,
        };
        let carried = self.carry(site, run)?;
        let packets = carried.sent[0] + carried.sent[1];
        Ok(Round {
            packets,
            seconds: carried.cycles as f64 / hz as f64,
            cycles: carried.busy as f64 / packets.max(1) as f64,
            full: carried.full as f64 / carried.polls.max(1) as f64,
        })
    }

    /// Has the worker run while `work` is done with the generator's ends.
    fn with_worker<T>(
        &mut self,
        shared: &Arc<Shared>,
        work: impl FnOnce(&mut Ends, &Pool) -> Result<T>,
    ) -> Result<T> {
        let (mut inside, mut outside) = self.sides.take().ok_or("the worker has its queues")?;
        let stop = Arc::new(AtomicBool::new(false));
        let (back, returned) = mpsc::channel();
        let (shared, stopping, hz) = (Arc::clone(shared), Arc::clone(&stop), self.rig.eal.tsc_hz());
        let launched = self.rig.eal.launch(0, move || {
            if let Some(worker) = Worker::new(&shared, 0, 99, dpdk::cycles()) {
                poll(worker, &mut inside, &mut outside, Idle::Poll, &stopping, hz);
            }
            // Nobody listens only if the process is about to end.
            let _ = back.send((inside, outside));
        })?;
        let result = work(&mut self.ends, &self.rig.pool);
        stop.store(true, Ordering::Relaxed);
        launched.wait();
        self.sides = Some(returned.recv()?);
        result
    }

    /// Gives the worker packets until those of one direction are used up, or the time. Checks that every one was sealed or opened.
    fn carry(&mut self, site: &mut Site, run: Run) -> Result<Carried> {
        let Site {
            shared,
            peer,
            turns,
        } = site;
        let rises = [
            Rise::of(shared, Direction::Out, Counter::MarkedSealed),
            Rise::of(shared, Direction::In, Counter::Opened),
        ];
        let worker = shared.telemetry.workers.first().ok_or("no worker")?;
        let busy_before = worker.busy.cycles();
        let mut carried = self.with_worker(shared, |ends, pool| {
            let mut generator = Packets {
                pool,
                outgoing: Template::outgoing(BYTES),
                incoming: Template::incoming(BYTES),
                turns,
                left: run.outgoing,
                batch: run.incoming,
                next: 0,
            };
            let carried = ends.carry(&mut generator, run.cycles, |frame| {
                if run.hear { peer.hear(frame) } else { Ok(()) }
            })?;
            ends.drain(|frame| if run.hear { peer.hear(frame) } else { Ok(()) })?;
            Ok(carried)
        })?;
        for (rise, sent) in rises.iter().zip(carried.sent) {
            rise.check(sent as usize)?;
        }
        carried.busy = worker.busy.cycles() - busy_before;
        Ok(carried)
    }
}

/// Packets that are made for the worker.
struct Packets<'a> {
    pool: &'a Pool,
    outgoing: Template,
    incoming: Template,
    turns: &'a mut Turns,
    left: u64,
    batch: Batch,
    next: usize,
}

impl Packets<'_> {
    fn fill_outgoing(&mut self, burst: &mut Burst) -> Result<()> {
        let count = self.left.min(BURST as u64);
        self.left -= count;
        for _ in 0..count {
            let mut packet = self.pool.alloc().ok_or("no packet buffer")?;
            packet.resize(self.outgoing.size())?;
            self.outgoing
                .write(packet.data_mut(), self.turns.next(), None);
            burst.push(packet);
        }
        Ok(())
    }

    fn fill_incoming(&mut self, burst: &mut Burst) -> Result<()> {
        for option in self.batch.options.iter().skip(self.next).take(BURST) {
            let mut packet = self.pool.alloc().ok_or("no packet buffer")?;
            packet.resize(self.incoming.size())?;
            self.incoming
                .write(packet.data_mut(), self.batch.turns.next(), Some(option));
            burst.push(packet);
        }
        self.next += burst.len();
        Ok(())
    }

    /// Whether there is nothing left of a direction that there was something of.
    fn used_up(&self) -> bool {
        let out = self.left == 0 && self.batch.options.is_empty();
        out || (!self.batch.options.is_empty() && self.next == self.batch.options.len())
    }
}

impl Ends {
    fn carry(
        &mut self,
        packets: &mut Packets<'_>,
        cycles: u64,
        mut hear: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Carried> {
        let mut carried = Carried::default();
        let (mut out, mut inward) = (Burst::new(), Burst::new());
        let start = dpdk::cycles();
        loop {
            let now = dpdk::cycles();
            if now - start >= cycles || (out.is_empty() && inward.is_empty() && packets.used_up()) {
                carried.cycles = now - start;
                return Ok(carried);
            }
            if out.is_empty() {
                packets.fill_outgoing(&mut out)?;
            }
            if inward.is_empty() {
                packets.fill_incoming(&mut inward)?;
            }
            for (way, (tx, burst)) in [
                (&mut self.to_inside, &mut out),
                (&mut self.to_outside, &mut inward),
            ]
            .into_iter()
            .enumerate()
            {
                if !burst.is_empty() {
                    carried.sent[way] += tx.burst(burst) as u64;
                    carried.polls += 1;
                    carried.full += u64::from(!burst.is_empty());
                }
            }
            self.receive(&mut hear)?;
        }
    }

    /// Takes what the worker sends.
    fn receive(&mut self, hear: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<usize> {
        let mut burst = Burst::new();
        let marked = self.from_outside.burst(&mut burst);
        for packet in &burst {
            hear(packet.data())?;
        }
        dpdk::free(&mut burst);
        let stripped = self.from_inside.burst(&mut burst);
        dpdk::free(&mut burst);
        Ok(marked + stripped)
    }

    /// Takes what is under way.
    fn drain(&mut self, mut hear: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut quiet = 0;
        while quiet < 100_000 {
            quiet = if self.receive(&mut hear)? > 0 {
                0
            } else {
                quiet + 1
            };
        }
        Ok(())
    }
}
