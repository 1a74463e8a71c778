//! A registered pairing as workers read it.
//!
//! Where a static pairing has the PRK and looks ahead for generations, this one has what its mode gives a Secondary (protocol sections 3
//! and 6), and the lists say which generations live. Nothing is derived ahead but where a secret has to be found quickly; a key costs a
//! worker one derivation more than a static one's.
//!
//! **Secrets of pairs on demand.** AsymmetricPoll's end that asks, and both ends of IBC, get the secret of a pair only when it is needed.
//! Until it is there the pair is [`NotSealing::Awaited`]: the worker leaves the [`Awaited`] note, and the management core sees to it.

use std::{collections::HashMap, fmt, sync::Arc};

use arrayvec::ArrayVec;

use super::{
    Entry, EntryKey, Fingerprint, Grant, Role,
    grant::{GrantedMaster, Listed, Material},
    ledger::{Ledger, Standing},
};
use crate::{
    crypto::{PairClientSecret, PairServerSecret, SessionInfo, SessionKey, SharedSecret},
    flow::Epoch,
};

/// The two entries of a pair under one secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairId {
    /// The PairMasterSecret.
    pub master: Fingerprint,
    /// The entry that this appliance serves.
    pub own: EntryKey,
    /// The peer's entry.
    pub peer: EntryKey,
}

/// A pair whose secret is not there yet, as a worker notes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Awaited {
    /// The snapshot's serial number.
    pub serial: u32,
    /// The PairMasterSecret.
    pub pms_serial: u32,
    /// The entry of the end inside.
    pub local: u32,
    /// The entry of the end outside.
    pub remote: u32,
}

/// Why packets of a pair are not sealed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSealing {
    /// Something has to come from the Primary first: a PairMasterSecret to seal with, a generation, or somebody who serves the peer's entry.
    NotYet,
    /// The pair's secret is to be asked for.
    Awaited(Awaited),
}

/// Whether the secret of a pair is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Here,
    /// It comes for the asking.
    Awaited,
    /// It does not: the entry is another's, or its group's secret was not given.
    Never,
}

/// A registered pairing's secrets and generations. Entries are named by their place in the pairing, clients before servers.
pub(super) struct Granted {
    pub(super) grant: Arc<Grant>,
    /// Newest first, as in the grant.
    pub(super) keys: ArrayVec<Keys, 2>,
    /// Which of them seals.
    sealing: Option<usize>,
    entries: Vec<EntryState>,
}

/// What one PairMasterSecret gives.
pub(super) struct Keys {
    pub(super) serial: u32,
    pub(super) fingerprint: Fingerprint,
    /// Per own entry of the grant.
    own: Vec<OwnKeys>,
}

/// The secrets of one own entry. Vectors are made at their full size: growing would leave copies behind.
enum OwnKeys {
    /// TrustedServers, a server: the client's secret is derived from it.
    Server(PairServerSecret),
    /// TrustedServers, a client: by the place of the server's group.
    Client(Vec<Option<SharedSecret>>),
    /// AsymmetricPoll, a client: the pair's key is derived from it.
    PollClient(PairClientSecret),
    /// By the place of the peer's entry, ascending.
    Pairs(Vec<(u32, SharedSecret)>),
}

#[derive(Debug)]
struct EntryState {
    own: Option<OwnEntry>,
    /// The two newest generations that were ever listed under these secrets, newest first. They never go down.
    newest: ArrayVec<u32, 2>,
}

#[derive(Clone, Copy, Debug)]
struct OwnEntry {
    /// Its place among the grant's own entries.
    place: usize,
    generation: u32,
    may_seal: bool,
}

