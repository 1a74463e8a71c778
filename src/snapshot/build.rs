//! How a snapshot comes from the configuration, the state file and the snapshot before.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use arrayvec::ArrayVec;
use thiserror::Error;

use super::{
    Entry, EntryKey, Fingerprint, Grant, Pairing, Policy, Role, Snapshot, State, StateError,
    admit::{self, Taken},
    granted::Granted,
    heard::Heard,
    master::{Generations, Master, Secrets},
    ranges::Ranges,
    state::Claim,
};
use crate::{
    config::{self, Config, Prefix},
    crypto::{Aead, EntryId, Kem, PairMasterSecret, PairingPrk, PrefixTooLong, Suite},
};

/// The last serial number given to a PairMasterSecret in this process.
static LAST_PMS_SERIAL: AtomicU32 = AtomicU32::new(0);

fn next_pms_serial() -> u32 {
    LAST_PMS_SERIAL.fetch_add(1, Ordering::Relaxed) + 1
}

/// No snapshot can be made.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The own generations could not be raised or kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// A list entry is no prefix.
    #[error(transparent)]
    Entry(#[from] PrefixTooLong),
    /// Two pairings have the same secrets, so neither could keep its generations apart from the other's.
    #[error(
        "the pairings `{first}` and `{second}` have the same salt and PairMasterSecret: give each its own"
    )]
    SameSecrets {
        /// The earlier one.
        first: String,
        /// The later one.
        second: String,
    },
}

/// What a snapshot is made of besides configuration and state.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The snapshot in force, if there is one: its secrets go on opening what peers seal under them, and keep their serial numbers.
    pub previous: Option<&'a Snapshot>,
    /// The new snapshot's serial number; not 0, and higher than the one before.
    pub serial: u32,
    /// Cycles of the TSC in a second.
    pub tsc_hz: u64,
    /// Begins another era: all static own generations are raised, so that the table of Kri floors may start over. Registered pairings stay
    /// with the floors of the era before until their own generations have risen; none may still be with those of the era before that.
    pub new_era: bool,
}

/// A pairing of the configuration with its entries, on the way to one of the snapshot.
struct Draft<'a> {
    config: &'a config::Pairing,
    suite: Suite,
    entries: Vec<Entry>,
    groups: Vec<&'a str>,
    clients: Vec<EntryId>,
    /// Where something is sealed.
    sealed: Option<Sealed<'a>>,
}

struct Sealed<'a> {
    prk: Arc<PairingPrk>,
    fingerprint: Fingerprint,
    /// The same pairing before: with the same newest secret, else of the same name.
    before: Option<&'a Pairing>,
    /// Whether its own generations must be raised.
    raise: bool,
}

