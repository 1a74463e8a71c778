//! What can go wrong with a Primary's store, and what to do then. No text holds a document's contents.

use std::{io, path::PathBuf, time::Duration};

use thiserror::Error;

use crate::registration::tls::TlsError;

/// The store cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// There is no folder for the file.
    #[error(
        "the folder {} of the store does not exist: make it (mkdir -p -m 700, owned by whom the Primary runs as), or set `store` to a path whose folder exists",
        folder.display()
    )]
    NoFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// Another process has the file.
    #[error(
        "another Primary uses the store {}: stop it, or give each Primary a store of its own",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may read or write a file that holds secrets.
    #[error(
        "{} has the mode {mode:04o}, expected 0600: others may read its secrets. Run chmod 600 on it, and renew the secrets in it if they may have been read",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Certificates or keys for etcd cannot be used.
    #[error("for etcd: {0}")]
    Tls(#[from] TlsError),
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
        "the store {} is damaged ({why}). It holds the generations already given out, and giving one out twice under the same secret would break the encryption, so it is not made anew by itself. Restore it from a backup and then renew the secrets of every pairing; or move it away, which forgets all pairings, so that they are set up anew",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The settings contradict each other.
    #[error("the settings of etcd: found {found}, expected {expected}")]
    Settings {
        /// What they say.
        found: String,
        /// What they may say.
        expected: &'static str,
    },
    /// A document is too long.
    #[error(
        "the document `{key}` has {length} bytes, expected at most {}",
        super::MAX_DOCUMENT
    )]
    TooLong {
        /// Its key.
        key: String,
        /// Its length in bytes.
        length: usize,
    },
    /// A document in etcd is none of ours.
    #[error(
        "the document `{key}` in etcd has {length} bytes, expected at least {expected}: something else writes under the same `prefix`"
    )]
    Foreign {
        /// Its key.
        key: String,
        /// Its length in bytes.
        length: usize,
        /// The shortest possible.
        expected: usize,
    },
    /// No member of the cluster answered in time, or none could. Worth trying again.
    #[error("etcd cannot {action}: no member answered within {after:?}; {member}: {why}")]
    Unavailable {
        /// What was tried.
        action: &'static str,
        /// For how long.
        after: Duration,
        /// The member that said something last.
        member: String,
        /// What it said.
        why: String,
    },
    /// The cluster refused. Trying again is of no use before something is changed.
    #[error("etcd at {member} refuses to {action}: {why}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The member.
        member: String,
        /// What it said.
        why: String,
    },
    /// The system gives no random bytes.
    #[error("no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}
