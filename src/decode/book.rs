//! Where a decoder's lists and secrets come from: a configuration, or what Primaries agreed on.

use super::registered::Registered;
use crate::crypto::{Aead, SessionKey};
use crate::flow::Epoch;
use crate::snapshot::{Route, Snapshot};
use crate::wire::FiveTuple;

/// Lists and secrets.
pub(super) enum Book {
    /// Static pairings.
    Configured(Box<Snapshot>),
    /// Registered ones.
    Registered(Registered),
}

impl Book {
    /// The pairing and the entries of a packet; its source counts as the local end.
    pub fn resolve(&self, src: &[u8; 16], dst: &[u8; 16]) -> Option<Route> {
        match self {
            Self::Configured(snapshot) => snapshot.resolve(src, dst),
            Self::Registered(registered) => registered.resolve(src, dst),
        }
    }

    /// The pairing's name.
    pub fn name(&self, route: &Route) -> Option<&str> {
        match self {
            Self::Configured(snapshot) => Some(snapshot.pairing(route)?.name.as_str()),
            Self::Registered(registered) => registered.name(route),
        }
    }

    /// Whether there is a secret under which the pairing's packets may be sealed.
    pub fn seals(&self, route: &Route) -> bool {
        match self {
            Self::Configured(snapshot) => {
                let pairing = snapshot.pairing(route);
                pairing.is_some_and(|pairing| pairing.pms_serial().is_some())
            }
            Self::Registered(registered) => registered.seals(route),
        }
    }

    /// What packets of an epoch are sealed with.
    pub fn aead(&self, route: &Route, epoch: &Epoch) -> Option<Aead> {
        match self {
            Self::Configured(snapshot) => Some(snapshot.pairing(route)?.suite.aead),
            Self::Registered(registered) => registered.aead(route, epoch),
        }
    }

    /// The key of packets `tuple`, which go the way of `route`.
    pub fn session_key(
        &self,
        route: &Route,
        epoch: &Epoch,
        tuple: &FiveTuple,
        kri: u32,
    ) -> Option<SessionKey> {
        match self {
            Self::Configured(snapshot) => snapshot.session_key(route, epoch, tuple, kri),
            Self::Registered(registered) => registered.session_key(route, epoch, tuple, kri),
        }
    }

    /// Epochs that may have begun since `latest`, or that are in force if nothing opened so far, at `time` (Unix seconds).
    pub fn begun<'a>(
        &'a self,
        route: &Route,
        latest: Option<Epoch>,
        generations: u32,
        time: u64,
    ) -> Box<dyn Iterator<Item = Epoch> + 'a> {
        match self {
            Self::Configured(snapshot) => Box::new(newer(
                latest.unwrap_or_else(|| snapshot.send_epoch(route)),
                generations,
            )),
            Self::Registered(registered) => {
                let listed = registered.listed(route, time);
                let from = latest.or_else(|| listed.first().copied());
                let newer = from.into_iter().flat_map(move |e| newer(e, generations));
                Box::new(newer.chain(listed))
            }
        }
    }

    /// Every epoch worth trying, at `time` (Unix seconds).
    pub fn all<'a>(
        &'a self,
        route: &Route,
        generations: u32,
        time: u64,
    ) -> Box<dyn Iterator<Item = Epoch> + 'a> {
        match self {
            Self::Configured(snapshot) => Box::new(newer(snapshot.send_epoch(route), generations)),
            Self::Registered(registered) => {
                Box::new(registered.all(route, generations, time).into_iter())
            }
        }
    }
}

/// `from` and the epochs after it, those closest to it first.
fn newer(from: Epoch, generations: u32) -> impl Iterator<Item = Epoch> {
    (0..=2 * generations).flat_map(move |steps| {
        (steps.saturating_sub(generations)..=steps.min(generations)).filter_map(move |src| {
            Some(Epoch {
                src_generation: from.src_generation.checked_add(src)?,
                dst_generation: from.dst_generation.checked_add(steps - src)?,
                ..from
            })
        })
    })
}
