use super::super::buffer::VecBuf;
use super::super::frame::{OptionKind, Parsed, parse};
use super::*;

const UDP: &str = "14e9 0035 000c beef 61626364";
const SEALED: &str = "0f22 2000 0002 a1a2a3a4a5a6a7a8a9aaabacadae b1b2b3b4b5b6b7b8b9babbbcbdbebfb0";
const CLEAR: &str = "0f12 2000 0002 0000 00000001 00020000 00000000";
const PDM: &str = "0f0a 0000 00010000 00000000";

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex.replace(char::is_whitespace, "")).unwrap()
}

/// An untagged IPv6 packet.
fn packet(next: u8, payload: &str) -> Vec<u8> {
    let len = bytes(payload).len();
    bytes(&format!(
        "02000000000a 02000000000b 86dd 60000000 {len:04x} {next:02x} 40
         20010db8000100000000000000000017 20010db8000200000000000000000001 {payload}"
    ))
}

fn accepted(frame: &[u8]) -> Ipv6Packet {
    match parse(frame, 0x0f) {
        Ok(Parsed::Packet(p)) => p,
        other => panic!("expected a packet, found {other:?}"),
    }
}

/// The frame with the option in it, and by how much the plan says that it grew.
fn inserted(frame: &[u8], option: &str) -> (Vec<u8>, u16) {
    let option = bytes(option);
    let p = accepted(frame);
    let plan = plan_insert(frame, &p, option.len()).unwrap();
    let mut buf = VecBuf::new(frame);
    let at = insert(&mut buf, &p, &plan, &option).unwrap();
    assert_eq!(buf.data()[at..][..option.len()], option);
    assert_eq!(
        accepted(buf.data()).option.map(|o| usize::from(o.at)),
        Some(at)
    );
    (buf.data().to_vec(), plan.growth)
}

fn stripped(frame: &[u8]) -> Vec<u8> {
    let mut buf = VecBuf::new(frame);
    assert!(strip(&mut buf, &accepted(frame)));
    buf.data().to_vec()
}

#[test]
fn a_new_header_for_each_option() {
    let plain = packet(17, UDP);
    for (option, header, growth) in [
        (SEALED, "1104 0100", 40),
        (CLEAR, "1102 0100", 24),
        (PDM, "1101 0100", 16),
    ] {
        let marked = packet(60, &format!("{header} {option} {UDP}"));
        assert_eq!(inserted(&plain, option), (marked.clone(), growth));
        assert_eq!(stripped(&marked), plain);
    }
}

#[test]
fn behind_other_headers_and_tags() {
    let chain = |upper: &str, rest: &str| {
        let hop_by_hop = "2b00 0502 0000 0100";
        let routing = format!("{upper}02 0201 00000000 fd000000000000000000000000000099");
        let mut frame = packet(0, &format!("{hop_by_hop} {routing} {rest} {UDP}"));
        frame.splice(12..12, bytes("88a8 0064 8100 0065"));
        frame
    };
    let (plain, marked) = (chain("11", ""), chain("3c", &format!("1104 0100 {SEALED}")));
    assert_eq!(inserted(&plain, SEALED), (marked.clone(), 40));
    assert_eq!(stripped(&marked), plain);
}

#[test]
fn into_a_header_that_is_there() {
    for (before, option, after, growth) in [
        // Ends at 5: three bytes of padding, then at 8. 44 bytes, filled up to 48.
        (
            "1100 1e01 aa 010100",
            SEALED,
            format!("1105 1e01 aa 010100 {SEALED} 0102 0000"),
            40,
        ),
        // Ends at 8: nothing in front, four bytes behind.
        (
            "1100 1e04 aabbccdd",
            CLEAR,
            format!("1103 1e04 aabbccdd {CLEAR} 0102 0000"),
            24,
        ),
        // Ends at 7: one byte in front.
        (
            "1100 1e03 aabbcc 00",
            CLEAR,
            format!("1103 1e03 aabbcc 00 {CLEAR} 0102 0000"),
            24,
        ),
        // The Home Address option, which has to stand at 8n + 6, keeps its padding in front.
        (
            "1102 0102 0000 c910 fd000000000000000000000000000099",
            SEALED,
            format!("1107 0102 0000 c910 fd000000000000000000000000000099 {SEALED} 0102 0000"),
            40,
        ),
        // Only padding: as if there were none.
        (
            "1100 0104 00000000",
            SEALED,
            format!("1104 0100 {SEALED}"),
            32,
        ),
    ] {
        let frame = packet(60, &format!("{before} {UDP}"));
        let marked = packet(60, &format!("{after} {UDP}"));
        assert_eq!(
            inserted(&frame, option),
            (marked.clone(), growth),
            "{before}"
        );
        if before != "1100 0104 00000000" {
            assert_eq!(stripped(&marked), frame, "{before}");
        }
    }
}

#[test]
fn overlong_padding_makes_room() {
    for (units, growth) in [(3, 16), (4, 8), (5, 0), (6, 0), (20, 0)] {
        let pads = format!(
            "11{:02x} 01{:02x} {}",
            units - 1,
            units * 8 - 4,
            "00".repeat(units * 8 - 4)
        );
        let frame = packet(60, &format!("{pads} {UDP}"));
        let marked = packet(60, &format!("1104 0100 {SEALED} {UDP}"));
        let (found, grown) = inserted(&frame, SEALED);
        assert_eq!(
            (found, grown),
            (marked, growth.max(40 - 8 * units as i32) as u16),
            "{units}"
        );
    }
}

