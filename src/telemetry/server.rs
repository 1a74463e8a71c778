//! The two servers that hand out what is counted: Prometheus over TCP, JSON over a local socket.
//!
//! Both run in one thread, which inherits the affinity of the management core that starts it.
//!
//! | where | path | answer |
//! |---|---|---|
//! | TCP | `/metrics` | Prometheus text |
//! | TCP | `/healthz` | `ok` |
//! | socket | `/v1/stats` | [`Stats`] |
//! | socket | `/v1/flows?limit=&sort=&pairing=` | a list of [`FlowRecord`] |

use std::future::IntoFuture;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::prometheus;
use super::records::{FlowQuery, FlowRecord, Stats};
use super::socket::{Claim, ClaimError};

/// How long answers that are under way when the servers stop may take.
const GRACE: Duration = Duration::from_secs(2);

/// Where the servers get their answers. Called from the servers' thread, one call at a time.
pub trait Source: Send + Sync + 'static {
    /// The numbers as they stand.
    fn stats(&self) -> Stats;
    /// The flows asked for, in the order asked for.
    fn flows(&self, query: &FlowQuery) -> Vec<FlowRecord>;
    /// The numbers in Prometheus' text format.
    fn metrics(&self) -> String;
}

/// Where to listen.
#[derive(Clone, Debug, Default)]
pub struct Listen {
    /// Address of the Prometheus endpoint; none for none.
    pub prometheus: Option<SocketAddr>,
    /// Path of the local socket; none for none.
    pub socket: Option<PathBuf>,
}

/// Why the servers did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The TCP address cannot be had.
    #[error("cannot listen on {address} for Prometheus: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The local socket cannot be had.
    #[error(transparent)]
    Socket(#[from] ClaimError),
    /// The system gives no thread or no event queue.
    #[error("cannot start the telemetry thread: {0}")]
    Thread(#[source] io::Error),
}

/// The running servers. Dropping it stops them as [`Server::stop`] does.
#[derive(Debug)]
pub struct Server {
    prometheus: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    _socket: Option<Claim>,
}

impl Server {
    /// Binds and starts both servers.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs and nothing is left behind then.
    pub fn start(listen: &Listen, source: Arc<dyn Source>) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let (stop, stopped) = watch::channel(false);
        let mut servers = JoinSet::new();
        let in_runtime = runtime.enter();

        let mut address = None;
        if let Some(wanted) = listen.prometheus {
            let (bound, listener) = bind_tcp(wanted).map_err(|source| StartError::Address {
                address: wanted,
                source,
            })?;
            address = Some(bound);
            let router = Router::new()
                .route("/metrics", get(metrics))
                .route("/healthz", get(|| async { "ok\n" }))
                .with_state(Arc::clone(&source));
            let server = axum::serve(listener, router)
                .with_graceful_shutdown(until_stopped(stopped.clone()));
            servers.spawn(server.into_future());
        }

        let mut socket = None;
        if let Some(path) = &listen.socket {
            let (claim, listener) = Claim::bind(path)?;
            socket = Some(claim);
            let listener = listener
                .set_nonblocking(true)
                .and_then(|()| tokio::net::UnixListener::from_std(listener))
                .map_err(StartError::Thread)?;
            let router = Router::new()
                .route("/v1/stats", get(stats))
                .route("/v1/flows", get(flows))
                .with_state(source);
            let server = axum::serve(listener, router)
                .with_graceful_shutdown(until_stopped(stopped.clone()));
            servers.spawn(server.into_future());
        }

        drop(in_runtime);
        let thread = std::thread::Builder::new()
            .name("telemetry".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    until_stopped(stopped).await;
                    let finished = async { while servers.join_next().await.is_some() {} };
                    // Whoever is still reading after that is cut off.
                    let _ = tokio::time::timeout(GRACE, finished).await;
                });
            })
            .map_err(StartError::Thread)?;
        Ok(Self {
            prometheus: address,
            stop,
            thread: Some(thread),
            _socket: socket,
        })
    }

    /// The address of the Prometheus endpoint, with the port that the system chose if port 0 was asked for.
    #[must_use]
    pub fn prometheus(&self) -> Option<SocketAddr> {
        self.prometheus
    }

    /// Takes no more connections, finishes the answers under way, and removes the socket.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by then, and there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<(SocketAddr, tokio::net::TcpListener)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    Ok((bound, tokio::net::TcpListener::from_std(listener)?))
}

async fn until_stopped(mut stopped: watch::Receiver<bool>) {
    // An error says that the sender is gone, which is a stop as well.
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn metrics(State(source): State<Arc<dyn Source>>) -> Response {
    ([(CONTENT_TYPE, prometheus::CONTENT_TYPE)], source.metrics()).into_response()
}

async fn stats(State(source): State<Arc<dyn Source>>) -> Json<Stats> {
    Json(source.stats())
}

async fn flows(
    State(source): State<Arc<dyn Source>>,
    Query(query): Query<FlowQuery>,
) -> Json<Vec<FlowRecord>> {
    Json(source.flows(&query))
}

#[cfg(test)]
mod tests;
