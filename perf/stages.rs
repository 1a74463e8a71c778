//! What the workers' stages cost in cycles a packet, on plain memory and without a device: `cargo bench --bench stages`.
//!
//! Two appliances stand in one process. In each round the first marks and seals one packet of every flow, and the second opens, checks,
//! measures and strips what came out; both are timed a burst at a time, and what brings the packets to the burst is not. Flows are met in
//! the order of their numbers, but their addresses and the table's hash scatter them over memory. A line is the median of its rounds.

#![allow(unsafe_code)]

use clap::Parser;
use pdmgate::config::Config;
use pdmgate::crypto::Kernel;
use pdmgate::dataplane::{BURST, Clock, Shared, View, Worker};
use pdmgate::flow::FlowTable;
use pdmgate::snapshot::{Inputs, Snapshot, State};
use pdmgate::telemetry::{Counter, Direction, Telemetry, Totals};
use pdmgate::wire::{NoHeadroom, NoTailroom, PacketBuf};
use std::path::Path;

/// Bytes of a frame before it is marked: the least that the issue of line rate is about.
const FRAME: usize = 80;
/// Bytes that a sealed option adds to a frame without options.
const GROWTH: usize = 40;
/// TSC cycles of a second; only conversions depend on it.
const HZ: u64 = 2_450_000_000;

#[derive(Parser)]
struct Args {
    /// Flows, each a line
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4_096, 65_536, 1_048_576])]
    flows: Vec<usize>,
    /// Packets that a line is measured with, at least
    #[arg(long, default_value_t = 4_000_000)]
    packets: usize,
    /// AEAD: aes-128-gcm, aes-256-gcm or chacha20-poly1305
    #[arg(long, default_value = "aes-128-gcm")]
    aead: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// What cargo passes
    #[arg(long, hide = true)]
    bench: bool,
}

/// The processor's time-stamp counter.
fn tsc() -> u64 {
    // SAFETY: every x86-64 processor has RDTSC, and it touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// A packet in memory laid out as an mbuf's data room is.
#[derive(Clone)]
#[repr(align(64))]
struct Slot {
    memory: [u8; 384],
    start: usize,
    len: usize,
}

impl Slot {
    const HEADROOM: usize = 128;

    fn new() -> Self {
        Self {
            memory: [0; 384],
            start: Self::HEADROOM,
            len: 0,
        }
    }

    fn fill(&mut self, frame: &[u8]) {
        self.start = Self::HEADROOM;
        self.len = frame.len();
        self.memory[self.start..self.start + self.len].copy_from_slice(frame);
    }
}

impl PacketBuf for Slot {
    fn data(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }

    fn prepend(&mut self, n: usize) -> Result<(), NoHeadroom> {
        self.start = self.start.checked_sub(n).ok_or(NoHeadroom { wanted: n })?;
        self.len += n;
        Ok(())
    }

    fn trim_front(&mut self, n: usize) {
        let n = n.min(self.len);
        self.start += n;
        self.len -= n;
    }

    fn resize(&mut self, len: usize) -> Result<(), NoTailroom> {
        if self.start + len > self.memory.len() {
            return Err(NoTailroom { wanted: len });
        }
        self.len = len;
        Ok(())
    }
}

fn config(served_by_client: bool, aead: &str, capacity: usize) -> Config {
    let (inside, outside) = if served_by_client { (0, 1) } else { (1, 0) };
    let text = format!(
        "ports: {{ inside: {{ device: net_null{inside} }}, outside: {{ device: net_null{outside} }} }}\n\
         flows: {{ capacity: {capacity} }}\nreceiver: {{ search_per_second: 100000000 }}\n\
         pairings:\n  - name: bench\n    mode: trusted-servers\n    protection: sealed\n    suite: {{ aead: {aead} }}\n\
         \x20   salt: {}\n    pms: {}\n    clients: [ {{ prefix: \"2001:db8:1::/64\" }} ]\n\
         \x20   servers: [ {{ prefix: \"2001:db8:2::/64\", group: web }} ]\n",
        "5a".repeat(32),
        "07".repeat(32),
    );
    Config::parse(&text, Path::new("bench.yaml")).expect("a configuration that parses")
}

fn boot(config: &Config, capacity: usize) -> Shared {
    let inputs = Inputs {
        previous: None,
        serial: 1,
        tsc_hz: HZ,
        new_era: false,
    };
    let snapshot = Snapshot::build(config, &[], &mut State::in_memory(), inputs)
        .expect("a snapshot of a good configuration");
    let telemetry = Telemetry::new(1);
    let view = View::new(snapshot, &telemetry).expect("one pairing");
    let table = FlowTable::new(capacity, [11, 22], true).expect("memory for the flows");
    Shared::new(telemetry, table, view, Kernel::detect(), Clock::new(HZ))
}

fn frame(flow: usize) -> [u8; FRAME] {
    let mut f = [0xaa; FRAME];
    f[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd]);
    let payload = (FRAME - 54) as u16;
    f[14..22].copy_from_slice(&[0x60, 0, 0, 0, 0, payload as u8, 17, 64]);
    let mut address = [0u8; 16];
    address[..6].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8, 0, 1]);
    address[12..].copy_from_slice(&(flow as u32 / 50_000).to_be_bytes());
    f[22..38].copy_from_slice(&address);
    address[5] = 2;
    f[38..54].copy_from_slice(&address);
    let port = (1_024 + flow % 50_000) as u16;
    f[54..56].copy_from_slice(&port.to_be_bytes());
    f[56..58].copy_from_slice(&443u16.to_be_bytes());
    f[58..60].copy_from_slice(&payload.to_be_bytes());
    f
}

