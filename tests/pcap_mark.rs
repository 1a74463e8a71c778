//! Known packets into the inside port, what leaves by the outside port compared byte for byte with what this test works out.

mod common;

use common::capture::{Ipv6, Packet, Sealed, read};
use common::gate::{Gate, Settings, decode};
use common::oracle::{Entry, KeyId, Ledger, Metrics, Oracle};
use common::packets::{Build, DESTINATION, echo, tcp, udp, write};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

const A: &str = "2001:db8:1::17";
const B: &str = "2001:db8:2::23";
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;

/// Runs an appliance over `inside` and yields what came out of the outside port and of the inside port.
fn through(
    dir: &Path,
    settings: &Settings,
    inside: &[Vec<u8>],
    outside: &[Vec<u8>],
) -> (Vec<Packet>, Vec<Packet>) {
    write(&dir.join("inside.pcap"), inside);
    write(&dir.join("outside.pcap"), outside);
    let mut gate = Gate::start_on_files(dir, settings);
    gate.wait_for_count("packets_received.out", inside.len() as u64);
    gate.wait_for_count("packets_received.in", outside.len() as u64);
    gate.stop();
    (
        read(&dir.join("to-outside.pcap")),
        read(&dir.join("to-inside.pcap")),
    )
}

/// Packets of the pair, with every kind of header in front of the upper layer that a packet may have.
fn marked() -> Vec<Build> {
    // An option that a node that does not know it skips, with 5 bytes of data; and one with 1, which leaves less padding.
    let five = [0x1e, 5, 1, 2, 3, 4, 5];
    let one = [0x3e, 1, 9];
    let header = |options: &[u8], padding: &[u8]| [options, padding].concat();
    let destination = header(&five, &[1, 5, 0, 0, 0, 0, 0]);
    let tight = header(&[&one[..], &one].concat(), &[]);
    let full = header(&one, &[1, 1, 0]);
    let mut packets = vec![
        udp(A, B, (1000, 53), b"first"),
        udp(A, B, (1000, 53), b"second of its flow"),
        tcp(A, B, (2000, 80), b"a segment"),
        tcp(A, B, (2000, 80), b""),
        echo(A, B, 1),
        echo(A, B, 2),
        Build::new(A, B, 132, vec![0x0b, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]),
        Build::new(A, B, 47, vec![0, 0, 0x86, 0xdd, 1, 2, 3]),
        udp(A, B, (1001, 53), b"tagged").tag(0x8100, 7),
        udp(A, B, (1001, 53), b"tagged twice")
            .tag(0x88a8, 7)
            .tag(0x8100, 4095),
        udp(A, B, (1002, 53), b"router alert").extension(HOP_BY_HOP, &[5, 2, 0, 0, 1, 0]),
        udp(A, B, (1003, 53), b"destination").extension(DESTINATION, &destination[..14]),
        udp(A, B, (1003, 53), b"tight").extension(DESTINATION, &tight),
        udp(A, B, (1003, 53), b"one").extension(DESTINATION, &full),
        udp(A, B, (1003, 53), b"pads only").extension(DESTINATION, &[1, 4, 0, 0, 0, 0]),
        // Segments left 0: the packet is at its destination; options in front of the routing header are not before the
        // upper layer.
        udp(A, B, (1004, 53), b"routed")
            .extension(DESTINATION, &[1, 4, 0, 0, 0, 0])
            .extension(ROUTING, &[4, 0, 0, 0, 0, 0]),
        udp(A, B, (1005, 53), &[0x5a; 1400]),
    ];
    for number in 0..40 {
        packets.push(udp(A, B, (1006, 53), &[number; 33]));
    }
    packets
}

