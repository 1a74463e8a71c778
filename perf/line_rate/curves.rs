//! What a packet costs as work grows, in cycles of the worker's stages on plain memory.

use crate::bench::{Bench, HARNESS_CORE, Result, TESTED_CORE};
use crate::frames::{Size, Turns, forge};
use crate::memory::{self, Lane, Rise, Traffic};
use crate::peer::Peer;
use crate::plot::{Curve, Plot};
use crate::report::{Report, Section, Table, number};
use crate::samples::Spread;
use crate::setup::{Setup, USUAL_SEARCHES};
use pdmgate::dataplane::{BURST, Shared};
use pdmgate::telemetry::{Counter, Direction};
use std::time::Duration;

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

/// Cycles a packet in each round, out and in.
#[derive(Default)]
struct Cost {
    outgoing: Vec<f64>,
    incoming: Vec<f64>,
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

/// A case between its rounds.
struct UnderWay<'s> {
    case: &'s Case<'s>,
    shared: &'s Shared,
    lane: Lane<'s>,
    peer: Peer,
    turns: Turns,
    cost: Cost,
}

impl<'s> UnderWay<'s> {
    fn begin(case: &'s Case<'s>, shared: &'s Shared, hz: u64) -> Result<Self> {
        let mut peer = Peer::new(case.setup, case.flows, hz)?;
        let mut lane = Lane::new(shared, 0)?;
        lane.warm(case.flows, Some(&mut peer), case.setup.searches, hz)?;
        peer.scatter();
        Ok(Self {
            case,
            shared,
            lane,
            peer,
            turns: Turns::scattered(case.flows),
            cost: Cost::default(),
        })
    }

    /// Cycles a packet, out and in, of as many bursts each. What is not spoilt has to be sealed and opened.
    fn cycles(&mut self, bursts: usize) -> Result<[f64; 2]> {
        let traffic = &self.case.traffic;
        let packets = bursts * BURST;
        let honest = packets - bursts * traffic.spoilt;
        let sealed = Rise::of(self.shared, Direction::Out, Counter::MarkedSealed);
        let out = self.lane.outgoing(traffic, &mut self.turns, bursts);
        sealed.check(if self.case.only_incoming {
            packets
        } else {
            honest
        })?;
        let opened = Rise::of(self.shared, Direction::In, Counter::Opened);
        let inward = self.lane.incoming(traffic, &mut self.peer, bursts)?;
        opened.check(honest)?;
        Ok([out, inward].map(|cycles| cycles as f64 / packets as f64))
    }

    fn round(&mut self, bursts: usize) -> Result<()> {
        // Brings code and table to the caches, where those of other cases were meanwhile.
        self.cycles(bursts / 4)?;
        let [out, inward] = self.cycles(bursts)?;
        self.cost.outgoing.push(out);
        self.cost.incoming.push(inward);
        Ok(())
    }
}

