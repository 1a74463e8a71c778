//! Receive side scaling: how a card spreads packets over receive queues.
//!
//! The key is symmetric: with the same 16 bits repeated throughout, the Toeplitz hash of a packet and of its answer are
//! equal, so one worker sees both directions of a flow and rarely shares its entry's cache lines with another. Nothing is
//! wrong when a card steers differently, only slower.

use super::ffi;

/// What the hash looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rss {
    /// Source and destination address: the same whether or not a packet carries a Destination Options header.
    #[default]
    Addresses,
    /// The ports as well. Cards differ on whether they find ports behind a Destination Options header.
    AddressesAndPorts,
}

/// Toeplitz key: this over and over.
const KEY: [u8; 2] = [0x6d, 0x5a];

/// Bytes of key of a card that does not say.
const USUAL_KEY_LENGTH: u8 = 40;

/// Longer than the key of any card.
pub(super) type Key = [u8; 128];

/// What to ask of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// `RTE_ETH_RSS_…` bits.
    pub types: u64,
    /// Whether these hash ports too although that was not asked for.
    pub with_ports: bool,
}

/// The hash types for `wish` among those that a card offers; `None` if it has none for IPv6.
pub(super) fn choose(wish: Rss, offered: u64) -> Option<Choice> {
    // Cards that classify by upper-layer protocol leave TCP and UDP out of what they call "other IPv6". With those, a hash
    // without ports would put all TCP and UDP on one queue.
    let with_ports = wish == Rss::Addresses && offered & ffi::PDMGATE_RSS_ANY_IPV6 == 0;
    let mut wanted = ffi::PDMGATE_RSS_ADDRESSES;
    if with_ports || wish == Rss::AddressesAndPorts {
        wanted |= ffi::PDMGATE_RSS_PORTS;
    }
    match offered & wanted {
        0 => None,
        types => Some(Choice { types, with_ports }),
    }
}

/// The key, and how much of it a card takes that wants `wanted` bytes (0: it does not say).
pub(super) fn key(wanted: u8) -> (Key, u8) {
    let mut key: Key = [0; 128];
    for pair in key.chunks_exact_mut(KEY.len()) {
        pair.copy_from_slice(&KEY);
    }
    let length = if wanted == 0 {
        USUAL_KEY_LENGTH
    } else {
        wanted
    };
    (key, length.min(key.len() as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Microsoft's definition of the hash.
    fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
        let bit = |bytes: &[u8], n: usize| bytes[n / 8] >> (7 - n % 8) & 1 == 1;
        let window = |at: usize| (0..32).fold(0, |w, n| w << 1 | u32::from(bit(key, at + n)));
        (0..input.len() * 8)
            .filter(|&n| bit(input, n))
            .fold(0, |hash, n| hash ^ window(n))
    }

    #[test]
    fn key_is_symmetric_for_addresses_and_ports() {
        let (key, length) = key(0);
        assert_eq!(length, 40);
        let forth: Vec<u8> = (0..36).map(|n| n * 7 + 1).collect();
        let (src, dst, ports) = (&forth[..16], &forth[16..32], &forth[32..]);
        let back = [dst, src, &ports[2..], &ports[..2]].concat();
        assert_eq!(toeplitz(&key, &forth[..32]), toeplitz(&key, &back[..32]));
        assert_eq!(toeplitz(&key, &forth), toeplitz(&key, &back));
        assert_ne!(toeplitz(&key, &forth), toeplitz(&key, &back[..32]));
    }

    #[test]
    fn key_has_the_length_a_card_wants() {
        assert_eq!(key(52).1, 52);
        assert_eq!(key(255).1, 128);
    }

    #[test]
    fn hash_types_are_those_a_card_offers() {
        let any = ffi::PDMGATE_RSS_ANY_IPV6;
        let everything = Choice {
            types: ffi::PDMGATE_RSS_ADDRESSES,
            with_ports: false,
        };
        assert_eq!(choose(Rss::Addresses, u64::MAX), Some(everything));
        assert_eq!(choose(Rss::Addresses, any).unwrap().types, any);
        assert_eq!(choose(Rss::Addresses, 0), None);
        let ports = choose(Rss::AddressesAndPorts, u64::MAX).unwrap();
        assert_eq!(
            ports.types,
            ffi::PDMGATE_RSS_ADDRESSES | ffi::PDMGATE_RSS_PORTS
        );
        assert!(!ports.with_ports, "as asked for");
    }

    #[test]
    fn ports_are_hashed_where_addresses_alone_would_leave_tcp_out() {
        let choice = choose(Rss::Addresses, !ffi::PDMGATE_RSS_ANY_IPV6).unwrap();
        assert!(choice.with_ports);
        assert_eq!(
            choice.types & ffi::PDMGATE_RSS_PORTS,
            ffi::PDMGATE_RSS_PORTS
        );
    }
}
