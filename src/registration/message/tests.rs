mod document;
mod mutations;
mod random;
mod samples;
mod tree;

use super::*;
use crate::snapshot::{Fingerprint, grant::Material};
use samples::{entry, samples};
use tree::Cbor;

/// Whether two messages are the same: alike in all that is shown, and in every byte of their encodings, which show the secrets too.
fn assert_same(left: &Message, right: &Message) {
    assert_eq!(format!("{left:?}"), format!("{right:?}"));
    assert_eq!(*left.encode(), *right.encode());
}

fn text(text: &str) -> Cbor {
    Cbor::Text(text.to_owned())
}

fn map(fields: &[(&str, Cbor)]) -> Cbor {
    Cbor::Map(
        fields
            .iter()
            .map(|(key, value)| (text(key), value.clone()))
            .collect(),
    )
}

#[test]
fn every_sample_comes_back() {
    for message in samples() {
        let bytes = message.encode();
        let back = Message::decode(&bytes).unwrap_or_else(|error| panic!("{message:?}: {error}"));
        assert_same(&message, &back);
        assert_eq!(bytes.len(), bytes.capacity(), "{}", message.kind());
    }
}

#[test]
fn there_is_a_sample_of_every_message() {
    let kinds: std::collections::BTreeSet<_> = samples().iter().map(Message::kind).collect();
    assert_eq!(kinds.len(), 19);
}

#[test]
fn a_ping_byte_for_byte() {
    let ping = Message::from(Ping { number: 7 });
    let bytes = b"\xa2\x64type\x64ping\x66number\x07";
    assert_eq!(*ping.encode(), bytes);
    assert_same(&ping, &Message::decode(bytes).unwrap());
}

#[test]
fn a_kem_request_item_by_item() {
    let listed = |entry, group, generations: &[u64]| {
        map(&[
            ("entry", Cbor::Bytes(entry)),
            ("group", text(group)),
            (
                "generations",
                Cbor::Array(generations.iter().copied().map(Cbor::Number).collect()),
            ),
        ])
    };
    let host = b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09\x80".to_vec();
    let network = b"\x20\x01\x0d\xb8\0\x01\0\0\0\0\0\0\0\0\0\0\x40".to_vec();
    let expected = map(&[
        ("type", text("kem-request")),
        ("enc", Cbor::Bytes(vec![5; 32])),
        ("salt", Cbor::Bytes(vec![6; 32])),
        (
            "entries",
            Cbor::Array(vec![
                listed(host, "", &[]),
                listed(network, "web", &[1, 4_000_000_000]),
            ]),
        ),
        ("confirm", Cbor::Null),
    ]);
    let message = Message::from(KemRequest {
        enc: vec![5; 32],
        salt: [6; 32],
        entries: vec![
            entry("2001:db8::9/128", "", &[]),
            entry("2001:db8:1::/64", "web", &[1, 4_000_000_000]),
        ],
        confirm: None,
    });
    assert_eq!(Cbor::parse(&message.encode()), expected);
}

#[test]
fn every_secret_of_a_share_is_in_it_once() {
    let Some(Message::Share(share)) = samples()
        .into_iter()
        .find(|message| message.kind() == "share")
    else {
        panic!("no share");
    };
    let mut secrets: Vec<Vec<u8>> = Vec::new();
    for material in share
        .grants
        .iter()
        .flat_map(|grant| &grant.masters)
        .flat_map(|master| &master.material)
    {
        match material {
            Material::Server(secret) => secrets.push(secret.expose().to_vec()),
            Material::PollClient(secret) => secrets.push(secret.expose().to_vec()),
            Material::IbcClient(secret) => secrets.push(secret.expose().to_vec()),
            Material::IbcServer(secret) => secrets.push(secret.expose().to_vec()),
            Material::Client(groups) => {
                secrets.extend(groups.iter().map(|(_, secret)| secret.expose().to_vec()));
            }
            Material::PairKeys(keys) => {
                secrets.extend(keys.iter().map(|(_, secret)| secret.expose().to_vec()));
            }
        }
    }
    assert!(secrets.len() > 8);
    let bytes = Message::from(share).encode();
    for secret in &secrets {
        let times = bytes.windows(secret.len()).filter(|part| part == secret);
        assert_eq!(times.count(), 1);
    }
}

#[test]
fn a_name_that_no_message_has() {
    let bytes = map(&[("type", text("pang\n")), ("number", Cbor::Number(1))]).bytes();
    let error = Message::decode(&bytes).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`type`: expected the name of a message, found `pang\\n`"
    );
}

#[test]
fn what_a_peer_wrote_is_shortened_in_errors() {
    let long = "k".repeat(1000);
    let bytes = map(&[("type", text("renew")), (long.as_str(), Cbor::Null)]).bytes();
    let error = Message::decode(&bytes).unwrap_err().to_string();
    assert!(error.contains("`kkkk"), "{error}");
    assert!(error.len() < 120, "{error}");
}

