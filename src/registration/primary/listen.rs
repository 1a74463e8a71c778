//! Accepts connections. Whoever has not proved who it is gets little: a short time, and a place in a bounded queue whose oldest goes
//! first, so that any number of half-open connections does not keep an honest one, which is through in milliseconds, away.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    io::{ReadHalf, WriteHalf},
    net::{TcpListener, TcpSocket, TcpStream},
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_rustls::TlsStream;

use super::{
    Primary, PrimaryError, analyzer,
    counters::{Closed, who},
    peer::{self, End},
    secondary,
};
use crate::registration::{
    frame::{Reader, Received, Writer},
    message::{Message, Reason, Refused},
    tls,
};

/// How long a handshake and the first message may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Connections that are half open at once, of all listeners together: half of the 1,024 descriptors that a process usually has, lest none
/// is left to accept another, and nobody is thrown out.
const HALF_OPEN: usize = 512;
/// Least time between two log lines that none can be accepted.
const COMPLAIN: Duration = Duration::from_secs(10);
/// Connections of one certificate: as many as an entry may have Secondaries.
const OF_ONE: usize = 64;
/// Connections that the system keeps for us until they are accepted.
const BACKLOG: u32 = 1_024;

pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, PrimaryError> {
    let bound = || -> std::io::Result<TcpListener> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restart must not wait for the connections of the process before.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|source| PrimaryError::Listen {
        address: address.to_string(),
        source,
    })
}

/// Accepts connections for ever.
pub(super) async fn serve(primary: Arc<Primary>, listener: TcpListener) {
    let mut complained: Option<Instant> = None;
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: connections that end will make room.
                if complained.is_none_or(|last| last.elapsed() > COMPLAIN) {
                    complained = Some(Instant::now());
                    tracing::warn!("cannot accept connections: {error}");
                }
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let number = primary.next_connection();
        let done = Done {
            number,
            primary: Arc::clone(&primary),
        };
        let task = tokio::spawn(welcome(Arc::clone(&primary), stream, address, done));
        let half_open = &primary.half_open;
        let mut waiting = half_open.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_back((number, task.abort_handle()));
        if waiting.len() > HALF_OPEN
            && let Some((_, oldest)) = waiting.pop_front()
        {
            oldest.abort();
            drop(waiting);
            let why = "too many connections are half open, and this was the oldest";
            primary.counters.closed(Closed::HalfOpen, "somebody", why);
        }
    }
}

/// Connections that are half open, by their numbers, the oldest first.
pub(super) type HalfOpen = Mutex<VecDeque<(u64, AbortHandle)>>;

/// Takes a connection off the half-open ones.
struct Done {
    number: u64,
    primary: Arc<Primary>,
}

impl Drop for Done {
    fn drop(&mut self) {
        let half_open = &self.primary.half_open;
        let mut waiting = half_open.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|(number, _)| *number != self.number);
    }
}

/// Counts the connections of each certificate by its names.
pub(super) type Seats = Mutex<HashMap<String, usize>>;

/// A place among the connections of one certificate.
struct Seat<'p> {
    seats: &'p Seats,
    names: String,
}

impl<'p> Seat<'p> {
    /// `None` if all are taken.
    fn take(seats: &'p Seats, names: &[String]) -> Option<Self> {
        let names = names.join(" ");
        let mut all = seats.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = all.entry(names.clone()).or_default();
        if *taken >= OF_ONE {
            return None;
        }
        *taken += 1;
        drop(all);
        Some(Self { seats, names })
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut all = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = all.get_mut(&self.names) {
            *taken -= 1;
            if *taken == 0 {
                all.remove(&self.names);
            }
        }
    }
}

/// A connection whose other end has proved who it is, and has said what it wants.
struct Opened {
    reader: Reader<ReadHalf<TlsStream<TcpStream>>>,
    writer: Writer<WriteHalf<TlsStream<TcpStream>>>,
    names: Vec<String>,
    expires: SystemTime,
    first: Received,
}

