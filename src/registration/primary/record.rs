//! What a Primary keeps of one pairing: one document in the store, changed by compare-and-swap, so that a crash at any instant leaves
//! either the old one or the new, and any number of replicas may work on it.
//!
//! ```text
//! a generation    given ──► held by all own Secondaries ──► announced to the peer ──► answered ──► sending
//! a master secret added ──► held by all own Secondaries ──► announced to the peer ──► answered ──► sealing
//! ```
//!
//! *Make before break*: whoever sends may use a new number or secret only when everybody who receives holds it. The steps above are
//! [`PairingRecord::advance`]; it looks at versions only, so it may run anywhere and any number of times.
//!
//! What breaks if a generation is given before it is on the disk: after a crash it is given again, and two Secondaries seal under the same
//! keys. Hence numbers come from [`PairingRecord::highest`], which only goes up and outlives the entry. They are given once in the whole
//! pairing, not only in an entry: where one server entry lies within another of the same group, a host's keys may depend on either, and
//! nothing but the generation tells the two apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::codec;
use crate::{
    config::{Mode, Prefix, Protection},
    crypto::{PairingPrk, Suite},
    snapshot::{Fingerprint, Role, grant::Listed},
};

/// The only format there is.
pub const FORMAT: u32 = 1;
/// Live generations of one entry, at most: what a list may carry.
pub const MAX_GENERATIONS: usize = 64;
/// Live generations of one Secondary at one entry, at most: whoever asks without end takes no places of others.
const MAX_OF_ONE: usize = 4;
/// Seconds that a secret, after a newer one took over, still opens what is under way.
const LINGER: u64 = 60;
/// The same for a secret that somebody knows who must not any more.
const LINGER_REVOKED: u64 = 2;
/// Seconds that a Secondary whose connection broke has to make another, before others no longer wait for it.
const RECONNECT: u64 = 5;
/// Seconds that a generation that was replaced stays in the lists.
const LINGER_GENERATION: u64 = 10;

/// Names a Secondary process: random, made at its start, kept in memory only.
pub type Instance = [u8; 16];

/// One pairing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairingRecord {
    /// [`FORMAT`].
    pub format: u32,
    /// Raised with each change; what Secondaries acknowledge.
    pub version: u64,
    /// The master secrets in use, newest first, at most two.
    pub masters: Vec<MasterRecord>,
    /// Whether the pairing is over until an operator takes that back.
    pub revoked: bool,
    /// Whether the peer was told that it is over.
    #[serde(default)]
    pub peer_knows: bool,
    /// Names of Secondaries that may not register until an operator takes that back.
    pub revoked_secondaries: BTreeSet<String>,
    /// Whether a new master secret is wanted, and why.
    pub renewal: Option<Renewal>,
    /// Our list.
    pub own: Vec<OwnRecord>,
    /// The highest generation ever given, per entry; entries that were taken off the list too.
    #[serde(with = "codec::by_prefix")]
    pub highest: BTreeMap<Prefix, u32>,
    /// Raised with each change of what the peer is told.
    pub own_serial: u64,
    /// The newest `own_serial` that the peer answered.
    pub answered: u64,
    /// The peer's list.
    #[serde(with = "codec::lists")]
    pub peer: Vec<Listed>,
    /// Entries that an operator added to the configured ones.
    pub added: Vec<Addition>,
    /// Configured entries that an operator took off.
    #[serde(with = "codec::prefixes")]
    pub removed: Vec<Prefix>,
}

/// Why a new master secret is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Renewal {
    /// An operator asked, or the configuration changed.
    Wanted,
    /// Somebody knows the one in use who must not any more.
    Compromised,
}

