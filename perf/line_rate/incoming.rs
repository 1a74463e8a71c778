//! Incoming: sealed packets from outside are opened, checked, measured and lose their option.
//!
//! A repeated option is a replay, so these packets cannot come round and round from a capture: the generator sealed them beforehand, each
//! once, and hands them over by shared memory. testpmd gets packets from the same generator over the same kind of device.

use crate::bench::{Bench, Result};
use crate::frames::Size;
use crate::gate::Gate;
use crate::generator::{Generator, Sent};
use crate::report::{Report, Section, Table, grouped};
use crate::samples::Spread;
use crate::setup::Setup;
use crate::testpmd::Testpmd;
use std::time::Duration;

const CASES: [(Size, usize); 4] = [
    (Size::Bytes(80), 4_096),
    (Size::Bytes(80), 65_536),
    (Size::Bytes(1024), 4_096),
    (Size::Mix, 4_096),
];
/// Packets that are sealed for a second of sending: more than a core takes.
const SEALED_PER_SECOND: f64 = 16e6;
/// How long the last packets may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pace at which flows are made.
const WARM_PPS: usize = 200_000;

/// What the rounds of one case came to.
#[derive(Default)]
struct Rounds {
    pdmgate: Vec<f64>,
    pdmgate_cycles: Vec<f64>,
    pdmgate_full: Vec<f64>,
    macswap: Vec<f64>,
    macswap_cycles: Vec<f64>,
    macswap_full: Vec<f64>,
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut section = Section::new("Incoming: open, check, measure, strip");
    section.text.push(
        "One core, one queue, bursts of 64. A generator on the other core sends options sealed beforehand over `net_memif`; `net_null` \
         swallows. Sizes are those of frames without the option; with it they are 40 bytes longer. pdmgate's counters were checked: every \
         packet that was sent was received and opened. *Ring full* is the share of the generator's attempts that found no room: where it is \
         near 0 the generator was the limit, and the program could do more. *Cycles* are those of turns of the poll loop that found \
         packets, by each program's own count. The ratio is of cycles, which do not depend on how \
         fast the generator is: even where the ring is often full, a program may wait for packets at other times."
            .to_owned(),
    );
    let mut table = Table::new(&[
        "bytes",
        "flows",
        "pdmgate Mpps",
        "ring full",
        "cycles",
        "testpmd macswap Mpps",
        "ring full",
        "cycles",
        "ratio of cycles",
    ]);
    for (size, flows) in CASES {
        let rounds = case(bench, size, flows)?;
        let ratio = Spread::of_ratios(&rounds.macswap_cycles, &rounds.pdmgate_cycles);
        let mpps = |rates: &[f64]| Spread::of(rates).scaled(1e-6);
        bench.say(&format!(
            "incoming {} bytes, {} flows: {:.2} Mpps, {:.3} of macswap",
            size.name(),
            grouped(flows as i64),
            mpps(&rounds.pdmgate).median,
            ratio.median,
        ));
        if size == Size::Bytes(80) {
            report.headline(&format!("incoming/{flows}"), ratio);
        }
        let share = |full: &[f64]| format!("{:.0} %", Spread::of(full).median * 100.0);
        table.rows.push(vec![
            size.name().into(),
            grouped(flows as i64).into(),
            mpps(&rounds.pdmgate).into(),
            share(&rounds.pdmgate_full).into(),
            Spread::of(&rounds.pdmgate_cycles).into(),
            mpps(&rounds.macswap).into(),
            share(&rounds.macswap_full).into(),
            Spread::of(&rounds.macswap_cycles).into(),
            ratio.into(),
        ]);
    }
    section.tables.push(table);
    report.sections.push(section);
    Ok(())
}

fn case(bench: &Bench, size: Size, flows: usize) -> Result<Rounds> {
    let sockets = ["gate.memif", "testpmd.memif"].map(|name| bench.dir().join(name));
    let devices = [&sockets[0], &sockets[1]].map(|socket| {
        let _ = std::fs::remove_file(socket);
        format!(
            "net_memif0,role=server,id=0,socket-abstract=no,rsize=12,socket={}",
            socket.display()
        )
    });
    let setup = Setup {
        outside: devices[0].clone(),
        ..Setup::default()
    };
    let gate = Gate::start(bench, &setup)?;
    let mut testpmd = Testpmd::start(bench, &devices[1], "net_null1,no-rx=1", setup.mbufs)?;
    testpmd.record_cycles()?;
    let mut generator = Generator::start(bench, &sockets, flows, size)?;

    let time = bench.time(Duration::from_millis(500)).as_secs_f64();
    let ms = (time * 1e3) as u64;
    generator.order::<String>(bench, &format!("seal {flows}"))?;
    let warm = 10_000 + 1_000 * flows / WARM_PPS;
    let order = format!("in 0 {flows} {warm} {WARM_PPS}");
    sealed_round(bench, &gate, &mut generator, &order)?;

    let mut rounds = Rounds::default();
    for _ in 0..bench.rounds() {
        let sealed = (SEALED_PER_SECOND * time) as usize;
        generator.order::<String>(bench, &format!("seal {sealed}"))?;
        let (sent, cycles) = sealed_round(
            bench,
            &gate,
            &mut generator,
            &format!("in 0 {sealed} {ms} 0"),
        )?;
        rounds.pdmgate.push(sent.rate());
        rounds.pdmgate_full.push(sent.full);
        rounds.pdmgate_cycles.push(cycles as f64 / sent.sent as f64);

        testpmd.forward("macswap")?;
        let sent: Sent = generator.order(bench, &format!("again 1 {ms}"))?;
        let cycles = testpmd.halt_cycles(bench)?;
        rounds.macswap.push(sent.rate());
        rounds.macswap_full.push(sent.full);
        rounds.macswap_cycles.push(cycles);
    }
    generator.end(bench)?;
    gate.end(bench)?;
    testpmd.end(bench)?;
    Ok(rounds)
}

/// Sends to pdmgate; checks that every packet arrived and was opened. Returns the cycles of turns of its loop that found packets, too. Leaves
/// it stopped.
fn sealed_round(
    bench: &Bench,
    gate: &Gate,
    generator: &mut Generator,
    order: &str,
) -> Result<(Sent, u64)> {
    gate.resume();
    let before = gate.counters()?;
    let sent: Sent = generator.order(bench, order)?;
    bench.wait("counting of all packets", PATIENCE, || {
        let received = gate.counters()?.since(&before, "packets_received.in");
        Ok((received >= sent.sent as f64).then_some(()))
    })?;
    let after = gate.counters()?;
    gate.pause();
    let received = after.all_done_since(&before, "in", "opened")?;
    if received != sent.sent as f64 {
        return Err(format!("{} packets were sent and {received} received", sent.sent).into());
    }
    Ok((sent, after.busy_cycles_since(&before)))
}
