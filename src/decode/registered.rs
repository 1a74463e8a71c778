//! What is known of registered pairings: master secrets, and both lists as they changed.
//!
//! It comes from a keylog, which tells when each secret and each list came, or from a Primary, which tells how they stand now. A packet may
//! have been sealed under a secret or a generation a little older or newer than its time says, since everybody holds new ones before
//! anybody uses them, and clocks differ. So what stood next before and next after is tried too.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use crate::config::{Mode, Prefix, Protection};
use crate::crypto::{Aead, EntryId, PairingPrk, SessionInfo, SessionKey, SharedSecret, Suite};
use crate::flow::Epoch;
use crate::registration::message::Analysis;
use crate::snapshot::Route;
use crate::snapshot::grant::Listed;
use crate::wire::FiveTuple;

/// Secrets tried for one packet.
const NEAR_SECRETS: usize = 4;
/// Of these, those that are tried with generations that no list names.
const FULL_SECRETS: usize = 2;
/// Listed epochs of one secret that are tried on every packet.
const LISTED: usize = 64;

/// Registered pairings.
#[derive(Default)]
pub struct Registered {
    pairings: Vec<Pairing>,
    /// Made when a packet asks for it; `None` if that is not possible.
    shared: RefCell<HashMap<Pair, Option<SharedSecret>>>,
}

/// Names a SharedSecret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Pair {
    pairing: u32,
    secret: u32,
    client: u32,
    server: u32,
    /// The place among what was seen of the server that names its group.
    group: usize,
}

struct Pairing {
    name: String,
    /// Ascending by `since`.
    secrets: Vec<Secret>,
    clients: Vec<Entry>,
    servers: Vec<Entry>,
}

/// A master secret. [`Epoch::pms_serial`] is its place.
struct Secret {
    fingerprint: [u8; 16],
    since: u64,
    suite: Suite,
    mode: Mode,
    seals: bool,
    prk: PairingPrk,
}

/// An entry of a list, ever.
struct Entry {
    prefix: Prefix,
    id: EntryId,
    /// How it stood, ascending by time; never empty.
    seen: Vec<Seen>,
}

struct Seen {
    time: u64,
    group: String,
    generations: Vec<u32>,
}

impl Registered {
    /// Adds how a pairing stood at `time`, with secrets that were agreed on at `since`; both in Unix seconds. Calls for one pairing come in
    /// the order of `time`.
    pub fn add(&mut self, analysis: Analysis, since: u64, time: u64) {
        let known = self.pairings.iter();
        let at = known
            .enumerate()
            .find(|(_, pairing)| pairing.name == analysis.pairing);
        let at = at.map_or(self.pairings.len(), |(at, _)| at);
        if at == self.pairings.len() {
            self.pairings.push(Pairing {
                name: analysis.pairing,
                secrets: Vec::new(),
                clients: Vec::new(),
                servers: Vec::new(),
            });
        }
        let Some(pairing) = self.pairings.get_mut(at) else {
            return;
        };
        let seals =
            analysis.protection == Protection::Sealed && analysis.mode != Mode::NoProtection;
        // The newest come first.
        for master in analysis.masters.into_iter().rev() {
            let fingerprint = master.prk.fingerprint(&master.suite);
            if pairing.secrets.iter().all(|s| s.fingerprint != fingerprint) {
                let secrets = &mut pairing.secrets;
                let place = secrets.partition_point(|secret| secret.since <= since);
                secrets.insert(
                    place,
                    Secret {
                        fingerprint,
                        since,
                        suite: master.suite,
                        mode: analysis.mode,
                        seals,
                        prk: master.prk,
                    },
                );
                // The places of the others have changed.
                self.shared.get_mut().clear();
            }
        }
        take_in(&mut pairing.clients, analysis.clients, time);
        take_in(&mut pairing.servers, analysis.servers, time);
    }

    /// How many master secrets there are.
    #[must_use]
    pub fn secrets(&self) -> usize {
        self.pairings.iter().map(|p| p.secrets.len()).sum()
    }

    /// As [`Snapshot::resolve`](crate::snapshot::Snapshot::resolve).
    pub(super) fn resolve(&self, src: &[u8; 16], dst: &[u8; 16]) -> Option<Route> {
        (0..).zip(&self.pairings).find_map(|(at, pairing)| {
            let client = |address| most_specific(&pairing.clients, address);
            let server = |address| most_specific(&pairing.servers, address);
            let forth = client(src).zip(server(dst));
            let back = server(src).zip(client(dst));
            let local_is_client = match (forth, back) {
                (Some(_), Some(_)) => src < dst,
                _ => forth.is_some(),
            };
            let (local, remote) = if local_is_client { forth } else { back }?;
            Some(Route {
                pairing: at,
                local,
                remote,
                local_is_client,
            })
        })
    }