impl Granted {
    /// A grant with its `entries`. `standings` are the ledger's, `previous` the same pairing in the snapshot before.
    pub(super) fn new(
        grant: &Arc<Grant>,
        entries: &[Entry],
        standings: &[Standing],
        ledger: &Ledger,
        previous: Option<&Self>,
    ) -> Self {
        let sealing = grant.masters.iter().position(|master| master.sealing);
        let may_seal = sealing.and_then(|sealing| standings.get(sealing));
        let places: HashMap<EntryKey, usize> = entries
            .iter()
            .enumerate()
            .map(|(place, entry)| (entry.key(), place))
            .collect();
        let before = previous.filter(|previous| previous.shares_a_secret(grant));
        let known: HashMap<EntryKey, &EntryState> = before
            .map(|before| before.grant.keys().zip(&before.entries).collect())
            .unwrap_or_default();
        let mut states: Vec<EntryState> = grant
            .listed()
            .zip(entries)
            .map(|(listed, entry)| {
                let newest = listed.generations.iter().rev().take(2).copied();
                let known = known.get(&entry.key());
                let known = known.into_iter().flat_map(|known| known.newest.clone());
                EntryState {
                    own: None,
                    newest: two_highest(newest.chain(known)),
                }
            })
            .collect();
        for (place, own) in grant.own.iter().enumerate() {
            let key = EntryKey {
                role: grant.role,
                prefix: own.prefix,
            };
            let state = places.get(&key).and_then(|at| states.get_mut(*at));
            if let Some(state) = state {
                state.own = Some(OwnEntry {
                    place,
                    generation: own.generation,
                    may_seal: may_seal
                        .and_then(|standing| standing.may_seal.get(place).copied())
                        .unwrap_or(false),
                });
            }
        }
        let keys = grant
            .masters
            .iter()
            .zip(standings)
            .map(|(master, standing)| {
                let own = master.material.iter().zip(&grant.own);
                let own = own.map(|(material, own)| {
                    let key = EntryKey {
                        role: grant.role,
                        prefix: own.prefix,
                    };
                    OwnKeys::new(grant, master, material, key, entries, &places, ledger)
                });
                Keys {
                    serial: standing.serial,
                    fingerprint: master.id,
                    own: own.collect(),
                }
            });
        Self {
            keys: keys.collect(),
            grant: Arc::clone(grant),
            sealing,
            entries: states,
        }
    }

    fn shares_a_secret(&self, grant: &Grant) -> bool {
        let mut ours = self.keys.iter();
        ours.any(|ours| grant.masters.iter().any(|m| m.id == ours.fingerprint))
    }

    fn own(&self, place: usize) -> Option<&OwnEntry> {
        self.entries.get(place)?.own.as_ref()
    }

    /// Whether this appliance serves the entry.
    pub(super) fn serves(&self, place: usize) -> bool {
        self.own(place).is_some()
    }

    /// The live generations of an entry, ascending.
    fn live(&self, place: usize) -> &[u32] {
        let listed = match place.checked_sub(self.grant.clients.len()) {
            None => self.grant.clients.get(place),
            Some(place) => self.grant.servers.get(place),
        };
        listed.map_or(&[], |listed| &listed.generations)
    }

    /// Whether somebody serves the peer's entry.
    pub(super) fn is_served(&self, remote: usize) -> bool {
        !self.live(remote).is_empty()
    }

    /// The epoch of packets from `local` to `remote` and whether the pair's secret is there; `None` if something else is missing.
    pub(super) fn sealing(
        &self,
        local: usize,
        (remote, entry): (usize, &Entry),
    ) -> Option<(Epoch, Presence)> {
        let keys = self.keys.get(self.sealing?)?;
        let own = self.own(local).filter(|own| own.may_seal)?;
        if !self.is_served(remote) {
            return None;
        }
        let epoch = Epoch {
            pms_serial: keys.serial,
            src_generation: own.generation,
            dst_generation: *self.entries.get(remote)?.newest.first()?,
        };
        Some((epoch, keys.presence(own, remote, entry)))
    }

