//! A Primary's store in a real etcd: what replicas see of each other, and what the death of members and replicas does.

mod etcd_support;
#[path = "common/process.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod process;

use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, atomic::Ordering, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use etcd_client::{Client, PermissionType};
use etcd_support::{Cluster, proxy::proxy};
use pdmgate::registration::store::{EtcdConfig, EtcdTls, EtcdUser, Store, StoreConfig, StoreError};
use tokio::{
    runtime::{Builder, Runtime},
    time::{sleep, timeout},
};
use zeroize::Zeroizing;

const LEASE: Duration = Duration::from_secs(3);
/// etcd looks for leases that are over twice a second, and the machine may be busy.
const SLACK: Duration = Duration::from_secs(2);
/// For what should come at once.
const SOON: Duration = Duration::from_secs(10);

fn config(endpoints: Vec<String>) -> EtcdConfig {
    EtcdConfig {
        endpoints,
        prefix: "pdmgate/test".to_owned(),
        tls: None,
        user: None,
        lease: LEASE,
    }
}

async fn open_with(config: EtcdConfig) -> Result<Store, StoreError> {
    Store::open(&StoreConfig::Etcd(config)).await
}

async fn open(cluster: &Cluster) -> Store {
    open_with(config(cluster.endpoints("http"))).await.unwrap()
}

/// Waits until the store leads, or does not.
async fn leads(store: &Store, wanted: bool, limit: Duration) {
    let mut leads = store.leads();
    let reached = timeout(limit, leads.wait_for(|leads| *leads == wanted)).await;
    assert!(reached.is_ok(), "leads() is not {wanted} in {limit:?}");
}

