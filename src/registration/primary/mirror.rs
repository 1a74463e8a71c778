//! The records as this process last read them, for everybody who only looks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::{Primary, PrimaryError, RECORDS, parse, record::PairingRecord};
use crate::registration::store::Store;

/// How long to wait after the store failed.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The records, by the pairings' names.
pub(super) struct Mirror {
    records: Mutex<BTreeMap<String, (u64, Arc<PairingRecord>)>>,
    changes: watch::Sender<u64>,
}

impl Mirror {
    pub fn new() -> Self {
        Self {
            records: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// Told after every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub fn get(&self, pairing: &str) -> Arc<PairingRecord> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let found = records.get(pairing);
        found.map_or_else(Arc::default, |(_, record)| Arc::clone(record))
    }

    /// Takes in a record of a revision, if it is the newest.
    pub fn put(&self, pairing: &str, revision: u64, record: PairingRecord) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let known = records.get(pairing).map_or(0, |(known, _)| *known);
        if revision > known {
            records.insert(pairing.to_owned(), (revision, Arc::new(record)));
            drop(records);
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    /// Reads what is newer in the store.
    pub async fn refresh(&self, store: &Store) -> Result<(), PrimaryError> {
        for (key, found) in store.scan(RECORDS).await? {
            let Some(pairing) = key.strip_prefix(RECORDS) else {
                continue;
            };
            let known = {
                let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
                records.get(pairing).map_or(0, |(known, _)| *known)
            };
            if found.revision > known {
                self.put(pairing, found.revision, parse(&key, &found.value)?);
            }
        }
        Ok(())
    }
}

/// Follows the store.
pub(super) async fn follow(primary: Arc<Primary>) {
    let mut changes = primary.store.changes();
    loop {
        if let Err(error) = primary.mirror.refresh(&primary.store).await {
            tracing::error!("the store cannot be read: {error}");
            tokio::time::sleep(AGAIN_AFTER).await;
            continue;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