    pub(super) fn name(&self, route: &Route) -> Option<&str> {
        Some(self.pairing(route)?.name.as_str())
    }

    pub(super) fn seals(&self, route: &Route) -> bool {
        let pairing = self.pairing(route);
        pairing.is_some_and(|pairing| pairing.secrets.iter().any(|secret| secret.seals))
    }

    pub(super) fn aead(&self, route: &Route, epoch: &Epoch) -> Option<Aead> {
        let secret = self
            .pairing(route)?
            .secrets
            .get(epoch.pms_serial as usize)?;
        Some(secret.suite.aead)
    }

    pub(super) fn session_key(
        &self,
        route: &Route,
        epoch: &Epoch,
        tuple: &FiveTuple,
        kri: u32,
    ) -> Option<SessionKey> {
        let pairing = self.pairing(route)?;
        let secret = pairing.secrets.get(epoch.pms_serial as usize)?;
        let (client, server, generation) = if route.local_is_client {
            (route.local, route.remote, epoch.dst_generation)
        } else {
            (route.remote, route.local, epoch.src_generation)
        };
        let named_by = pairing.servers.get(server as usize)?.seen_with(generation);
        let pair = Pair {
            pairing: route.pairing,
            secret: epoch.pms_serial,
            client,
            server,
            group: named_by,
        };
        let mut shared = self.shared.borrow_mut();
        let shared = match shared.entry(pair) {
            Slot::Occupied(known) => known.into_mut(),
            Slot::Vacant(free) => free.insert(pairing.shared_secret(secret, &pair)),
        };
        let info = SessionInfo {
            tuple,
            src_generation: epoch.src_generation,
            dst_generation: epoch.dst_generation,
            kri,
        };
        Some(shared.as_ref()?.session_key(&secret.suite, &info))
    }

    /// The epochs that secrets and lists name around `time`, the likeliest first.
    pub(super) fn listed(&self, route: &Route, time: u64) -> Vec<Epoch> {
        self.epochs(route, time, LISTED, |_| 0)
    }

    /// These, and those with up to `generations` older generations, which lists do not name any more.
    pub(super) fn all(&self, route: &Route, generations: u32, time: u64) -> Vec<Epoch> {
        self.epochs(route, time, usize::MAX, |secret| {
            if secret < FULL_SECRETS {
                generations
            } else {
                0
            }
        })
    }

    fn epochs(
        &self,
        route: &Route,
        time: u64,
        most: usize,
        older: impl Fn(usize) -> u32,
    ) -> Vec<Epoch> {
        let Some((pairing, local, remote)) = self.ends(route) else {
            return Vec::new();
        };
        let mut epochs = Vec::new();
        for (at, pms_serial) in pairing.near(time).into_iter().enumerate() {
            let src = local.generations(time, older(at));
            let dst = remote.generations(time, older(at));
            let pairs = (0..src.len() + dst.len()).flat_map(|steps| {
                let (src, dst) = (&src, &dst);
                (0..=steps).filter_map(move |at| Some((*src.get(at)?, *dst.get(steps - at)?)))
            });
            epochs.extend(pairs.take(most).map(|(src, dst)| Epoch {
                pms_serial,
                src_generation: src,
                dst_generation: dst,
            }));
        }
        epochs
    }

    fn pairing(&self, route: &Route) -> Option<&Pairing> {
        self.pairings.get(route.pairing as usize)
    }

    fn ends(&self, route: &Route) -> Option<(&Pairing, &Entry, &Entry)> {
        let pairing = self.pairing(route)?;
        let (locals, remotes) = if route.local_is_client {
            (&pairing.clients, &pairing.servers)
        } else {
            (&pairing.servers, &pairing.clients)
        };
        let local = locals.get(route.local as usize)?;
        Some((pairing, local, remotes.get(route.remote as usize)?))
    }
}

