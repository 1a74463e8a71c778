//! The keylog: a line of JSON for each master secret, from which `pdmgate decode --keylog` opens captures afterwards.
//!
//! Whoever reads it reads all metrics of these pairings, and can forge them while the secret is in use. It is off unless configured.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    codec::{mode_text, protection_text},
    pairing::Pairing,
    record::MasterRecord,
};

/// Why there is no keylog.
#[derive(Debug, Error)]
pub enum KeylogError {
    /// The file cannot be written.
    #[error("cannot write the keylog {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is there, and others than its owner can read it.
    #[error("the keylog {} has mode {mode:04o}, so others can read it: chmod 0600", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

pub(super) struct Keylog {
    path: PathBuf,
    file: Mutex<File>,
}

impl Keylog {
    pub fn open(path: &Path) -> Result<Self, KeylogError> {
        let failed = |source| KeylogError::Io {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeylogError::Open {
                path: path.to_owned(),
                mode,
            });
        }
        tracing::warn!(
            "KEYLOG IS ON: every master secret is written to {}, and whoever reads that file reads and forges all metrics",
            path.display()
        );
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(file),
        })
    }

    pub fn write(&self, pairing: &Pairing, master: &MasterRecord) {
        let prk = Zeroizing::new(hex::encode(master.prk.expose()));
        // By hand, since nothing here needs escaping: a name is letters, digits, dots, dashes and underscores.
        let line = Zeroizing::new(format!(
            "{{\"pairing\":\"{}\",\"since\":{},\"mode\":\"{}\",\"protection\":\"{}\",\"kem\":{},\"aead\":{},\"prk\":\"{}\"}}\n",
            pairing.name,
            master.since,
            mode_text(master.mode),
            protection_text(master.protection),
            master.suite.kem.id(),
            master.suite.aead.id(),
            *prk,
        ));
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(line.as_bytes()).and_then(|()| file.flush()) {
            tracing::error!("cannot write the keylog {}: {error}", self.path.display());
        }
    }
}