/// A master secret, as its pairing PRK: the PairMasterSecret itself is not needed any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MasterRecord {
    /// Names it without telling it.
    pub id: Fingerprint,
    /// The algorithms.
    #[serde(with = "codec::suite")]
    pub suite: Suite,
    /// The mode that the Primary Server named with it.
    #[serde(with = "codec::mode")]
    pub mode: Mode,
    /// The protection that the Primary Server named with it.
    #[serde(with = "codec::protection")]
    pub protection: Protection,
    /// The secret.
    #[serde(with = "codec::prk")]
    pub prk: Arc<PairingPrk>,
    /// When it was agreed on, in Unix seconds.
    pub since: u64,
    /// The record's version that brought it.
    pub version: u64,
    /// The `own_serial` with which the peer was told that all our Secondaries hold it.
    pub announced: Option<u64>,
    /// Whether packets are sealed under it.
    pub sealing: bool,
    /// When it goes, in Unix seconds, once a newer one has taken over.
    pub retire: Option<u64>,
}

/// An entry of our list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnRecord {
    /// Its addresses.
    #[serde(with = "codec::prefix")]
    pub prefix: Prefix,
    /// A server's group.
    pub group: String,
    /// The live generations, ascending.
    pub given: Vec<Given>,
    /// The newest announced generation if its Secondary is gone: senders go on naming it, since what they name never goes down.
    pub ghost: Option<u32>,
}

/// A generation that a Secondary has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// The generation.
    pub number: u32,
    /// The process that has it.
    #[serde(with = "codec::instance")]
    pub instance: Instance,
    /// The name in its certificate.
    pub secondary: String,
    /// The replica of the Primary that it is connected to.
    pub via: String,
    /// When it was given, in Unix seconds.
    pub since: u64,
    /// The record's version that brought it.
    pub version: u64,
    /// The `own_serial` with which the peer was told.
    pub announced: Option<u64>,
    /// Whether the Secondary sends under it.
    pub sending: bool,
    /// Since when the Secondary is away, in Unix seconds.
    pub away: Option<u64>,
    /// When it goes, in Unix seconds, once a newer one of the same Secondary has taken over.
    pub retire: Option<u64>,
}

/// An entry that an operator added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Addition {
    /// Its addresses.
    #[serde(with = "codec::prefix")]
    pub prefix: Prefix,
    /// A server's group.
    pub group: String,
    /// A Secondary that may serve it besides those of the configuration.
    pub secondary: Option<String>,
}

/// A Secondary that registers. Who it is, instance and name say together: the instance is its own word.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// Its process.
    pub instance: Instance,
    /// The name in its certificate.
    pub secondary: &'a str,
    /// The replica of the Primary that it is connected to.
    pub via: &'a str,
}

/// Why a Secondary gets no generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoGeneration {
    /// The entry is not in the list.
    #[error("the entry is in no list")]
    NoEntry,
    /// The Secondary is revoked.
    #[error("the Secondary is revoked")]
    Revoked,
    /// The entry has as many Secondaries as a list can carry.
    #[error("the entry has {MAX_GENERATIONS} live generations already")]
    Full,
    /// All 2^32 were given.
    #[error("the entry has no generation left")]
    Exhausted,
}

impl Default for PairingRecord {
    fn default() -> Self {
        Self {
            format: FORMAT,
            version: 0,
            masters: Vec::new(),
            revoked: false,
            peer_knows: false,
            revoked_secondaries: BTreeSet::new(),
            renewal: None,
            own: Vec::new(),
            highest: BTreeMap::new(),
            own_serial: 0,
            answered: 0,
            peer: Vec::new(),
            added: Vec::new(),
            removed: Vec::new(),
        }
    }
}

impl PairingRecord {
    /// The master secret under which packets are sealed.
    #[must_use]
    pub fn sealing(&self) -> Option<&MasterRecord> {
        self.masters.iter().find(|master| master.sealing)
    }