    /// The epochs that packets from `remote` to `local` may be of, of those secrets that are there.
    pub(super) fn epochs<'a>(
        &'a self,
        local: usize,
        (remote, entry): (usize, &'a Entry),
    ) -> impl Iterator<Item = Epoch> + 'a {
        let own = self.own(local).copied();
        let accepted: ArrayVec<u32, 3> = self.accepted(local);
        self.keys
            .iter()
            .filter(move |keys| {
                own.is_some_and(|own| keys.presence(&own, remote, entry) == Presence::Here)
            })
            .flat_map(move |keys| {
                let accepted = accepted.clone();
                let generations = self.live(remote).iter().rev();
                generations.flat_map(move |src_generation| {
                    accepted
                        .clone()
                        .into_iter()
                        .map(move |dst_generation| Epoch {
                            pms_serial: keys.serial,
                            src_generation: *src_generation,
                            dst_generation,
                        })
                })
            })
    }

    /// The generations that peers may take for the newest of an own entry: the newest, the one before, which a peer whose list lags still
    /// has, and the own one.
    fn accepted(&self, local: usize) -> ArrayVec<u32, 3> {
        let mut accepted = ArrayVec::new();
        let Some(state) = self.entries.get(local) else {
            return accepted;
        };
        accepted.extend(state.newest.iter().copied());
        if let Some(own) = &state.own
            && !accepted.contains(&own.generation)
        {
            accepted.push(own.generation);
        }
        accepted
    }

    /// Whether packets of a generation may come from `remote`.
    pub(super) fn is_live(&self, remote: usize, generation: u32) -> bool {
        let live = self.live(remote);
        live.last().is_some_and(|newest| generation > *newest)
            || live.binary_search(&generation).is_ok()
    }

    pub(super) fn with_serial(&self, serial: u32) -> Option<&Keys> {
        self.keys.iter().find(|keys| keys.serial == serial)
    }

    /// Whether the secret of a pair is there.
    pub(super) fn presence(
        &self,
        keys: &Keys,
        local: usize,
        (remote, entry): (usize, &Entry),
    ) -> Presence {
        self.own(local)
            .map_or(Presence::Never, |own| keys.presence(own, remote, entry))
    }

    /// The key of one direction between two entries. No allocation.
    pub(super) fn session_key(
        &self,
        keys: &Keys,
        local: usize,
        (remote, entry): (usize, &Entry),
        info: &SessionInfo<'_>,
    ) -> Option<SessionKey> {
        let own = self.own(local)?;
        let suite = &self.grant.suite;
        let found = match keys.own.get(own.place)? {
            OwnKeys::Server(secret) => {
                let secret = secret.client_secret(suite, &entry.id);
                return Some(SharedSecret::from(secret).session_key(suite, info));
            }
            OwnKeys::PollClient(secret) => {
                let key = secret.pair_device_key(suite, &entry.id);
                return Some(SharedSecret::from(key).session_key(suite, info));
            }
            OwnKeys::Client(groups) => groups.get(entry.group_place as usize)?.as_ref()?,
            OwnKeys::Pairs(pairs) => {
                let at = find(pairs, remote)?;
                &pairs.get(at)?.1
            }
        };
        Some(found.session_key(suite, info))
    }

    /// Whether an own generation may not be sealed with in this era.
    pub(super) fn needs_generations(&self) -> bool {
        let mut own = self.entries.iter().filter_map(|state| state.own);
        self.sealing.is_some() && own.any(|own| !own.may_seal)
    }

    /// What gives `local` its secrets under one PairMasterSecret.
    pub(super) fn material(&self, fingerprint: &Fingerprint, local: usize) -> Option<&Material> {
        let master = self.grant.masters.iter().find(|m| m.id == *fingerprint)?;
        master.material.get(self.own(local)?.place)
    }

    /// Pairs that have a secret under the PairMasterSecret before the newest, but none under the newest, by their places: they had better
    /// have one before somebody seals under it.
    pub(super) fn behind(&self) -> Vec<(usize, usize)> {
        let [newest, before] = self.keys.as_slice() else {
            return Vec::new();
        };
        let mut behind = Vec::new();
        for (local, state) in self.entries.iter().enumerate() {
            let Some(own) = &state.own else { continue };
            let keys = |keys: &'_ Keys| match keys.own.get(own.place) {
                Some(OwnKeys::Pairs(pairs)) => pairs.iter().map(|(peer, _)| *peer).collect(),
                _ => Vec::new(),
            };
            let here = keys(newest);
            if !matches!(newest.own.get(own.place), Some(OwnKeys::Pairs(_))) {
                continue;
            }
            let missing = keys(before)
                .into_iter()
                .filter(|peer| here.binary_search(peer).is_err());
            behind.extend(missing.map(|peer| (local, peer as usize)));
        }
        behind
    }
}

/// The two highest of some numbers, the highest first.
fn two_highest(numbers: impl Iterator<Item = u32>) -> ArrayVec<u32, 2> {
    let mut highest = ArrayVec::new();
    for number in numbers {
        if highest.contains(&number) {
            continue;
        }
        let at = highest.partition_point(|known| *known > number);
        if highest.is_full() {
            if at == highest.len() {
                continue;
            }
            highest.pop();
        }
        highest.insert(at, number);
    }
    highest
}

fn find(pairs: &[(u32, SharedSecret)], peer: usize) -> Option<usize> {
    let by_place = |(place, _): &(u32, SharedSecret)| (*place as usize).cmp(&peer);
    pairs.binary_search_by(by_place).ok()
}