/// The rounds of several cases, in turn, so that what else the machine does meets all of them.
fn costs(bench: &Bench, cases: &[Case<'_>], hz: u64) -> Result<Vec<Cost>> {
    let appliances = cases
        .iter()
        .map(|case| memory::appliance(case.setup, 1, hz, false))
        .collect::<Result<Vec<_>>>()?;
    let mut under_way = cases
        .iter()
        .zip(&appliances)
        .map(|(case, shared)| UnderWay::begin(case, shared, hz))
        .collect::<Result<Vec<_>>>()?;
    for _ in 0..bench.rounds() {
        for case in &mut under_way {
            bench.sleep(Duration::ZERO)?;
            case.round(if bench.quick { 16 } else { BURSTS })?;
        }
    }
    Ok(under_way.into_iter().map(|case| case.cost).collect())
}

/// Costs as two curves.
fn curves(costs: &[(f64, Cost)]) -> [Curve; 2] {
    let points = |get: fn(&Cost) -> &Vec<f64>| {
        let point = |(x, cost): &(f64, Cost)| (*x, Spread::of(get(cost)));
        costs.iter().map(point).collect()
    };
    [
        Curve {
            name: "outgoing: mark, seal",
            points: points(|cost| &cost.outgoing),
        },
        Curve {
            name: "incoming: open, measure, strip",
            points: points(|cost| &cost.incoming),
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
    let mut points = Vec::new();
    for power in 0..=largest {
        let flows = 4usize.pow(power);
        let setup = Setup {
            flows: flows.max(1_024),
            ..Setup::default()
        };
        // By itself: the largest would leave nothing of the others' in any cache.
        for cost in costs(bench, &[Case::of(&setup, flows)], hz)? {
            bench.say(&format!(
                "{flows} flows: {:.0} and {:.0} cycles",
                Spread::of(&cost.outgoing).median,
                Spread::of(&cost.incoming).median
            ));
            points.push((flows as f64, cost));
        }
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
                curves: &curves(&points),
            },
            why: "Flat as long as the flows' entries fit a cache, then a step for each cache that they outgrow: a packet touches the same few \
                  lines of its entry whatever the number of flows, so what grows is where these come from, and how often their address \
                  has to be looked up in memory. They are fetched a stage ahead, so a step is far from what as many waits would cost.",
        },
    )
}

fn sizes(bench: &Bench, report: &mut Report, section: &mut Section, hz: u64) -> Result<()> {
    let setup = Setup::default();
    let sizes = [80, 128, 256, 512, 1_024, 1_474];
    let cases = sizes.map(|bytes| {
        let mut case = Case::of(&setup, FLOWS);
        case.traffic.size = Size::Bytes(bytes);
        case
    });
    let points: Vec<_> = sizes
        .map(|bytes| bytes as f64)
        .into_iter()
        .zip(costs(bench, &cases, hz)?)
        .collect();
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
                curves: &curves(&points),
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

const SIXTY_FOURTHS: [usize; 5] = [0, 16, 32, 48, 64];

/// Costs by the share, in percent, of packets that are spoilt.
fn spoilt(
    bench: &Bench,
    spoil: fn(&mut [u8]),
    only_incoming: bool,
    setup: &Setup,
    hz: u64,
) -> Result<Vec<(f64, Cost)>> {
    let cases = SIXTY_FOURTHS.map(|spoilt| {
        let mut case = Case::of(setup, FLOWS);
        (case.traffic.spoilt, case.traffic.spoil, case.only_incoming) =
            (spoilt, spoil, only_incoming);
        case
    });
    let shares = SIXTY_FOURTHS.map(|spoilt| spoilt as f64 / 0.64);
    Ok(shares.into_iter().zip(costs(bench, &cases, hz)?).collect())
}

fn shares(bench: &Bench, report: &mut Report, section: &mut Section, hz: u64) -> Result<()> {
    let setup = Setup::default();
    let mut marked = spoilt(bench, elsewhere, false, &setup, hz)?;
    marked.reverse();
    for (share, _) in &mut marked {
        *share = 100.0 - *share;
    }
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
                curves: &curves(&marked),
            },
            why: "A straight line between two kinds of packet: one that is parsed, looked up in the table and the lists and passes, and one that is \
                  marked or opened as well. Batches that are less full seal a little slower a packet.",
        },
    )?;

    let setup = Setup {
        searches: USUAL_SEARCHES,
        ..Setup::default()
    };
    let forged = spoilt(bench, forge, true, &setup, hz)?;
    if let [(_, none), .., (_, all)] = &forged[..] {
        let times: Vec<f64> = all
            .incoming
            .iter()
            .zip(&none.incoming)
            .map(|(forged, honest)| forged / honest)
            .collect();
        report.headline("forged", Spread::of(&times));
    }
    let points = forged
        .iter()
        .map(|(share, cost)| (*share, Spread::of(&cost.incoming)));
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
    let rotations = [256, 1_024, 4_096, 16_384, 32_767];
    let setups = rotations.map(|rotation| Setup {
        rotation,
        ..Setup::default()
    });
    // Few flows, so that many keys end within a round.
    let cases = setups.each_ref().map(|setup| Case::of(setup, 64));
    let points: Vec<_> = rotations
        .map(f64::from)
        .into_iter()
        .zip(costs(bench, &cases, hz)?)
        .collect();
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
                curves: &curves(&points),
            },
            why: "A new key costs one derivation at the sender and one or two at the receiver, shared by the packets that it seals: 3 % at \
                  256 packets a key, nothing at 32,767.",
        },
    )
}