#[test]
fn what_is_no_message_at_all() {
    let malformed = |at| Err(DecodeError::Malformed { at });
    let decode = |bytes: &[u8]| Message::decode(bytes).map(|message| format!("{message:?}"));
    assert_eq!(decode(b""), malformed(0));
    // Lengths of which nothing comes.
    assert_eq!(
        decode(b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff"),
        malformed(9)
    );
    assert_eq!(
        decode(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"),
        malformed(9)
    );
    assert_eq!(
        decode(b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff"),
        malformed(0)
    );
    assert_eq!(decode(b"\x62\xff\xfe"), malformed(0));
    assert_eq!(
        decode(b"\x1c"),
        Err(DecodeError::Unsupported {
            at: 0,
            found: minicbor::data::Type::Unknown(0x1c),
        })
    );
    for not_a_map in [
        &b"\x00"[..],
        b"\x20",
        b"\x40",
        b"\x60",
        b"\x80",
        b"\xf4",
        b"\xf6",
    ] {
        assert!(matches!(
            decode(not_a_map),
            Err(DecodeError::Wrong {
                expected: "a map",
                ..
            })
        ));
    }
    // A tag, floats, undefined, a simple value, divided strings, a break.
    for unsupported in [
        &b"\xc1\x00"[..],
        b"\xf9\x00\x00",
        b"\xfa\x00\x00\x00\x00",
        b"\xfb\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\xf7",
        b"\xe0",
        b"\x5f\x41a\xff",
        b"\x7f\x61a\xff",
        b"\xff",
    ] {
        assert!(matches!(
            decode(unsupported),
            Err(DecodeError::Unsupported { at: 0, .. })
        ));
    }
    assert_eq!(
        decode(&map(&[]).bytes()),
        Err(DecodeError::Missing { key: "type" })
    );
    let numbered = Cbor::Map(vec![(Cbor::Number(1), Cbor::Null)]).bytes();
    assert!(matches!(
        decode(&numbered),
        Err(DecodeError::KeyType { .. })
    ));
}

#[test]
fn nesting_ends() {
    for open in [0x81, 0x9f, 0xbf] {
        let bytes = vec![open; 1 << 20];
        assert!(matches!(
            Message::decode(&bytes),
            Err(DecodeError::TooDeep { .. } | DecodeError::Malformed { .. })
        ));
    }
    assert_eq!(
        Message::decode(&[0x81; 64]).unwrap_err(),
        DecodeError::TooDeep { at: 10, limit: 10 }
    );
}

#[test]
fn too_many_keys() {
    let fields: Vec<(Cbor, Cbor)> = (0..1000)
        .map(|number| (text(&number.to_string()), Cbor::Null))
        .collect();
    assert!(matches!(
        Message::decode(&Cbor::Map(fields).bytes()),
        Err(DecodeError::Unknown { .. })
    ));
}

#[test]
fn lists_hold_as_many_as_they_may() {
    let entries = |count: usize| -> Vec<_> {
        (0..count)
            .map(|number| entry(&format!("2001:db8:{number:x}::/48"), "", &[1]))
            .collect()
    };
    let request = |count| {
        Message::from(ListRequest {
            serial: 1,
            pms: Some(Fingerprint([1; 16])),
            entries: entries(count),
        })
    };
    let full = request(MAX_ENTRIES);
    assert_same(&full, &Message::decode(&full.encode()).unwrap());
    assert_eq!(
        Message::decode(&request(MAX_ENTRIES + 1).encode()).unwrap_err(),
        DecodeError::Size {
            key: "entries",
            expected: 0..=MAX_ENTRIES,
            found: MAX_ENTRIES + 1
        }
    );

    let register = |count| {
        Message::from(Register {
            version: VERSION,
            instance: [3; 16],
            entries: entries(count).iter().map(|listed| listed.prefix).collect(),
        })
    };
    for (count, fits) in [(0, false), (1, true), (MAX_OWN, true), (MAX_OWN + 1, false)] {
        let message = Message::decode(&register(count).encode());
        assert_eq!(message.is_ok(), fits, "{count}");
    }
}

#[test]
fn suites_of_the_protocol() {
    for ids in [(0x20, 1, 1), (0x20, 1, 3), (0x10, 1, 2)] {
        let (kem, kdf, aead) = ids;
        let ids = SuiteIds { kem, kdf, aead };
        let suite = crate::crypto::Suite::try_from(ids).unwrap();
        assert_eq!(SuiteIds::from(suite), ids);
    }
    for (kem, kdf, aead) in [(0x21, 1, 1), (0x20, 2, 1), (0x20, 1, 0xffff)] {
        let found = SuiteIds { kem, kdf, aead };
        let suite = crate::crypto::Suite::try_from(found);
        assert_eq!(suite, Err(UnknownSuite { found }));
    }
}
