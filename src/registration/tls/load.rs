//! Certificates, keys, authorities and revocations from files (PEM, RFC 7468).

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    RootCertStore,
    client::WebPkiServerVerifier,
    crypto::{CryptoProvider, ring},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use thiserror::Error;
use x509_parser::prelude::{CertificateRevocationList, FromDer};
use zeroize::{Zeroize, Zeroizing};

use super::peer::{About, time};

/// Files of more bytes are something else.
const MAX_FILE: u64 = 16 << 20;

pub use crate::config::TlsFiles;

/// Why an identity cannot be used. Every one names the file, save [`Provider`](Self::Provider).
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is far too large.
    #[error("expected at most {MAX_FILE} bytes in {}, found more", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The key is open to everyone.
    #[error(
        "{} holds a private key and is open to everyone (mode {mode:04o}): chmod o-rwx it",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The key is encrypted, and nobody would be there to type the passphrase.
    #[error(
        "expected a private key that is not encrypted in {}, found an encrypted one: decrypt it, for example by `openssl pkey`, and protect the file by its mode",
        path.display()
    )]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// The file is no PEM, or has not what is needed in it.
    #[error("expected {expected} in {}, found {fault}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
        /// What is wrong.
        fault: String,
    },
    /// A key of a kind that cannot be used.
    #[error(
        "expected an ECDSA (P-256, P-384), Ed25519 or RSA private key in {}: {source}",
        path.display()
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// Key and certificate belong to others.
    #[error("the key {} does not belong to the first certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate cannot be used.
    #[error("cannot use the certificate {}: {fault}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        fault: String,
    },
    /// An authority's certificate cannot be used.
    #[error("cannot use authority {number} of {}: {fault}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Its place in the file, from 1.
        number: usize,
        /// Why not.
        fault: String,
    },
    /// A revocation list cannot be used.
    #[error("cannot use the revocation list {}: {fault}", path.display())]
    Revocations {
        /// The file.
        path: PathBuf,
        /// Why not.
        fault: String,
    },
    /// The cryptographic provider does not do TLS 1.3.
    #[error("TLS 1.3 cannot be set up: {source}")]
    Provider {
        /// Why not.
        source: rustls::Error,
    },
}

/// What both ends are made of.
pub(super) struct Loaded {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) credentials: Arc<SingleCertAndKey>,
    pub(super) client_verifier: Arc<dyn ClientCertVerifier>,
    pub(super) server_verifier: Arc<WebPkiServerVerifier>,
    pub(super) about: About,
    /// When the first revocation list is due to be replaced.
    pub(super) revocations_due: Option<SystemTime>,
}

pub(super) fn load(files: &TlsFiles) -> Result<Loaded, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let (credentials, about) = load_credentials(files)?;
    let authorities = Arc::new(load_authorities(&files.authorities)?);
    let (revocations, revocations_due) = match &files.revocations {
        Some(path) => load_revocations(path)?,
        None => (Vec::new(), None),
    };
    // The authorities are there, so only a revocation list can be wrong.
    let wrong = |error: rustls::client::VerifierBuilderError| TlsError::Revocations {
        path: files.revocations.clone().unwrap_or_default(),
        fault: error.to_string(),
    };
    let client_verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::clone(&authorities),
        Arc::clone(&provider),
    )
    .with_crls(revocations.iter().cloned())
    .allow_unknown_revocation_status()
    .build()
    .map_err(wrong)?;
    let server_verifier =
        WebPkiServerVerifier::builder_with_provider(authorities, Arc::clone(&provider))
            .with_crls(revocations)
            .allow_unknown_revocation_status()
            .build()
            .map_err(wrong)?;
    Ok(Loaded {
        provider,
        credentials,
        client_verifier,
        server_verifier,
        about,
        revocations_due,
    })
}

fn load_credentials(files: &TlsFiles) -> Result<(Arc<SingleCertAndKey>, About), TlsError> {
    let path = &files.certificate;
    let credentials = load_pair(path, &files.key)?;
    let unusable = |fault: String| TlsError::Certificate {
        path: path.clone(),
        fault,
    };
    let about = credentials
        .cert
        .first()
        .ok_or_else(|| unusable("there is none".to_owned()))
        .and_then(|leaf| About::read(leaf).map_err(|error| unusable(error.to_string())))?;
    Ok((Arc::new(credentials.into()), about))
}

