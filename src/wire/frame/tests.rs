use super::*;

const MACS: &str = "02000000000a 02000000000b";
const SRC: &str = "20010db8000100000000000000000017";
const DST: &str = "20010db8000200000000000000000001";
const UDP: &str = "14e9 0035 0008 beef";
const TCP_SYN: &str = "c000 01bb 00000001 00000000 5002 ffff beef 0000";
/// PadN of 2 and a sealed option with PRSEQ 1, behind the two bytes that open the header.
const SEALED: &str =
    "0100 0f22 2000 0002 00000000000000000000000000000000 0000000000000000000000000000";

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex.replace(char::is_whitespace, "")).unwrap()
}

/// A frame without tags; Payload Length is that of `payload`.
fn packet(next: u8, payload: &str) -> Vec<u8> {
    packet_between(SRC, DST, next, payload)
}

fn packet_between(src: &str, dst: &str, next: u8, payload: &str) -> Vec<u8> {
    let len = bytes(payload).len();
    bytes(&format!(
        "{MACS} 86dd 60000000 {len:04x} {next:02x} 40 {src} {dst} {payload}"
    ))
}

fn parsed(frame: &[u8]) -> Result<Parsed, Malformed> {
    parse(frame, 0x0f)
}

fn accepted(frame: &[u8]) -> Ipv6Packet {
    match parsed(frame) {
        Ok(Parsed::Packet(p)) => p,
        other => panic!("expected a packet, found {other:?}"),
    }
}

fn untouched(why: Untouched) -> Result<Parsed, Malformed> {
    Ok(Parsed::Untouched(why))
}

#[test]
fn plain_tcp_syn() {
    let p = accepted(&packet(6, TCP_SYN));
    assert_eq!(
        p,
        Ipv6Packet {
            tuple: FiveTuple {
                src: bytes(SRC).try_into().unwrap(),
                dst: bytes(DST).try_into().unwrap(),
                sport: 49152,
                dport: 443,
                protocol: 6,
            },
            ip_at: 14,
            upper_at: 54,
            next_header_at: 20,
            dest_opts_at: None,
            option: None,
            has_option_before: false,
            dest_opts_named_at: 20,
            payload_len: 20,
            is_tcp_syn: true,
        }
    );
    assert_eq!((p.l3_len(), p.end_at()), (60, 74));
    assert!(!accepted(&packet(6, &TCP_SYN.replace("5002", "5010"))).is_tcp_syn);
    assert!(accepted(&packet(6, &TCP_SYN.replace("5002", "5012"))).is_tcp_syn);
}

#[test]
fn a_packet_fits_one_cache_line() {
    assert!(size_of::<Ipv6Packet>() <= 64);
}

#[test]
fn reasons_are_listed_in_order() {
    for (i, why) in Untouched::ALL.into_iter().enumerate() {
        assert_eq!(why as usize, i);
    }
    for (i, why) in Malformed::ALL.into_iter().enumerate() {
        assert_eq!(why as usize, i);
    }
}

#[test]
fn up_to_two_vlan_tags() {
    let plain = packet(17, UDP);
    let tagged = |tags: &str| [&plain[..12], &bytes(tags), &plain[12..]].concat();
    for (tags, ip_at) in [
        ("8100 0064", 18),
        ("88a8 0064", 18),
        ("9100 0064", 18),
        ("88a8 0064 8100 0065", 22),
        ("8100 0064 8100 0065", 22),
    ] {
        let p = accepted(&tagged(tags));
        assert_eq!((p.ip_at, p.upper_at), (ip_at, ip_at + 40), "{tags}");
    }
    assert_eq!(
        parsed(&tagged("88a8 0064 8100 0065 8100 0066")),
        untouched(Untouched::NonIp)
    );
    assert_eq!(
        parsed(&tagged("8100 0064")[..17]),
        Err(Malformed::Truncated)
    );
}

