//! Which grants a snapshot takes in.

use std::{collections::HashSet, sync::Arc};

use thiserror::Error;

use super::{
    EntryKey, Fingerprint, Grant, MAX_PAIRINGS, Role, Snapshot, State,
    grant::{GrantedMaster, Material, Own},
};
use crate::config::{Mode, Protection};

/// A grant that is not put in force. The one before of the same pairing stays, if there is one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GrantError {
    /// It contradicts itself.
    #[error("the grant of pairing `{pairing}` contradicts itself: {what}")]
    Malformed {
        /// The pairing.
        pairing: String,
        /// What is wrong.
        what: &'static str,
    },
    /// Another pairing has this name.
    #[error("pairing `{pairing}` is granted, but another pairing of this appliance has that name")]
    NameTaken {
        /// The pairing.
        pairing: String,
    },
    /// Another pairing has the same secret.
    #[error(
        "pairing `{pairing}` is granted the PairMasterSecret {master}, which another pairing of this appliance has"
    )]
    SecretTaken {
        /// The pairing.
        pairing: String,
        /// The secret.
        master: Fingerprint,
    },
    /// There are as many pairings as can be counted.
    #[error(
        "pairing `{pairing}` is granted, but {limit} pairings are in force, and no more can be"
    )]
    TooMany {
        /// The pairing.
        pairing: String,
        /// How many there can be.
        limit: usize,
    },
    /// A secret that was replaced comes back.
    #[error(
        "pairing `{pairing}` is granted the PairMasterSecret {master} in a place that it was replaced in before"
    )]
    SecretCameBack {
        /// The pairing.
        pairing: String,
        /// The secret.
        master: Fingerprint,
    },
    /// An own generation is lower than one that was given before.
    #[error("pairing `{pairing}` is granted generation {found} for {entry}, after {known}")]
    GenerationWentDown {
        /// The pairing.
        pairing: String,
        /// The entry.
        entry: EntryKey,
        /// The generation known.
        known: u32,
        /// The generation found.
        found: u32,
    },
}

/// What pairings have already that are put in force.
pub(super) struct Taken<'a> {
    pub(super) names: HashSet<&'a str>,
    pub(super) secrets: HashSet<Fingerprint>,
}

/// The grants that go in force, and why others do not. Instead of one that does not, the one before of the same name goes on.
pub(super) fn admit<'a>(
    grants: &'a [Arc<Grant>],
    mut taken: Taken<'a>,
    state: &State,
    previous: Option<&'a Snapshot>,
) -> (Vec<Arc<Grant>>, Vec<GrantError>) {
    let mut admitted = Vec::with_capacity(grants.len());
    let mut refused = Vec::new();
    for grant in grants {
        let error = match taken.add(grant, state) {
            Ok(()) => {
                admitted.push(Arc::clone(grant));
                continue;
            }
            Err(error) => error,
        };
        refused.push(error);
        let before = previous.and_then(|previous| previous.registered(&grant.pairing));
        if let Some(before) = before
            && taken.add(&before.grant, state).is_ok()
        {
            admitted.push(Arc::clone(&before.grant));
        }
    }
    (admitted, refused)
}

/// Tells the ledger what goes in force: secrets that pairings go on without are spent.
pub(super) fn enter<'a>(
    grants: impl Iterator<Item = &'a Grant> + Clone,
    state: &mut State,
    previous: Option<&Snapshot>,
) {
    let all = grants.clone().flat_map(|grant| &grant.masters);
    let in_use: HashSet<Fingerprint> = all.map(|master| master.id).collect();
    for grant in grants.clone().filter(|grant| !grant.masters.is_empty()) {
        let before = previous.and_then(|previous| previous.registered(&grant.pairing));
        let before = before.into_iter().flat_map(|before| &before.keys);
        for gone in before.filter(|keys| !in_use.contains(&keys.fingerprint)) {
            state.ledger.spend(&gone.fingerprint);
        }
    }
    state.ledger.keep_pairs_of(grants);
}

