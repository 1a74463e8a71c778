//! DPDK's own test program: what the devices can do when next to nothing is done with a packet.

use crate::bench::{Bench, HARNESS_CORE, Result, TESTED_CORE};
use crate::process::Process;
use std::process::Command;
use std::time::Duration;

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// testpmd, forwarding between two ports on the core under test.
pub struct Testpmd {
    process: Process,
    /// Bytes of its output that were read.
    seen: usize,
}

impl Testpmd {
    /// Starts it between `inside` and `outside`, with as many packet buffers as the appliance. It forwards nothing yet.
    pub fn start(bench: &Bench, inside: &str, outside: &str, mbufs: u32) -> Result<Self> {
        // Line by line: by itself it keeps its answers back until there are many.
        let mut command = Command::new("stdbuf");
        command
            .args(["-oL", "dpdk-testpmd"])
            .args([
                "--lcores",
                &format!("0@{HARNESS_CORE},1@{TESTED_CORE}"),
                "--main-lcore",
                "0",
            ])
            .args(["--in-memory", "--no-pci", "--no-telemetry"])
            .args([format!("--vdev={inside}"), format!("--vdev={outside}")])
            .args([
                "--",
                "-i",
                "--nb-cores=1",
                "--burst=64",
                "--mbcache=256",
                "--rxd=1024",
                "--txd=1024",
            ])
            .arg(format!("--total-num-mbufs={mbufs}"))
            .args([
                "--no-flush-rx",
                "--no-lsc-interrupt",
                "--disable-link-check",
            ]);
        let mut testpmd = Self {
            process: Process::start(bench, "testpmd", &mut command)?,
            seen: 0,
        };
        testpmd.ask(bench, "show port summary all", "Number of available ports")?;
        Ok(testpmd)
    }

    /// Types a command and returns what is printed from then on until after `until` there is an end of line.
    fn ask(&mut self, bench: &Bench, command: &str, until: &str) -> Result<String> {
        self.process.tell(command)?;
        let (process, seen) = (&mut self.process, &mut self.seen);
        bench.wait(
            &format!("answer of testpmd to {command:?}"),
            PATIENCE,
            || {
                let text = process.output()?;
                let new = text.get(*seen..).unwrap_or_default();
                let end = new
                    .find(until)
                    .and_then(|at| Some(at + until.len() + new[at + until.len()..].find('\n')?));
                match end {
                    Some(end) => {
                        let answer = new[..end].to_owned();
                        *seen += end;
                        Ok(Some(answer))
                    }
                    None => process.alive().map(|()| None),
                }
            },
        )
    }

    /// Begins to forward: `io` leaves packets as they are, `macswap` swaps their addresses.
    pub fn forward(&mut self, mode: &str) -> Result<()> {
        self.process.tell(&format!("set fwd {mode}"))?;
        self.process.tell("start")
    }

    /// Stops forwarding; returns what it says then.
    pub fn halt(&mut self, bench: &Bench) -> Result<String> {
        self.ask(bench, "stop", "Done.")
    }

    /// The same; an error if it could not send every packet on.
    fn halt_lossless(&mut self, bench: &Bench) -> Result<String> {
        let answer = self.halt(bench)?;
        let mut dropped = answer
            .split("TX-dropped:")
            .skip(1)
            .filter_map(|rest| rest.split_whitespace().next());
        match dropped.all(|count| count == "0") {
            true => Ok(answer),
            false => Err("testpmd dropped packets at a port that swallows all".into()),
        }
    }

    /// Has it count the cycles that it spends on packets.
    pub fn record_cycles(&mut self) -> Result<()> {
        self.process.tell("set record-core-cycles on")
    }

    /// Stops forwarding; returns the cycles that it spent on a packet.
    pub fn halt_cycles(&mut self, bench: &Bench) -> Result<f64> {
        after(&self.halt_lossless(bench)?, "CPU cycles/packet=")
    }

    /// Packets a second received from port 0, since the last time that this was asked: by its own count and clock.
    fn received(&mut self, bench: &Bench) -> Result<f64> {
        let answer = self.ask(bench, "show port stats 0", "Tx-bps:")?;
        after(&answer, "Rx-pps:")
    }

    /// Forwards for a while, of which the first part does not count; returns packets a second.
    pub fn measure(
        &mut self,
        bench: &Bench,
        mode: &str,
        warm: Duration,
        time: Duration,
    ) -> Result<f64> {
        self.forward(mode)?;
        bench.sleep(warm)?;
        self.received(bench)?;
        bench.sleep(time)?;
        let received = self.received(bench)?;
        self.halt_lossless(bench)?;
        Ok(received)
    }

    /// Ends it.
    pub fn end(mut self, bench: &Bench) -> Result<()> {
        self.process.tell("quit")?;
        self.process.ended(bench)
    }
}

/// The number behind a word.
fn after(text: &str, word: &str) -> Result<f64> {
    let number = text
        .split_once(word)
        .and_then(|(_, rest)| rest.split_whitespace().next());
    Ok(number
        .ok_or_else(|| format!("testpmd does not say {word}"))?
        .parse()?)
}