#[test]
fn other_ethertypes() {
    let with = |ethertype: &str| bytes(&format!("{MACS} {ethertype} 45000000"));
    assert_eq!(parsed(&with("0800")), untouched(Untouched::Ipv4));
    assert_eq!(parsed(&with("8100 0064 0800")), untouched(Untouched::Ipv4));
    assert_eq!(parsed(&with("0806")), untouched(Untouched::NonIp), "ARP");
    assert_eq!(
        parsed(&with("0026")),
        untouched(Untouched::NonIp),
        "IEEE 802.3 length"
    );
    assert_eq!(parsed(&with("86dd")), Err(Malformed::Truncated));
}

#[test]
fn version_must_be_6() {
    let mut frame = packet(17, UDP);
    frame[14] = 0x45;
    assert_eq!(parsed(&frame), Err(Malformed::Version));
}

#[test]
fn upper_layers_and_how_short_they_may_be() {
    for (protocol, least) in [(17, 8), (136, 8), (132, 12), (33, 12), (6, 20)] {
        let header = &TCP_SYN.replace(' ', "")[..2 * least];
        let p = accepted(&packet(protocol, header));
        assert_eq!((p.tuple.sport, p.tuple.dport), (49152, 443));
        assert_eq!((p.tuple.protocol, p.is_tcp_syn), (protocol, protocol == 6));
        assert_eq!(
            parsed(&packet(protocol, &header[2..])),
            Err(Malformed::Truncated),
            "protocol {protocol}"
        );
    }
    for protocol in [4, 41, 47, 135, 253] {
        let p = accepted(&packet(protocol, "aaaa"));
        assert_eq!(
            (p.tuple.sport, p.tuple.dport, p.tuple.protocol),
            (0, 0, protocol)
        );
    }
}

#[test]
fn icmpv6_by_type() {
    let kind = |icmp_type: u8| parsed(&packet(58, &format!("{icmp_type:02x}00 beef 0001 0002")));
    for echo in [128, 129] {
        assert!(
            matches!(kind(echo), Ok(Parsed::Packet(p)) if p.tuple.sport == 0 && p.tuple.dport == 0)
        );
    }
    for (types, why) in [
        (&[130, 131, 132, 143][..], Untouched::Mld),
        (&[133, 134, 135, 136, 137], Untouched::NeighbourDiscovery),
        (&[1, 2, 3, 4, 127, 138, 141, 255], Untouched::Icmpv6Other),
    ] {
        for &icmp_type in types {
            assert_eq!(kind(icmp_type), untouched(why), "type {icmp_type}");
        }
    }
    assert_eq!(parsed(&packet(58, "80 00 be")), Err(Malformed::Truncated));
    assert_eq!(
        parsed(&packet(58, "8000 beef 0001 00")),
        Err(Malformed::Truncated)
    );
}

#[test]
fn multicast_but_for_what_keeps_the_link_together() {
    let group = "ff0200000000000000000000000000fb";
    let to_group = |next, payload: &str| parsed(&packet_between(SRC, group, next, payload));
    assert_eq!(to_group(17, UDP), untouched(Untouched::Multicast));
    assert_eq!(
        to_group(58, "8000 beef 0001 0002"),
        untouched(Untouched::Multicast)
    );
    assert_eq!(
        to_group(44, "1100 0000 00000000"),
        untouched(Untouched::Multicast)
    );
    assert_eq!(
        to_group(58, "8700 beef 00000000"),
        untouched(Untouched::NeighbourDiscovery)
    );
    let router_alert = "3a00 0502 0000 0100";
    assert_eq!(
        to_group(0, &format!("{router_alert} 8f00 beef 00000000")),
        untouched(Untouched::Mld)
    );
    assert_eq!(to_group(17, "14e9"), Err(Malformed::Truncated));
    assert_eq!(
        parsed(&packet_between(group, DST, 17, UDP)),
        untouched(Untouched::Multicast),
        "from a group"
    );
    let through = format!("1102 0201 00000000 {group} {UDP}");
    assert_eq!(
        parsed(&packet(43, &through)),
        untouched(Untouched::Multicast)
    );
}

