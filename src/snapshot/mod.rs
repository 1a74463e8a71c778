//! What the workers read: pairings, lists, secrets and policy. Immutable; a change is another snapshot.
//!
//! [`Snapshot::build`] makes one from the configuration and the state file; the management core publishes it, and a worker reads one for
//! the length of a burst. Whatever a worker asks is answered without allocation, lock or system call.
//!
//! **Which pairing, which entries** ([`Snapshot::resolve`]; protocol section 3, "Which end is the client"): the first pairing in the order
//! of the configuration that has one end in its client list and the other in its server list; in it, the most specific entry of each end.
//! If both ends are in both lists, the numerically smaller address is the client.
//!
//! **Generations** (protocol section 4): each entry carries an own generation, for when the appliance serves its hosts, and a peer's, for
//! when another does. Which it is, is seen from the port a packet came in by, so nothing has to be configured. Own generations are fixed
//! for the life of a snapshot and already on the disk. Whatever could make a worker start a flow over under keys that it used before (a
//! changed list, a secret that comes back, a cleared table of floors) comes as a snapshot with raised own generations; see
//! [`Snapshot::build`].
//!
//! **What is heard** goes the other way: [`Snapshot::heard`] notes newer generations of a peer in cells that all snapshots share, from
//! where [`Snapshot::lessons`] takes them to the state file.
//!
//! Secrets are zeroed when the last snapshot that holds them is dropped.

mod build;
pub mod grant;
mod heard;
mod master;
mod policy;
mod ranges;
pub mod state;
#[cfg(test)]
mod tests;

use arrayvec::ArrayVec;

pub use crate::config::{Mode, OverMtu, Protection};
use crate::{
    config::Prefix,
    crypto::{EntryId, SessionInfo, SessionKey, Suite},
    flow::Epoch,
    wire::FiveTuple,
};
pub use build::{BuildError, Inputs, suite_of};
pub use grant::Grant;
use master::Master;
pub use policy::{Policy, Throttle};
use ranges::Ranges;
pub use state::{EntryKey, Fingerprint, Lesson, Role, State, StateError};

/// How far ahead of the last known one a peer's generation is looked for (protocol section 4, *Static pairings*).
pub const GENERATIONS_AHEAD: u32 = 8;

/// How far ahead a peer is looked for at the start of its generations only: it may have begun many while no packet of it came here.
pub const GENERATIONS_FAR: u32 = 512;

/// Everything a worker needs to know that is not in a packet or a flow.
#[derive(Debug)]
pub struct Snapshot {
    /// Raised at each publish; not 0.
    pub serial: u32,
    /// Raised when every own generation is raised at once, so that the table of Kri floors may start over.
    pub era: u32,
    /// The policy.
    pub policy: Policy,
    /// The pairings, in the order of the configuration.
    pub pairings: Vec<Pairing>,
    entries: Vec<Entry>,
    ranges: Ranges,
}

/// One pairing.
#[derive(Debug)]
pub struct Pairing {
    /// Its name.
    pub name: String,
    /// Who shares which secret.
    pub mode: Mode,
    /// Whether metrics are sealed.
    pub protection: Protection,
    /// The algorithms.
    pub suite: Suite,
    /// The place of its first entry in the snapshot's list; clients come before servers.
    first_entry: u32,
    /// The PairMasterSecrets in use, newest first; none where nothing is sealed. The newest one seals; an older one, left over from before
    /// a change, only opens.
    masters: ArrayVec<Master, 2>,
}

/// One entry of a list.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The place of its pairing.
    pub pairing: u32,
    /// Its list.
    pub role: Role,
    /// Its addresses.
    pub prefix: Prefix,
    /// Name of a server's group; empty for a client, or if there is none.
    pub group: String,
    /// The generation that the configuration names.
    configured: u32,
    id: EntryId,
    /// Its place in its list.
    place: u32,
    /// The place of its group among the pairing's groups.
    group_place: u32,
    /// A hash of what it is, for [`Snapshot::secret_id`].
    mark: u32,
}

/// What the lists say of two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The place of the pairing.
    pub pairing: u32,
    /// The entry of the end inside.
    pub local: u32,
    /// The entry of the end outside.
    pub remote: u32,
    /// Whether the end inside is the client.
    pub local_is_client: bool,
}

