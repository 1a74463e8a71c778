//! The CDDL of `docs/registration.md` has the same maps as the messages.

use std::collections::{BTreeMap, BTreeSet};

use super::{samples::samples, tree::Cbor};

const DOCUMENT: &str = include_str!("../../../../docs/registration.md");

/// The maps of the CDDL: rule name to keys. Every rule of a map is written `name = {`, one `"key": value` a line, `}`.
fn rules() -> BTreeMap<String, BTreeSet<String>> {
    let mut rules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut open: Option<String> = None;
    for block in DOCUMENT.split("```cddl\n").skip(1) {
        let (block, _) = block.split_once("```").unwrap();
        for line in block.lines() {
            let line = line.split(';').next().unwrap_or_default().trim();
            if let Some(name) = line.strip_suffix("= {") {
                open = Some(name.trim().to_owned());
            } else if line == "}" {
                open = None;
            } else if let (Some(rule), Some((key, _))) = (&open, line.split_once("\": ")) {
                let key = key.strip_prefix('"').unwrap().to_owned();
                assert!(rules.entry(rule.clone()).or_default().insert(key));
            }
        }
    }
    rules
}

fn keys(fields: &[(Cbor, Cbor)]) -> BTreeSet<String> {
    fields
        .iter()
        .map(|(key, _)| match key {
            Cbor::Text(key) => key.clone(),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn the_document_has_every_map_and_no_other() {
    let rules = rules();
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for message in samples() {
        let tree = Cbor::parse(&message.encode());
        for way in tree.ways() {
            let Cbor::Map(fields) = tree.at(&way) else {
                continue;
            };
            let keys = keys(fields);
            if way.is_empty() {
                let rule = rules.get(message.kind());
                assert_eq!(rule, Some(&keys), "{}", message.kind());
                used.insert(message.kind());
                continue;
            }
            let fits = rules.iter().filter(|(_, rule)| **rule == keys);
            let fits: Vec<&str> = fits.map(|(name, _)| name.as_str()).collect();
            assert!(!fits.is_empty(), "no rule has {keys:?}");
            used.extend(fits);
        }
    }
    let all: BTreeSet<&str> = rules.keys().map(String::as_str).collect();
    assert_eq!(all, used);
}

#[test]
fn the_document_has_every_message_in_its_choice() {
    let (_, choice) = DOCUMENT.split_once("\nmessage = ").unwrap();
    let (choice, _) = choice.split_once("\n\n").unwrap();
    let named: BTreeSet<&str> = choice.split('/').map(str::trim).collect();
    let all: BTreeSet<&str> = samples().iter().map(super::Message::kind).collect();
    assert_eq!(named, all);
    for kind in all {
        assert!(
            DOCUMENT.contains(&format!("\"type\": \"{kind}\"")),
            "{kind}"
        );
    }
}