#[test]
fn option_kinds() {
    let kind = |header: &str| {
        let p = accepted(&packet(60, &format!("{header} {UDP}")));
        assert_eq!(p.dest_opts_at, Some(54));
        assert_eq!(p.tuple.sport, 5353);
        p.option.map(|option| (option.at, option.kind))
    };
    assert_eq!(
        kind(&format!("1104 {SEALED}")),
        Some((58, OptionKind::Sealed))
    );
    let clear = "0f12 2000 0002 0000 00000000 00000000 00000000";
    assert_eq!(
        kind(&format!("1102 0100 {clear}")),
        Some((58, OptionKind::Clear))
    );
    let option_first = format!("1102 {clear} 0100");
    assert_eq!(
        kind(&option_first),
        Some((56, OptionKind::Clear)),
        "as Linux writes it"
    );
    let pdm = "0f0a 0000 00000000 00000000";
    assert_eq!(
        kind(&format!("1101 {pdm} 0100")),
        Some((56, OptionKind::Pdm))
    );
    assert_eq!(
        kind(&format!("1103 0000 {clear} 0104 00000000 0000")),
        Some((58, OptionKind::Clear))
    );
    // What has the type but is nothing known: length, version, PRSEQ 0, no room for a header.
    for (header, at) in [
        ("1101 0f0b 0000 00000000 00000000 0000", 56),
        (&option_first.replace("0f12 2000", "0f12 1000"), 56),
        (&option_first.replace("2000 0002", "2000 0001"), 56),
        ("1100 0f02 0000 0100", 56),
        ("1100 0104 00000000", 0),
    ] {
        let expected = (at != 0).then_some((at, OptionKind::Unknown));
        assert_eq!(kind(header), expected, "{header}");
    }
    // Only the first counts, even if the second is better.
    assert_eq!(
        kind(&format!("1103 0f02 0000 0100 {clear} 0000 0000")),
        Some((56, OptionKind::Unknown))
    );
    // Another type is configured.
    let frame = packet(60, &format!("1102 {clear} 0100 {UDP}"));
    assert!(matches!(parse(&frame, 0x1e), Ok(Parsed::Packet(p)) if p.option.is_none()));
}

#[test]
fn only_the_destination_options_before_the_upper_layer_count() {
    let option = "0f0a 0000 00000000 00000000 0100";
    // Hop-by-hop, Destination Options, travelled routing header, UDP.
    let first = format!("3c00 0104 00000000  2b01 {option}  1100 0000 00000000  {UDP}");
    let p = accepted(&packet(0, &first));
    assert_eq!((p.dest_opts_at, p.option), (None, None));
    assert!(p.has_option_before);
    assert_eq!((p.next_header_at, p.upper_at), (54 + 24, 54 + 32));
    assert_eq!(p.dest_opts_named_at, p.next_header_at);
    // The same with a second one at the end.
    let both = first.replace(
        "1100 0000 00000000",
        &format!("3c00 0000 00000000 1101 {option}"),
    );
    let p = accepted(&packet(0, &both));
    assert_eq!(p.dest_opts_at, Some(54 + 32));
    assert_eq!(p.option.map(|o| o.at), Some(54 + 34));
    assert_eq!((p.dest_opts_named_at, p.next_header_at), (54 + 24, 54 + 32));
    // Two in a row: the last.
    let p = accepted(&packet(
        60,
        &format!("3c01 {option} 1100 0104 00000000 {UDP}"),
    ));
    assert_eq!((p.dest_opts_at, p.option), (Some(54 + 16), None));
    assert!(p.has_option_before);
}

#[test]
fn option_lengths_that_lie() {
    for (next, headers) in [
        (0, "1100 0105 00000000"),
        (0, "1101 0502 0000 0000 0000 0000 0000 0001"),
        (60, "1100 0105 00000000"),
        (60, "1100 00 00 00 00 00 0f"),
        (60, "1101 0f0d 0000 00000000 00000000 0000"),
        (60, "2b00 1e05 00000000 1100 0000 00000000"),
        (60, "3c00 1e05 00000000 1100 0104 00000000"),
    ] {
        let frame = packet(next, &format!("{headers} {UDP}"));
        assert_eq!(parsed(&frame), Err(Malformed::OptionLength), "{headers}");
    }
}

