//! What is remembered of granted secrets for as long as the process lives.
//!
//! A (key, nonce) pair stays unique because the table of Kri floors remembers, per (epoch, 5-tuple), what was used. That holds as long as
//! an epoch keeps its name and its floors. So of each PairMasterSecret this process ever got, by its fingerprint:
//!
//! - its **serial number**, which is part of the epoch's name: a pairing that was revoked and comes back finds its floors again;
//! - its **stage**, which only goes on: one that was replaced never becomes the newest again, and once a newer one has sealed it only opens;
//! - the **era** whose floors it counts in, and per own entry the highest generation: that never goes down, and no generation is sealed
//!   with in another era than the one that it began in.
//!
//! **An era and granted generations.** A new era has empty floors, so nothing may be sealed in it under a generation that was used before it
//! began. Static generations are raised in that very step. Granted ones rise whenever the Primary says so, and those of different pairings
//! at different times. Hence each granted secret moves by itself: it stays with the floors of the era before, which are still there,
//! until all of its own generations are new. Only two eras have floors; a secret that would be left two behind moves all the same, and is
//! not sealed with until its generations have risen ([`Standing::may_seal`]).
//!
//! **Changed lists need no new generation.** They change which entry, and so which SharedSecret and which generations, a 5-tuple has. A
//! floor belongs to (PairMasterSecret, both generations, 5-tuple) and knows nothing of entries: whatever the lists make of a tuple,
//! two keys under the same three have different Kris, and under different ones they differ by these. A tuple that comes back to
//! an epoch that it had before finds that epoch's floor. With the floors gone, in another era, it takes more than that each entry's own
//! generation is new: servers of one group share their clients' secrets, so where one server entry holds another, a tuple that changes
//! from one to the other keeps its secret and meets the other's generations. Such entries count as one when generations are compared.
//!
//! *How large it gets:* a secret that only opens keeps 32 bytes for good. One renewal a minute makes that 17 MB in a year.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    EntryKey, Fingerprint, Grant, GrantError, Role,
    grant::{GrantedMaster, Material},
    granted::PairId,
};
use crate::{config::Mode, crypto::SharedSecret};

/// How far a secret has come. It only goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// None of its pairing is newer.
    Newest,
    /// A newer one is known, which only opens so far.
    Older,
    /// A newer one has sealed.
    Spent,
}

/// One PairMasterSecret.
#[derive(Debug)]
struct Account {
    serial: u32,
    stage: Stage,
    /// Whether it was ever to be sealed with.
    sealed: bool,
    /// The era whose floors it counts in.
    era: u32,
    /// Per entry that was ever served under it.
    entries: BTreeMap<EntryKey, Used>,
}

/// The own generations of one entry.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    /// The highest.
    highest: Option<u32>,
    /// The highest of the eras before the account's.
    spent: Option<u32>,
}

/// What the ledger says of one secret of a grant.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) serial: u32,
    /// The era whose floors it counts in.
    pub(super) era: u32,
    /// Per own entry of the grant: whether its generation may be sealed with.
    pub(super) may_seal: Vec<bool>,
}

/// The secrets, and what was computed from them at a price.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accounts: HashMap<Fingerprint, Account>,
    /// IBC: SharedSecrets of pairs, in boxes so that a map that grows leaves no copies behind.
    pairs: HashMap<PairId, Box<SharedSecret>>,
}

impl Ledger {
    /// Whether a grant goes on from what is remembered.
    pub(super) fn check(&self, grant: &Grant) -> Result<(), GrantError> {
        let mut above: Option<&Account> = None;
        let mut unknown_below = false;
        for (place, master) in grant.masters.iter().enumerate() {
            let came_back = || GrantError::SecretCameBack {
                pairing: grant.pairing.clone(),
                master: master.id,
            };
            let Some(account) = self.accounts.get(&master.id) else {
                // A secret that comes up behind one that was there already would have to be younger and older than it.
                unknown_below |= above.is_some();
                if unknown_below {
                    return Err(came_back());
                }
                continue;
            };
            let order = above.is_some_and(|above| above.serial <= account.serial);
            let newest = place == 0 && account.stage > Stage::Newest;
            let seals = master.sealing && account.stage == Stage::Spent;
            if order || newest || seals {
                return Err(came_back());
            }
            for own in &grant.own {
                let key = EntryKey {
                    role: grant.role,
                    prefix: own.prefix,
                };
                let known = account.entries.get(&key).and_then(|used| used.highest);
                if let Some(known) = known.filter(|known| *known > own.generation) {
                    return Err(GrantError::GenerationWentDown {
                        pairing: grant.pairing.clone(),
                        entry: key,
                        known,
                        found: own.generation,
                    });
                }
            }
            above = Some(account);
        }
        Ok(())
    }

    /// Enters a grant that [`Ledger::check`] let pass, for a snapshot of `era`; what is told is in the order of its masters. `next_serial`
    /// gives a serial number higher than all before.
    pub(super) fn enter(
        &mut self,
        grant: &Grant,
        era: u32,
        next_serial: impl Fn() -> u32,
    ) -> Vec<Standing> {
        // Older secrets get lower serial numbers.
        for (place, master) in grant.masters.iter().enumerate().rev() {
            let account = self
                .accounts
                .entry(master.id)
                .or_insert_with(|| Account::new(next_serial(), era));
            if place > 0 {
                account.go_on(Stage::Older);
            }
        }
        if let Some(sealing) = grant.masters.iter().position(|master| master.sealing) {
            for older in grant.masters.iter().skip(sealing + 1) {
                self.spend(&older.id);
            }
        }
        let standings = grant.masters.iter().filter_map(|master| {
            let account = self.accounts.get_mut(&master.id)?;
            Some(account.enter(grant, master, era))
        });
        standings.collect()
    }

