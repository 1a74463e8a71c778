//! The documents in a file that one process uses.
//!
//! The file is a redb database: copy-on-write pages with checksums, synced at each commit. Two tables:
//!
//! | table | key | value |
//! |---|---|---|
//! | `documents` | key | revision, bytes |
//! | `numbers` | `format` | 1 |
//! | `numbers` | `revision` | the last revision given out, to whichever document |
//!
//! What was overwritten stays in the file's free pages until they are used again, so the file is as secret as everything it ever held.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition,
    backends::FileBackend,
};
use tokio::{sync::watch, task};
use zeroize::Zeroizing;

use super::{ReplicaValue, StoreError, Versioned};

/// The name of the only replica there is.
pub(super) const REPLICA: &str = "self";

const DOCUMENTS: TableDefinition<&str, (u64, &[u8])> = TableDefinition::new("documents");
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
const FORMAT: &str = "format";
const REVISION: &str = "revision";
/// The one layout there is so far.
const CURRENT_FORMAT: u64 = 1;
/// Bytes of pages kept in memory: a store is rarely larger, and redb's default of 1 GiB is meant for others.
const CACHE: usize = 8 << 20;

/// A store in a file.
pub struct Embedded {
    disk: Arc<Disk>,
    changes: watch::Sender<u64>,
    leads: watch::Sender<bool>,
    mine: Mutex<BTreeMap<String, Vec<u8>>>,
}

/// The file.
struct Disk {
    path: PathBuf,
    database: Database,
}

impl Embedded {
    /// Opens the file at `path`, or makes it. Blocks; at the start only.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            disk: Arc::new(Disk::open(path)?),
            changes: watch::Sender::new(0),
            leads: watch::Sender::new(true),
            mine: Mutex::default(),
        })
    }

    /// Reads straight away: the pages are in memory, or one read of some KB away, and no reader waits for the writer.
    pub(super) fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let found = self.disk.get(key);
        found.map_err(|error| self.disk.failed("read", error))
    }

    pub(super) fn scan(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        let found = self.disk.scan(prefix);
        found.map_err(|error| self.disk.failed("read", error))
    }

    pub(super) async fn put_if(
        &self,
        key: &str,
        expected: Option<u64>,
        value: &[u8],
    ) -> Result<Option<u64>, StoreError> {
        let (key, value) = (key.to_owned(), Zeroizing::new(value.to_vec()));
        let write = move |disk: &Disk| disk.change(&key, expected, Some(&value));
        self.write(write).await
    }

    pub(super) async fn delete_if(&self, key: &str, expected: u64) -> Result<bool, StoreError> {
        let key = key.to_owned();
        let write = move |disk: &Disk| disk.change(&key, Some(expected), None);
        Ok(self.write(write).await?.is_some())
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn leads(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    pub(super) fn put_mine(&self, name: &str, value: &[u8]) {
        let mut mine = self.mine.lock().unwrap_or_else(PoisonError::into_inner);
        mine.insert(name.to_owned(), value.to_owned());
        drop(mine);
        self.changes.send_modify(|number| *number += 1);
    }

    pub(super) fn replicas(&self, name: &str) -> Vec<ReplicaValue> {
        let mine = self.mine.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = mine.get(name).cloned();
        mine.map(|value| (REPLICA.to_owned(), value))
            .into_iter()
            .collect()
    }

    /// Writes on a thread of its own: a sync takes as long as the disk likes, and everything else must go on meanwhile.
    async fn write(
        &self,
        write: impl FnOnce(&Disk) -> Result<Option<u64>, redb::Error> + Send + 'static,
    ) -> Result<Option<u64>, StoreError> {
        let disk = self.disk.clone();
        let changes = self.changes.clone();
        // Signals there, so that a change is told even if nobody waits here any more.
        let work = task::spawn_blocking(move || {
            let done = write(&disk);
            if !matches!(done, Ok(None)) {
                changes.send_modify(|number| *number += 1);
            }
            done.map_err(|error| disk.failed("write", error))
        });
        work.await.unwrap_or_else(|error| {
            Err(StoreError::Io {
                action: "write",
                path: self.disk.path.clone(),
                source: io::Error::other(error),
            })
        })
    }
}

impl Disk {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        if !folder.is_dir() {
            return Err(StoreError::NoFolder { folder });
        }
        let failed = |action, source| StoreError::Io {
            action,
            path: path.to_owned(),
            source,
        };
        let existing = || OpenOptions::new().read(true).write(true).open(path);
        let file = match existing() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path, &folder)?;
                existing()
            }
            file => file,
        };
        let file = file.map_err(|error| failed("open", error))?;
        let about = file.metadata().map_err(|error| failed("open", error))?;
        if !about.is_file() {
            return Err(failed("open", io::Error::other("this is no file")));
        }
        let mode = about.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(StoreError::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
        // An empty file would be taken for a new database.
        if about.len() == 0 {
            return Err(StoreError::Corrupt {
                path: path.to_owned(),
                why: "it is empty".to_owned(),
            });
        }
        let database = load(path, file)?;
        let disk = Self {
            path: path.to_owned(),
            database,
        };
        match disk.format() {
            Ok(Some(CURRENT_FORMAT)) => Ok(disk),
            Ok(format) => Err(StoreError::Corrupt {
                path: path.to_owned(),
                why: format!("its format is {format:?}, expected {CURRENT_FORMAT}"),
            }),
            Err(redb::Error::TableDoesNotExist(table)) => Err(StoreError::Corrupt {
                path: path.to_owned(),
                why: format!("it has no table `{table}`"),
            }),
            Err(error) => Err(disk.failed("read", error)),
        }
    }

    fn format(&self) -> Result<Option<u64>, redb::Error> {
        let reading = self.database.begin_read()?;
        reading.open_table(DOCUMENTS)?;
        let format = reading.open_table(NUMBERS)?.get(FORMAT)?;
        Ok(format.map(|format| format.value()))
    }

    fn get(&self, key: &str) -> Result<Option<Versioned>, redb::Error> {
        let documents = self.database.begin_read()?.open_table(DOCUMENTS)?;
        let found = documents.get(key)?;
        Ok(found.map(|found| versioned(found.value())))
    }

    fn scan(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, redb::Error> {
        let documents = self.database.begin_read()?.open_table(DOCUMENTS)?;
        let mut found = Vec::new();
        for entry in documents.range(prefix..)? {
            let (key, value) = entry?;
            if !key.value().starts_with(prefix) {
                break;
            }
            found.push((key.value().to_owned(), versioned(value.value())));
        }
        Ok(found)
    }

    /// Puts or (`None`) deletes, if the key's revision is `expected`. The new revision, once it is on disk.
    fn change(
        &self,
        key: &str,
        expected: Option<u64>,
        value: Option<&[u8]>,
    ) -> Result<Option<u64>, redb::Error> {
        // The only writer from here to the commit.
        let mut writing = self.database.begin_write()?;
        // So that a damaged commit is never taken for one that a crash cut short, and silently replaced by the one before.
        writing.set_two_phase_commit(true);
        let revision = {
            let mut documents = writing.open_table(DOCUMENTS)?;
            let found = documents.get(key)?.map(|found| found.value().0);
            if found != expected {
                // Dropped without a commit: nothing is written.
                return Ok(None);
            }
            let mut numbers = writing.open_table(NUMBERS)?;
            let last = numbers.get(REVISION)?.map(|last| last.value());
            // A deletion uses a number as well, so that no revision ever comes back.
            let revision = last.unwrap_or(0) + 1;
            numbers.insert(REVISION, revision)?;
            match value {
                Some(value) => documents.insert(key, (revision, value))?,
                None => documents.remove(key)?,
            };
            revision
        };
        writing.commit()?;
        Ok(Some(revision))
    }

    fn failed(&self, action: &'static str, error: redb::Error) -> StoreError {
        failed(&self.path, action, error)
    }
}

