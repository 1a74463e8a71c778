//! A full transmit ring gives back what it did not take.

mod dpdk_support;

use dpdk_support::{open, start};
use pdmgate::dpdk::{Burst, Mbuf, Pool};
use pdmgate::wire::PacketBuf;

/// A packet that carries its number.
fn numbered(pool: &Pool, number: u32) -> Mbuf {
    let mut packet = pool.alloc().unwrap();
    packet.resize(64).unwrap();
    packet.data_mut().fill(0);
    packet.data_mut()[..4].copy_from_slice(&number.to_be_bytes());
    packet
}

fn number(packet: &Mbuf) -> u32 {
    u32::from_be_bytes(packet.data()[..4].try_into().unwrap())
}

#[test]
fn full_ring_returns_the_rest_in_order() {
    let (eal, pool) = start(1, 4096);
    // Both ends of one ring: what is sent is received.
    let mut ring = open(&eal, &pool, "net_ring0");

    let mut burst = Burst::new();
    let mut next = 0;
    let mut sent = 0;
    loop {
        while !burst.is_full() {
            burst.push(numbered(&pool, next));
            next += 1;
        }
        let taken = ring.tx[0].burst(&mut burst);
        sent += taken as u32;
        assert_eq!(burst.len(), 64 - taken);
        if taken == 0 {
            break;
        }
    }
    assert!(
        sent > 64 && sent % 64 != 0,
        "filled, with a burst split: {sent}"
    );
    let kept: Vec<u32> = burst.iter().map(number).collect();
    assert_eq!(kept, (sent..sent + 64).collect::<Vec<_>>());
    // Refused again, they are still all there.
    assert_eq!(ring.tx[0].burst(&mut burst), 0);
    assert_eq!(burst.iter().map(number).collect::<Vec<_>>(), kept);

    // Room for one more behind what a burst holds.
    let mut received = Burst::new();
    let last = burst.pop().unwrap();
    received.push(last);
    assert_eq!(ring.rx[0].burst(&mut received), 63);
    assert_eq!(number(&received[0]), sent + 63);
    assert_eq!(number(&received[1]), 0);
    assert!(received.is_full());
    assert_eq!(ring.rx[0].burst(&mut received), 0, "no room");
    drop(received);

    // With room in the ring again the rest goes out.
    assert_eq!(ring.tx[0].burst(&mut burst), 63);
    assert!(burst.is_empty());
    assert_eq!(ring.tx[0].burst(&mut burst), 0, "nothing to send");

    let mut expected = 63;
    while ring.rx[0].burst(&mut burst) > 0 {
        for packet in burst.drain(..) {
            assert_eq!(number(&packet), expected);
            expected += 1;
        }
    }
    assert_eq!(expected, sent + 63);
    assert_eq!(pool.available(), pool.capacity());
}
