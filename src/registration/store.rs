//! Where a Primary keeps its documents: in a file of its own, or in an etcd cluster that its replicas share.
//!
//! A document is a few KB of bytes behind a key, and holds secrets. It changes by compare and swap alone, so replicas and tasks need no
//! other lock: who read an old revision cannot overwrite what has been written since.
//!
//! One replica *leads*: it renews keys and speaks with other Primaries. Leadership keeps two from doing the same work. It does not
//! protect the documents, the compare and swap does: a process that was stopped for long may believe to lead for the moment it takes its
//! clock to be read again.

mod embedded;
mod error;
mod etcd;

use std::{path::PathBuf, time::Duration};

use tokio::sync::watch;
use zeroize::Zeroizing;

use embedded::Embedded;
use etcd::Etcd;

pub use error::StoreError;

/// The longest document that may be kept, in bytes. etcd takes 1.5 MiB at once unless it is told otherwise.
pub const MAX_DOCUMENT: usize = 1 << 20;

/// Where the documents are.
#[derive(Clone)]
pub enum StoreConfig {
    /// A file that one process uses.
    Embedded {
        /// The file, which is made if it does not exist. Its folder must be there.
        path: PathBuf,
    },
    /// An etcd cluster.
    Etcd(EtcdConfig),
}

/// How to reach an etcd cluster.
#[derive(Clone)]
pub struct EtcdConfig {
    /// `http://host:port` or `https://host:port` of its members; one that works is enough.
    pub endpoints: Vec<String>,
    /// What all keys begin with, the same for all replicas of this Primary and for nobody else. A `/` is put behind it.
    pub prefix: String,
    /// Needed for `https`, not allowed for `http`.
    pub tls: Option<EtcdTls>,
    /// Who we are, where etcd's own authentication is used.
    pub user: Option<EtcdUser>,
    /// How long after its last sign of life a replica counts as dead. Whole seconds, at least [`EtcdConfig::MIN_LEASE`].
    pub lease: Duration,
}

/// The certificates of TLS to etcd: PEM files.
#[derive(Clone)]
pub struct EtcdTls {
    /// Who may sign the members' certificates.
    pub authorities: PathBuf,
    /// Our certificate with its chain, and its private key, which nobody but the owner may read; `None` where an account's password is
    /// enough.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl EtcdTls {
    /// Reads and checks the files, as [`Store::open`] does.
    ///
    /// # Errors
    /// [`StoreError::Tls`], [`StoreError::Exposed`] or [`StoreError::Io`].
    pub fn check(&self) -> Result<(), StoreError> {
        etcd::check(self)
    }
}

/// An account of etcd.
#[derive(Clone)]
pub struct EtcdUser {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: Zeroizing<String>,
}

impl EtcdConfig {
    /// etcd gives no shorter lease with its own default settings.
    pub const MIN_LEASE: Duration = Duration::from_secs(2);

    /// What etcd is asked for. It looks for leases that are over twice a second, and whoever waits for one has to be told: so a second less,
    /// that the end of a replica is over and done with within `lease`.
    fn time_to_live(&self) -> Duration {
        self.lease
            .saturating_sub(Duration::from_secs(1))
            .max(Self::MIN_LEASE)
    }

    /// What the operator should be told: secrets cross the network in the clear.
    pub fn warning(&self) -> Option<String> {
        let plain = |endpoint: &&String| endpoint.starts_with("http://");
        self.endpoints.iter().find(plain).map(|endpoint| {
            format!(
                "etcd at {endpoint} is spoken to without TLS: the secrets of all pairings can be read on the way. Use https:// with `tls`"
            )
        })
    }
}

/// A document as it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Versioned {
    /// Its bytes.
    pub value: Zeroizing<Vec<u8>>,
    /// What to give to [`Store::put_if`] to change exactly this. Never 0; a key that is deleted and made again gets one never used before.
    pub revision: u64,
}

/// A replica's value, [`Store::replicas`].
pub type ReplicaValue = (String, Vec<u8>);

/// The documents of a Primary. What was acknowledged is on disk: of this machine, or of most members of the cluster.
///
/// Dropping the future of a call does not undo it.
pub enum Store {
    /// In a file.
    Embedded(Embedded),
    /// In etcd. Ends its tasks and gives its lease back when dropped.
    Etcd(Box<Etcd>),
}

