//! An appliance without devices: its data plane, its state and what the management core does for it, on a clock of 1 GHz.

use super::super::{Clock, Fate, Shared, View, Worker};
use crate::config::Config;
use crate::crypto::Kernel;
use crate::flow::{Ageing, FlowTable, Publisher};
use crate::snapshot::{Grant, Inputs, Lesson, Snapshot, State};
use crate::telemetry::{Counter, Direction, Telemetry, Totals};
use crate::wire::{PacketBuf, VecBuf};
use std::path::Path;
use std::sync::Arc;

pub const HZ: u64 = 1_000_000_000;
pub const MS: u64 = 1_000_000;
pub const WORKERS: usize = 2;

/// What of the configuration tests vary.
#[derive(Clone)]
pub struct Setup {
    pub mode: &'static str,
    pub protection: &'static str,
    pub aead: &'static str,
    pub pms: u8,
    pub policy: &'static str,
    pub rotation: &'static str,
    pub clients: &'static str,
    pub servers: &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            mode: "trusted-servers",
            protection: "sealed",
            aead: "aes-128-gcm",
            pms: 7,
            policy: "{}",
            rotation: "{ packets: 1000 }",
            clients: "[ { prefix: \"2001:db8:1::/64\" } ]",
            servers: "[ { prefix: \"2001:db8:2::/64\", group: web } ]",
        }
    }
}

impl Setup {
    pub fn config(&self) -> Config {
        let text = format!(
            "ports: {{ inside: {{ device: net_null0 }}, outside: {{ device: net_null1 }} }}\n\
             policy: {}\nrotation: {}\nflows: {{ capacity: 1024, idle_timeout: 1s }}\n\
             pairings:\n  - name: lab\n    mode: {}\n    protection: {}\n    suite: {{ aead: {} }}\n\
             \x20   salt: {}\n    pms: {}\n    clients: {}\n    servers: {}\n",
            self.policy,
            self.rotation,
            self.mode,
            self.protection,
            self.aead,
            "5a".repeat(32),
            format!("{:02x}", self.pms).repeat(32),
            self.clients,
            self.servers,
        );
        Config::parse(&text, Path::new("lab.yaml")).unwrap()
    }
}

/// Makes what a gate borrows. A restart makes it anew, from the same state.
pub fn boot(setup: &Setup, state: &mut State) -> Shared {
    boot_with(&setup.config(), &[], state)
}

/// Makes what the gates of both ends borrow, each with a state of its own.
pub fn boot_both(setup: &Setup) -> (Shared, Shared) {
    let new = || boot(setup, &mut State::in_memory());
    (new(), new())
}

/// [`boot`] with grants.
pub fn boot_with(config: &Config, grants: &[Arc<Grant>], state: &mut State) -> Shared {
    let snapshot = Snapshot::build(
        config,
        grants,
        state,
        Inputs {
            previous: None,
            serial: 1,
            tsc_hz: HZ,
            new_era: false,
        },
    )
    .unwrap();
    let telemetry = Telemetry::new(WORKERS);
    let view = View::new(snapshot, &telemetry).unwrap();
    let table = FlowTable::new(1_024, [11, 22], false).unwrap();
    Shared::new(telemetry, table, view, Kernel::detect(), Clock::new(HZ))
}

/// Which worker gets a packet: the same one for both directions of a pair of addresses.
fn worker_of(packet: &[u8]) -> usize {
    let addresses = packet.get(22..54).unwrap_or_default();
    addresses
        .iter()
        .map(|byte| usize::from(*byte))
        .sum::<usize>()
        % WORKERS
}

/// A running appliance.
pub struct Gate<'s> {
    pub shared: &'s Shared,
    pub workers: Vec<Worker<'s>>,
    publisher: Publisher<'s, View>,
    ageing: Ageing<'s>,
}

impl<'s> Gate<'s> {
    pub fn new(shared: &'s Shared) -> Self {
        Self {
            shared,
            workers: (0..WORKERS)
                .map(|w| Worker::new(shared, w, 77 + w as u64, 0).unwrap())
                .collect(),
            publisher: Publisher::new(&shared.view),
            ageing: Ageing::new(&shared.table),
        }
    }