#[test]
fn routing_headers() {
    let end = "fd000000000000000000000000000099";
    let via = "fd000000000000000000000000000055";
    let route = |routing: &str| {
        parsed(&packet(43, &format!("{routing} {UDP}"))).map(|parsed| match parsed {
            Parsed::Packet(p) => Ok(hex::encode(p.tuple.dst)),
            Parsed::Untouched(why) => Err(why),
        })
    };
    let ends = |at: &str| Ok(Ok(at.to_owned()));
    let unknown = Ok(Err(Untouched::RoutingUnknown));
    let refused = Err(Malformed::Routing);

    assert_eq!(route(&format!("1102 0201 00000000 {end}")), ends(end));
    assert_eq!(route(&format!("1102 0200 00000000 {end}")), ends(DST));
    assert_eq!(route(&format!("1102 0202 00000000 {end}")), refused);
    assert_eq!(route("1100 0201 00000000"), refused);

    assert_eq!(route(&format!("1104 0401 01000000 {end} {via}")), ends(end));
    assert_eq!(
        route(&format!("1104 0402 01000000 {end} {via}")),
        ends(end),
        "reduced"
    );
    assert_eq!(route(&format!("1104 0400 01000000 {end} {via}")), ends(DST));
    assert_eq!(route(&format!("1104 0403 01000000 {end} {via}")), refused);
    assert_eq!(route(&format!("1104 0401 02000000 {end} {via}")), refused);
    assert_eq!(route("1100 0401 00000000"), refused);
    let with_tlv = format!("1103 0401 00000000 {end} 04060000 00000000");
    assert_eq!(
        route(&with_tlv),
        ends(end),
        "an SRH with a TLV behind its list"
    );

    assert_eq!(route(&format!("1102 0001 00000000 {end}")), unknown);
    assert_eq!(route(&format!("1102 0301 00000000 {end}")), unknown);
    assert_eq!(route(&format!("1102 0000 00000000 {end}")), ends(DST));
    assert_eq!(route("1100 fd00 00000000"), ends(DST));

    // A route that ends where the next one begins.
    let two = format!("2b02 0201 00000000 {via} 1102 0401 00000000 {end}");
    assert_eq!(route(&two), ends(end));
}

#[test]
fn headers_that_are_let_through() {
    for (next, payload, why) in [
        (44, "1100 0001 00000000 aa", Untouched::Fragment),
        (44, "1100 0000 00000000", Untouched::Fragment),
        (50, "00000001 00000001", Untouched::Esp),
        (51, "1104 0000 00000001 00000001", Untouched::Ah),
        (139, "3b00 0001 00000000", Untouched::HipShim6),
        (140, "3b00 0100 00000000", Untouched::HipShim6),
        (59, "", Untouched::NoNextHeader),
        (59, "aaaa", Untouched::NoNextHeader),
    ] {
        assert_eq!(parsed(&packet(next, payload)), untouched(why));
        let behind = format!("{next:02x}00 0104 00000000 {payload}");
        assert_eq!(parsed(&packet(60, &behind)), untouched(why));
    }
    let shim6_payload = accepted(&packet(140, &format!("1100 8000 00000001 {UDP}")));
    assert_eq!(
        (shim6_payload.next_header_at, shim6_payload.upper_at),
        (54, 62)
    );
}

#[test]
fn header_chains_that_run_past_the_end() {
    for (next, payload) in [
        (0, "1100 0104 000000"),
        (0, "1101 0104 00000000"),
        (60, "11"),
        (60, "11ff 0104 00000000"),
        (43, "1102 0201 00000000 00"),
        (44, "1100 0001 000000"),
        (50, "00000001 000000"),
        (51, "1104 0000 00000001 000000"),
        (139, "3b01 0001 00000000"),
        (140, "11"),
        (60, ""),
    ] {
        assert_eq!(
            parsed(&packet(next, payload)),
            Err(Malformed::HeaderChain),
            "{next}: {payload}"
        );
    }
}

#[test]
fn hop_by_hop_only_first() {
    let pads = "0104 00000000";
    assert!(parsed(&packet(0, &format!("1100 {pads} {UDP}"))).is_ok());
    for next in [0, 60] {
        let second = format!("0000 {pads} 1100 {pads} {UDP}");
        assert_eq!(
            parsed(&packet(next, &second)),
            Err(Malformed::HopByHopOrder)
        );
    }
}