impl Store {
    /// Opens the store; makes the file if there is none.
    ///
    /// # Errors
    ///
    /// If the file cannot be used, is damaged, or another process has it; if no member of the cluster answers.
    pub async fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        Ok(match config {
            StoreConfig::Embedded { path } => Self::Embedded(Embedded::open(path)?),
            StoreConfig::Etcd(config) => Self::Etcd(Box::new(Etcd::open(config).await?)),
        })
    }

    /// The document of `key`; `None` if there is none. Never an older one than any put that had been acknowledged to anybody.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        match self {
            Self::Embedded(store) => store.get(key),
            Self::Etcd(store) => store.get(key).await,
        }
    }

    /// All documents whose keys begin with `prefix` as they stood at one moment, ordered by key.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn scan(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        match self {
            Self::Embedded(store) => store.scan(prefix),
            Self::Etcd(store) => store.scan(prefix).await,
        }
    }

    /// Compare and swap: puts `value` if the key's revision is `expected`, where `None` means that the key must not exist. Its new
    /// revision; `Ok(None)` if somebody else was first.
    ///
    /// # Errors
    ///
    /// If the store cannot be written. The value may have been put nevertheless: read it again.
    pub async fn put_if(
        &self,
        key: &str,
        expected: Option<u64>,
        value: &[u8],
    ) -> Result<Option<u64>, StoreError> {
        if value.len() > MAX_DOCUMENT {
            return Err(StoreError::TooLong {
                key: key.to_owned(),
                length: value.len(),
            });
        }
        match self {
            Self::Embedded(store) => store.put_if(key, expected, value).await,
            Self::Etcd(store) => store.put_if(key, expected, value).await,
        }
    }

    /// Deletes a key if its revision is `expected`. `Ok(false)`: it was changed, or is gone already.
    ///
    /// # Errors
    ///
    /// If the store cannot be written. The key may be gone nevertheless.
    pub async fn delete_if(&self, key: &str, expected: u64) -> Result<bool, StoreError> {
        match self {
            Self::Embedded(store) => store.delete_if(key, expected).await,
            Self::Etcd(store) => store.delete_if(key, expected).await,
        }
    }

    /// A number that rises after every change of any document or replica's value, by this process or another replica. Several changes may
    /// be told as one, and one may be told that was none, so read again what matters.
    pub fn changes(&self) -> watch::Receiver<u64> {
        match self {
            Self::Embedded(store) => store.changes(),
            Self::Etcd(store) => store.changes(),
        }
    }

    /// Whether this replica leads; a file's only user always does.
    ///
    /// It turns false before the lease can have run out, so before another replica can turn true.
    pub fn leads(&self) -> watch::Receiver<bool> {
        match self {
            Self::Embedded(store) => store.leads(),
            Self::Etcd(store) => store.leads(),
        }
    }

    /// This replica's name in [`Self::replicas`]: a new one at each start.
    pub fn replica(&self) -> &str {
        match self {
            Self::Embedded(_) => embedded::REPLICA,
            Self::Etcd(store) => store.replica(),
        }
    }

    /// Keeps a value that is bound to this replica's life: it vanishes with the replica's lease. It holds no secret.
    ///
    /// # Errors
    ///
    /// If it could not be put now. It will be as soon as that is possible, unless the call is repeated with another value first.
    pub async fn put_mine(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => {
                store.put_mine(name, value);
                Ok(())
            }
            Self::Etcd(store) => store.put_mine(name, value).await,
        }
    }

    /// The values of that name of all replicas alive, this one included, ordered by replica.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn replicas(&self, name: &str) -> Result<Vec<ReplicaValue>, StoreError> {
        match self {
            Self::Embedded(store) => Ok(store.replicas(name)),
            Self::Etcd(store) => store.replicas(name).await,
        }
    }

    /// Gives leadership and this replica's values back at once, and waits (some seconds at most) until that is done. The store is of no
    /// use afterwards.
    pub async fn close(&self) {
        if let Self::Etcd(store) = self {
            store.close().await;
        }
    }
}
