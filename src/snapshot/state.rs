//! The state file of static pairings: generations that must outlive the process (protocol section 4, *Static pairings*).
//!
//! A key belongs to a generation, and a restarted appliance no longer knows which numbers it used under its keys. So before it sends
//! anything it raises its own generations here, and the raise is on the disk before [`State::raise`] returns. What breaks if that is
//! lost: the same key meets the same PRSEQ again, which breaks the AEAD. Hence nothing in this module ever starts over by itself: a
//! file that cannot be read stops the start.
//!
//! Records are named by the fingerprint of the pairing's PRK, not by the pairing's name: keys depend on secrets, so a pairing that is
//! renamed, or given an earlier secret again, must not begin at its first generation.
//!
//! All own generations of a record rise together, by one *start* at a time, so "the peer still uses the generation of two starts ago" is
//! one number whatever entry it talks to.
//!
//! Writes are atomic: a temporary file beside the real one, synced, renamed over it, and the folder synced. A lock file keeps a second
//! process away.

mod disk;
mod error;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::ledger::Ledger;
use crate::config::Prefix;
use disk::Disk;
pub use error::StateError;

/// The only format there is.
const FORMAT: u32 = 1;

/// Names a pairing's secrets without telling them: 16 bytes of `PairingPrk::fingerprint`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for Fingerprint {
    type Err = hex::FromHexError;

    fn from_str(digits: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(digits, &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// Which list of a pairing an entry stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The client list.
    Client,
    /// The server list.
    Server,
}

/// An entry, by its list and prefix. In the file: `client 2001:db8:1::/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey {
    /// The list.
    pub role: Role,
    /// The prefix.
    pub prefix: Prefix,
}

impl fmt::Display for EntryKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Client => "client",
            Role::Server => "server",
        };
        write!(out, "{role} {}", self.prefix)
    }
}

/// A text that names no entry.
#[derive(Debug, thiserror::Error)]
#[error("expected `client` or `server` and an IPv6 prefix, found `{found}`")]
pub struct NotAnEntry {
    found: String,
}

impl FromStr for EntryKey {
    type Err = NotAnEntry;

    fn from_str(text: &str) -> Result<Self, NotAnEntry> {
        let wrong = || NotAnEntry {
            found: text.to_owned(),
        };
        let (role, prefix) = text.split_once(' ').ok_or_else(wrong)?;
        let role = match role {
            "client" => Role::Client,
            "server" => Role::Server,
            _ => return Err(wrong()),
        };
        let prefix = prefix.parse().map_err(|_| wrong())?;
        Ok(Self { role, prefix })
    }
}

/// Serde of a map key through its text.
macro_rules! as_text {
    ($($name:ident),+) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}
as_text!(Fingerprint, EntryKey);

/// What is remembered of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remembered {
    /// The generation under which this appliance sends for hosts of the entry, if it serves them.
    pub own: u32,
    /// The newest generation heard from the entry's own appliance, if any was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<u32>,
    /// The newest start of this appliance that the entry's own appliance is known to have heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_start: Option<u32>,
}

/// What is remembered under one fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The pairing's name when it was last raised, for people.
    pub name: String,
    /// How often the own generations were raised.
    pub start: u32,
    /// Whether something may have been sent since.
    pub used: bool,
    /// Per entry.
    pub entries: BTreeMap<EntryKey, Remembered>,
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    format: u32,
    pairings: BTreeMap<Fingerprint, Record>,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            format: FORMAT,
            pairings: BTreeMap::new(),
        }
    }
}

/// A pairing whose own generations are to be raised.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The pairing's name.
    pub name: String,
    /// Its secrets.
    pub fingerprint: Fingerprint,
    /// Its entries, each with its configured generation.
    pub entries: Vec<(EntryKey, u32)>,
}

/// What was heard from the appliance of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lesson {
    /// The secrets under which it was heard.
    pub fingerprint: Fingerprint,
    /// The entry.
    pub entry: EntryKey,
    /// Its newest generation, if any was heard.
    pub peer: Option<u32>,
    /// The newest start of ours that it has heard of, if that is known.
    pub heard_start: Option<u32>,
}

/// The state of all static pairings, and the file that keeps it. And, for the life of the process only, that of the registered ones.
#[derive(Debug)]
pub struct State {
    contents: Contents,
    disk: Option<Disk>,
    pub(super) ledger: Ledger,
}

/// Gives entries that hold each other, servers among them, one own generation, the highest of theirs, once one of them has come or gone.
///
/// Servers of one group have the same secrets (protocol section 3), and a secret of a client and a group does not say which end is the
/// client. So a flow of a host may keep its secret when lists change and the host is in the other entry, also as the other end. Its
/// generation must not be one that the flow has had in the entry before.
fn level(entries: &mut BTreeMap<EntryKey, Remembered>, stays: impl Fn(&EntryKey) -> bool) {
    let mut entries: Vec<_> = entries.iter_mut().collect();
    // Ascending by first address, so whatever a prefix holds follows it.
    entries.sort_by_key(|(entry, _)| entry.prefix);
    let mut rest = entries.as_mut_slice();
    while let Some((widest, _)) = rest.first() {
        let last = widest.prefix.last();
        let held = rest.partition_point(|(entry, _)| entry.prefix.first() <= last);
        let (together, others) = rest.split_at_mut(held.max(1));
        rest = others;
        // Clients alone have a secret an entry.
        let only_clients = together.iter().all(|(e, _)| e.role == Role::Client);
        if only_clients || together.iter().all(|(entry, _)| stays(entry)) {
            continue;
        }
        let highest = together.iter().map(|(_, remembered)| remembered.own).max();
        for (_, remembered) in together {
            remembered.own = remembered.own.max(highest.unwrap_or(0));
        }
    }
}

