//! Zero-loss rate in the manner of RFC 2544, and the time that packets take at half of it.
//!
//! The generator sends outgoing packets over one shared-memory device at an even pace, each with its number and the time in its payload, and
//! takes them back over another one behind the program under test. The generator's own part of the time is in both programs' numbers,
//! so what the appliance adds is the difference to testpmd's.

use crate::bench::{Bench, Result};
use crate::frames::{OPTIONS_HEADER, Size, Template};
use crate::gate::{Counters, Gate};
use crate::generator::{Generator, Pace};
use crate::report::{Report, Section, Table, number};
use crate::rig::Rig;
use crate::samples::Spread;
use crate::setup::Setup;
use crate::targets::LONGEST_ADDED;
use crate::testpmd::Testpmd;
use hdrhistogram::Histogram;
use pdmgate::dpdk::{self, BURST, Burst, OpenPort};
use pdmgate::wire::PacketBuf;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

const FLOWS: usize = 4_096;
const BYTES: usize = 80;
/// Behind UDP's header: the time at which the packet was handed over, in cycles.
const TIME_AT: usize = 14 + 40 + 8;
/// Steps of the search.
const STEPS: usize = 6;
/// Where the search begins: more than a core makes of packets that cross two rings.
const CEILING: f64 = 8e6;
/// How long packets may be under way behind the last one sent.
const STRAGGLERS_MS: u64 = 50;

/// What came of one paced run. Times are in nanoseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Trip {
    pub sent: u64,
    pub back: u64,
    /// Packets that the ring had no room for when their turn came.
    pub refused: u64,
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

/// One of a trip's times.
type Get = fn(&Trip) -> u64;

impl Trip {
    /// Whether all packets that were due in `time` at this rate were sent, but for 0.1 %, and all that were sent came back. Where the
    /// generator was late, the program was not asked for the rate.
    fn lossless(&self, pps: f64, time: Duration) -> bool {
        let offered = (self.sent + self.refused) as f64 >= 0.999 * pps * time.as_secs_f64();
        offered && self.refused == 0 && self.back == self.sent
    }
}

/// Sends for a while by `near`, and takes back by `far`.
pub fn trip(
    rig: &Rig,
    near: &mut OpenPort,
    far: &mut OpenPort,
    flows: usize,
    ms: u64,
    pps: u64,
) -> Result<Trip> {
    let hz = rig.eal.tsc_hz();
    let (tx, rx) = near
        .tx
        .first_mut()
        .zip(far.rx.first_mut())
        .ok_or("no queue")?;
    let template = Template::outgoing(BYTES);
    // 0.1 % of up to a second.
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 1_000_000_000, 3)?;
    let (mut trip, mut burst, mut came) = (Trip::default(), Burst::new(), Burst::new());
    let start = dpdk::cycles();
    let end = start + hz / 1_000 * ms;
    let pace = Pace::new(start, hz, pps);
    let mut flow = 0;
    loop {
        let now = dpdk::cycles();
        if now < end {
            let due = pace.due(now, trip.sent + trip.refused);
            for _ in 0..due.min(BURST as u64) {
                let mut packet = rig.pool.alloc().ok_or("no packet buffer")?;
                packet.resize(BYTES)?;
                let frame = packet.data_mut();
                template.write(frame, flow, None);
                if let Some(time) = frame.get_mut(TIME_AT..TIME_AT + 8) {
                    time.copy_from_slice(&now.to_be_bytes());
                }
                burst.push(packet);
                flow = (flow + 1) % flows;
            }
            trip.sent += tx.burst(&mut burst) as u64;
            // At a pace nobody waits: what does not fit now is lost.
            trip.refused += burst.len() as u64;
            dpdk::free(&mut burst);
        } else if now > end + hz / 1_000 * STRAGGLERS_MS {
            break;
        }
        if rx.burst(&mut came) > 0 {
            let now = dpdk::cycles();
            for packet in &came {
                trip.back += 1;
                let option = packet.data().len().saturating_sub(BYTES);
                let time = packet
                    .data()
                    .get(TIME_AT + option..)
                    .and_then(|rest| rest.first_chunk());
                let cycles = now
                    .saturating_sub(u64::from_be_bytes(*time.ok_or("a packet came back short")?));
                histogram.saturating_record(
                    (u128::from(cycles) * 1_000_000_000 / u128::from(hz)) as u64,
                );
                debug_assert!(option == 0 || option == OPTIONS_HEADER);
            }
            dpdk::free(&mut came);
        }
    }
    trip.p50 = histogram.value_at_quantile(0.5);
    trip.p99 = histogram.value_at_quantile(0.99);
    trip.p999 = histogram.value_at_quantile(0.999);
    trip.max = histogram.max();
    Ok(trip)
}

/// Both programs, joined to the generator by two devices each.
struct Stand {
    generator: Generator,
    gate: Gate,
    testpmd: Testpmd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Pdmgate,
    Testpmd,
}

impl Stand {
    fn start(bench: &Bench) -> Result<Self> {
        let sockets: Vec<PathBuf> = ["gate-in", "gate-out", "pmd-in", "pmd-out"]
            .iter()
            .map(|name| bench.dir().join(format!("{name}.sock")))
            .collect();
        let device = |n: usize, socket: &PathBuf| {
            let _ = std::fs::remove_file(socket);
            format!(
                "net_memif{n},role=server,id=0,socket-abstract=no,rsize=12,socket={}",
                socket.display()
            )
        };
        let [inside, outside, pmd_inside, pmd_outside] = &sockets[..] else {
            return Err("four sockets".into());
        };
        let setup = Setup {
            inside: device(0, inside),
            outside: device(1, outside),
            ..Setup::default()
        };
        let gate = Gate::start(bench, &setup)?;
        let testpmd = Testpmd::start(
            bench,
            &device(0, pmd_inside),
            &device(1, pmd_outside),
            setup.mbufs,
        )?;
        let generator = Generator::start(bench, &sockets, FLOWS, Size::Bytes(BYTES))?;
        gate.pause();
        Ok(Self {
            generator,
            gate,
            testpmd,
        })
    }

