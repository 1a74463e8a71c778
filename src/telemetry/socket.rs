//! The file of the local socket: who may connect, and whose it is.
//!
//! The socket is bound inside a directory that only its owner can enter, given mode 0600 there, and then renamed to its
//! path. So nobody can connect before the mode is set, and a socket that a process left behind is replaced in one step.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why the socket cannot be had.
#[derive(Debug, Error)]
pub enum ClaimError {
    /// Another process answers there.
    #[error("another process answers at {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not a socket is there. It is not ours to delete.
    #[error("{} exists and is not a socket", path.display())]
    NotASocket {
        /// What is there.
        path: PathBuf,
    },
    /// The path has no file name, or is longer than a socket's can be (107 bytes).
    #[error("{} cannot be a socket's path: at most 107 bytes that end in a file name", path.display())]
    BadPath {
        /// The path.
        path: PathBuf,
    },
    /// The file system refuses.
    #[error("cannot create {}: {source}", path.display())]
    Io {
        /// What was to be made.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A bound socket whose file goes away with it.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    /// Device and inode, so that a successor's file is not removed.
    identity: (u64, u64),
}

impl Claim {
    /// Binds `path`, creates its directory if there is none, and replaces a socket at which nobody answers.
    ///
    /// # Errors
    /// [`ClaimError`]; what stood at `path` is left alone then.
    pub fn bind(path: &Path) -> Result<(Self, UnixListener), ClaimError> {
        if path.file_name().is_none() || SocketAddr::from_pathname(path).is_err() {
            return Err(ClaimError::BadPath {
                path: path.to_owned(),
            });
        }
        let failed = |source| ClaimError::Io {
            path: path.to_owned(),
            source,
        };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(directory).map_err(|source| ClaimError::Io {
            path: directory.to_owned(),
            source,
        })?;
        check_free(path)?;

        let staging = Staging::create(directory).map_err(failed)?;
        let staged = staging.0.join("s");
        let listener = UnixListener::bind(&staged).map_err(failed)?;
        fs::set_permissions(&staged, Permissions::from_mode(0o600)).map_err(failed)?;
        let identity = identity(&staged).map_err(failed)?;
        fs::rename(&staged, path).map_err(failed)?;
        let claim = Self {
            path: path.to_owned(),
            identity,
        };
        Ok((claim, listener))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // If it cannot be removed, the next start replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()))
}

fn check_free(path: &Path) -> Result<(), ClaimError> {
    let path_owned = || path.to_owned();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ClaimError::Io {
            path: path_owned(),
            source,
        }),
        Ok(meta) if !meta.file_type().is_socket() => {
            Err(ClaimError::NotASocket { path: path_owned() })
        }
        Ok(_) => match UnixStream::connect(path) {
            // Refused is what a socket says that its process left behind.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(source) => Err(ClaimError::Io {
                path: path_owned(),
                source,
            }),
            Ok(_) => Err(ClaimError::InUse { path: path_owned() }),
        },
    }
}

/// A directory for the owner alone, gone when dropped.
struct Staging(PathBuf);

impl Staging {
    fn create(beside: &Path) -> io::Result<Self> {
        let number = getrandom::u32().map_err(io::Error::other)?;
        let path = beside.join(OsString::from(format!(".{number:08x}")));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn the_owner_alone_may_connect_and_nothing_else_is_left() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run/deep/pdmgate.sock");
        let (claim, listener) = Claim::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert_eq!(entries(path.parent().unwrap()), 1);
        drop(claim);
        assert_eq!(entries(path.parent().unwrap()), 0);
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (_claim, _listener) = Claim::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_socket_that_answers_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("s");
        let (_claim, _listener) = Claim::bind(&path).unwrap();
        let error = Claim::bind(&path).unwrap_err();
        assert!(matches!(error, ClaimError::InUse { .. }), "{error}");
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("precious");
        fs::write(&path, "data").unwrap();
        let error = Claim::bind(&path).unwrap_err();
        assert!(matches!(error, ClaimError::NotASocket { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused() {
        let long = format!("/tmp/{}", "x".repeat(120));
        for path in ["/", long.as_str()] {
            let error = Claim::bind(Path::new(path)).unwrap_err();
            assert!(matches!(error, ClaimError::BadPath { .. }), "{error}");
        }
    }

    #[test]
    fn a_successors_socket_outlives_its_predecessor() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("s");
        let (first, listener) = Claim::bind(&path).unwrap();
        drop(listener);
        let (_second, _listener) = Claim::bind(&path).unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
    }
}