/// Waits until `check` yields something.
async fn until<T, F: Future<Output = Option<T>>>(
    limit: Duration,
    mut check: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in {limit:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A replica on a thread of its own, that dies as a killed process does: without a word.
struct Replica {
    leads: tokio::sync::watch::Receiver<bool>,
    kill: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

impl Replica {
    fn start(config: EtcdConfig) -> Self {
        let (kill, killed) = mpsc::channel();
        let (opened, store) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = runtime();
            let store = runtime.block_on(async {
                let store = open_with(config).await.unwrap();
                store.put_mine("holds", b"1").await.unwrap();
                store
            });
            opened.send(store.leads()).unwrap();
            runtime.block_on(async {
                while killed.try_recv().is_err() {
                    sleep(Duration::from_millis(5)).await;
                }
            });
            // Its tasks end where they stand, before the store could say goodbye.
            drop(runtime);
            drop(store);
        });
        Self {
            leads: store.recv().unwrap(),
            kill,
            thread,
        }
    }

    fn kill(self) {
        self.kill.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

#[tokio::test]
async fn documents_change_by_compare_and_swap() {
    let cluster = Cluster::start(1);
    let (one, two) = (open(&cluster).await, open(&cluster).await);
    assert!(one.get("a").await.unwrap().is_none());
    assert_eq!(one.put_if("a", Some(1), b"x").await.unwrap(), None);
    assert_eq!(one.put_if("a", Some(0), b"x").await.unwrap(), None);
    assert_eq!(one.put_if("a", Some(u64::MAX), b"x").await.unwrap(), None);
    let first = one.put_if("a", None, b"one").await.unwrap().unwrap();
    assert_eq!(two.put_if("a", None, b"two").await.unwrap(), None);
    // The same bytes are not the same write.
    assert_eq!(two.put_if("a", None, b"one").await.unwrap(), None);
    let read = two.get("a").await.unwrap().unwrap();
    assert_eq!((read.value.as_slice(), read.revision), (&b"one"[..], first));
    let second = two.put_if("a", Some(first), b"two").await.unwrap().unwrap();
    assert!(second > first);
    assert_eq!(one.put_if("a", Some(first), b"x").await.unwrap(), None);
    assert!(!one.delete_if("a", first).await.unwrap());
    assert!(one.delete_if("a", second).await.unwrap());
    assert!(!one.delete_if("a", second).await.unwrap());
    let again = one.put_if("a", None, b"").await.unwrap().unwrap();
    assert!(again > second, "a revision never comes back");
    assert!(two.get("a").await.unwrap().unwrap().value.is_empty());

    let long = vec![7; pdmgate::registration::store::MAX_DOCUMENT];
    for key in ["p/b", "p/a", "p", "q", "p0"] {
        two.put_if(key, None, &long).await.unwrap();
    }
    let found = one.scan("p").await.unwrap();
    let keys: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["p", "p/a", "p/b", "p0"]);
    assert!(found.iter().all(|(_, document)| *document.value == long));
    assert_eq!(one.scan("").await.unwrap().len(), 6, "more than 4 MiB");

    // What something else wrote there is told, not taken for a document.
    let mut client = Client::connect(cluster.endpoints("http"), None)
        .await
        .unwrap();
    let put = client
        .put("pdmgate/test/documents/strange", "{}", None)
        .await;
    put.unwrap();
    let refused = one.get("strange").await.err().unwrap();
    assert!(
        matches!(refused, StoreError::Foreign { length: 2, .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn one_of_many_tasks_and_replicas_is_first() {
    const REPLICAS: u32 = 3;
    const TASKS: u32 = 3;
    const EACH: u32 = 15;
    let cluster = Cluster::start(1);
    let mut tasks = Vec::new();
    for _ in 0..REPLICAS {
        let store = Arc::new(open(&cluster).await);
        for _ in 0..TASKS {
            let store = store.clone();
            tasks.push(tokio::spawn(async move {
                let mut written = Vec::new();
                while written.len() < EACH as usize {
                    let read = store.get("n").await.unwrap();
                    let number = read.as_ref().map_or(0, |read| {
                        u32::from_be_bytes(read.value.as_slice().try_into().unwrap())
                    });
                    let revision = read.map(|read| read.revision);
                    let next = (number + 1).to_be_bytes();
                    if store.put_if("n", revision, &next).await.unwrap().is_some() {
                        written.push(number + 1);
                    }
                }
                written
            }));
        }
    }
    let mut numbers = Vec::new();
    for task in tasks {
        numbers.extend(task.await.unwrap());
    }
    numbers.sort_unstable();
    let all: Vec<_> = (1..=REPLICAS * TASKS * EACH).collect();
    assert_eq!(numbers, all, "each number was given once");
}

#[tokio::test]
async fn changes_and_replicas_values_reach_all() {
    let cluster = Cluster::start(1);
    let (one, two) = (open(&cluster).await, open(&cluster).await);
    let mut changes = two.changes();
    // The watch has begun.
    timeout(SOON, changes.wait_for(|n| *n > 0))
        .await
        .unwrap()
        .unwrap();
    sleep(Duration::from_millis(300)).await;
    changes.mark_unchanged();
    let revision = one.put_if("a", None, b"1").await.unwrap().unwrap();
    timeout(SOON, changes.changed()).await.unwrap().unwrap();
    one.delete_if("a", revision).await.unwrap();
    timeout(SOON, changes.changed()).await.unwrap().unwrap();
    // One's own change is told as well.
    two.put_if("b", None, b"1").await.unwrap();
    timeout(SOON, changes.changed()).await.unwrap().unwrap();

    one.put_mine("holds", b"4").await.unwrap();
    timeout(SOON, changes.changed()).await.unwrap().unwrap();
    one.put_mine("holds", b"5").await.unwrap();
    two.put_mine("holds", b"6").await.unwrap();
    two.put_mine("holds/more", b"7").await.unwrap();
    let mut expected = vec![
        (one.replica().to_owned(), b"5".to_vec()),
        (two.replica().to_owned(), b"6".to_vec()),
    ];
    expected.sort();
    assert_eq!(one.replicas("holds").await.unwrap(), expected);
    assert_eq!(one.replicas("holds/more").await.unwrap().len(), 1);

    changes.mark_unchanged();
    let (left, gone) = (one.replica().to_owned(), Instant::now());
    one.close().await;
    drop(one);
    until(SOON, || async {
        let values = two.replicas("holds").await.unwrap();
        values
            .iter()
            .all(|(replica, _)| *replica != left)
            .then_some(())
    })
    .await;
    assert!(gone.elapsed() < LEASE / 2, "it did not say goodbye");
    assert!(changes.has_changed().unwrap());
}

#[tokio::test]
async fn leadership_moves() {
    let cluster = Cluster::start(1);
    let one = open(&cluster).await;
    leads(&one, true, SOON).await;
    let two = open(&cluster).await;
    sleep(Duration::from_millis(300)).await;
    assert!(!*two.leads().borrow());
    // At once if the leader says goodbye: when it is dropped.
    let dropped = Instant::now();
    drop(one);
    leads(&two, true, SOON).await;
    assert!(dropped.elapsed() < LEASE / 2, "{:?}", dropped.elapsed());

    // Within the lease if it does not.
    let dies = {
        let dies = Replica::start(config(cluster.endpoints("http")));
        drop(two);
        let mut leads = dies.leads.clone();
        timeout(SOON, leads.wait_for(|l| *l))
            .await
            .unwrap()
            .unwrap();
        dies
    };
    let heir = open(&cluster).await;
    assert_eq!(heir.replicas("holds").await.unwrap().len(), 1);
    let killed = Instant::now();
    dies.kill();
    leads(&heir, true, LEASE + SLACK).await;
    // The last renewal is up to a third of the lease old.
    assert!(killed.elapsed() > LEASE / 3, "{:?}", killed.elapsed());
    assert!(heir.replicas("holds").await.unwrap().is_empty());
}

#[tokio::test]
async fn tasks_end_with_the_store() {
    let cluster = Cluster::start(1);
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let store = open(&cluster).await;
    leads(&store, true, SOON).await;
    store.put_if("a", None, b"1").await.unwrap();
    assert!(metrics.num_alive_tasks() > before);
    drop(store);
    until(SOON, || async {
        (metrics.num_alive_tasks() == before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_restart_of_etcd_loses_nothing() {
    let mut cluster = Cluster::start(1);
    let store = open(&cluster).await;
    let revision = store.put_if("a", None, b"1").await.unwrap().unwrap();
    store.put_mine("holds", b"1").await.unwrap();
    leads(&store, true, SOON).await;
    let killed = Instant::now();
    cluster.kill(0);
    leads(&store, false, LEASE).await;
    let refused = store.get("a").await.err().unwrap();
    assert!(
        matches!(refused, StoreError::Unavailable { .. }),
        "{refused}"
    );
    assert!(
        refused.to_string().contains("refused"),
        "no cause: {refused}"
    );
    let refused = store.put_mine("holds", b"2").await.err().unwrap();
    assert!(
        matches!(refused, StoreError::Unavailable { .. }),
        "{refused}"
    );
    assert!(killed.elapsed() < 4 * LEASE, "a call hung");

    let mut changes = store.changes();
    changes.mark_unchanged();
    cluster.restart(0);
    // Somebody changes something before the watch is back, and what the watch would have told is compacted.
    let mut client = Client::connect(cluster.endpoints("http"), None)
        .await
        .unwrap();
    let put = until(SOON, || async {
        client
            .kv_client()
            .put("pdmgate/test/else", "1", None)
            .await
            .ok()
    })
    .await;
    let revision_now = put.header().unwrap().revision();
    client.compact(revision_now, None).await.unwrap();
    timeout(SOON, changes.changed()).await.unwrap().unwrap();
    leads(&store, true, LEASE + SLACK).await;
    assert_eq!(store.get("a").await.unwrap().unwrap().revision, revision);
    // The value that could not be put then.
    until(SOON, || async {
        let holds = store.replicas("holds").await.unwrap();
        (holds == [(store.replica().to_owned(), b"2".to_vec())]).then_some(())
    })
    .await;
}

/// Never two that lead, looked at all the time.
fn watch_leaders(replicas: &[&Store]) -> tokio::task::JoinHandle<()> {
    let leads: Vec<_> = replicas.iter().map(|store| store.leads()).collect();
    tokio::spawn(async move {
        loop {
            let leaders = leads.iter().filter(|leads| *leads.borrow()).count();
            assert!(leaders <= 1, "{leaders} lead");
            sleep(Duration::from_millis(1)).await;
        }
    })
}

#[tokio::test]
async fn the_death_of_a_member_interrupts_little() {
    let mut cluster = Cluster::start(3);
    let endpoints = cluster.endpoints("http");
    // Both use the member that dies.
    let one = open_with(config(endpoints.clone())).await.unwrap();
    let two = open_with(config(endpoints)).await.unwrap();
    leads(&one, true, SOON).await;
    let watcher = watch_leaders(&[&one, &two]);
    let mut changes = two.changes();

    cluster.kill(0);
    let mut revision = None;
    let mut number = 0u32;
    let mut longest = Duration::ZERO;
    let writing = Instant::now();
    while writing.elapsed() < 2 * LEASE {
        changes.mark_unchanged();
        let asked = Instant::now();
        let put = one.put_if("a", revision, &number.to_be_bytes()).await;
        revision = Some(put.unwrap().expect("nobody else writes"));
        timeout(LEASE, changes.changed()).await.unwrap().unwrap();
        let read = two.get("a").await.unwrap().unwrap();
        longest = longest.max(asked.elapsed());
        assert_eq!(*read.value, number.to_be_bytes());
        number += 1;
        sleep(Duration::from_millis(20)).await;
    }
    assert!(longest < LEASE, "interrupted for {longest:?}");
    assert!(*one.leads().borrow(), "the leader survives");
    assert!(!watcher.is_finished(), "{:?}", watcher.await);

    // Without a majority nobody leads and nothing is written, but nothing hangs either.
    let frozen = Instant::now();
    cluster.freeze(1);
    // The last member renews until it has noticed.
    leads(&one, false, LEASE + SLACK).await;
    let refused = one.put_if("a", revision, b"lost?").await.err().unwrap();
    assert!(
        matches!(refused, StoreError::Unavailable { .. }),
        "{refused}"
    );
    assert!(frozen.elapsed() < 3 * LEASE);
    assert!(!*two.leads().borrow());
    changes.mark_unchanged();
    cluster.thaw(1);
    timeout(SOON, changes.changed()).await.unwrap().unwrap();
    until(SOON, || async {
        (*one.leads().borrow() || *two.leads().borrow()).then_some(())
    })
    .await;
    // The write that was refused may come true, but not after another one.
    let read = until(SOON, || async { one.get("a").await.ok().flatten() }).await;
    let put = one.put_if("a", Some(read.revision), b"last").await.unwrap();
    let put = put.or(one.get("a").await.unwrap().map(|read| read.revision));
    assert!(put > revision);
    assert!(!watcher.is_finished(), "{:?}", watcher.await);
    watcher.abort();
}

#[tokio::test]
async fn a_member_that_is_silent_is_left() {
    let cluster = Cluster::start(3);
    // So long that the others can vote twice before it is over: the silent one may be the members' leader, and no two of the others
    // need agree at once.
    let lease = 3 * LEASE;
    let store = open_with(EtcdConfig {
        lease,
        ..config(cluster.endpoints("http"))
    });
    let store = store.await.unwrap();
    leads(&store, true, SOON).await;
    let mut changes = store.changes();
    cluster.freeze(0);
    let (mut revision, started) = (None, Instant::now());
    while started.elapsed() < lease + SLACK {
        changes.mark_unchanged();
        let asked = Instant::now();
        revision = store.put_if("a", revision, b"1").await.unwrap();
        assert!(revision.is_some());
        timeout(lease, changes.changed()).await.unwrap().unwrap();
        assert!(asked.elapsed() < lease);
        assert!(*store.leads().borrow(), "it was only one of three");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_still_ours() {
    let cluster = Cluster::start(1);
    let (proxied, mute) = proxy(cluster.address(0)).await;
    let direct = cluster.endpoints("http").remove(0);
    let store = open_with(config(vec![proxied, direct])).await.unwrap();
    let first = store.put_if("a", None, b"1").await.unwrap();
    mute.store(true, Ordering::Relaxed);
    let second = store.put_if("a", first, b"2").await.unwrap();
    assert!(second > first, "taken for somebody else's");
    let read = store.get("a").await.unwrap().unwrap();
    assert_eq!(*read.value, b"2");
    assert_eq!(Some(read.revision), second);
    assert!(store.put_if("a", second, b"3").await.unwrap().is_some());
}

#[tokio::test]
async fn a_replica_that_is_cut_off_stops_leading_first() {
    let cluster = Cluster::start(1);
    let (proxied, mute) = proxy(cluster.address(0)).await;
    let cut_off = open_with(config(vec![proxied])).await.unwrap();
    leads(&cut_off, true, SOON).await;
    let heir = open(&cluster).await;
    let watcher = watch_leaders(&[&cut_off, &heir]);
    for _ in 0..20 {
        assert!(*cut_off.leads().borrow());
        sleep(LEASE / 10).await;
    }
    mute.store(true, Ordering::Relaxed);
    leads(&cut_off, false, LEASE).await;
    assert!(!*heir.leads().borrow());
    leads(&heir, true, LEASE + SLACK).await;
    assert!(!watcher.is_finished(), "{:?}", watcher.await);
    watcher.abort();
}

#[tokio::test]
async fn tls_proves_both_sides() {
    let authority = Authority::new();
    let cluster = Cluster::start_tls(|folder| {
        let files = authority.issue(folder, "server");
        let (certificate, key) = files.identity.unwrap();
        etcd_support::Tls {
            authorities: files.authorities,
            certificate,
            key,
        }
    });
    let endpoints = cluster.endpoints("https");
    let ours = authority.issue(cluster.folder(), "client");
    let mut settings = config(endpoints);
    settings.tls = Some(ours.clone());
    assert!(settings.warning().is_none());
    let store = open_with(settings.clone()).await.unwrap();
    store.put_if("a", None, b"1").await.unwrap();
    leads(&store, true, SOON).await;

    // One whose authority we do not know, and we with a certificate that it does not know. TLS 1.3 lets a server refuse a certificate
    // so late that the client may see no more than a connection that ends.
    let strangers = Authority::new().issue(cluster.folder(), "stranger");
    for (authorities, other, cause) in [(&strangers, &ours, "cert"), (&ours, &strangers, "")] {
        settings.tls = Some(EtcdTls {
            authorities: authorities.authorities.clone(),
            ..other.clone()
        });
        let refused = open_with(settings.clone()).await.err().unwrap();
        assert!(
            matches!(refused, StoreError::Unavailable { .. }),
            "{refused}"
        );
        let text = refused.to_string().to_lowercase();
        assert!(text.contains(cause), "no cause: {refused}");
    }
}

/// Who signs certificates.
struct Authority {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(params, key);
        Self { pem, issuer }
    }

    fn issue(&self, folder: &std::path::Path, name: &str) -> EtcdTls {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = rcgen::CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let write = |what: &str, pem: String| -> PathBuf {
            use std::{io::Write, os::unix::fs::OpenOptionsExt};
            let path = folder.join(format!("{name}-{what}.pem"));
            let mut file = std::fs::OpenOptions::new();
            let file = file.write(true).create_new(true).mode(0o600);
            file.open(&path).unwrap().write_all(pem.as_bytes()).unwrap();
            path
        };
        EtcdTls {
            authorities: write("authorities", self.pem.clone()),
            identity: Some((
                write("certificate", certificate.pem()),
                write("key", key.serialize_pem()),
            )),
        }
    }
}

#[tokio::test]
async fn a_user_logs_in() {
    let cluster = Cluster::start(1);
    let endpoints = cluster.endpoints("http");
    let mut client = Client::connect(&endpoints, None).await.unwrap();
    client.user_add("root", "of all", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.user_add("primary", "secret", None).await.unwrap();
    client.role_add("primary").await.unwrap();
    let all = etcd_client::Permission::new(PermissionType::Readwrite, "pdmgate/test/");
    let all = all.with_prefix();
    client.role_grant_permission("primary", all).await.unwrap();
    client.user_grant_role("primary", "primary").await.unwrap();
    client.auth_enable().await.unwrap();

    let user = |password: &str| {
        Some(EtcdUser {
            name: "primary".to_owned(),
            password: Zeroizing::new(password.to_owned()),
        })
    };
    let mut settings = config(endpoints);
    settings.user = user("secret");
    let store = open_with(settings.clone()).await.unwrap();
    assert!(store.put_if("a", None, b"1").await.unwrap().is_some());
    store.put_mine("holds", b"1").await.unwrap();
    leads(&store, true, SOON).await;
    let mut changes = store.changes();
    changes.mark_unchanged();
    store.put_if("b", None, b"1").await.unwrap();
    timeout(SOON, changes.changed()).await.unwrap().unwrap();

    settings.user = user("wrong");
    let refused = open_with(settings.clone()).await.err().unwrap();
    assert!(matches!(refused, StoreError::Refused { .. }), "{refused}");
    assert!(!refused.to_string().contains("wrong"), "{refused}");
    settings.user = user("secret");
    settings.prefix = "elsewhere".to_owned();
    let store = open_with(settings).await.unwrap();
    let refused = store.get("a").await.err().unwrap();
    assert!(matches!(refused, StoreError::Refused { .. }), "{refused}");
}
