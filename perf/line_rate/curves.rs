//! What a packet costs as work grows, in cycles of the worker's stages on plain memory.

use crate::bench::{Bench, HARNESS_CORE, Result, TESTED_CORE};
use crate::frames::{Size, Turns};
use crate::memory::{self, Lane, Rise, Traffic};
use crate::peer::Peer;
use crate::plot::{Curve, Plot};
use crate::report::{Report, Section, Table, number};
use crate::samples::Spread;
use crate::setup::Setup;
use pdmgate::dataplane::BURST;
use pdmgate::telemetry::{Counter, Direction};

/// Bursts of one round.
const BURSTS: usize = 1_024;
/// Flows where something else is varied.
const FLOWS: usize = 4_096;

/// What a round gives the worker.
struct Case<'a> {
    setup: &'a Setup,
    flows: usize,
    traffic: Traffic,
    /// Whether only what comes in is spoilt.
    only_incoming: bool,
}

impl<'a> Case<'a> {
    fn of(setup: &'a Setup, flows: usize) -> Self {
        Self {
            setup,
            flows,
            traffic: Traffic::default(),
            only_incoming: false,
        }
    }
}

/// Cycles a packet, out and in.
struct Cost {
    outgoing: Spread,
    incoming: Spread,
}

/// A curve's picture and what is to be said of it.
struct Told<'a> {
    file: &'a str,
    plot: Plot<'a>,
    why: &'a str,
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    core_affinity::set_for_current(core_affinity::CoreId { id: TESTED_CORE });
    let result = measure(bench, report);
    core_affinity::set_for_current(core_affinity::CoreId { id: HARNESS_CORE });
    result
}

fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let hz = report.machine.tsc_hz;
    let mut section = Section::new("What a packet costs as work grows");
    section.text.push(format!(
        "Cycles of the worker's stages on plain memory, without a device: receiving and sending are not in them. {} flows unless flows are \
         what is varied, in an order that is not the one they were made in; 80 bytes unless sizes are.",
        number(FLOWS as f64)
    ));
    flows(bench, report, &mut section, hz)?;
    sizes(bench, report, &mut section, hz)?;
    shares(bench, report, &mut section, hz)?;
    rotation(bench, report, &mut section, hz)?;
    report.sections.push(section);
    Ok(())
}

/// The rounds of one case.
fn cost(bench: &Bench, case: &Case<'_>, hz: u64) -> Result<Cost> {
    let shared = memory::appliance(case.setup, 1, hz, false)?;
    let mut peer = Peer::new(case.setup, case.flows, hz)?;
    let mut lane = Lane::new(&shared, 0)?;
    lane.warm(case.flows, Some(&mut peer), case.setup.searches, hz)?;
    peer.scatter();
    let mut turns = Turns::scattered(case.flows);
    let bursts = if bench.quick { 16 } else { BURSTS };
    let packets = bursts * BURST;
    let honest = packets - bursts * case.traffic.spoilt;
    let (mut outgoing, mut incoming) = (Vec::new(), Vec::new());
    for round in 0..=bench.rounds() {
        bench.sleep(std::time::Duration::ZERO)?;
        let sealed = Rise::of(&shared, Direction::Out, Counter::MarkedSealed);
        let out = lane.outgoing(&case.traffic, &mut turns, bursts);
        sealed.check(if case.only_incoming { packets } else { honest })?;
        let opened = Rise::of(&shared, Direction::In, Counter::Opened);
        let inward = lane.incoming(&case.traffic, &mut peer, bursts)?;
        opened.check(honest)?;
        // The first round brings code and tables to the caches.
        if round > 0 {
            outgoing.push(out as f64 / packets as f64);
            incoming.push(inward as f64 / packets as f64);
        }
    }
    Ok(Cost {
        outgoing: Spread::of(&outgoing),
        incoming: Spread::of(&incoming),
    })
}

/// Costs as two curves.
fn curves(costs: Vec<(f64, Cost)>) -> [Curve; 2] {
    let points = |get: fn(&Cost) -> Spread| costs.iter().map(|(x, cost)| (*x, get(cost))).collect();
    [
        Curve {
            name: "outgoing: mark, seal",
            points: points(|cost| cost.outgoing),
        },
        Curve {
            name: "incoming: open, measure, strip",
            points: points(|cost| cost.incoming),
        },
    ]
}

fn tell(report: &mut Report, section: &mut Section, told: &Told<'_>) -> Result<()> {
    let mut columns = vec![told.plot.x];
    columns.extend(told.plot.curves.iter().map(|curve| curve.name));
    let mut table = Table::new(&columns);
    for (row, (x, _)) in told.plot.curves[0].points.iter().enumerate() {
        let mut cells = vec![(*x).into()];
        cells.extend(
            told.plot
                .curves
                .iter()
                .map(|curve| curve.points[row].1.into()),
        );
        table.rows.push(cells);
    }
    section.tables.push(table);
    section
        .pictures
        .push((told.file.to_owned(), told.why.to_owned()));
    report.picture(told.file, told.plot.svg()?);
    Ok(())
}

fn flows(bench: &Bench, report: &mut Report, section: &mut Section, hz: u64) -> Result<()> {
    let largest = if bench.quick { 7 } else { 11 };
    let mut costs = Vec::new();
    for power in 0..=largest {
        let flows = 4usize.pow(power);
        let setup = Setup {
            flows: flows.max(1_024),
            ..Setup::default()
        };
        let case = Case::of(&setup, flows);
        let cost = cost(bench, &case, hz)?;
        bench.say(&format!(
            "{flows} flows: {:.0} and {:.0} cycles",
            cost.outgoing.median, cost.incoming.median
        ));
        costs.push((flows as f64, cost));
    }
    tell(
        report,
        section,
        &Told {
            file: "flows.svg",
            plot: Plot {
                title: "Cycles a packet by number of flows",
                x: "flows",
                y: "cycles a packet",
                log_x: true,
                curves: &curves(costs),
            },
            why: "Flat as long as the flows' entries fit a cache, then a step for each cache that they outgrow: a packet touches the same few \
                  lines of its entry whatever the number of flows, so what grows is where these come from, and how often their address \
                  has to be looked up in memory. They are fetched a stage ahead, so a step is far from what as many waits would cost.",
        },
    )
}

