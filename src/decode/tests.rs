//! Packets sealed here and decoded as if they came from a capture.

use std::path::Path;

use super::*;
use crate::crypto::{Aead, SealJob, SessionKey};
use crate::wire::pdmv2::{CLEAR_LEN, SEALED_LEN, option_header};
use crate::wire::{Prseq, ScaledDelta};

pub(super) const OPTION_TYPE: u8 = 0x0f;

fn config(extra: &str) -> Config {
    let yaml = format!(
        "ports: {{ inside: {{ device: net_null0 }}, outside: {{ device: net_null1 }} }}\n\
         pairings:\n\
         - name: campus\n  \
           salt: {salt}\n  \
           pms: {pms}\n  \
           clients: [ {{ prefix: \"2001:db8:1::/64\" }} ]\n  \
           servers: [ {{ prefix: \"2001:db8:2::/64\", group: web }} ]\n{extra}",
        salt = "5a".repeat(32),
        pms = "c3".repeat(32),
    );
    Config::parse(&yaml, Path::new("test.yaml")).unwrap()
}

pub(super) fn tuple(from_client: bool) -> FiveTuple {
    let address = |last: &str| {
        let text = format!("2001:db8:{last}");
        text.parse::<std::net::Ipv6Addr>().unwrap().octets()
    };
    let out = FiveTuple {
        src: address("1::10"),
        dst: address("2::20"),
        sport: 40_000,
        dport: 443,
        protocol: 17,
    };
    if from_client { out } else { out.reversed() }
}

/// A UDP packet with `option` in a Destination Options header.
pub(super) fn frame(tuple: &FiveTuple, option: &[u8]) -> Vec<u8> {
    let mut options = vec![17, 0, 1, 0];
    options.extend_from_slice(option);
    while options.len() % 8 != 0 {
        options.push(0);
    }
    options[1] = (options.len() / 8 - 1) as u8;
    let mut frame = vec![2; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((options.len() as u16 + 8).to_be_bytes());
    frame.extend([60, 64]);
    frame.extend(tuple.src);
    frame.extend(tuple.dst);
    frame.extend(options);
    frame.extend(tuple.sport.to_be_bytes());
    frame.extend(tuple.dport.to_be_bytes());
    frame.extend([0, 8, 0, 0]);
    frame
}

pub(super) fn metrics(psntp: u16, psnlr: u16, dtlr_ns: u64) -> Metrics {
    Metrics {
        dtlr: ScaledDelta::from_attoseconds(u128::from(dtlr_ns) * 1_000_000_000),
        dtls: ScaledDelta::ZERO,
        global_pointer: 7,
        psntp,
        psnlr,
    }
}

/// An option with these metrics.
pub(super) fn seal(
    aead: Aead,
    key: &SessionKey,
    prseq: u16,
    kri: u32,
    metrics: &Metrics,
) -> [u8; SEALED_SIZE] {
    let prseq = Prseq::new(prseq).unwrap();
    let mut option = [0; SEALED_SIZE];
    let header = option_header(OPTION_TYPE, SEALED_LEN, prseq, kri & 1 == 1);
    option[..HEADER_LEN].copy_from_slice(&header);
    option[HEADER_LEN..HEADER_LEN + METRICS_LEN].copy_from_slice(&metrics.to_bytes());
    let mut jobs = [SealJob {
        key,
        option: &mut option,
    }];
    Kernel::portable().seal(aead, &mut jobs);
    option
}

/// Two senders and a decoder that watches them.
struct Bench {
    decoder: Decoder,
    sender: Snapshot,
    prseq: u16,
    number: u64,
}

/// Generations ahead of the configured ones, and Kri.
#[derive(Clone, Copy, Default)]
struct At {
    src: u32,
    dst: u32,
    kri: u32,
}

impl Bench {
    fn new(config: &Config) -> Self {
        let decoder = Decoder::new(config, Windows::default()).unwrap();
        let sender = configured(config).unwrap();
        Self {
            decoder,
            sender,
            prseq: 0,
            number: 0,
        }
    }

    fn seal(&mut self, tuple: &FiveTuple, at: At, metrics: &Metrics) -> [u8; SEALED_SIZE] {
        let route = self.sender.resolve(&tuple.src, &tuple.dst).unwrap();
        let epoch = self.sender.send_epoch(&route);
        let epoch = Epoch {
            src_generation: epoch.src_generation + at.src,
            dst_generation: epoch.dst_generation + at.dst,
            ..epoch
        };
        let key = self
            .sender
            .session_key(&route, &epoch, tuple, at.kri)
            .unwrap();
        self.prseq += 1;
        let aead = self.sender.pairing(&route).unwrap().suite.aead;
        seal(aead, &key, self.prseq, at.kri, metrics)
    }

    fn decode(&mut self, time_ns: u64, frame: &[u8]) -> PacketRecord {
        self.number += 1;
        self.decoder.packet(&Captured {
            number: self.number,
            time_ns,
            data: frame.into(),
            original_len: frame.len(),
        })
    }

    /// Seals, and decodes what was sealed.
    fn pass(&mut self, time_ns: u64, from_client: bool, at: At, metrics: &Metrics) -> OptionRecord {
        let tuple = tuple(from_client);
        let option = self.seal(&tuple, at, metrics);
        self.decode(time_ns, &frame(&tuple, &option))
            .option
            .unwrap()
    }
}

#[test]
fn a_sealed_packet_is_opened_and_told() {
    let mut bench = Bench::new(&config(""));
    let option = bench.seal(&tuple(true), At::default(), &metrics(9, 0, 1_500));
    let record = bench.decode(1_700_000_000_123_456_789, &frame(&tuple(true), &option));
    let json = serde_json::to_string(&records::Line::Packet(Box::new(record))).unwrap();
    let line: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        line,
        serde_json::json!({
            "type": "packet",
            "number": 1,
            "time": "2023-11-14T22:13:20.123456789Z",
            "time_ns": 1_700_000_000_123_456_789_u64,
            "length": 14 + 40 + 40 + 8,
            "src": "2001:db8:1::10",
            "sport": 40_000,
            "dst": "2001:db8:2::20",
            "dport": 443,
            "protocol": 17,
            "protocol_name": "udp",
            "pairing": "campus",
            "direction": "client-to-server",
            "option": "sealed",
            "prseq": 1,
            "f": 0,
            "opened": true,
            "key": { "src_generation": 1, "dst_generation": 1, "kri": 0 },
            "metrics": {
                "psntp": 9,
                "psnlr": 0,
                "global_pointer": 7,
                "dtlr": { "delta": 44_703, "scale": 25, "attoseconds": 44_703_u64 << 25, "ns": 1_499 },
                "dtls": { "delta": 0, "scale": 0, "attoseconds": 0, "ns": 0 },
            },
        })
    );
}

