//! Real dissectors on packets that the option was put into and taken out of: Wireshark and tcpdump must find nothing
//! wrong with the header chain, and find the upper layer, its ports and a right checksum behind it.

mod packets;

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use packets::{DPORT, Routing, Spec, Tlv, Upper};
use pcap_file::pcap::{PcapPacket, PcapWriter};
use pdmgate::wire::icmpv6::packet_too_big;
use pdmgate::wire::pdmv2::PDM_LEN;
use pdmgate::wire::{Ipv6Packet, PacketBuf, Parsed, VecBuf, insert, parse, plan_insert, strip};

/// PDM's, whose dissector knows the length of RFC 8250 only and says so of every other.
const PDM_TYPE: u8 = 0x0f;
/// RFC 4727's first for experiments: of this, dissectors only check that it ends within its header.
const EXPERIMENT_TYPE: u8 = 0x1e;

/// Another option: RFC 4727's second for experiments.
fn experiment(len: usize, align: (usize, usize)) -> Tlv {
    Tlv {
        kind: 0x3e,
        data: vec![0xaa; len],
        align,
    }
}

/// One of each kind of everything, in all combinations.
fn shapes() -> Vec<Spec> {
    let router_alert = Tlv {
        kind: 5,
        data: vec![0, 0],
        align: (2, 0),
    };
    let mut shapes = Vec::new();
    for tags in [vec![], vec![100], vec![100, 200]] {
        for hop_by_hop in [None, Some(vec![router_alert.clone()])] {
            for (first_dest_opts, routing) in [
                (None, None),
                (None, Some(Routing::Type2)),
                (
                    Some(vec![experiment(3, (1, 0))]),
                    Some(Routing::Segments { left: 1 }),
                ),
                (None, Some(Routing::Segments { left: 0 })),
            ] {
                for dest_opts in [
                    None,
                    Some(vec![]),
                    Some(vec![experiment(1, (1, 0))]),
                    Some(vec![Tlv::home_address()]),
                    Some(vec![
                        experiment(4, (4, 2)),
                        experiment(40, (8, 7)),
                        experiment(0, (1, 0)),
                    ]),
                ] {
                    for upper in [
                        Upper::Udp,
                        Upper::Tcp { syn: true },
                        Upper::Echo,
                        Upper::Sctp,
                        Upper::Mobility,
                    ] {
                        shapes.push(Spec {
                            tags: tags.clone(),
                            hop_by_hop: hop_by_hop.clone(),
                            first_dest_opts: first_dest_opts.clone(),
                            routing,
                            shim6: false,
                            dest_opts: dest_opts.clone(),
                            upper,
                            payload: if upper == (Upper::Tcp { syn: true }) {
                                vec![]
                            } else {
                                vec![0xda; 9]
                            },
                            trailer: 0,
                        });
                    }
                }
            }
        }
    }
    shapes
}

fn accepted(frame: &[u8], option_type: u8) -> Ipv6Packet {
    match parse(frame, option_type) {
        Ok(Parsed::Packet(p)) => p,
        other => panic!("expected a packet, found {other:?}"),
    }
}

/// A frame, and the upper layer that has to be found in it.
struct Sample {
    upper: Upper,
    /// Option Length, if it has the option.
    option_len: Option<u8>,
    frame: Vec<u8>,
}

/// Every shape with each option put into it.
fn marked(option_type: u8) -> Vec<Sample> {
    let mut samples = Vec::new();
    for spec in shapes() {
        for option_len in [0x22, 0x12, 0x0a] {
            let mut option = vec![0x5a; usize::from(option_len) + 2];
            option[..6].copy_from_slice(&[option_type, option_len, 0x20, 0, 0, 2]);
            let frame = spec.build().frame;
            let p = accepted(&frame, option_type);
            let plan = plan_insert(&frame, &p, option.len()).unwrap();
            let mut buf = VecBuf::new(&frame);
            insert(&mut buf, &p, &plan, &option).unwrap();
            samples.push(Sample {
                upper: spec.upper,
                option_len: Some(option_len),
                frame: buf.data().to_vec(),
            });
        }
    }
    samples
}

