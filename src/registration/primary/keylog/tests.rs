use std::{fs, os::unix::fs::PermissionsExt};

use super::*;
use crate::registration::primary::record::MasterRecord;

fn pairing() -> Pairing {
    let yaml = "ports: { inside: { device: net_null0 }, outside: { device: net_null1 } }\nprimary:\n  certificate: a\n  key: a\n  authorities: a\n  store: { path: a }\n  pairings:\n    - name: branch\n      peer: branch.example\n      role: client\n      connect: [\"192.0.2.1:8250\"]\n      entries: [{ prefix: \"2001:db8:1::/64\" }]\n";
    let config = crate::config::Config::parse(yaml, Path::new("a.yaml")).unwrap();
    Pairing::new(&config.primary.unwrap().pairings[0])
}

fn master(byte: u8) -> MasterRecord {
    let suite = Suite {
        kem: Kem::P256HkdfSha256,
        aead: Aead::ChaCha20Poly1305,
    };
    let prk = PairingPrk::from_bytes([byte; 32]);
    MasterRecord {
        id: Fingerprint(prk.fingerprint(&suite)),
        suite,
        mode: Mode::AsymmetricPoll,
        protection: Protection::Sealed,
        prk: Arc::new(prk),
        since: 1_000 + u64::from(byte),
        version: 0,
        announced: None,
        sealing: true,
        retire: None,
    }
}

fn listed(prefix: &str, group: &str, generations: &[u32]) -> Listed {
    Listed {
        prefix: prefix.parse().unwrap(),
        group: group.to_owned(),
        generations: generations.to_vec(),
    }
}

#[test]
fn what_is_new_is_written_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keylog");
    let keylog = Keylog::open(&path).unwrap();
    assert!(matches!(read(&path), Err(ReadError::Empty { .. })));

    let pairing = pairing();
    let mut record = PairingRecord::default();
    record.configure(&pairing.entries);
    keylog.note(&pairing, &record);
    record.masters.push(master(1));
    record.peer = vec![listed("2001:db8:2::/64", "web", &[3, 4])];
    keylog.note(&pairing, &record);
    // Nothing new, though the record is another.
    record.version += 1;
    keylog.note(&pairing, &record);
    let lines = read(&path).unwrap();
    let [line] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    assert_eq!((&*line.pairing, line.since), ("branch", 1_001));
    assert_eq!(line.clients, [listed("2001:db8:1::/64", "", &[])]);
    assert_eq!(line.servers, record.peer);

    // A list changes, and another secret comes: both secrets, with both lists.
    record.peer[0].generations.push(5);
    record.masters.insert(0, master(2));
    keylog.note(&pairing, &record);
    let lines = read(&path).unwrap();
    let since: Vec<u64> = lines.iter().map(|line| line.since).collect();
    assert_eq!(since, [1_001, 1_001, 1_002]);
    assert_eq!(lines[2].servers, record.peer);
    let analysis = lines.into_iter().nth(2).unwrap().into_analysis().unwrap();
    assert_eq!(analysis.mode, Mode::AsymmetricPoll);
    assert_eq!(analysis.masters[0].suite, master(2).suite);
    assert_eq!(analysis.masters[0].prk, *master(2).prk);

    // Whoever starts anew says all again.
    Keylog::open(&path).unwrap().note(&pairing, &record);
    assert_eq!(read(&path).unwrap().len(), 5);
}

#[test]
fn a_line_that_was_torn_spoils_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keylog");
    let pairing = pairing();
    let mut record = PairingRecord::default();
    record.masters.push(master(1));
    Keylog::open(&path).unwrap().note(&pairing, &record);
    let append = |text: &str| {
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    let since = || -> Vec<u64> {
        let lines = read(&path).unwrap();
        lines.iter().map(|line| line.since).collect()
    };

    // As power that went leaves it.
    append("{\"time\":17");
    let keylog = Keylog::open(&path).unwrap();
    keylog.note(&pairing, &record);
    assert_eq!(since(), [1_001, 1_001]);

    // As a disk that is full leaves it.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let file = std::mem::replace(&mut keylog.written.lock().unwrap().file, full);
    record.masters[0] = master(2);
    keylog.note(&pairing, &record);
    append("{\"time\":17");
    keylog.written.lock().unwrap().file = file;
    keylog.note(&pairing, &record);
    record.masters[0] = master(3);
    keylog.note(&pairing, &record);
    assert_eq!(since(), [1_001, 1_001, 1_002, 1_003]);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 6);

    // Nothing was torn: no line is left empty.
    Keylog::open(&path).unwrap().note(&pairing, &record);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 7);
}

#[test]
fn bad_lines_are_named_by_their_number() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keylog");
    assert!(matches!(read(&path), Err(ReadError::Io { .. })));
    let good = serde_json::json!({
        "time": 5, "pairing": "branch", "since": 1, "mode": "ibc", "protection": "sealed", "kem": 32, "aead": 1,
        "prk": "5a".repeat(32), "clients": [],
        "servers": [{ "prefix": "2001:db8::/32", "group": "web", "generations": [1] }],
    });
    let read_text = |text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        read(&path)
    };
    let with = |key: &str, value: serde_json::Value| {
        let mut line = good.clone();
        line[key] = value;
        line
    };
    // Blank lines are no harm, nor is a last line that is not whole.
    assert_eq!(read_text(&format!("\n{good}\n\n")).unwrap().len(), 1);
    assert_eq!(read_text(&format!("{good}\n{{\"time\":")).unwrap().len(), 1);
    assert_eq!(read_text(&format!("{good}\n{good}")).unwrap().len(), 2);
    for (bad, words) in [
        ("#!/bin/sh".to_owned(), "expected value (column 1)"),
        (with("prk", "5a".into()).to_string(), "not a prk"),
        (with("mode", "none".into()).to_string(), "not a mode"),
        (with("hash", 1.into()).to_string(), "unknown field `hash`"),
        ("{\"time\":5}".to_owned(), "missing field `pairing`"),
    ] {
        let lines = read_text(&format!("{good}\n{bad}\n{good}\n"));
        assert_eq!(lines.unwrap().len(), 2, "the others are there");
        let error = read_text(&format!("\n{bad}\n{bad}\n")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("is broken in line 2: "), "{text}");
        assert!(text.contains(words), "{words}: {text}");
    }
    let unknown = with("aead", 9.into()).to_string();
    let lines = read_text(&format!("{unknown}\n")).unwrap();
    assert!(lines.into_iter().all(|line| line.into_analysis().is_none()));
}
