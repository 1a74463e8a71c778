//! The file: made, read, raised, locked, crashed and damaged.

use std::{fs, os::unix::fs::PermissionsExt};

use super::*;

const PRK: Fingerprint = Fingerprint([0xab; 16]);

fn client(prefix: &str) -> EntryKey {
    format!("client {prefix}").parse().expect("an entry")
}

fn claim(entries: &[(&str, u32)]) -> Claim {
    Claim {
        name: "campus".to_owned(),
        fingerprint: PRK,
        entries: entries
            .iter()
            .map(|(prefix, own)| (client(prefix), *own))
            .collect(),
    }
}

fn own(state: &State, prefix: &str) -> u32 {
    state.record(&PRK).expect("a record").entries[&client(prefix)].own
}

struct Place {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
}

fn place() -> Place {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.json");
    Place {
        _folder: folder,
        path,
    }
}

fn open(place: &Place) -> State {
    State::open(&place.path).expect("opened")
}

#[test]
fn generations_rise_with_each_start() {
    let place = place();
    for expected in 3..8 {
        let mut state = open(&place);
        state.raise(&[claim(&[("::/0", 3)])]).expect("raised");
        assert_eq!(own(&state, "::/0"), expected);
        // Already on the disk, for whoever comes after a crash.
        let bytes = fs::read(&place.path).expect("written");
        assert_eq!(State::parse(&bytes).expect("valid"), state.contents);
    }
    let mode = fs::metadata(&place.path)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_was_not_used_needs_no_raise() {
    let place = place();
    let mut state = open(&place);
    state.raise(&[claim(&[("::/0", 1)])]).expect("raised");
    state.mark_unused(&[PRK]).expect("marked");
    drop(state);
    let mut state = open(&place);
    state.raise(&[claim(&[("::/0", 1)])]).expect("raised");
    assert_eq!(own(&state, "::/0"), 1);
    drop(state);
    let mut state = open(&place);
    state.raise(&[claim(&[("::/0", 1)])]).expect("raised");
    assert_eq!(own(&state, "::/0"), 2);
    assert_eq!(state.record(&PRK).expect("a record").start, 1);
}

#[test]
fn the_configuration_raises_and_never_lowers() {
    let mut state = State::in_memory();
    state.raise(&[claim(&[("::/0", 5)])]).expect("raised");
    for (configured, expected) in [(1, 6), (20, 20), (20, 21), (5, 22)] {
        state
            .raise(&[claim(&[("::/0", configured)])])
            .expect("raised");
        assert_eq!(own(&state, "::/0"), expected);
    }
}

#[test]
fn entries_that_leave_rise_with_the_others() {
    let mut state = State::in_memory();
    state
        .raise(&[claim(&[("::/0", 1), ("2001:db8::/32", 1)])])
        .expect("raised");
    state.raise(&[claim(&[("::/0", 1)])]).expect("raised");
    state
        .raise(&[claim(&[("::/0", 1), ("2001:db8::/32", 1)])])
        .expect("raised");
    assert_eq!((own(&state, "::/0"), own(&state, "2001:db8::/32")), (3, 3));
}

#[test]
fn another_secret_starts_where_it_is_configured() {
    let mut state = State::in_memory();
    for _ in 0..5 {
        state.raise(&[claim(&[("::/0", 2)])]).expect("raised");
    }
    let other = Claim {
        fingerprint: Fingerprint([1; 16]),
        ..claim(&[("::/0", 2)])
    };
    state.raise(&[other]).expect("raised");
    let record = state.record(&Fingerprint([1; 16])).expect("a record");
    assert_eq!((record.start, record.entries[&client("::/0")].own), (0, 2));
    // The first one is not forgotten.
    state.raise(&[claim(&[("::/0", 2)])]).expect("raised");
    assert_eq!(own(&state, "::/0"), 7);
}

#[test]
fn lessons_are_kept_and_only_go_up() {
    let place = place();
    let mut state = open(&place);
    state.raise(&[claim(&[("::/0", 1)])]).expect("raised");
    let lesson = |peer, heard_start| Lesson {
        fingerprint: PRK,
        entry: client("::/0"),
        peer: Some(peer),
        heard_start,
    };
    assert!(state.learn(&[lesson(4, None)]).expect("learnt"));
    assert!(state.learn(&[lesson(3, Some(0))]).expect("learnt"));
    assert!(!state.learn(&[lesson(2, None)]).expect("learnt"));
    let stranger = Lesson {
        entry: client("2001:db8::/32"),
        ..lesson(9, None)
    };
    assert!(!state.learn(&[stranger]).expect("learnt"));
    drop(state);
    let state = open(&place);
    let remembered = state.record(&PRK).expect("a record").entries[&client("::/0")];
    assert_eq!(
        (remembered.peer, remembered.heard_start),
        (Some(4), Some(0))
    );
}

#[test]
fn one_process_at_a_time() {
    let place = place();
    let first = open(&place);
    let error = State::open(&place.path).expect_err("in use");
    assert!(matches!(error, StateError::InUse { .. }), "{error}");
    assert!(
        error.to_string().contains("a `state` of its own"),
        "{error}"
    );
    drop(first);
    open(&place);
}

#[test]
fn a_crash_before_the_rename_changes_nothing() {
    let place = place();
    let mut state = open(&place);
    state.raise(&[claim(&[("::/0", 1)])]).expect("raised");
    drop(state);
    let whole = fs::read(&place.path).expect("written");
    let temporary = place.path.with_extension("json.tmp");
    // Any part of the file that was to be, readable to nobody, or something else altogether.
    for length in [0, 1, whole.len() / 2, whole.len()] {
        fs::write(&temporary, &whole[..length]).expect("written");
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o000)).expect("changed");
        let before = own(&open(&place), "::/0");
        let mut state = open(&place);
        state.raise(&[claim(&[("::/0", 1)])]).expect("raised");
        assert_eq!(own(&state, "::/0"), before + 1);
        assert!(!temporary.exists());
    }
}

