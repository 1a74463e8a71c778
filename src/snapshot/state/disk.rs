//! The file itself: one process at a time, and never half written.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::StateError;

/// The locked place of a state file.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    folder: PathBuf,
    /// Unlocked when closed, however the process ends.
    _lock: File,
}

impl Disk {
    /// Takes the lock of `path`, which need not exist.
    pub(super) fn lock(path: &Path) -> Result<Self, StateError> {
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        if !folder.is_dir() {
            return Err(StateError::NoFolder { folder });
        }
        let lock = beside(path, ".lock");
        let failed = |action, source| StateError::Io {
            action,
            path: lock.clone(),
            source,
        };
        // A file of its own, since each write puts another file at `path`. It stays: deleting it would let two processes lock two files.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock)
            .map_err(|source| failed("open", source))?;
        match file.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                folder,
                _lock: file,
            }),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse {
                path: path.to_owned(),
                lock,
            }),
            Err(TryLockError::Error(source)) => Err(failed("lock", source)),
        }
    }

    /// The file's bytes; `None` if there is no file.
    pub(super) fn read(&self) -> Result<Option<Vec<u8>>, StateError> {
        let mut bytes = Vec::new();
        match File::open(&self.path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", error)),
        }
    }

    /// Replaces the file. After an error the old one stands, or (if only the last sync failed) possibly the new one.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), StateError> {
        let temporary = beside(&self.path, ".tmp");
        let replace = || {
            // What a crash left behind may have any mode, and is worth nothing.
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &self.path)?;
            File::open(&self.folder)?.sync_all()
        };
        replace().map_err(|error| self.failed("write", error))
    }

    pub(super) fn failed(&self, action: &'static str, source: io::Error) -> StateError {
        StateError::Io {
            action,
            path: self.path.clone(),
            source,
        }
    }
}

/// `path` with `ending` behind its name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}
