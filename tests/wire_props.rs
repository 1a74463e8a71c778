//! Properties of packet reading and editing, on chains from a generator of its own.

mod packets;

use packets::{Built, Routing, Spec, Tlv, Upper, legal_options};
use pdmgate::wire::frame::parse;
use pdmgate::wire::icmpv6::packet_too_big;
use pdmgate::wire::tcp::clamp_mss;
use pdmgate::wire::{
    FiveTuple, Ipv6Packet, OptionKind, PacketBuf, Parsed, VecBuf, insert, plan_insert, strip,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

const OPTION_TYPE: u8 = 0x0f;

/// Options that are neither padding, ours nor a jumbogram's.
fn tlv() -> impl Strategy<Value = Tlv> {
    let any_other = (
        select(vec![0x05, 0x1e, 0x3e, 0x8b, 0xfe]),
        vec(any::<u8>(), 0..40),
        select(vec![(1, 0), (2, 0), (4, 2), (4, 3), (8, 2), (8, 7)]),
    );
    prop_oneof![
        4 => any_other.prop_map(|(kind, data, align)| Tlv { kind, data, align }),
        1 => Just(Tlv::home_address()),
    ]
}

fn options() -> impl Strategy<Value = Option<Vec<Tlv>>> {
    proptest::option::of(vec(tlv(), 0..4))
}

fn spec() -> impl Strategy<Value = Spec> {
    let routing = select(vec![
        None,
        Some(Routing::Type2),
        Some(Routing::Segments { left: 2 }),
        Some(Routing::Segments { left: 0 }),
        Some(Routing::Travelled),
    ]);
    let upper = select(vec![
        Upper::Tcp { syn: true },
        Upper::Tcp { syn: false },
        Upper::Udp,
        Upper::Sctp,
        Upper::Echo,
        Upper::Mobility,
        Upper::Experimental,
    ]);
    let headers = (options(), options(), routing, any::<bool>(), options());
    let rest = (
        vec(any::<u16>(), 0..=2),
        upper,
        vec(any::<u8>(), 0..100),
        0..10usize,
    );
    (headers, rest).prop_map(|((hop_by_hop, first, routing, shim6, last), rest)| {
        let (tags, upper, payload, trailer) = rest;
        // Without anything between them, the first of two is also the one before the upper layer.
        let only_one = routing.is_none() && !shim6 && last.is_none();
        let (first_dest_opts, dest_opts) = if only_one {
            (None, first)
        } else {
            (first, last)
        };
        Spec {
            tags,
            hop_by_hop,
            first_dest_opts,
            routing,
            shim6,
            dest_opts,
            upper,
            payload,
            trailer,
        }
    })
}

/// A sealed, a clear or a PDM option.
fn option() -> impl Strategy<Value = (Vec<u8>, OptionKind)> {
    let kinds = select(vec![
        (0x22, OptionKind::Sealed),
        (0x12, OptionKind::Clear),
        (0x0a, OptionKind::Pdm),
    ]);
    (kinds, any::<[u8; 32]>()).prop_map(|((len, kind), body)| {
        let mut option = vec![OPTION_TYPE, len, 0x20, 0, body[0], body[1] | 2];
        option.extend(&body[2..len as usize - 2]);
        (option, kind)
    })
}

fn accepted(frame: &[u8]) -> Result<Ipv6Packet, TestCaseError> {
    match parse(frame, OPTION_TYPE) {
        Ok(Parsed::Packet(p)) => Ok(p),
        other => Err(TestCaseError::fail(format!(
            "expected a packet, found {other:?}"
        ))),
    }
}

fn dest_opts<'a>(frame: &'a [u8], p: &Ipv6Packet) -> &'a [u8] {
    p.dest_opts_at
        .map_or(&[], |at| &frame[at.into()..p.upper_at.into()])
}

/// Compares what was read with what was built, but for the option.
fn check_read(p: &Ipv6Packet, built: &Built) -> Result<(), TestCaseError> {
    let tuple = FiveTuple {
        src: packets::SRC,
        dst: built.dst,
        sport: built.ports.0,
        dport: built.ports.1,
        protocol: built.protocol,
    };
    prop_assert_eq!(p.tuple, tuple);
    prop_assert_eq!(usize::from(p.ip_at), built.ip_at);
    prop_assert_eq!(usize::from(p.upper_at), built.upper_at);
    prop_assert_eq!(usize::from(p.next_header_at), built.next_header_at);
    prop_assert_eq!(p.dest_opts_at.map(usize::from), built.dest_opts_at);
    prop_assert_eq!(usize::from(p.payload_len), built.payload_len);
    prop_assert_eq!(p.is_tcp_syn, built.is_syn);
    Ok(())
}

