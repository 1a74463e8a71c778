//! `make bench`: how fast the appliance is, beside DPDK's own test programs on the same devices and traffic.
//!
//! ```text
//! part        what runs                                            the yardstick in the same run
//! outgoing    pdmgate, traffic from net_pcap                       testpmd macswap and io
//! incoming    pdmgate, options sealed beforehand, over net_memif   testpmd macswap, same generator
//! million     the worker's loop between net_rings, both ways       65,536 flows
//! latency     pdmgate between two net_memif, paced                 testpmd macswap, same generator
//! workers     two workers' stages on plain memory, one table       one worker
//! new-flows   a worker's stages, each packet of a new flow
//! crypto      seal and open                                        ring, dpdk-test-crypto-perf
//! micro       look-up, insert, parse, derive
//! curves      stages by flows, size, shares, rotation
//! ```
//!
//! Programs that are compared run in turn on the same core, again and again, so that a change of the machine's clock or load meets them
//! alike; a result is the median of those rounds. The report says what was reached and what was not.

mod bench;
mod crypto;
mod curves;
mod frames;
mod gate;
mod generator;
mod incoming;
mod latency;
mod machine;
mod memory;
mod micro;
mod million;
mod options;
mod outgoing;
mod peer;
mod plot;
mod process;
mod report;
mod rig;
mod samples;
mod setup;
mod targets;
mod testpmd;
mod workers;

use bench::{Bench, Result};
use clap::{Parser, Subcommand, ValueEnum};
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures pdmgate and writes report.md, report.json and curves.
#[derive(Parser)]
struct Args {
    /// Only these parts; all of them by default.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Short runs that show whether everything works; their numbers mean nothing.
    #[arg(long)]
    quick: bool,
    /// Where the report goes.
    #[arg(long, default_value = "perf")]
    out: PathBuf,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// Processes of the harness's own: DPDK starts once in a process.
#[derive(Subcommand)]
#[command(hide = true)]
enum Role {
    /// Sends packets to a program under test.
    Generate(generator::Spec),
    /// Carries packets of a million flows between rings.
    Million(million::Spec),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Mark and seal, against testpmd.
    Outgoing,
    /// Open, measure and strip, against testpmd.
    Incoming,
    /// Both directions with 1,048,576 flows.
    Million,
    /// Zero-loss rate and added latency.
    Latency,
    /// Two workers against one.
    Workers,
    /// New flows a second.
    NewFlows,
    /// Seal and open, against ring and DPDK's driver.
    Crypto,
    /// Single steps.
    Micro,
    /// Cycles as work grows.
    Curves,
}

impl Part {
    fn run(self, bench: &Bench, report: &mut Report) -> Result<()> {
        match self {
            Self::Outgoing => outgoing::run(bench, report),
            Self::Incoming => incoming::run(bench, report),
            Self::Million => million::run(bench, report),
            Self::Latency => latency::run(bench, report),
            Self::Workers => workers::workers(bench, report),
            Self::NewFlows => workers::new_flows(bench, report),
            Self::Crypto => crypto::run(bench, report),
            Self::Micro => micro::run(bench, report),
            Self::Curves => curves::run(bench, report),
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.role {
        Some(Role::Generate(spec)) => generator::run(spec),
        Some(Role::Million(spec)) => million::process(spec),
        None => measure(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<()> {
    let bench = Bench::new(args.quick)?;
    machine::check()?;
    frames::check()?;
    let mut report = Report::new(args.quick)?;
    // Not before the cores were counted. Programs inherit it, and pin their workers themselves.
    core_affinity::set_for_current(core_affinity::CoreId {
        id: bench::HARNESS_CORE,
    });
    let parts = match &args.only[..] {
        [] => Part::value_variants(),
        only => only,
    };
    let mut failed = Vec::new();
    for part in parts {
        let name = part
            .to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned());
        bench.say(&format!("== {name}"));
        if let Err(error) = part.run(&bench, &mut report) {
            if bench.interrupted() {
                return Err(error);
            }
            bench.say(&format!("{name} failed: {error}"));
            report.failed(&name, &error.to_string());
            failed.push(name);
        }
    }
    report.commands = bench.commands();
    report.write(&args.out)?;
    bench.say(&format!("wrote {}", args.out.join("report.md").display()));
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("these parts failed: {}", failed.join(", ")).into()),
    }
}