impl<'a> Taken<'a> {
    fn add(&mut self, grant: &'a Grant, state: &State) -> Result<(), GrantError> {
        grant.check()?;
        let pairing = || grant.pairing.clone();
        if self.names.contains(grant.pairing.as_str()) {
            return Err(GrantError::NameTaken { pairing: pairing() });
        }
        let taken = |id: &Fingerprint| self.secrets.contains(id) || state.record(id).is_some();
        if let Some(master) = grant.masters.iter().find(|master| taken(&master.id)) {
            return Err(GrantError::SecretTaken {
                pairing: pairing(),
                master: master.id,
            });
        }
        if self.names.len() >= MAX_PAIRINGS {
            return Err(GrantError::TooMany {
                pairing: pairing(),
                limit: MAX_PAIRINGS,
            });
        }
        state.ledger.check(grant)?;
        self.names.insert(&grant.pairing);
        self.secrets.extend(grant.masters.iter().map(|m| m.id));
        Ok(())
    }
}

impl Grant {
    /// What it contradicts itself in.
    fn contradiction(&self) -> Option<&'static str> {
        let ascends = |list: &[u32]| list.is_sorted_by(|a, b| a < b);
        if self.listed().next().is_none() {
            return Some("nothing is listed");
        }
        if !self.listed().all(|listed| ascends(&listed.generations)) {
            return Some("the generations of an entry do not ascend");
        }
        let mut keys: Vec<_> = self.keys().collect();
        keys.sort_unstable();
        let listed = keys.len();
        keys.dedup();
        if keys.len() != listed {
            return Some("an entry is listed twice");
        }
        let is_listed = |own: &Own| {
            let key = EntryKey {
                role: self.role,
                prefix: own.prefix,
            };
            keys.binary_search(&key).is_ok()
        };
        if !self.own.iter().all(is_listed) {
            return Some("an own entry is not listed");
        }
        let mut own: Vec<_> = self.own.iter().map(|own| own.prefix).collect();
        own.sort_unstable();
        own.dedup();
        if own.len() != self.own.len() {
            return Some("an own entry is given twice");
        }
        let is_sealed = self.mode != Mode::NoProtection && self.protection == Protection::Sealed;
        if !is_sealed && !self.masters.is_empty() {
            return Some("it has secrets where nothing is sealed");
        }
        if self.masters.len() > 2 {
            return Some("it has more than two PairMasterSecrets");
        }
        if let [newest, before] = self.masters.as_slice()
            && newest.id == before.id
        {
            return Some("it has one PairMasterSecret twice");
        }
        if self.masters.iter().filter(|m| m.sealing).count() > 1 {
            return Some("more than one PairMasterSecret is to be sealed with");
        }
        let fits = |material: &Material| {
            matches!(
                (self.mode, self.role, material),
                (Mode::TrustedServers, Role::Server, Material::Server(_))
                    | (Mode::TrustedServers, Role::Client, Material::Client(_))
                    | (Mode::AsymmetricPoll, Role::Client, Material::PollClient(_))
                    | (Mode::AsymmetricPoll, _, Material::PairKeys(_))
                    | (Mode::Ibc, Role::Client, Material::IbcClient(_))
                    | (Mode::Ibc, Role::Server, Material::IbcServer(_))
            )
        };
        let of_mode =
            |m: &GrantedMaster| m.material.len() == self.own.len() && m.material.iter().all(fits);
        if !self.masters.iter().all(of_mode) {
            return Some("the secrets are not those of its mode and entries");
        }
        None
    }

    /// Fails if it contradicts itself.
    fn check(&self) -> Result<(), GrantError> {
        self.contradiction().map_or(Ok(()), |what| {
            Err(GrantError::Malformed {
                pairing: self.pairing.clone(),
                what,
            })
        })
    }
}