fn versioned((revision, value): (u64, &[u8])) -> Versioned {
    Versioned {
        value: Zeroizing::new(value.to_vec()),
        revision,
    }
}

/// Takes the file's lock and checks every page of it, since redb trusts what it does not check.
fn load(path: &Path, file: File) -> Result<Database, StoreError> {
    let load = || {
        Builder::new()
            .set_cache_size(CACHE)
            .set_check_integrity_on_open(true)
            .create_with_backend(FileBackend::new(file)?)
    };
    load().map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse {
            path: path.to_owned(),
        },
        error => failed(path, "open", error.into()),
    })
}

/// Makes a store that holds nothing. Whatever happens meanwhile, `path` names a whole store or nothing, so that a file which is no whole
/// store is known to be damaged.
fn create(path: &Path, folder: &Path) -> Result<(), StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    let io = |action, source| StoreError::Io {
        action,
        path: temporary.clone(),
        source,
    };
    // Two that start at once make it one after the other. Released at the end of the function.
    let lock = File::open(folder).map_err(|error| io("create", error))?;
    lock.lock().map_err(|error| io("create", error))?;
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("delete", error)),
        _ => {}
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(|error| io("create", error))?;
    let fill = || -> Result<(), redb::Error> {
        let database = Builder::new()
            .set_cache_size(CACHE)
            .create_with_backend(FileBackend::new(file)?)?;
        let mut writing = database.begin_write()?;
        writing.set_two_phase_commit(true);
        writing.open_table(DOCUMENTS)?;
        writing
            .open_table(NUMBERS)?
            .insert(FORMAT, CURRENT_FORMAT)?;
        writing.commit()?;
        database.close()?;
        Ok(())
    };
    fill().map_err(|error| failed(&temporary, "write", error))?;
    fs::rename(&temporary, path)
        .and_then(|()| lock.sync_all())
        .map_err(|error| io("rename", error))
}

/// Tells damage from what the operating system refuses.
fn failed(path: &Path, action: &'static str, error: redb::Error) -> StoreError {
    let corrupt = |why: String| StoreError::Corrupt {
        path: path.to_owned(),
        why,
    };
    match error {
        // No database at all, and the end of the file where there should be more.
        redb::Error::Io(source)
            if matches!(
                source.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            corrupt(source.to_string())
        }
        redb::Error::Io(source) => StoreError::Io {
            action,
            path: path.to_owned(),
            source,
        },
        redb::Error::Corrupted(why) => corrupt(why),
        error @ (redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }) => corrupt(error.to_string()),
        error => StoreError::Io {
            action,
            path: path.to_owned(),
            source: io::Error::other(error),
        },
    }
}

#[cfg(test)]
mod tests;
