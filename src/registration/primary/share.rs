//! What a Primary gives a Secondary for one pairing: what protocol section 3's table gives its entries in the pairing's mode, no more.

use super::record::{Instance, MasterRecord, OwnRecord, PairingRecord};
use crate::{
    config::{Mode, PairKeys, Prefix, Protection},
    crypto::{EntryId, PairDeviceKey},
    snapshot::{
        Role,
        grant::{Grant, GrantedMaster, Listed, Material, Own},
    },
};

/// The parts of a pairing that its configuration fixes.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Its name.
    pub name: &'a str,
    /// The list that is ours.
    pub role: Role,
    /// How our Secondaries come by the pairs' keys in AsymmetricPoll.
    pub keys: PairKeys,
}

/// The grant for the entries that `instance` serves; `None` if it has none here, or nothing was agreed on with the peer yet.
#[must_use]
pub fn grant(terms: &Terms<'_>, record: &PairingRecord, instance: &Instance) -> Option<Grant> {
    let newest = record.masters.first()?;
    let served: Vec<(&OwnRecord, Own, bool)> = record
        .own
        .iter()
        .filter_map(|entry| {
            let mine = entry.given.iter().filter(|g| g.instance == *instance);
            // The one it sends under; before its first may be used, that one, for receiving alone.
            let given = mine.max_by_key(|given| (given.sending, given.number))?;
            let own = Own {
                prefix: entry.prefix,
                generation: given.number,
            };
            Some((entry, own, given.sending))
        })
        .collect();
    if served.is_empty() {
        return None;
    }
    let all_sending = served.iter().all(|(_, _, sending)| *sending);
    let has_secrets = newest.mode != Mode::NoProtection && newest.protection == Protection::Sealed;
    let masters = record.masters.iter().filter(|_| has_secrets);
    let masters = masters.map(|master| GrantedMaster {
        id: master.id,
        sealing: master.sealing && all_sending,
        material: served
            .iter()
            .filter_map(|(entry, ..)| material(terms, master, entry, &record.peer))
            .collect(),
    });
    let (clients, servers) = record.lists(terms.role);
    Some(Grant {
        pairing: terms.name.to_owned(),
        mode: newest.mode,
        protection: newest.protection,
        suite: newest.suite,
        role: terms.role,
        clients,
        servers,
        own: served.iter().map(|(_, own, _)| *own).collect(),
        masters: masters.collect(),
    })
}

fn id(prefix: Prefix) -> Option<EntryId> {
    EntryId::new(&prefix.address(), prefix.length()).ok()
}

fn material(
    terms: &Terms<'_>,
    master: &MasterRecord,
    entry: &OwnRecord,
    peer: &[Listed],
) -> Option<Material> {
    let (prk, suite) = (&master.prk, &master.suite);
    let own = id(entry.prefix)?;
    Some(match (master.mode, terms.role) {
        (Mode::TrustedServers, Role::Server) => {
            Material::Server(prk.server_secret(suite, &entry.group))
        }
        (Mode::TrustedServers, Role::Client) => {
            let mut groups: Vec<&str> = peer.iter().map(|server| &*server.group).collect();
            groups.sort_unstable();
            groups.dedup();
            let secrets = groups.into_iter().map(|group| {
                let secret = prk.server_secret(suite, group).client_secret(suite, &own);
                (group.to_owned(), secret)
            });
            Material::Client(secrets.collect())
        }
        (Mode::AsymmetricPoll, role) => match (terms.keys, role) {
            (PairKeys::Hold, Role::Client) => {
                Material::PollClient(prk.poll_client_secret(suite, &own))
            }
            (PairKeys::Hold, Role::Server) => {
                let keys = peer.iter().filter_map(|client| {
                    let key = pair_key(terms.role, master, entry.prefix, client.prefix)?;
                    Some((client.prefix, key))
                });
                Material::PairKeys(keys.collect())
            }
            // What it asks for, it gets one by one.
            (PairKeys::Ask, _) => Material::PairKeys(Vec::new()),
        },
        (Mode::Ibc, Role::Client) => Material::IbcClient(prk.ibc_master(suite).client_key(&own)),
        (Mode::Ibc, Role::Server) => Material::IbcServer(prk.ibc_master(suite).server_key(&own)),
        (Mode::NoProtection, _) => return None,
    })
}

/// AsymmetricPoll: the key of the pair (protocol section 3).
#[must_use]
pub fn pair_key(
    role: Role,
    master: &MasterRecord,
    own: Prefix,
    peer: Prefix,
) -> Option<PairDeviceKey> {
    let (client, server) = match role {
        Role::Client => (own, peer),
        Role::Server => (peer, own),
    };
    let secret = master.prk.poll_client_secret(&master.suite, &id(client)?);
    Some(secret.pair_device_key(&master.suite, &id(server)?))
}
