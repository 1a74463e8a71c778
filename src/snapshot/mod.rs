//! What the workers read: pairings, lists, secrets and policy. Immutable; a change is another snapshot.
//!
//! [`Snapshot::build`] makes one from the configuration and the state file; the management core publishes it, and a worker reads one for
//! the length of a burst. Whatever a worker asks is answered without allocation, lock or system call.
//!
//! **Static and registered.** The configuration's pairings come first, then those that a Primary granted ([`Grant`]). Both look the same to
//! a worker; what differs is where generations and secrets come from, which `granted.rs` and `ledger.rs` tell.
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

mod admit;
mod build;
pub mod grant;
mod granted;
mod heard;
mod ledger;
mod master;
mod pairs;
mod policy;
mod ranges;
pub mod state;
#[cfg(test)]
pub(crate) mod tests;

use arrayvec::ArrayVec;

pub use crate::config::{Mode, OverMtu, Protection};
use crate::{
    config::Prefix,
    crypto::{EntryId, SessionInfo, SessionKey, Suite},
    flow::Epoch,
    wire::FiveTuple,
};
pub use admit::GrantError;
pub use build::{BuildError, Inputs, suite_of};
pub use grant::Grant;
pub use granted::{Awaited, NotSealing, PairId};
use granted::{Granted, Presence};
use master::Master;
pub use pairs::Source;
pub use policy::{Policy, Throttle};
use ranges::Ranges;
pub use state::{EntryKey, Fingerprint, Lesson, Role, State, StateError};

/// How far ahead of the last known one a peer's generation is looked for (protocol section 4, *Static pairings*).
pub const GENERATIONS_AHEAD: u32 = 8;

/// How far ahead a peer is looked for at the start of its generations only: it may have begun many while no packet of it came here.
pub const GENERATIONS_FAR: u32 = 512;

/// Pairings that can be in force, static and registered ones together: as many as telemetry counts apart.
pub const MAX_PAIRINGS: usize = 256;

/// Everything a worker needs to know that is not in a packet or a flow.
#[derive(Debug)]
pub struct Snapshot {
    /// Raised at each publish; not 0.
    pub serial: u32,
    /// Raised when every static own generation is raised at once, so that the table of Kri floors may start over. Registered pairings
    /// follow when their generations have risen.
    pub era: u32,
    /// The policy.
    pub policy: Policy,
    /// The pairings: the static ones in the order of the configuration, then the registered ones.
    pub pairings: Vec<Pairing>,
    /// Grants that were not put in force.
    pub refused: Vec<GrantError>,
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
    /// The era whose Kri floors it counts in: the snapshot's, or the one before.
    pub era: u32,
    /// The place of its first entry in the snapshot's list; clients come before servers.
    first_entry: u32,
    /// The PairMasterSecrets in use, newest first; none where nothing is sealed. The newest one seals; an older one, left over from before
    /// a change, only opens.
    masters: ArrayVec<Master, 2>,
    /// What a registered pairing has instead of these.
    granted: Option<Granted>,
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
        let granted = self
            .granted
            .as_ref()
            .and_then(|granted| granted.keys.first());
        let own = self.masters.first().map(|master| master.fingerprint);
        own.or(granted.map(|keys| keys.fingerprint))
    }

    /// The process-unique serial number of the newest PairMasterSecret; `None` where nothing is sealed.
    #[must_use]
    pub fn pms_serial(&self) -> Option<u32> {
        let granted = self
            .granted
            .as_ref()
            .and_then(|granted| granted.keys.first());
        let own = self.masters.first().map(|master| master.serial);
        own.or(granted.map(|keys| keys.serial))
    }

    /// Whether a Primary granted it.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.granted.is_some()
    }
}

