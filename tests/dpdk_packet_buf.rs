//! DPDK's packets behave as plain memory does, so that what is tested on the one holds on the other.

mod dpdk_support;

use dpdk_support::start;
use pdmgate::dpdk::Mbuf;
use pdmgate::wire::{PacketBuf, VecBuf};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[derive(Clone, Copy, Debug)]
enum Edit {
    Prepend(usize),
    TrimFront(usize),
    Resize(usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        (0..100_usize).prop_map(Edit::Prepend),
        (0..100_usize).prop_map(Edit::TrimFront),
        (0..1600_usize).prop_map(Edit::Resize),
        Just(Edit::Prepend(70_000)),
        Just(Edit::TrimFront(usize::MAX / 2)),
    ];
    prop::collection::vec(edit, 0..20)
}

/// Applies the edit and overwrites bytes that may hold anything.
fn apply(buf: &mut impl PacketBuf, edit: Edit) -> bool {
    let before = buf.data().len();
    match edit {
        Edit::Prepend(n) => {
            let done = buf.prepend(n).is_ok();
            if done {
                buf.data_mut()[..n].fill(0x11);
            }
            done
        }
        Edit::TrimFront(n) => {
            buf.trim_front(n);
            true
        }
        Edit::Resize(n) => {
            let done = buf.resize(n).is_ok();
            if n > before {
                buf.data_mut()[before..].fill(0x22);
            }
            done
        }
    }
}

fn filled(mut packet: Mbuf, bytes: &[u8]) -> Mbuf {
    packet.resize(bytes.len()).unwrap();
    packet.data_mut().copy_from_slice(bytes);
    packet
}

#[test]
fn mbuf_behaves_as_plain_memory() {
    let (_eal, pool) = start(1, 255);

    let content = prop::collection::vec(any::<u8>(), 0..1500);
    // The file this would write to is not known outside proptest's macro.
    TestRunner::new(Config {
        failure_persistence: None,
        ..Config::default()
    })
    .run(&(content, edits()), |(bytes, edits)| {
        let mut mbuf = filled(pool.alloc().unwrap(), &bytes);
        let mut plain = VecBuf::new(&bytes);
        prop_assert_eq!(mbuf.headroom(), VecBuf::HEADROOM);
        for edit in edits {
            let room = VecBuf::HEADROOM + 2048 - mbuf.headroom();
            let done = apply(&mut mbuf, edit);
            if let (Edit::Resize(n), false) = (edit, done) {
                // Where plain memory grows without limit, an mbuf ends.
                prop_assert!(n > room, "{} of {}", n, room);
                continue;
            }
            prop_assert_eq!(done, apply(&mut plain, edit), "{:?}", edit);
            prop_assert_eq!(mbuf.data(), plain.data(), "{:?}", edit);
            prop_assert!(mbuf.is_contiguous());
        }
        Ok(())
    })
    .unwrap();

    let mut packet = filled(pool.alloc().unwrap(), b"packet");
    assert_eq!(packet.resize(2048), Ok(()));
    let refused = packet.resize(2049).unwrap_err();
    assert_eq!(refused.wanted, 2049);
    assert_eq!(packet.data().len(), 2048);
    packet.trim_front(48);
    assert_eq!(packet.resize(2000), Ok(()));
    assert!(packet.resize(2001).is_err());
    assert!(packet.resize(usize::MAX).is_err());

    drop(packet);
    assert_eq!(pool.available(), pool.capacity());
}
