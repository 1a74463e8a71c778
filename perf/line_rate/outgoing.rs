//! Outgoing: packets from the inside are marked and sealed, as fast as one core goes.
//!
//! `net_pcap` with `infinite_rx` gives both programs the same packets without end, and `net_null` swallows what they send. The part of it
//! that is the devices' own is in both rates, so the ratio tells what is left of a core's line rate with a sealed option on every packet.

use crate::bench::{Bench, Result};
use crate::frames::{self, Size};
use crate::gate::Gate;
use crate::report::{Report, Section, Table, grouped};
use crate::samples::Spread;
use crate::setup::Setup;
use crate::testpmd::Testpmd;
use std::time::Duration;

const SIZES: [Size; 4] = [
    Size::Bytes(80),
    Size::Bytes(256),
    Size::Bytes(1024),
    Size::Mix,
];
const FLOWS: [usize; 3] = [1, 4_096, 65_536];
/// A capture has at least so many packets: several bursts of a single flow.
const LEAST_PACKETS: usize = 64;
/// Packet buffers beside those that the capture is kept in.
const SPARE_BUFFERS: u32 = 8_192;
const SWALLOWS: &str = "net_null1,no-rx=1";

/// Packets a second of one case, round by round.
struct Rates {
    pdmgate: Vec<f64>,
    macswap: Vec<f64>,
    io: Vec<f64>,
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut section = Section::new("Outgoing: mark and seal");
    section.text.push(
        "One core, one queue, bursts of 64. `net_pcap` with `infinite_rx=1` feeds, `net_null` swallows; pdmgate and testpmd ran in turn. \
         pdmgate's counters were checked: every packet that was received was sealed. Sizes are those of frames before the option."
            .to_owned(),
    );
    let mut table = Table::new(&[
        "bytes",
        "flows",
        "pdmgate Mpps",
        "testpmd macswap Mpps",
        "testpmd io Mpps",
        "pdmgate / macswap",
    ]);
    for size in SIZES {
        for flows in FLOWS {
            let rates = case(bench, size, flows)?;
            let ratio = Spread::of_ratios(&rates.pdmgate, &rates.macswap);
            let mpps = |rates: &[f64]| Spread::of(rates).scaled(1e-6);
            bench.say(&format!(
                "outgoing {} bytes, {} flows: {:.2} Mpps, {:.3} of macswap",
                size.name(),
                grouped(flows as i64),
                mpps(&rates.pdmgate).median,
                ratio.median,
            ));
            if size == Size::Bytes(80) && flows > 1 {
                report.headline(&format!("outgoing/{flows}"), ratio);
            }
            table.rows.push(vec![
                size.name().into(),
                grouped(flows as i64).into(),
                mpps(&rates.pdmgate).into(),
                mpps(&rates.macswap).into(),
                mpps(&rates.io).into(),
                ratio.into(),
            ]);
        }
    }
    section.tables.push(table);
    report.sections.push(section);
    Ok(())
}

fn case(bench: &Bench, size: Size, flows: usize) -> Result<Rates> {
    let packets = flows.max(LEAST_PACKETS);
    let capture = bench.dir().join("inside.pcap");
    frames::capture(&capture, size, flows, packets)?;
    let inside = format!("net_pcap0,rx_pcap={},infinite_rx=1", capture.display());
    let mbufs = packets as u32 + SPARE_BUFFERS;
    let headline = size == Size::Bytes(80);
    let time = bench.time(Duration::from_millis(if headline { 600 } else { 300 }));
    let warm = bench.time(Duration::from_millis(150));

    let mut testpmd = Testpmd::start(bench, &inside, SWALLOWS, mbufs)?;
    let setup = Setup {
        inside,
        outside: SWALLOWS.to_owned(),
        mbufs,
        ..Setup::default()
    };
    let mut gate = Gate::start(bench, &setup)?;
    gate.warm(bench, flows)?;
    bench.sleep(warm)?;
    gate.pause();
    let mut rates = Rates {
        pdmgate: Vec::new(),
        macswap: Vec::new(),
        io: Vec::new(),
    };
    for _ in 0..bench.rounds() {
        rates
            .pdmgate
            .push(gate.measure(bench, "out", "marked.sealed", warm, time)?);
        rates
            .macswap
            .push(testpmd.measure(bench, "macswap", warm, time)?);
        rates.io.push(testpmd.measure(bench, "io", warm, time / 2)?);
    }
    gate.end(bench)?;
    testpmd.end(bench)?;
    Ok(rates)
}
