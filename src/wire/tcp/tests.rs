use super::super::buffer::VecBuf;
use super::super::frame::{Parsed, parse};
use super::*;

/// A SYN with `options`, a multiple of four bytes, and a right checksum.
fn syn(options: &str) -> Vec<u8> {
    let options = hex::decode(options.replace(' ', "")).unwrap();
    let header_len = 20 + options.len();
    let mut frame = hex::decode(concat!(
        "02000000000a02000000000b86dd",
        "600000000000064020010db800010000000000000000001720010db8000200000000000000000001",
        "c00001bb00000001000000000002ffff00000000"
    ))
    .unwrap();
    frame[19] = header_len as u8;
    frame[54 + 12] = (header_len as u8 / 4) << 4;
    frame.extend(options);
    let sum = sum(&frame);
    frame[70..72].copy_from_slice(&(!sum).to_be_bytes());
    frame
}

/// The one's complement sum over segment and pseudo-header: 0xffff if the checksum is right.
fn sum(frame: &[u8]) -> u16 {
    let mut covered = frame[22..].to_vec();
    covered.extend((frame.len() as u32 - 54).to_be_bytes());
    covered.extend(6u32.to_be_bytes());
    let sum = covered
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)))
        .sum::<u64>();
    (0..4).fold(sum, |sum, _| (sum & 0xffff) + (sum >> 16)) as u16
}

fn clamped(frame: &[u8], max: u16) -> Option<Vec<u8>> {
    let Ok(Parsed::Packet(p)) = parse(frame, 0x0f) else {
        panic!("expected a packet")
    };
    let mut buf = VecBuf::new(frame);
    let changed = clamp_mss(&mut buf, &p, max);
    assert_eq!(changed, buf.data() != frame);
    changed.then(|| buf.data().to_vec())
}

#[test]
fn lowers_wherever_it_stands() {
    // 1460 is 05b4. First, last, and at two odd offsets.
    for (options, at) in [
        ("020405b4", 76),
        ("0402 0101 020405b4", 80),
        ("01 020405b4 01 0402", 77),
        ("030307 020405b4 00", 79),
    ] {
        let frame = syn(options);
        assert_eq!(sum(&frame), 0xffff);
        let mut expected = frame.clone();
        expected[at..at + 2].copy_from_slice(&1380u16.to_be_bytes());
        let found = clamped(&frame, 1380).unwrap();
        assert_eq!(sum(&found), 0xffff, "{options}");
        expected[70..72].copy_from_slice(&found[70..72]);
        assert_eq!(found, expected);
    }
}

#[test]
fn checksum_is_right_for_every_value() {
    for mss in (1..=0xffffu16).step_by(251) {
        for options in [format!("0204{mss:04x}"), format!("01 0204{mss:04x} 010101")] {
            for max in [0, 1, 536, mss - 1] {
                let found = clamped(&syn(&options), max);
                assert_eq!(found.is_some(), mss > max);
                assert!(found.is_none_or(|frame| sum(&frame) == 0xffff));
            }
        }
    }
}

#[test]
fn leaves_what_it_must() {
    assert_eq!(clamped(&syn("020405b4"), 1460), None, "equal");
    assert_eq!(clamped(&syn("020405b4"), 1461), None, "lower");
    assert_eq!(clamped(&syn("04020101"), 100), None, "no MSS");
    assert_eq!(
        clamped(&syn("00 020405b4 000000"), 100),
        None,
        "behind the end"
    );
    assert_eq!(clamped(&syn("0100 020405b4 0101"), 100), None);
    assert_eq!(clamped(&syn("020305b4"), 100), None, "not an MSS's length");
    assert_eq!(
        clamped(&syn("0300 020405b4 0101"), 100),
        None,
        "a length that lies"
    );
    assert_eq!(clamped(&syn("03ff 020405b4 0101"), 100), None);
    assert_eq!(clamped(&syn("01010204"), 100), None, "cut short");
    let mut no_syn = syn("020405b4");
    no_syn[54 + 13] = 0x10;
    assert_eq!(clamped(&no_syn, 100), None);
    for offset in [0, 4, 7, 15] {
        let mut lies = syn("020405b4");
        lies[54 + 12] = offset << 4;
        assert_eq!(clamped(&lies, 100), None, "data offset {offset}");
    }
}

#[test]
fn never_looks_behind_the_packet() {
    let mut frame = syn("");
    frame[54 + 12] = 6 << 4;
    frame.extend([2, 4, 5, 0xb4]);
    assert_eq!(clamped(&frame, 100), None);
}
