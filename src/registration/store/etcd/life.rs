//! A replica's life in the cluster: its lease, the election, and the watch.
//!
//! Why there are never two leaders. The key `leader` is made only where there is none, and is bound to its maker's lease, so it goes
//! when etcd ends that lease and not before. etcd ends it no earlier than its time to live after it handled the last renewal, and it
//! handled that after we sent it. So counting from *before sending* the last renewal that was answered, our clock says that the lease
//! is over before etcd's can, if both clocks run at the same speed; an eighth of the lease is given away for clocks that do not, and
//! for a task that is late. We lead only until then.
//!
//! A new etcd leader starts all leases over and adds an election timeout. So a lease is not shortened either by an old etcd leader that
//! was cut off and renews it for so long before it notices.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use etcd_client::{Compare, CompareOp, Error, PutOptions, Txn, TxnOp, WatchOptions, WatchStream};
use tokio::{
    select,
    sync::watch,
    time::{self, Instant},
};
use tracing::{info, warn};

use super::{MAX_MESSAGE, Shared, StoreError, members::unless_gone, only_found};

/// The fraction of the lease by which we stop earlier.
const MARGIN: u32 = 8;
/// How often within a lease it is renewed.
const RENEWALS: u32 = 3;
/// After a call that no member answered.
const PAUSE: Duration = Duration::from_millis(100);

/// Lives until told to stop, or until nobody is there to tell it; then gives the lease back.
pub(super) async fn run(
    shared: Arc<Shared>,
    ttl: i64,
    granted: Granted,
    leads: watch::Sender<bool>,
    mut stopped: watch::Receiver<bool>,
) {
    select! {
        _ = stopped.wait_for(|stopped| *stopped) => {}
        () = live(&shared, ttl, granted, &leads) => {}
        () = follow(&shared) => {}
    }
    leads.send_replace(false);
    let lease = shared.lease.swap(0, Ordering::Relaxed);
    if lease != 0 {
        let revoked = shared
            .members
            .call("give the lease back", |client| async move {
                client.lease_client().revoke(lease).await
            });
        // It runs out anyway.
        let _ = time::timeout(2 * shared.members.attempt(), revoked).await;
    }
}

/// A new lease.
pub(super) struct Granted {
    /// When it was asked for.
    sent: Instant,
    id: i64,
    ttl: Duration,
}

/// Gets a lease of `ttl` seconds, or longer if etcd says so.
pub(super) async fn grant(shared: &Shared, ttl: i64) -> Result<Granted, StoreError> {
    let granted = shared.members.call("get a lease", |client| async move {
        let sent = Instant::now();
        let granted = client.lease_client().grant(ttl, None).await?;
        let ttl = Duration::from_secs(granted.ttl().max(1).cast_unsigned());
        let id = granted.id();
        Ok(Granted { sent, id, ttl })
    });
    let granted = granted.await?;
    shared.lease.store(granted.id, Ordering::Relaxed);
    Ok(granted)
}

/// One lease after the other.
async fn live(shared: &Shared, ttl: i64, mut granted: Granted, leads: &watch::Sender<bool>) {
    let mut reached = Reached(true);
    loop {
        let life = Life {
            shared,
            leads,
            id: granted.id,
            ttl: granted.ttl,
        };
        life.live(granted.sent, &mut reached).await;
        shared.lease.store(0, Ordering::Relaxed);
        leads.send_replace(false);
        warn!("this replica's lease in etcd is gone; getting another one");
        granted = loop {
            // First, so that a cluster in which leases do not last is not flooded with them.
            time::sleep(PAUSE).await;
            match grant(shared, ttl).await {
                Ok(granted) => break granted,
                Err(error) => reached.no(&error),
            }
        };
        reached.yes();
    }
}

/// Whether the cluster could be reached, told once at each change.
struct Reached(bool);

impl Reached {
    fn yes(&mut self) {
        if !self.0 {
            info!("etcd answers again");
            self.0 = true;
        }
    }

    fn no(&mut self, error: &StoreError) {
        if self.0 {
            warn!("{error}");
            self.0 = false;
        }
    }
}

/// One lease.
struct Life<'a> {
    shared: &'a Shared,
    leads: &'a watch::Sender<bool>,
    id: i64,
    ttl: Duration,
}

/// What a renewal came to.
enum Renewed {
    /// Sent then.
    At(Instant),
    /// There is no such lease any more.
    Gone,
}

