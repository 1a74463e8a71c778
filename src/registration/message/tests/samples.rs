//! One message of every kind with something in every place.

use super::super::*;
use crate::{
    config::{Mode, Protection},
    crypto::{
        Aead, IbcClientKey, IbcServerKey, Kem, PairClientSecret, PairDeviceKey, PairServerSecret,
        PairingPrk, Suite,
    },
    snapshot::{
        Fingerprint, Grant, Role,
        grant::{GrantedMaster, Listed, Material, Own},
    },
};

pub(super) fn entry(prefix: &str, group: &str, generations: &[u32]) -> Listed {
    Listed {
        prefix: prefix.parse().unwrap(),
        group: group.to_owned(),
        generations: generations.to_vec(),
    }
}

fn clients() -> Vec<Listed> {
    vec![
        entry("2001:db8:1::/64", "", &[1, 2, 70_000]),
        entry("2001:db8:1::7/128", "", &[5]),
    ]
}

fn servers() -> Vec<Listed> {
    vec![
        entry("2001:db8:2::/56", "web", &[3]),
        entry("2001:db8:3::1/128", "größe", &[]),
    ]
}

fn grant(pairing: &str, mode: Mode, role: Role, material: fn(u8) -> Material) -> Grant {
    let list = match role {
        Role::Client => clients(),
        Role::Server => servers(),
    };
    let own: Vec<Own> = (8..)
        .zip(&list)
        .map(|(generation, listed)| Own {
            prefix: listed.prefix,
            generation,
        })
        .collect();
    // No secret twice in the whole message.
    let start = pairing.bytes().fold(0u8, u8::wrapping_add).wrapping_mul(8);
    let master = |id: u8, sealing| GrantedMaster {
        id: Fingerprint([id; 16]),
        sealing,
        material: (0..2).map(|at| material(start + 4 * id + 2 * at)).collect(),
    };
    Grant {
        pairing: pairing.to_owned(),
        mode,
        protection: Protection::Sealed,
        suite: Suite {
            kem: Kem::P256HkdfSha256,
            aead: Aead::ChaCha20Poly1305,
        },
        role,
        clients: clients(),
        servers: servers(),
        own,
        masters: vec![master(1, false), master(0, true)],
    }
}

fn grants() -> Vec<Grant> {
    let mut lists_only = grant("acl", Mode::NoProtection, Role::Client, |_| {
        Material::PairKeys(Vec::new())
    });
    lists_only.masters.clear();
    let peer = || "2001:db8:1::/64".parse().unwrap();
    let other = || "2001:db8:1::7/128".parse().unwrap();
    vec![
        grant("t1", Mode::TrustedServers, Role::Server, |seed| {
            Material::Server(PairServerSecret::from_bytes([seed; 32]))
        }),
        grant("t2", Mode::TrustedServers, Role::Client, |seed| {
            Material::Client(vec![
                ("web".to_owned(), PairClientSecret::from_bytes([seed; 32])),
                (
                    "größe".to_owned(),
                    PairClientSecret::from_bytes([seed + 1; 32]),
                ),
            ])
        }),
        grant("t3", Mode::AsymmetricPoll, Role::Client, |seed| {
            Material::PollClient(PairClientSecret::from_bytes([seed; 32]))
        }),
        grant("t4", Mode::AsymmetricPoll, Role::Server, |seed| {
            let key = PairDeviceKey::from_bytes;
            Material::PairKeys(vec![
                ("2001:db8:1::/64".parse().unwrap(), key([seed; 32])),
                ("2001:db8:1::7/128".parse().unwrap(), key([seed + 1; 32])),
            ])
        }),
        grant("t5", Mode::Ibc, Role::Client, |seed| {
            Material::IbcClient(IbcClientKey::from_bytes([seed; 48]))
        }),
        grant("t6", Mode::Ibc, Role::Server, |seed| {
            Material::IbcServer(IbcServerKey::from_bytes([seed; 96]))
        }),
        lists_only,
        Grant {
            own: vec![Own {
                prefix: other(),
                generation: 1,
            }],
            servers: vec![Listed {
                prefix: peer(),
                group: String::new(),
                generations: Vec::new(),
            }],
            protection: Protection::Clear,
            masters: Vec::new(),
            ..grant("clear", Mode::TrustedServers, Role::Client, |_| {
                Material::Client(Vec::new())
            })
        },
    ]
}

pub(super) fn samples() -> Vec<Message> {
    let ids = SuiteIds::from(Suite::default());
    let own = "2001:db8:2::/56".parse().unwrap();
    let peer = "2001:db8:1::/64".parse().unwrap();
    vec![
        SetupRequest {
            version: VERSION,
            suites: vec![
                ids,
                SuiteIds {
                    kem: 0xfffe,
                    kdf: 3,
                    aead: 0xffff,
                },
            ],
            random: [1; 32],
        }
        .into(),
        SetupResponse {
            suite: ids,
            pk: vec![2; 65],
            mode: Mode::Ibc,
            protection: Protection::Sealed,
            random: [3; 32],
        }
        .into(),
        KemRequest {
            enc: vec![4; 32],
            salt: [5; 32],
            entries: clients(),
            confirm: Some([6; 16]),
        }
        .into(),
        KemResponse {
            status: Status::Ok,
            entries: servers(),
        }
        .into(),
        ListRequest {
            serial: u64::MAX,
            pms: Some(Fingerprint([7; 16])),
            entries: servers(),
        }
        .into(),
        ListResponse {
            serial: 1 << 40,
            status: Status::UnknownPms,
        }
        .into(),
        Renew.into(),
        Revoke.into(),
        Refused {
            reason: Reason::NoCommonSuite,
        }
        .into(),
        Ping { number: 0 }.into(),
        Pong { number: 0x1_0000 }.into(),
        Register {
            version: VERSION,
            instance: [8; 16],
            entries: vec![own, peer],
        }
        .into(),
        Share {
            serial: 9,
            grants: grants(),
        }
        .into(),
        Ack { serial: 9 }.into(),
        NewGenerations.into(),
        Poll {
            pairing: "campus".to_owned(),
            master: Fingerprint([10; 16]),
            own,
            peer,
        }
        .into(),
        PollKey {
            poll: Poll {
                pairing: "campus".to_owned(),
                master: Fingerprint([10; 16]),
                own,
                peer,
            },
            key: PairDeviceKey::from_bytes([11; 32]),
        }
        .into(),
        Analyze {
            version: VERSION,
            pairing: "campus".to_owned(),
        }
        .into(),
        Analysis {
            pairing: "A.b-c_9".to_owned(),
            mode: Mode::AsymmetricPoll,
            protection: Protection::Sealed,
            clients: clients(),
            servers: servers(),
            masters: (0..2)
                .map(|seed| AnalysisMaster {
                    suite: Suite::default(),
                    prk: PairingPrk::from_bytes([seed; 32]),
                })
                .collect(),
        }
        .into(),
    ]
}
