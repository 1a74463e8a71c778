//! A pairing as the configuration describes it.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{record::Addition, share::Terms};
use crate::{
    config::{self, Mode, PairKeys, Prefix, Protection},
    crypto::{Suite, hpke::Psk},
    registration::store::{EtcdConfig, EtcdTls, EtcdUser, StoreConfig},
    snapshot::{Role, suite_of},
};

/// One pairing.
pub(super) struct Pairing {
    pub name: String,
    /// The name in the peer Primary's certificate.
    pub peer: String,
    /// Which list is ours; a client connects.
    pub role: Role,
    /// Where the peer listens, `host:port`, if we connect.
    pub connect: Vec<String>,
    /// What a Primary Server names.
    pub mode: Mode,
    pub protection: Protection,
    /// The suites allowed, in order of preference.
    pub suites: Vec<Suite>,
    pub psk: Option<Psk>,
    /// The age at which a secret is renewed; `None` if that is the peer's to say.
    pub renew_after: Option<Duration>,
    /// How our Secondaries come by the pairs' keys in AsymmetricPoll.
    pub keys: PairKeys,
    pub entries: Vec<Addition>,
    /// What the peer may list; anything if there is nothing.
    pub peer_entries: Vec<Prefix>,
    pub analyzers: Vec<String>,
    /// The oldest version of the record that any Secondary works with, at any replica.
    pub held: watch::Sender<u64>,
    /// The peer's connections to this replica, and since when there are any (Unix seconds).
    pub connected: watch::Sender<(usize, u64)>,
}

impl Pairing {
    pub fn new(config: &config::PrimaryPairing) -> Self {
        let entries = config.entries.iter().map(|entry| Addition {
            prefix: *entry.prefix,
            group: entry
                .group
                .as_ref()
                .map_or_else(String::new, |group| group.as_str().to_owned()),
            secondary: None,
        });
        Self {
            name: config.name.as_str().to_owned(),
            peer: config.peer.as_str().to_owned(),
            role: match *config.role {
                config::PairingRole::Client => Role::Client,
                config::PairingRole::Server => Role::Server,
            },
            connect: config.addresses().iter().map(ToString::to_string).collect(),
            mode: config.mode(),
            protection: config.protection(),
            suites: config
                .suites
                .iter()
                .map(|suite| suite_of(**suite))
                .collect(),
            psk: config.psk.as_ref().and_then(|psk| {
                // The configuration has checked both.
                let key = Zeroizing::new(psk.key.bytes().to_vec());
                Psk::new(psk.id.as_str().as_bytes().to_vec(), key).ok()
            }),
            renew_after: config.renew_after(),
            keys: config.asymmetric_poll(),
            entries: entries.collect(),
            peer_entries: config.peer_entries.iter().map(|prefix| **prefix).collect(),
            analyzers: config
                .analyzers
                .iter()
                .map(|name| name.as_str().to_owned())
                .collect(),
            held: watch::Sender::new(0),
            connected: watch::Sender::new((0, 0)),
        }
    }

    pub fn terms(&self) -> Terms<'_> {
        Terms {
            name: &self.name,
            role: self.role,
            keys: self.keys,
        }
    }

    /// Whether our entries need groups, as far as that is ours to know.
    pub fn needs_groups(&self) -> bool {
        self.role == Role::Server
            && self.mode == Mode::TrustedServers
            && self.protection == Protection::Sealed
    }
}

/// Which entries each Secondary is allowed.
pub(super) fn secondaries(config: &config::Primary) -> HashMap<String, Vec<Prefix>> {
    let allowed = config.secondaries.iter().map(|secondary| {
        let entries = secondary.entries.iter().map(|entry| **entry);
        (secondary.name.as_str().to_owned(), entries.collect())
    });
    allowed.collect()
}

/// The store that the configuration names.
pub(super) fn store(config: &config::Primary) -> StoreConfig {
    match &config.store {
        config::PrimaryStore::Embedded(path) => StoreConfig::Embedded { path: path.clone() },
        config::PrimaryStore::Etcd(etcd) => {
            let file = |path: &Option<config::At<PathBuf>>| path.as_deref().cloned();
            let tls = file(&etcd.authorities).map(|authorities| EtcdTls {
                authorities,
                identity: file(&etcd.certificate).zip(file(&etcd.key)),
            });
            let user = etcd.user.as_deref().map(|name| EtcdUser {
                name: name.clone(),
                password: Zeroizing::new(
                    String::from_utf8_lossy(etcd.password.bytes()).into_owned(),
                ),
            });
            StoreConfig::Etcd(EtcdConfig {
                endpoints: etcd
                    .endpoints
                    .iter()
                    .map(|e| e.as_str().to_owned())
                    .collect(),
                prefix: etcd.prefix.as_str().to_owned(),
                tls,
                user,
                // etcd counts whole seconds.
                lease: Duration::from_secs(etcd.lease.get().as_millis().div_ceil(1_000) as u64)
                    .max(EtcdConfig::MIN_LEASE),
            })
        }
    }
}
