//! The file: its mode, its lock, damage to it, and processes that die while they write.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        process::ExitStatusExt,
    },
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use super::*;
use crate::registration::store::{MAX_DOCUMENT, Store, StoreConfig};

async fn open(path: &Path) -> Result<Store, StoreError> {
    let path = path.to_owned();
    Store::open(&StoreConfig::Embedded { path }).await
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A store that holds one document.
async fn filled(path: &Path) {
    let store = open(path).await.unwrap();
    let put = store.put_if("pairings/campus", None, &[7; 5000]).await;
    assert!(put.unwrap().is_some());
}

#[tokio::test]
async fn a_document_changes_only_from_its_revision() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = open(&path).await.unwrap();
    assert!(store.get("a").await.unwrap().is_none());
    assert_eq!(store.put_if("a", Some(1), b"x").await.unwrap(), None);
    let first = store.put_if("a", None, b"one").await.unwrap().unwrap();
    assert_eq!(store.put_if("a", None, b"two").await.unwrap(), None);
    assert_eq!(store.put_if("a", Some(0), b"two").await.unwrap(), None);
    let other = store.put_if("b", None, b"other").await.unwrap().unwrap();
    assert!(other > first, "the revisions of all keys rise together");
    let second = store.put_if("a", Some(first), b"two").await.unwrap();
    let second = second.unwrap();
    assert_eq!(
        store.put_if("a", Some(first), b"three").await.unwrap(),
        None
    );
    let read = store.get("a").await.unwrap().unwrap();
    assert_eq!(
        (read.value.as_slice(), read.revision),
        (&b"two"[..], second)
    );

    assert!(!store.delete_if("a", first).await.unwrap());
    assert!(store.delete_if("a", second).await.unwrap());
    assert!(!store.delete_if("a", second).await.unwrap());
    assert!(store.get("a").await.unwrap().is_none());
    let again = store.put_if("a", None, b"again").await.unwrap().unwrap();
    assert!(again > second, "a revision never comes back");

    drop(store);
    let store = open(&path).await.unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().revision, again);
    let next = store.put_if("c", None, b"").await.unwrap().unwrap();
    assert!(next > again, "not after a restart either");
    assert!(store.get("c").await.unwrap().unwrap().value.is_empty());
}

#[tokio::test]
async fn scans_are_ordered_and_end_with_the_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store")).await.unwrap();
    for key in ["p/b", "p/a", "p", "q/a", "o/z", "p/ä", "p0"] {
        store.put_if(key, None, key.as_bytes()).await.unwrap();
    }
    let found = store.scan("p/").await.unwrap();
    let keys: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["p/a", "p/b", "p/ä"]);
    assert!(found.iter().all(|(key, v)| *v.value == key.as_bytes()));
    assert_eq!(store.scan("").await.unwrap().len(), 7);
    assert!(store.scan("r").await.unwrap().is_empty());
}

#[tokio::test]
async fn changes_are_told_and_the_only_replica_leads() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store")).await.unwrap();
    assert!(*store.leads().borrow());
    let mut changes = store.changes();
    let revision = store.put_if("a", None, b"1").await.unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    store.put_if("a", None, b"2").await.unwrap();
    assert!(!changes.has_changed().unwrap(), "nothing was changed");
    store.delete_if("a", revision.unwrap()).await.unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();

    assert!(store.replicas("holds").await.unwrap().is_empty());
    store.put_mine("holds", b"4").await.unwrap();
    store.put_mine("holds", b"5").await.unwrap();
    assert!(changes.has_changed().unwrap());
    let holds = store.replicas("holds").await.unwrap();
    assert_eq!(holds, [(store.replica().to_owned(), b"5".to_vec())]);
    assert!(store.replicas("other").await.unwrap().is_empty());
}

#[tokio::test]
async fn one_of_many_tasks_is_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&folder.path().join("store")).await.unwrap());
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    loop {
                        let read = store.get("n").await.unwrap();
                        let number = read.as_ref().map_or(0, |read| {
                            u32::from_be_bytes(read.value.as_slice().try_into().unwrap())
                        });
                        let next = (number + 1).to_be_bytes();
                        let revision = read.map(|read| read.revision);
                        if store.put_if("n", revision, &next).await.unwrap().is_some() {
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let last = store.get("n").await.unwrap().unwrap();
    assert_eq!(last.value.as_slice(), 80u32.to_be_bytes());
}

#[tokio::test]
async fn a_document_that_is_too_long_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store")).await.unwrap();
    let long = vec![1; MAX_DOCUMENT + 1];
    let refused = store.put_if("a", None, &long).await;
    assert!(matches!(refused, Err(StoreError::TooLong { length, .. }) if length == long.len()));
    let longest = store.put_if("a", None, &long[1..]).await.unwrap();
    assert!(longest.is_some());
}