fn untouched() -> Vec<Vec<u8>> {
    let ipv4 = {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00, 0x45];
        frame.resize(60, 0);
        frame
    };
    let mut arp = vec![0xff; 6];
    arp.extend([2, 0, 0, 0, 0, 1, 0x08, 0x06]);
    arp.resize(60, 1);
    let mut solicitation = vec![135, 0, 0, 0, 0, 0, 0, 0];
    solicitation.extend([0x20; 16]);
    let pdm = [0x0f, 0x0a, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0];
    vec![
        ipv4,
        arp,
        Build::new(A, B, 58, solicitation).frame(),
        Build::new(A, "ff02::16", 58, vec![143, 0, 0, 0, 0, 0, 0, 0]).frame(),
        udp(A, "ff05::1:3", (1, 2), b"multicast").frame(),
        Build::new(A, B, 50, vec![7; 40]).frame(),
        udp(A, B, (1, 2), b"fragment")
            .extension(FRAGMENT, &[0, 1, 0, 0, 0, 7])
            .frame(),
        udp(A, "2001:db8:3::1", (1, 2), b"in no list").frame(),
        udp(
            B,
            A,
            (1, 2),
            b"a server is no client, but the pair matches all the same",
        )
        .frame(),
        udp(A, B, (1, 2), b"has PDM")
            .extension(DESTINATION, &pdm)
            .frame(),
        udp(A, B, (1, 2), &[0x77; 1413]).frame(),
        Build::new(A, B, 59, vec![]).frame(),
    ]
}

/// The frame that has to leave instead of `packet`, given the number and metrics that were chosen for it.
fn expected(oracle: &mut Oracle, packet: &Build, found: &Found) -> Vec<u8> {
    let option = oracle.seal(found.id, found.option.prseq, found.metrics);
    packet.with_option(&option).frame()
}

struct Found {
    id: KeyId,
    option: Sealed,
    metrics: Metrics,
}

fn open(oracle: &mut Oracle, ip: &Ipv6) -> Found {
    let option = ip.sealed().expect("a sealed option");
    let id = KeyId {
        tuple: ip.tuple(),
        generations: (1, 1),
        kri: 0,
    };
    let metrics = oracle
        .open_with(id, &option)
        .expect("the first key of the first epoch");
    Found {
        id,
        option,
        metrics,
    }
}

fn marks(settings: &Settings) {
    let dir = tempfile::tempdir().unwrap();
    let packets = marked();
    let frames: Vec<_> = packets.iter().map(Build::frame).collect();
    let (out, back) = through(dir.path(), settings, &frames, &[]);
    assert!(back.is_empty());
    assert_eq!(out.len(), packets.len());

    let mut oracle = Oracle::of(settings);
    let mut last_psntp = HashMap::new();
    let mut prseqs = HashMap::<_, Vec<u16>>::new();
    for (number, (packet, seen)) in packets.iter().zip(&out).enumerate() {
        let ip = seen.ipv6().unwrap();
        let found = open(&mut oracle, &ip);
        let next = last_psntp
            .get(&found.id)
            .map_or(found.metrics.psntp, |last: &u16| last.wrapping_add(1));
        last_psntp.insert(found.id, next);
        prseqs.entry(found.id).or_default().push(found.option.prseq);
        // One number a packet over all flows; nothing was ever received.
        let metrics = Metrics {
            scale_dtlr: 0,
            scale_dtls: 0,
            global_pointer: 1 + number as u32,
            psntp: next,
            psnlr: 0,
            delta_tlr: 0,
            delta_tls: 0,
        };
        let expected = expected(&mut oracle, packet, &Found { metrics, ..found });
        assert_eq!(
            hex::encode(&seen.frame),
            hex::encode(expected),
            "packet {number}: {packet:x?}"
        );
    }
    for (id, mut numbers) in prseqs {
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count, "{id:?}");
    }
}

#[test]
fn sealed_by_trusted_servers() {
    for aead in ["aes-128-gcm", "aes-256-gcm", "chacha20-poly1305"] {
        marks(&Settings {
            aead,
            ..Settings::default()
        });
    }
}

#[test]
fn sealed_by_asymmetric_poll() {
    marks(&Settings {
        mode: "asymmetric-poll",
        ..Settings::default()
    });
}

