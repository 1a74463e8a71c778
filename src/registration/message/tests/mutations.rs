//! Every message, every place in it, everything that could be wrong there.

use super::{
    super::*,
    assert_same,
    samples::samples,
    text,
    tree::{Cbor, Step},
};

fn trees() -> Vec<(Message, Cbor)> {
    samples()
        .into_iter()
        .map(|message| {
            let tree = Cbor::parse(&message.encode());
            (message, tree)
        })
        .collect()
}

fn refused(tree: &Cbor, what: &str) -> DecodeError {
    match Message::decode(&tree.bytes()) {
        Err(error) => error,
        Ok(message) => panic!("{what} was accepted: {message:?}"),
    }
}

/// Runs `try_one` for each map of each message, and each place in the map.
fn each_field(try_one: impl Fn(&Cbor, &[Step], &[(Cbor, Cbor)], usize)) {
    for (_, tree) in trees() {
        for way in tree.ways() {
            if let Cbor::Map(fields) = tree.at(&way) {
                for at in 0..fields.len() {
                    try_one(&tree, &way, fields, at);
                }
            }
        }
    }
}

fn word(item: &Cbor) -> &str {
    match item {
        Cbor::Text(word) => word,
        _ => panic!("no text"),
    }
}

#[test]
fn a_field_is_missing() {
    each_field(|tree, way, fields, at| {
        let mut fields = fields.to_vec();
        let (gone, _) = fields.remove(at);
        let error = refused(&tree.with(way, Cbor::Map(fields)), word(&gone));
        let DecodeError::Missing { key } = error else {
            panic!("without {gone:?}: {error}");
        };
        assert_eq!(key, word(&gone));
    });
}

#[test]
fn a_field_comes_twice() {
    each_field(|tree, way, fields, at| {
        let mut fields = fields.to_vec();
        let again = fields[at].clone();
        fields.push(again.clone());
        let error = refused(&tree.with(way, Cbor::Map(fields)), word(&again.0));
        let key = word(&again.0).to_owned();
        assert_eq!(error, DecodeError::Doubled { key });
    });
}

#[test]
fn a_field_too_many() {
    each_field(|tree, way, fields, at| {
        for key in ["other", "", "Type", "type ", "key"] {
            let mut fields = fields.to_vec();
            if fields.iter().any(|(other, _)| word(other) == key) {
                continue;
            }
            fields.insert(at, (text(key), Cbor::Null));
            let error = refused(&tree.with(way, Cbor::Map(fields)), key);
            let key = key.to_owned();
            assert_eq!(error, DecodeError::Unknown { key });
        }
    });
}

#[test]
fn a_key_is_no_text() {
    each_field(|tree, way, fields, at| {
        for key in [Cbor::Number(0), Cbor::Bytes(b"type".to_vec()), Cbor::Null] {
            let mut fields = fields.to_vec();
            fields[at].0 = key;
            let error = refused(&tree.with(way, Cbor::Map(fields)), "a key");
            assert!(matches!(error, DecodeError::KeyType { .. }), "{error}");
        }
    });
}

#[test]
fn a_value_of_another_type() {
    let others = [
        Cbor::Number(1),
        Cbor::Negative(0),
        Cbor::Bytes(vec![0; 16]),
        text("sealed"),
        Cbor::Array(Vec::new()),
        Cbor::Map(Vec::new()),
        Cbor::Bool(true),
        Cbor::Null,
        Cbor::Raw(b"\xf7".to_vec()),
        Cbor::Raw(b"\xf9\x3c\x00".to_vec()),
        Cbor::Raw(b"\xc2\x41\x01".to_vec()),
        Cbor::Raw(b"\x5f\x41\x01\xff".to_vec()),
        Cbor::Raw(b"\x7f\x61a\xff".to_vec()),
    ];
    for (_, tree) in trees() {
        for way in tree.ways() {
            let key = tree.key(&way);
            for other in &others {
                let same = std::mem::discriminant(other) == std::mem::discriminant(tree.at(&way));
                let nullable = matches!(key.as_str(), "pms" | "confirm") && *other == Cbor::Null;
                if !same && !nullable {
                    refused(
                        &tree.with(&way, other.clone()),
                        &format!("{key}: {other:?}"),
                    );
                }
            }
        }
    }
}

