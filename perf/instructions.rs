//! Instructions of the work that each packet costs, held to bounds: `make guard`.
//!
//! Instructions are counted by `valgrind --tool=callgrind`, so the numbers are the same whatever else the machine does, and whatever of
//! its instruction sets valgrind does not know. Each piece of work is run in a process of its own, a few times and many times: what the
//! many times cost more is the work, and all that is done once falls out.
//!
//! A bound is a little above what was measured when it was set. A change that goes beyond one makes packets slower; if it is worth that,
//! the bound goes up in the same commit, for all to see.

#![allow(missing_docs, reason = "a program")]

#[path = "line_rate/bench.rs"]
#[allow(dead_code, reason = "of which this uses a part")]
mod bench;
#[path = "line_rate/frames.rs"]
#[allow(dead_code, reason = "of which this uses a part")]
mod frames;
#[path = "line_rate/memory.rs"]
#[allow(dead_code, reason = "of which this uses a part")]
mod memory;
#[path = "line_rate/options.rs"]
#[allow(dead_code, reason = "of which this uses a part")]
mod options;
#[path = "line_rate/peer.rs"]
#[allow(dead_code, reason = "of which this uses a part")]
mod peer;
#[path = "line_rate/setup.rs"]
#[allow(dead_code, reason = "of which this uses a part")]
mod setup;

use bench::Result;
use frames::{Turns, forge};
use memory::{Lane, Rise, Traffic};
use options::Options;
use pdmgate::crypto::{Aead, Kernel};
use pdmgate::dataplane::BURST;
use pdmgate::telemetry::{Counter, Direction};
use peer::Peer;
use setup::{Setup, USUAL_SEARCHES};
use std::process::{Command, ExitCode};

/// A piece of work, and the most instructions that one of its units may take.
struct Work {
    name: &'static str,
    /// What is counted.
    unit: &'static str,
    bound: f64,
    /// Does as many bursts of it.
    run: fn(usize) -> Result<()>,
}

const WORKS: [Work; 6] = [
    Work {
        name: "outgoing",
        unit: "packet, marked and sealed",
        bound: 885.0,
        run: outgoing,
    },
    Work {
        name: "incoming",
        unit: "packet, sealed by a peer, opened, measured and stripped",
        bound: 1_590.0,
        run: incoming,
    },
    Work {
        name: "forged",
        unit: "packet, sealed by a peer, its tag spoilt, searched for and stripped",
        bound: 2_385.0,
        run: forged,
    },
    Work {
        name: "new-flow",
        unit: "packet, the first of its flow",
        bound: 13_630.0,
        run: new_flows,
    },
    Work {
        name: "seal",
        unit: "option",
        bound: 210.0,
        run: seal,
    },
    Work {
        name: "open",
        unit: "option",
        bound: 227.0,
        run: open,
    },
];

/// Flows of packets that are not the first of theirs.
const FLOWS: usize = 1_024;
/// Bursts of a short run and of a long one.
const FEW: usize = 64;
const MANY: usize = 320;
/// Cycles of a second, as far as timers go: any machine's will do.
const HZ: u64 = 2_500_000_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let result = match arguments.iter().position(|argument| argument == "--run") {
        Some(at) => run(&arguments[at + 1..]),
        None => guard(),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does one work: what valgrind looks at.
fn run(arguments: &[String]) -> Result<bool> {
    let [name, bursts, ..] = arguments else {
        return Err("--run wants a work and a number of bursts".into());
    };
    let work = WORKS.iter().find(|work| work.name == *name);
    (work.ok_or("no such work")?.run)(bursts.parse()?)?;
    Ok(true)
}

/// Counts every work; whether all keep to their bounds.
fn guard() -> Result<bool> {
    let mut good = true;
    println!("{:>10} {:>12} {:>8}", "work", "instructions", "bound");
    for work in WORKS {
        let more = count(work.name, MANY)? - count(work.name, FEW)?;
        let each = more as f64 / ((MANY - FEW) * BURST) as f64;
        let verdict = match each {
            _ if each > work.bound => "  TOO MANY",
            _ if each < 0.9 * work.bound => "  (lower the bound)",
            _ => "",
        };
        good &= each <= work.bound;
        println!(
            "{:>10} {each:12.1} {:8.0}  each {}{verdict}",
            work.name, work.bound, work.unit
        );
    }
    Ok(good)
}

/// The instructions of a process that does a work.
fn count(name: &str, bursts: usize) -> Result<i64> {
    let out = tempfile::NamedTempFile::new()?;
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.path().display()))
        .arg(std::env::current_exe()?)
        .args(["--run", name, &bursts.to_string()]);
    let ran = command
        .output()
        .map_err(|error| format!("cannot run valgrind, which counts: {error}"))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        return Err(format!("{name} under valgrind: {}\n{said}", ran.status).into());
    }
    let report = std::fs::read_to_string(out.path())?;
    let total = report
        .lines()
        .find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    total.ok_or_else(|| format!("{name}: no total in what callgrind wrote").into())
}