/// A certificate with its chain, and the key that belongs to it.
fn load_pair(path: &Path, key_path: &Path) -> Result<CertifiedKey, TlsError> {
    let (text, _) = read(path)?;
    let chain: Vec<CertificateDer<'static>> = sections(path, "a certificate", &text)?;
    let mut key = load_key(key_path)?;
    let signing = ring::sign::any_supported_type(&key);
    key.zeroize();
    let signing = signing.map_err(|source| TlsError::Key {
        path: key_path.to_owned(),
        source,
    })?;
    let credentials = CertifiedKey::new(chain, signing);
    match credentials.keys_match() {
        Ok(()) => Ok(credentials),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Mismatch {
            certificate: path.to_owned(),
            key: key_path.to_owned(),
        }),
        Err(error) => Err(TlsError::Certificate {
            path: path.to_owned(),
            fault: error.to_string(),
        }),
    }
}

/// Reads and checks authorities, and a certificate with its key, for a protocol to which the certificate's names do not matter.
///
/// # Errors
/// [`TlsError`].
pub fn check_files(authorities: &Path, pair: Option<(&Path, &Path)>) -> Result<(), TlsError> {
    load_authorities(authorities)?;
    if let Some((certificate, key)) = pair {
        load_pair(certificate, key)?;
    }
    Ok(())
}

fn load_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let (text, mode) = read(path)?;
    if mode & 0o007 != 0 {
        return Err(TlsError::Exposed {
            path: path.to_owned(),
            mode: mode & 0o7777,
        });
    }
    let has = |words: &[u8]| text.windows(words.len()).any(|window| window == words);
    if has(b"-----BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::Encrypted {
            path: path.to_owned(),
        });
    }
    let mut keys: Vec<PrivateKeyDer<'static>> = sections(path, "a private key", &text)?;
    match (keys.pop(), keys.len()) {
        (Some(key), 0) => Ok(key),
        (last, others) => {
            keys.extend(last);
            keys.iter_mut().for_each(Zeroize::zeroize);
            Err(TlsError::Pem {
                path: path.to_owned(),
                expected: "one private key",
                fault: format!("{}", others + 1),
            })
        }
    }
}

fn load_authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let (text, _) = read(path)?;
    let mut store = RootCertStore::empty();
    let authorities: Vec<CertificateDer<'_>> = sections(path, "an authority's certificate", &text)?;
    for (number, authority) in (1..).zip(authorities) {
        store.add(authority).map_err(|error| TlsError::Authority {
            path: path.to_owned(),
            number,
            fault: error.to_string(),
        })?;
    }
    Ok(store)
}

type Revocations = Vec<CertificateRevocationListDer<'static>>;

fn load_revocations(path: &Path) -> Result<(Revocations, Option<SystemTime>), TlsError> {
    let (text, _) = read(path)?;
    let lists: Revocations = sections(path, "a revocation list", &text)?;
    let mut due: Option<SystemTime> = None;
    for list in &lists {
        let (_, list) =
            CertificateRevocationList::from_der(list).map_err(|error| TlsError::Revocations {
                path: path.to_owned(),
                fault: error.to_string(),
            })?;
        let next = list.next_update().map(|next| time(next.timestamp()));
        due = match (due, next) {
            (Some(due), Some(next)) => Some(due.min(next)),
            (due, next) => due.or(next),
        };
    }
    Ok((lists, due))
}

/// A file's bytes, zeroed when dropped, and its mode.
fn read(path: &Path) -> Result<(Zeroizing<Vec<u8>>, u32), TlsError> {
    let fails = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(fails)?;
    let about = file.metadata().map_err(fails)?;
    if about.len() > MAX_FILE {
        return Err(TlsError::TooLarge {
            path: path.to_owned(),
        });
    }
    // All of it at once: a buffer that grows leaves copies behind.
    let room = usize::try_from(about.len()).unwrap_or(0) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(fails)?;
    Ok((bytes, about.mode()))
}

/// All sections of one kind, at least one.
fn sections<T: PemObject>(
    path: &Path,
    expected: &'static str,
    text: &[u8],
) -> Result<Vec<T>, TlsError> {
    let wrong = |error: pem::Error| TlsError::Pem {
        path: path.to_owned(),
        expected,
        fault: match error {
            pem::Error::NoItemsFound => "none".to_owned(),
            // The rest of the errors quote the file, which may be the key's.
            pem::Error::MissingSectionEnd { .. } => "a PEM section without an end".to_owned(),
            pem::Error::IllegalSectionStart { .. } => "a PEM section with a wrong start".to_owned(),
            _ => "PEM that cannot be read".to_owned(),
        },
    };
    let sections = T::pem_slice_iter(text).collect::<Result<Vec<T>, _>>();
    match sections {
        Ok(sections) if sections.is_empty() => Err(wrong(pem::Error::NoItemsFound)),
        sections => sections.map_err(wrong),
    }
}
