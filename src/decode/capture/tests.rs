//! Captures written by hand, byte by byte.

use proptest::prelude::*;

use super::*;

/// A pcap of two packets, the second cut to 3 bytes of 5.
fn pcap(magic: u32, little: bool) -> Vec<u8> {
    let u32s = |values: &[u32]| -> Vec<u8> {
        let bytes = values.iter().map(|v| match little {
            true => v.to_le_bytes(),
            false => v.to_be_bytes(),
        });
        bytes.flatten().collect()
    };
    let mut file = u32s(&[magic]);
    file.extend(match little {
        true => [2, 0, 4, 0],
        false => [0, 2, 0, 4],
    });
    file.extend(u32s(&[0, 0, 4, 1]));
    file.extend(u32s(&[1_700_000_000, 123, 2, 2]));
    file.extend(b"ab");
    file.extend(u32s(&[1_700_000_001, 456, 3, 5]));
    file.extend(b"cde");
    file
}

/// A little-endian pcapng block.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let len = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes(), &len[..], &body, &len].concat()
}

fn section() -> Vec<u8> {
    let mut body = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
    body.extend([1, 0, 0, 0]);
    body.extend([0xff; 8]);
    block(0x0a0d_0d0a, &body)
}

fn interface(link: u16, options: &[u8]) -> Vec<u8> {
    let mut body = link.to_le_bytes().to_vec();
    body.extend([0, 0]);
    body.extend(4u32.to_le_bytes());
    body.extend(options);
    block(1, &body)
}

fn enhanced(interface: u32, units: u64, data: &[u8], original_len: u32) -> Vec<u8> {
    let mut body = Vec::new();
    for word in [
        interface,
        (units >> 32) as u32,
        units as u32,
        data.len() as u32,
        original_len,
    ] {
        body.extend(word.to_le_bytes());
    }
    body.extend(data);
    block(6, &body)
}

type Packets = Vec<(u64, Vec<u8>, usize)>;

fn read(file: &[u8]) -> Result<Packets, CaptureError> {
    let mut capture = Capture::new(file)?;
    let mut packets = Vec::new();
    while let Some(packet) = capture.next_packet()? {
        assert_eq!(packet.number, packets.len() as u64 + 1);
        packets.push((
            packet.time_ns,
            packet.data.into_owned(),
            packet.original_len,
        ));
    }
    Ok(packets)
}

#[test]
fn pcap_is_read_in_both_byte_orders_and_resolutions() {
    for little in [true, false] {
        let expected = |unit: u64| {
            vec![
                (1_700_000_000_000_000_000 + 123 * unit, b"ab".to_vec(), 2),
                (1_700_000_001_000_000_000 + 456 * unit, b"cde".to_vec(), 5),
            ]
        };
        assert_eq!(read(&pcap(0xa1b2_c3d4, little)).unwrap(), expected(1_000));
        assert_eq!(read(&pcap(0xa1b2_3c4d, little)).unwrap(), expected(1));
    }
}

#[test]
fn pcapng_is_read_with_several_sections_and_resolutions() {
    let file = [
        section(),
        interface(1, &[]),
        // if_tsresol: 10^-9; then if_tsoffset: 100 s, end of options.
        interface(
            1,
            &[
                9, 0, 1, 0, 9, 0, 0, 0, 14, 0, 8, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ],
        ),
        // if_tsresol: 2^-10.
        interface(1, &[9, 0, 1, 0, 0x8a, 0, 0, 0, 0, 0, 0, 0]),
        enhanced(0, 1_700_000_000_000_001, b"ab", 2),
        block(0x0bad, b"what nobody knows"),
        enhanced(1, 5, b"cde", 9),
        enhanced(2, 1_536, b"fghi", 4),
        section(),
        interface(1, &[]),
        enhanced(0, 7, b"j", 1),
        // Simple packet of 6 bytes, of which the snapshot length keeps 4.
        block(3, &[6, 0, 0, 0, b'k', b'l', b'm', b'n']),
    ]
    .concat();
    assert_eq!(
        read(&file).unwrap(),
        [
            (1_700_000_000_000_001_000, b"ab".to_vec(), 2),
            (100_000_000_005, b"cde".to_vec(), 9),
            (1_500_000_000, b"fghi".to_vec(), 4),
            (7_000, b"j".to_vec(), 1),
            (0, b"klmn".to_vec(), 6),
        ]
    );
}

#[test]
fn what_is_no_capture_is_named() {
    for file in [&b"#!/bin/sh"[..], b"", b"ab"] {
        let error = read(file).unwrap_err();
        assert!(matches!(error, CaptureError::NotACapture { .. }), "{error}");
    }
    assert_eq!(
        read(b"#!/bin/sh").unwrap_err().to_string(),
        "expected a pcap or pcapng file, found one that begins with 23212f62"
    );
}

#[test]
fn another_link_type_is_named() {
    let mut file = pcap(0xa1b2_c3d4, true);
    file[20] = 113;
    let error = read(&file).unwrap_err();
    assert!(matches!(error, CaptureError::LinkType { found: 113 }));
    let file = [section(), interface(101, &[]), enhanced(0, 0, b"ab", 2)].concat();
    let error = read(&file).unwrap_err();
    assert!(matches!(error, CaptureError::LinkType { found: 101 }));
}

#[test]
fn a_file_that_ends_too_early_says_where() {
    let whole = pcap(0xa1b2_c3d4, true);
    for len in whole.len() - 18..whole.len() {
        let error = read(&whole[..len]).unwrap_err();
        assert!(
            matches!(error, CaptureError::Truncated { number: 2 }),
            "{len}: {error}"
        );
    }
    let whole = [section(), interface(1, &[]), enhanced(0, 0, b"ab", 2)].concat();
    let error = read(&whole[..whole.len() - 1]).unwrap_err();
    assert!(matches!(error, CaptureError::Truncated { number: 1 }));
}

#[test]
fn a_packet_longer_than_its_block_is_damage() {
    let mut packet = enhanced(0, 0, b"abcd", 4);
    packet[20] = 200;
    let file = [section(), interface(1, &[]), packet].concat();
    let error = read(&file).unwrap_err();
    assert!(matches!(error, CaptureError::Damaged { number: 1, .. }));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(mut tail in prop::collection::vec(any::<u8>(), 0..300), which in 0..3) {
        let head = match which {
            0 => pcap(0xa1b2_c3d4, false)[..24].to_vec(),
            1 => [section(), interface(1, &[])].concat(),
            _ => vec![0x0a, 0x0d, 0x0d, 0x0a],
        };
        let _ = read(&[&head[..], &tail].concat());
        // The same with lengths that are plausible.
        for (at, byte) in tail.iter_mut().enumerate() {
            if at % 4 > 0 {
                *byte = 0;
            }
        }
        let _ = read(&[&head[..], &tail].concat());
    }
}