#[tokio::test]
async fn only_the_owner_may_read_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    filled(&path).await;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    for bad in [0o640, 0o604, 0o620] {
        fs::set_permissions(&path, fs::Permissions::from_mode(bad)).unwrap();
        let refused = open(&path).await;
        assert!(
            matches!(&refused, Err(StoreError::Exposed { mode, .. }) if *mode == bad),
            "{:?}",
            refused.err()
        );
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(open(&path).await.is_ok());
}

#[tokio::test]
async fn what_a_crash_left_beside_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut left = File::options();
    left.write(true).create(true).mode(0o666);
    let mut left = left.open(folder.path().join("store.new")).unwrap();
    left.write_all(b"half of a store").unwrap();
    filled(&path).await;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_missing_folder_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let refused = open(&missing.join("store")).await.err().unwrap();
    assert!(refused.to_string().contains("mkdir"), "{refused}");
    assert!(matches!(refused, StoreError::NoFolder { folder } if folder == missing));
    let refused = open(folder.path()).await.err().unwrap();
    assert!(matches!(refused, StoreError::Io { .. }), "{refused}");
}

#[tokio::test]
async fn a_second_user_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = open(&path).await.unwrap();
    let refused = open(&path).await.err().unwrap();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains("another Primary"), "{refused}");
    store.put_if("a", None, b"1").await.unwrap();
    drop(store);
    assert!(open(&path).await.unwrap().get("a").await.unwrap().is_some());
}

#[tokio::test]
async fn two_that_start_at_once_share_no_file() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let path = folder.path().join(format!("store{round}"));
        let starts: Vec<_> = (0..4)
            .map(|_| {
                let path = path.clone();
                thread::spawn(move || Embedded::open(&path))
            })
            .collect();
        let ends: Vec<_> = starts.into_iter().map(|s| s.join().unwrap()).collect();
        let opened = ends.iter().filter(|end| end.is_ok()).count();
        assert_eq!(opened, 1);
        for refused in ends.iter().filter_map(|end| end.as_ref().err()) {
            assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
        }
    }
}

#[tokio::test]
async fn a_damaged_file_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    filled(&path).await;
    let whole = fs::read(&path).unwrap();
    let at = whole.windows(100).position(|part| part == [7; 100]);
    let in_document = at.unwrap();
    type Damage<'a> = (&'a str, &'a dyn Fn(&mut Vec<u8>));
    let damages: [Damage; 6] = [
        ("empty", &|bytes| bytes.clear()),
        ("cut short", &|bytes| bytes.truncate(bytes.len() / 2)),
        ("shorter than its head", &|bytes| bytes.truncate(100)),
        ("something else", &|bytes| bytes.fill(b'x')),
        ("zeros", &|bytes| bytes.fill(0)),
        ("one bit of a document", &|bytes| bytes[in_document] ^= 1),
    ];
    for (name, damage) in damages {
        let mut bytes = whole.clone();
        damage(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        match open(&path).await {
            Err(StoreError::Corrupt { .. }) => {}
            Err(other) => panic!("{name}: {other}"),
            Ok(_) => panic!("{name}: was not noticed"),
        }
        assert_eq!(fs::read(&path).unwrap(), bytes, "{name}: it was changed");
    }
    fs::write(&path, &whole).unwrap();
    assert!(open(&path).await.is_ok());
}

#[tokio::test]
async fn a_damaged_byte_is_noticed_or_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = open(&path).await.unwrap();
    let mut revision = None;
    for number in 1..=5 {
        let value = document(number);
        revision = store.put_if("a", revision, &value).await.unwrap();
    }
    // As a crash would leave it, and as its end leaves it.
    let crashed = fs::read(&path).unwrap();
    drop(store);
    let ended = fs::read(&path).unwrap();
    for whole in [crashed, ended] {
        // The rest of the file was never used.
        let used: Vec<_> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
        let mut noticed = 0;
        for round in 0..160 {
            let at = match round {
                // The head: its 320 bytes say which commit counts.
                0..107 => round * 3,
                _ => used[round * 7919 % used.len()],
            };
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (round % 8);
            fs::write(&path, &bytes).unwrap();
            match open(&path).await {
                Err(StoreError::Corrupt { .. }) => noticed += 1,
                Err(other) => panic!("byte {at}: {other}"),
                Ok(store) => {
                    let found = store.get("a").await.unwrap().unwrap();
                    assert_eq!(*found.value, document(5), "byte {at}");
                    assert_eq!(Some(found.revision), revision, "byte {at}");
                }
            }
        }
        assert!(noticed > 40, "{noticed}");
    }
}

