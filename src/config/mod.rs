//! The configuration file: YAML, one documented type a section, unknown fields refused.
//!
//! [`Config::load`] reads, checks and returns everything, or says in a [`ConfigError`] which file, line and column is wrong, what was found
//! there and what is allowed. Values are checked in their types while they are read ([`Whole`], [`Period`], [`Prefix`], …); what lies
//! between two values is checked after. `docs/configuration.md` is the same for operators.
//!
//! Secrets ([`Secret`]) are zeroed when dropped, have no readable `Debug`, and neither they nor the line they stand on appear in an error.

mod check;
mod error;
mod pairing;
mod primary;
mod primary_file;
mod scalar;
mod secondary;
mod sections;
mod summary;
#[cfg(test)]
mod tests;
mod types;

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use zeroize::Zeroizing;

pub use error::{ConfigError, Fault};
pub use pairing::{Aead, Client, Generation, Kem, Mode, Pairing, Protection, Server, Suite};
pub use primary::{
    AllowedSecondary, Endpoint, EtcdStore, KeyPrefix, PairKeys, PairingRole, Primary, PrimaryEntry,
    PrimaryPairing, PrimaryStore, Psk, PskId, TlsFiles,
};
pub use primary_file::{ConfigFile, PrimaryFile, PrimaryTelemetry};
pub use scalar::{At, Period, Whole};
pub use secondary::{Secondary, SecondaryVia};
pub use sections::{
    Core, Eal, FailedOpen, Flows, Hugepages, Idle, Malformed, Management, OverMtu, Policy, Port,
    Ports, Receiver, Rotation, Rss, Telemetry, Throttle, Workers,
};
pub use types::{
    Device, DnsName, Group, HostPort, Listen, Name, NotAPrefix, Prefix, Secret, SecretBytes,
    Unicast,
};

use secondary::SecondarySection;
use sections::or_default;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The two links and their queues. Must be given.
    pub ports: Ports,
    /// The threads that carry packets. Default: a chosen core for each queue, polling.
    #[serde(default, deserialize_with = "or_default")]
    pub workers: Workers,
    /// The thread for everything else. Default: a chosen core.
    #[serde(default, deserialize_with = "or_default")]
    pub management: Management,
    /// DPDK and its memory. Default: hugepages where there are any, 16384 packet buffers.
    #[serde(default, deserialize_with = "or_default")]
    pub eal: Eal,
    /// The table of flows. Default: 1048576 flows, 60s.
    #[serde(default, deserialize_with = "or_default")]
    pub flows: Flows,
    /// What happens to packets. Default: nothing is dropped.
    #[serde(default, deserialize_with = "or_default")]
    pub policy: Policy,
    /// When keys change. Default: after 32767 packets or 1h.
    #[serde(default, deserialize_with = "or_default")]
    pub rotation: Rotation,
    /// How far the receiver looks for keys. Default: 16 indices ahead, 200000 a second.
    #[serde(default, deserialize_with = "or_default")]
    pub receiver: Receiver,
    /// Path of the file that remembers generations over restarts; its folder must exist. Default /var/lib/pdmgate/state.json.
    #[serde(default = "state_path")]
    pub state: PathBuf,
    /// Where others read what was measured. Default: Prometheus on 127.0.0.1:9464, socket /run/pdmgate/pdmgate.sock.
    #[serde(default, deserialize_with = "or_default")]
    pub telemetry: Telemetry,
    /// The static pairings. The first that matches both ends of a packet counts. Default none: everything passes untouched.
    #[serde(default, deserialize_with = "or_default")]
    pub pairings: Vec<Pairing>,
    /// This process is a Primary: other Primaries and Secondaries register with it. Default null: it is none.
    #[serde(default)]
    pub primary: Option<Primary>,
    #[serde(default, rename = "secondary")]
    secondary_section: Option<At<SecondarySection>>,
    /// `secondary`: this appliance gets pairings from a Primary. Default null: it has only those of `pairings`.
    #[serde(skip)]
    pub secondary: Option<Secondary>,
    /// What an operator should know about a file that is valid, one sentence each.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

fn state_path() -> PathBuf {
    "/var/lib/pdmgate/state.json".into()
}

