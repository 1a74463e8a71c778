//! Who is at the other end.

use std::{
    io,
    time::{Duration, SystemTime},
};

use thiserror::Error;
use tokio_rustls::TlsStream;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::ALPN;
use crate::registration::name::{NotAName, PeerName};

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum PeerError {
    /// The name to connect to is none.
    #[error(transparent)]
    ServerName(#[from] NotAName),
    /// The handshake failed: certificates, version, protocol, or the connection itself.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[source] io::Error),
    /// The handshake took too long.
    #[error("expected the TLS handshake to end within {} s", limit.as_secs())]
    Late {
        /// The limit.
        limit: Duration,
    },
    /// The peer does not say that it speaks the protocol.
    #[error("expected the application protocol pdmv2-reg/1, found none")]
    NoAlpn,
    /// Somebody else answered.
    #[error("expected the peer {expected}, found {}", listed(found))]
    WrongName {
        /// Who should have.
        expected: PeerName,
        /// The names of whoever did.
        found: Vec<PeerName>,
    },
    /// The peer's certificate cannot be read, though it was verified.
    #[error("cannot read the peer's certificate: {fault}")]
    Certificate {
        /// Why not.
        fault: String,
    },
    /// The peer's certificate has no name to know it by.
    #[error("expected a certificate with a dNSName without wildcard, found none")]
    NoName,
}

impl PeerError {
    /// One word for counters.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::ServerName(_) | Self::WrongName { .. } => "wrong-name",
            Self::Handshake(_) => "handshake",
            Self::Late { .. } => "late",
            Self::NoAlpn => "alpn",
            Self::Certificate { .. } | Self::NoName => "certificate",
        }
    }
}

fn listed(names: &[PeerName]) -> String {
    let names: Vec<&str> = names.iter().map(PeerName::as_str).collect();
    names.join(", ")
}

/// What a certificate says of its owner.
pub(super) struct About {
    pub(super) names: Vec<PeerName>,
    pub(super) begins: SystemTime,
    pub(super) expires: SystemTime,
}

impl About {
    pub(super) fn read(der: &[u8]) -> Result<Self, PeerError> {
        let fault = |fault: String| PeerError::Certificate { fault };
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|error| fault(error.to_string()))?;
        let alternatives = certificate
            .subject_alternative_name()
            .map_err(|error| fault(error.to_string()))?;
        let mut names: Vec<PeerName> = alternatives
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => name.parse().ok(),
                _ => None,
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Err(PeerError::NoName);
        }
        let validity = certificate.validity();
        Ok(Self {
            names,
            begins: time(validity.not_before.timestamp()),
            expires: time(validity.not_after.timestamp()),
        })
    }
}

/// A time in seconds since 1970; earlier ones count as 1970.
pub(super) fn time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn about<T>(stream: &TlsStream<T>) -> Result<About, PeerError> {
    let (_, session) = stream.get_ref();
    let certificate = session
        .peer_certificates()
        .and_then(|chain| chain.first())
        .ok_or_else(|| PeerError::Certificate {
            fault: "there is none".to_owned(),
        })?;
    About::read(certificate)
}

/// The dNSNames of the peer's verified certificate, in order, each once, never none. Those with a wildcard are left out.
///
/// # Errors
/// [`PeerError::Certificate`] and [`PeerError::NoName`].
pub fn peer_names<T>(stream: &TlsStream<T>) -> Result<Vec<PeerName>, PeerError> {
    about(stream).map(|about| about.names)
}

/// When the peer's verified certificate expires. No connection should live longer.
///
/// # Errors
/// [`PeerError::Certificate`] and [`PeerError::NoName`].
pub fn peer_expires<T>(stream: &TlsStream<T>) -> Result<SystemTime, PeerError> {
    about(stream).map(|about| about.expires)
}

/// rustls refuses another protocol, but not a peer that names none.
pub(super) fn check_alpn<T>(stream: &TlsStream<T>) -> Result<(), PeerError> {
    let (_, session) = stream.get_ref();
    match session.alpn_protocol() {
        Some(found) if found == ALPN => Ok(()),
        _ => Err(PeerError::NoAlpn),
    }
}