impl Snapshot {
    /// Makes a snapshot, after raising in `state` every own generation that must be raised first.
    ///
    /// They are raised where a worker could otherwise use a key again from its first number on: for a pairing whose newest secret is not
    /// the one it had in `previous` (also at each start, when there is no `previous`), for one whose name, mode, protection or lists changed, and
    /// for all in a new era. A secret that is still the newest one keeps its serial number. If a pairing's secret changed, the one before
    /// goes on opening until the next change, unless the suite changed too.
    ///
    /// `grants` are all that the Primary granted. One that contradicts itself, another pairing, or what was granted before is not put in
    /// force but told of in [`Snapshot::refused`], and the one before stays, if there was one in `previous`. What has to be remembered of
    /// them is kept in `state` for the life of the process.
    ///
    /// # Errors
    /// [`BuildError`]; then `previous` is still good to use, and `state` may have been raised, which only costs a generation.
    pub fn build(
        config: &Config,
        grants: &[Arc<Grant>],
        state: &mut State,
        inputs: Inputs<'_>,
    ) -> Result<Self, BuildError> {
        let previous = inputs.previous;
        let mut drafts = Vec::with_capacity(config.pairings.len());
        for (place, pairing) in (0..).zip(&config.pairings) {
            drafts.push(Draft::new(place, pairing, previous, inputs.new_era)?);
        }
        apart(&drafts)?;
        let taken = Taken {
            names: config.pairings.iter().map(|p| p.name.as_str()).collect(),
            secrets: drafts
                .iter()
                .filter_map(|draft| Some(draft.sealed.as_ref()?.fingerprint))
                .collect(),
        };
        let (grants, refused) = admit::admit(grants, taken, state, previous);
        let registered = (drafts.len() as u32..).zip(grants);
        let registered: Vec<_> = registered
            .map(|(place, grant)| Ok((granted_entries(place, &grant)?, grant)))
            .collect::<Result<_, PrefixTooLong>>()?;
        let claims: Vec<_> = drafts.iter().filter_map(Draft::claim).collect();
        state.raise(&claims)?;

        // From here on nothing fails, so what the ledger is told becomes true.
        let era = previous.map_or(0, |previous| {
            previous.era.wrapping_add(inputs.new_era.into())
        });
        let mut entries = Vec::new();
        let mut pairings = Vec::with_capacity(drafts.len() + registered.len());
        for draft in drafts {
            let first_entry = entries.len() as u32;
            let masters = draft.masters(state, previous);
            pairings.push(Pairing {
                name: draft.config.name.as_str().to_owned(),
                mode: draft.config.mode,
                protection: draft.config.protection,
                suite: draft.suite,
                era,
                first_entry,
                masters,
                granted: None,
            });
            entries.extend(draft.entries);
        }
        admit::enter(
            registered.iter().map(|(_, grant)| &**grant),
            state,
            previous,
        );
        for (own, grant) in registered {
            let first_entry = entries.len() as u32;
            pairings.push(granted_pairing(
                &grant,
                &own,
                first_entry,
                era,
                state,
                previous,
            ));
            entries.extend(own);
        }
        Ok(Self {
            serial: inputs.serial,
            era,
            refused,
            policy: Policy::new(config, inputs.tsc_hz),
            ranges: Ranges::new(&entries),
            pairings,
            entries,
        })
    }

    /// The pairing whose newest secret this is.
    fn with_newest(&self, fingerprint: &Fingerprint) -> Option<&Pairing> {
        self.pairings.iter().find(|pairing| {
            let newest = pairing.masters.first();
            newest.is_some_and(|newest| newest.fingerprint == *fingerprint)
        })
    }

    /// The registered pairing of this name.
    pub(super) fn registered(&self, name: &str) -> Option<&Granted> {
        let mut pairings = self.pairings.iter();
        let pairing = pairings.find(|pairing| pairing.name == name)?;
        pairing.granted.as_ref()
    }

    /// The cells of every entry under one secret.
    fn cells(&self, fingerprint: &Fingerprint) -> HashMap<EntryKey, Arc<Heard>> {
        let holders = self.pairings.iter().flat_map(|pairing| {
            let masters = pairing.masters.iter();
            masters.map(move |master| (pairing, master))
        });
        holders
            .filter(|(_, master)| master.fingerprint == *fingerprint)
            .flat_map(|(pairing, master)| self.entries_of(pairing).zip(&master.generations))
            .map(|(entry, generations)| (entry.key(), Arc::clone(&generations.heard)))
            .collect()
    }

    pub(super) fn entries_of(&self, pairing: &Pairing) -> impl Iterator<Item = &Entry> {
        let place = self
            .entries
            .get(pairing.first_entry as usize)
            .map(|e| e.pairing);
        self.entries
            .iter()
            .skip(pairing.first_entry as usize)
            .take_while(move |entry| Some(entry.pairing) == place)
    }
}

/// The entries of a grant, clients before servers.
fn granted_entries(pairing: u32, grant: &Grant) -> Result<Vec<Entry>, PrefixTooLong> {
    let mut entries = Vec::with_capacity(grant.clients.len() + grant.servers.len());
    for (place, client) in (0..).zip(&grant.clients) {
        let entry = Entry::new(pairing, Role::Client, client.prefix, "", 0)?;
        entries.push(Entry { place, ..entry });
    }
    let mut groups = HashMap::new();
    for (place, server) in (0..).zip(&grant.servers) {
        let entry = Entry::new(pairing, Role::Server, server.prefix, &server.group, 0)?;
        let next = groups.len() as u32;
        let group_place = *groups.entry(server.group.as_str()).or_insert(next);
        entries.push(Entry {
            place,
            group_place,
            ..entry
        });
    }
    Ok(entries)
}

