//! What can go wrong with the state file, and what to do then.

use std::{io, path::PathBuf};

use thiserror::Error;

use super::EntryKey;

/// The state cannot be read or kept, so nothing may be sent.
#[derive(Debug, Error)]
pub enum StateError {
    /// There is no folder for the file.
    #[error(
        "the state file's folder {} does not exist: make it (mkdir -p, owned by whom pdmgate runs as), or set `state` to a path whose folder exists",
        folder.display()
    )]
    NoFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// Another process has the file.
    #[error(
        "another pdmgate uses the state file {} (it holds the lock {}): stop it, or give each appliance a `state` of its own",
        path.display(),
        lock.display()
    )]
    InUse {
        /// The state file.
        path: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file is there and makes no sense.
    #[error(
        "the state file {} cannot be understood ({why}). It holds the generations already used, and using one twice under the same secret would break the encryption, so pdmgate does not start over by itself. Restore the file from a backup that is not older than the last start; or give every pairing a new `pms` at both ends, or a `generation` in every entry that is higher than any used before, at both ends, and then delete the file",
        path.display()
    )]
    Corrupt {
        /// The state file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// 2^32 generations are used up.
    #[error(
        "the pairing `{pairing}` has used every generation of its entry `{entry}`: give it a new `pms` at both ends"
    )]
    GenerationsExhausted {
        /// The pairing's name.
        pairing: String,
        /// The entry.
        entry: EntryKey,
    },
}