impl Snapshot {
    /// The pairing and the entries of a packet between `local` (inside) and `remote` (outside), both in network order: two binary
    /// searches, and a walk over the pairings that have entries there.
    #[must_use]
    pub fn resolve(&self, local: &[u8; 16], remote: &[u8; 16]) -> Option<Route> {
        // Most packets that no pairing concerns are told by the far end alone.
        let mut remotes = self.ranges.at(remote);
        if remotes.is_empty() {
            return None;
        }
        let mut locals = self.ranges.at(local);
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

    /// The epoch of packets from `local` to `remote`: the PairMasterSecret that seals, the own generation, and the newest one of the peer
    /// that was known when the snapshot was built. All zeros where nothing is sealed.
    #[must_use]
    pub fn send_epoch(&self, route: &Route) -> Epoch {
        if let Some((granted, ends)) = self.granted(route) {
            let sealing = granted.sealing(ends.local, ends.remote);
            return sealing.map(|(epoch, _)| epoch).unwrap_or_default();
        }
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

    /// [`Snapshot::send_epoch`], if packets can be sealed in it now. Static pairings always can.
    ///
    /// # Errors
    /// [`NotSealing`]: they have to go unmarked.
    pub fn sealing(&self, route: &Route) -> Result<Epoch, NotSealing> {
        let Some((granted, ends)) = self.granted(route) else {
            return Ok(self.send_epoch(route));
        };
        match granted.sealing(ends.local, ends.remote) {
            Some((epoch, Presence::Here)) => Ok(epoch),
            Some((epoch, Presence::Awaited)) => Err(NotSealing::Awaited(Awaited {
                serial: self.serial,
                pms_serial: epoch.pms_serial,
                local: route.local,
                remote: route.remote,
            })),
            Some((_, Presence::Never)) | None => Err(NotSealing::NotYet),
        }
    }

    /// Whether packets can be marked in the clear now: of a registered pairing, only to an entry that somebody serves.
    #[must_use]
    pub fn marks_in_clear(&self, route: &Route) -> bool {
        self.granted(route)
            .is_none_or(|(granted, ends)| granted.is_served(ends.remote.0))
    }

    /// Whether options of packets between these entries are this appliance's business. Of a registered pairing, those of its own entries
    /// are; the others belong to another appliance, and pass.
    #[must_use]
    pub fn serves(&self, route: &Route) -> bool {
        self.granted(route)
            .is_none_or(|(granted, ends)| granted.serves(ends.local))
    }

    /// The pair's secrets that are still to come, to be asked for.
    pub fn awaited(&self, route: &Route) -> impl Iterator<Item = Awaited> + '_ {
        let route = *route;
        let granted = self.granted(&route);
        granted.into_iter().flat_map(move |(granted, ends)| {
            let awaited = granted.keys.iter().filter(move |keys| {
                granted.presence(keys, ends.local, ends.remote) == Presence::Awaited
            });
            awaited.map(move |keys| Awaited {
                serial: self.serial,
                pms_serial: keys.serial,
                local: route.local,
                remote: route.remote,
            })
        })
    }

    /// Whether an option that no key opens may be one of a secret or a generation that is still to come. Never for static pairings.
    #[must_use]
    pub fn is_incomplete(&self, route: &Route) -> bool {
        self.granted(route).is_some_and(|(granted, ends)| {
            let here = |keys| granted.presence(keys, ends.local, ends.remote) == Presence::Here;
            granted.keys.is_empty()
                || !granted.keys.iter().all(here)
                || !granted.is_served(ends.remote.0)
        })
    }

    /// The epochs that packets from `remote` to `local` may be of, most likely first: per PairMasterSecret, newest first; in it the peer's
    /// generation from the newest known on, [`GENERATIONS_AHEAD`] further; with each the own generation, then the one that the peer is
    /// known to use if that is another, else the one before.
    ///
    /// Of a registered pairing, the peer's generations are the live ones of the list, and the own ones those that peers may take for the
    /// newest.
    pub fn receive_epochs(&self, route: &Route) -> impl Iterator<Item = Epoch> + '_ {
        let granted = self.granted(route).into_iter();
        let granted = granted.flat_map(|(granted, ends)| granted.epochs(ends.local, ends.remote));
        self.epochs(route, 0..=GENERATIONS_AHEAD).chain(granted)
    }