impl State {
    /// Opens the file, which is made on the first raise if there is none, and keeps other processes away from it.
    ///
    /// # Errors
    /// [`StateError`]; nothing is ever thrown away to get past one.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let disk = Disk::lock(path)?;
        let contents = match disk.read()? {
            Some(bytes) => Self::parse(&bytes).map_err(|why| StateError::Corrupt {
                path: path.to_owned(),
                why,
            })?,
            None => Contents::default(),
        };
        Ok(Self {
            contents,
            disk: Some(disk),
            ledger: Ledger::default(),
        })
    }

    /// A state that no file keeps, for reading captures and for tests. Nothing may be sent to a network under it.
    #[must_use]
    pub fn in_memory() -> Self {
        Self {
            contents: Contents::default(),
            disk: None,
            ledger: Ledger::default(),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Contents, String> {
        let contents: Contents =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if contents.format != FORMAT {
            return Err(format!(
                "expected format {FORMAT}, found format {}",
                contents.format
            ));
        }
        Ok(contents)
    }

    /// What is remembered under a fingerprint.
    #[must_use]
    pub fn record(&self, fingerprint: &Fingerprint) -> Option<&Record> {
        self.contents.pairings.get(fingerprint)
    }

    /// Gives each claimed pairing own generations that were never used under its secrets: the configured ones the first time, later
    /// each one more than before, or the configured one if that is higher; entries that hold each other, servers among them, have the same
    /// once their list has changed. When this returns, they are on the disk.
    ///
    /// # Errors
    /// [`StateError`]; then nothing has changed, and nothing may be sent under a raised generation.
    pub fn raise(&mut self, claims: &[Claim]) -> Result<(), StateError> {
        self.change(|contents| {
            for claim in claims {
                let is_new = !contents.pairings.contains_key(&claim.fingerprint);
                let record = contents
                    .pairings
                    .entry(claim.fingerprint)
                    .and_modify(|record| {
                        record.start = record.start.saturating_add(u32::from(record.used));
                    })
                    .or_insert_with(|| Record {
                        name: String::new(),
                        start: 0,
                        used: false,
                        entries: BTreeMap::new(),
                    });
                let step = u32::from(record.used);
                // Entries that are no longer listed rise too: they may come back.
                for (entry, remembered) in &mut record.entries {
                    remembered.own = remembered.own.checked_add(step).ok_or_else(|| {
                        StateError::GenerationsExhausted {
                            pairing: claim.name.clone(),
                            entry: *entry,
                        }
                    })?;
                }
                let mut came = BTreeSet::new();
                for (entry, configured) in &claim.entries {
                    if !is_new && !record.entries.contains_key(entry) {
                        came.insert(*entry);
                    }
                    let remembered = record.entries.entry(*entry).or_insert(Remembered {
                        own: *configured,
                        peer: None,
                        heard_start: None,
                    });
                    remembered.own = remembered.own.max(*configured);
                }
                let listed: BTreeSet<EntryKey> = claim.entries.iter().map(|e| e.0).collect();
                let stays = |entry: &EntryKey| listed.contains(entry) && !came.contains(entry);
                level(&mut record.entries, stays);
                record.name.clone_from(&claim.name);
                record.used = true;
            }
            Ok(())
        })
        .map(|_| ())
    }

    /// Remembers what was heard, if it is news; numbers only ever go up. Whether anything was.
    ///
    /// # Errors
    /// [`StateError`]; then nothing has changed.
    pub fn learn(&mut self, lessons: &[Lesson]) -> Result<bool, StateError> {
        self.change(|contents| {
            for lesson in lessons {
                let remembered = contents
                    .pairings
                    .get_mut(&lesson.fingerprint)
                    .and_then(|record| record.entries.get_mut(&lesson.entry));
                if let Some(remembered) = remembered {
                    remembered.peer = remembered.peer.max(lesson.peer);
                    remembered.heard_start = remembered.heard_start.max(lesson.heard_start);
                }
            }
            Ok(())
        })
    }

    /// Notes that nothing was sealed or opened under these secrets since their last raise, so that the next start may use the same generations. To
    /// be called when the workers have stopped for good, only for pairings of which that is certain.
    ///
    /// # Errors
    /// [`StateError`]; then nothing has changed, which only costs a generation.
    pub fn mark_unused(&mut self, unused: &[Fingerprint]) -> Result<(), StateError> {
        self.change(|contents| {
            for fingerprint in unused {
                if let Some(record) = contents.pairings.get_mut(fingerprint) {
                    record.used = false;
                }
            }
            Ok(())
        })
        .map(|_| ())
    }

    /// Changes the contents and writes them, both or neither; whether there was a change.
    fn change(
        &mut self,
        edit: impl FnOnce(&mut Contents) -> Result<(), StateError>,
    ) -> Result<bool, StateError> {
        let mut contents = self.contents.clone();
        edit(&mut contents)?;
        if contents == self.contents {
            return Ok(false);
        }
        if let Some(disk) = &self.disk {
            let mut bytes = serde_json::to_vec_pretty(&contents)
                .map_err(|why| disk.failed("write", why.into()))?;
            bytes.push(b'\n');
            disk.write(&bytes)?;
        }
        self.contents = contents;
        Ok(true)
    }
}