#[test]
fn what_stands_behind_the_option_keeps_its_alignment() {
    let home = "c910 fd000000000000000000000000000099";
    for (before, after) in [
        // As Linux writes it, ours first; Home Address stays at 8n + 6.
        (
            format!("1104 {CLEAR} {home}"),
            format!("1102 0102 0000 {home}"),
        ),
        // Between two options: the first stays, the gap of 36 shrinks to 4.
        (
            format!("1105 1e02 aabb {SEALED} 1f02 ccdd 0100"),
            "1101 1e02 aabb 0102 0000 1f02 ccdd 0100".to_owned(),
        ),
        // Padding around ours is taken along: a gap of 2 + 20 + 7 leaves 5.
        (
            format!("1105 1e02 aabb 0100 {CLEAR} 0105 0000000000 1f01 cc 0108 0000000000000000"),
            "1101 1e02 aabb 0103 000000 1f01 cc 0100".to_owned(),
        ),
        // Nothing is gained, so nothing moves: an unknown option of 3 bytes becomes padding.
        (
            "1101 0f01 aa 00 1e02 aabb 0102 0000 0100".to_owned(),
            "1101 0102 0000 1e02 aabb 0104 00000000".to_owned(),
        ),
    ] {
        let frame = packet(60, &format!("{before} {UDP}"));
        let expected = packet(60, &format!("{after} {UDP}"));
        assert_eq!(
            hex::encode(stripped(&frame)),
            hex::encode(expected),
            "{before}"
        );
    }
}

#[test]
fn a_second_option_is_not_touched() {
    let frame = packet(60, &format!("1103 {PDM} 0100 {PDM} 00000000 {UDP}"));
    let once = stripped(&frame);
    assert_eq!(
        once,
        packet(60, &format!("1102 0104 00000000 {PDM} 0102 0000 {UDP}"))
    );
    assert_eq!(
        accepted(&once).option.map(|o| o.kind),
        Some(OptionKind::Pdm)
    );
}

#[test]
fn nothing_to_strip() {
    for frame in [
        packet(17, UDP),
        packet(60, &format!("1100 0104 00000000 {UDP}")),
    ] {
        let mut buf = VecBuf::new(&frame);
        assert!(!strip(&mut buf, &accepted(&frame)));
        assert_eq!(buf.data(), frame);
    }
}

#[test]
fn refusals() {
    let plan = |frame: &[u8], size| plan_insert(frame, &accepted(frame), size);

    let marked = packet(60, &format!("1104 0100 {SEALED} {UDP}"));
    assert_eq!(plan(&marked, 36), Err(CannotInsert::Present { at: 58 }));

    let options = format!(
        "{}{}",
        format!("1eff{}", "aa".repeat(255)).repeat(2),
        "1e00".repeat(766)
    );
    let full = packet(60, &format!("11ff {options} {UDP}"));
    assert_eq!(accepted(&full).upper_at, 54 + 2048);
    assert_eq!(
        plan(&full, 36),
        Err(CannotInsert::HeaderFull { len: 2048 + 36 })
    );
    assert_eq!(
        plan(&packet(17, UDP), usize::MAX),
        Err(CannotInsert::HeaderFull { len: usize::MAX })
    );

    let longest = |len: usize| packet(17, &format!("{UDP} {}", "00".repeat(len - 12)));
    assert!(plan(&longest(65_495), 36).is_ok());
    assert_eq!(
        plan(&longest(65_496), 36),
        Err(CannotInsert::PayloadLength { len: 65_536 })
    );

    let frame = packet(60, &format!("1100 0104 00000000 {UDP}"));
    let p = accepted(&frame);
    assert_eq!(
        plan_insert(&frame[..54], &p, 36),
        Err(CannotInsert::OtherFrame)
    );
}

#[test]
fn a_plan_for_another_packet_changes_nothing() {
    let frame = packet(17, UDP);
    let p = accepted(&frame);
    let plan = plan_insert(&frame, &p, 36).unwrap();

    let mut short = VecBuf::new(&frame[..30]);
    assert!(insert(&mut short, &p, &plan, &[0; 36]).is_err());
    assert_eq!(short.data(), &frame[..30]);

    let mut buf = VecBuf::new(&frame);
    assert!(insert(&mut buf, &p, &plan, &[0; 20]).is_err());
    assert_eq!(buf.data(), frame);
}

#[test]
fn no_headroom_leaves_the_packet() {
    let frame = packet(17, UDP);
    let p = accepted(&frame);
    let plan = plan_insert(&frame, &p, 36).unwrap();
    let mut buf = VecBuf::new(&frame);
    buf.prepend(VecBuf::HEADROOM - 39).unwrap();
    let whole = buf.data().len();
    let p = Ipv6Packet {
        ip_at: p.ip_at + 89,
        upper_at: p.upper_at + 89,
        ..p
    };
    assert_eq!(
        insert(&mut buf, &p, &plan, &[0; 36]),
        Err(NoHeadroom { wanted: 40 })
    );
    assert_eq!(buf.data().len(), whole);
}
