use std::sync::Arc;

use super::*;
use crate::{
    config::{Mode, Protection},
    crypto::{PairingPrk, Suite},
};

const ALL: u64 = u64::MAX;
const FORGET: u64 = 300;

fn prefix() -> Prefix {
    "2001:db8:1::/64".parse().expect("a prefix")
}

fn who(instance: u8) -> Who<'static> {
    Who {
        instance: [instance; 16],
        secondary: "gate",
        via: "here",
    }
}

fn record() -> PairingRecord {
    let mut record = PairingRecord::default();
    record.configure(&[Addition {
        prefix: prefix(),
        group: "web".to_owned(),
        secondary: None,
    }]);
    record
}

fn master(seed: u8) -> MasterRecord {
    MasterRecord {
        id: Fingerprint([seed; 16]),
        suite: Suite::default(),
        mode: Mode::TrustedServers,
        protection: Protection::Sealed,
        prk: Arc::new(PairingPrk::from_bytes([seed; 32])),
        since: 0,
        version: 0,
        announced: None,
        sealing: false,
        retire: None,
    }
}

/// What the store does around each change.
fn change<T>(record: &mut PairingRecord, edit: impl FnOnce(&mut PairingRecord) -> T) -> T {
    let before = record.clone();
    let outcome = edit(record);
    if *record != before {
        record.version = before.version + 1;
    }
    outcome
}

fn register(record: &mut PairingRecord, instance: u8, anew: bool, now: u64) -> u32 {
    let given = change(record, |r| r.register(prefix(), &who(instance), anew, now));
    given.expect("a generation")
}

fn advance(record: &mut PairingRecord, held: u64, now: u64) {
    change(record, |r| r.advance(held, FORGET, now));
}

/// The peer answers what it was told last.
fn answer(record: &mut PairingRecord) {
    change(record, |r| r.answered = r.own_serial);
}

fn told(record: &PairingRecord) -> Vec<u32> {
    record.told().remove(0).generations
}

#[test]
fn a_generation_is_used_only_when_everybody_holds_it() {
    let mut record = record();
    assert_eq!(register(&mut record, 1, false, 0), 1);
    assert_eq!(
        register(&mut record, 1, false, 0),
        1,
        "a connection resumed"
    );
    let version = record.version;
    advance(&mut record, version - 1, 0);
    assert_eq!(told(&record), [0; 0], "a Secondary does not hold it yet");
    advance(&mut record, version, 0);
    assert_eq!(told(&record), [1]);
    assert!(!record.own[0].given[0].sending, "the peer has not answered");
    answer(&mut record);
    advance(&mut record, ALL, 0);
    assert!(record.own[0].given[0].sending);
}

#[test]
fn a_new_generation_replaces_the_old_one_after_a_while() {
    let mut record = record();
    register(&mut record, 1, false, 0);
    advance(&mut record, ALL, 0);
    answer(&mut record);
    advance(&mut record, ALL, 0);
    assert_eq!(register(&mut record, 1, true, 100), 2);
    assert_eq!(
        register(&mut record, 1, true, 101),
        2,
        "it is on its way already"
    );
    advance(&mut record, ALL, 101);
    assert_eq!(told(&record), [1, 2]);
    answer(&mut record);
    advance(&mut record, ALL, 102);
    assert_eq!(told(&record), [1, 2], "packets may be under way");
    advance(&mut record, ALL, 102 + LINGER_GENERATION);
    assert_eq!(told(&record), [2]);
}

#[test]
fn what_senders_name_never_goes_down() {
    let mut record = record();
    for instance in [1, 2] {
        register(&mut record, instance, false, 0);
    }
    advance(&mut record, ALL, 0);
    answer(&mut record);
    advance(&mut record, ALL, 0);
    change(&mut record, |r| r.away(10, |g| g.instance == [2; 16]));
    advance(&mut record, ALL, 10 + FORGET);
    assert_eq!(record.own[0].given.len(), 1);
    assert_eq!(told(&record), [1, 2], "the newest stays named");
    change(&mut record, |r| r.away(400, |_| true));
    advance(&mut record, ALL, 400 + FORGET);
    assert_eq!(told(&record), [0; 0], "nobody is left");
    assert_eq!(register(&mut record, 3, false, 800), 3, "numbers go on");
    advance(&mut record, ALL, 800);
    assert_eq!(told(&record), [3]);
}