#[test]
fn a_key_ends_when_its_numbers_are_used_up() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::default();
    let frames = vec![udp(A, B, (1000, 53), b"again").frame(); 40_000];
    let (out, _) = through(dir.path(), &settings, &frames, &[]);
    assert_eq!(out.len(), frames.len());
    let mut oracle = Oracle::of(&settings);
    let mut numbers = [BTreeSet::new(), BTreeSet::new()];
    for (at, packet) in out.iter().enumerate() {
        let ip = packet.ipv6().unwrap();
        let option = ip.sealed().unwrap();
        let kri = u32::from(at >= 32_767);
        let id = KeyId {
            tuple: ip.tuple(),
            generations: (1, 1),
            kri,
        };
        assert!(oracle.open_with(id, &option).is_some(), "packet {at}");
        assert!(numbers[kri as usize].insert(option.prseq), "packet {at}");
    }
    assert_eq!(numbers.map(|n| n.len()), [32_767, 40_000 - 32_767]);
}

#[test]
fn decode_tells_what_stands_in_the_packets() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        rotation_packets: 256,
        ..Settings::default()
    };
    let frames: Vec<_> = (0..600u16)
        .map(|number| udp(A, B, (1000 + number % 2, 53), b"data").frame())
        .collect();
    let (out, _) = through(dir.path(), &settings, &frames, &[]);
    let told = decode(
        &dir.path().join("pdmgate.yaml"),
        &dir.path().join("to-outside.pcap"),
    );
    assert_eq!(told.len(), out.len());
    let mut ledger = Ledger::new(&settings, 1);
    for (packet, told) in out.iter().zip(&told) {
        let ip = packet.ipv6().unwrap();
        let sealed = ip.sealed().unwrap();
        let opened = ledger.enter(ip.tuple(), &sealed);
        assert_eq!(told["opened"], true, "{told:#}");
        assert_eq!(told["sport"], opened.id.tuple.2, "{told:#}");
        assert_eq!(told["key"]["kri"], opened.id.kri, "{told:#}");
        assert_eq!(
            (&told["prseq"], &told["f"]),
            (&sealed.prseq.into(), &u8::from(sealed.f).into())
        );
        let metrics = &told["metrics"];
        assert_eq!(metrics["psntp"], opened.metrics.psntp, "{told:#}");
        assert_eq!(
            metrics["global_pointer"], opened.metrics.global_pointer,
            "{told:#}"
        );
    }
    let strangers = tempfile::tempdir().unwrap();
    let config = strangers.path().join("pdmgate.yaml");
    let yaml = Settings::default().yaml("net_null0", "net_null1", strangers.path(), 0);
    std::fs::write(&config, yaml).unwrap();
    for told in decode(&config, &dir.path().join("to-outside.pcap")) {
        assert_eq!(told["opened"], false, "{told:#}");
    }
}

#[test]
fn in_the_clear() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        protection: "clear",
        ..Settings::default()
    };
    let packets = marked();
    let frames: Vec<_> = packets.iter().map(Build::frame).collect();
    let (out, _) = through(dir.path(), &settings, &frames, &[]);
    assert_eq!(out.len(), packets.len());
    for (number, (packet, seen)) in packets.iter().zip(&out).enumerate() {
        let ip = seen.ipv6().unwrap();
        let options = ip.destination_options();
        let (_, data) = options.iter().find(|(kind, _)| *kind == 0x0f).unwrap();
        let found = Metrics::read(&data[4..]);
        let metrics = Metrics {
            scale_dtlr: 0,
            scale_dtls: 0,
            global_pointer: 1 + number as u32,
            psntp: found.psntp,
            psnlr: 0,
            delta_tlr: 0,
            delta_tls: 0,
        };
        let option = [
            &[0x0f, 0x12, 0x20, 0, data[2], data[3]],
            &metrics.bytes()[..],
        ]
        .concat();
        let expected = packet.with_option(&option).frame();
        assert_eq!(
            hex::encode(&seen.frame),
            hex::encode(expected),
            "packet {number}: {packet:x?}"
        );
    }
}

