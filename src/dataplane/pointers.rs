//! Global Pointer: one counter per type of source address (protocol section 1).

use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU32, Ordering};

/// The two counters that all workers share.
#[derive(Default)]
pub struct GlobalPointers {
    link_local: CachePadded<AtomicU32>,
    other: CachePadded<AtomicU32>,
}

/// A number for each type of source address: how many packets a burst has of it, or the pointer of the last one that has its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OfEach {
    pub link_local: u32,
    pub other: u32,
}

impl OfEach {
    /// The number for packets from this address.
    #[inline]
    pub fn of(&mut self, source: &[u8; 16]) -> &mut u32 {
        if is_link_local(source) {
            &mut self.link_local
        } else {
            &mut self.other
        }
    }
}

/// Whether an address is in fe80::/10.
fn is_link_local(address: &[u8; 16]) -> bool {
    address[0] == 0xfe && address[1] & 0xc0 == 0x80
}

/// The pointer after the `last` one, which it is from now on.
#[inline]
pub(super) fn following(last: &mut u32) -> u32 {
    *last = last.wrapping_add(1);
    *last
}

impl GlobalPointers {
    /// Reserves pointers for a burst's packets: one shared write for those of a type, not one a packet. Returns the pointers before the
    /// first ones; a node's first is 1.
    pub(super) fn reserve(&self, packets: OfEach) -> OfEach {
        let reserve = |counter: &AtomicU32, n| match n {
            0 => 0,
            n => counter.fetch_add(n, Ordering::Relaxed),
        };
        OfEach {
            link_local: reserve(&self.link_local, packets.link_local),
            other: reserve(&self.other, packets.other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_each(link_local: u32, other: u32) -> OfEach {
        OfEach { link_local, other }
    }

    #[test]
    fn counts_each_type_from_1_and_wraps() {
        let p = GlobalPointers::default();
        assert_eq!(p.reserve(of_each(0, 2)), of_each(0, 0));
        assert_eq!(p.reserve(of_each(1, 0)), of_each(0, 0));
        let mut last = p.reserve(of_each(1, 1));
        assert_eq!(last, of_each(1, 2));
        assert_eq!([following(&mut last.link_local), last.link_local], [2, 2]);
        p.other.store(u32::MAX, Ordering::Relaxed);
        let mut last = p.reserve(of_each(0, 1));
        assert_eq!(following(&mut last.other), 0);
        assert_eq!(p.reserve(of_each(0, 1)), of_each(0, 0));
    }

    #[test]
    fn tells_link_local_addresses() {
        let a = |s: &str| s.parse::<std::net::Ipv6Addr>().unwrap().octets();
        assert!(is_link_local(&a("fe80::1")) && is_link_local(&a("febf::1")));
        assert!(!is_link_local(&a("fec0::1")) && !is_link_local(&a("2001:db8::1")));
        let mut n = OfEach::default();
        *n.of(&a("fe80::1")) += 1;
        *n.of(&a("2001:db8::1")) += 2;
        assert_eq!(n, of_each(1, 2));
    }
}
