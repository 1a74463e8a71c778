//! TLS under registration (protocol section 5): TLS 1.3 only, both certificates checked, ALPN `pdmv2-reg/1` at both ends.
//!
//! The provider is `ring`, named here and not left to a process-wide default. A peer goes by the dNSNames of its certificate
//! ([`peer_names`]), compared byte by byte; wildcards count for nothing.
//!
//! There is no resumption, at either end: a resumed session skips the check of the certificate, so one that has expired or was revoked
//! since would get in. Connections live for days, so a full handshake costs nothing. Without tickets there is no early data either.
//!
//! In TLS 1.3 the connecting end is done before its own certificate is checked. If that is refused, it learns so from its first read.

mod load;
mod peer;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use humantime_serde::re::humantime::{format_duration, format_rfc3339_seconds};
use rustls::{
    ClientConfig, ServerConfig, client::Resumption, server::NoServerSessionStorage, version::TLS13,
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::name::PeerName;
use load::Loaded;
pub use load::{TlsError, TlsFiles, check_files};
pub use peer::{PeerError, peer_expires, peer_names};

/// The only application protocol spoken.
pub const ALPN: &[u8] = b"pdmv2-reg/1";
/// How long a handshake may take.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// From how long before its end on a certificate is warned of.
pub const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// A certificate with its key, and the authorities that peers' certificates must come from.
#[derive(Clone)]
pub struct Identity {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    certificate: PathBuf,
    names: Vec<PeerName>,
    begins: SystemTime,
    expires: SystemTime,
    /// The file of revocations, and when the first list in it should have been replaced.
    revocations: Option<(PathBuf, SystemTime)>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Identity")
            .field("certificate", &self.certificate)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// What an operator should do something about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The certificate is of no use yet.
    NotYet {
        /// Its file.
        path: PathBuf,
        /// When it begins.
        begins: SystemTime,
    },
    /// The certificate is of no use any more.
    Expired {
        /// Its file.
        path: PathBuf,
        /// When it ended.
        expired: SystemTime,
    },
    /// The certificate ends within [`EXPIRES_SOON`].
    ExpiresSoon {
        /// Its file.
        path: PathBuf,
        /// When it ends.
        expires: SystemTime,
        /// How long that is from now, in whole hours.
        left: Duration,
    },
    /// A list of revocations should have been replaced by a newer one. It is still obeyed.
    OldRevocations {
        /// Its file.
        path: PathBuf,
        /// When.
        due: SystemTime,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotYet { path, begins } => write!(
                out,
                "the certificate {} is not valid before {}",
                path.display(),
                format_rfc3339_seconds(*begins)
            ),
            Self::Expired { path, expired } => write!(
                out,
                "the certificate {} expired at {}",
                path.display(),
                format_rfc3339_seconds(*expired)
            ),
            Self::ExpiresSoon {
                path,
                expires,
                left,
            } => write!(
                out,
                "the certificate {} expires in {}, at {}",
                path.display(),
                format_duration(*left),
                format_rfc3339_seconds(*expires)
            ),
            Self::OldRevocations { path, due } => write!(
                out,
                "the revocation list {} was due to be replaced at {}",
                path.display(),
                format_rfc3339_seconds(*due)
            ),
        }
    }
}

impl Identity {
    /// Reads and checks the files. Call it again to take in changed ones.
    ///
    /// # Errors
    /// See [`TlsError`]; it names the file. An expired certificate is no error, see [`warnings`](Self::warnings).
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let Loaded {
            provider,
            credentials,
            client_verifier,
            server_verifier,
            about,
            revocations_due,
        } = load::load(files)?;

        let versions = &[&TLS13];
        let wrong = |source| TlsError::Provider { source };
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(wrong)?
            .with_client_cert_verifier(client_verifier)
            .with_cert_resolver(Arc::clone(&credentials) as _);
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(wrong)?
            .with_webpki_verifier(server_verifier)
            .with_client_cert_resolver(credentials);
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();

        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
            certificate: files.certificate.clone(),
            names: about.names,
            begins: about.begins,
            expires: about.expires,
            revocations: files.revocations.clone().zip(revocations_due),
        })
    }

    /// The accepting end. A peer that names no application protocol gets through it; [`accept`](Self::accept) refuses that too.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// The connecting end. A peer that names no application protocol, or has a wildcard in its certificate, gets through it;
    /// [`connect`](Self::connect) refuses both.
    #[must_use]
    pub fn connector(&self) -> TlsConnector {
        self.connector.clone()
    }

    /// The certificate's own names.
    #[must_use]
    pub fn names(&self) -> &[PeerName] {
        &self.names
    }

    /// When the certificate expires.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// What is wrong with the certificate or the revocations at `now`, or soon will be.
    #[must_use]
    pub fn warnings(&self, now: SystemTime) -> Vec<Warning> {
        let path = || self.certificate.clone();
        let mut warnings = Vec::new();
        if now < self.begins {
            warnings.push(Warning::NotYet {
                path: path(),
                begins: self.begins,
            });
        }
        match self.expires.duration_since(now) {
            Err(_) => warnings.push(Warning::Expired {
                path: path(),
                expired: self.expires,
            }),
            Ok(left) if left < EXPIRES_SOON => warnings.push(Warning::ExpiresSoon {
                path: path(),
                expires: self.expires,
                left: Duration::from_secs(left.as_secs() / 3600 * 3600),
            }),
            Ok(_) => {}
        }
        if let Some((path, due)) = &self.revocations
            && *due < now
        {
            warnings.push(Warning::OldRevocations {
                path: path.clone(),
                due: *due,
            });
        }
        warnings
    }

    /// Connects to the peer that must be called `server_name`: one of the dNSNames of its certificate, letter by letter.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn connect<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: T,
        server_name: &str,
    ) -> Result<TlsStream<T>, PeerError> {
        let expected: PeerName = server_name.parse()?;
        let name = ServerName::try_from(expected.to_string()).map_err(|_| {
            PeerError::ServerName(super::name::NotAName {
                found: server_name.to_owned(),
            })
        })?;
        let stream = in_time(self.connector.connect(name, stream)).await?;
        let stream = TlsStream::Client(stream);
        peer::check_alpn(&stream)?;
        let found = peer_names(&stream)?;
        if !found.contains(&expected) {
            return Err(PeerError::WrongName { expected, found });
        }
        Ok(stream)
    }

    /// Accepts a peer that has a certificate; who it is, [`peer_names`] says.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn accept<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: T,
    ) -> Result<TlsStream<T>, PeerError> {
        let stream = in_time(self.acceptor.accept(stream)).await?;
        let stream = TlsStream::Server(stream);
        peer::check_alpn(&stream)?;
        Ok(stream)
    }
}

/// A handshake that ends after [`HANDSHAKE_TIME`].
async fn in_time<T>(handshake: impl Future<Output = io::Result<T>>) -> Result<T, PeerError> {
    in_time_of(HANDSHAKE_TIME, handshake).await
}

async fn in_time_of<T>(
    limit: Duration,
    handshake: impl Future<Output = io::Result<T>>,
) -> Result<T, PeerError> {
    match timeout(limit, handshake).await {
        Ok(done) => done.map_err(PeerError::Handshake),
        Err(_) => Err(PeerError::Late { limit }),
    }
}
