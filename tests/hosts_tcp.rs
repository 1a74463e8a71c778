//! Two real hosts, two appliances between them: a big transfer arrives intact, every packet of it carries a sealed option
//! between the appliances and none at the hosts, and who looks on learns nothing.

mod common;

use common::capture::{Ipv6, Packet, malformed, read};
use common::gate::{Driver, Settings};
use common::lab::{Datagrams, Lab, Place, Shape, Side};
use common::oracle::Ledger;
use std::collections::BTreeSet;
use std::time::Duration;

/// What the hosts should not get to see: a Destination Options header, first or behind a hop-by-hop one.
const DESTINATION_OPTIONS: &str = "ip6[6] == 60 or (ip6[6] == 0 and ip6[40] == 60)";

fn of_the_pair(packet: &Packet) -> Option<Ipv6<'_>> {
    packet.ipv6().filter(|ip| !ip.is_link_business())
}

#[test]
fn a_hundred_megabytes_arrive_intact_and_sealed() {
    let Some(mut lab) = Lab::new(Shape::default()) else {
        return;
    };
    let settings = Settings::default();
    let gate_a = lab.gate(Side::A, Driver::AfPacket, &settings);
    let gate_b = lab.gate(Side::B, Driver::AfPacket, &settings);
    let between = lab.capture(Place::Outside(Side::A), "");
    let at_a = lab.capture(Place::Host(Side::A), DESTINATION_OPTIONS);
    let at_b = lab.capture(Place::Host(Side::B), DESTINATION_OPTIONS);

    assert_eq!(lab.ping(Side::A, 20, "0.05").len(), 20);
    let seconds = lab.tcp(Side::A, 100_000_000, 5001, Duration::from_secs(300));
    println!("100 MB in {seconds:.1} s");
    // A key lasts 32,767 packets, fewer than there were. Asked for at once: what follows may take longer than an idle flow is kept.
    let flows = gate_a.flows();
    let flow = flows.iter().find(|flow| flow["remote_port"] == 5001);
    let flow = flow.unwrap_or_else(|| panic!("no flow to port 5001 in {flows:#?}"));
    assert!(flow["kri_out"].as_u64().unwrap() >= 2);

    for (at, capture) in [("A", at_a), ("B", at_b)] {
        assert_eq!(capture.packets().len(), 0, "host {at} saw options");
    }
    let file = between.file();
    let packets = read(&file);
    let mut ledger = Ledger::new(&settings, 1);
    let mut payload = 0;
    let mut bits = vec![0u32; 30 * 8];
    for ip in packets.iter().filter_map(of_the_pair) {
        let options = ip.destination_options();
        assert_eq!(options.len(), 1, "{ip:02x?}");
        assert_eq!(
            (options[0].0, options[0].1.len()),
            (0x0f, 0x22),
            "{ip:02x?}"
        );
        let sealed = ip.sealed().unwrap();
        assert_eq!(sealed.data[..2], [0x20, 0], "version 2, nothing reserved");
        for (bit, count) in bits.iter_mut().enumerate() {
            *count += u32::from(sealed.data[4 + bit / 8] >> (bit % 8) & 1);
        }
        ledger.enter(ip.tuple(), &sealed);
        if ip.tuple().3 == 5001 {
            payload += ip.tcp_payload();
        }
    }
    assert!(
        payload >= 100_000_000,
        "{payload} bytes of payload were captured"
    );
    // Sealed bytes are like coin tosses: each bit is set in half of the packets, within six standard deviations.
    let all = ledger.len() as f64;
    for (bit, count) in bits.iter().enumerate() {
        let off = (f64::from(*count) - all / 2.0).abs();
        assert!(
            off < 6.0 * (all / 4.0).sqrt(),
            "bit {bit} is set in {count} of {all} packets"
        );
    }
    let mut stranger = Ledger::new(&Settings::default(), 1);
    let sample = packets.iter().filter_map(of_the_pair).take(10);
    assert!(
        sample
            .into_iter()
            .all(|ip| stranger.open(ip.tuple(), &ip.sealed().unwrap()).is_none())
    );
    // Wireshark knows RFC 8250's option by this type and objects to the length, and to nothing else.
    let objections = BTreeSet::from(["PDM: Invalid length (34 bytes)".to_owned()]);
    assert_eq!(malformed(&file), objections);

    assert_eq!(gate_b.count("failed_open.authentication"), 0);
    gate_a.stop();
    gate_b.stop();
}