impl Life<'_> {
    /// Until the lease is gone.
    async fn live(&self, sent: Instant, reached: &mut Reached) {
        let mut deadline = self.deadline(sent);
        let mut next = sent + self.ttl / RENEWALS;
        loop {
            match self.guard(deadline, self.present(deadline)).await {
                Ok(true) => reached.yes(),
                Ok(false) => return,
                Err(error) => reached.no(&error),
            }
            let wait = async {
                select! {
                    () = time::sleep_until(next) => true,
                    () = self.shared.election.notified() => false,
                }
            };
            if !self.guard(deadline, wait).await {
                continue;
            }
            match self.guard(deadline, self.renew()).await {
                Ok(Renewed::At(sent)) => {
                    reached.yes();
                    deadline = self.deadline(sent);
                    next = sent + self.ttl / RENEWALS;
                }
                Ok(Renewed::Gone) => return,
                Err(error) => {
                    reached.no(&error);
                    next = Instant::now() + PAUSE;
                }
            }
        }
    }

    /// Until when we may lead if the last renewal was sent at `sent`.
    fn deadline(&self, sent: Instant) -> Instant {
        sent + self.ttl - self.ttl / MARGIN
    }

    /// Does `work`, and stops leading at the deadline even if it takes longer.
    async fn guard<T>(&self, deadline: Instant, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        select! {
            biased;
            () = time::sleep_until(deadline) => {}
            done = &mut work => return done,
        }
        if self.leads.send_replace(false) {
            warn!("etcd has not renewed the lease in time; this replica leads no more");
        }
        work.await
    }

    async fn renew(&self) -> Result<Renewed, StoreError> {
        let id = self.id;
        let renewed = self
            .shared
            .members
            .call("renew the lease", |client| async move {
                let sent = Instant::now();
                // A stream that is asked once: it answers the first question before it is returned.
                match client.lease_client().keep_alive(id).await {
                    Ok(_) => Ok(Renewed::At(sent)),
                    Err(Error::LeaseKeepAliveError(_)) => Ok(Renewed::Gone),
                    Err(error) => Err(error),
                }
            });
        renewed.await
    }

    /// Makes sure that our values are there, and that there is a leader. False if the lease is gone.
    async fn present(&self, deadline: Instant) -> Result<bool, StoreError> {
        if !self.put_all().await? {
            return Ok(false);
        }
        let Some(elected) = self.stand().await? else {
            return Ok(false);
        };
        let leads = elected && Instant::now() < deadline;
        let changed = self.leads.send_if_modified(|led| {
            let changed = *led != leads;
            *led = leads;
            changed
        });
        if changed && leads {
            info!("this replica leads now");
        }
        Ok(true)
    }

    /// Puts our values under this lease unless they are. False if it is gone.
    async fn put_all(&self) -> Result<bool, StoreError> {
        let mut mine = self.shared.mine.lock().await;
        if mine.lease == self.id {
            return Ok(true);
        }
        for (name, value) in &mine.values {
            if !self.shared.put_own(name, value, self.id).await? {
                return Ok(false);
            }
        }
        mine.lease = self.id;
        Ok(true)
    }

    /// Makes the leader's key if there is none. Whether it is ours; `None` if the lease is gone.
    async fn stand(&self) -> Result<Option<bool>, StoreError> {
        let key = self.shared.leader();
        let stood = self.shared.members.call("elect a leader", |client| {
            let options = PutOptions::new().with_lease(self.id);
            let none = Compare::create_revision(key.as_str(), CompareOp::Equal, 0);
            let put = TxnOp::put(key.as_str(), self.shared.replica.as_str(), Some(options));
            let get = TxnOp::get(key.as_str(), None);
            let txn = Txn::new().when([none]).and_then([put]).or_else([get]);
            async move { unless_gone(client.kv_client().txn(txn).await) }
        });
        // A transaction whose answer was lost has made the key as well, so look whose it is.
        Ok(stood.await?.map(|stood| {
            let ours = |leader: etcd_client::KeyValue| leader.lease() == self.id;
            stood.succeeded() || only_found(stood.op_responses()).is_some_and(ours)
        }))
    }
}

/// Watches all keys for ever.
///
/// Nothing is missed: each watch starts with what comes next, and a change is signalled once it has started, so whatever changed while
/// there was none is read again. So it does not matter either what the cluster has compacted.
async fn follow(shared: &Shared) {
    let mut reached = Reached(true);
    loop {
        let watch = shared.members.call("watch", |client| {
            let prefix = shared.prefix.clone();
            async move {
                let mut client = client.watch_client().max_decoding_message_size(MAX_MESSAGE);
                let options = WatchOptions::new().with_prefix().with_fragment();
                let mut stream = client.watch(prefix, Some(options)).await?;
                match stream.message().await? {
                    Some(first) if first.created() && !first.canceled() => Ok(stream),
                    Some(first) => Err(Error::WatchError(first.cancel_reason().to_owned())),
                    None => Err(Error::WatchError("ended before it began".to_owned())),
                }
            }
        });
        match watch.await {
            Ok(stream) => {
                reached.yes();
                shared.signal();
                shared.election.notify_one();
                signal_events(shared, stream).await;
            }
            Err(error) => reached.no(&error),
        }
        time::sleep(PAUSE).await;
    }
}

/// Signals what the watch tells until it ends, or its member no longer answers.
async fn signal_events(shared: &Shared, mut stream: WatchStream) {
    let leader = shared.leader();
    let mut asked = false;
    loop {
        // A watch on which nothing happens looks like one whose member is gone, so it is asked.
        let message = select! {
            message = stream.message() => message,
            () = time::sleep(shared.members.attempt()) => {
                if asked || stream.request_progress().await.is_err() {
                    return;
                }
                asked = true;
                continue;
            }
        };
        let Ok(Some(message)) = message else { return };
        if message.canceled() {
            return;
        }
        asked = false;
        if message.events().is_empty() {
            continue;
        }
        shared.signal();
        let of_leader = |kv: &etcd_client::KeyValue| kv.key() == leader.as_bytes();
        if message
            .events()
            .iter()
            .any(|event| event.kv().is_some_and(of_leader))
        {
            shared.election.notify_one();
        }
    }
}