/// Every shape with the option taken out again, from each place among the others.
fn unmarked(option_type: u8) -> Vec<Sample> {
    let mut samples = Vec::new();
    for spec in shapes() {
        let others = spec.dest_opts.clone().unwrap_or_default();
        for place in 0..=others.len() {
            let mut list = others.clone();
            let ours = Tlv {
                kind: option_type,
                data: [&[0x20, 0, 0, 2][..], &[0x5a; 14]].concat(),
                align: (4, 0),
            };
            list.insert(place, ours);
            let spec = Spec {
                dest_opts: Some(list),
                ..spec.clone()
            };
            let frame = spec.build().frame;
            let mut buf = VecBuf::new(&frame);
            assert!(strip(&mut buf, &accepted(&frame, option_type)));
            samples.push(Sample {
                upper: spec.upper,
                option_len: None,
                frame: buf.data().to_vec(),
            });
        }
    }
    samples
}

fn write_pcap(path: &Path, samples: &[Sample]) {
    let mut pcap = PcapWriter::new(std::fs::File::create(path).unwrap()).unwrap();
    for (i, Sample { frame, .. }) in samples.iter().enumerate() {
        let time = Duration::from_millis(i as u64);
        let packet = PcapPacket::new(time, frame.len() as u32, frame);
        pcap.write_packet(&packet).unwrap();
    }
}

/// What the tool prints about the file, or `None` where it is not installed.
fn output(tool: &str, arguments: &[&str], pcap: &Path) -> Option<String> {
    match Command::new(tool)
        .args(arguments)
        .arg("-r")
        .arg(pcap)
        .output()
    {
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{tool}: {errors}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            println!("skipped: {tool} is not installed");
            None
        }
        Err(e) => panic!("{tool}: {e}"),
    }
}

/// Wireshark finds nothing malformed in the samples, and their upper layer with its port or type and checksum.
/// `of_the_option` tells the samples whose option it takes for a PDM of the wrong length.
fn check_by_tshark(samples: &[Sample], of_the_option: impl Fn(&Sample) -> bool, pcap: &Path) {
    let mut arguments = vec!["-n", "-T", "fields"];
    // No SCTP: its checksum is a CRC, which the samples do not have.
    for checked in ["tcp.check_checksum:TRUE", "udp.check_checksum:TRUE"] {
        arguments.extend(["-o", checked]);
    }
    for name in [
        "_ws.malformed",
        "_ws.expert.message",
        "udp.dstport",
        "udp.checksum.status",
        "tcp.dstport",
        "tcp.checksum.status",
        "icmpv6.type",
        "icmpv6.checksum.status",
        "sctp.dstport",
        "mip6.mhtype",
    ] {
        arguments.extend(["-e", name]);
    }
    let Some(text) = output("tshark", &arguments, pcap) else {
        return;
    };
    assert_eq!(text.lines().count(), samples.len());
    for (line, sample) in text.lines().zip(samples) {
        let about = format!("{line}\n{}", hex::encode(&sample.frame));
        let (malformed, rest) = line.split_once('\t').unwrap();
        let (messages, found) = rest.split_once('\t').unwrap();
        if of_the_option(sample) {
            assert!(messages.contains("PDM: Invalid length"), "{about}");
        } else {
            assert_eq!(malformed, "", "{about}");
        }
        let expected = match sample.upper {
            Upper::Udp => format!("{DPORT}\t1\t\t\t\t\t\t"),
            Upper::Tcp { .. } => format!("\t\t{DPORT}\t1\t\t\t\t"),
            Upper::Echo => "\t\t\t\t128\t1\t\t".to_owned(),
            Upper::Sctp => format!("\t\t\t\t\t\t{DPORT}\t"),
            Upper::Mobility => "\t\t\t\t\t\t\t0".to_owned(),
            Upper::Experimental => unreachable!("no sample has it"),
        };
        assert_eq!(found, expected, "{about}");
    }
}

