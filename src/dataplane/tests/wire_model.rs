//! A wire between two data planes in one process, with faults of a known seed and a log of what it did.

use super::super::Fate;
use super::lab::Gate;
use crate::wire::{PacketBuf, VecBuf};
use std::collections::BTreeMap;

/// xorshift64: faults have to be the same at every run.
pub(super) struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }
}

/// How a direction of the wire treats packets: percentages, and a delay in cycles.
#[derive(Clone, Copy, Default)]
pub(super) struct Faults {
    pub lose: u64,
    pub duplicate: u64,
    pub reorder: u64,
    pub corrupt: u64,
    pub delay: u64,
}

/// What became of a packet sent, by its number on this wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treated {
    Delivered,
    Lost,
    Corrupted,
}

/// One direction.
pub(super) struct Line {
    pub faults: Faults,
    dice: Dice,
    /// By time of arrival, then order of sending.
    in_flight: BTreeMap<(u64, u64), (u64, Vec<u8>)>,
    sent: u64,
    /// Everything that was put in, as it was.
    pub log: Vec<Vec<u8>>,
    pub treated: Vec<Treated>,
    /// Numbers of the packets in the order in which they came out whole, duplicates included.
    pub arrived: Vec<u64>,
}

impl Line {
    pub fn new(faults: Faults, seed: u64) -> Self {
        Self {
            faults,
            dice: Dice(seed),
            in_flight: BTreeMap::new(),
            sent: 0,
            log: Vec::new(),
            treated: Vec::new(),
            arrived: Vec::new(),
        }
    }

    pub fn send(&mut self, packet: &[u8], now: u64) {
        let number = self.log.len() as u64;
        self.log.push(packet.to_vec());
        let f = self.faults;
        if self.dice.percent(f.lose) {
            self.treated.push(Treated::Lost);
            return;
        }
        let mut bytes = packet.to_vec();
        let corrupted = self.dice.percent(f.corrupt);
        if corrupted {
            // Anywhere from the option's first byte to its last one.
            let at = 14 + 40 + 4 + self.dice.roll(36) as usize;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << self.dice.roll(8);
            }
        }
        self.treated.push(if corrupted {
            Treated::Corrupted
        } else {
            Treated::Delivered
        });
        let late = if self.dice.percent(f.reorder) {
            1 + self.dice.roll(20)
        } else {
            0
        };
        let copies = 1 + u64::from(self.dice.percent(f.duplicate));
        for copy in 0..copies {
            // A place in the queue is one microsecond at a gigahertz.
            let due = now + f.delay + (late + 3 * copy) * 1_000;
            self.sent += 1;
            self.in_flight
                .insert((due, self.sent), (number, bytes.clone()));
        }
    }

    /// The packets due by `now`.
    pub fn deliver(&mut self, now: u64) -> Vec<Vec<u8>> {
        let later = self.in_flight.split_off(&(now + 1, 0));
        std::mem::replace(&mut self.in_flight, later)
            .into_values()
            .map(|(number, bytes)| {
                if self.treated[number as usize] == Treated::Delivered {
                    self.arrived.push(number);
                }
                bytes
            })
            .collect()
    }

    /// Loss and reordering among the packets that came out whole, as a receiver of their numbers must see it.
    pub fn truth(&self) -> (u64, u64, u64) {
        let mut seen = std::collections::HashSet::new();
        let (mut top, mut reordered) = (None, 0);
        for &n in &self.arrived {
            if !seen.insert(n) {
                continue;
            }
            if top.is_some_and(|t| n < t) {
                reordered += 1;
            }
            top = top.max(Some(n));
        }
        let lowest = seen.iter().min().copied().unwrap_or(0);
        let span = top.map_or(0, |t| t - lowest + 1);
        (seen.len() as u64, span - seen.len() as u64, reordered)
    }
}

/// Pushes packets through one side of a gate, in bursts, and returns those that go on.
pub(super) fn through(gate: &mut Gate<'_>, out: bool, packets: Vec<Vec<u8>>, now: u64) -> Vec<Vec<u8>> {
    let mut passed = Vec::new();
    for chunk in packets.chunks(32) {
        let mut burst: Vec<VecBuf> = chunk.iter().map(|p| VecBuf::new(p)).collect();
        let fates = if out {
            gate.worker.outbound(&mut burst, now)
        } else {
            gate.worker.inbound(&mut burst, now)
        };
        for (at, buf) in burst.iter().enumerate() {
            if fates.get(at) == Fate::Forward {
                passed.push(buf.data().to_vec());
            }
        }
    }
    passed
}