    /// Notes that a pairing goes on without this secret.
    pub(super) fn spend(&mut self, master: &Fingerprint) {
        if let Some(account) = self.accounts.get_mut(master) {
            account.go_on(Stage::Spent);
        }
    }

    /// Keeps what was computed for a pair.
    pub(super) fn keep_pair(&mut self, pair: PairId, secret: SharedSecret) {
        self.pairs.insert(pair, Box::new(secret));
    }

    /// What was computed for a pair.
    pub(super) fn pair(&self, pair: &PairId) -> Option<&SharedSecret> {
        self.pairs.get(pair).map(AsRef::as_ref)
    }

    /// The pairs of one secret for which something was computed.
    pub(super) fn pairs_of(&self, master: &Fingerprint) -> impl Iterator<Item = &PairId> {
        self.pairs.keys().filter(move |pair| pair.master == *master)
    }

    /// Forgets what was computed for pairs that no grant has any more.
    pub(super) fn keep_pairs_of<'g>(&mut self, grants: impl Iterator<Item = &'g Grant>) {
        if self.pairs.is_empty() {
            return;
        }
        let mut entries = HashSet::new();
        for grant in grants {
            let lists = [
                (Role::Client, &grant.clients),
                (Role::Server, &grant.servers),
            ];
            for master in grant.masters.iter().filter(|m| m.computes_pairs()) {
                for (role, list) in lists {
                    let keys = list.iter().map(|listed| EntryKey {
                        role,
                        prefix: listed.prefix,
                    });
                    entries.extend(keys.map(|key| (master.id, key)));
                }
            }
        }
        self.pairs.retain(|pair, _| {
            entries.contains(&(pair.master, pair.own))
                && entries.contains(&(pair.master, pair.peer))
        });
    }
}

impl GrantedMaster {
    /// Whether its pairs' secrets are computed here.
    fn computes_pairs(&self) -> bool {
        let computes = |m: &Material| matches!(m, Material::IbcClient(_) | Material::IbcServer(_));
        self.material.iter().any(computes)
    }
}

impl Account {
    fn new(serial: u32, era: u32) -> Self {
        Self {
            serial,
            stage: Stage::Newest,
            sealed: false,
            era,
            entries: BTreeMap::new(),
        }
    }

    fn go_on(&mut self, stage: Stage) {
        self.stage = self.stage.max(stage);
        if self.stage == Stage::Spent {
            self.entries = BTreeMap::new();
        }
    }

    fn enter(&mut self, grant: &Grant, master: &GrantedMaster, era: u32) -> Standing {
        let mut standing = Standing {
            serial: self.serial,
            era: self.era,
            may_seal: vec![false; grant.own.len()],
        };
        if self.stage == Stage::Spent {
            return standing;
        }
        let key = |prefix| EntryKey {
            role: grant.role,
            prefix,
        };
        for own in &grant.own {
            self.entries.entry(key(own.prefix)).or_default();
        }
        let shared = grant.mode == Mode::TrustedServers && grant.role == Role::Server;
        let is_above = |highest: &HashMap<EntryKey, Option<u32>>, own: &super::grant::Own| {
            let highest = highest.get(&key(own.prefix)).copied().flatten();
            Some(own.generation) > highest
        };
        if self.era != era {
            let used = self.highest(shared, |used| used.highest);
            let all_new = grant.own.iter().all(|own| is_above(&used, own));
            // Only the era before still has its floors.
            let lost = self.era.wrapping_add(1) != era;
            if !self.sealed {
                self.era = era;
            } else if all_new || lost {
                self.era = era;
                for used in self.entries.values_mut() {
                    used.spent = used.highest;
                }
            }
        }
        for own in &grant.own {
            let used = self.entries.entry(key(own.prefix)).or_default();
            used.highest = used.highest.max(Some(own.generation));
        }
        self.sealed |= master.sealing;
        standing.era = self.era;
        let spent = self.highest(shared, |used| used.spent);
        for (own, may_seal) in grant.own.iter().zip(&mut standing.may_seal) {
            *may_seal = is_above(&spent, own);
        }
        standing
    }

    /// Per entry the highest of some number of its own; where secrets are `shared`, also of those that hold it or that it holds.
    fn highest(
        &self,
        shared: bool,
        of: impl Fn(&Used) -> Option<u32>,
    ) -> HashMap<EntryKey, Option<u32>> {
        let mut highest = HashMap::with_capacity(self.entries.len());
        let mut entries = self.entries.iter().peekable();
        // Ascending by list and first address, so whatever a prefix holds follows it.
        while let Some((widest, used)) = entries.next() {
            let mut together = vec![*widest];
            let mut most = of(used);
            let held = |next: &(&EntryKey, &Used)| {
                shared
                    && next.0.role == widest.role
                    && next.0.prefix.first() <= widest.prefix.last()
            };
            while let Some((key, used)) = entries.next_if(held) {
                together.push(*key);
                most = most.max(of(used));
            }
            highest.extend(together.into_iter().map(|key| (key, most)));
        }
        highest
    }
}