async fn open(primary: &Primary, stream: TcpStream) -> Result<Opened, (Closed, String)> {
    let failed = |error: tls::PeerError| (Closed::Handshake, error.to_string());
    let _ = stream.set_nodelay(true);
    let stream = primary
        .certificate
        .current()
        .accept(stream)
        .await
        .map_err(failed)?;
    let names = tls::peer_names(&stream).map_err(failed)?;
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let expires = tls::peer_expires(&stream).map_err(failed)?;
    let (reader, writer) = tokio::io::split(stream);
    let mut reader = Reader::new(reader);
    let first = reader.next().await.map_err(|error| {
        let who = who(&names, None);
        match End::from(error) {
            End::Closed(reason, why) | End::Refused(_, reason, why) => {
                (reason, format!("{who}: {why}"))
            }
            End::Gone(why) => (Closed::Handshake, format!("{who}: {why}")),
        }
    })?;
    Ok(Opened {
        reader,
        writer: Writer::new(writer),
        names,
        expires,
        first,
    })
}

/// From a connection to the protocol that its first message asks for.
async fn welcome(primary: Arc<Primary>, stream: TcpStream, address: SocketAddr, done: Done) {
    let opened = timeout(HANDSHAKE, open(&primary, stream)).await;
    let failed = |reason, why: &str| {
        let counters = &primary.counters;
        counters.closed(reason, &address.to_string(), why);
    };
    let opened = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err((reason, why))) => return failed(reason, &why),
        Err(_) => {
            let seconds = HANDSHAKE.as_secs();
            let why = format!("no handshake and first message in {seconds} s");
            return failed(Closed::Handshake, &why);
        }
    };
    drop(done);
    let who = who(&opened.names, Some(address));
    dispatch(&primary, opened, &who).await;
}

async fn dispatch(primary: &Arc<Primary>, opened: Opened, who: &str) {
    let Opened {
        reader,
        mut writer,
        names,
        expires,
        first,
    } = opened;
    let Some(_seat) = Seat::take(&primary.seats, &names) else {
        let why = format!("it has {OF_ONE} connections already");
        return primary.counters.closed(Closed::TooMany, who, &why);
    };
    let allowed = match first.message {
        Message::Register(register) => {
            return secondary::serve(primary, &names, reader, writer, register, until(expires))
                .await;
        }
        Message::Analyze(analyze) => {
            return analyzer::serve(primary, &names, writer, &analyze).await;
        }
        Message::SetupRequest(_) | Message::ListRequest(_) => primary.pairing_with(&names),
        other => {
            let why = format!("it begins with a {}", other.kind());
            return primary.counters.closed(Closed::OutOfOrder, who, &why);
        }
    };
    match allowed {
        Some(at) => tokio::select! {
            () = peer::serve(primary, at, &names, reader, writer, first) => {}
            () = until(expires) => {
                primary.counters.closed(Closed::Expired, who, "its certificate ended");
            }
        },
        None => {
            let refused = Message::Refused(Refused {
                reason: Reason::NotAllowed,
            });
            let _ = writer.send(&refused).await;
            let why = "its name is no peer's";
            primary.counters.closed(Closed::NotAllowed, who, why);
        }
    }
}

/// Returns when a certificate ends.
pub(in crate::registration) async fn until(end: SystemTime) {
    // In steps, since the clock may be set.
    while let Ok(left) = end.duration_since(SystemTime::now()) {
        sleep(left.clamp(Duration::from_secs(1), Duration::from_secs(3_600))).await;
    }
}

/// Warns before our own certificate ends.
pub(super) async fn watch_certificate(primary: Arc<Primary>) {
    loop {
        for warning in primary.certificate.current().warnings(SystemTime::now()) {
            tracing::warn!("{warning}");
        }
        sleep(Duration::from_secs(3_600)).await;
    }
}
