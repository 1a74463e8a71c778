//! `pdmgate primary`: a Primary alone.

use std::{path::Path, time::Duration};

use thiserror::Error;

use super::core::Signals;
use crate::{
    config::{ConfigError, PrimaryFile},
    registration::service::{Service, ServiceError},
};

/// How soon a signal is seen.
const TICK: Duration = Duration::from_millis(50);

/// Why a Primary does not run.
#[derive(Debug, Error)]
pub enum PrimaryRunError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The Primary does not start.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// Signals cannot be caught.
    #[error("cannot catch signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// Runs the Primary that the file at `path` describes, until SIGTERM or SIGINT.
///
/// # Errors
/// [`PrimaryRunError`], always from the start; once it runs it ends well.
pub fn run_primary(path: &Path) -> Result<(), PrimaryRunError> {
    let file = PrimaryFile::load(path)?;
    for warning in &file.warnings {
        tracing::warn!("{warning}");
    }
    let signals = Signals::catch().map_err(PrimaryRunError::Signals)?;
    let prometheus = file.telemetry.prometheus.map(|address| address.get());
    let service = Service::start(Some(&file.primary), prometheus, None)?;
    tracing::info!(pairings = file.primary.pairings.len(), "running");
    while !signals.is_stopped() {
        if signals.is_reload_wanted() {
            tracing::warn!(
                "SIGHUP changes nothing here: new certificates are read by themselves, `pdmgate lists` changes lists, and all else takes a restart, which traffic does not notice"
            );
        }
        std::thread::sleep(TICK);
    }
    tracing::info!("stopping");
    drop(service);
    tracing::info!("stopped");
    Ok(())
}