fn sizes(bench: &Bench, report: &mut Report, section: &mut Section, hz: u64) -> Result<()> {
    let setup = Setup::default();
    let mut costs = Vec::new();
    for bytes in [80, 128, 256, 512, 1_024, 1_474] {
        let mut case = Case::of(&setup, FLOWS);
        case.traffic.size = Size::Bytes(bytes);
        costs.push((bytes as f64, cost(bench, &case, hz)?));
    }
    tell(
        report,
        section,
        &Told {
            file: "size.svg",
            plot: Plot {
                title: "Cycles a packet by its size",
                x: "bytes of the frame",
                y: "cycles a packet",
                log_x: false,
                curves: &curves(costs),
            },
            why: "Flat: only headers are read and moved, and the option that is sealed has the same 36 bytes in front of any payload.",
        },
    )
}

/// To hosts that no list has.
fn elsewhere(frame: &mut [u8]) {
    // The last byte of 2001:db8:SIDE in both addresses, whichever the direction.
    for at in [14 + 8 + 5, 14 + 24 + 5] {
        if let Some(byte) = frame.get_mut(at) {
            *byte |= 0x10;
        }
    }
}

/// With a tag that no key makes, if there is an option, which Next Header says.
fn forge(frame: &mut [u8]) {
    if frame.get(14 + 6) == Some(&60)
        && let Some(byte) = frame.get_mut(14 + 40 + 4 + 35)
    {
        *byte ^= 0x80;
    }
}

const SIXTY_FOURTHS: [usize; 5] = [0, 16, 32, 48, 64];

fn shares(bench: &Bench, report: &mut Report, section: &mut Section, hz: u64) -> Result<()> {
    let share =
        |spoil: fn(&mut [u8]), only_incoming: bool, setup: &Setup| -> Result<Vec<(usize, Cost)>> {
            let costs = SIXTY_FOURTHS.into_iter().map(|spoilt| {
                let mut case = Case::of(setup, FLOWS);
                (case.traffic.spoilt, case.traffic.spoil, case.only_incoming) =
                    (spoilt, spoil, only_incoming);
                Ok((spoilt, cost(bench, &case, hz)?))
            });
            costs.collect()
        };
    let marked = share(elsewhere, false, &Setup::default())?;
    let marked = marked
        .into_iter()
        .rev()
        .map(|(spoilt, cost)| ((64 - spoilt) as f64 / 0.64, cost));
    tell(
        report,
        section,
        &Told {
            file: "marked.svg",
            plot: Plot {
                title: "Cycles a packet by share of marked traffic",
                x: "% of packets in a pairing",
                y: "cycles a packet",
                log_x: false,
                curves: &curves(marked.collect()),
            },
            why: "A straight line between two kinds of packet: one that is parsed, looked up in the table and the lists and passes, and one that is \
                  marked or opened as well. Batches that are less full seal a little slower a packet.",
        },
    )?;

    // With the budget for searches that an appliance has by itself: it is what bounds the cost.
    let setup = Setup {
        searches: 200_000,
        ..Setup::default()
    };
    let forged = share(forge, true, &setup)?;
    let honest = forged
        .first()
        .map(|(_, cost)| cost.incoming)
        .ok_or("no costs")?;
    let all = forged
        .last()
        .map(|(_, cost)| cost.incoming)
        .ok_or("no costs")?;
    report.headline("forged", all.scaled(1.0 / honest.median));
    let points = forged
        .iter()
        .map(|(spoilt, cost)| (*spoilt as f64 / 0.64, cost.incoming));
    let curve = Curve {
        name: "incoming",
        points: points.collect(),
    };
    tell(
        report,
        section,
        &Told {
            file: "forged.svg",
            plot: Plot {
                title: "Cycles a packet by share of forged options",
                x: "% of options forged",
                y: "cycles a packet",
                log_x: false,
                curves: &[curve],
            },
            why: "A forged option is tried with its flow's key in the batch like any other, then alone with each other key that the flow holds. Keys ahead \
                  are searched for under a budget, of 200,000 derivations a second and of one for 32 packets while no poll is empty, which is used up \
                  at once. So the curve jumps with the first forgeries by what the budget costs, and rises slowly with more of them.",
        },
    )
}

fn rotation(bench: &Bench, report: &mut Report, section: &mut Section, hz: u64) -> Result<()> {
    let mut costs = Vec::new();
    for rotation in [256, 1_024, 4_096, 16_384, 32_767] {
        let setup = Setup {
            rotation,
            ..Setup::default()
        };
        // Few flows, so that many keys end within a round.
        let case = Case::of(&setup, 64);
        costs.push((f64::from(rotation), cost(bench, &case, hz)?));
    }
    tell(
        report,
        section,
        &Told {
            file: "rotation.svg",
            plot: Plot {
                title: "Cycles a packet by packets under one key",
                x: "packets under one key",
                y: "cycles a packet",
                log_x: true,
                curves: &curves(costs),
            },
            why: "A new key costs one derivation at the sender and one or two at the receiver, shared by the packets that it seals: 3 % at \
                  256 packets a key, nothing at 32,767.",
        },
    )
}