fn granted_pairing(
    grant: &Arc<Grant>,
    entries: &[Entry],
    first_entry: u32,
    era: u32,
    state: &mut State,
    previous: Option<&Snapshot>,
) -> Pairing {
    let standings = state.ledger.enter(grant, era, next_pms_serial);
    let sealing = grant.masters.iter().position(|master| master.sealing);
    let sealing = sealing.and_then(|sealing| standings.get(sealing));
    let before = previous.and_then(|previous| previous.registered(&grant.pairing));
    Pairing {
        name: grant.pairing.clone(),
        mode: grant.mode,
        protection: grant.protection,
        suite: grant.suite,
        // Floors are for what is sealed.
        era: sealing.map_or(era, |standing| standing.era),
        first_entry,
        masters: ArrayVec::new(),
        granted: Some(Granted::new(
            grant,
            entries,
            &standings,
            &state.ledger,
            before,
        )),
    }
}

/// Fails if two drafts have the same secrets.
fn apart(drafts: &[Draft<'_>]) -> Result<(), BuildError> {
    for (at, draft) in drafts.iter().enumerate() {
        let same = drafts.iter().take(at).find(|earlier| {
            matches!((&earlier.sealed, &draft.sealed), (Some(a), Some(b)) if a.fingerprint == b.fingerprint)
        });
        if let Some(first) = same {
            return Err(BuildError::SameSecrets {
                first: first.config.name.as_str().to_owned(),
                second: draft.config.name.as_str().to_owned(),
            });
        }
    }
    Ok(())
}

impl<'a> Draft<'a> {
    fn new(
        place: u32,
        config: &'a config::Pairing,
        previous: Option<&'a Snapshot>,
        new_era: bool,
    ) -> Result<Self, BuildError> {
        let suite = suite_of(config.suite);
        let mut draft = Self {
            config,
            suite,
            entries: Vec::new(),
            groups: Vec::new(),
            clients: Vec::new(),
            sealed: None,
        };
        for (at, client) in (0..).zip(config.clients.iter()) {
            let entry = Entry::new(
                place,
                Role::Client,
                *client.prefix,
                "",
                client.generation.get(),
            )?;
            draft.clients.push(entry.id);
            draft.entries.push(Entry { place: at, ..entry });
        }
        for (at, server) in (0..).zip(config.servers.iter()) {
            let group = server.group.as_ref().map_or("", |group| group.as_str());
            let entry = Entry::new(
                place,
                Role::Server,
                *server.prefix,
                group,
                server.generation.get(),
            )?;
            let known = draft.groups.iter().position(|known| *known == group);
            let group_place = known.unwrap_or(draft.groups.len()) as u32;
            if known.is_none() {
                draft.groups.push(group);
            }
            draft.entries.push(Entry {
                place: at,
                group_place,
                ..entry
            });
        }
        if config.is_sealed()
            && let Some((salt, pms)) = config.secrets()
        {
            let pms = PairMasterSecret::from_bytes(*pms.bytes());
            let prk = PairingPrk::extract(&suite, salt.bytes(), &pms);
            let fingerprint = Fingerprint(prk.fingerprint(&suite));
            let same = previous.and_then(|previous| previous.with_newest(&fingerprint));
            let named = || {
                let mut pairings = previous?.pairings.iter();
                pairings.find(|pairing| pairing.name == config.name.as_str())
            };
            let unchanged = same
                .zip(previous)
                .is_some_and(|(same, previous)| draft.is_like(same, previous));
            draft.sealed = Some(Sealed {
                prk: Arc::new(prk),
                fingerprint,
                before: same.or_else(named),
                raise: new_era || !unchanged,
            });
        }
        Ok(draft)
    }

    /// Whether a pairing of the snapshot before has the same name, mode, protection and lists. The name counts because what was sealed is
    /// counted by it, and a generation is given back if that count is 0.
    fn is_like(&self, pairing: &Pairing, previous: &Snapshot) -> bool {
        let shape = |entry: &Entry| (entry.key(), entry.group.clone(), entry.configured);
        pairing.name == self.config.name.as_str()
            && pairing.mode == self.config.mode
            && pairing.protection == self.config.protection
            && previous
                .entries_of(pairing)
                .map(shape)
                .eq(self.entries.iter().map(shape))
    }

    fn claim(&self) -> Option<Claim> {
        let sealed = self.sealed.as_ref().filter(|sealed| sealed.raise)?;
        Some(Claim {
            name: self.config.name.as_str().to_owned(),
            fingerprint: sealed.fingerprint,
            entries: self
                .entries
                .iter()
                .map(|entry| (entry.key(), entry.configured))
                .collect(),
        })
    }

    /// The secrets in use, newest first.
    fn masters(&self, state: &State, previous: Option<&Snapshot>) -> ArrayVec<Master, 2> {
        let mut masters = ArrayVec::new();
        let Some(sealed) = &self.sealed else {
            return masters;
        };
        let before = sealed.before.map_or(&[][..], |before| &before.masters);
        let kept = before
            .first()
            .filter(|newest| newest.fingerprint == sealed.fingerprint);
        let serial = kept.map_or_else(next_pms_serial, |kept| kept.serial);
        masters.extend(self.master(serial, sealed.fingerprint, &sealed.prk, state, previous));
        // What only opens: the secret that was the newest before this one, or the one that was older already then.
        let older = before
            .iter()
            .find(|older| older.fingerprint != sealed.fingerprint)
            .filter(|_| {
                sealed
                    .before
                    .is_some_and(|before| before.suite == self.suite)
            });
        if let Some(older) = older {
            masters.extend(self.master(
                older.serial,
                older.fingerprint,
                &older.prk,
                state,
                previous,
            ));
        }
        masters
    }

    /// A secret with everything derived from it for these lists; `None` for a mode that has no secrets.
    fn master(
        &self,
        serial: u32,
        fingerprint: Fingerprint,
        prk: &Arc<PairingPrk>,
        state: &State,
        previous: Option<&Snapshot>,
    ) -> Option<Master> {
        let secrets = Secrets::derive(
            self.config.mode,
            &self.suite,
            prk,
            &self.clients,
            &self.groups,
        )?;
        let record = state.record(&fingerprint);
        let cells = previous.map_or_else(HashMap::new, |previous| previous.cells(&fingerprint));
        let generations = self.entries.iter().map(|entry| {
            let key = entry.key();
            let remembered = record.and_then(|record| record.entries.get(&key));
            let own = remembered.map_or(entry.configured, |remembered| remembered.own);
            let (peer, start) = remembered.map_or((None, None), |remembered| {
                (remembered.peer, remembered.heard_start)
            });
            let heard = match cells.get(&key) {
                Some(cell) => {
                    cell.note(peer, start);
                    Arc::clone(cell)
                }
                None => Arc::new(Heard::new(peer, start)),
            };
            Generations {
                own,
                peer: heard
                    .peer()
                    .map_or(entry.configured, |heard| heard.max(entry.configured)),
                heard,
            }
        });
        Some(Master {
            serial,
            fingerprint,
            start: record.map_or(0, |record| record.start),
            prk: Arc::clone(prk),
            secrets,
            generations: generations.collect(),
        })
    }
}

impl Entry {
    /// An entry; its place in its list and that of its group are still to be set.
    fn new(
        pairing: u32,
        role: Role,
        prefix: Prefix,
        group: &str,
        configured: u32,
    ) -> Result<Self, PrefixTooLong> {
        let id = EntryId::new(&prefix.address(), prefix.length())?;
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((role, prefix, group));
        Ok(Self {
            pairing,
            role,
            prefix,
            group: group.to_owned(),
            configured,
            id,
            place: 0,
            group_place: 0,
            mark: hash as u32,
        })
    }
}

/// A suite of the configuration, as the key schedule takes it.
#[must_use]
pub fn suite_of(suite: config::Suite) -> Suite {
    Suite {
        kem: match suite.kem {
            config::Kem::X25519 => Kem::X25519HkdfSha256,
            config::Kem::P256 => Kem::P256HkdfSha256,
        },
        aead: match suite.aead {
            config::Aead::Aes128Gcm => Aead::Aes128Gcm,
            config::Aead::Aes256Gcm => Aead::Aes256Gcm,
            config::Aead::ChaCha20Poly1305 => Aead::ChaCha20Poly1305,
        },
    }
}
