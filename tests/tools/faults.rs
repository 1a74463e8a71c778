//! One direction of the wire: what befalls each packet, when it is due at the other end, and the truth about it, told as a
//! receiver that numbers a flow's packets has to see it.
//!
//! What befalls packet n of a direction depends only on the seed, the direction and n, and one packet suffers one fault at
//! most, so that each share is exactly what was asked for and a run can be repeated.

use crate::frame::{self, Flow, Found, SEALED_OPTION};
use crate::random::Random;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

/// A packet held back to be overtaken goes on after this long if nothing came to overtake it.
const HOLD: Duration = Duration::from_millis(20);
/// Bytes of an option in front of its sealed part: type, length, version, PRSEQ and F.
const OPTION_HEADER: usize = 6;

/// Where a corrupted packet is changed, by one bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Spot {
    /// Anywhere behind the Ethernet addresses
    Frame,
    /// In the sealed metrics or their tag, so that exactly the opening fails (packets without them stay whole)
    Option,
}

/// What may befall packets.
#[derive(Args, Clone, Debug)]
pub struct Faults {
    /// Share of packets that are lost, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    pub loss: f64,
    /// Share of packets that arrive twice
    #[arg(long, default_value_t = 0.0)]
    pub duplicate: f64,
    /// Share of packets that are overtaken by those behind them
    #[arg(long, default_value_t = 0.0)]
    pub reorder: f64,
    /// Share of packets in which one bit is flipped
    #[arg(long, default_value_t = 0.0)]
    pub corrupt: f64,
    /// Where that bit is
    #[arg(long, value_enum, default_value_t = Spot::Frame)]
    pub corrupt_at: Spot,
    /// How many packets overtake at most
    #[arg(long, default_value_t = 3)]
    pub reorder_by: u64,
    /// Time a packet spends on the wire, each way
    #[arg(long, default_value = "0ms", value_parser = crate::duration)]
    pub delay: Duration,
    /// Up to this much is added to the delay of each packet, at random
    #[arg(long, default_value = "0ms", value_parser = crate::duration)]
    pub jitter: Duration,
    /// Seed of all that is random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Only touch packets that carry a PDM or PDMv2 option; all others are delayed and nothing else
    #[arg(long)]
    pub only_marked: bool,
    /// Leave the first packets of each flow alone
    #[arg(long, default_value_t = 0)]
    pub spare: u64,
    /// IPv6 option type that makes a packet a marked one
    #[arg(long, default_value_t = 0x0f)]
    pub option_type: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Whole,
    Lost,
    Twice,
    Overtaken,
    Spoiled,
}

/// What a packet on the wire is to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    Original,
    Copy,
    Spoiled,
}

/// A packet on the wire.
#[derive(Debug)]
pub struct Packet {
    /// The frame as it will leave.
    pub frame: Vec<u8>,
    /// When its way began: its arrival, or that of the packet that overtook it.
    arrived: Instant,
    numbered: Option<(Flow, u64)>,
    nature: Nature,
}

/// What a flow's receiver has to see.
#[derive(Default)]
struct Truth {
    taken: u64,
    first: Option<u64>,
    newest: Option<u64>,
    reordered: u64,
    copies: u64,
    spoiled: u64,
    /// Numbers that never arrived whole.
    missing: Vec<u64>,
}

#[derive(Default)]
struct Counts {
    received: u64,
    passed: u64,
    touched: u64,
    sent: u64,
    lost: u64,
    blackholed: u64,
    duplicated: u64,
    reordered: u64,
    corrupted: u64,
    send_errors: u64,
    delay_total: Duration,
    delay_most: Duration,
}

/// One direction of the wire.
pub struct Direction {
    faults: Faults,
    number: u64,
    /// Packets held back, each with how many are yet to overtake it.
    held: Vec<(u64, Packet)>,
    on_the_way: BinaryHeap<Reverse<(Instant, u64)>>,
    packets: BTreeMap<u64, Packet>,
    entered: u64,
    flows: BTreeMap<Flow, Truth>,
    counts: Counts,
}

