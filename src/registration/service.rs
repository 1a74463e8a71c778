//! Runs a Primary, a Secondary's agent, or both, in a thread of their own, which inherits the affinity of whoever starts it.

use std::{io, net::SocketAddr, sync::Arc, thread::JoinHandle, time::Duration};

use thiserror::Error;
use tokio::sync::watch;

use super::{
    certificate::Certificate,
    link::AgentEnd,
    primary::{Primary, PrimaryError, keylog::KeylogError},
    secondary::{Agent, Via},
    store::StoreError,
    tls::TlsError,
};
use crate::config::{self, SecondaryVia};

/// Longest time that connections have for their ends.
const GRACE: Duration = Duration::from_secs(3);

/// Why registration does not start.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The Primary does not open.
    #[error("the Primary does not start: {0}")]
    Primary(#[from] PrimaryError),
    /// The Secondary's certificate, key or authorities cannot be used.
    #[error("the Secondary does not start: {0}")]
    Tls(#[from] TlsError),
    /// The Secondary's Primary is said to be in this process, and there is none.
    #[error("the section `secondary` names no Primary, and there is no section `primary`")]
    NoPrimary,
    /// The system has no random numbers.
    #[error("no random numbers from the operating system: {0}")]
    Random(#[from] getrandom::Error),
    /// The system gives no thread or no event queue.
    #[error("cannot start the registration thread: {0}")]
    Thread(#[source] io::Error),
}

impl ServiceError {
    /// Whether certificates, keys or modes of files are to blame, so that trying again is of no use.
    #[must_use]
    pub fn is_of_files(&self) -> bool {
        matches!(
            self,
            Self::Tls(_)
                | Self::Primary(
                    PrimaryError::Tls(_)
                        | PrimaryError::Store(StoreError::Tls(_) | StoreError::Exposed { .. })
                        | PrimaryError::Keylog(KeylogError::Open { .. })
                )
        )
    }
}

/// Whether [`Service::start`] would take the certificates and keys. Files that cannot be read may not be made yet, and are no
/// error.
///
/// # Errors
/// [`ServiceError`], for the first that cannot be used.
pub fn check(
    primary: Option<&config::Primary>,
    secondary: Option<&config::Secondary>,
) -> Result<(), ServiceError> {
    if let Some(primary) = primary {
        Primary::check(primary)?;
    }
    if let Some(config::Secondary {
        via: SecondaryVia::Remote { tls, .. },
        ..
    }) = secondary
    {
        Certificate::check(tls)?;
    }
    Ok(())
}

/// The running thread. Dropping it stops it.
pub struct Service {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    primary: Option<Arc<Primary>>,
}

impl Service {
    /// The Primary, if there is one.
    #[must_use]
    pub fn primary(&self) -> Option<Arc<Primary>> {
        self.primary.clone()
    }

    /// Opens everything, then starts the thread. `prometheus` is where a Primary alone tells its numbers.
    ///
    /// # Errors
    /// [`ServiceError`]; nothing runs then.
    pub fn start(
        primary: Option<&config::Primary>,
        prometheus: Option<SocketAddr>,
        secondary: Option<(&config::Secondary, AgentEnd)>,
    ) -> Result<Self, ServiceError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ServiceError::Thread)?;
        let opened = match primary {
            Some(config) => Some(runtime.block_on(Primary::open(config, prometheus))?),
            None => None,
        };
        let agent = match secondary {
            None => None,
            Some((config, end)) => {
                let via = match &config.via {
                    SecondaryVia::Embedded { name } => Via::Embedded {
                        primary: opened
                            .as_ref()
                            .map(|opened| Arc::clone(&opened.primary))
                            .ok_or(ServiceError::NoPrimary)?,
                        name: name.as_str().to_owned(),
                    },
                    SecondaryVia::Remote {
                        addresses,
                        primary_name,
                        tls,
                    } => Via::Remote {
                        addresses: addresses.iter().map(ToString::to_string).collect(),
                        name: primary_name.as_str().to_owned(),
                        certificate: Box::new(Certificate::load(tls)?),
                    },
                };
                Some((Agent::new(config.entries.clone(), end)?, via))
            }
        };
        let running = opened.as_ref().map(|opened| Arc::clone(&opened.primary));
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name("registration".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let agent = agent.map(|(agent, via)| tokio::spawn(agent.run(via)));
                    let mut until = stopped.clone();
                    match opened {
                        Some(opened) => opened.run(stopped).await,
                        None => {
                            // An error means that the other end is gone, which is a stop as well.
                            let _ = until.wait_for(|stop| *stop).await;
                        }
                    }
                    if let Some(agent) = agent {
                        agent.abort();
                    }
                });
                runtime.shutdown_timeout(GRACE);
            })
            .map_err(ServiceError::Thread)?;
        Ok(Self {
            stop,
            thread: Some(thread),
            primary: running,
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by then, and there is nothing left to stop.
            let _ = thread.join();
        }
    }
}
