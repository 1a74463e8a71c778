//! Packets that were cut, bent and filled with nonsense, from both sides: each is counted, none does harm, and whole ones among them
//! are treated as ever.

mod common;

use common::capture::read;
use common::gate::{Gate, Settings};
use common::oracle::{KeyId, Metrics, Oracle};
use common::packets::{DESTINATION, echo, tcp, udp, write};
use serde_json::Value;
use std::path::Path;

const A: &str = "2001:db8:1::17";
const B: &str = "2001:db8:2::23";

/// Splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

fn whole(settings: &Settings, source: &str, destination: &str) -> Vec<Vec<u8>> {
    let mut oracle = Oracle::of(settings);
    let packet = udp(source, destination, (7, 9), b"sealed");
    let tuple = (packet.source, packet.destination, 7, 9, 17);
    let id = KeyId {
        tuple,
        generations: (1, 1),
        kri: 0,
    };
    let option = oracle.seal(id, 5, Metrics::read(&[0; 14]));
    let options = [0x1e, 5, 1, 2, 3, 4, 5, 1, 5, 0, 0, 0, 0, 0];
    vec![
        udp(source, destination, (7, 9), &[1; 80]).frame(),
        tcp(source, destination, (7, 9), &[2; 200])
            .tag(0x8100, 1)
            .frame(),
        echo(source, destination, 1)
            .tag(0x88a8, 1)
            .tag(0x8100, 2)
            .frame(),
        udp(source, destination, (7, 9), b"chain")
            .extension(0, &[5, 2, 0, 0, 1, 0])
            .extension(DESTINATION, &options)
            .extension(43, &[4, 0, 0, 0, 0, 0])
            .extension(DESTINATION, &options)
            .frame(),
        packet.with_option(&option).frame(),
    ]
}

/// Bends a frame: bits flipped, bytes replaced by ones that matter to parsers, or the end cut off.
fn bend(random: &mut Random, frame: &[u8]) -> Vec<u8> {
    const TELLING: [u8; 12] = [0, 1, 6, 17, 43, 44, 58, 60, 0x0f, 0x7f, 0x80, 0xff];
    let mut bent = frame.to_vec();
    for _ in 0..1 + random.below(4) {
        // Headers are more worth bending than payload.
        let at = 12 + random.below((bent.len() - 12).min(130));
        match random.below(3) {
            0 => bent[at] ^= 1 << random.below(8),
            1 => bent[at] = TELLING[random.below(TELLING.len())],
            // The shortest frame that a driver hands over is 14 bytes.
            _ if random.below(4) == 0 => bent.truncate(at.max(14)),
            _ => {}
        }
        if bent.len() <= 14 {
            break;
        }
    }
    bent
}

fn run(dir: &Path, settings: &Settings, inside: &[Vec<u8>], outside: &[Vec<u8>]) -> Value {
    write(&dir.join("inside.pcap"), inside);
    write(&dir.join("outside.pcap"), outside);
    let mut gate = Gate::start_on_files(dir, settings);
    gate.wait_for_count("packets_received.out", inside.len() as u64);
    gate.wait_for_count("packets_received.in", outside.len() as u64);
    let stats = gate.stats();
    gate.stop();
    stats
}

fn total(counters: &Value) -> u64 {
    match counters {
        Value::Object(children) => children.values().map(total).sum(),
        number => number.as_u64().unwrap(),
    }
}

fn bent(settings: &Settings, seed: u64) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut random = Random(seed);
    let mut make = |source, destination| {
        let whole = whole(settings, source, destination);
        let frames: Vec<_> = (0..20_000)
            .map(|number| match number % 10 {
                0 => whole[0].clone(),
                _ => bend(&mut random, &whole[number % whole.len()]),
            })
            .collect();
        frames
    };
    (make(A, B), make(B, A))
}

#[test]
fn all_go_on_if_the_policy_says_so() {
    let settings = Settings::default();
    for seed in 1..=3 {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = bent(&settings, seed);
        let stats = run(dir.path(), &settings, &inside, &outside);
        let malformed = total(&stats["counters"]["malformed"]);
        assert!(malformed > 4_000, "{malformed}");
        assert_eq!(total(&stats["counters"]["dropped"]), 0, "{stats:#}");
        let (out, back) = (
            dir.path().join("to-outside.pcap"),
            dir.path().join("to-inside.pcap"),
        );
        assert_eq!(read(&out).len(), inside.len());
        let back = read(&back);
        assert_eq!(back.len(), outside.len());
        // Whole packets without an option come through unchanged in their midst.
        for (number, (seen, sent)) in back.iter().zip(&outside).enumerate().step_by(10) {
            assert_eq!(
                hex::encode(&seen.frame),
                hex::encode(sent),
                "packet {number}"
            );
        }
    }
}

#[test]
fn malformed_ones_are_dropped_if_the_policy_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        policy_extra: "  malformed: drop",
        ..Settings::default()
    };
    let (inside, outside) = bent(&settings, 9);
    let stats = run(dir.path(), &settings, &inside, &outside);
    let counters = &stats["counters"];
    for (way, sent, file) in [
        ("out", inside, "to-outside.pcap"),
        ("in", outside, "to-inside.pcap"),
    ] {
        let malformed = total(&counters["malformed"][way]);
        assert_eq!(counters["dropped"][way]["malformed"], malformed, "{way}");
        assert_eq!(
            read(&dir.path().join(file)).len() as u64,
            sent.len() as u64 - malformed,
            "{way}"
        );
    }
}