#[test]
fn what_is_not_marked_passes_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::default();
    let frames = untouched();
    let (out, back) = through(dir.path(), &settings, &frames, &frames);
    // The pair matches whichever end is the local one.
    let of_the_pair = [8];
    for (number, (frame, seen)) in frames.iter().zip(&out).enumerate() {
        if !of_the_pair.contains(&number) {
            assert_eq!(
                hex::encode(&seen.frame),
                hex::encode(frame),
                "packet {number} out"
            );
        }
    }
    for (number, (frame, seen)) in frames.iter().zip(&back).enumerate() {
        assert_eq!(
            hex::encode(&seen.frame),
            hex::encode(frame),
            "packet {number} in"
        );
    }
    assert_eq!((out.len(), back.len()), (frames.len(), frames.len()));
}

#[test]
fn the_longest_packets_fit_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::default();
    // 40 of IPv6, 8 of UDP, 40 of option header: 1412 bytes of payload make 1500.
    let fits = udp(A, B, (1, 2), &[1; 1412]);
    let exceeds = udp(A, B, (1, 2), &[1; 1413]);
    let (out, back) = through(dir.path(), &settings, &[fits.frame(), exceeds.frame()], &[]);
    assert_eq!(out[0].frame.len(), 14 + 1500);
    assert_eq!(hex::encode(&out[1].frame), hex::encode(exceeds.frame()));
    assert!(back.is_empty());
}

#[test]
fn the_sender_of_too_long_packets_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        over_mtu: "packet-too-big",
        ..Settings::default()
    };
    let exceeds = udp(A, B, (1, 2), &[1; 1413]);
    let (out, back) = through(dir.path(), &settings, &[exceeds.frame()], &[]);
    assert!(out.is_empty());
    assert_eq!(back.len(), 1);
    let sent = exceeds.frame();
    let seen = &back[0].frame;
    assert_eq!(
        (&seen[..6], &seen[6..12]),
        (&sent[6..12], &sent[..6]),
        "back to whom it came from"
    );
    let ip = back[0].ipv6().unwrap();
    assert_eq!(
        (ip.source, ip.destination, ip.protocol),
        (exceeds.destination, exceeds.source, 58)
    );
    assert_eq!(ip.upper[..2], [2, 0]);
    assert_eq!(ip.upper[4..8], 1460u32.to_be_bytes());
    assert_eq!(
        ip.upper[8..],
        sent[14..14 + ip.upper.len() - 8],
        "as much of the packet as fits"
    );
    assert_eq!(seen.len(), 14 + 1280);
    let whole = Build {
        protocol: 58,
        upper: ip.upper.to_vec(),
        ..Build::new(B, A, 59, vec![])
    };
    assert_eq!(whole.checksum(), 0);
}

#[test]
fn the_oracle_knows_the_known_answers() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/vectors/pdmv2-draft02.json"
    );
    let vectors: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let mut checked = 0;
    for case in vectors["cases"].as_array().unwrap() {
        let text = |name: &str| case[name].as_str().unwrap();
        let number = |name: &str| case[name].as_u64().unwrap();
        let aead =
            ["aes-128-gcm", "aes-256-gcm", "chacha20-poly1305"][number("aead_id") as usize - 1];
        if case["kem_id"] != 0x20 {
            continue;
        }
        let entry = |name: &str| {
            let (prefix, length) = text(name).split_once('/').unwrap();
            Entry(prefix.parse().unwrap(), length.parse().unwrap())
        };
        let (client, server) = (entry("client_entry"), entry("server_entry"));
        let mut oracle = Oracle::new(
            text("mode"),
            aead,
            text("salt"),
            text("pms"),
            text("group"),
            client,
            server,
        );
        let id = KeyId {
            tuple: (
                text("src").parse().unwrap(),
                text("dst").parse().unwrap(),
                number("sport") as u16,
                number("dport") as u16,
                number("protocol") as u8,
            ),
            generations: (
                number("generation_src") as u32,
                number("generation_dst") as u32,
            ),
            kri: number("kri") as u32,
        };
        let clear = hex::decode(text("clear_option")).unwrap();
        let option = oracle.seal(id, number("prseq") as u16, Metrics::read(&clear[6..]));
        assert_eq!(hex::encode(option), text("sealed_option"), "{case:#}");
        checked += 1;
    }
    assert!(checked > 5);
}