/// Everything that can be done to a packet. The point is that nothing panics, whatever the bytes are.
fn edit_in_every_way(frame: &[u8]) {
    let Ok(Parsed::Packet(p)) = parse(frame, OPTION_TYPE) else {
        return;
    };
    let after = |edit: &dyn Fn(&mut VecBuf)| {
        let mut buf = VecBuf::new(frame);
        edit(&mut buf);
        let _ = parse(buf.data(), OPTION_TYPE);
    };
    after(&|buf| {
        strip(buf, &p);
    });
    after(&|buf| {
        clamp_mss(buf, &p, 500);
    });
    after(&|buf| {
        let _ = packet_too_big(buf, &p, 1280, None);
    });
    for option in [&[0x0f; 36][..], &[0x0f; 20], &[0x0f; 12]] {
        if let Ok(plan) = plan_insert(frame, &p, option.len()) {
            after(&|buf| {
                let _ = insert(buf, &p, &plan, option);
            });
        }
    }
}

/// The same when the buffer is not the one that was parsed.
fn edit_another(frame: &[u8], other: &[u8]) {
    let Ok(Parsed::Packet(p)) = parse(frame, OPTION_TYPE) else {
        return;
    };
    strip(&mut VecBuf::new(other), &p);
    clamp_mss(&mut VecBuf::new(other), &p, 500);
    let _ = packet_too_big(&mut VecBuf::new(other), &p, 1280, None);
    let plans = [frame, other].map(|frame| plan_insert(frame, &p, 36));
    for plan in plans.into_iter().flatten() {
        let _ = insert(&mut VecBuf::new(other), &p, &plan, &[0x0f; 36]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_bytes(frame in vec(any::<u8>(), 0..200), option_type: u8) {
        let _ = parse(&frame, option_type);
    }

    #[test]
    fn any_bytes_behind_an_ipv6_header(
        next in select(vec![0u8, 6, 17, 43, 44, 50, 51, 58, 59, 60, 132, 135, 139, 140]),
        length in any::<u8>(),
        rest in vec(prop_oneof![any::<u8>(), 0u8..4, Just(60), Just(OPTION_TYPE)], 0..300),
    ) {
        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, length, next, 64]);
        frame.extend([packets::SRC, packets::DST].concat());
        frame.extend(rest);
        edit_in_every_way(&frame);
    }

    #[test]
    fn mutated_packets(
        spec in spec(),
        (option, _) in option(),
        changes in vec((any::<Index>(), any::<u8>()), 1..6),
        cut in any::<Option<Index>>(),
    ) {
        let built = spec.build();
        let mut buf = VecBuf::new(&built.frame);
        let p = accepted(buf.data())?;
        let plan = plan_insert(buf.data(), &p, option.len()).unwrap();
        insert(&mut buf, &p, &plan, &option).unwrap();
        let whole = buf.data().to_vec();
        let mut frame = whole.clone();
        for (at, byte) in changes {
            // Mostly within the headers, where it matters.
            let at = at.index(built.upper_at + 20).min(frame.len() - 1);
            frame[at] = byte;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len()));
        }
        edit_in_every_way(&frame);
        edit_another(&whole, &frame);
        edit_another(&frame, &whole);
    }

    #[test]
    fn reads_what_was_built(spec in spec()) {
        let built = spec.build();
        let p = accepted(&built.frame)?;
        check_read(&p, &built)?;
        prop_assert_eq!(p.option, None);
    }

    #[test]
    fn inserted_then_stripped(spec in spec(), (option, kind) in option()) {
        let built = spec.build();
        let p = accepted(&built.frame)?;
        let plan = plan_insert(&built.frame, &p, option.len()).unwrap();
        let mut buf = VecBuf::new(&built.frame);
        let at = insert(&mut buf, &p, &plan, &option).unwrap();
        let marked = buf.data();
        let growth = usize::from(plan.growth);
        prop_assert_eq!(marked.len(), built.frame.len() + growth);
        prop_assert_eq!(&marked[built.upper_at + growth..], &built.frame[built.upper_at..]);

        let q = accepted(marked)?;
        let header_at = built.dest_opts_at.unwrap_or(built.upper_at);
        let expected = Built {
            upper_at: built.upper_at + growth,
            next_header_at: header_at,
            dest_opts_at: Some(header_at),
            payload_len: built.payload_len + growth,
            ..built.clone()
        };
        check_read(&q, &expected)?;
        let found = q.option.unwrap();
        prop_assert_eq!((usize::from(found.at), found.kind), (at, kind));
        prop_assert_eq!((at - header_at) % 4, 0);

        let mut options = legal_options(dest_opts(marked, &q)).map_err(TestCaseError::fail)?;
        prop_assert_eq!(options.pop(), Some((at - header_at..at - header_at + option.len(), option)));
        let before = dest_opts(&built.frame, &p);
        if before.is_empty() {
            prop_assert_eq!(options, []);
        } else {
            prop_assert_eq!(options, legal_options(before).map_err(TestCaseError::fail)?);
        }

        prop_assert!(strip(&mut buf, &q));
        // A header of nothing but padding goes with the option.
        let only_padding = spec.dest_opts.as_ref().is_some_and(Vec::is_empty);
        let spec = if only_padding { Spec { dest_opts: None, ..spec } } else { spec };
        prop_assert_eq!(buf.data(), spec.build().frame);
    }

    #[test]
    fn stripped_from_among_others(
        spec in spec(),
        others in vec(tlv(), 0..4),
        place in any::<Index>(),
        (option, kind) in option(),
        align in select(vec![(4, 0), (2, 0), (1, 0)]),
        extra_units in 0u8..3,
    ) {
        let mut list = others.clone();
        let place = place.index(list.len() + 1);
        list.insert(place, Tlv { kind: option[0], data: option[2..].to_vec(), align });
        let spec = Spec { dest_opts: Some(list), ..spec };
        let mut built = spec.build();
        // More padding than needed behind the last option.
        let header_at = built.dest_opts_at.unwrap();
        built.frame[header_at + 1] += extra_units;
        for _ in 0..extra_units {
            built.frame.splice(built.upper_at..built.upper_at, [1, 6, 0, 0, 0, 0, 0, 0]);
        }
        let extra = 8 * usize::from(extra_units);
        let payload_len = (built.payload_len + extra) as u16;
        built.frame[built.ip_at + 4..built.ip_at + 6].copy_from_slice(&payload_len.to_be_bytes());

        let p = accepted(&built.frame)?;
        prop_assert_eq!(p.option.map(|o| o.kind), Some(kind));
        let mut buf = VecBuf::new(&built.frame);
        prop_assert!(strip(&mut buf, &p));
        let clean = buf.data();
        let q = accepted(clean)?;
        prop_assert_eq!(q.option, None);
        prop_assert_eq!(q.tuple, p.tuple);
        prop_assert_eq!(q.payload_len as usize + built.frame.len() - clean.len(), p.payload_len as usize);
        prop_assert_eq!(&clean[q.upper_at.into()..], &built.frame[p.upper_at.into()..]);

        if others.is_empty() {
            let expected = Spec { dest_opts: None, ..spec }.build();
            prop_assert_eq!(clean, &expected.frame);
            return Ok(());
        }
        prop_assert_eq!(&clean[..header_at + 1], &[
            &built.frame[..built.ip_at + 4],
            &q.payload_len.to_be_bytes(),
            &built.frame[built.ip_at + 6..header_at + 1],
        ].concat());
        let options = legal_options(dest_opts(clean, &q)).map_err(TestCaseError::fail)?;
        prop_assert_eq!(options.len(), others.len());
        for (i, ((found_at, found), other)) in options.into_iter().zip(&others).enumerate() {
            prop_assert_eq!(&found[2..], &other.data);
            prop_assert_eq!(found[0], other.kind);
            let (x, y) = other.align;
            prop_assert_eq!(found_at.start % x, y % x, "alignment of option {}", i);
        }
        let used = dest_opts(clean, &q).len();
        prop_assert!(used <= dest_opts(&built.frame, &p).len());
    }
}
