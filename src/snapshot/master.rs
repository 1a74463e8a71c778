//! One PairMasterSecret in use: what is derived from it, and the generations that belong to it.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::{Entry, Fingerprint, heard::Heard};
use crate::{
    config::Mode,
    crypto::{EntryId, PairClientSecret, PairingPrk, SessionInfo, SessionKey, SharedSecret, Suite},
};

/// A PairMasterSecret, as its pairing PRK, with what workers need of it.
pub(super) struct Master {
    /// Given once in a process; newer ones are higher.
    pub(super) serial: u32,
    pub(super) fingerprint: Fingerprint,
    /// How often the own generations were raised.
    pub(super) start: u32,
    /// Kept to derive anew when lists change. Zeroed with the last snapshot that has it.
    pub(super) prk: Arc<PairingPrk>,
    pub(super) secrets: Secrets,
    /// Per entry of the pairing, clients before servers.
    pub(super) generations: Vec<Generations>,
}

/// The generations of one entry.
#[derive(Debug)]
pub(super) struct Generations {
    /// That under which the appliance sends for the entry's hosts, if it serves them.
    pub(super) own: u32,
    /// The newest of the entry's own appliance that was known when the snapshot was built: heard, or configured.
    pub(super) peer: u32,
    /// What was heard, also since.
    pub(super) heard: Arc<Heard>,
}

impl Generations {
    /// The newest generation of the entry's own appliance that is known now.
    pub(super) fn newest_peer(&self) -> u32 {
        self.heard
            .peer()
            .map_or(self.peer, |heard| heard.max(self.peer))
    }

    /// The own generations that packets from a peer may name, likeliest first: the current one, and the one that the peer is known to have
    /// used last; if that is the current one too, the one before, which packets under way may still name; if nothing is known, also the
    /// configured one. `start` is the one of the
    /// current generation.
    pub(super) fn accepted(&self, start: u32, peer: &Heard) -> ArrayVec<u32, 3> {
        let behind = match peer.start() {
            Some(known) if known < start => [start - known, 0],
            Some(_) => [start.min(1), 0],
            // It may have heard of the start before, or only know what it was configured with.
            None => [start.min(1), start],
        };
        let mut accepted = ArrayVec::from_iter([self.own]);
        for behind in behind {
            if let Some(older) = self.own.checked_sub(behind)
                && !accepted.contains(&older)
            {
                accepted.push(older);
            }
        }
        accepted
    }
}

/// Secrets derived ahead, so that a worker needs one step for a key, or two.
pub(super) enum Secrets {
    /// TrustedServers: the SharedSecret of each client entry (by its place) with each group.
    TrustedServers {
        groups: usize,
        shared: Vec<SharedSecret>,
    },
    /// AsymmetricPoll: the PairClientSecret of each client entry.
    AsymmetricPoll(Vec<PairClientSecret>),
}

impl Secrets {
    /// Derives them; `None` for a mode without secrets. `groups` are the servers' groups, by their place.
    pub(super) fn derive(
        mode: Mode,
        suite: &Suite,
        prk: &PairingPrk,
        clients: &[EntryId],
        groups: &[&str],
    ) -> Option<Self> {
        match mode {
            Mode::TrustedServers => {
                // Never grown: that would leave copies of secrets behind.
                let mut shared = Vec::with_capacity(clients.len() * groups.len());
                let servers: Vec<_> = groups
                    .iter()
                    .map(|group| prk.server_secret(suite, group))
                    .collect();
                for client in clients {
                    for server in &servers {
                        shared.push(server.client_secret(suite, client).into());
                    }
                }
                Some(Self::TrustedServers {
                    groups: groups.len(),
                    shared,
                })
            }
            Mode::AsymmetricPoll => {
                let secrets = clients
                    .iter()
                    .map(|client| prk.poll_client_secret(suite, client));
                Some(Self::AsymmetricPoll(secrets.collect()))
            }
            // Secrets of identity-based cryptography come by registration only.
            Mode::Ibc | Mode::NoProtection => None,
        }
    }
}

impl Master {
    /// The key of one direction between a client's and a server's entry (protocol section 3). No allocation.
    pub(super) fn session_key(
        &self,
        suite: &Suite,
        client: &Entry,
        server: &Entry,
        info: &SessionInfo<'_>,
    ) -> Option<SessionKey> {
        let client = client.place as usize;
        match &self.secrets {
            Secrets::TrustedServers { groups, shared } => {
                let shared = shared.get(client * groups + server.group_place as usize)?;
                Some(shared.session_key(suite, info))
            }
            Secrets::AsymmetricPoll(clients) => {
                let key = clients.get(client)?.pair_device_key(suite, &server.id);
                Some(SharedSecret::from(key).session_key(suite, info))
            }
        }
    }
}

impl std::fmt::Debug for Master {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Master")
            .field("serial", &self.serial)
            .field("fingerprint", &self.fingerprint)
            .field("start", &self.start)
            .field("generations", &self.generations)
            .finish_non_exhaustive()
    }
}
