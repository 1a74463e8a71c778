//! Known options into the outside port, made by a peer that lives in this test: the hosts get their packets without them.

mod common;

use common::capture::read;
use common::gate::{Gate, Settings};
use common::oracle::{KeyId, Metrics, Oracle};
use common::packets::{Build, DESTINATION, echo, tcp, udp, write};
use std::iter;
use std::path::Path;

const A: &str = "2001:db8:1::17";
const B: &str = "2001:db8:2::23";

/// Of the peer, side B, towards side A.
struct Peer {
    oracle: Oracle,
    prseq: u16,
}

fn id(packet: &Build, ports: (u16, u16), generations: (u32, u32), kri: u32) -> KeyId {
    let tuple = (
        packet.source,
        packet.destination,
        ports.0,
        ports.1,
        packet.protocol,
    );
    KeyId {
        tuple,
        generations,
        kri,
    }
}

fn numbered(psntp: u16) -> Metrics {
    Metrics {
        scale_dtlr: 0,
        scale_dtls: 0,
        global_pointer: 7,
        psntp,
        psnlr: 0,
        delta_tlr: 0,
        delta_tls: 0,
    }
}

impl Peer {
    fn new(settings: &Settings) -> Self {
        Self {
            oracle: Oracle::of(settings),
            prseq: 100,
        }
    }

    fn seal(&mut self, packet: &Build, id: KeyId, psntp: u16) -> Vec<u8> {
        self.prseq += 1;
        let option = self.oracle.seal(id, self.prseq, numbered(psntp));
        packet.with_option(&option).frame()
    }
}

/// Puts frames into the outside port; what the hosts got, and the counters asked for.
fn through(
    dir: &Path,
    settings: &Settings,
    outside: &[Vec<u8>],
    counters: &[&str],
) -> (Vec<Vec<u8>>, Vec<u64>) {
    write(&dir.join("inside.pcap"), &[]);
    write(&dir.join("outside.pcap"), outside);
    let mut gate = Gate::start_on_files(dir, settings);
    gate.wait_for_count("packets_received.in", outside.len() as u64);
    let counts = counters.iter().map(|path| gate.count(path)).collect();
    gate.stop();
    assert!(
        read(&dir.join("to-outside.pcap")).is_empty(),
        "nothing is ever sent in reply"
    );
    let inside = read(&dir.join("to-inside.pcap"));
    (inside.into_iter().map(|p| p.frame).collect(), counts)
}

fn assert_frames(seen: &[Vec<u8>], expected: &[Vec<u8>]) {
    for (number, (seen, expected)) in seen.iter().zip(expected).enumerate() {
        assert_eq!(hex::encode(seen), hex::encode(expected), "packet {number}");
    }
    assert_eq!(seen.len(), expected.len());
}

#[test]
fn options_are_opened_and_taken_off() {
    for (mode, aead) in [
        ("trusted-servers", "aes-128-gcm"),
        ("trusted-servers", "aes-256-gcm"),
        ("asymmetric-poll", "chacha20-poly1305"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            mode,
            aead,
            ..Settings::default()
        };
        let mut peer = Peer::new(&settings);
        // The last byte of the option data stays behind where the option stood: minimal padding comes back as it was.
        let other_option = [0x1e, 1, 9, 1, 1, 0];
        let packets = [
            (udp(B, A, (53, 1000), b"one"), (53, 1000)),
            (tcp(B, A, (80, 2000), b"two"), (80, 2000)),
            (echo(B, A, 3), (0, 0)),
            (
                udp(B, A, (53, 1000), b"tagged")
                    .tag(0x88a8, 7)
                    .tag(0x8100, 9),
                (53, 1000),
            ),
            (
                udp(B, A, (53, 1000), b"alert").extension(0, &[5, 2, 0, 0, 1, 0]),
                (53, 1000),
            ),
            (
                udp(B, A, (53, 1000), b"option").extension(DESTINATION, &other_option),
                (53, 1000),
            ),
        ];
        let mut sealed = Vec::new();
        for (number, (packet, ports)) in packets.iter().enumerate() {
            sealed.push(peer.seal(packet, id(packet, *ports, (1, 1), 0), 500 + number as u16));
        }
        let (seen, counts) = through(
            dir.path(),
            &settings,
            &sealed,
            &["opened", "options_stripped", "flows_created.in"],
        );
        let expected: Vec<_> = packets.iter().map(|(packet, _)| packet.frame()).collect();
        assert_frames(&seen, &expected);
        assert_eq!(counts, [6, 6, 3], "{mode} {aead}");
    }
}

#[test]
fn the_way_back_to_a_sender_that_has_moved_on() {
    let settings = Settings::default();
    // Generation, Kri, PSNTP. Changes missed, the next key, one that is still held, the end of what is looked for, a restart.
    let moves = [
        (1, 3, 500),
        (1, 4, 501),
        (1, 3, 502),
        (1, 20, 503),
        (2, 0, 40_000),
    ];
    assert_eq!(moved(&settings, &moves), [5, 0]);
    // One key further than is looked for.
    assert_eq!(moved(&settings, &[(1, 3, 500), (1, 20, 501)]), [1, 1]);
    // A generation too far ahead, the last that is looked for, and from there the next one.
    let restarts = [(10, 0, 1), (9, 0, 60_000), (10, 0, 30_000)];
    assert_eq!(moved(&settings, &restarts), [2, 1]);
    // Behind the key that opened last and the one before it there is no way back.
    assert_eq!(
        moved(&settings, &[(1, 2, 1), (1, 3, 2), (1, 4, 3), (1, 2, 4)]),
        [3, 1]
    );
}