#[test]
fn a_capture_that_starts_midway_is_opened() {
    let at = At {
        src: 3,
        dst: 2,
        kri: 1_001,
    };
    let mut bench = Bench::new(&config(""));
    for from_client in [true, false] {
        let option = bench.pass(0, from_client, at, &metrics(1, 0, 0));
        let key = option.key.unwrap();
        assert_eq!((key.src_generation, key.dst_generation), (4, 3));
        assert_eq!(key.kri, 1_001);
        assert_eq!(option.f, Some(1));
    }
}

#[test]
fn key_changes_lost_and_overtaken_are_followed() {
    let mut bench = Bench::new(&config(""));
    let steps = [
        (0, 0),
        (0, 1),
        (0, 0),
        (0, 700),
        (0, 699),
        (0, 695),
        (2, 1),
        (0, 700),
        (2, 600),
    ];
    for (psntp, (src, kri)) in (1..).zip(steps) {
        let at = At { src, dst: 0, kri };
        let option = bench.pass(0, true, at, &metrics(psntp, 0, 0));
        let key = option.key.unwrap();
        assert_eq!((key.src_generation, key.kri), (1 + src, kri));
    }
}

#[test]
fn what_does_not_open_says_why() {
    let mut bench = Bench::new(&config(""));
    let sealed = bench.seal(&tuple(true), At::default(), &metrics(1, 0, 0));
    let mut corrupted = sealed;
    corrupted[20] ^= 1;
    let option = bench.decode(0, &frame(&tuple(true), &corrupted)).option;
    let option = option.unwrap();
    assert_eq!(option.opened, Some(false));
    assert_eq!(option.reason, Some(NotOpened::NoKey));
    assert!(option.metrics.is_none());

    let mut stranger = tuple(true);
    stranger.dst[15] = 1;
    stranger.dst[0] = 0x30;
    let record = bench.decode(0, &frame(&stranger, &sealed));
    assert_eq!(record.pairing, None);
    assert_eq!(record.option.unwrap().reason, Some(NotOpened::NoPairing));

    let mut bench = Bench::new(&config("  protection: clear\n"));
    let record = bench.decode(0, &frame(&tuple(true), &sealed));
    assert_eq!(record.pairing.as_deref(), Some("campus"));
    assert_eq!(record.option.unwrap().reason, Some(NotOpened::NoSecret));
}

