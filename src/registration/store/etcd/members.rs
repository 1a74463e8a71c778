//! The members of the cluster: one call at a time goes to one of them, and to the next if that one does not answer.
//!
//! A connection each, rather than one that spreads calls over all: so a member that takes connections and answers nothing (stopped, or cut off from
//! the others) is left after one attempt, not met again by chance.

use std::{
    error::Error as _,
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use tokio::{
    sync::OnceCell,
    time::{self, Instant},
};
use zeroize::Zeroizing;

use super::super::{EtcdConfig, EtcdTls, StoreError};
use crate::registration::tls::check_files;

/// How many members may fail to answer, one after the other, within one lease.
const ATTEMPTS: u32 = 6;
/// The longest that one attempt may take.
const MAX_ATTEMPT: Duration = Duration::from_secs(2);
/// The longest that all attempts of a call may take.
const MAX_CALL: Duration = Duration::from_secs(10);
/// Between two rounds over all members.
const PAUSE: Duration = Duration::from_millis(50);
/// etcd closes connections that ask more often than each 5 s whether it lives.
const PING: Duration = Duration::from_secs(10);

/// All of them.
pub(super) struct Members {
    members: Vec<Member>,
    /// Counts up; the remainder is the member to ask.
    current: AtomicUsize,
    options: ConnectOptions,
    attempt: Duration,
    whole: Duration,
}

struct Member {
    endpoint: String,
    /// Connected when first asked, since a user logs in then.
    client: OnceCell<Client>,
}

impl Members {
    /// Checks the settings and reads the certificates; connects to nobody.
    pub(super) fn new(config: &EtcdConfig) -> Result<Self, StoreError> {
        check(config)?;
        let attempt = (config.lease / ATTEMPTS).min(MAX_ATTEMPT);
        let mut options = ConnectOptions::new()
            .with_connect_timeout(attempt)
            .with_keep_alive(PING, MAX_ATTEMPT)
            .with_keep_alive_while_idle(false)
            // A member without a leader says so instead of being silent.
            .with_require_leader(true);
        if let Some(user) = &config.user {
            options = options
                .with_user(user.name.as_str(), user.password.as_str())
                .with_auto_token_refresh(true);
        }
        if let Some(tls) = &config.tls {
            options = options.with_tls(certificates(tls)?);
        }
        let member = |endpoint: &String| Member {
            endpoint: endpoint.clone(),
            client: OnceCell::new(),
        };
        Ok(Self {
            members: config.endpoints.iter().map(member).collect(),
            current: AtomicUsize::new(0),
            options,
            attempt,
            whole: config.lease.min(MAX_CALL),
        })
    }

    /// The longest that one member is waited for.
    pub(super) fn attempt(&self) -> Duration {
        self.attempt
    }

    /// Has `work` done by the first member that answers. `work` may be done more than once, and may have been done after an error.
    pub(super) async fn call<T, F>(
        &self,
        action: &'static str,
        mut work: impl FnMut(Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let started = Instant::now();
        let mut failures = 0;
        let mut said = None;
        loop {
            let turn = self.current.load(Ordering::Relaxed);
            let member = &self.members[turn % self.members.len()];
            let attempt = async {
                let connect = || Client::connect([&member.endpoint], Some(self.options.clone()));
                work(member.client.get_or_try_init(connect).await?.clone()).await
            };
            match time::timeout(self.attempt, attempt).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) if is_refusal(&error) => {
                    return Err(StoreError::Refused {
                        action,
                        member: member.endpoint.clone(),
                        why: describe(&error),
                    });
                }
                Ok(Err(error)) => said = Some((member, describe(&error))),
                // Says less than what another one said.
                Err(_) => {}
            }
            // Unless another call went on to the next one meanwhile.
            let _ = self.current.compare_exchange(
                turn,
                turn.wrapping_add(1),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            failures += 1;
            if started.elapsed() + PAUSE >= self.whole {
                let silent = || (member, "no answer".to_owned());
                let (member, why) = said.unwrap_or_else(silent);
                return Err(StoreError::Unavailable {
                    action,
                    after: started.elapsed(),
                    member: member.endpoint.clone(),
                    why,
                });
            }
            if failures % self.members.len() == 0 {
                time::sleep(PAUSE).await;
            }
        }
    }

    /// The answer to what needs a lease while there is none.
    pub(super) fn no_lease(&self, action: &'static str) -> StoreError {
        let turn = self.current.load(Ordering::Relaxed);
        StoreError::Unavailable {
            action,
            after: Duration::ZERO,
            member: self.members[turn % self.members.len()].endpoint.clone(),
            why: "the lease ran out, and there is no other yet".to_owned(),
        }
    }
}

fn check(config: &EtcdConfig) -> Result<(), StoreError> {
    let wrong = |found: String, expected| Err(StoreError::Settings { found, expected });
    if config.endpoints.is_empty() {
        return wrong("no endpoints".to_owned(), "at least one");
    }
    for endpoint in &config.endpoints {
        match (endpoint.split_once("://"), &config.tls) {
            (Some(("http", _)), None) | (Some(("https", _)), Some(_)) => {}
            (Some(("http", _)), Some(_)) => {
                return wrong(
                    format!("`tls` and {endpoint}"),
                    "https:// in all endpoints where there is `tls`",
                );
            }
            (Some(("https", _)), None) => {
                return wrong(
                    format!("{endpoint} and no `tls`"),
                    "`tls` with authorities, certificate and key",
                );
            }
            _ => return wrong(endpoint.clone(), "https://HOST:PORT or http://HOST:PORT"),
        }
    }
    if config.prefix.trim_end_matches('/').is_empty() {
        return wrong(
            format!("the prefix {:?}", config.prefix),
            "a name that nothing else in the cluster begins with",
        );
    }
    if config.lease < EtcdConfig::MIN_LEASE || config.lease.subsec_nanos() != 0 {
        return wrong(
            format!("a lease of {:?}", config.lease),
            "whole seconds, at least 2",
        );
    }
    Ok(())
}

pub(super) fn certificates(tls: &EtcdTls) -> Result<TlsOptions, StoreError> {
    let pair = tls.identity.as_ref();
    let pair = pair.map(|(certificate, key)| (certificate.as_path(), key.as_path()));
    // The client would say what is wrong only when it connects, and not in which file.
    check_files(&tls.authorities, pair)?;
    let authorities = read(&tls.authorities, false)?;
    let options = TlsOptions::new().ca_certificate(Certificate::from_pem(authorities.as_slice()));
    let Some((certificate, key)) = &tls.identity else {
        return Ok(options);
    };
    let (certificate, key) = (read(certificate, false)?, read(key, true)?);
    Ok(options.identity(Identity::from_pem(certificate.as_slice(), key.as_slice())))
}

fn read(path: &Path, secret: bool) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let failed = |source: io::Error| StoreError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    let mode = about.permissions().mode() & 0o7777;
    if secret && mode & 0o077 != 0 {
        return Err(StoreError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    // With room for all of it, so that no copy is left behind where it grew.
    let room = usize::try_from(about.len()).unwrap_or_default() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

const NOT_FOUND: i32 = 5;

/// `Ok(None)` if what was done failed because its lease is gone.
pub(super) fn unless_gone<T>(done: Result<T, Error>) -> Result<Option<T>, Error> {
    match done {
        Err(Error::GRpcStatus(status)) if status.code() as i32 == NOT_FOUND => Ok(None),
        done => done.map(Some),
    }
}

/// Whether no member would answer otherwise: gRPC's codes for a request or a client that is wrong, and for a cluster that is full.
fn is_refusal(error: &Error) -> bool {
    const INVALID_ARGUMENT: i32 = 3;
    const PERMISSION_DENIED: i32 = 7;
    const RESOURCE_EXHAUSTED: i32 = 8;
    const FAILED_PRECONDITION: i32 = 9;
    const OUT_OF_RANGE: i32 = 11;
    const UNIMPLEMENTED: i32 = 12;
    const UNAUTHENTICATED: i32 = 16;
    match error {
        Error::GRpcStatus(status) => matches!(
            status.code() as i32,
            INVALID_ARGUMENT
                | NOT_FOUND
                | PERMISSION_DENIED
                | RESOURCE_EXHAUSTED
                | FAILED_PRECONDITION
                | OUT_OF_RANGE
                | UNIMPLEMENTED
                | UNAUTHENTICATED
        ),
        Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => true,
        _ => false,
    }
}

/// The error with its causes, which etcd-client leaves out.
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = match error {
        Error::TransportError(error) => error.source(),
        Error::GRpcStatus(status) => status.source(),
        _ => None,
    };
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
