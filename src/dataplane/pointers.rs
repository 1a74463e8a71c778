//! Global Pointer: one counter per type of source address (protocol section 1).

use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU32, Ordering};

/// The two counters that all workers share.
#[derive(Default)]
pub struct GlobalPointers {
    link_local: CachePadded<AtomicU32>,
    other: CachePadded<AtomicU32>,
}

/// Numbers reserved for one burst.
pub(super) struct Reserved {
    link_local: u32,
    other: u32,
}

/// Whether an address is in fe80::/10.
pub(super) fn is_link_local(address: &[u8; 16]) -> bool {
    address[0] == 0xfe && address[1] & 0xc0 == 0x80
}

impl GlobalPointers {
    /// Reserves numbers for a burst: one shared write an address type that occurs, not one a packet.
    pub(super) fn reserve(&self, link_local: u32, other: u32) -> Reserved {
        let take = |counter: &AtomicU32, n| match n {
            0 => 0,
            n => counter.fetch_add(n, Ordering::Relaxed),
        };
        Reserved {
            link_local: take(&self.link_local, link_local),
            other: take(&self.other, other),
        }
    }
}

impl Reserved {
    /// The next number for a packet from this kind of address: 1 for a node's first.
    pub(super) fn next(&mut self, link_local: bool) -> u32 {
        let counter = if link_local {
            &mut self.link_local
        } else {
            &mut self.other
        };
        *counter = counter.wrapping_add(1);
        *counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_type_from_1_and_wraps() {
        let p = GlobalPointers::default();
        let mut r = p.reserve(1, 2);
        assert_eq!([r.next(false), r.next(true), r.next(false)], [1, 1, 2]);
        let mut r = p.reserve(0, 1);
        assert_eq!(r.next(false), 3);
        p.other.store(u32::MAX, Ordering::Relaxed);
        assert_eq!(p.reserve(0, 1).next(false), 0);
    }

    #[test]
    fn bursts_of_two_workers_do_not_overlap() {
        let p = GlobalPointers::default();
        let (mut a, mut b) = (p.reserve(0, 3), p.reserve(0, 3));
        let mut all: Vec<u32> = (0..3)
            .flat_map(|_| [a.next(false), b.next(false)])
            .collect();
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn tells_link_local_addresses() {
        let a = |s: &str| s.parse::<std::net::Ipv6Addr>().unwrap().octets();
        assert!(is_link_local(&a("fe80::1")) && is_link_local(&a("febf::1")));
        assert!(!is_link_local(&a("fec0::1")) && !is_link_local(&a("2001:db8::1")));
    }
}
