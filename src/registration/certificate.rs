//! Our certificate, read again when its files change: a new one takes effect with the next connection, without a restart.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsStream;

use super::tls::{self, Identity, TlsError, TlsFiles};

/// How long a connection may take, handshake and all.
const CONNECT: Duration = Duration::from_secs(5);
/// How often files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A certificate that follows its files.
#[derive(Debug)]
pub struct Certificate {
    files: TlsFiles,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    identity: Arc<Identity>,
    /// When the files that it was read from, or that could not be read since, were changed.
    changed: Vec<Option<SystemTime>>,
    looked: Instant,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        // Before they are read: a change meanwhile is seen next time.
        let changed = changed(files);
        let identity = Arc::new(Identity::load(files)?);
        Ok(Self {
            files: files.clone(),
            current: Mutex::new(Current {
                identity,
                changed,
                looked: Instant::now(),
            }),
        })
    }

    /// Whether [`load`](Self::load) would read the files. Those that cannot be read may not be made yet, and are no error.
    ///
    /// # Errors
    /// [`TlsError`], but not [`TlsError::Read`].
    pub fn check(files: &TlsFiles) -> Result<(), TlsError> {
        match Identity::load(files) {
            Ok(_) | Err(TlsError::Read { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The newest that can be used.
    pub fn current(&self) -> Arc<Identity> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK_EVERY {
            current.look(&self.files);
        }
        Arc::clone(&current.identity)
    }

    /// Connects to `address` (`host:port`), where the peer must be called `name`; the connection, and when the peer's certificate ends.
    ///
    /// # Errors
    /// Why not, for people.
    pub async fn connect(
        &self,
        address: &str,
        name: &str,
    ) -> Result<(TlsStream<TcpStream>, SystemTime), String> {
        let identity = self.current();
        let connected = timeout(CONNECT, async {
            let stream = TcpStream::connect(address).await;
            let stream = stream.map_err(|error| error.to_string())?;
            let _ = stream.set_nodelay(true);
            let stream = identity.connect(stream, name).await;
            stream.map_err(|error| error.to_string())
        });
        let stream = connected
            .await
            .map_err(|_| format!("no answer in {} s", CONNECT.as_secs()))??;
        let expires = tls::peer_expires(&stream).map_err(|error| error.to_string())?;
        Ok((stream, expires))
    }
}

impl Current {
    fn look(&mut self, files: &TlsFiles) {
        self.looked = Instant::now();
        let changed = changed(files);
        if changed == self.changed {
            return;
        }
        self.changed = changed;
        let name = files.certificate.display();
        match Identity::load(files) {
            Ok(identity) => {
                tracing::info!("{name} and its companions were read again");
                self.identity = Arc::new(identity);
            }
            // They may be in the middle of being replaced; the next change is looked at again.
            Err(error) => tracing::warn!("the certificate stays as it was: {error}"),
        }
    }
}

fn changed(files: &TlsFiles) -> Vec<Option<SystemTime>> {
    files
        .all()
        .map(|path| fs::metadata(path).and_then(|about| about.modified()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::registration::keygen;

    fn write(folder: &Path, name: &str) {
        let now = time::OffsetDateTime::now_utc();
        let ca = keygen::authority("lab", 10, now).expect("an authority");
        let names = [crate::config::DnsName::parse(name).expect("a name")];
        let issued = keygen::certificate(&ca.certificate, &ca.key, &names, 5, now);
        let issued = issued.expect("a certificate");
        for (file, text) in [
            ("ca.pem", &*ca.certificate),
            ("a.pem", &*issued.certificate),
            ("a.key", &*issued.key),
        ] {
            let path = folder.join(file);
            fs::write(&path, text).expect("a file");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(path, mode).expect("a mode");
        }
    }

    #[test]
    fn new_files_are_read_and_broken_ones_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        write(folder.path(), "one.example");
        let files = TlsFiles {
            certificate: path("a.pem"),
            key: path("a.key"),
            authorities: path("ca.pem"),
            revocations: None,
        };
        let certificate = Certificate::load(&files).expect("a certificate");
        let name = || certificate.current().names()[0].to_string();
        let look = || {
            let mut current = certificate.current.lock().expect("a lock");
            current.look(&files);
        };
        assert_eq!(name(), "one.example");
        assert!(Certificate::check(&files).is_ok());

        fs::write(path("a.pem"), "nonsense").expect("a file");
        assert!(matches!(
            Certificate::check(&files),
            Err(TlsError::Pem { .. })
        ));
        look();
        assert_eq!(name(), "one.example");

        write(folder.path(), "two.example");
        look();
        assert_eq!(name(), "two.example");

        fs::remove_file(path("a.pem")).expect("a file");
        assert!(Certificate::check(&files).is_ok());
    }
}