fn outgoing(bursts: usize) -> Result<()> {
    let setup = setup(FLOWS);
    let shared = memory::appliance(&setup, 1, HZ, false)?;
    let mut lane = Lane::new(&shared, 0)?;
    lane.warm(FLOWS, None, setup.searches, HZ)?;
    let sealed = Rise::of(&shared, Direction::Out, Counter::MarkedSealed);
    lane.outgoing(&Traffic::default(), &mut Turns::scattered(FLOWS), bursts);
    sealed.check(bursts * BURST)
}

fn incoming(bursts: usize) -> Result<()> {
    from_outside(&Traffic::default(), setup(FLOWS), Counter::Opened, bursts)
}

fn forged(bursts: usize) -> Result<()> {
    let traffic = Traffic {
        spoilt: BURST,
        spoil: forge,
        ..Traffic::default()
    };
    let setup = Setup {
        searches: USUAL_SEARCHES,
        ..setup(FLOWS)
    };
    from_outside(&traffic, setup, Counter::OptionsStripped, bursts)
}

/// Packets of flows that have begun; `counter` counts each of them.
fn from_outside(traffic: &Traffic, setup: Setup, counter: Counter, bursts: usize) -> Result<()> {
    let shared = memory::appliance(&setup, 1, HZ, false)?;
    let mut peer = Peer::new(&setup, FLOWS, HZ)?;
    let mut lane = Lane::new(&shared, 0)?;
    lane.warm(FLOWS, Some(&mut peer), setup.searches, HZ)?;
    peer.scatter();
    let counted = Rise::of(&shared, Direction::In, counter);
    lane.incoming(traffic, &mut peer, bursts)?;
    counted.check(bursts * BURST)
}

fn new_flows(bursts: usize) -> Result<()> {
    let flows = bursts * BURST;
    // The same table for few and for many: what it takes to make it must fall out.
    let shared = memory::appliance(&setup(MANY * BURST), 1, HZ, false)?;
    let mut lane = Lane::new(&shared, 0)?;
    let made = Rise::of(&shared, Direction::Out, Counter::FlowsCreated);
    let traffic = Traffic::default();
    lane.outgoing(&traffic, &mut Turns::in_order(flows), bursts);
    made.check(flows)
}

fn setup(flows: usize) -> Setup {
    Setup {
        flows,
        ..Setup::default()
    }
}

fn seal(bursts: usize) -> Result<()> {
    let kernel = Kernel::detect();
    let mut options = Options::new(BURST);
    let mut jobs = options.seal_jobs();
    for _ in 0..bursts {
        kernel.seal(Aead::Aes128Gcm, &mut jobs);
    }
    Ok(())
}

fn open(bursts: usize) -> Result<()> {
    let kernel = Kernel::detect();
    let options = Options::new(BURST);
    let mut jobs = options.open_jobs();
    for _ in 0..bursts {
        kernel.open(Aead::Aes128Gcm, &mut jobs);
    }
    Ok(())
}