    /// The epochs of a peer that started over more often than [`GENERATIONS_AHEAD`] without a packet of it being heard. All that was not
    /// heard of it is at its start, so only the first indices of these are worth a try. None of a registered pairing, whose lists tell.
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
        let info = SessionInfo {
            tuple,
            src_generation: epoch.src_generation,
            dst_generation: epoch.dst_generation,
            kri,
        };
        if let Some((granted, ends)) = self.granted(route) {
            let keys = granted.with_serial(epoch.pms_serial)?;
            return granted.session_key(keys, ends.local, ends.remote, &info);
        }
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
        master.session_key(&pairing.suite, client, server, &info)
    }

    /// Tells the entries of routes apart, and with them the SharedSecrets, so that a flow whose entries changed gets new keys.
    ///
    /// It is a hash. Where two of them meet, a flow stays with its key until that is changed anyway, and the peer cannot open it so long;
    /// no key is used twice over it. Changed lists of static pairings come with raised generations too.
    #[must_use]
    pub fn secret_id(&self, route: &Route) -> u32 {
        let entry = |at: u32| self.entries.get(at as usize);
        let (Some(local), Some(remote)) = (entry(route.local), entry(route.remote)) else {
            return 0;
        };
        // Not a sum, which would not see the two change places.
        local.mark.rotate_left(7) ^ remote.mark
    }

    /// Whether the epoch's PairMasterSecret is one of the route's, and what it takes to derive keys is there.
    #[must_use]
    pub fn has_secret(&self, route: &Route, epoch: &Epoch) -> bool {
        if let Some((granted, ends)) = self.granted(route) {
            return granted.with_serial(epoch.pms_serial).is_some_and(|keys| {
                granted.presence(keys, ends.local, ends.remote) == Presence::Here
            });
        }
        self.remote(route.remote, epoch).is_some()
    }

    /// Whether packets of an epoch may still come from the appliance of `remote`: its secret is in use, and no newer generation was heard.
    /// Of a registered pairing, its generation is listed or newer than all that are.
    #[must_use]
    pub fn is_live(&self, remote: u32, epoch: &Epoch) -> bool {
        let pairing = self.pairing_of(remote).and_then(|at| self.pairings.get(at));
        if let Some(pairing) = pairing
            && let Some(granted) = &pairing.granted
        {
            return granted.with_serial(epoch.pms_serial).is_some()
                && granted.is_live(pairing.place_of(remote), epoch.src_generation);
        }
        self.remote(remote, epoch)
            .is_some_and(|(_, remote)| epoch.src_generation >= remote.newest_peer())
    }

    /// Notes the epoch of a packet that opened, from `remote` to `local`: from now on older generations of the peer are not looked for, and
    /// the own generation that it used is accepted however old. Cheap if there is nothing new. Registered pairings have nothing to learn.
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

    /// A registered pairing with the ends of a route.
    fn granted(&self, route: &Route) -> Option<(&Granted, Ends<'_>)> {
        let pairing = self.pairing(route)?;
        let granted = pairing.granted.as_ref()?;
        let remote = self.entries.get(route.remote as usize)?;
        let ends = Ends {
            local: pairing.place_of(route.local),
            remote: (pairing.place_of(route.remote), remote),
        };
        Some((granted, ends))
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

/// The ends of a route by their places in the pairing, clients before servers.
#[derive(Clone, Copy)]
struct Ends<'a> {
    local: usize,
    remote: (usize, &'a Entry),
}

impl Pairing {
    /// An entry's place in the pairing; out of it for an entry of another.
    fn place_of(&self, entry: u32) -> usize {
        entry.wrapping_sub(self.first_entry) as usize
    }

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