impl Config {
    /// Reads and checks a file, and the `pms_file`s that it names.
    ///
    /// # Errors
    /// [`ConfigError::Read`] if the file cannot be read as text, [`ConfigError::Invalid`] with everything that is wrong in it; after an
    /// error of the YAML itself, or of a value by itself, nothing further is looked at.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let (text, mode) = read_file(path)?;
        Self::of_text(&text, mode, path)
    }

    /// Checks the text of the file at `path`, which has `mode`.
    fn of_text(text: &str, mode: u32, path: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::parse(text, path)?;
        let inline = |pairing: &Pairing| pairing.pms.is_some() && pairing.pms_file.is_none();
        if mode & 0o007 != 0 && config.pairings.iter().any(inline) {
            config.warnings.push(format!(
                "{} holds a PairMasterSecret and is open to everyone (mode {:04o}): chmod o-rwx it, or use pms_file",
                path.display(),
                mode & 0o7777,
            ));
        }
        Ok(config)
    }

    /// Checks the text of a file. `file` is named in errors, and relative `pms_file`s start at its folder.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] as for [`load`](Self::load).
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let source = error::Source { file, text };
        let options = serde_saphyr::options! { with_snippet: false };
        let mut config: Self =
            serde_saphyr::from_str_with_options(text, options).map_err(|error| {
                let faults = vec![source.fault_of(&error)];
                ConfigError::Invalid { faults }
            })?;
        let mut faults = check::check(&mut config, &source);
        if faults.is_empty() {
            config.warnings = check::warnings(&config);
            return Ok(config);
        }
        faults.sort_by_key(|fault| (fault.line, fault.column));
        Err(ConfigError::Invalid { faults })
    }

    /// Bytes of the largest IPv6 packet that the ports take and send: `ports.mtu`, or 1500, or `policy.mtu` if that is more.
    #[must_use]
    pub fn port_mtu(&self) -> u16 {
        match &self.ports.mtu {
            Some(mtu) => mtu.get(),
            None => self.policy.mtu.get().max(1500),
        }
    }

    /// Bytes of the longest frame: an IPv6 packet of the ports' MTU behind Ethernet and two VLAN tags.
    #[must_use]
    pub fn longest_frame(&self) -> u16 {
        self.port_mtu() + 14 + 8
    }

    /// Bytes of a packet buffer behind its headroom: `eal.mbuf_size`, or what the longest frame needs if that is more, at least 2048.
    #[must_use]
    pub fn mbuf_size(&self) -> u16 {
        // Some cards deliver the check sequence, AF_XDP takes 256 bytes for itself, and cards use whole units of 1024.
        let needed = (self.longest_frame() + 4 + 256)
            .next_multiple_of(1024)
            .max(2048);
        let wanted = self.eal.mbuf_size.as_ref();
        wanted.map_or(needed, |size| size.get().max(needed))
    }

    /// Packet buffers in the pool: `eal.mbufs`, or 16384, or what the queues need if that is more.
    #[must_use]
    pub fn mbufs(&self) -> u32 {
        match &self.eal.mbufs {
            Some(mbufs) => mbufs.get(),
            None => self.least_mbufs().max(16384),
        }
    }

    /// Packet buffers that full rings of both ports hold, and 512 a queue that are in bursts and caches.
    fn least_mbufs(&self) -> u32 {
        let ports = &self.ports;
        let rings = u32::from(ports.rx_descriptors.get()) + u32::from(ports.tx_descriptors.get());
        u32::from(ports.queues.get()) * (2 * rings + 512)
    }
}

/// The text of a file, zeroed when dropped, and the file's mode.
fn read_file(path: &Path) -> Result<(Zeroizing<String>, u32), ConfigError> {
    read(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

fn read(path: &Path) -> io::Result<(Zeroizing<String>, u32)> {
    let mut file = File::open(path)?;
    let about = file.metadata()?;
    // All of it at once: a string that grows leaves copies behind.
    let room = usize::try_from(about.len()).unwrap_or(0) + 1;
    let mut text = Zeroizing::new(String::with_capacity(room));
    file.read_to_string(&mut text)?;
    Ok((text, about.mode()))
}