#[test]
fn a_key_changes_in_the_middle_of_a_burst() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::default();
    let mut peer = Peer::new(&settings);
    let packet = udp(B, A, (53, 1000), b"data");
    let at = |kri| id(&packet, (53, 1000), (1, 1), kri);
    // A burst is 64 packets; the flow is known before, and each change comes in a burst's middle.
    let sealed: Vec<_> = (0..400)
        .map(|number| peer.seal(&packet, at(u32::from(number / 150)), 500 + number))
        .collect();
    let counters = ["opened", "failed_open.authentication"];
    let (seen, counts) = through(dir.path(), &settings, &sealed, &counters);
    assert_frames(&seen, &vec![packet.frame(); sealed.len()]);
    assert_eq!(counts, [400, 0]);
}

/// Opens one packet of a flow after the other, sealed by a peer that moves as told; how many opened and how many did not.
fn moved(settings: &Settings, moves: &[(u32, u32, u16)]) -> [u64; 2] {
    let dir = tempfile::tempdir().unwrap();
    let mut peer = Peer::new(settings);
    let packet = udp(B, A, (53, 1000), b"data");
    // A key's place is not used again within a burst, so the packets come in bursts of their own.
    let stranger = udp(B, "2001:db8:9::1", (1, 2), b"in no list").frame();
    let mut outside = Vec::new();
    for (generation, kri, psntp) in moves {
        let id = id(&packet, (53, 1000), (*generation, 1), *kri);
        outside.push(peer.seal(&packet, id, *psntp));
        outside.extend(iter::repeat_n(stranger.clone(), 127));
    }
    let counters = ["opened", "failed_open.authentication", "contended"];
    let (mut seen, counts) = through(dir.path(), settings, &outside, &counters);
    seen.retain(|frame| *frame != stranger);
    assert_frames(&seen, &vec![packet.frame(); moves.len()]);
    assert_eq!(counts[2], 0, "contended");
    [counts[0], counts[1]]
}

#[test]
fn what_does_not_open_loses_its_option_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::default();
    let (sealed, packet) = bad_options(&settings);
    let counters = [
        "opened",
        "replayed.repeated",
        "failed_open.authentication",
        "failed_open.clear_on_sealed",
        "failed_open.unknown_option",
        "options_stripped",
        "flows_created.in",
    ];
    let (seen, counts) = through(dir.path(), &settings, &sealed, &counters);
    assert_frames(&seen, &vec![packet.frame(); sealed.len()]);
    assert_eq!(counts, [1, 1, 5, 1, 1, 9, 1]);
}

#[test]
fn what_does_not_open_is_dropped_if_the_policy_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        failed_open: "drop",
        ..Settings::default()
    };
    let (sealed, packet) = bad_options(&settings);
    let (seen, counts) = through(
        dir.path(),
        &settings,
        &sealed,
        &["opened", "dropped.in.failed_open"],
    );
    assert_eq!(counts[0], 1);
    assert!(counts[1] >= 7, "{counts:?}");
    assert_frames(
        &seen,
        &vec![packet.frame(); sealed.len() - counts[1] as usize],
    );
}

/// One option that opens and eight that must not; all on the same packet.
fn bad_options(settings: &Settings) -> (Vec<Vec<u8>>, Build) {
    let mut peer = Peer::new(settings);
    let packet = udp(B, A, (53, 1000), b"data");
    let first = id(&packet, (53, 1000), (1, 1), 0);
    let good = peer.seal(&packet, first, 500);
    let option_at = 14 + 40 + 4;
    let flipped = |at: usize, bit: u8| {
        let mut frame = good.clone();
        frame[option_at + at] ^= bit;
        frame
    };
    let clear = [&[0x0f, 0x12, 0x20, 0, 0, 2], &numbered(501).bytes()[..]].concat();
    let mut unknown = vec![0x0f, 0x08];
    unknown.resize(10, 3);
    let stranger = Settings::default();
    let frames = vec![
        good.clone(),
        good.clone(),
        flipped(5, 1),
        flipped(4, 0x40),
        flipped(20, 0x80),
        flipped(35, 1),
        packet.with_option(&clear).frame(),
        packet.with_option(&unknown).frame(),
        Peer::new(&stranger).seal(&packet, first, 502),
    ];
    (frames, packet)
}

#[test]
fn two_appliances_in_a_row_change_nothing() {
    let (near, far) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let settings = Settings::default();
    let mut frames = Vec::new();
    for number in 0..600u16 {
        let payload = vec![number as u8; usize::from(number)];
        frames.push(match number % 4 {
            0 => udp(A, B, (1000, 53), &payload).frame(),
            1 => tcp(A, B, (2000, 80), &payload).tag(0x8100, 5).frame(),
            2 => echo(A, B, number as u8).frame(),
            _ => udp(A, B, (1000 + number, 53), &payload)
                .extension(DESTINATION, &[0x1e, 1, 9, 1, 1, 0])
                .frame(),
        });
    }
    write(&near.path().join("inside.pcap"), &frames);
    write(&near.path().join("outside.pcap"), &[]);
    let mut gate = Gate::start_on_files(near.path(), &settings);
    gate.wait_for_count("packets_received.out", frames.len() as u64);
    gate.stop();
    std::fs::copy(
        near.path().join("to-outside.pcap"),
        far.path().join("outside.pcap"),
    )
    .unwrap();
    write(&far.path().join("inside.pcap"), &[]);
    let mut gate = Gate::start_on_files(far.path(), &settings);
    gate.wait_for_count("packets_received.in", frames.len() as u64);
    assert_eq!(gate.count("opened"), frames.len() as u64);
    gate.stop();
    let seen: Vec<_> = read(&far.path().join("to-inside.pcap"))
        .into_iter()
        .map(|p| p.frame)
        .collect();
    assert_frames(&seen, &frames);
}
