//! Random messages come back as they were; random bytes never do harm.

use proptest::{array, collection::btree_set, collection::vec, option, prelude::*};

use super::{super::*, assert_same, samples::samples};
use crate::{
    config::{Mode, Prefix, Protection},
    crypto::{
        Aead, IbcClientKey, IbcServerKey, Kem, PairClientSecret, PairDeviceKey, PairServerSecret,
        PairingPrk, Suite,
    },
    snapshot::{
        Fingerprint, Grant, Role,
        grant::{GrantedMaster, Listed, Material, Own},
    },
};

fn bytes<const N: usize>() -> impl Strategy<Value = [u8; N]> {
    vec(any::<u8>(), N).prop_map(|bytes| bytes.try_into().unwrap())
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (bytes(), 0..=128u8).prop_map(|(address, length)| Prefix::holding(address, length).unwrap())
}

fn fingerprint() -> impl Strategy<Value = Fingerprint> {
    bytes().prop_map(Fingerprint)
}

fn pairing() -> impl Strategy<Value = String> {
    "[A-Za-z0-9._-]{1,64}"
}

fn group() -> impl Strategy<Value = String> {
    "\\PC{0,60}".prop_filter("long", |group| group.len() <= 255)
}

fn mode() -> impl Strategy<Value = Mode> {
    prop::sample::select(vec![
        Mode::TrustedServers,
        Mode::AsymmetricPoll,
        Mode::Ibc,
        Mode::NoProtection,
    ])
}

fn protection() -> impl Strategy<Value = Protection> {
    prop::sample::select(vec![Protection::Sealed, Protection::Clear])
}

fn ids() -> impl Strategy<Value = SuiteIds> {
    any::<(u16, u16, u16)>().prop_map(|(kem, kdf, aead)| SuiteIds { kem, kdf, aead })
}

fn suite() -> impl Strategy<Value = Suite> {
    let kems = vec![Kem::P256HkdfSha256, Kem::X25519HkdfSha256];
    let aeads = vec![Aead::Aes128Gcm, Aead::Aes256Gcm, Aead::ChaCha20Poly1305];
    (prop::sample::select(kems), prop::sample::select(aeads))
        .prop_map(|(kem, aead)| Suite { kem, aead })
}

fn clients() -> impl Strategy<Value = Vec<Listed>> {
    entries(Just(String::new()))
}