#[test]
fn a_string_or_a_number_of_another_size() {
    for (_, tree) in trees() {
        for way in tree.ways() {
            let key = tree.key(&way);
            let wrong = match tree.at(&way) {
                Cbor::Number(_) if matches!(key.as_str(), "serial" | "number") => continue,
                Cbor::Number(_) => vec![Cbor::Number(1 << 32), Cbor::Number(u64::MAX)],
                Cbor::Text(_) if key == "group" => vec![text(&"x".repeat(256)), text("a\nb")],
                Cbor::Text(_) if key == "pairing" => {
                    vec![text(""), text(&"x".repeat(65)), text("a b"), text("ä")]
                }
                Cbor::Text(found) => vec![text(""), text(&found.to_uppercase())],
                Cbor::Bytes(_) if matches!(key.as_str(), "pk" | "enc") => {
                    vec![Cbor::Bytes(Vec::new()), Cbor::Bytes(vec![1; 257])]
                }
                Cbor::Bytes(found) => [&found[1..], &[found, &[0][..]].concat(), &[]]
                    .map(|bytes: &[u8]| Cbor::Bytes(bytes.to_vec()))
                    .to_vec(),
                _ => continue,
            };
            for wrong in wrong {
                refused(
                    &tree.with(&way, wrong.clone()),
                    &format!("{key}: {wrong:?}"),
                );
            }
        }
    }
}

#[test]
fn an_array_of_too_many() {
    let mut arrays = 0;
    for (message, tree) in trees() {
        for way in tree.ways() {
            let Cbor::Array(items) = tree.at(&way) else {
                continue;
            };
            let key = tree.key(&way);
            let limit = match (key.as_str(), message.kind()) {
                ("suites", _) => MAX_SUITES,
                ("entries", "register") => MAX_OWN,
                ("entries" | "clients" | "servers" | "groups" | "keys", _) => MAX_ENTRIES,
                ("generations", _) => MAX_GENERATIONS,
                ("grants", _) => MAX_PAIRINGS,
                ("own", _) => MAX_OWN,
                ("masters", "analysis") => MAX_ANALYSIS_MASTERS,
                ("masters", _) => MAX_MASTERS,
                ("material", _) => items.len(),
                other => panic!("{other:?} has a limit that this test does not know"),
            };
            let item = items.first().cloned().unwrap_or(Cbor::Null);
            let error = refused(
                &tree.with(&way, Cbor::Array(vec![item; limit + 1])),
                &format!("{key} of {}", limit + 1),
            );
            let DecodeError::Size {
                expected, found, ..
            } = &error
            else {
                panic!("{key}: {error}");
            };
            assert_eq!((*expected.end(), *found), (limit, limit + 1), "{key}");
            arrays += 1;
        }
    }
    assert!(arrays > 50);
}

#[test]
fn something_twice_in_a_list() {
    for (message, tree) in trees() {
        for way in tree.ways() {
            let Cbor::Array(items) = tree.at(&way) else {
                continue;
            };
            let key = tree.key(&way);
            // The order of preference may name a suite twice; an analysis may have a secret twice; material goes by place.
            let may = matches!(
                (key.as_str(), message.kind()),
                ("suites" | "material", _) | ("masters", "analysis")
            );
            if let (false, Some(first)) = (may, items.first()) {
                let items = vec![first.clone(), first.clone()];
                refused(&tree.with(&way, Cbor::Array(items)), &key);
            }
        }
    }
}

#[test]
fn entries_with_host_bits_or_too_long() {
    for (_, tree) in trees() {
        for way in tree.ways() {
            let Cbor::Bytes(bytes) = tree.at(&way) else {
                continue;
            };
            if bytes.len() != 17 {
                continue;
            }
            for (last, length) in [(0, 129), (0, 255), (1, 127), (1, 0)] {
                let mut bytes = bytes.clone();
                bytes[15] = last;
                bytes[16] = length;
                refused(&tree.with(&way, Cbor::Bytes(bytes)), "an entry");
            }
        }
    }
}

