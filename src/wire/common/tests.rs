use super::super::buffer::VecBuf;
use super::super::frame::{Parsed, parse};
use super::super::{dest_opts, pdmv2};
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const TYPE: u8 = pdmv2::DEFAULT_OPTION_TYPE;

/// A frame whose IPv6 header says `next` and has `payload`, of which `short` bytes do not count.
fn frame(next: u8, payload: &[u8], short: u16) -> Vec<u8> {
    let len = (payload.len() as u16).saturating_sub(short);
    let mut frame = vec![2, 0, 0, 0, 0, 0xa, 2, 0, 0, 0, 0, 0xb, 0x86, 0xdd];
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(len.to_be_bytes());
    frame.extend([next, 64]);
    frame.extend([0x20; 32]);
    frame.extend(payload);
    frame
}

fn udp() -> Vec<u8> {
    [&[0x14, 0xe9, 0, 53, 0, 16, 0, 0][..], b"abcdefgh"].concat()
}

fn common(frame: &[u8]) -> Common {
    Common::parse(frame, Some(TYPE)).expect("a common frame")
}

/// A frame with a sealed option, as the general way writes it.
fn marked(plain: &[u8], option: &[u8; SEALED_SIZE]) -> Vec<u8> {
    let Ok(Parsed::Packet(packet)) = parse(plain, TYPE) else {
        panic!("no packet");
    };
    let plan = dest_opts::plan_insert(plain, &packet, option.len()).unwrap();
    let mut buf = VecBuf::new(plain);
    dest_opts::insert(&mut buf, &packet, &plan, option).unwrap();
    buf.data().to_vec()
}

fn option(prseq: u16) -> [u8; SEALED_SIZE] {
    let mut option = [0x5a; SEALED_SIZE];
    let prseq = pdmv2::Prseq::saturating(prseq);
    option[..6].copy_from_slice(&pdmv2::option_header(TYPE, SEALED_LEN, prseq, true));
    option
}

#[test]
fn what_the_appliance_writes_is_common() {
    let plain = frame(protocol::UDP, &udp(), 0);
    assert!(!common(&plain).is_marked());
    let marked = marked(&plain, &option(1));
    assert!(common(&marked).is_marked());
    // Where no option is looked for.
    assert_eq!(Common::parse(&plain, None), Some(common(&plain)));
    assert_eq!(Common::parse(&marked, None), None);
}

#[test]
fn a_syn_a_short_frame_and_a_link_local_source_are_not_common() {
    let mut tcp = [0; 24];
    tcp[12] = 0x50;
    assert!(Common::parse(&frame(protocol::TCP, &tcp, 0), Some(TYPE)).is_some());
    tcp[13] = TCP_SYN;
    assert_eq!(
        Common::parse(&frame(protocol::TCP, &tcp, 0), Some(TYPE)),
        None
    );
    let plain = frame(protocol::UDP, &udp(), 0);
    assert_eq!(Common::parse(&plain[..LEAST - 1], Some(TYPE)), None);
    assert_eq!(Common::parse(&[], Some(TYPE)), None);
    let mut near = plain;
    near[SRC_AT..SRC_AT + 2].copy_from_slice(&[0xfe, 0x80]);
    assert_eq!(Common::parse(&near, Some(TYPE)), None);
}

proptest! {
    /// Frames that differ from a common one in a few fields, so that about half of them still are.
    #[test]
    fn it_is_what_any_is(
        next in prop_oneof![5 => Just(60u8), 1 => Just(6), 1 => Just(17), 1 => Just(58)],
        upper in prop_oneof![3 => Just(6u8), 3 => Just(17), 1 => any::<u8>()],
        option in prop_oneof![
            5 => Just((0x0fu8, 0x22u8, 4u8)),
            1 => (Just(0x0f), prop_oneof![Just(0x12u8), Just(0x0a), any::<u8>()], 0u8..30)
        ],
        padding in prop_oneof![9 => Just([1u8, 0]), 1 => any::<[u8; 2]>()],
        version in prop_oneof![4 => Just(0x20u8), 1 => any::<u8>()],
        random in prop_oneof![4 => any::<u16>(), 1 => 0u16..3],
        addresses in any::<[u8; 32]>(),
        first in prop_oneof![8 => Just([0x20u8, 0x26]), 1 => any::<[u8; 2]>(), 1 => Just([0x20, 0xff])],
        class in prop_oneof![3 => Just(0x60u8), 2 => 0x60u8..0x70, 1 => any::<u8>()],
        short in prop_oneof![6 => Just(0u16), 1 => 0u16..80],
        ethertype in prop_oneof![9 => Just(0x86ddu16), 1 => any::<u16>()],
        rest in vec(any::<u8>(), 8..120),
        mtu in 0u16..300,
    ) {
        let (kind, len, units) = option;
        let [r0, r1] = random.to_be_bytes();
        let header = [upper, units, padding[0], padding[1], kind, len, version, 0, r0, r1];
        let payload = match next {
            60 => [&header[..], &[7; 30], &rest].concat(),
            _ => rest,
        };
        let mut frame = frame(next, &payload, short);
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        frame[14] = class;
        frame[22..54].copy_from_slice(&addresses);
        (frame[22], frame[38]) = (first[0], first[1]);
        if let Some(found) = Common::parse(&frame, Some(TYPE)) {
            let packet = found.packet(&frame).unwrap();
            prop_assert_eq!(parse(&frame, TYPE), Ok(Parsed::Packet(packet)));
            prop_assert_eq!(found.tuple(&frame), Some(packet.tuple));
            let fits = packet.l3_len() + GROWTH as u32 <= u32::from(mtu);
            prop_assert!(fits || frame.len() > longest(mtu));
            prop_assert_eq!(fits, packet.end_at() <= longest(mtu));
        }
    }

    /// Inserting and stripping is what it is for any frame, and each undoes the other.
    #[test]
    fn it_is_marked_and_stripped_as_any_is(
        is_tcp: bool, body in vec(any::<u8>(), 24..100), behind in 0u16..4, prseq in 1u16..=0x7fff,
    ) {
        let mut body = body;
        body[13] &= !TCP_SYN;
        let next = if is_tcp { protocol::TCP } else { protocol::UDP };
        let plain = frame(next, &body, behind);
        let option = option(prseq);
        let wanted = marked(&plain, &option);

        let mut buf = VecBuf::new(&plain);
        buf.prepend(GROWTH).unwrap();
        let (unsealed, tag) = option.split_first_chunk().unwrap();
        let inserted = common(&plain).insert(buf.data_mut(), unsealed).unwrap();
        inserted[CLEAR_SIZE..].copy_from_slice(tag);
        prop_assert_eq!(buf.data(), &wanted[..]);

        common(&wanted).strip(&mut buf).unwrap();
        prop_assert_eq!(buf.data(), &plain[..]);
    }
}