    /// Pushes packets through in bursts, each flow's to one worker, as a network card would; returns those that go on.
    pub fn pass(&mut self, direction: Direction, packets: &[Vec<u8>], now: u64) -> Vec<Vec<u8>> {
        let mut passed = Vec::new();
        for chunk in packets.chunks(24) {
            let mut left = vec![None; chunk.len()];
            for worker in 0..WORKERS {
                let (places, burst): (Vec<_>, Vec<_>) = chunk
                    .iter()
                    .enumerate()
                    .filter(|(_, packet)| worker_of(packet) == worker)
                    .map(|(at, packet)| (at, packet.clone()))
                    .unzip();
                let burst = self.burst(worker, direction, &burst, now);
                places
                    .iter()
                    .zip(burst)
                    .for_each(|(at, packet)| left[*at] = packet);
            }
            passed.extend(left.into_iter().flatten());
        }
        passed
    }

    /// Hands a worker one burst; returns what becomes of each packet, and `None` for those that do not go on.
    pub fn burst(
        &mut self,
        worker: usize,
        direction: Direction,
        packets: &[Vec<u8>],
        now: u64,
    ) -> Vec<Option<Vec<u8>>> {
        let mut burst: Vec<VecBuf> = packets.iter().map(|p| VecBuf::new(p)).collect();
        let worker = &mut self.workers[worker];
        let fates = match direction {
            Direction::Out => worker.outbound(&mut burst, now),
            Direction::In => worker.inbound(&mut burst, now),
        };
        let goes_on = |at: usize| fates.get(at) == Fate::Forward;
        let left = burst
            .iter()
            .enumerate()
            .map(|(at, buf)| goes_on(at).then(|| buf.data().to_vec()))
            .collect();
        // As the poll loop does when it finds nothing.
        self.workers.iter_mut().for_each(Worker::quiesce);
        left
    }

    /// What the management core does every now and then.
    pub fn manage(&mut self, setup: &Setup, state: &mut State, now: u64) {
        let lessons: Vec<Lesson> = self.publisher.current().snapshot.lessons().collect();
        if state.learn(&lessons).unwrap() {
            self.reload(setup, state, false);
        }
        self.collect(now);
    }

    pub fn reload(&mut self, setup: &Setup, state: &mut State, new_era: bool) {
        self.publish(&setup.config(), &[], state, new_era);
    }

    /// Puts a new snapshot in force; in a new era the floors start over.
    pub fn publish(
        &mut self,
        config: &Config,
        grants: &[Arc<Grant>],
        state: &mut State,
        new_era: bool,
    ) {
        let current = &self.publisher.current().snapshot;
        let inputs = Inputs {
            previous: Some(current),
            serial: current.serial + 1,
            tsc_hz: HZ,
            new_era,
        };
        let snapshot = Snapshot::build(config, grants, state, inputs).unwrap();
        let view = View::new(snapshot, &self.shared.telemetry).unwrap();
        self.publisher
            .publish(Box::new(view), &self.shared.quiescence);
    }

    /// Frees what no worker sees any more, and lets flows age.
    pub fn collect(&mut self, now: u64) -> bool {
        let mut reader = self
            .shared
            .quiescence
            .reader(self.shared.management_reader())
            .unwrap();
        self.ageing.step(&reader.pin(), now, HZ, 1_024);
        drop(reader);
        self.publisher.collect(&self.shared.quiescence)
    }

    /// The snapshot in force.
    pub fn snapshot(&self) -> &Snapshot {
        &self.publisher.current().snapshot
    }

    pub fn count(&self, direction: Direction, counter: Counter) -> u64 {
        Totals::over(self.shared.telemetry.workers.iter().map(AsRef::as_ref))
            .get(direction, counter)
    }

    /// Looks at the flow of host `n` of the lab.
    pub fn flow<T>(
        &self,
        tuple: &crate::wire::FiveTuple,
        look: impl Fn(&crate::flow::Entry) -> T,
    ) -> Option<T> {
        let mut reader = self
            .shared
            .quiescence
            .reader(self.shared.management_reader())
            .unwrap();
        let pin = reader.pin();
        let hash = self.shared.table.hasher().hash(tuple);
        self.shared.table.find(hash, tuple, &pin).map(look)
    }
}

/// A UDP datagram with `number` in its payload.
pub fn datagram(t: &crate::wire::FiveTuple, number: u32) -> Vec<u8> {
    let mut p = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
    p.extend([0x60, 0, 0, 0, 0, 24, t.protocol, 64]);
    p.extend(t.src);
    p.extend(t.dst);
    p.extend(t.sport.to_be_bytes());
    p.extend(t.dport.to_be_bytes());
    p.extend([0, 24, 0xbe, 0xef]);
    p.extend(number.to_be_bytes());
    p.extend([0xaa; 12]);
    p
}

/// The number in a datagram, wherever an option left it.
pub fn number_of(packet: &[u8]) -> u32 {
    let at = packet.len() - 16;
    u32::from_be_bytes(packet[at..at + 4].try_into().unwrap())
}