impl Keys {
    fn presence(&self, own: &OwnEntry, remote: usize, entry: &Entry) -> Presence {
        let here = match self.own.get(own.place) {
            None => false,
            Some(OwnKeys::Server(_) | OwnKeys::PollClient(_)) => true,
            Some(OwnKeys::Client(groups)) => groups
                .get(entry.group_place as usize)
                .is_some_and(Option::is_some),
            Some(OwnKeys::Pairs(pairs)) => {
                return match find(pairs, remote) {
                    Some(_) => Presence::Here,
                    None => Presence::Awaited,
                };
            }
        };
        if here {
            Presence::Here
        } else {
            Presence::Never
        }
    }
}

impl OwnKeys {
    fn new(
        grant: &Grant,
        master: &GrantedMaster,
        material: &Material,
        own: EntryKey,
        entries: &[Entry],
        places: &HashMap<EntryKey, usize>,
        ledger: &Ledger,
    ) -> Self {
        match material {
            Material::Server(secret) => {
                Self::Server(PairServerSecret::from_bytes(*secret.expose()))
            }
            Material::PollClient(secret) => {
                Self::PollClient(PairClientSecret::from_bytes(*secret.expose()))
            }
            Material::Client(given) => {
                let groups = entries.iter().map(|entry| entry.group_place + 1).max();
                let mut by_group: Vec<Option<&PairClientSecret>> =
                    vec![None; groups.unwrap_or(0) as usize];
                let given: HashMap<&str, &PairClientSecret> = given
                    .iter()
                    .map(|(group, secret)| (group.as_str(), secret))
                    .collect();
                for entry in entries.iter().filter(|entry| entry.role == Role::Server) {
                    if let Some(place) = by_group.get_mut(entry.group_place as usize) {
                        *place = given.get(entry.group.as_str()).copied();
                    }
                }
                let mut groups = Vec::with_capacity(by_group.len());
                for secret in by_group {
                    groups.push(secret.map(|s| SharedSecret::from_bytes(*s.expose())));
                }
                Self::Client(groups)
            }
            Material::PairKeys(given) => {
                let peers = given.iter().map(|(prefix, key)| {
                    let peer = EntryKey {
                        role: grant.role.other(),
                        prefix: *prefix,
                    };
                    (peer, key.expose())
                });
                Self::pairs(peers.collect(), places)
            }
            Material::IbcClient(_) | Material::IbcServer(_) => {
                let of_own = ledger.pairs_of(&master.id).filter(|pair| pair.own == own);
                let known =
                    of_own.filter_map(|pair| Some((pair.peer, ledger.pair(pair)?.expose())));
                Self::pairs(known.collect(), places)
            }
        }
    }

    fn pairs(given: Vec<(EntryKey, &[u8; 32])>, places: &HashMap<EntryKey, usize>) -> Self {
        let mut listed: Vec<_> = given
            .into_iter()
            .filter_map(|(peer, secret)| Some((*places.get(&peer)? as u32, secret)))
            .collect();
        listed.sort_unstable_by_key(|(place, _)| *place);
        listed.dedup_by_key(|(place, _)| *place);
        let mut pairs = Vec::with_capacity(listed.len());
        for (place, secret) in listed {
            pairs.push((place, SharedSecret::from_bytes(*secret)));
        }
        Self::Pairs(pairs)
    }
}

impl Grant {
    /// All entries, clients before servers.
    pub(super) fn listed(&self) -> impl Iterator<Item = &Listed> {
        self.clients.iter().chain(&self.servers)
    }

    /// The entries' names, in the order of [`Grant::listed`].
    pub(super) fn keys(&self) -> impl Iterator<Item = EntryKey> {
        let of = |role| {
            move |listed: &Listed| EntryKey {
                role,
                prefix: listed.prefix,
            }
        };
        let clients = self.clients.iter().map(of(Role::Client));
        clients.chain(self.servers.iter().map(of(Role::Server)))
    }
}

impl Role {
    /// The other list.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

impl fmt::Debug for Granted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let masters: Vec<_> = self
            .keys
            .iter()
            .map(|k| (k.serial, k.fingerprint))
            .collect();
        out.debug_struct("Granted")
            .field("masters", &masters)
            .field("sealing", &self.sealing)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}
