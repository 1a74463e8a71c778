//! The Primary (protocol sections 4 and 5): agrees with peers on secrets, and hands Secondaries what their mode gives them.
//!
//! ```text
//! record      what is kept of a pairing, and the steps it goes through     share       what a Secondary is given of it
//! mirror      the records as this process last read them                   steward     takes steps when they are due
//! listen      accepts connections, and keeps half-open ones in bounds      peer        a connection between two Primaries
//! secondary   a connection of a Secondary                                  analyzer    a connection of an analyzer
//! operate     operators' commands, over a local socket                     keylog      what `pdmgate decode` needs afterwards
//! registrations, metrics   what operators and Prometheus are told
//! ```
//!
//! Everything that must outlive the process is in the store; every connection works on it by `Primary::update`, so connections and
//! replicas need nothing of each other.

mod analyzer;
mod barrier;
mod codec;
mod counters;
pub mod keylog;
mod listen;
mod metrics;
mod mirror;
mod negotiate;
mod operate;
mod pairing;
mod peer;
pub mod record;
pub mod registrations;
mod secondary;
mod share;
mod steward;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde::Serialize;
use serde_json::{from_slice, to_writer};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
};
use zeroize::Zeroizing;

use super::{
    certificate::Certificate,
    frame::{Reader, Writer},
    message::Message,
    store::{EtcdConfig, Store, StoreConfig, StoreError},
    tls::TlsError,
};
use crate::{config, snapshot::Role};
use barrier::Barrier;
use counters::Counters;
pub(super) use listen::until;
use mirror::Mirror;
use pairing::Pairing;
use record::{FORMAT, PairingRecord};

/// How a record's key in the store begins.
const RECORDS: &str = "pairing/";