fn entries(group: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<Listed>> {
    let rest = (group, btree_set(any::<u32>(), 0..=4));
    prop::collection::btree_map(prefix(), rest, 0..6).prop_map(|entries| {
        entries
            .into_iter()
            .map(|(prefix, (group, generations))| Listed {
                prefix,
                group,
                generations: generations.into_iter().collect(),
            })
            .collect()
    })
}

fn material(mode: Mode, role: Role) -> BoxedStrategy<Material> {
    match (mode, role) {
        (Mode::TrustedServers, Role::Server) => bytes()
            .prop_map(|key| Material::Server(PairServerSecret::from_bytes(key)))
            .boxed(),
        (Mode::TrustedServers, Role::Client) => prop::collection::btree_map(group(), bytes(), 0..4)
            .prop_map(|groups| {
                let secret = PairClientSecret::from_bytes;
                Material::Client(
                    groups
                        .into_iter()
                        .map(|(group, key)| (group, secret(key)))
                        .collect(),
                )
            })
            .boxed(),
        (Mode::Ibc, Role::Client) => bytes()
            .prop_map(|key| Material::IbcClient(IbcClientKey::from_bytes(key)))
            .boxed(),
        (Mode::Ibc, Role::Server) => bytes()
            .prop_map(|key| Material::IbcServer(IbcServerKey::from_bytes(key)))
            .boxed(),
        (Mode::AsymmetricPoll | Mode::NoProtection, _) => prop_oneof![
            bytes().prop_map(|key| Material::PollClient(PairClientSecret::from_bytes(key))),
            prop::collection::btree_map(prefix(), bytes(), 0..4).prop_map(|keys| {
                let key = PairDeviceKey::from_bytes;
                Material::PairKeys(
                    keys.into_iter()
                        .map(|(peer, bytes)| (peer, key(bytes)))
                        .collect(),
                )
            }),
        ]
        .boxed(),
    }
}

fn masters(
    own: usize,
    mode: Mode,
    protection: Protection,
    role: Role,
) -> BoxedStrategy<Vec<GrantedMaster>> {
    if mode == Mode::NoProtection || protection == Protection::Clear {
        return Just(()).prop_map(|()| Vec::new()).boxed();
    }
    let ids = btree_set(fingerprint(), 0..=MAX_MASTERS);
    let material = array::uniform2(vec(material(mode, role), own));
    (ids, material, option::of(0..MAX_MASTERS))
        .prop_map(|(ids, material, sealing)| {
            ids.into_iter()
                .zip(material)
                .enumerate()
                .map(|(at, (id, material))| GrantedMaster {
                    id,
                    sealing: sealing == Some(at),
                    material,
                })
                .collect()
        })
        .boxed()
}

fn grant() -> impl Strategy<Value = Grant> {
    let role = prop::sample::select(vec![Role::Client, Role::Server]);
    (
        pairing(),
        mode(),
        protection(),
        suite(),
        role,
        clients(),
        entries(group()),
    )
        .prop_flat_map(
            |(pairing, mode, protection, suite, role, clients, servers)| {
                let list = match role {
                    Role::Client => &clients,
                    Role::Server => &servers,
                };
                let prefixes: Vec<Prefix> = list.iter().map(|listed| listed.prefix).collect();
                let own = prop::sample::subsequence(prefixes.clone(), 0..=prefixes.len());
                own.prop_flat_map(move |own| {
                    let count = own.len();
                    (
                        Just((pairing.clone(), clients.clone(), servers.clone(), own)),
                        vec(any::<u32>(), count),
                        masters(count, mode, protection, role),
                    )
                        .prop_map(
                            move |((pairing, clients, servers, own), generations, masters)| Grant {
                                pairing,
                                mode,
                                protection,
                                suite,
                                role,
                                clients,
                                servers,
                                own: own
                                    .into_iter()
                                    .zip(generations)
                                    .map(|(prefix, generation)| Own { prefix, generation })
                                    .collect(),
                                masters,
                            },
                        )
                })
            },
        )
}

fn grants() -> impl Strategy<Value = Vec<Grant>> {
    vec(grant(), 0..3).prop_map(|mut grants| {
        grants.sort_by(|a, b| a.pairing.cmp(&b.pairing));
        grants.dedup_by(|a, b| a.pairing == b.pairing);
        grants
    })
}

fn between_primaries() -> impl Strategy<Value = Message> {
    prop_oneof![
        (any::<u16>(), vec(ids(), 1..=MAX_SUITES), bytes()).prop_map(
            |(version, suites, random)| SetupRequest {
                version,
                suites,
                random
            }
            .into()
        ),
        (
            ids(),
            vec(any::<u8>(), 1..=MAX_KEM_BYTES),
            mode(),
            protection(),
            bytes()
        )
            .prop_map(|(suite, pk, mode, protection, random)| {
                SetupResponse {
                    suite,
                    pk,
                    mode,
                    protection,
                    random,
                }
                .into()
            }),
        (
            vec(any::<u8>(), 1..=MAX_KEM_BYTES),
            bytes(),
            entries(group()),
            option::of(bytes())
        )
            .prop_map(|(enc, salt, entries, confirm)| KemRequest {
                enc,
                salt,
                entries,
                confirm
            }
            .into()),
        (prop::sample::select(&Status::ALL[..]), entries(group()))
            .prop_map(|(status, entries)| KemResponse { status, entries }.into()),
        (any::<u64>(), option::of(fingerprint()), entries(group())).prop_map(
            |(serial, pms, entries)| {
                ListRequest {
                    serial,
                    pms,
                    entries,
                }
                .into()
            }
        ),
        (any::<u64>(), prop::sample::select(&Status::ALL[..]))
            .prop_map(|(serial, status)| ListResponse { serial, status }.into()),
        prop::sample::select(&Reason::ALL[..]).prop_map(|reason| Refused { reason }.into()),
        any::<u64>().prop_map(|number| Ping { number }.into()),
        any::<u64>().prop_map(|number| Pong { number }.into()),
    ]
}

fn with_others() -> impl Strategy<Value = Message> {
    prop_oneof![
        (any::<u16>(), bytes(), btree_set(prefix(), 1..20)).prop_map(
            |(version, instance, entries)| {
                let entries = entries.into_iter().collect();
                Register {
                    version,
                    instance,
                    entries,
                }
                .into()
            }
        ),
        (any::<u64>(), grants()).prop_map(|(serial, grants)| Share { serial, grants }.into()),
        any::<u64>().prop_map(|serial| Ack { serial }.into()),
        (pairing(), fingerprint(), prefix(), prefix()).prop_map(|(pairing, master, own, peer)| {
            Poll {
                pairing,
                master,
                own,
                peer,
            }
            .into()
        }),
        (pairing(), fingerprint(), prefix(), prefix(), bytes()).prop_map(
            |(pairing, master, own, peer, key)| {
                let key = PairDeviceKey::from_bytes(key);
                let poll = Poll {
                    pairing,
                    master,
                    own,
                    peer,
                };
                PollKey { poll, key }.into()
            }
        ),
        (any::<u16>(), pairing())
            .prop_map(|(version, pairing)| Analyze { version, pairing }.into()),
        (
            pairing(),
            mode(),
            protection(),
            entries(group()),
            entries(group()),
            vec((suite(), bytes()), 0..5)
        )
            .prop_map(|(pairing, mode, protection, clients, servers, masters)| {
                let masters = masters
                    .into_iter()
                    .map(|(suite, prk)| AnalysisMaster {
                        suite,
                        prk: PairingPrk::from_bytes(prk),
                    })
                    .collect();
                Analysis {
                    pairing,
                    mode,
                    protection,
                    clients,
                    servers,
                    masters,
                }
                .into()
            }),
    ]
}

proptest! {
    #[test]
    fn a_message_comes_back(message in prop_oneof![between_primaries(), with_others()]) {
        let bytes = message.encode();
        let back = Message::decode(&bytes);
        prop_assert!(back.is_ok(), "{:?}", back);
        assert_same(&message, &back.unwrap());
    }

    #[test]
    fn bytes_do_no_harm(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Message::decode(&bytes);
    }

    #[test]
    fn changed_bytes_do_no_harm(
        which in 0..19usize,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = samples().swap_remove(which).encode();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        // What is still accepted is a message like any other.
        if let Ok(message) = Message::decode(&bytes) {
            assert_same(&message, &Message::decode(&message.encode()).unwrap());
        }
    }
}
