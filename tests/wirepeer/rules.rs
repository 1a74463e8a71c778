//! The CDDL of docs/registration.md as checks: every message that the appliance sends goes through them.

use super::cbor::Cbor;

const SUITE: &[&str] = &["kem", "kdf", "aead"];
const LISTED: &[&str] = &["entry", "group", "generations"];
const GRANT: &[&str] = &[
    "pairing",
    "mode",
    "protection",
    "suite",
    "role",
    "clients",
    "servers",
    "own",
    "masters",
];

/// Asserts that a message is one of the CDDL's.
pub fn check(message: &Cbor) {
    let get = |key| message.get(key);
    let keys: &[&str] = match message.kind() {
        "setup-request" => &["version", "suites", "random"],
        "setup-response" => &["suite", "pk", "mode", "protection", "random"],
        "kem-request" => &["enc", "salt", "entries", "confirm"],
        "kem-response" => &["status", "entries"],
        "list-request" => &["serial", "pms", "entries"],
        "list-response" => &["serial", "status"],
        "renew" | "revoke" | "new-generations" => &[],
        "refused" => &["reason"],
        "ping" | "pong" => &["number"],
        "share" => &["serial", "grants"],
        "poll-key" => &["pairing", "master", "own", "peer", "key"],
        "analysis" => &[
            "pairing",
            "mode",
            "protection",
            "clients",
            "servers",
            "masters",
        ],
        other => panic!("a Primary sends no {other}"),
    };
    let mut expected = vec!["type"];
    expected.extend(keys);
    exactly(message, &expected);
    match message.kind() {
        "setup-request" => {
            assert_eq!(get("version").uint(), 1);
            assert!((1..=32).contains(&get("suites").items().len()));
            get("suites").items().iter().for_each(suite);
            assert_eq!(get("random").bytes().len(), 32);
        }
        "setup-response" => {
            suite(get("suite"));
            assert!((1..=256).contains(&get("pk").bytes().len()));
            terms(message);
            assert_eq!(get("random").bytes().len(), 32);
        }
        "kem-request" => {
            assert!((1..=256).contains(&get("enc").bytes().len()));
            assert_eq!(get("salt").bytes().len(), 32);
            list(get("entries"));
            fingerprint(get("confirm"));
        }
        "kem-response" => {
            status(get("status"));
            list(get("entries"));
            assert!(get("status").text() == "ok" || get("entries").items().is_empty());
        }
        "list-request" => {
            get("serial").uint();
            fingerprint(get("pms"));
            list(get("entries"));
        }
        "list-response" => {
            get("serial").uint();
            status(get("status"));
        }
        "share" => {
            get("serial").uint();
            get("grants").items().iter().for_each(grant);
        }
        "poll-key" => {
            assert_eq!(get("master").bytes().len(), 16);
            assert_eq!(get("own").bytes().len(), 17);
            assert_eq!(get("peer").bytes().len(), 17);
            assert_eq!(get("key").bytes().len(), 32);
        }
        "analysis" => {
            terms(message);
            list(get("clients"));
            list(get("servers"));
            for master in get("masters").items() {
                exactly(master, &["suite", "prk"]);
                suite(master.get("suite"));
                assert_eq!(master.get("prk").bytes().len(), 32);
            }
        }
        "refused" => {
            get("reason").text();
        }
        "ping" | "pong" => {
            get("number").uint();
        }
        _ => {}
    }
}

fn exactly(map: &Cbor, expected: &[&str]) {
    let mut found: Vec<&str> = map.pairs().iter().map(|(key, _)| key.as_str()).collect();
    let mut expected = expected.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "{map:?}");
}

fn suite(value: &Cbor) {
    exactly(value, SUITE);
    assert!([0x10, 0x20].contains(&value.get("kem").uint()));
    assert_eq!(value.get("kdf").uint(), 1);
    assert!((1..=3).contains(&value.get("aead").uint()));
}

fn terms(map: &Cbor) {
    let modes = ["trusted-servers", "asymmetric-poll", "ibc", "no-protection"];
    assert!(modes.contains(&map.get("mode").text()));
    assert!(["sealed", "clear"].contains(&map.get("protection").text()));
}

fn status(value: &Cbor) {
    assert!(["ok", "unknown-pms", "not-confirmed", "refused"].contains(&value.text()));
}

fn fingerprint(value: &Cbor) {
    assert!(*value == Cbor::Null || value.bytes().len() == 16);
}

fn list(value: &Cbor) {
    for listed in value.items() {
        exactly(listed, LISTED);
        assert_eq!(listed.get("entry").bytes().len(), 17);
        let generations = listed.get("generations").items();
        assert!(generations.len() <= 64);
        assert!(generations.is_sorted_by(|a, b| a.uint() < b.uint()));
    }
}

fn grant(grant: &Cbor) {
    exactly(grant, GRANT);
    terms(grant);
    suite(grant.get("suite"));
    list(grant.get("clients"));
    list(grant.get("servers"));
    let own = grant.get("own").items();
    for own in own {
        exactly(own, &["entry", "generation"]);
    }
    let masters = grant.get("masters").items();
    assert!(masters.len() <= 2);
    let mut sealing = 0;
    for master in masters {
        exactly(master, &["id", "sealing", "material"]);
        assert_eq!(master.get("id").bytes().len(), 16);
        sealing += usize::from(master.get("sealing").bool());
        assert_eq!(master.get("material").items().len(), own.len());
    }
    assert!(sealing <= 1);
}