    /// Makes our list the configured entries, with what operators changed.
    pub fn configure(&mut self, configured: &[Addition]) {
        let told = self.told();
        let kept = configured
            .iter()
            .filter(|entry| !self.removed.contains(&entry.prefix));
        let mut wanted: Vec<Addition> = kept.cloned().collect();
        for added in &self.added {
            if wanted.iter().all(|entry| entry.prefix != added.prefix) {
                wanted.push(added.clone());
            }
        }
        let mut before = std::mem::take(&mut self.own);
        self.own = wanted
            .into_iter()
            .map(|entry| {
                let at = before
                    .iter()
                    .position(|own| own.prefix == entry.prefix && own.group == entry.group);
                at.map_or_else(
                    || OwnRecord {
                        prefix: entry.prefix,
                        group: entry.group,
                        given: Vec::new(),
                        ghost: None,
                    },
                    |at| before.swap_remove(at),
                )
            })
            .collect();
        if self.own_serial == 0 || told != self.told() {
            self.own_serial += 1;
        }
    }

    /// The generation of `instance` for the entry: the one it has, or with `anew` or at its first time a new one.
    ///
    /// # Errors
    /// [`NoGeneration`].
    pub fn register(
        &mut self,
        prefix: Prefix,
        who: &Who<'_>,
        anew: bool,
        now: u64,
    ) -> Result<u32, NoGeneration> {
        let Who {
            instance,
            secondary,
            via,
        } = *who;
        let version = self.version + 1;
        let own = self.own.iter_mut().find(|own| own.prefix == prefix);
        let own = own.ok_or(NoGeneration::NoEntry)?;
        if self.revoked_secondaries.contains(secondary) {
            return Err(NoGeneration::Revoked);
        }
        let mut last = None;
        for given in own.given.iter_mut().filter(|g| g.is_of(who)) {
            given.away = None;
            given.via = via.to_owned();
            if given.retire.is_none() {
                last = Some(given.number);
            }
        }
        // One that is still on its way to all answers a second request too.
        let on_its_way = own
            .given
            .iter()
            .any(|given| given.is_of(who) && !given.sending);
        let has_many = own.given.iter().filter(|g| g.is_of(who)).count() >= MAX_OF_ONE;
        if let Some(number) = last
            && (!anew || on_its_way || has_many)
        {
            return Ok(number);
        }
        // A process that ended without a word has left its place to the one that took over its name.
        // The newest of those stays for as long as its packets may be under way.
        let replaced = |given: &Given| given.secondary == secondary && given.away.is_some();
        let newest = own.given.iter().filter(|given| replaced(given));
        let newest = newest.map(|given| given.number).max();
        own.drop_if(|given| replaced(given) && Some(given.number) != newest);
        if own.given.len() >= MAX_GENERATIONS - 1 {
            return Err(NoGeneration::Full);
        }
        // A store that was lost begins above what peers may still know of the one before.
        let before = self.highest.values().copied().max();
        let before = before.unwrap_or_else(|| u32::try_from(now).unwrap_or(0).saturating_sub(1));
        let number = before.checked_add(1).ok_or(NoGeneration::Exhausted)?;
        self.highest.insert(prefix, number);
        own.given.push(Given {
            number,
            instance,
            secondary: secondary.to_owned(),
            via: via.to_owned(),
            since: now,
            version,
            announced: None,
            sending: false,
            away: None,
            retire: None,
        });
        Ok(number)
    }

    /// Whether one of these ascending entries, where it is listed, lacks a generation of `who`, or takes it for away: entries come to
    /// lists, and another replica cannot know of a connection while the one that has it lacks its lease. A connection to another replica
    /// is no reason: the newest is the one that counts, and whose Secondary has left it must not claim it back.
    #[must_use]
    pub fn misses(&self, who: &Who<'_>, entries: &[Prefix]) -> bool {
        self.own.iter().any(|own| {
            let mut mine = own.given.iter().filter(|given| given.is_of(who));
            mine.all(|given| given.away.is_some()) && entries.binary_search(&own.prefix).is_ok()
        })
    }