#[test]
fn numbers_outlive_entries() {
    let mut record = record();
    assert_eq!(register(&mut record, 1, false, 0), 1);
    change(&mut record, |r| r.configure(&[]));
    assert_eq!(
        record.register(prefix(), &who(1), false, 0),
        Err(NoGeneration::NoEntry)
    );
    change(&mut record, |r| {
        r.configure(&[Addition {
            prefix: prefix(),
            group: "db".to_owned(),
            secondary: None,
        }]);
    });
    assert_eq!(register(&mut record, 1, false, 0), 2);
}

#[test]
fn restarts_do_not_fill_the_list() {
    let mut record = record();
    for restart in 1..=200 {
        assert_eq!(register(&mut record, restart as u8, false, 0), restart);
        advance(&mut record, ALL, 0);
        change(&mut record, |r| r.away(0, |_| true));
        assert!(told(&record).len() <= 4, "{:?}", told(&record));
    }
}

#[test]
fn a_full_entry_says_so() {
    let mut record = record();
    let mut last = Ok(0);
    for instance in 0..=MAX_GENERATIONS as u8 {
        last = change(&mut record, |r| {
            r.register(prefix(), &who(instance), false, 0)
        });
    }
    assert_eq!(last, Err(NoGeneration::Full));
    advance(&mut record, ALL, 0);
    assert!(told(&record).len() <= MAX_GENERATIONS);
}

#[test]
fn a_secret_seals_only_when_everybody_holds_it() {
    let mut record = record();
    change(&mut record, |r| r.add_master(master(1), Vec::new(), 0));
    let version = record.version;
    advance(&mut record, version - 1, 0);
    answer(&mut record);
    advance(&mut record, version - 1, 0);
    assert!(record.sealing().is_none());
    advance(&mut record, version, 0);
    assert!(record.sealing().is_none(), "the peer has not answered");
    answer(&mut record);
    advance(&mut record, version, 0);
    assert_eq!(record.sealing().map(|m| m.id), Some(Fingerprint([1; 16])));

    change(&mut record, |r| r.add_master(master(2), Vec::new(), 50));
    advance(&mut record, ALL, 50);
    assert_eq!(record.sealing().map(|m| m.id), Some(Fingerprint([1; 16])));
    answer(&mut record);
    advance(&mut record, ALL, 50);
    assert_eq!(record.sealing().map(|m| m.id), Some(Fingerprint([2; 16])));
    assert_eq!(record.masters.len(), 2, "the one before still opens");
    advance(&mut record, ALL, 50 + LINGER);
    assert_eq!(record.masters.len(), 1);
}

#[test]
fn revoking_a_secondary_takes_its_place_and_its_secrets() {
    let mut record = record();
    register(&mut record, 1, false, 0);
    change(&mut record, |r| r.add_master(master(1), Vec::new(), 0));
    for _ in 0..2 {
        advance(&mut record, ALL, 0);
        answer(&mut record);
    }
    advance(&mut record, ALL, 0);
    assert!(record.sealing().is_some());
    assert!(change(&mut record, |r| r.revoke_secondary("gate", &[])));
    assert!(!record.revoke_secondary("gate", &[]), "it had nothing left");
    assert!(
        record.revoke_secondary("gate", &[prefix()]),
        "it may have known what it is allowed"
    );
    assert_eq!(told(&record), [0; 0]);
    assert_eq!(record.renewal, Some(Renewal::Compromised));

    change(&mut record, |r| r.add_master(master(2), Vec::new(), 10));
    assert_eq!(record.renewal, None);
    advance(&mut record, ALL, 10);
    answer(&mut record);
    advance(&mut record, ALL, 10);
    advance(&mut record, ALL, 10 + LINGER_REVOKED);
    assert_eq!(record.masters.len(), 1, "the compromised one is gone soon");
}

#[test]
fn a_record_survives_its_store() {
    let mut record = record();
    register(&mut record, 1, false, 7);
    change(&mut record, |r| {
        let peer = Listed {
            prefix: "2001:db8:2::/64".parse().expect("a prefix"),
            group: String::new(),
            generations: vec![3, 9],
        };
        r.add_master(master(5), vec![peer], 7);
        r.removed.push(prefix());
        r.revoked_secondaries.insert("other".to_owned());
    });
    let text = serde_json::to_string(&record).expect("JSON");
    let read: PairingRecord = serde_json::from_str(&text).expect("a record");
    assert_eq!(read, record);
    let spoiled = text.replace("trusted-servers", "trusted");
    assert!(serde_json::from_str::<PairingRecord>(&spoiled).is_err());
}

