use super::super::buffer::VecBuf;
use super::super::frame::{Parsed, Untouched, parse};
use super::*;

const SRC: &str = "20010db8000100000000000000000017";
const DST: &str = "20010db8000200000000000000000001";

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex.replace(char::is_whitespace, "")).unwrap()
}

/// A UDP packet of `l3_len` bytes behind a VLAN tag.
fn packet(src: &str, l3_len: usize) -> Vec<u8> {
    let mut frame = bytes(&format!(
        "02000000000a 02000000000b 8100 0064 86dd 60012345 {:04x} 11 3f {src} {DST} 14e9 0035 {:04x} beef",
        l3_len - 40,
        l3_len - 40
    ));
    frame.extend((0..l3_len - 48).map(|i| i as u8));
    frame
}

fn answer(frame: &[u8], mtu: u32, source: Option<[u8; 16]>) -> Result<Vec<u8>, CannotAnswer> {
    let Ok(Parsed::Packet(p)) = parse(frame, 0x0f) else {
        panic!("expected a packet")
    };
    let mut buf = VecBuf::new(frame);
    let result = packet_too_big(&mut buf, &p, mtu, source);
    if result.is_err() {
        assert_eq!(buf.data(), frame);
    }
    result.map(|()| buf.data().to_vec())
}

/// The one's complement sum over message and pseudo-header: 0xffff if the checksum is right.
fn sum(frame: &[u8], ip_at: usize) -> u16 {
    let mut covered = frame[ip_at + 8..].to_vec();
    let len = (frame.len() - ip_at - 40) as u32;
    covered.extend(58u32.to_be_bytes());
    if len % 2 == 1 {
        covered.splice(32 + len as usize..32 + len as usize, [0]);
    }
    covered.extend(len.to_be_bytes());
    let sum = covered
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair[1]))
        .sum::<u64>();
    (0..4).fold(sum, |sum, _| (sum & 0xffff) + (sum >> 16)) as u16
}

#[test]
fn quotes_a_short_packet_whole() {
    let frame = packet(SRC, 100);
    let mut padded = frame.clone();
    padded.extend([0xee; 9]);
    let error = answer(&padded, 1460, None).unwrap();
    let expected = bytes(&format!(
        "02000000000b 02000000000a 8100 0064 86dd 60000000 006c 3a 40 {DST} {SRC} 0200 {} 000005b4",
        hex::encode(&error[60..62])
    ));
    assert_eq!(error[..66], expected);
    assert_eq!(error[66..], frame[18..]);
    assert_eq!(sum(&error, 18), 0xffff);
    assert_eq!(
        parse(&error, 0x0f),
        Ok(Parsed::Untouched(Untouched::Icmpv6Other))
    );
}

#[test]
fn quotes_no_more_than_fits_1280_bytes() {
    for l3_len in [1231, 1232, 1233, 1500, 9000] {
        let frame = packet(SRC, l3_len);
        let error = answer(&frame, 1280, None).unwrap();
        let l3_error = error.len() - 18;
        assert_eq!(l3_error, (l3_len + 48).min(1280));
        assert_eq!(error[66..], frame[18..][..l3_error - 48]);
        assert_eq!(sum(&error, 18), 0xffff, "{l3_len}");
    }
}

#[test]
fn comes_from_the_source_given() {
    let source = [0xfd; 16];
    let error = answer(&packet(SRC, 1500), 1460, Some(source)).unwrap();
    assert_eq!(error[26..42], source);
    assert_eq!(error[42..58], bytes(SRC));
    assert_eq!(sum(&error, 18), 0xffff);
}

#[test]
fn refusals() {
    assert_eq!(
        answer(&packet(SRC, 1500), 1279, None),
        Err(CannotAnswer::MtuTooSmall { mtu: 1279 })
    );
    assert_eq!(
        answer(
            &packet("00000000000000000000000000000000", 1500),
            1460,
            None
        ),
        Err(CannotAnswer::NotOneNode)
    );
    let mut to_group = packet(SRC, 1500);
    to_group[0] |= 1;
    assert_eq!(answer(&to_group, 1460, None), Err(CannotAnswer::NotOneNode));
}

#[test]
fn no_headroom_leaves_the_packet() {
    let frame = packet(SRC, 1500);
    let Ok(Parsed::Packet(p)) = parse(&frame, 0x0f) else {
        panic!("expected a packet")
    };
    let mut buf = VecBuf::new(&[&[0; 100][..], &frame].concat());
    buf.trim_front(100);
    buf.prepend(VecBuf::HEADROOM + 100 - 47).unwrap();
    buf.data_mut()[..frame.len()].copy_from_slice(&frame);
    let before = buf.data().to_vec();
    assert_eq!(
        packet_too_big(&mut buf, &p, 1460, None),
        Err(CannotAnswer::NoHeadroom)
    );
    assert_eq!(buf.data(), before);
}