/// One line's rounds, in cycles a packet.
struct Line {
    flows: usize,
    outbound: f64,
    inbound: f64,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn measure(flows: usize, args: &Args) -> Line {
    let capacity = flows.next_power_of_two().max(1_024);
    let near = boot(&config(true, &args.aead, capacity), capacity);
    let far = boot(&config(false, &args.aead, capacity), capacity);
    let mut sender = Worker::new(&near, 0, 7, tsc()).expect("a worker");
    let mut receiver = Worker::new(&far, 0, 9, tsc()).expect("a worker");
    let per_round = flows.max(16 * BURST).next_multiple_of(BURST);
    let frames: Vec<_> = (0..per_round).map(|n| frame(n % flows)).collect();
    let mut sealed = vec![[0; FRAME + GROWTH]; per_round];
    let mut slots = vec![Slot::new(); BURST];
    // Every eighth round goes the other way, untimed, so that there is something to say of received packets. Two rounds warm up.
    let rounds = (args.packets / per_round).max(5) + 2;
    let (mut outbound, mut inbound) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut cycles = 0;
        for (from, to) in frames.chunks(BURST).zip(sealed.chunks_mut(BURST)) {
            for (slot, frame) in slots.iter_mut().zip(from) {
                slot.fill(frame);
            }
            let start = tsc();
            let fates = sender.outbound(&mut slots, start);
            cycles += tsc() - start;
            assert!(fates.all_forward());
            for (slot, sealed) in slots.iter().zip(to) {
                sealed.copy_from_slice(slot.data());
            }
        }
        outbound.push(cycles as f64 / per_round as f64);
        let mut cycles = 0;
        for from in sealed.chunks(BURST) {
            for (slot, frame) in slots.iter_mut().zip(from) {
                slot.fill(frame);
            }
            let start = tsc();
            receiver.inbound(&mut slots, start);
            cycles += tsc() - start;
        }
        inbound.push(cycles as f64 / per_round as f64);
    }
    let packets = (rounds * per_round) as u64;
    let count = |shared: &Shared, direction, counter| {
        Totals::over(shared.telemetry.workers.iter().map(AsRef::as_ref)).get(direction, counter)
    };
    assert_eq!(
        count(&near, Direction::Out, Counter::MarkedSealed),
        packets,
        "every packet is sealed"
    );
    let fates: Vec<_> = Counter::ALL
        .iter()
        .map(|&counter| (counter, count(&far, Direction::In, counter)))
        .filter(|(_, n)| *n > 0)
        .collect();
    assert_eq!(
        count(&far, Direction::In, Counter::Opened),
        packets,
        "and opened: {fates:?}"
    );
    Line {
        flows,
        outbound: median(outbound.split_off(2)),
        inbound: median(inbound.split_off(2)),
    }
}

fn main() {
    let args = Args::parse();
    let lines: Vec<_> = args
        .flows
        .iter()
        .map(|&flows| measure(flows, &args))
        .collect();
    if args.json {
        let lines: Vec<_> = lines
            .iter()
            .map(|l| serde_json::json!({ "flows": l.flows, "outbound": l.outbound, "inbound": l.inbound }))
            .collect();
        println!("{}", serde_json::Value::from(lines));
        return;
    }
    println!("cycles a packet, {}", args.aead);
    println!("{:>9} {:>9} {:>9}", "flows", "outbound", "inbound");
    for l in lines {
        println!("{:>9} {:>9.1} {:>9.1}", l.flows, l.outbound, l.inbound);
    }
}
