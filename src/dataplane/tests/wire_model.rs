//! A wire between two data planes in one process, with faults of a known seed and a log of what it did.

use std::collections::{BTreeMap, HashSet};

/// xorshift64: faults have to be the same at every run.
pub struct Dice(pub u64);

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

/// How a direction of the wire treats packets: percentages, and a delay in nanoseconds.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub lose: u64,
    pub duplicate: u64,
    pub reorder: u64,
    pub corrupt: u64,
    pub delay: u64,
}

/// One direction.
pub struct Line {
    pub faults: Faults,
    dice: Dice,
    /// By time of arrival, then order of sending: the packet's number, whether it is whole, its bytes.
    in_flight: BTreeMap<(u64, u64), (u64, bool, Vec<u8>)>,
    sent: u64,
    /// Everything that was put in, as it was.
    pub log: Vec<Vec<u8>>,
    /// Numbers of the packets in the order in which they came out whole, duplicates included.
    arrived: Vec<u64>,
}

impl Line {
    pub fn new(faults: Faults, seed: u64) -> Self {
        Self {
            faults,
            dice: Dice(seed),
            in_flight: BTreeMap::new(),
            sent: 0,
            log: Vec::new(),
            arrived: Vec::new(),
        }
    }

    pub fn send(&mut self, packets: Vec<Vec<u8>>, now: u64) {
        for packet in packets {
            let number = self.log.len() as u64;
            self.log.push(packet.clone());
            self.carry(number, packet, now);
        }
    }

    fn carry(&mut self, number: u64, mut packet: Vec<u8>, now: u64) {
        let f = self.faults;
        if self.dice.percent(f.lose) {
            return;
        }
        let corrupt = self.dice.percent(f.corrupt);
        if corrupt {
            // Anywhere from the option's first byte to its last one.
            let at = 14 + 40 + 4 + self.dice.roll(36) as usize;
            packet[at] ^= 1 << self.dice.roll(8);
        }
        let late = match self.dice.percent(f.reorder) {
            true => 1 + self.dice.roll(20),
            false => 0,
        };
        let copies = 1 + u64::from(self.dice.percent(f.duplicate));
        for copy in 0..copies {
            let due = now + f.delay + (late + 3 * copy) * 10_000;
            self.sent += 1;
            self.in_flight
                .insert((due, self.sent), (number, !corrupt, packet.clone()));
        }
    }

    /// The packets due by `now`.
    pub fn deliver(&mut self, now: u64) -> Vec<Vec<u8>> {
        let later = self.in_flight.split_off(&(now + 1, 0));
        std::mem::replace(&mut self.in_flight, later)
            .into_values()
            .map(|(number, whole, packet)| {
                if whole {
                    self.arrived.push(number);
                }
                packet
            })
            .collect()
    }

    /// Forgets what was sent; to be called when nothing is in flight.
    pub fn forget(&mut self) {
        assert!(self.in_flight.is_empty());
        self.log.clear();
        self.arrived.clear();
    }

    /// Received, lost and reordered among the packets that came out whole, as a receiver of their numbers must count them.
    pub fn truth(&self) -> (u64, u64, u64) {
        let mut seen = HashSet::new();
        let (mut top, mut reordered) = (None, 0);
        for &n in self.arrived.iter() {
            if seen.insert(n) {
                reordered += u64::from(top.is_some_and(|t| n < t));
                top = top.max(Some(n));
            }
        }
        let lowest = seen.iter().min().copied().unwrap_or(0);
        let span = top.map_or(0, |t| t - lowest + 1);
        (seen.len() as u64, span - seen.len() as u64, reordered)
    }
}
