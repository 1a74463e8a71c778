//! The keylog: lines of JSON from which `pdmgate decode --keylog` opens captures afterwards.
//!
//! A line is a master secret with both lists as they stood then. It is written for each new secret before anybody can seal under it, and
//! again for each secret in use when a list has changed, at most once a second.
//!
//! Whoever reads it reads all metrics of these pairings, and can forge them while the secret is in use. It is off unless configured.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Primary, codec, now, pairing::Pairing, record::PairingRecord, serialize};
use crate::{
    config::{Mode, Protection},
    crypto::{Aead, Kem, PairingPrk, Suite},
    registration::message::{Analysis, AnalysisMaster},
    snapshot::{Fingerprint, grant::Listed},
};

/// How long changes of the lists are collected before they are written.
const TOGETHER: Duration = Duration::from_secs(1);

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

/// Why a keylog cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read the keylog {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line is none of a keylog.
    #[error("the keylog {} is broken in line {number}: {fault}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        number: usize,
        /// What is wrong with it.
        fault: String,
    },
    /// There is no line.
    #[error("expected master secrets in the keylog {}, found none", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// A line: a master secret and the lists that go with it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// When it was written, in Unix seconds.
    pub time: u64,
    /// The pairing's name, as this Primary calls it.
    pub pairing: String,
    /// When the secret was agreed on, in Unix seconds.
    pub since: u64,
    /// The mode that the Primary Server named with it.
    #[serde(with = "codec::mode")]
    pub mode: Mode,
    /// The protection that the Primary Server named with it.
    #[serde(with = "codec::protection")]
    pub protection: Protection,
    /// The KEM's number (IANA, HPKE).
    pub kem: u16,
    /// The AEAD's number (IANA, HPKE).
    pub aead: u16,
    /// The secret, in hexadecimal digits.
    #[serde(with = "codec::prk")]
    pub prk: Arc<PairingPrk>,
    /// The client list.
    #[serde(with = "codec::lists")]
    pub clients: Vec<Listed>,
    /// The server list.
    #[serde(with = "codec::lists")]
    pub servers: Vec<Listed>,
}

impl Line {
    /// The same as an analyzer would be given it; `None` for a suite that is not known here.
    #[must_use]
    pub fn into_analysis(self) -> Option<Analysis> {
        let suite = Suite {
            kem: Kem::try_from(self.kem).ok()?,
            aead: Aead::try_from(self.aead).ok()?,
        };
        let prk = PairingPrk::from_bytes(*self.prk.expose());
        Some(Analysis {
            pairing: self.pairing,
            mode: self.mode,
            protection: self.protection,
            clients: self.clients,
            servers: self.servers,
            masters: vec![AnalysisMaster { suite, prk }],
        })
    }
}

/// What the newest lines of a pairing say.
#[derive(PartialEq)]
struct Told {
    masters: Vec<Fingerprint>,
    clients: Vec<Listed>,
    servers: Vec<Listed>,
}

struct Written {
    file: File,
    /// Whether the file may end in the middle of a line, so that the next one must not follow at once.
    torn: bool,
    told: HashMap<String, Told>,
}

pub(super) struct Keylog {
    path: PathBuf,
    written: Mutex<Written>,
}

impl Keylog {
    pub fn open(path: &Path) -> Result<Self, KeylogError> {
        let failed = |source| KeylogError::Io {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        let mode = about.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeylogError::Open {
                path: path.to_owned(),
                mode,
            });
        }
        let mut last = *b"\n";
        if let Some(at) = about.len().checked_sub(1) {
            file.read_exact_at(&mut last, at).map_err(failed)?;
        }
        tracing::warn!(
            "KEYLOG IS ON: every master secret is written to {}, and whoever reads that file reads and forges all metrics",
            path.display()
        );
        Ok(Self {
            path: path.to_owned(),
            written: Mutex::new(Written {
                file,
                torn: last != *b"\n",
                told: HashMap::new(),
            }),
        })
    }

    /// Writes what is new in a pairing's record.
    pub fn note(&self, pairing: &Pairing, record: &PairingRecord) {
        let (clients, servers) = record.lists(pairing.role);
        let told = Told {
            masters: record.masters.iter().map(|master| master.id).collect(),
            clients,
            servers,
        };
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.told.get(&pairing.name) == Some(&told) {
            return;
        }
        // The oldest first.
        for master in record.masters.iter().rev() {
            let mut line = serialize(&Line {
                time: now(),
                pairing: pairing.name.clone(),
                since: master.since,
                mode: master.mode,
                protection: master.protection,
                kem: master.suite.kem.id(),
                aead: master.suite.aead.id(),
                prk: Arc::clone(&master.prk),
                clients: told.clients.clone(),
                servers: told.servers.clone(),
            });
            line.push(b'\n');
            let Written { file, torn, .. } = &mut *written;
            let before: &[u8] = if *torn { b"\n" } else { b"" };
            let done = file.write_all(before).and_then(|()| file.write_all(&line));
            *torn = done.is_err();
            if let Err(error) = done {
                tracing::error!("cannot write the keylog {}: {error}", self.path.display());
                return;
            }
        }
        written.told.insert(pairing.name.clone(), told);
    }
}

impl Primary {
    /// Writes what is new to the keylog, if there is one.
    pub(super) fn log_keys(&self) {
        if let Some(keylog) = &self.keylog {
            for pairing in &self.pairings {
                keylog.note(pairing, &self.record(pairing));
            }
        }
    }
}

/// Keeps the keylog up to the records, whoever changed them.
pub(super) async fn follow(primary: Arc<Primary>) {
    let mut changes = primary.mirror.changes();
    loop {
        primary.log_keys();
        if changes.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(TOGETHER).await;
    }
}

/// Reads a keylog. Warns if others can read it, and of each line that is broken, which is left out: a disk that was full, power that
/// went, or a copy made meanwhile leaves a line in part.
///
/// # Errors
/// [`ReadError`]; its `Line` names the first line if all are broken.
pub fn read(path: &Path) -> Result<Vec<Line>, ReadError> {
    let text = read_bytes(path).map_err(|source| ReadError::Io {
        path: path.to_owned(),
        source,
    })?;
    let (mut lines, mut broken) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<Line>(line) {
            Ok(line) => lines.push(line),
            Err(error) => {
                let text = error.to_string();
                let fault = text.rfind(" at line ").map_or(&*text, |end| &text[..end]);
                broken.push(ReadError::Line {
                    path: path.to_owned(),
                    number,
                    fault: format!("{fault} (column {})", error.column()),
                });
            }
        }
    }
    if lines.is_empty() {
        let empty = || ReadError::Empty {
            path: path.to_owned(),
        };
        return Err(broken.into_iter().next().unwrap_or_else(empty));
    }
    for error in &broken {
        tracing::warn!("{error}: the line is left out");
    }
    Ok(lines)
}

/// A file's bytes; no copy of them is left anywhere. It may be a pipe.
fn read_bytes(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut file = File::open(path)?;
    let about = file.metadata()?;
    let mode = about.mode() & 0o7777;
    if about.is_file() && mode & 0o077 != 0 {
        tracing::warn!(
            "the keylog {} has mode {mode:04o}, so others can read it: chmod 0600",
            path.display()
        );
    }
    let mut bytes = Zeroizing::new(vec![
        0;
        usize::try_from(about.len()).unwrap_or(0).max(4_096)
    ]);
    let mut filled = 0;
    loop {
        if filled == bytes.len() {
            let mut larger = Zeroizing::new(vec![0; 2 * filled]);
            larger[..filled].copy_from_slice(&bytes);
            bytes = larger;
        }
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
