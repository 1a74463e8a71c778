//! Asks a running appliance over its local socket, for the command line.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;

use super::records::{FlowQuery, FlowRecord, Stats};

/// How long an answer may take. A table of millions of flows takes a second or two.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No socket, or nobody behind it.
    #[error("no pdmgate answers at {}: {source}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The socket belongs to somebody else.
    #[error("not allowed to connect to {}", socket.display())]
    Forbidden {
        /// The socket.
        socket: PathBuf,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("the connection to pdmgate broke: {0}")]
    Broken(#[from] hyper::Error),
    /// Nothing came in time.
    #[error("pdmgate did not answer within {} s", PATIENCE.as_secs())]
    Timeout,
    /// The appliance refuses the question.
    #[error("pdmgate answered {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// What it said.
        message: String,
    },
    /// The answer is not the record that was asked for; the two ends may be of different versions.
    #[error("cannot read pdmgate's answer: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The system gives no event queue.
    #[error("cannot start a connection: {0}")]
    Runtime(#[source] io::Error),
}

/// The appliance behind one socket.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// Does not connect yet.
    ///
    /// # Errors
    /// [`ClientError::Runtime`].
    pub fn new(socket: &Path) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ClientError::Runtime)?;
        Ok(Self {
            socket: socket.to_owned(),
            runtime,
        })
    }

    /// The numbers as they stand.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn stats(&self) -> Result<Stats, ClientError> {
        self.ask(Method::GET, "/v1/stats")
    }

    /// The flows that `query` asks for.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn flows(&self, query: &FlowQuery) -> Result<Vec<FlowRecord>, ClientError> {
        self.ask(Method::GET, &flows_target(query))
    }

    /// Asks for `target`, a path and query of legal characters, and reads the answer's JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
    ) -> Result<T, ClientError> {
        let answer = async { tokio::time::timeout(PATIENCE, self.send(method, target)).await };
        let body = self
            .runtime
            .block_on(answer)
            .map_err(|_| ClientError::Timeout)??;
        Ok(serde_json::from_slice(&body)?)
    }

    async fn send(&self, method: Method, target: &str) -> Result<Bytes, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            let socket = self.socket.clone();
            match source.kind() {
                io::ErrorKind::PermissionDenied => ClientError::Forbidden { socket },
                _ => ClientError::Unreachable { socket, source },
            }
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method;
        // Targets are made below from ASCII letters and escapes only; one that is no URI would be a bug there.
        *request.uri_mut() = target
            .parse()
            .expect("targets are built from characters that are legal in a URI");
        request
            .headers_mut()
            .insert("host", hyper::header::HeaderValue::from_static("localhost"));
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status != StatusCode::OK {
            let message = String::from_utf8_lossy(&body).trim().to_owned();
            return Err(ClientError::Refused { status, message });
        }
        Ok(body)
    }
}

fn flows_target(query: &FlowQuery) -> String {
    let mut target = format!("/v1/flows?limit={}&sort={}", query.limit, query.sort.name());
    if let Some(pairing) = &query.pairing {
        target.push_str("&pairing=");
        target.push_str(&escape(pairing));
    }
    target
}

/// A text as a value in a query (RFC 3986 section 2.1).
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