#[test]
fn a_raise_that_cannot_be_written_did_not_happen() {
    let place = place();
    let mut state = open(&place);
    state.raise(&[claim(&[("::/0", 1)])]).expect("raised");
    // Not even root can write over a folder.
    let temporary = place.path.with_extension("json.tmp");
    fs::create_dir(&temporary).expect("made");
    let error = state.raise(&[claim(&[("::/0", 1)])]).expect_err("refused");
    assert!(
        matches!(
            error,
            StateError::Io {
                action: "write",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(own(&state, "::/0"), 1);
    fs::remove_dir(&temporary).expect("removed");
    state.raise(&[claim(&[("::/0", 1)])]).expect("raised");
    assert_eq!(own(&state, "::/0"), 2);
}

#[test]
fn a_damaged_file_stops_the_start() {
    let place = place();
    let mut state = open(&place);
    state.raise(&[claim(&[("::/0", 1)])]).expect("raised");
    drop(state);
    let good = fs::read_to_string(&place.path).expect("text");
    let damaged = [
        String::new(),
        "{}".to_owned(),
        good[..good.len() / 2].to_owned(),
        good.replace("\"format\": 1", "\"format\": 2"),
        good.replace("\"own\": 1", "\"own\": -1"),
        good.replace("\"own\": 1", "\"own\": 4294967296"),
        good.replace("client ::/0", "client ::1/0"),
        good.replace("client ::/0", "host ::/0"),
        good.replace("abab", "ab"),
        good.replace("\"used\"", "\"abused\""),
        format!("{good}{good}"),
    ];
    for text in damaged {
        assert_ne!(text, good);
        fs::write(&place.path, &text).expect("written");
        let error = State::open(&place.path).expect_err(&text);
        assert!(matches!(error, StateError::Corrupt { .. }), "{error}");
        assert!(
            error.to_string().contains("Restore the file from a backup"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&place.path).expect("text"), text);
    }
    fs::write(&place.path, &good).expect("written");
    assert_eq!(own(&open(&place), "::/0"), 1);
}

#[test]
fn a_missing_folder_is_named() {
    let place = place();
    let path = place.path.with_file_name("none").join("state.json");
    let error = State::open(&path).expect_err("no folder");
    assert!(matches!(error, StateError::NoFolder { .. }), "{error}");
    assert!(error.to_string().contains("mkdir -p"), "{error}");
}

#[test]
fn the_last_generation_is_the_end() {
    let mut state = State::in_memory();
    state
        .raise(&[claim(&[("::/0", u32::MAX)])])
        .expect("raised");
    let error = state
        .raise(&[claim(&[("::/0", 1)])])
        .expect_err("none left");
    assert!(
        matches!(error, StateError::GenerationsExhausted { .. }),
        "{error}"
    );
    assert_eq!(own(&state, "::/0"), u32::MAX);
}

/// Raises these entries; then what each has.
fn raised(state: &mut State, entries: &[(&str, u32)]) -> BTreeMap<String, u32> {
    let entries = entries
        .iter()
        .map(|(entry, own)| (entry.parse().expect("an entry"), *own));
    let claim = Claim {
        entries: entries.collect(),
        ..claim(&[])
    };
    state.raise(&[claim]).expect("raised");
    let record = state.record(&PRK).expect("a record");
    let entries = record.entries.iter();
    entries.map(|(e, r)| (e.to_string(), r.own)).collect()
}

#[test]
fn entries_that_hold_each_other_never_have_each_others_generations() {
    let (wide, narrow, client) = ("server ::/0", "server ::1/128", "client ::1/128");
    let mut state = State::in_memory();
    for own in 3..9 {
        assert_eq!(raised(&mut state, &[(wide, 3)])[wide], own);
    }
    // One that comes begins where the other is, not where that has been; also one that makes its hosts the other end.
    for own in [9, 10] {
        let all = raised(&mut state, &[(wide, 3), (narrow, 1), (client, 1)]);
        assert_eq!([all[wide], all[narrow], all[client]], [own; 3]);
    }
    let mut state = State::in_memory();
    for own in 1..4 {
        assert_eq!(raised(&mut state, &[(client, 1)])[client], own);
    }
    assert_eq!(raised(&mut state, &[(client, 1), (wide, 1)])[wide], 4);
    // One that goes leaves its generations to none.
    let mut state = State::in_memory();
    let both = [(wide, 3), (narrow, 7)];
    let own = |all: BTreeMap<String, u32>| [all[wide], all[narrow]];
    assert_eq!(
        own(raised(&mut state, &both)),
        [3, 7],
        "the peer counts on it"
    );
    assert_eq!(own(raised(&mut state, &both)), [4, 8]);
    assert_eq!(own(raised(&mut state, &[(wide, 3)])), [9, 9]);
}