    /// What the appliance has counted so far.
    fn count(&self) -> Result<Counters> {
        self.gate.resume();
        let counters = self.gate.counters();
        self.gate.pause();
        counters
    }

    fn trip(&mut self, bench: &Bench, program: Program, time: Duration, pps: f64) -> Result<Trip> {
        let ms = time.as_millis();
        let order = |port: usize| format!("trip {port} {ms} {pps:.0}");
        match program {
            Program::Pdmgate => {
                self.gate.resume();
                let trip = self.generator.order(bench, &order(0));
                self.gate.pause();
                trip
            }
            Program::Testpmd => {
                self.testpmd.forward("macswap")?;
                let trip = self.generator.order(bench, &order(2));
                self.testpmd.halt(bench)?;
                trip
            }
        }
    }

    /// The highest rate of a binary search that the generator offers and at which nothing is lost.
    fn zero_loss(&mut self, bench: &Bench, program: Program, time: Duration) -> Result<f64> {
        let (mut passed, mut failed) = (0.0, CEILING);
        for _ in 0..STEPS {
            let rate = f64::midpoint(passed, failed);
            // One more chance: on a shared machine some losses are another machine's doing.
            let mut lossless = || -> Result<bool> {
                let trip = self.trip(bench, program, time, rate)?;
                Ok(trip.lossless(rate, time))
            };
            let lossless = lossless()? || lossless()?;
            if lossless {
                passed = rate;
            } else {
                failed = rate;
            }
        }
        Ok(passed)
    }
}

/// The part.
pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut stand = Stand::start(bench)?;
    let before = stand.count()?;
    // Flows are made and keys derived.
    for program in [Program::Pdmgate, Program::Testpmd] {
        stand.trip(bench, program, Duration::from_millis(200), 200_000.0)?;
    }
    let trial = bench.time(Duration::from_secs(2));
    let gate_rate = stand.zero_loss(bench, Program::Pdmgate, trial)?;
    let pmd_rate = stand.zero_loss(bench, Program::Testpmd, trial)?;
    bench.say(&format!(
        "zero loss: pdmgate {:.2} Mpps, testpmd {:.2} Mpps",
        gate_rate / 1e6,
        pmd_rate / 1e6
    ));

    let pace = (gate_rate / 2.0).max(10_000.0);
    let (mut gate, mut pmd) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds() {
        gate.push(stand.trip(bench, Program::Pdmgate, trial / 2, pace)?);
        pmd.push(stand.trip(bench, Program::Testpmd, trial / 2, pace)?);
    }
    stand
        .count()?
        .all_done_since(&before, "out", "marked.sealed")?;
    let Stand {
        generator,
        gate: appliance,
        testpmd,
    } = stand;
    generator.end(bench)?;
    appliance.end(bench)?;
    testpmd.end(bench)?;

    let of = |trips: &[Trip], get: Get| -> Vec<f64> {
        trips.iter().map(|t| get(t) as f64 / 1e3).collect()
    };
    let added = |get: Get| {
        let (gate, pmd) = (of(&gate, get), of(&pmd, get));
        let added: Vec<f64> = gate.iter().zip(&pmd).map(|(a, b)| a - b).collect();
        Spread::of(&added)
    };
    report.headline("latency/median", added(|t| t.p50));
    report.headline("latency/p99.9", added(|t| t.p999));
    let jitter = Spread::of(&of(&pmd, |t| t.p999 - t.p50)).median;
    if jitter > LONGEST_ADDED {
        report.beyond(
            "latency/p99.9",
            format!(
                "lost in the machine's jitter: testpmd's own 99.9 % is {} µs above its median",
                number(jitter)
            ),
        );
    }

    let mut section = Section::new("Zero-loss rate and latency");
    section.text.push(format!(
        "Outgoing packets of {BYTES} bytes, {FLOWS} flows, from the generator over `net_memif` (4,096 descriptors) through the program and \
         over another `net_memif` back to the generator. Zero loss: binary search of {STEPS} steps up to {} Mpps, trials of {} s, the \
         second of two trials counts if the first lost something. The generator sends and takes back on one core; a rate of which it \
         sends less than 99.9 % counts as lost, so the highest rates may be its own limit. Latency at {} packets/s, half \
         of pdmgate's zero-loss rate, for both; what is added is the difference in the same round. How far testpmd's own 99.9 % is above its median is the machine's jitter: what is added can be told only where that is less than the target.",
        number(CEILING / 1e6),
        number(trial.as_secs_f64()),
        number(pace),
    ));
    let mut rates = Table::new(&["", "pdmgate", "testpmd macswap"]);
    rates.rows.push(vec![
        "zero loss, Mpps".into(),
        (gate_rate / 1e6).into(),
        (pmd_rate / 1e6).into(),
    ]);
    section.tables.push(rates);
    let mut times = Table::new(&["latency, µs", "pdmgate", "testpmd macswap", "added"]);
    let rows: [(&str, Get); 4] = [
        ("median", |t| t.p50),
        ("99 %", |t| t.p99),
        ("99.9 %", |t| t.p999),
        ("largest", |t| t.max),
    ];
    for (name, get) in rows {
        times.rows.push(vec![
            name.into(),
            Spread::of(&of(&gate, get)).into(),
            Spread::of(&of(&pmd, get)).into(),
            added(get).into(),
        ]);
    }
    section.tables.push(times);
    report.sections.push(section);
    Ok(())
}