impl Pairing {
    /// Names the newest secrets; `None` where nothing is sealed. For [`State::mark_unused`].
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.masters.first().map(|master| master.fingerprint)
    }

    /// The process-unique serial number of the newest PairMasterSecret; `None` where nothing is sealed.
    #[must_use]
    pub fn pms_serial(&self) -> Option<u32> {
        self.masters.first().map(|master| master.serial)
    }
}

impl Snapshot {
    /// The pairing and the entries of a packet between `local` (inside) and `remote` (outside), both in network order: two binary
    /// searches, and a walk over the pairings that have entries there.
    #[must_use]
    pub fn resolve(&self, local: &[u8; 16], remote: &[u8; 16]) -> Option<Route> {
        let (mut locals, mut remotes) = (self.ranges.at(local), self.ranges.at(remote));
        while let ([near, locals_left @ ..], [far, remotes_left @ ..]) = (locals, remotes) {
            if near.pairing < far.pairing {
                locals = locals_left;
                continue;
            }
            if near.pairing > far.pairing {
                remotes = remotes_left;
                continue;
            }
            let forth = near.entry(Role::Client).zip(far.entry(Role::Server));
            let back = near.entry(Role::Server).zip(far.entry(Role::Client));
            let local_is_client = match (forth, back) {
                // Numbers in network order compare like their bytes.
                (Some(_), Some(_)) => local < remote,
                _ => forth.is_some(),
            };
            if let Some((local, remote)) = if local_is_client { forth } else { back } {
                return Some(Route {
                    pairing: near.pairing,
                    local,
                    remote,
                    local_is_client,
                });
            }
            (locals, remotes) = (locals_left, remotes_left);
        }
        None
    }

    /// All entries; a [`Route`] names them by their place.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The place of the pairing that an entry belongs to.
    #[must_use]
    pub fn pairing_of(&self, entry: u32) -> Option<usize> {
        let entry = self.entries.get(entry as usize)?;
        Some(entry.pairing as usize)
    }

    /// The pairing of a route; `None` for a route of another snapshot that has no place here.
    #[must_use]
    pub fn pairing(&self, route: &Route) -> Option<&Pairing> {
        self.pairings.get(route.pairing as usize)
    }

    /// The epoch of packets from `local` to `remote`: the newest PairMasterSecret, the own generation, and the newest one of the peer that
    /// was known when the snapshot was built. All zeros where nothing is sealed.
    #[must_use]
    pub fn send_epoch(&self, route: &Route) -> Epoch {
        let found = self.pairing(route).and_then(|pairing| {
            let master = pairing.masters.first()?;
            let (local, remote) = pairing.ends(master, route)?;
            Some(Epoch {
                pms_serial: master.serial,
                src_generation: local.own,
                dst_generation: remote.peer,
            })
        });
        found.unwrap_or_default()
    }