#[test]
fn many_packets_that_do_not_open_cost_little() {
    let mut bench = Bench::new(&config(""));
    let mut sealed = bench.seal(&tuple(true), At::default(), &metrics(1, 0, 0));
    sealed[30] ^= 1;
    let frame = frame(&tuple(true), &sealed);
    // Each would be 148,000 keys if everything was tried.
    for _ in 0..2_000 {
        assert_eq!(bench.decode(0, &frame).option.unwrap().opened, Some(false));
    }
    let option = bench.pass(0, true, At::default(), &metrics(2, 0, 0));
    assert_eq!(option.opened, Some(true));
}

#[test]
fn options_in_the_clear_are_read() {
    let mut bench = Bench::new(&config("  protection: clear\n"));
    let prseq = Prseq::new(77).unwrap();
    let mut option = option_header(OPTION_TYPE, CLEAR_LEN, prseq, false).to_vec();
    option.extend(metrics(5, 6, 0).to_bytes());
    let read = bench.decode(0, &frame(&tuple(false), &option));
    assert_eq!(read.direction, Some(Direction::ServerToClient));
    let read = read.option.unwrap();
    assert_eq!((read.kind, read.prseq), (records::Kind::Clear, Some(77)));
    assert_eq!(read.opened, None);
    assert_eq!(read.metrics.unwrap().psnlr, 6);

    let pdm = Pdm {
        dtlr: ScaledDelta::ZERO,
        dtls: ScaledDelta::ZERO,
        psntp: 3,
        psnlr: 4,
    };
    let read = bench.decode(0, &frame(&tuple(false), &pdm.to_bytes(OPTION_TYPE)));
    let read = read.option.unwrap();
    assert_eq!((read.kind, read.prseq), (records::Kind::Pdm, None));
    assert_eq!(read.metrics.unwrap().global_pointer, None);

    let read = bench.decode(0, &frame(&tuple(false), &[OPTION_TYPE, 2, 0, 0]));
    assert_eq!(read.option.unwrap(), OptionRecord::unknown());
}

#[test]
fn other_packets_are_named() {
    let mut bench = Bench::new(&config(""));
    let mut frame = frame(&tuple(true), &[1, 0]);
    assert!(bench.decode(0, &frame).option.is_none());
    frame.truncate(50);
    assert_eq!(bench.decode(0, &frame).malformed, Some("truncated"));
    frame[12..14].copy_from_slice(&[8, 0]);
    assert_eq!(bench.decode(0, &frame).untouched, Some("ipv4"));
}

#[test]
fn a_packet_that_was_cut_behind_its_headers_is_read() {
    let mut bench = Bench::new(&config(""));
    let option = bench.seal(&tuple(true), At::default(), &metrics(1, 0, 0));
    let frame = frame(&tuple(true), &option);
    let record = bench.decoder.packet(&Captured {
        number: 1,
        time_ns: 0,
        data: frame[..frame.len() - 4].into(),
        original_len: frame.len(),
    });
    assert!(record.cut);
    assert_eq!(record.option.unwrap().opened, Some(true));
}

#[test]
fn a_flow_sums_up_both_directions() {
    let mut bench = Bench::new(&config(""));
    let at = At::default();
    // Client 1 ms from the capture, server 3 ms; the server takes 10 ms, the client 2 ms. Request 3 gets lost behind
    // the capture, so nobody ever answers it.
    let ms = 1_000_000;
    let mut now = 100 * ms;
    let mut last_answer = 0;
    for turn in 1..=10u16 {
        let waited = if turn > 1 { 2 * ms } else { 0 };
        bench.pass(now, true, at, &metrics(turn, last_answer, waited));
        if turn == 3 {
            continue;
        }
        let answer = 500 + turn;
        bench.pass(now + 16 * ms, false, at, &metrics(answer, turn, 10 * ms));
        last_answer = answer;
        now += 16 * ms + 2 * ms + 2 * ms;
    }
    let flows = bench.decoder.flows();
    let [flow] = flows.as_slice() else {
        panic!("{flows:?}");
    };
    assert_eq!(flow.tuple, TupleRecord::from(&tuple(true)));
    assert_eq!((flow.forward.packets, flow.reverse.packets), (10, 9));
    assert_eq!((flow.forward.lost, flow.reverse.lost), (0, 1));
    assert_eq!(flow.forward.failed, 0);
    let near = |found: u64, ms: u64| found.abs_diff(ms * 1_000_000) < 1_000;
    assert!(near(flow.reverse.server_delay_ns.unwrap().median, 10));
    assert!(near(flow.reverse.rtt_ns.unwrap().median, 6));
    assert!(near(flow.forward.server_delay_ns.unwrap().median, 2));
    assert!(near(flow.forward.rtt_ns.unwrap().median, 2));
    assert!(near(flow.rtt_ns.unwrap(), 8));
}
