//! The documents in an etcd cluster that several replicas of a Primary share.
//!
//! Keys, all behind the configured prefix and a `/`:
//!
//! | key | value |
//! |---|---|
//! | `documents/KEY` | 16 random bytes that name the write, then the document |
//! | `replicas/NAME/REPLICA` | a replica's value; bound to its lease |
//! | `leader` | the name of the replica that leads; bound to its lease |
//!
//! A document's revision is etcd's `mod_revision`, and a compare and swap is one transaction. When a member dies in the middle of one, the
//! transaction is tried again at the next member; the name of the write then tells whether it was ourselves who were first.
//!
//! What etcd and gRPC hold of a document on its way is not zeroed: those buffers are not ours.

mod life;
mod members;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use etcd_client::{
    Compare, CompareOp, GetOptions, KeyValue, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpResponse,
};
use tokio::sync::{Mutex, Notify, watch};
use zeroize::Zeroizing;

use super::{EtcdConfig, EtcdTls, ReplicaValue, StoreError, Versioned};
use members::Members;

/// Reads and checks the files.
pub(super) fn check(tls: &EtcdTls) -> Result<(), StoreError> {
    members::certificates(tls).map(drop)
}

/// The bytes that name a write.
const WRITE_LEN: usize = 16;
/// All documents at once may be more than the 4 MiB that gRPC takes by default; a watch may tell of several at once.
const MAX_MESSAGE: usize = 1 << 30;

const PUT_OWN: &str = "put a replica's value";

/// A store in etcd.
pub struct Etcd {
    shared: Arc<Shared>,
    leads: watch::Receiver<bool>,
    /// True, or gone: the task is to end.
    stop: watch::Sender<bool>,
}

/// What the store and its task have in common.
struct Shared {
    members: Members,
    prefix: String,
    replica: String,
    changes: watch::Sender<u64>,
    /// The lease in use, 0 if there is none.
    lease: AtomicI64,
    mine: Mutex<Mine>,
    /// Something happened to the leader's key.
    election: Notify,
}

/// This replica's values.
#[derive(Default)]
struct Mine {
    values: BTreeMap<String, Vec<u8>>,
    /// The lease under which all of them were put; another one if some are still to be put.
    lease: i64,
}

impl Etcd {
    /// Gets a lease, and starts the task that keeps it, stands for election and watches.
    pub(super) async fn open(config: &EtcdConfig) -> Result<Self, StoreError> {
        let members = Members::new(config)?;
        let ttl = config.time_to_live().as_secs().cast_signed();
        let shared = Arc::new(Shared {
            members,
            prefix: format!("{}/", config.prefix.trim_end_matches('/')),
            replica: hex::encode(random()?),
            changes: watch::Sender::new(0),
            lease: AtomicI64::new(0),
            mine: Mutex::default(),
            election: Notify::new(),
        });
        let granted = life::grant(&shared, ttl).await?;
        let (stop, stopped) = watch::channel(false);
        let (leading, leads) = watch::channel(false);
        tokio::spawn(life::run(shared.clone(), ttl, granted, leading, stopped));
        Ok(Self {
            shared,
            leads,
            stop,
        })
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let key = self.shared.document(key);
        let found = self.shared.range("read a document", key, None).await?;
        let found = found.into_iter().next();
        Ok(found
            .map(|found| self.shared.versioned(found))
            .transpose()?
            .map(|(_, found)| found))
    }