impl Direction {
    /// A direction; `number` tells it from the other one.
    pub fn new(faults: &Faults, number: u64) -> Self {
        Self {
            faults: faults.clone(),
            number,
            held: Vec::new(),
            on_the_way: BinaryHeap::new(),
            packets: BTreeMap::new(),
            entered: 0,
            flows: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// Takes a frame in at `now`. With `blackhole`, each packet that faults may befall is lost.
    pub fn take(&mut self, now: Instant, frame: &[u8], blackhole: bool) {
        self.counts.received += 1;
        let found = frame::look(frame, self.faults.option_type);
        let mut packet = Packet {
            frame: frame.to_vec(),
            arrived: now,
            numbered: None,
            nature: Nature::Original,
        };
        if self.faults.only_marked && found.and_then(|f| f.option).is_none() {
            self.counts.passed += 1;
            self.enter(packet);
            return;
        }
        let mut random = Random::at(self.faults.seed, self.number, self.counts.touched);
        self.counts.touched += 1;
        let mut fate = self.fate(&mut random);
        if let Some(Found { flow, .. }) = found {
            let truth = self.flows.entry(flow).or_default();
            packet.numbered = Some((flow, truth.taken));
            if truth.taken < self.faults.spare {
                fate = Fate::Whole;
            }
            truth.taken += 1;
        }
        if blackhole {
            self.counts.blackholed += 1;
            self.miss(packet.numbered);
            return;
        }
        match fate {
            Fate::Whole => self.enter(packet),
            Fate::Lost => {
                self.counts.lost += 1;
                self.miss(packet.numbered);
            }
            Fate::Twice => {
                self.counts.duplicated += 1;
                let copy = Packet {
                    frame: packet.frame.clone(),
                    nature: Nature::Copy,
                    ..packet
                };
                self.enter(packet);
                self.enter(copy);
            }
            Fate::Overtaken => {
                self.counts.reordered += 1;
                self.held
                    .push((1 + random.below(self.faults.reorder_by), packet));
            }
            Fate::Spoiled => {
                if self.spoil(&mut packet, found, &mut random) {
                    self.counts.corrupted += 1;
                    packet.nature = Nature::Spoiled;
                    self.miss(packet.numbered);
                }
                self.enter(packet);
            }
        }
    }

    fn fate(&self, random: &mut Random) -> Fate {
        let mut left = random.fraction();
        let shares = [
            (self.faults.loss, Fate::Lost),
            (self.faults.duplicate, Fate::Twice),
            (self.faults.reorder, Fate::Overtaken),
            (self.faults.corrupt, Fate::Spoiled),
        ];
        for (share, fate) in shares {
            if left < share {
                return fate;
            }
            left -= share;
        }
        Fate::Whole
    }

    fn spoil(&self, packet: &mut Packet, found: Option<Found>, random: &mut Random) -> bool {
        let range = match self.faults.corrupt_at {
            Spot::Frame => 12..packet.frame.len(),
            Spot::Option => match found.and_then(|f| f.option) {
                Some((at, SEALED_OPTION)) => at + OPTION_HEADER..at + SEALED_OPTION,
                _ => return false,
            },
        };
        let bits = 8 * range.len() as u64;
        let bit = random.below(bits) as usize;
        match packet.frame.get_mut(range.start + bit / 8) {
            Some(byte) => {
                *byte ^= 1 << (bit % 8);
                true
            }
            None => false,
        }
    }

    fn miss(&mut self, numbered: Option<(Flow, u64)>) {
        if let Some((flow, number)) = numbered {
            self.flows.entry(flow).or_default().missing.push(number);
        }
    }

    /// Puts a packet on the way, and behind it those that waited to be overtaken by it.
    fn enter(&mut self, packet: Packet) {
        let now = packet.arrived;
        let mut ready = vec![packet];
        let mut index = 0;
        while index < self.held.len() {
            self.held[index].0 -= 1;
            if self.held[index].0 == 0 {
                let late = self.held.remove(index).1;
                ready.push(Packet {
                    arrived: now,
                    ..late
                });
            } else {
                index += 1;
            }
        }
        for packet in ready {
            self.set_out(packet);
        }
    }

    fn set_out(&mut self, packet: Packet) {
        let jitter = u64::try_from(self.faults.jitter.as_nanos()).unwrap_or(u64::MAX);
        let jitter = Random::at(self.faults.seed, self.number + 2, self.entered).below(jitter);
        let due = packet.arrived + self.faults.delay + Duration::from_nanos(jitter);
        self.on_the_way.push(Reverse((due, self.entered)));
        self.packets.insert(self.entered, packet);
        self.entered += 1;
    }

    /// When this direction next has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        let held = self.held.first().map(|(_, packet)| packet.arrived + HOLD);
        let due = self.on_the_way.peek().map(|Reverse((due, _))| *due);
        held.into_iter().chain(due).min()
    }

    /// The next packet that has reached the other end by `now`; the caller sends it and says so by [`Self::sent`].
    pub fn arrived(&mut self, now: Instant) -> Option<Packet> {
        while self
            .held
            .first()
            .is_some_and(|(_, packet)| packet.arrived + HOLD <= now)
        {
            let (_, packet) = self.held.remove(0);
            let arrived = packet.arrived + HOLD;
            self.set_out(Packet { arrived, ..packet });
        }
        let Reverse((due, entered)) = *self.on_the_way.peek()?;
        if due > now {
            return None;
        }
        self.on_the_way.pop();
        self.packets.remove(&entered)
    }

    /// Notes that a packet left the wire at `now`, or that it could not.
    pub fn sent(&mut self, packet: &Packet, now: Instant, done: bool) {
        if !done {
            self.counts.send_errors += 1;
            if packet.nature == Nature::Original {
                self.miss(packet.numbered);
            }
            return;
        }
        let delay = now.saturating_duration_since(packet.arrived);
        self.counts.sent += 1;
        self.counts.delay_total += delay;
        self.counts.delay_most = self.counts.delay_most.max(delay);
        let Some((flow, number)) = packet.numbered else {
            return;
        };
        let truth = self.flows.entry(flow).or_default();
        match packet.nature {
            Nature::Copy => truth.copies += 1,
            Nature::Spoiled => truth.spoiled += 1,
            Nature::Original => {
                truth.first.get_or_insert(number);
                // RFC 4737's definition: it comes behind one that was sent after it.
                if truth.newest.is_some_and(|newest| number < newest) {
                    truth.reordered += 1;
                }
                truth.newest = truth.newest.max(Some(number));
            }
        }
    }

    /// All that happened, `overrun` being what the kernel dropped before the wire saw it.
    ///
    /// `flows` tells, for each direction of a 5-tuple, what its receiver has to see: `lost` counts packets that never arrived
    /// whole, between the first and the newest that did, corrupted ones among them.
    pub fn report(&self, overrun: u64) -> Value {
        let counts = &self.counts;
        let flows: Vec<Value> = self
            .flows
            .iter()
            .map(|(flow, truth)| {
                let seen = truth.first.zip(truth.newest);
                let lost = truth.missing.iter().filter(|&&n| seen.is_some_and(|(first, newest)| (first..newest).contains(&n)));
                json!({
                    "source": Ipv6Addr::from(flow.source), "destination": Ipv6Addr::from(flow.destination),
                    "source_port": flow.ports.0, "destination_port": flow.ports.1, "protocol": flow.protocol,
                    "taken": truth.taken, "missing": truth.missing.len(), "copies": truth.copies, "spoiled": truth.spoiled,
                    "lost": lost.count(), "reordered": truth.reordered,
                })
            })
            .collect();
        json!({
            "received": counts.received, "passed": counts.passed, "touched": counts.touched, "sent": counts.sent,
            "lost": counts.lost, "blackholed": counts.blackholed, "duplicated": counts.duplicated,
            "reordered": counts.reordered, "corrupted": counts.corrupted,
            "send_errors": counts.send_errors, "overrun": overrun,
            "delay_mean_us": counts.delay_total.as_micros() as u64 / counts.sent.max(1),
            "delay_most_us": counts.delay_most.as_micros() as u64,
            "flows": flows,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults() -> Faults {
        Faults {
            loss: 0.05,
            duplicate: 0.05,
            reorder: 0.05,
            corrupt: 0.05,
            corrupt_at: Spot::Frame,
            reorder_by: 3,
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
            seed: 7,
            only_marked: false,
            spare: 16,
            option_type: 0x0f,
        }
    }

    fn numbered(number: u32) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 17, 64]);
        frame.extend([1; 32]);
        frame.extend([0, 1, 0, 2, 0, 16, 0, 0]);
        frame.extend(number.to_be_bytes());
        frame.extend(number.to_be_bytes());
        frame
    }

    /// The numbers that arrive, in order, and the report.
    fn carry(faults: &Faults, packets: u32) -> (Vec<Vec<u8>>, Value) {
        let mut direction = Direction::new(faults, 0);
        let start = Instant::now();
        let mut out = Vec::new();
        for number in 0..packets {
            direction.take(
                start + Duration::from_micros(u64::from(number)),
                &numbered(number),
                false,
            );
        }
        let end = start + Duration::from_secs(1);
        while let Some(packet) = direction.arrived(end) {
            direction.sent(&packet, end, true);
            out.push(packet.frame);
        }
        (out, direction.report(0))
    }

    #[test]
    fn the_report_is_what_a_receiver_sees() {
        let (out, report) = carry(&faults(), 10_000);
        let number = |frame: &[u8]| u32::from_be_bytes(frame[62..66].try_into().unwrap());
        let whole = out
            .iter()
            .map(|frame| (number(frame), frame))
            .filter(|(n, frame)| numbered(*n) == **frame);
        let mut seen = std::collections::BTreeSet::new();
        let (mut newest, mut reordered, mut copies) = (0, 0u64, 0u64);
        for (number, _) in whole {
            if !seen.insert(number) {
                copies += 1;
            } else if number < newest {
                reordered += 1;
            }
            newest = newest.max(number);
        }
        let flow = report["flows"]
            .as_array()
            .unwrap()
            .iter()
            .max_by_key(|f| f["taken"].as_u64())
            .unwrap();
        assert_eq!(flow["reordered"], reordered);
        assert_eq!(flow["copies"], copies);
        assert_eq!(flow["lost"], u64::from(newest) + 1 - seen.len() as u64);
        for fault in ["lost", "duplicated", "reordered", "corrupted"] {
            let count = report[fault].as_u64().unwrap();
            assert!((400..600).contains(&count), "{fault}: {count}");
        }
        assert!(reordered > 400);
    }

    #[test]
    fn a_run_can_be_repeated() {
        assert_eq!(carry(&faults(), 1000).0, carry(&faults(), 1000).0);
        let other = Faults {
            seed: 8,
            ..faults()
        };
        assert_ne!(carry(&faults(), 1000).0, carry(&other, 1000).0);
    }

    #[test]
    fn nothing_is_early_and_the_first_are_spared() {
        let mut direction = Direction::new(
            &Faults {
                loss: 1.0,
                ..faults()
            },
            0,
        );
        let start = Instant::now();
        for number in 0..20 {
            direction.take(start, &numbered(number), false);
        }
        assert!(
            direction
                .arrived(start + Duration::from_micros(9_999))
                .is_none()
        );
        let due = start + Duration::from_millis(10);
        assert_eq!(direction.next_due(), Some(due));
        let mut count = 0;
        while direction.arrived(due).is_some() {
            count += 1;
        }
        assert_eq!(count, 16);
    }

    #[test]
    fn a_held_packet_is_not_forgotten() {
        let mut direction = Direction::new(
            &Faults {
                reorder: 1.0,
                loss: 0.0,
                duplicate: 0.0,
                spare: 0,
                ..faults()
            },
            0,
        );
        let start = Instant::now();
        direction.take(start, &numbered(0), false);
        assert!(
            direction
                .arrived(start + Duration::from_millis(19))
                .is_none()
        );
        assert!(
            direction
                .arrived(start + HOLD + Duration::from_millis(10))
                .is_some()
        );
    }
}
