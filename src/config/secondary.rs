//! `secondary`: this appliance is a Secondary for its hosts (protocol section 5).

use std::path::PathBuf;

use serde::Deserialize;

use super::{
    primary::TlsFiles,
    scalar::At,
    types::{DnsName, HostPort, Prefix},
};

/// `secondary`, checked and with its defaults.
#[derive(Debug)]
pub struct Secondary {
    /// How its Primary is reached.
    pub via: SecondaryVia,
    /// The entries that it serves, 1 to 4096, each once.
    pub entries: Vec<Prefix>,
}

/// Where a Secondary's Primary is.
#[derive(Debug)]
pub enum SecondaryVia {
    /// In this process, which knows the Secondary by a name; no TLS between the two.
    Embedded {
        /// One of `primary.secondaries`.
        name: DnsName,
    },
    /// Elsewhere.
    Remote {
        /// Where it listens, at least one address, to be tried in turn.
        addresses: Vec<HostPort>,
        /// The name in its certificate.
        primary_name: DnsName,
        /// Our certificate and whose we trust.
        tls: TlsFiles,
    },
}

/// `secondary` as it stands in the file. All its relative paths start at the configuration's folder.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecondarySection {
    /// Where the Primary listens, tried in turn. Default null: the Primary is the file's own, under `primary`.
    #[serde(default)]
    pub(super) primary: Option<At<Vec<HostPort>>>,
    /// The name in the Primary's certificate. Default: the host of the first address, if that is a name.
    #[serde(default)]
    pub(super) primary_name: Option<At<DnsName>>,
    /// The certificate and its chain, PEM. Must be given with `primary`, as the next two.
    #[serde(default)]
    pub(super) certificate: Option<At<PathBuf>>,
    /// Its private key, PEM, not accessible to others.
    #[serde(default)]
    pub(super) key: Option<At<PathBuf>>,
    /// The authorities that sign the Primary's certificate, PEM.
    #[serde(default)]
    pub(super) authorities: Option<At<PathBuf>>,
    /// What these have revoked (CRL), PEM. Default null: nothing.
    #[serde(default)]
    pub(super) revocations: Option<At<PathBuf>>,
    /// Which of `primary.secondaries` this appliance is; only without `primary`. Default: the only one.
    #[serde(default)]
    pub(super) name: Option<At<DnsName>>,
    /// The entries whose hosts are behind the inside port, 1 to 4096, each once. Must be given with `primary`; default otherwise: all that
    /// `primary.secondaries` allows.
    #[serde(default)]
    pub(super) entries: Option<At<Vec<At<Prefix>>>>,
}