    pub(super) async fn scan(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError> {
        let options = GetOptions::new()
            .with_prefix()
            .with_sort(SortTarget::Key, SortOrder::Ascend);
        let prefix = self.shared.document(prefix);
        let found = self
            .shared
            .range("read documents", prefix, Some(options))
            .await?;
        found
            .into_iter()
            .map(|found| self.shared.versioned(found))
            .collect()
    }

    pub(super) async fn put_if(
        &self,
        key: &str,
        expected: Option<u64>,
        value: &[u8],
    ) -> Result<Option<u64>, StoreError> {
        let Some(expected) = comparable(expected) else {
            return Ok(None);
        };
        let key = self.shared.document(key);
        let write = random()?;
        // The exact size, so that it never moves.
        let mut stored = Zeroizing::new(Vec::with_capacity(WRITE_LEN + value.len()));
        stored.extend_from_slice(&write);
        stored.extend_from_slice(value);
        let response = self
            .shared
            .members
            .call("write a document", |client| {
                let put = TxnOp::put(key.as_str(), stored.as_slice(), None);
                let get = TxnOp::get(key.as_str(), None);
                let same = Compare::mod_revision(key.as_str(), CompareOp::Equal, expected);
                let txn = Txn::new().when([same]).and_then([put]).or_else([get]);
                async move { large(client.kv_client()).txn(txn).await }
            })
            .await?;
        if response.succeeded() {
            let revision = response.header().map(|header| header.revision());
            return Ok(revision.map(i64::cast_unsigned));
        }
        // An earlier attempt whose answer was lost may have put it.
        let ours = |found: &KeyValue| found.value().starts_with(&write);
        Ok(only_found(response.op_responses())
            .filter(ours)
            .map(|found| found.mod_revision().cast_unsigned()))
    }

    pub(super) async fn delete_if(&self, key: &str, expected: u64) -> Result<bool, StoreError> {
        let Some(expected) = comparable(Some(expected)) else {
            return Ok(false);
        };
        let key = self.shared.document(key);
        let response = self
            .shared
            .members
            .call("delete a document", |client| {
                let same = Compare::mod_revision(key.as_str(), CompareOp::Equal, expected);
                let delete = TxnOp::delete(key.as_str(), None);
                let txn = Txn::new().when([same]).and_then([delete]);
                async move { client.kv_client().txn(txn).await }
            })
            .await?;
        Ok(response.succeeded())
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    pub(super) fn leads(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }

    pub(super) fn replica(&self) -> &str {
        &self.shared.replica
    }

    pub(super) async fn put_mine(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        // Held until it is put, so that an older value never comes after a newer one.
        let mut mine = self.shared.mine.lock().await;
        mine.values.insert(name.to_owned(), value.to_owned());
        let whole = mine.lease;
        // Whatever becomes of this call, the task puts it if it is not said below that it was put.
        mine.lease = 0;
        let lease = self.shared.lease.load(Ordering::Relaxed);
        if !self.shared.put_own(name, value, lease).await? {
            return Err(self.shared.members.no_lease(PUT_OWN));
        }
        mine.lease = whole;
        Ok(())
    }

    pub(super) async fn replicas(&self, name: &str) -> Result<Vec<ReplicaValue>, StoreError> {
        let folder = self.shared.own(name, "");
        let options = GetOptions::new()
            .with_prefix()
            .with_sort(SortTarget::Key, SortOrder::Ascend);
        let found = self
            .shared
            .range("read the replicas", folder.clone(), Some(options))
            .await?;
        let mut values = Vec::with_capacity(found.len());
        for found in found {
            let (key, value) = found.into_key_value();
            let replica = key.strip_prefix(folder.as_bytes()).unwrap_or_default();
            // A name may go on behind a slash: `name/more/REPLICA`.
            if let Ok(replica) = str::from_utf8(replica)
                && !replica.contains('/')
            {
                values.push((replica.to_owned(), value));
            }
        }
        Ok(values)
    }

    pub(super) async fn close(&self) {
        self.stop.send_replace(true);
        // The task holds the sender for as long as it lives.
        let mut leads = self.leads.clone();
        while leads.changed().await.is_ok() {}
    }
}

impl Shared {
    fn document(&self, key: &str) -> String {
        format!("{}documents/{key}", self.prefix)
    }

    fn own(&self, name: &str, replica: &str) -> String {
        format!("{}replicas/{name}/{replica}", self.prefix)
    }

    fn leader(&self) -> String {
        format!("{}leader", self.prefix)
    }

    fn signal(&self) {
        self.changes.send_modify(|number| *number += 1);
    }

    async fn range(
        &self,
        action: &'static str,
        key: String,
        options: Option<GetOptions>,
    ) -> Result<Vec<KeyValue>, StoreError> {
        let mut response = self
            .members
            .call(action, |client| {
                let (key, options) = (key.clone(), options.clone());
                async move { large(client.kv_client()).get(key, options).await }
            })
            .await?;
        Ok(response.take_kvs())
    }

    /// Takes a document apart. Its buffer is zeroed.
    fn versioned(&self, found: KeyValue) -> Result<(String, Versioned), StoreError> {
        let revision = found.mod_revision().cast_unsigned();
        let (key, stored) = found.into_key_value();
        let stored = Zeroizing::new(stored);
        let folder = self.document("");
        let key = key.strip_prefix(folder.as_bytes()).unwrap_or(&key);
        let key = String::from_utf8_lossy(key).into_owned();
        let Some(value) = stored.get(WRITE_LEN..) else {
            return Err(StoreError::Foreign {
                key,
                length: stored.len(),
                expected: WRITE_LEN,
            });
        };
        let value = Zeroizing::new(value.to_vec());
        Ok((key, Versioned { value, revision }))
    }

    /// Puts a value of this replica. False if there is no such lease (any more).
    async fn put_own(&self, name: &str, value: &[u8], lease: i64) -> Result<bool, StoreError> {
        if lease == 0 {
            return Ok(false);
        }
        let key = self.own(name, &self.replica);
        self.members
            .call(PUT_OWN, |client| {
                let options = PutOptions::new().with_lease(lease);
                let put = (key.clone(), value.to_owned(), Some(options));
                async move {
                    let done = client.kv_client().put(put.0, put.1, put.2).await;
                    members::unless_gone(done)
                }
            })
            .await
            .map(|done| done.is_some())
    }
}

/// `mod_revision` of an expected document: 0 for none. `None` if no document can have that revision.
fn comparable(expected: Option<u64>) -> Option<i64> {
    match expected {
        None => Some(0),
        Some(expected) => i64::try_from(expected)
            .ok()
            .filter(|expected| *expected > 0),
    }
}

fn random() -> Result<[u8; WRITE_LEN], StoreError> {
    let mut bytes = [0; WRITE_LEN];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// What the only get of a transaction found.
fn only_found(responses: Vec<TxnOpResponse>) -> Option<KeyValue> {
    responses.into_iter().find_map(|response| match response {
        TxnOpResponse::Get(mut found) => found.take_kvs().into_iter().next(),
        _ => None,
    })
}

fn large(client: etcd_client::KvClient) -> etcd_client::KvClient {
    client.max_decoding_message_size(MAX_MESSAGE)
}