#[test]
fn entries_within_each_other_share_no_generation() {
    let inner: Prefix = "2001:db8:1::1/128".parse().expect("a prefix");
    let mut record = record();
    let outer = register(&mut record, 1, false, 0);
    change(&mut record, |r| {
        r.added.push(Addition {
            prefix: inner,
            group: "web".to_owned(),
            secondary: None,
        });
        let configured = [Addition {
            prefix: prefix(),
            group: "web".to_owned(),
            secondary: None,
        }];
        r.configure(&configured);
    });
    let given = change(&mut record, |r| r.register(inner, &who(2), false, 0));
    assert_ne!(given, Ok(outer));
}

#[test]
fn a_lost_store_begins_above_what_peers_know() {
    let mut first = record();
    let before = (0..50).map(|restart| register(&mut first, restart, false, 1_000));
    let before = before.max().expect("generations");
    assert!(register(&mut record(), 1, false, 1_100) > before);
}

#[test]
fn who_asks_without_end_takes_few_places() {
    let mut record = record();
    for _ in 0..100 {
        register(&mut record, 1, true, 0);
        advance(&mut record, ALL, 0);
        answer(&mut record);
        advance(&mut record, ALL, 0);
    }
    assert!(record.own[0].given.len() <= MAX_OF_ONE);
    register(&mut record, 2, false, 0);
}

#[test]
fn a_pairing_has_ended_once_the_peer_knows() {
    let mut record = record();
    record.revoke(true);
    assert!(!record.has_ended());
    record.peer_knows = true;
    record.revoke(true);
    assert!(record.has_ended(), "nothing new is to be told");
    record.revoke(false);
    assert!(!record.has_ended());
    record.revoke(true);
    assert!(!record.has_ended());
}

#[test]
fn a_revoked_secondary_gets_nothing() {
    let mut record = record();
    record.revoked_secondaries.insert("gate".to_owned());
    assert_eq!(
        record.register(prefix(), &who(1), false, 0),
        Err(NoGeneration::Revoked)
    );
}

#[test]
fn a_short_absence_is_waited_for() {
    let mut record = record();
    register(&mut record, 1, false, 0);
    assert!(!record.reconnects(0));
    change(&mut record, |r| r.away(10, |_| true));
    assert!(record.reconnects(10) && !record.reconnects(10 + RECONNECT));
    assert!(
        !record.reconnects(9),
        "not for as long as a clock went back"
    );
    register(&mut record, 2, false, 11);
    assert!(!record.reconnects(11), "another took its place");
}

#[test]
fn an_entry_that_was_taken_from_a_secondary_is_left() {
    let mut record = record();
    register(&mut record, 1, false, 0);
    advance(&mut record, ALL, 0);
    let serial = record.own_serial;
    assert!(!record.withdraw(&who(2), &[prefix()]));
    assert!(record.withdraw(&who(1), &[prefix()]));
    assert!(record.own[0].given.is_empty() && record.own_serial > serial);
}

#[test]
fn a_connection_that_another_replica_took_over_is_left_to_it() {
    let mut record = record();
    let here = who(1);
    let there = Who {
        via: "there",
        ..here
    };
    let entries = [prefix()];
    assert!(record.misses(&here, &entries));
    let number = register(&mut record, 1, false, 0);
    assert!(!record.misses(&here, &entries));
    // The same Secondary, before its first replica noticed that it left: neither takes it back from the other.
    let given = record.register(prefix(), &there, false, 0);
    assert_eq!(given, Ok(number));
    assert!(!record.misses(&here, &entries));
    assert!(!record.misses(&there, &entries));
    // Somebody who saw no replica of that name took it for gone.
    record.away(1, |given| given.via == "there");
    assert!(record.misses(&there, &entries));
    // What is not listed is not missed, and another's is not its own.
    assert!(!record.misses(&there, &["2001:db8:9::/64".parse().expect("a prefix")]));
    assert!(record.misses(&who(2), &entries));
}
