//! Why a subcommand ends badly, how it is told, and with which exit code.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use hyper::StatusCode;
use thiserror::Error;

use super::keygen::KeygenFailure;
use crate::config::ConfigError;
use crate::decode::capture::CaptureError;
use crate::manage::{PrimaryRunError, RunError};
use crate::registration::{
    analyze::AnalyzeError, message::Reason, primary::keylog::ReadError, service::ServiceError,
};
use crate::snapshot::BuildError;
use crate::telemetry::client::ClientError;

/// `EX_CONFIG` of sysexits.h, so that a service manager can tell what no restart will cure.
const EXIT_CONFIG: u8 = 78;

/// What clap ends with.
const EXIT_USAGE: u8 = 2;

/// What ends a subcommand.
#[derive(Debug, Error)]
pub enum Failure {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The running appliance cannot be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The running Primary cannot be asked, or refuses.
    #[error(transparent)]
    Operator(ClientError),
    /// The appliance does not run.
    #[error(transparent)]
    Run(RunError),
    /// Certificates or keys that the configuration names cannot be used.
    #[error(transparent)]
    Files(ServiceError),
    /// The Primary does not run.
    #[error(transparent)]
    Primary(PrimaryRunError),
    /// The secrets cannot be made ready.
    #[error(transparent)]
    Secrets(#[from] BuildError),
    /// A capture, or the rest of it, cannot be read.
    #[error("{}: {source}", path.display())]
    Capture {
        /// The capture.
        path: PathBuf,
        /// Why not.
        source: CaptureError,
    },
    /// The keylog cannot be read.
    #[error(transparent)]
    Keylog(#[from] ReadError),
    /// The Primary gave nothing to analyse with.
    #[error(transparent)]
    Analyze(#[from] AnalyzeError),
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(&'static str),
    /// No certificate, key or secret was made.
    #[error(transparent)]
    Keygen(#[from] KeygenFailure),
    /// Standard output takes nothing more.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
    /// A record cannot be written as JSON.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Config(error) => Self::Config(error),
            other => Self::Run(other),
        }
    }
}

impl From<PrimaryRunError> for Failure {
    fn from(error: PrimaryRunError) -> Self {
        match error {
            PrimaryRunError::Config(error) => Self::Config(error),
            other => Self::Primary(other),
        }
    }
}

/// Whether whoever answered knows no such question, as at the other of the two sockets.
fn is_elsewhere(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { status, message }
        if *status == StatusCode::NOT_FOUND && message.is_empty())
}

impl Failure {
    /// Whether the reader of standard output has left. It had enough, so nothing went wrong: `pdmgate flows | head`.
    fn is_closed_pipe(&self) -> bool {
        let kind = match self {
            Self::Output(error) => Some(error.kind()),
            Self::Json(error) => error.io_error_kind(),
            _ => None,
        };
        kind == Some(io::ErrorKind::BrokenPipe)
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Client(ClientError::Unreachable { .. }) => Some(
                "is `pdmgate run` running? --socket must name what telemetry.socket of its configuration names",
            ),
            Self::Operator(ClientError::Unreachable { .. }) => Some(
                "is the Primary running, by `pdmgate primary` or `pdmgate run`? --socket must name what primary.socket of its configuration names",
            ),
            Self::Client(error) if is_elsewhere(error) => Some(
                "that is the socket of a Primary: --socket must name what telemetry.socket of the appliance's configuration names",
            ),
            Self::Operator(error) if is_elsewhere(error) => Some(
                "that is the socket of an appliance's numbers: --socket must name what primary.socket of the Primary's configuration names",
            ),
            Self::Client(ClientError::Forbidden { .. })
            | Self::Operator(ClientError::Forbidden { .. }) => Some(
                "the socket is its owner's alone: run this as the user that runs what is behind it",
            ),
            Self::Client(ClientError::Unreadable(_))
            | Self::Operator(ClientError::Unreadable(_)) => {
                Some("use the pdmgate of the version that is running")
            }
            Self::Capture {
                source: CaptureError::LinkType { .. },
                ..
            } => Some("capture on one interface, with its Ethernet header: not on `any`"),
            Self::Analyze(AnalyzeError::Refused {
                reason: Reason::NotAllowed,
                ..
            }) => Some(
                "the Primary's configuration must have such a pairing, and this name among its `analyzers`",
            ),
            Self::Analyze(AnalyzeError::NoAnswer { .. }) => Some(
                "the Primary's log says why it closed the connection; does an authority that it trusts sign this certificate?",
            ),
            Self::Usage(_) => Some("see `pdmgate decode --help`"),
            Self::Keygen(KeygenFailure::Exists { .. }) => {
                Some("--force replaces it; whoever relies on the old one then needs the new one")
            }
            Self::Keygen(KeygenFailure::Authority { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Some("`pdmgate keygen ca` makes an authority in that folder")
            }
            _ => None,
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Config(_) => EXIT_CONFIG,
            Self::Files(error)
            | Self::Run(RunError::Registration(error))
            | Self::Primary(PrimaryRunError::Service(error))
                if error.is_of_files() =>
            {
                EXIT_CONFIG
            }
            Self::Usage(_) => EXIT_USAGE,
            _ => 1,
        })
    }

    /// Says on standard error what happened.
    pub fn report(&self) -> ExitCode {
        if self.is_closed_pipe() {
            return ExitCode::SUCCESS;
        }
        eprintln!("pdmgate: error: {self}");
        if let Some(hint) = self.hint() {
            eprintln!("  hint: {hint}");
        }
        self.exit_code()
    }
}