#[tokio::test]
async fn a_database_of_something_else_is_not_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    drop(Database::create(&path).unwrap());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let refused = open(&path).await.err().unwrap();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");

    filled(&folder.path().join("newer")).await;
    let newer = Disk::open(&folder.path().join("newer")).unwrap();
    let writing = newer.database.begin_write().unwrap();
    let mut numbers = writing.open_table(NUMBERS).unwrap();
    numbers.insert(FORMAT, CURRENT_FORMAT + 1).unwrap();
    drop(numbers);
    writing.commit().unwrap();
    drop(newer);
    let refused = open(&folder.path().join("newer")).await.err().unwrap();
    assert!(refused.to_string().contains("format"), "{refused}");
}

/// Names the store to write to; set in a process that is to be killed.
const VICTIM: &str = "PDMGATE_TEST_STORE_VICTIM";

/// A document that shows whether it is whole: `number`, then bytes that follow from it, of a length that does as well.
fn document(number: u32) -> Vec<u8> {
    let length = 500 + number.wrapping_mul(2_654_435_761) as usize % 9000;
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((0..length).map(|at| (at as u32 ^ number.wrapping_mul(167)) as u8));
    bytes
}

/// The documents are written in turns.
const KEYS: u32 = 5;

/// No test by itself: writes one document after the other for ever, and says each number that was acknowledged.
#[tokio::test]
async fn victim() {
    let Some(path) = env::var_os(VICTIM) else {
        return;
    };
    let store = open(Path::new(&path)).await.unwrap();
    let mut out = io::stdout();
    let found = store.scan("").await.unwrap();
    let number = |v: &Versioned| u32::from_be_bytes(v.value[..4].try_into().unwrap());
    let last = found.iter().map(|(_, v)| number(v)).max().unwrap_or(0);
    for number in last + 1.. {
        let key = format!("document{}", number % KEYS);
        let revision = store.get(&key).await.unwrap().map(|read| read.revision);
        let put = store
            .put_if(&key, revision, &document(number))
            .await
            .unwrap();
        assert!(put.is_some());
        writeln!(out, "acknowledged {number}").unwrap();
        out.flush().unwrap();
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_kill() {
    const ROUNDS: u32 = 40;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let mut seed: u64 = 0x5eed_0001;
    let mut last = 0u32;
    for round in 0..ROUNDS {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("registration::store::embedded::tests::victim")
            .env(VICTIM, &path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Killed some microseconds after one of its first acknowledgements, or before it has opened the file.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let count = (seed >> 33) % 8;
        let delay = Duration::from_micros((seed >> 40) % 5000);
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let mut acknowledged = last;
        let mut note = |line: &str| {
            if let Some(number) = line.trim_end().strip_prefix("acknowledged ") {
                // The last line may be cut short only if the number was not said whole.
                acknowledged = acknowledged.max(number.parse().unwrap());
            }
        };
        let mut heard = 0;
        while heard < count && matches!(said.read_line(&mut line), Ok(1..)) {
            heard += u64::from(line.starts_with("acknowledged "));
            note(&line);
            line.clear();
        }
        thread::sleep(delay);
        child.kill().unwrap();
        while matches!(said.read_line(&mut line), Ok(1..)) {
            if line.ends_with('\n') {
                note(&line);
            }
            line.clear();
        }
        assert_eq!(child.wait().unwrap().signal(), Some(9), "round {round}");

        let store = open(&path).await.unwrap();
        let found = store.scan("").await.unwrap();
        for (key, found) in &found {
            let number = u32::from_be_bytes(found.value[..4].try_into().unwrap());
            assert_eq!(*found.value, document(number), "round {round}: {key}");
            assert_eq!(*key, format!("document{}", number % KEYS));
            last = last.max(number);
        }
        // One more than was said may have been written.
        assert!(
            (acknowledged..=acknowledged + 1).contains(&last),
            "round {round}: acknowledged {acknowledged}, found {last}"
        );
        let expected = last.min(KEYS) as usize;
        assert_eq!(found.len(), expected, "round {round}");
        for number in last.saturating_sub(KEYS - 1).max(1)..=last {
            let key = format!("document{}", number % KEYS);
            let (_, found) = found.iter().find(|(k, _)| *k == key).unwrap();
            assert_eq!(*found.value, document(number), "round {round}");
        }
    }
    assert!(last > ROUNDS, "hardly anything was written: {last}");
    // The locks of the dead are gone, and so is whatever they left.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