#[test]
fn protection_in_the_clear_and_the_other_ciphers() {
    let settings = [
        Settings {
            protection: "clear",
            ..Settings::default()
        },
        Settings {
            aead: "aes-256-gcm",
            ..Settings::default()
        },
        Settings {
            aead: "chacha20-poly1305",
            mode: "asymmetric-poll",
            ..Settings::default()
        },
    ];
    for settings in settings {
        let Some(mut lab) = Lab::new(Shape::default()) else {
            return;
        };
        let gate_a = lab.gate(Side::A, Driver::AfPacket, &settings);
        let gate_b = lab.gate(Side::B, Driver::AfPacket, &settings);
        let at_b = lab.capture(Place::Host(Side::B), DESTINATION_OPTIONS);
        let between = lab.capture(Place::Outside(Side::B), "");
        assert_eq!(lab.ping(Side::B, 10, "0.05").len(), 10);
        lab.tcp(Side::B, 5_000_000, 5001, Duration::from_secs(60));
        assert_eq!(at_b.packets().len(), 0);
        let length = if settings.protection == "clear" {
            0x12
        } else {
            0x22
        };
        let packets = between.packets();
        for ip in packets.iter().filter_map(of_the_pair) {
            let options = ip.destination_options();
            assert_eq!(
                (options.len(), options[0].0, options[0].1.len()),
                (1, 0x0f, length)
            );
        }
        gate_a.stop();
        gate_b.stop();
    }
}

#[test]
fn a_type_for_experiments_is_malformed_to_nobody() {
    let Some(mut lab) = Lab::new(Shape::default()) else {
        return;
    };
    let settings = Settings {
        policy_extra: "  option_type: 0x1e",
        ..Settings::default()
    };
    let gate_a = lab.gate(Side::A, Driver::AfPacket, &settings);
    let gate_b = lab.gate(Side::B, Driver::AfPacket, &settings);
    let between = lab.capture(Place::Outside(Side::B), "");
    assert_eq!(lab.ping(Side::B, 10, "0.05").len(), 10);
    lab.tcp(Side::B, 1_000_000, 5001, Duration::from_secs(60));
    let file = between.file();
    for ip in read(&file).iter().filter_map(of_the_pair) {
        let options = ip.destination_options();
        assert_eq!((options[0].0, options[0].1.len()), (0x1e, 0x22));
    }
    assert_eq!(malformed(&file), BTreeSet::new());
    gate_a.stop();
    gate_b.stop();
}

#[test]
fn hosts_that_fill_the_link_are_told_to_send_less() {
    let shape = Shape {
        host_mtu: 1500,
        outside_mtu: 1500,
        ..Shape::default()
    };
    let Some(mut lab) = Lab::new(shape) else {
        return;
    };
    let settings = Settings {
        over_mtu: "packet-too-big",
        ..Settings::default()
    };
    let gate_a = lab.gate(Side::A, Driver::AfPacket, &settings);
    let gate_b = lab.gate(Side::B, Driver::AfPacket, &settings);
    let between = lab.capture(Place::Outside(Side::A), "");
    lab.tcp(Side::A, 5_000_000, 5001, Duration::from_secs(60));
    for packet in between.packets() {
        if let Some(ip) = of_the_pair(&packet) {
            assert!(ip.sealed().is_some(), "{ip:02x?}");
            assert!(packet.frame.len() <= 14 + 1500);
        }
    }
    assert!(gate_a.count("packet_too_big_sent") > 0);
    gate_a.stop();
    gate_b.stop();
}

/// `policy.mtu` says what is marked, not what the ports take.
#[test]
fn a_narrow_path_leaves_the_ports_as_wide_as_they_are() {
    let shape = Shape {
        host_mtu: 1500,
        outside_mtu: 1500,
        ..Shape::default()
    };
    let Some(lab) = Lab::new(shape) else {
        return;
    };
    let settings = Settings {
        mtu: 1400,
        ..Settings::default()
    };
    let gate_a = lab.gate(Side::A, Driver::AfPacket, &settings);
    let gate_b = lab.gate(Side::B, Driver::AfPacket, &settings);
    let stream = Datagrams {
        count: 100,
        rate: 500,
        size: 1500 - 40 - 8,
        echo: true,
    };
    let (seen, _) = lab.udp(Side::A, 6001, &stream);
    assert_eq!(seen["distinct"], 100);
    assert_eq!(gate_a.count("passed.out.over_mtu"), 100);
    gate_a.stop();
    gate_b.stop();
}

#[test]
fn clamping_the_mss_spares_them_the_message() {
    let shape = Shape {
        host_mtu: 1500,
        outside_mtu: 1500,
        ..Shape::default()
    };
    let Some(mut lab) = Lab::new(shape) else {
        return;
    };
    let settings = Settings {
        policy_extra: "  mss_clamp: true",
        ..Settings::default()
    };
    let gate_a = lab.gate(Side::A, Driver::AfPacket, &settings);
    let gate_b = lab.gate(Side::B, Driver::AfPacket, &settings);
    lab.tcp(Side::A, 5_000_000, 5001, Duration::from_secs(60));
    assert_eq!(gate_a.count("passed.out.over_mtu"), 0);
    assert!(gate_a.count("mss_clamped") > 0);
    gate_a.stop();
    gate_b.stop();
}
