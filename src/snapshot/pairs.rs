//! Secrets of pairs on demand: from a worker's note to what the management core has to do about it.

use super::{
    Awaited, GrantError, PairId, Snapshot, State,
    grant::Material,
    granted::{Granted, Presence},
};
use crate::crypto::{BadPoint, SharedSecret};

/// How the secret of a pair is come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// AsymmetricPoll: the Primary is asked for it.
    Primary,
    /// IBC: by [`Snapshot::compute`].
    Computed,
}

impl Snapshot {
    /// The pair that a worker lacks the secret of, with the pairing's name and where it comes from; `None` if the note is of another
    /// snapshot, or the secret has come.
    #[must_use]
    pub fn wanted(&self, awaited: &Awaited) -> Option<(&str, PairId, Source)> {
        if awaited.serial != self.serial {
            return None;
        }
        let local = self.entries.get(awaited.local as usize)?;
        let remote = self.entries.get(awaited.remote as usize)?;
        let pairing = self.pairings.get(local.pairing as usize)?;
        let granted = pairing.granted.as_ref()?;
        let keys = granted.with_serial(awaited.pms_serial)?;
        let (own, peer) = (
            pairing.place_of(awaited.local),
            pairing.place_of(awaited.remote),
        );
        if granted.presence(keys, own, (peer, remote)) != Presence::Awaited {
            return None;
        }
        let source = match granted.material(&keys.fingerprint, own)? {
            Material::PairKeys(_) => Source::Primary,
            _ => Source::Computed,
        };
        let pair = PairId {
            master: keys.fingerprint,
            own: local.key(),
            peer: remote.key(),
        };
        Some((&pairing.name, pair, source))
    }

    /// Pairs that have a secret under a pairing's older PairMasterSecret but none under the newest one yet. They had better have it before
    /// that one is sealed with.
    #[must_use]
    pub fn behind(&self) -> Vec<Awaited> {
        let mut behind = Vec::new();
        for pairing in &self.pairings {
            let Some(granted) = &pairing.granted else {
                continue;
            };
            let Some(newest) = granted.keys.first() else {
                continue;
            };
            let pairs = granted.behind().into_iter();
            behind.extend(pairs.map(|(local, remote)| Awaited {
                serial: self.serial,
                pms_serial: newest.serial,
                local: pairing.first_entry + local as u32,
                remote: pairing.first_entry + remote as u32,
            }));
        }
        behind
    }

    /// IBC: computes the secret of a pair, which takes a millisecond or so. `None` if the pair is not granted any more.
    ///
    /// # Errors
    /// [`BadPoint`]: the key that the Primary gave is none.
    pub fn compute(&self, pair: &PairId) -> Option<Result<SharedSecret, BadPoint>> {
        let pairing = self.pairings.iter().find(|pairing| {
            let keys = pairing.granted.iter().flat_map(|granted| &granted.keys);
            keys.into_iter().any(|keys| keys.fingerprint == pair.master)
        })?;
        let granted = pairing.granted.as_ref()?;
        let mut entries = self.entries_of(pairing);
        let own = entries.position(|entry| entry.key() == pair.own)?;
        let peer = self.entries_of(pairing).find(|e| e.key() == pair.peer)?;
        let suite = &granted.grant.suite;
        match granted.material(&pair.master, own)? {
            Material::IbcClient(key) => Some(key.shared_secret(suite, &peer.id)),
            Material::IbcServer(key) => Some(key.shared_secret(suite, &peer.id)),
            _ => None,
        }
    }

    /// Whether an own generation of a registered pairing may not be sealed with in this era, or is lower than one before, so that a new one
    /// is needed.
    #[must_use]
    pub fn needs_generations(&self) -> bool {
        let went_down = |error: &GrantError| matches!(error, GrantError::GenerationWentDown { .. });
        if self.refused.iter().any(went_down) {
            return true;
        }
        let mut granted = self.pairings.iter().filter_map(|p| p.granted.as_ref());
        granted.any(Granted::needs_generations)
    }

    /// Whether something is sealed in a registered pairing.
    #[must_use]
    pub fn has_registered_secrets(&self) -> bool {
        let mut pairings = self.pairings.iter();
        pairings.any(|pairing| pairing.is_registered() && pairing.pms_serial().is_some())
    }

    /// Whether a pairing still counts in the floors of the era before, so that no new one can begin.
    #[must_use]
    pub fn has_stragglers(&self) -> bool {
        self.pairings.iter().any(|pairing| pairing.era != self.era)
    }
}

impl State {
    /// Keeps what was computed for a pair: snapshots have it from the next one on, as long as its secret and entries are granted.
    pub fn keep_pair(&mut self, pair: PairId, secret: SharedSecret) {
        self.ledger.keep_pair(pair, secret);
    }

    /// Whether the secret of a pair was computed.
    #[must_use]
    pub fn has_pair(&self, pair: &PairId) -> bool {
        self.ledger.pair(pair).is_some()
    }
}