/// tcpdump reads every sample to its upper layer. Its checksums do not count: it does not know about home addresses.
fn check_by_tcpdump(option_type: u8, samples: &[Sample], pcap: &Path) {
    let Some(text) = output("tcpdump", &["-nn", "-v"], pcap) else {
        return;
    };
    assert_eq!(text.lines().count(), samples.len());
    for (line, sample) in text.lines().zip(samples) {
        let about = format!("{line}\n{}", hex::encode(&sample.frame));
        for complaint in [
            "[|",
            "invalid",
            "malformed",
            "truncated",
            "trunc)",
            "too short",
        ] {
            assert!(!line.contains(complaint), "{about}");
        }
        if let Some(len) = sample.option_len {
            let option = format!("(opt_type {option_type:#04x}: len={len})");
            assert!(line.contains(&option), "{about}");
        }
        let upper = match sample.upper {
            Upper::Udp => format!("{DPORT}: ["),
            Upper::Tcp { .. } => format!("{DPORT}: Flags [S]"),
            Upper::Echo => "ICMP6, echo request".to_owned(),
            Upper::Sctp => format!(".{DPORT}: sctp (1) [COOKIE ACK]"),
            Upper::Mobility => "mobility: BRR".to_owned(),
            Upper::Experimental => unreachable!("no sample has it"),
        };
        assert!(line.contains(&upper), "{about}");
    }
}

fn check(option_type: u8, samples: &[Sample], of_the_option: impl Fn(&Sample) -> bool) {
    let folder = tempfile::tempdir().unwrap();
    let pcap = folder.path().join("samples.pcap");
    write_pcap(&pcap, samples);
    check_by_tshark(samples, of_the_option, &pcap);
    check_by_tcpdump(option_type, samples, &pcap);
}

#[test]
fn marked_packets_are_well_formed() {
    check(EXPERIMENT_TYPE, &marked(EXPERIMENT_TYPE), |_| false);
}

#[test]
fn only_the_option_length_is_news_to_wireshark() {
    check(PDM_TYPE, &marked(PDM_TYPE), |sample| {
        sample.option_len.is_some_and(|len| len != PDM_LEN)
    });
}

#[test]
fn unmarked_packets_are_well_formed() {
    check(PDM_TYPE, &unmarked(PDM_TYPE), |_| false);
}

#[test]
fn packet_too_big_is_well_formed() {
    let mut samples = Vec::new();
    for spec in shapes() {
        let spec = Spec {
            payload: vec![0xda; 1400],
            ..spec
        };
        let frame = spec.build().frame;
        let mut buf = VecBuf::new(&frame);
        packet_too_big(&mut buf, &accepted(&frame, PDM_TYPE), 1400, None).unwrap();
        samples.push(Sample {
            upper: spec.upper,
            option_len: None,
            frame: buf.data().to_vec(),
        });
    }
    let folder = tempfile::tempdir().unwrap();
    let pcap = folder.path().join("errors.pcap");
    write_pcap(&pcap, &samples);
    let mut arguments = vec!["-n", "-T", "fields", "-E", "occurrence=f"];
    for name in [
        "ipv6.hlim",
        "icmpv6.type",
        "icmpv6.mtu",
        "icmpv6.checksum.status",
    ] {
        arguments.extend(["-e", name]);
    }
    if let Some(text) = output("tshark", &arguments, &pcap) {
        assert_eq!(text, "64\t2\t1400\t1\n".repeat(samples.len()));
    }
    if let Some(text) = output("tcpdump", &["-nn", "-v"], &pcap) {
        let told = "[icmp6 sum ok] ICMP6, packet too big, mtu 1400";
        assert_eq!(text.matches(told).count(), samples.len());
    }
}