    /// The epochs that packets from `remote` to `local` may be of, most likely first: per PairMasterSecret, newest first; in it the peer's
    /// generation from the newest known on, [`GENERATIONS_AHEAD`] further; with each the own generation, then the one that the peer is
    /// known to use if that is another, else the one before.
    pub fn receive_epochs(&self, route: &Route) -> impl Iterator<Item = Epoch> + '_ {
        self.epochs(route, 0..=GENERATIONS_AHEAD)
    }

    /// The epochs of a peer that started over more often than [`GENERATIONS_AHEAD`] without a packet of it being heard. All that was not
    /// heard of it is at its start, so only the first indices of these are worth a try.
    pub fn far_epochs(&self, route: &Route) -> impl Iterator<Item = Epoch> + '_ {
        self.epochs(route, GENERATIONS_AHEAD + 1..=GENERATIONS_FAR)
    }

    fn epochs(
        &self,
        route: &Route,
        ahead: std::ops::RangeInclusive<u32>,
    ) -> impl Iterator<Item = Epoch> + '_ {
        let pairing = self.pairing(route);
        let masters = pairing.map_or(&[][..], |pairing| &pairing.masters);
        let ends = pairing.zip(Some(*route));
        masters.iter().flat_map(move |master| {
            let ends = ends.and_then(|(pairing, route)| pairing.ends(master, &route));
            let ahead = ahead.clone();
            ends.into_iter().flat_map(move |(local, remote)| {
                let known = remote.newest_peer();
                let accepted = local.accepted(master.start, &remote.heard);
                ahead.clone().flat_map(move |ahead| {
                    accepted
                        .clone()
                        .into_iter()
                        .map(move |dst_generation| Epoch {
                            pms_serial: master.serial,
                            src_generation: known.saturating_add(ahead),
                            dst_generation,
                        })
                })
            })
        })
    }

    /// The SessionTemporaryKey of packets `tuple` in either direction of `route`; `None` if the epoch's PairMasterSecret is gone.
    #[must_use]
    pub fn session_key(
        &self,
        route: &Route,
        epoch: &Epoch,
        tuple: &FiveTuple,
        kri: u32,
    ) -> Option<SessionKey> {
        let pairing = self.pairing(route)?;
        let master = pairing
            .masters
            .iter()
            .find(|master| master.serial == epoch.pms_serial)?;
        let local = self.entries.get(route.local as usize)?;
        let remote = self.entries.get(route.remote as usize)?;
        let (client, server) = if route.local_is_client {
            (local, remote)
        } else {
            (remote, local)
        };
        let info = SessionInfo {
            tuple,
            src_generation: epoch.src_generation,
            dst_generation: epoch.dst_generation,
            kri,
        };
        master.session_key(&pairing.suite, client, server, &info)
    }

    /// Tells the entries of routes apart, and with them the SharedSecrets, so that a flow whose entries changed gets new keys.
    ///
    /// It is a hash: that two of them meet costs nothing, since changed lists come with raised generations too.
    #[must_use]
    pub fn secret_id(&self, route: &Route) -> u32 {
        let entry = |at: u32| self.entries.get(at as usize);
        let (Some(local), Some(remote)) = (entry(route.local), entry(route.remote)) else {
            return 0;
        };
        // Not a sum, which would not see the two change places.
        local.mark.rotate_left(7) ^ remote.mark
    }

    /// Whether the epoch's PairMasterSecret is one of the route's.
    #[must_use]
    pub fn has_secret(&self, route: &Route, epoch: &Epoch) -> bool {
        self.remote(route.remote, epoch).is_some()
    }

    /// Whether packets of an epoch may still come from the appliance of `remote`: its secret is in use, and no newer generation was heard.
    #[must_use]
    pub fn is_live(&self, remote: u32, epoch: &Epoch) -> bool {
        self.remote(remote, epoch)
            .is_some_and(|(_, remote)| epoch.src_generation >= remote.newest_peer())
    }

    /// Notes the epoch of a packet that opened, from `remote` to `local`: from now on older generations of the peer are not looked for, and
    /// the own generation that it used is accepted however old. Cheap if there is nothing new.
    pub fn heard(&self, route: &Route, epoch: &Epoch) {
        let Some((master, remote)) = self.remote(route.remote, epoch) else {
            return;
        };
        let local = self
            .pairing(route)
            .and_then(|pairing| pairing.ends(master, route));
        let start = local.and_then(|(local, _)| {
            let behind = local.own.checked_sub(epoch.dst_generation)?;
            master.start.checked_sub(behind)
        });
        remote.heard.note(Some(epoch.src_generation), start);
    }

    /// What was heard so far, for [`State::learn`].
    pub fn lessons(&self) -> impl Iterator<Item = Lesson> + '_ {
        self.pairings.iter().flat_map(move |pairing| {
            pairing.masters.iter().flat_map(move |master| {
                let entries = self.entries.iter().skip(pairing.first_entry as usize);
                entries
                    .zip(&master.generations)
                    .map(|(entry, generations)| Lesson {
                        fingerprint: master.fingerprint,
                        entry: entry.key(),
                        peer: generations.heard.peer(),
                        heard_start: generations.heard.start(),
                    })
            })
        })
    }

    fn remote(&self, remote: u32, epoch: &Epoch) -> Option<(&Master, &master::Generations)> {
        let entry = self.entries.get(remote as usize)?;
        let pairing = self.pairings.get(entry.pairing as usize)?;
        let master = pairing
            .masters
            .iter()
            .find(|master| master.serial == epoch.pms_serial)?;
        Some((master, pairing.generations(master, remote)?))
    }
}

impl Pairing {
    fn generations<'m>(&self, master: &'m Master, entry: u32) -> Option<&'m master::Generations> {
        let place = entry.checked_sub(self.first_entry)?;
        master.generations.get(place as usize)
    }

    /// The generations of both ends.
    fn ends<'m>(
        &self,
        master: &'m Master,
        route: &Route,
    ) -> Option<(&'m master::Generations, &'m master::Generations)> {
        let local = self.generations(master, route.local)?;
        Some((local, self.generations(master, route.remote)?))
    }
}

impl Entry {
    fn key(&self) -> EntryKey {
        EntryKey {
            role: self.role,
            prefix: self.prefix,
        }
    }
}