/// Why a Primary does not run.
#[derive(Debug, Error)]
pub enum PrimaryError {
    /// Certificate, key or authorities cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record in the store cannot be read.
    #[error(
        "the store's record `{key}` cannot be read ({why}): it is of another version of pdmgate, or damaged"
    )]
    Record {
        /// Its key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// An address cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The operators' socket cannot be had.
    #[error(transparent)]
    Socket(#[from] crate::telemetry::socket::ClaimError),
    /// The keylog cannot be written.
    #[error(transparent)]
    Keylog(#[from] keylog::KeylogError),
    /// The runtime does not start.
    #[error("cannot start the registration thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// A running Primary.
pub struct Primary {
    certificate: Certificate,
    store: Store,
    pairings: Vec<Pairing>,
    secondaries: HashMap<String, Vec<config::Prefix>>,
    forget_after: u64,
    mirror: Mirror,
    barrier: Barrier,
    counters: Counters,
    keylog: Option<keylog::Keylog>,
    /// Names connections.
    connections: AtomicU64,
    /// Those of all listeners, since they use up the same descriptors.
    half_open: listen::HalfOpen,
    /// Open connections by the names in the other end's certificate.
    seats: listen::Seats,
}

/// What a Primary opens before it runs.
struct Doors {
    listeners: Vec<TcpListener>,
    metrics: Option<TcpListener>,
    operators: Option<operate::Socket>,
}

/// A Primary that is open, and does not run yet.
pub struct Opened {
    /// The Primary.
    pub primary: Arc<Primary>,
    doors: Doors,
}

impl Primary {
    /// Whether [`open`](Self::open) would take the certificates and keys. Files that cannot be read may not be made yet, and are
    /// no error.
    ///
    /// # Errors
    /// [`PrimaryError::Tls`] and [`PrimaryError::Store`].
    pub fn check(config: &config::Primary) -> Result<(), PrimaryError> {
        Certificate::check(&config.tls())?;
        if let StoreConfig::Etcd(EtcdConfig { tls: Some(tls), .. }) = pairing::store(config) {
            match tls.check() {
                Ok(()) | Err(StoreError::Tls(TlsError::Read { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Opens store, certificates and sockets. `prometheus` is for a Primary alone: an appliance tells by its own endpoint.
    ///
    /// # Errors
    /// [`PrimaryError`].
    pub async fn open(
        config: &config::Primary,
        prometheus: Option<SocketAddr>,
    ) -> Result<Opened, PrimaryError> {
        let certificate = Certificate::load(&config.tls())?;
        let store_config = pairing::store(config);
        if let StoreConfig::Etcd(etcd) = &store_config
            && let Some(warning) = etcd.warning()
        {
            tracing::warn!("{warning}");
        }
        let store = Store::open(&store_config).await?;
        let pairings: Vec<Pairing> = config.pairings.iter().map(Pairing::new).collect();
        let keylog = config.keylog.as_deref().map(keylog::Keylog::open);
        let primary = Arc::new(Self {
            certificate,
            mirror: Mirror::new(),
            barrier: Barrier::new(pairings.len()),
            counters: Counters::default(),
            secondaries: pairing::secondaries(config),
            forget_after: config.forget_after.get().as_secs(),
            pairings,
            store,
            keylog: keylog.transpose()?,
            half_open: listen::HalfOpen::default(),
            seats: listen::Seats::default(),
            connections: AtomicU64::new(0),
        });
        primary.configure().await?;
        primary.mirror.refresh(&primary.store).await?;
        let mut listeners = Vec::new();
        for address in config.listen.iter() {
            listeners.push(listen::bind(address.get())?);
            tracing::info!(address = %address.get(), "registration listens");
        }
        let metrics = match prometheus {
            Some(address) => Some(listen::bind(address)?),
            None => None,
        };
        let operators = operate::Socket::bind(config.socket.as_deref())?;
        Ok(Opened {
            primary,
            doors: Doors {
                listeners,
                metrics,
                operators,
            },
        })
    }
}

impl Opened {
    /// Runs until `stop` turns true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let Self { primary, doors } = self;
        let mut tasks = JoinSet::new();
        for listener in doors.listeners {
            tasks.spawn(listen::serve(Arc::clone(&primary), listener));
        }
        tasks.spawn(mirror::follow(Arc::clone(&primary)));
        tasks.spawn(listen::watch_certificate(Arc::clone(&primary)));
        for at in 0..primary.pairings.len() {
            tasks.spawn(steward::keep(Arc::clone(&primary), at));
            tasks.spawn(peer::connect(Arc::clone(&primary), at));
        }
        if let Some(listener) = doors.metrics {
            tasks.spawn(metrics::serve(Arc::clone(&primary), listener));
        }
        if primary.keylog.is_some() {
            tasks.spawn(keylog::follow(Arc::clone(&primary)));
        }
        if let Some(operators) = doors.operators {
            tasks.spawn(operators.serve(Arc::clone(&primary)));
        }
        // An error means that the other end is gone, which ends this too.
        let _ = stop.wait_for(|stop| *stop).await;
        tasks.shutdown().await;
        primary.leave().await;
        primary.log_keys();
        primary.store.close().await;
    }
}

impl Primary {
    /// The numbers as they stand, in Prometheus' text format.
    #[must_use]
    pub fn metrics(&self) -> String {
        metrics::render(self)
    }

    /// Serves the Secondary of the same process over `stream`, which nobody else can reach.
    pub fn embed(
        self: &Arc<Self>,
        name: String,
        stream: impl AsyncRead + AsyncWrite + Send + Sync + 'static,
    ) {
        let primary = Arc::clone(self);
        tokio::spawn(async move {
            let (reader, writer) = tokio::io::split(stream);
            let (mut reader, writer) = (Reader::new(reader), Writer::new(writer));
            if let Ok(first) = reader.next().await
                && let Message::Register(register) = first.message
            {
                let ended = std::future::pending();
                secondary::serve(&primary, &[name], reader, writer, register, ended).await;
            }
        });
    }

    /// Brings the records up to the configuration, and makes those that are not there.
    async fn configure(&self) -> Result<(), PrimaryError> {
        for pairing in &self.pairings {
            self.update(pairing, |record| {
                record.configure(&pairing.entries);
                // An embedded store is this process' alone, and nobody is connected to it yet.
                if matches!(self.store, Store::Embedded(_)) {
                    record.away(now(), |_| true);
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Tells others, on the way out, that our connections are gone.
    async fn leave(&self) {
        let me = self.store.replica();
        for pairing in &self.pairings {
            let left = self.update(pairing, |record| {
                record.away(now(), |given| given.via == me);
            });
            if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(2), left).await {
                tracing::warn!("the store keeps what it had before the end: {error}");
            }
        }
    }

    /// Changes a pairing's record, as often as it takes until nobody else was faster, and returns what `edit` returned last. When this
    /// returns, the change is durable.
    async fn update<T>(
        &self,
        pairing: &Pairing,
        mut edit: impl FnMut(&mut PairingRecord) -> T,
    ) -> Result<T, PrimaryError> {
        let key = format!("{RECORDS}{}", pairing.name);
        loop {
            let found = self.store.get(&key).await?;
            let (before, revision) = match &found {
                Some(found) => (parse(&key, &found.value)?, Some(found.revision)),
                None => (PairingRecord::default(), None),
            };
            let mut record = before.clone();
            let outcome = edit(&mut record);
            if record == before && revision.is_some() {
                return Ok(outcome);
            }
            record.version = before.version + 1;
            let bytes = serialize(&record);
            if let Some(revision) = self.store.put_if(&key, revision, &bytes).await? {
                self.mirror.put(&pairing.name, revision, record);
                return Ok(outcome);
            }
        }
    }

    /// A pairing's record as this process last saw it.
    fn record(&self, pairing: &Pairing) -> Arc<PairingRecord> {
        self.mirror.get(&pairing.name)
    }

    /// The entries that a Secondary of this name may serve.
    fn allowed(&self, name: &str) -> Vec<config::Prefix> {
        let configured = self.secondaries.get(name).into_iter().flatten().copied();
        let records: Vec<_> = self.pairings.iter().map(|p| self.record(p)).collect();
        let added = records.iter().flat_map(|record| &record.added);
        let added = added.filter(|added| added.secondary.as_deref() == Some(name));
        configured.chain(added.map(|added| added.prefix)).collect()
    }

    fn is_revoked(&self, secondary: &str) -> bool {
        let mut pairings = self.pairings.iter();
        pairings.any(|pairing| self.record(pairing).revoked_secondaries.contains(secondary))
    }

    fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// The pairing in which the Primary of one of these names connects to us.
    fn pairing_with(&self, names: &[String]) -> Option<usize> {
        self.pairings
            .iter()
            .position(|pairing| pairing.role == Role::Server && names.contains(&pairing.peer))
    }
}

fn parse(key: &str, value: &[u8]) -> Result<PairingRecord, PrimaryError> {
    let wrong = |why: String| PrimaryError::Record {
        key: key.to_owned(),
        why,
    };
    let record: PairingRecord = from_slice(value).map_err(|error| wrong(error.to_string()))?;
    if record.format == FORMAT {
        Ok(record)
    } else {
        Err(wrong(format!(
            "expected format {FORMAT}, found format {}",
            record.format
        )))
    }
}

/// Its JSON, with room for one byte more.
fn serialize(record: &impl Serialize) -> Zeroizing<Vec<u8>> {
    /// Counts bytes, so that the real buffer never grows, which would leave copies of secrets behind.
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Writing to memory does not fail, and nothing here has map keys but texts.
    let _ = to_writer(&mut count, record);
    let mut bytes = Zeroizing::new(Vec::with_capacity(count.0 + 1));
    let _ = to_writer(&mut *bytes, record);
    bytes
}

/// The time, in Unix seconds.
pub(crate) fn now() -> u64 {
    unix(SystemTime::now())
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
