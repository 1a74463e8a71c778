//! A Primary small enough for tests: it holds the PRKs of one pairing, and gives Secondaries what their mode allows (protocol section 3).

use crate::config::{Mode, Prefix, Protection};
use crate::crypto::{EntryId, PairMasterSecret, PairingPrk, SharedSecret, Suite};
use crate::snapshot::grant::{GrantedMaster, Listed, Material, Own};
use crate::snapshot::{Fingerprint, Grant, Role};
use std::sync::Arc;

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

pub(crate) fn entry(prefix: &Prefix) -> EntryId {
    EntryId::new(&prefix.address(), prefix.length()).expect("an entry")
}

fn listed(text: &str, group: &str) -> Listed {
    Listed {
        prefix: prefix(text),
        group: group.to_owned(),
        generations: vec![1],
    }
}

/// Both Primaries of a pairing in one.
pub(crate) struct Primary {
    pub(crate) name: &'static str,
    pub(crate) mode: Mode,
    pub(crate) protection: Protection,
    pub(crate) suite: Suite,
    pub(crate) clients: Vec<Listed>,
    pub(crate) servers: Vec<Listed>,
    /// All PRKs that ever were, newest first.
    pub(crate) prks: Vec<PairingPrk>,
    /// How many of them are given out, and which seals.
    pub(crate) given: usize,
    pub(crate) sealing: Option<usize>,
    /// AsymmetricPoll: the pairs that were asked for.
    pub(crate) pairs: Vec<(Prefix, Prefix)>,
    next: u8,
}

impl Primary {
    /// A pairing of 2001:db8:1::/64 with 2001:db8:2::/64 of the group web and 2001:db8:3::/64 of the group db, set up and sealing.
    pub(crate) fn new(mode: Mode) -> Self {
        let mut primary = Self {
            name: "campus",
            mode,
            protection: Protection::Sealed,
            suite: Suite::default(),
            clients: vec![listed("2001:db8:1::/64", "")],
            servers: vec![
                listed("2001:db8:2::/64", "web"),
                listed("2001:db8:3::/64", "db"),
            ],
            prks: Vec::new(),
            given: 0,
            sealing: None,
            pairs: Vec::new(),
            next: 1,
        };
        primary.renew();
        primary.seal_with_newest();
        primary
    }

    /// A new PairMasterSecret, which only opens so far.
    pub(crate) fn renew(&mut self) {
        let pms = PairMasterSecret::from_bytes([self.next; 32]);
        let prk = PairingPrk::extract(&self.suite, &[0x5a; 32], &pms);
        self.next = self.next.checked_add(1).expect("enough secrets");
        self.prks.insert(0, prk);
        self.given = (self.given + 1).min(2);
        self.sealing = self.sealing.map(|sealing| sealing + 1).filter(|at| *at < 2);
    }

    pub(crate) fn seal_with_newest(&mut self) {
        self.sealing = Some(0);
    }

    pub(crate) fn id(&self, prk: usize) -> Fingerprint {
        Fingerprint(self.prks[prk].fingerprint(&self.suite))
    }

    pub(crate) fn listed(&mut self, text: &str) -> &mut Listed {
        let wanted = prefix(text);
        let mut all = self.clients.iter_mut().chain(&mut self.servers);
        all.find(|listed| listed.prefix == wanted).expect("listed")
    }

    /// What a Secondary gets that serves these entries.
    pub(crate) fn grant(&self, role: Role, own: &[(&str, u32)]) -> Arc<Grant> {
        let own: Vec<Own> = own
            .iter()
            .map(|(text, generation)| Own {
                prefix: prefix(text),
                generation: *generation,
            })
            .collect();
        let is_sealed = self.mode != Mode::NoProtection && self.protection == Protection::Sealed;
        let prks = self.prks.iter().take(self.given).enumerate();
        let masters = prks.filter(|_| is_sealed).map(|(at, prk)| GrantedMaster {
            id: self.id(at),
            sealing: self.sealing == Some(at),
            material: own
                .iter()
                .map(|own| self.material(prk, role, &own.prefix))
                .collect(),
        });
        Arc::new(Grant {
            pairing: self.name.to_owned(),
            mode: self.mode,
            protection: self.protection,
            suite: self.suite,
            role,
            clients: self.clients.clone(),
            servers: self.servers.clone(),
            masters: masters.collect(),
            own,
        })
    }

    fn group(&self, server: &Prefix) -> &str {
        let mut servers = self.servers.iter();
        let server = servers.find(|listed| listed.prefix == *server);
        &server.expect("a server").group
    }

    pub(crate) fn material(&self, prk: &PairingPrk, role: Role, own: &Prefix) -> Material {
        let suite = &self.suite;
        let id = entry(own);
        match (self.mode, role) {
            (Mode::TrustedServers, Role::Server) => {
                Material::Server(prk.server_secret(suite, self.group(own)))
            }
            (Mode::TrustedServers, Role::Client) => {
                let mut groups: Vec<_> = self.servers.iter().map(|s| s.group.clone()).collect();
                groups.sort();
                groups.dedup();
                let secret = |group: String| {
                    let server = prk.server_secret(suite, &group);
                    let secret = server.client_secret(suite, &id);
                    (group, secret)
                };
                Material::Client(groups.into_iter().map(secret).collect())
            }
            (Mode::AsymmetricPoll, Role::Client) => {
                Material::PollClient(prk.poll_client_secret(suite, &id))
            }
            (Mode::AsymmetricPoll, Role::Server) => {
                let pairs = self.pairs.iter().filter(|(server, _)| server == own);
                let keys = pairs.map(|(server, client)| {
                    let secret = prk.poll_client_secret(suite, &entry(client));
                    (*client, secret.pair_device_key(suite, &entry(server)))
                });
                Material::PairKeys(keys.collect())
            }
            (Mode::Ibc, Role::Client) => Material::IbcClient(prk.ibc_master(suite).client_key(&id)),
            (Mode::Ibc, Role::Server) => Material::IbcServer(prk.ibc_master(suite).server_key(&id)),
            (Mode::NoProtection, _) => unreachable!("nothing is sealed"),
        }
    }

    /// The SharedSecret of a pair, by the definition.
    pub(crate) fn shared_secret(
        &self,
        prk: &PairingPrk,
        client: &Prefix,
        server: &Prefix,
    ) -> SharedSecret {
        let suite = &self.suite;
        let (id, peer) = (entry(client), entry(server));
        match self.mode {
            Mode::TrustedServers => {
                let secret = prk.server_secret(suite, self.group(server));
                secret.client_secret(suite, &id).into()
            }
            Mode::AsymmetricPoll => {
                let secret = prk.poll_client_secret(suite, &id);
                secret.pair_device_key(suite, &peer).into()
            }
            Mode::Ibc => {
                let key = prk.ibc_master(suite).client_key(&id);
                key.shared_secret(suite, &peer).expect("good points")
            }
            Mode::NoProtection => unreachable!("nothing is sealed"),
        }
    }
}
