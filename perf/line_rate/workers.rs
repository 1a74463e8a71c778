//! Two workers on two cores with one shared table, against one on each of them alone; and how fast one makes new flows.

use crate::bench::{Bench, HARNESS_CORE, Result, TESTED_CORE};
use crate::frames::Turns;
use crate::memory::{self, Lane, Rise, Traffic};
use crate::report::{Report, Section, Table, grouped};
use crate::samples::Spread;
use crate::setup::Setup;
use pdmgate::dataplane::{BURST, Shared};
use pdmgate::telemetry::{Counter, Direction};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

/// Flows of each worker: receive queues are filled by address, so a flow stays with its worker.
const FLOWS: usize = 32_768;
/// Bursts of a round.
const BURSTS: usize = 8_192;
/// Bursts after which a worker looks whether the other one is done.
const STRETCH: usize = 64;
/// Which worker runs on which core.
const PLACES: [(usize, usize); 2] = [(0, TESTED_CORE), (1, HARNESS_CORE)];
/// New flows of a round.
const NEW_FLOWS: usize = 262_144;

/// The part.
pub fn workers(bench: &Bench, report: &mut Report) -> Result<()> {
    let hz = report.machine.tsc_hz;
    let setup = Setup {
        flows: 2 * FLOWS,
        ..Setup::default()
    };
    let shared = memory::appliance(&setup, 2, hz, false)?;
    let bursts = if bench.quick { 256 } else { BURSTS };
    let mpps = |places: &[_], bursts| -> Result<f64> {
        Ok(round(&shared, places, bursts)? * hz as f64 / 1e6)
    };
    // Flows are made and keys derived.
    for place in PLACES {
        mpps(&[place], FLOWS / BURST)?;
    }
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds() {
        bench.sleep(std::time::Duration::ZERO)?;
        // Two cores need not be equally fast.
        let [first, second] = PLACES.map(|place| mpps(&[place], bursts));
        one.push(f64::midpoint(first?, second?));
        two.push(mpps(&PLACES, bursts)?);
    }
    core_affinity::set_for_current(core_affinity::CoreId { id: HARNESS_CORE });
    let ratio = Spread::of_ratios(&two, &one);
    report.headline("workers", ratio);
    bench.say(&format!("two workers: {:.2} times one", ratio.median));
    let mut section = Section::new("Two workers");
    section.text.push(format!(
        "Outgoing packets on plain memory, {} flows of each worker in one shared table, stages only. The rate of one is the mean of both cores', \
         each alone; that of two is the sum of both, each by its own clock while the other runs.",
        grouped(FLOWS as i64)
    ));
    let mut table = Table::new(&["one worker, Mpps", "two workers, Mpps", "ratio"]);
    table.rows.push(vec![
        Spread::of(&one).into(),
        Spread::of(&two).into(),
        ratio.into(),
    ]);
    section.tables.push(table);
    report.sections.push(section);
    Ok(())
}

/// Has workers run at once, each on its core, until the first has done its bursts; returns packets a cycle of all together.
fn round(shared: &Shared, places: &[(usize, usize)], bursts: usize) -> Result<f64> {
    let rise = Rise::of(shared, Direction::Out, Counter::MarkedSealed);
    let (together, over) = (&Barrier::new(places.len()), &AtomicBool::new(false));
    let done = std::thread::scope(|scope| {
        let threads: Vec<_> = places
            .iter()
            .map(|&(index, core)| {
                scope.spawn(move || -> std::result::Result<(usize, u64), String> {
                    core_affinity::set_for_current(core_affinity::CoreId { id: core });
                    let mut lane = Lane::new(shared, index).map_err(|error| error.to_string())?;
                    let mut turns = Turns {
                        base: index * FLOWS,
                        ..Turns::scattered(FLOWS)
                    };
                    let (mut packets, mut cycles) = (0, 0);
                    together.wait();
                    while packets < bursts * BURST && !over.load(Ordering::Relaxed) {
                        cycles += lane.outgoing(&Traffic::default(), &mut turns, STRETCH);
                        packets += STRETCH * BURST;
                    }
                    over.store(true, Ordering::Relaxed);
                    Ok((packets, cycles))
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err("a worker panicked".to_owned()))
        });
        joined.collect::<std::result::Result<Vec<_>, String>>()
    })?;
    rise.check(done.iter().map(|(packets, _)| packets).sum())?;
    let rates = done
        .iter()
        .map(|&(packets, cycles)| packets as f64 / cycles as f64);
    Ok(rates.sum())
}

/// The part.
pub fn new_flows(bench: &Bench, report: &mut Report) -> Result<()> {
    let hz = report.machine.tsc_hz;
    core_affinity::set_for_current(core_affinity::CoreId { id: TESTED_CORE });
    let setup = Setup {
        flows: NEW_FLOWS,
        ..Setup::default()
    };
    let shared = memory::appliance(&setup, 1, hz, false)?;
    let mut lane = Lane::new(&shared, 0)?;
    let flows = if bench.quick { 16_384 } else { NEW_FLOWS };
    let mut rates = Vec::new();
    for round in 0..=bench.rounds() {
        bench.sleep(std::time::Duration::ZERO)?;
        // Tuples that were never seen before.
        let mut turns = Turns {
            base: round * NEW_FLOWS,
            ..Turns::in_order(flows)
        };
        let made = Rise::of(&shared, Direction::Out, Counter::FlowsCreated);
        let sealed = Rise::of(&shared, Direction::Out, Counter::MarkedSealed);
        let cycles = lane.outgoing(&Traffic::default(), &mut turns, flows / BURST);
        made.check(flows)?;
        sealed.check(flows)?;
        // In the first round the table's memory is touched for the first time.
        if round > 0 {
            rates.push(flows as f64 * hz as f64 / cycles as f64);
        }
        let reader = shared.quiescence.reader(shared.management_reader());
        memory::forget(&shared.table, &mut reader.ok_or("no reader")?)?;
    }
    core_affinity::set_for_current(core_affinity::CoreId { id: HARNESS_CORE });
    let rate = Spread::of(&rates);
    report.headline("new_flows", rate);
    bench.say(&format!(
        "new flows: {:.2} million a second",
        rate.median / 1e6
    ));
    let mut section = Section::new("New flows");
    section.text.push(format!(
        "Outgoing packets on plain memory, each the first of its flow: the table is searched in vain, an entry inserted, a key derived, the packet \
         sealed. {} flows a round; between rounds all are aged out of the table.",
        grouped(flows as i64)
    ));
    let mut table = Table::new(&["new flows a second", "cycles each"]);
    let cycles: Vec<f64> = rates.iter().map(|rate| hz as f64 / rate).collect();
    table
        .rows
        .push(vec![rate.into(), Spread::of(&cycles).into()]);
    section.tables.push(table);
    report.sections.push(section);
    Ok(())
}
