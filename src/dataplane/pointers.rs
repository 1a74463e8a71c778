//! Global Pointer: one counter per type of source address (protocol section 1).

use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU32, Ordering};

/// The two counters that all workers share.
#[derive(Default)]
pub struct GlobalPointers {
    link_local: CachePadded<AtomicU32>,
    other: CachePadded<AtomicU32>,
}

/// Whether an address is in fe80::/10.
pub(super) fn is_link_local(address: &[u8; 16]) -> bool {
    address[0] == 0xfe && address[1] & 0xc0 == 0x80
}

impl GlobalPointers {
    /// Reserves `n` numbers for packets from one kind of address: one shared write a batch, not one a packet. Returns the number before
    /// the first of them; a node's first is 1.
    pub(super) fn reserve(&self, link_local: bool, n: u32) -> u32 {
        let counter = if link_local {
            &self.link_local
        } else {
            &self.other
        };
        counter.fetch_add(n, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_type_from_1_and_wraps() {
        let p = GlobalPointers::default();
        assert_eq!(
            [p.reserve(false, 2), p.reserve(true, 1), p.reserve(false, 1)],
            [0, 0, 2]
        );
        p.other.store(u32::MAX, Ordering::Relaxed);
        p.reserve(false, 1);
        assert_eq!(p.reserve(false, 1), 0);
    }

    #[test]
    fn tells_link_local_addresses() {
        let a = |s: &str| s.parse::<std::net::Ipv6Addr>().unwrap().octets();
        assert!(is_link_local(&a("fe80::1")) && is_link_local(&a("febf::1")));
        assert!(!is_link_local(&a("fec0::1")) && !is_link_local(&a("2001:db8::1")));
    }
}