    /// Whether a Secondary has been away for so short a time that it is likely to be back soon, and nobody has taken its place.
    #[must_use]
    pub fn reconnects(&self, now: u64) -> bool {
        self.own.iter().any(|own| {
            let newer = |gone: &Given| {
                let mut others = own.given.iter();
                others.any(|g| g.secondary == gone.secondary && g.number > gone.number)
            };
            own.given.iter().any(|given| {
                // A time to come is one before the clock went back.
                let lately = |away| (away..away + RECONNECT).contains(&now);
                let lately = given.away.is_some_and(lately);
                lately && given.retire.is_none() && !newer(given)
            })
        })
    }

    /// Notes which Secondaries are away: those for which `is_away` holds.
    pub fn away(&mut self, now: u64, is_away: impl Fn(&Given) -> bool) {
        for own in &mut self.own {
            for given in own.given.iter_mut().filter(|given| is_away(given)) {
                given.away.get_or_insert(now);
            }
        }
    }

    /// Takes the generations of `who` for entries that it may not serve any more off the lists. Whether it had any.
    pub fn withdraw(&mut self, who: &Who<'_>, entries: &[Prefix]) -> bool {
        let mut had = false;
        for own in self
            .own
            .iter_mut()
            .filter(|own| entries.contains(&own.prefix))
        {
            had |= own.drop_if(|given| given.is_of(who));
        }
        if had {
            self.own_serial += 1;
        }
        had
    }

    /// Takes all generations of a Secondary off the lists, and has the secrets replaced that it may have known: that of every entry it was
    /// allowed, also if it has no place there now. Whether there were any.
    pub fn revoke_secondary(&mut self, secondary: &str, allowed: &[Prefix]) -> bool {
        let mut had = false;
        for own in &mut self.own {
            had |= own.drop_if(|given| given.secondary == secondary);
        }
        if had {
            self.own_serial += 1;
        }
        let given = |entry: &Prefix| self.highest.contains_key(entry);
        let knew = (had || allowed.iter().any(given)) && !self.masters.is_empty();
        if knew {
            self.renewal = Some(Renewal::Compromised);
        }
        knew
    }

    /// Revokes the pairing, or takes that back.
    pub fn revoke(&mut self, revoked: bool) {
        if revoked != self.revoked {
            (self.revoked, self.peer_knows) = (revoked, false);
        }
        if revoked {
            self.end();
        }
    }