#[test]
fn generations_that_do_not_ascend() {
    for (_, tree) in trees() {
        for way in tree.ways() {
            if tree.key(&way) != "generations" || !matches!(tree.at(&way), Cbor::Array(_)) {
                continue;
            }
            for wrong in [&[2, 1][..], &[1, 1], &[1, 2, 2], &[1, 3, 2]] {
                let wrong = wrong.iter().copied().map(Cbor::Number).collect();
                refused(&tree.with(&way, Cbor::Array(wrong)), "generations");
            }
        }
    }
}

/// The place of `key` in the first map that has it along `way`.
fn find(tree: &Cbor, key: &str, nth: usize) -> Vec<Step> {
    let mut found = tree.ways().into_iter().filter(|way| {
        tree.key(way) == key && !way.is_empty() && tree.key(&way[..way.len() - 1]) != key
    });
    found.nth(nth).unwrap()
}

#[test]
fn parts_of_a_grant_that_do_not_fit_each_other() {
    let (_, share) = trees()
        .into_iter()
        .find(|(message, _)| message.kind() == "share")
        .unwrap();
    let replaced = |key, nth, other: Cbor| share.with(&find(&share, key, nth), other);
    // An own entry that is not in the list of the role.
    refused(&replaced("role", 0, text("client")), "role");
    // A client with a group.
    refused(&replaced("group", 0, text("web")), "group");
    // Secrets of another mode, and secrets where nothing is sealed.
    refused(&replaced("mode", 0, text("ibc")), "mode");
    refused(&replaced("mode", 2, text("trusted-servers")), "mode");
    refused(&replaced("mode", 0, text("no-protection")), "mode");
    refused(&replaced("protection", 0, text("clear")), "protection");
    // Two that seal.
    refused(&replaced("sealing", 0, Cbor::Bool(true)), "sealing");
    // Fewer secrets than own entries.
    refused(
        &replaced("material", 0, Cbor::Array(Vec::new())),
        "material",
    );
    // No own entries, but secrets.
    refused(&replaced("own", 0, Cbor::Array(Vec::new())), "own");
    // A suite that nobody has.
    refused(&replaced("kem", 0, Cbor::Number(0x21)), "kem");
    refused(&replaced("kdf", 0, Cbor::Number(2)), "kdf");
    refused(&replaced("aead", 0, Cbor::Number(0xffff)), "aead");
    // Both waiting, or none there yet, is fine.
    for fine in [
        replaced("sealing", 1, Cbor::Bool(false)),
        replaced("masters", 0, Cbor::Array(Vec::new())),
    ] {
        Message::decode(&fine.bytes()).unwrap();
    }
}

#[test]
fn cut_short_or_followed_by_more() {
    for message in samples() {
        let bytes = message.encode();
        for length in 0..bytes.len() {
            assert!(Message::decode(&bytes[..length]).is_err());
        }
        for more in [&b"\x00"[..], b"\xff", &bytes] {
            let longer = [&bytes, more].concat();
            let found = more.len();
            assert_eq!(
                Message::decode(&longer).unwrap_err(),
                DecodeError::Trailing { found }
            );
        }
    }
}

#[test]
fn other_ways_to_write_the_same() {
    for (message, tree) in trees() {
        for bytes in [
            tree.bytes(),
            tree.long_bytes(),
            tree.backwards().bytes(),
            tree.backwards().long_bytes(),
        ] {
            assert_same(&message, &Message::decode(&bytes).unwrap());
        }
    }
}

#[test]
fn null_where_it_may_be() {
    for (_, tree) in trees() {
        for way in tree.ways() {
            if matches!(tree.key(&way).as_str(), "pms" | "confirm") {
                let bytes = tree.with(&way, Cbor::Null).bytes();
                let message = Message::decode(&bytes).unwrap();
                assert_eq!(*message.encode(), bytes);
            }
        }
    }
}