impl Pairing {
    /// The places of the secrets that may have been in force at `time`, the likeliest first.
    fn near(&self, time: u64) -> Vec<u32> {
        let since = self.secrets.partition_point(|secret| secret.since <= time);
        let newest = since.saturating_sub(1);
        let near = [
            Some(newest),
            newest.checked_sub(1),
            newest.checked_add(1),
            newest.checked_sub(2),
        ];
        let there = |at: &usize| self.secrets.get(*at).is_some_and(|secret| secret.seals);
        let near = near.into_iter().flatten().filter(there);
        near.filter_map(|at| u32::try_from(at).ok())
            .take(NEAR_SECRETS)
            .collect()
    }

    fn shared_secret(&self, secret: &Secret, pair: &Pair) -> Option<SharedSecret> {
        let Secret { suite, prk, .. } = secret;
        let client = self.clients.get(pair.client as usize)?;
        let server = self.servers.get(pair.server as usize)?;
        match secret.mode {
            Mode::TrustedServers => {
                let group = &server.seen.get(pair.group)?.group;
                let of_group = prk.server_secret(suite, group);
                Some(of_group.client_secret(suite, &client.id).into())
            }
            Mode::AsymmetricPoll => {
                let of_client = prk.poll_client_secret(suite, &client.id);
                Some(of_client.pair_device_key(suite, &server.id).into())
            }
            Mode::Ibc => {
                let key = prk.ibc_master(suite).client_key(&client.id);
                key.shared_secret(suite, &server.id).ok()
            }
            Mode::NoProtection => None,
        }
    }
}

impl Entry {
    /// Generations that may have been in use at `time`, the likeliest first, `older` ones before the newest listed one behind them.
    fn generations(&self, time: u64, older: u32) -> Vec<u32> {
        let since = self.seen.partition_point(|seen| seen.time <= time);
        let last = since.saturating_sub(1);
        let near = [Some(last), last.checked_add(1), last.checked_sub(1)];
        let near = near.into_iter().flatten();
        let listed = near.filter_map(|at| self.seen.get(at));
        let listed = listed.flat_map(|seen| seen.generations.iter().rev().copied());
        let mut found = Vec::new();
        for generation in listed {
            if !found.contains(&generation) {
                found.push(generation);
            }
        }
        // Of an entry that no Secondary serves any more, the numbers begin somewhere.
        let newest = found.iter().max().copied().unwrap_or(older);
        let oldest = newest.saturating_sub(older).max(1);
        for generation in (oldest..=newest).rev() {
            if !found.contains(&generation) {
                found.push(generation);
            }
        }
        found
    }

    /// The place in `seen` that tells the group which the entry had with a generation: another group comes with new generations.
    fn seen_with(&self, generation: u32) -> usize {
        let newest = |seen: &Seen| seen.generations.last().copied().unwrap_or(0);
        let at = self.seen.iter().position(|seen| newest(seen) >= generation);
        let at = at.unwrap_or(self.seen.len() - 1);
        let group = self.seen.get(at).map(|seen| &seen.group);
        // One place a group, so that its secret is made once.
        let first = self.seen.iter().position(|seen| Some(&seen.group) == group);
        first.unwrap_or(at)
    }
}

/// Takes in a list as it stood at `time`.
fn take_in(entries: &mut Vec<Entry>, list: Vec<Listed>, time: u64) {
    let places: HashMap<Prefix, usize> = entries
        .iter()
        .enumerate()
        .map(|(at, entry)| (entry.prefix, at))
        .collect();
    for listed in list {
        let seen = Seen {
            time,
            group: listed.group,
            generations: listed.generations,
        };
        let known = places.get(&listed.prefix).copied();
        if let Some(entry) = known.and_then(|at| entries.get_mut(at)) {
            let last = entry.seen.last();
            if last
                .is_none_or(|last| last.group != seen.group || last.generations != seen.generations)
            {
                entry.seen.push(seen);
            }
        } else if let Ok(id) = EntryId::new(&listed.prefix.address(), listed.prefix.length()) {
            entries.push(Entry {
                prefix: listed.prefix,
                id,
                seen: vec![seen],
            });
        }
    }
}

fn most_specific(entries: &[Entry], address: &[u8; 16]) -> Option<u32> {
    let number = u128::from_be_bytes(*address);
    let holding = (0..)
        .zip(entries)
        .filter(|(_, entry)| (entry.prefix.first()..=entry.prefix.last()).contains(&number));
    let most = holding.max_by_key(|(_, entry)| entry.prefix.length());
    most.map(|(at, _)| at)
}

#[cfg(test)]
mod tests;