#[test]
fn chains_are_bounded() {
    let chain = |n: usize| {
        let headers = "3c00 0104 00000000".repeat(n - 1);
        parsed(&packet(60, &format!("{headers} 1100 0104 00000000 {UDP}")))
    };
    assert!(matches!(chain(MAX_EXTENSIONS), Ok(Parsed::Packet(p)) if p.upper_at == 54 + 16 * 8));
    assert_eq!(chain(MAX_EXTENSIONS + 1), Err(Malformed::HeaderChain));
}

#[test]
fn offsets_of_the_longest_chain_fit() {
    let full = format!("3cff {}", "00".repeat(2046));
    let last = format!("11ff {}", "00".repeat(2046));
    let frame = packet(
        60,
        &format!("{} {last} {UDP}", full.repeat(MAX_EXTENSIONS - 1)),
    );
    assert_eq!(
        usize::from(accepted(&frame).upper_at),
        54 + MAX_EXTENSIONS * 2048
    );
}

#[test]
fn payload_length_rules() {
    let mut frame = packet(17, &format!("{UDP} aabb"));
    let end = frame.len();
    frame.extend([0xee; 30]);
    let p = accepted(&frame);
    assert_eq!(
        (p.payload_len, p.end_at()),
        (10, end),
        "padding is not the packet"
    );

    frame.truncate(end - 1);
    assert_eq!(parsed(&frame), Err(Malformed::PayloadLength));

    // All of the UDP header is in the frame, and half of it in the packet.
    let mut frame = packet(17, UDP);
    frame[19] = 4;
    assert_eq!(parsed(&frame), Err(Malformed::Truncated));
    frame[19] = 0;
    assert_eq!(parsed(&frame), Err(Malformed::Truncated));
    // The same of an options header.
    let mut frame = packet(60, &format!("1104 {SEALED} {UDP}"));
    frame[19] = 39;
    assert_eq!(parsed(&frame), Err(Malformed::HeaderChain));
}

#[test]
fn jumbograms() {
    let jumbo = |len: &str, payload: &str| {
        let mut frame = packet(0, &format!("{payload} {UDP}"));
        frame[18..20].copy_from_slice(&bytes(len));
        parsed(&frame)
    };
    assert_eq!(
        jumbo("0000", "1100 c204 00011170"),
        untouched(Untouched::Jumbogram)
    );
    assert_eq!(
        jumbo("0000", "1100 0104 00000000"),
        Err(Malformed::PayloadLength)
    );
    assert_eq!(
        jumbo("0000", "1100 c205 00011170"),
        Err(Malformed::OptionLength)
    );
    assert_eq!(
        jumbo("0000", "11ff c204 00011170"),
        Err(Malformed::HeaderChain)
    );
    assert_eq!(
        jumbo("0010", "1100 c204 00011170"),
        Err(Malformed::PayloadLength)
    );
}

#[test]
fn every_cut_of_a_long_chain_is_refused() {
    let routing = "3c02 0201 00000000 fd000000000000000000000000000099";
    let chain = format!("3c00 0502 0000 0100 2b00 0104 00000000 {routing} 0604 {SEALED} {TCP_SYN}");
    let whole = packet(0, &chain);
    let p = accepted(&whole);
    assert_eq!(p.option.map(|o| o.kind), Some(OptionKind::Sealed));
    assert_eq!(usize::from(p.upper_at) + 20, whole.len());
    for len in 0..whole.len() {
        assert!(parsed(&whole[..len]).is_err(), "cut to {len}");
        if let Some(payload_len) = len.checked_sub(54) {
            let mut cut = whole.clone();
            cut[18..20].copy_from_slice(&(payload_len as u16).to_be_bytes());
            let refused = parsed(&cut);
            assert!(refused.is_err(), "Payload Length {payload_len}");
            cut.truncate(len);
            if payload_len > 0 {
                assert_eq!(parsed(&cut), refused, "what is behind the packet matters");
            }
        }
    }
}
