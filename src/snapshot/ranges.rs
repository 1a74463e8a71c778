//! From an address to the list entries that hold it: the lists cut into ranges once, so that a look-up is one binary search.
//!
//! ```text
//! clients of pairing 0      [------------ 2001:db8::/32 ------------]
//!                                 [- 2001:db8:1::/48 -]
//! servers of pairing 1            [----- 2001:db8:1::/48 and more -----…
//!
//! ranges               0    1     2                   3             4
//! ```
//!
//! Each range knows, for every pairing that has an entry there, the most specific client entry and the most specific server entry.
//! Prefixes either nest or are apart, so the most specific one is that which began last.

use std::collections::BTreeMap;

use super::{Entry, Role};

/// No entry of that list.
const NONE: u32 = u32::MAX;

/// What one pairing has at one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) pairing: u32,
    client: u32,
    server: u32,
}

impl Candidate {
    /// The most specific entry of one list.
    pub(super) fn entry(&self, role: Role) -> Option<u32> {
        let entry = match role {
            Role::Client => self.client,
            Role::Server => self.server,
        };
        (entry != NONE).then_some(entry)
    }
}

/// All ranges, from address 0 to the last.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    /// First address of each range, ascending; the first is 0.
    starts: Vec<u128>,
    /// Where the candidates of each range begin in `candidates`, and one more for the end of the last.
    bounds: Vec<u32>,
    /// Per range, ascending by pairing.
    candidates: Vec<Candidate>,
}

impl Ranges {
    /// Cuts the lists. Entries are named by their place in `entries`.
    pub(super) fn new(entries: &[Entry]) -> Self {
        let mut starts: Vec<u128> = entries
            .iter()
            .flat_map(|entry| {
                [
                    Some(entry.prefix.first()),
                    entry.prefix.last().checked_add(1),
                ]
            })
            .flatten()
            .chain([0])
            .collect();
        starts.sort_unstable();
        starts.dedup();

        // By first address; of those that begin together the wider first, so that the most specific is on top.
        let mut coming: Vec<u32> = (0..).take(entries.len()).collect();
        let get = |at: u32| &entries[at as usize];
        coming.sort_by_key(|&at| (get(at).prefix.first(), get(at).prefix.length()));
        let mut coming = coming.into_iter().peekable();

        let mut ranges = Self {
            starts: Vec::new(),
            bounds: vec![0],
            candidates: Vec::new(),
        };
        // Per pairing, the entries of each list around the current address, the most specific last.
        let mut around: BTreeMap<u32, [Vec<u32>; 2]> = BTreeMap::new();
        for &start in &starts {
            for lists in around.values_mut() {
                for list in lists {
                    while list.pop_if(|at| get(*at).prefix.last() < start).is_some() {}
                }
            }
            around.retain(|_, lists| lists.iter().any(|list| !list.is_empty()));
            while let Some(at) = coming.next_if(|&at| get(at).prefix.first() == start) {
                let lists = around.entry(get(at).pairing).or_default();
                lists[get(at).role as usize].push(at);
            }
            let top = |list: &[u32]| list.last().copied().unwrap_or(NONE);
            for (&pairing, [clients, servers]) in &around {
                ranges.candidates.push(Candidate {
                    pairing,
                    client: top(clients),
                    server: top(servers),
                });
            }
            ranges.bounds.push(ranges.candidates.len() as u32);
        }
        ranges.starts = starts;
        ranges
    }

    /// What each pairing has at `address`, ascending by pairing.
    pub(super) fn at(&self, address: &[u8; 16]) -> &[Candidate] {
        let address = u128::from_be_bytes(*address);
        let range = self.starts.partition_point(|&start| start <= address);
        let bounds = (
            self.bounds.get(range.wrapping_sub(1)),
            self.bounds.get(range),
        );
        let (Some(&from), Some(&to)) = bounds else {
            return &[];
        };
        self.candidates
            .get(from as usize..to as usize)
            .unwrap_or_default()
    }
}
