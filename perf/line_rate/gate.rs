//! The appliance under test: a real process, with every feature on.

use crate::bench::{Bench, Result};
use crate::process::Process;
use crate::setup::Setup;
use pdmgate::telemetry::client::Client;
use pdmgate::telemetry::records::CounterTree;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// Packets that may be in hand between two counters: a few bursts.
const IN_HAND: f64 = 1_024.0;

/// The appliance, its worker on the core under test.
pub struct Gate {
    process: Process,
    client: Client,
}

/// Its counters, by path, and when they were read.
pub struct Counters {
    numbers: Vec<(String, u64)>,
    flows: u64,
    busy_cycles: u64,
    at: Instant,
}

impl Gate {
    /// Starts it.
    pub fn start(bench: &Bench, setup: &Setup) -> Result<Self> {
        let file = bench.dir().join("gate.yaml");
        fs::write(&file, setup.yaml(bench.dir()))?;
        // Another appliance's generations would be searched for otherwise.
        let _ = fs::remove_file(bench.dir().join("state.json"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_pdmgate"));
        command.arg("run").arg(&file);
        let mut gate = Self {
            process: Process::start(bench, "pdmgate", &mut command)?,
            client: Client::new(&bench.dir().join("gate.sock"))?,
        };
        bench.wait("answer of pdmgate", PATIENCE, || {
            gate.process.alive()?;
            Ok(gate.client.stats().ok())
        })?;
        Ok(gate)
    }

    /// Reads all counters.
    pub fn counters(&self) -> Result<Counters> {
        let asked = Instant::now();
        let stats = self.client.stats()?;
        let at = asked + asked.elapsed() / 2;
        Ok(Counters {
            numbers: numbers(&stats.counters),
            flows: stats.flows.in_use,
            busy_cycles: stats.workers.iter().map(|worker| worker.busy_cycles).sum(),
            at,
        })
    }

    /// Waits until there are that many flows.
    pub fn warm(&mut self, bench: &Bench, flows: usize) -> Result<()> {
        bench.wait("flows", PATIENCE, || {
            self.process.alive()?;
            Ok((self.counters()?.flows >= flows as u64).then_some(()))
        })
    }

    /// Runs for a while, of which the first part does not count; returns packets received in a second. Every one of them has to raise
    /// `done`, the counter of what becomes of an honest packet.
    pub fn measure(
        &self,
        bench: &Bench,
        direction: &str,
        done: &str,
        warm: Duration,
        time: Duration,
    ) -> Result<f64> {
        self.resume();
        bench.sleep(warm)?;
        let before = self.counters()?;
        bench.sleep(time)?;
        let after = self.counters()?;
        self.pause();
        let received = after.all_done_since(&before, direction, done)?;
        Ok(received / after.seconds_since(&before))
    }

    /// Lets it run.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Ends it.
    pub fn end(self, bench: &Bench) -> Result<()> {
        self.process.end(bench)
    }

    /// Takes it off its core.
    pub fn pause(&self) {
        self.process.pause();
    }
}

impl Counters {
    /// What a counter rose by.
    pub fn since(&self, before: &Self, name: &str) -> f64 {
        let get = |counters: &Self| {
            let found = counters.numbers.iter().find(|(path, _)| path == name);
            found.map_or(0, |(_, n)| *n)
        };
        get(self).wrapping_sub(get(before)) as f64
    }

    /// Seconds since `before`.
    pub fn seconds_since(&self, before: &Self) -> f64 {
        self.at.duration_since(before.at).as_secs_f64()
    }

    /// Cycles of turns of the worker's loop that found packets.
    pub fn busy_cycles_since(&self, before: &Self) -> u64 {
        self.busy_cycles.wrapping_sub(before.busy_cycles)
    }

    /// Packets of a direction since `before`, if all of them raised `done`.
    pub fn all_done_since(&self, before: &Self, direction: &str, done: &str) -> Result<f64> {
        let received = self.since(before, &format!("packets_received.{direction}"));
        let finished = self.since(before, done);
        if received == 0.0 {
            return Err("pdmgate received nothing".into());
        }
        if (received - finished).abs() > IN_HAND {
            let raised = self
                .numbers
                .iter()
                .map(|(name, _)| (name, self.since(before, name)));
            let raised = raised.filter(|(name, n)| *n > 0.0 && !name.starts_with("bytes"));
            let raised: Vec<String> = raised.map(|(name, n)| format!("{name} {n}")).collect();
            return Err(format!("not every packet was {done}: {}", raised.join(", ")).into());
        }
        Ok(received)
    }
}

fn numbers(tree: &CounterTree) -> Vec<(String, u64)> {
    tree.leaves()
        .into_iter()
        .map(|(path, n)| (path.join("."), n))
        .collect()
}