    /// Whether the pairing is revoked, and the peer told.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.revoked && self.peer_knows
    }

    /// Ends the pairing: its secrets and the peer's list are gone at once.
    pub fn end(&mut self) {
        self.masters.clear();
        self.peer.clear();
        self.renewal = None;
    }

    /// Takes in a master secret that was just agreed on, and the peer's list that came with it.
    pub fn add_master(&mut self, mut master: MasterRecord, peer: Vec<Listed>, now: u64) {
        if self.revoked {
            return;
        }
        master.version = self.version + 1;
        self.peer = peer;
        if self.masters.iter().any(|known| known.id == master.id) {
            return;
        }
        // The one that seals stays; a newer one that never came to seal does not.
        self.masters.retain(|known| known.sealing);
        let alike = |known: &MasterRecord| {
            known.suite == master.suite
                && known.mode == master.mode
                && known.protection == master.protection
        };
        if self.renewal == Some(Renewal::Compromised) {
            for known in &mut self.masters {
                known.retire = Some(now + LINGER_REVOKED);
            }
        }
        // Old and new side by side need one suite; where that changes, the change is a break.
        self.masters.retain(alike);
        self.renewal = None;
        self.masters.insert(0, master);
    }

    /// Takes whatever step is due. `held` is the oldest version that any of our Secondaries works with. Whether anything changed.
    pub fn advance(&mut self, held: u64, forget_after: u64, now: u64) -> bool {
        let before = self.clone();
        let next_serial = self.own_serial + 1;
        let mut told = false;
        for own in &mut self.own {
            for given in &mut own.given {
                if given.announced.is_none() && held >= given.version {
                    given.announced = Some(next_serial);
                    told = true;
                }
                if given.announced.is_some_and(|told| told <= self.answered) {
                    given.sending = true;
                }
            }
            told |= own.tidy(forget_after, now);
        }
        let mut took_over = false;
        if let Some(newest) = self.masters.first_mut() {
            if newest.announced.is_none() && held >= newest.version {
                newest.announced = Some(next_serial);
                told = true;
            }
            if !newest.sealing && newest.announced.is_some_and(|told| told <= self.answered) {
                newest.sealing = true;
                took_over = true;
            }
        }
        if took_over {
            for older in self.masters.iter_mut().skip(1) {
                older.sealing = false;
                older.retire = Some(older.retire.map_or(now + LINGER, |_| now + LINGER_REVOKED));
            }
        }
        self.masters
            .retain(|master| master.sealing || master.retire.is_none_or(|retire| now < retire));
        if told {
            self.own_serial = next_serial;
        }
        *self != before
    }

    /// Our list as the peer is told it.
    #[must_use]
    pub fn told(&self) -> Vec<Listed> {
        self.own
            .iter()
            .map(|own| own.listed(|given| given.announced.is_some()))
            .collect()
    }

    /// Both lists as our own Secondaries are told them, the clients' first; `role` says which one is ours.
    #[must_use]
    pub fn lists(&self, role: Role) -> (Vec<Listed>, Vec<Listed>) {
        match role {
            Role::Client => (self.held(), self.peer.clone()),
            Role::Server => (self.peer.clone(), self.held()),
        }
    }

    /// Our list as our own Secondaries are told it, who have to accept what others will soon name.
    #[must_use]
    pub fn held(&self) -> Vec<Listed> {
        self.own.iter().map(|own| own.listed(|_| true)).collect()
    }
}

impl Given {
    /// Whether it is that Secondary's.
    #[must_use]
    pub fn is_of(&self, who: &Who<'_>) -> bool {
        self.instance == who.instance && self.secondary == who.secondary
    }
}

impl OwnRecord {
    fn listed(&self, counts: impl Fn(&Given) -> bool) -> Listed {
        let live = self.given.iter().filter(|given| counts(given));
        let mut generations: Vec<u32> = live.map(|given| given.number).collect();
        if !generations.is_empty() {
            generations.extend(self.ghost);
        }
        generations.sort_unstable();
        generations.dedup();
        Listed {
            prefix: self.prefix,
            group: self.group.clone(),
            generations,
        }
    }

    /// Drops generations; the newest that was announced goes on being named. Whether any were dropped.
    fn drop_if(&mut self, goes: impl Fn(&Given) -> bool) -> bool {
        let announced = |given: &&Given| given.announced.is_some();
        let gone = self.given.iter().filter(|given| goes(given));
        let gone = gone.filter(announced).map(|given| given.number).max();
        let before = self.given.len();
        self.given.retain(|given| !goes(given));
        let newest = self.given.iter().filter(announced);
        let newest = newest.map(|given| given.number).max();
        self.ghost = self.ghost.max(gone).filter(|ghost| newest < Some(*ghost));
        self.given.len() != before
    }

    /// Drops what has had its time; whether the list that others are told changed.
    fn tidy(&mut self, forget_after: u64, now: u64) -> bool {
        let sending: Vec<Given> = self
            .given
            .iter()
            .filter(|given| given.sending)
            .cloned()
            .collect();
        for given in &mut self.given {
            let replaced = sending.iter().any(|newer| {
                newer.instance == given.instance
                    && newer.secondary == given.secondary
                    && newer.number > given.number
            });
            if replaced {
                given.retire.get_or_insert(now + LINGER_GENERATION);
            }
        }
        self.drop_if(|given| {
            given.retire.is_some_and(|retire| now >= retire)
                || given.away.is_some_and(|away| now >= away + forget_after)
        })
    }
}

#[cfg(test)]
mod tests;
