//! Everything that was ever sealed between two sites that register, opened by their keylog: no key may meet a number twice.

use super::capture::{Packet, Sealed, Tuple};
use super::oracle::{KeyId, Oracle};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::path::Path;

/// Indices that are looked through per pair of generations.
const KRIS: u32 = 24;

/// The union of all that was sent.
pub struct Witness {
    /// By the keylog's lines, oldest first.
    secrets: Vec<Oracle>,
    /// The generations that either end may have.
    generations: RangeInclusive<u32>,
    /// Where each flow was seen last: secret and key.
    last: HashMap<Tuple, (usize, KeyId)>,
    /// The newest generation of each sender.
    newest: HashMap<Ipv6Addr, u32>,
    used: HashSet<(usize, KeyId, u16)>,
}

impl Witness {
    /// One that knows the secrets of a keylog.
    pub fn new(keylog: &Path, generations: RangeInclusive<u32>) -> Self {
        let text = std::fs::read_to_string(keylog).unwrap();
        let mut seen = BTreeSet::new();
        let lines = text.lines().map(|l| serde_json::from_str(l).unwrap());
        let secrets = lines.filter_map(|line: Value| {
            let prk = line["prk"].as_str()?.to_owned();
            seen.insert(prk.clone())
                .then(|| Oracle::registered(&hex::decode(prk).unwrap()))
        });
        Self {
            secrets: secrets.collect(),
            generations,
            last: HashMap::new(),
            newest: HashMap::new(),
            used: HashSet::new(),
        }
    }

    /// Master secrets that there were.
    pub fn secrets(&self) -> usize {
        self.secrets.len()
    }

    fn try_key(&mut self, secret: usize, id: KeyId, option: &Sealed) -> bool {
        self.secrets
            .get_mut(secret)
            .is_some_and(|oracle| oracle.open_with(id, option).is_some())
    }

    fn find(&mut self, tuple: Tuple, option: &Sealed) -> Option<(usize, KeyId)> {
        if let Some((secret, id)) = self.last.get(&tuple).copied() {
            for kri in id.kri..id.kri + 3 {
                let id = KeyId { kri, ..id };
                if self.try_key(secret, id, option) {
                    return Some((secret, id));
                }
            }
        }
        let (first, last) = (*self.generations.start(), *self.generations.end());
        let newest = |who| self.newest.get(&who).copied().unwrap_or(first);
        // From the newest known generations on, then what is older; the newest secrets first.
        let order = |from: u32| (from..=last).chain((first..from).rev()).collect::<Vec<_>>();
        let senders = order(newest(tuple.0));
        let receivers = order(newest(tuple.1));
        let from = self.last.get(&tuple).map_or(0, |(secret, _)| *secret);
        let secrets = (from..self.secrets.len()).chain((0..from).rev());
        for secret in secrets.collect::<Vec<_>>() {
            for distance in 0..2 * senders.len() {
                for s in 0..=distance {
                    let (Some(s), Some(d)) = (senders.get(s), receivers.get(distance - s)) else {
                        continue;
                    };
                    for kri in 0..KRIS {
                        let generations = (*s, *d);
                        let id = KeyId {
                            tuple,
                            generations,
                            kri,
                        };
                        if self.try_key(secret, id, option) {
                            return Some((secret, id));
                        }
                    }
                }
            }
        }
        None
    }

    /// Takes in what a capture between the appliances holds. Options that left one side; those that only passed by are to be
    /// filtered out before. How many were sealed.
    pub fn take(&mut self, packets: &[Packet]) -> usize {
        let mut sealed = 0;
        for ip in packets.iter().filter_map(Packet::ipv6) {
            let Some(option) = ip.sealed() else { continue };
            let tuple = ip.tuple();
            let (secret, id) = self.find(tuple, &option).unwrap_or_else(|| {
                panic!("{tuple:?}: no secret of the keylog opens {option:02x?}")
            });
            self.last.insert(tuple, (secret, id));
            let newest = self.newest.entry(tuple.0).or_insert(0);
            *newest = (*newest).max(id.generations.0);
            assert!(
                self.used.insert((secret, id, option.prseq)),
                "{id:?} under secret {secret} sealed twice with PRSEQ {}",
                option.prseq
            );
            sealed += 1;
        }
        sealed
    }

    /// Pairs of secret and generations that were used.
    pub fn epochs(&self) -> usize {
        let epochs = self
            .used
            .iter()
            .map(|(secret, id, _)| (*secret, id.tuple, id.generations));
        epochs.collect::<HashSet<_>>().len()
    }
}
