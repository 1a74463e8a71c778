//! `pairings`: who protects its measurements with whom, and by which secrets.

use std::path::PathBuf;

use serde::{
    Deserialize, Deserializer,
    de::{IntoDeserializer, value::Error as WordError},
};

use super::{
    scalar::{At, Whole, text, words},
    types::{Group, Name, Prefix, Secret},
};

/// One pairing: the lists of two organizations and the secret between them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pairing {
    /// 1 to 64 letters, digits, dots, dashes and underscores, once in the file. Local: the peer may call it otherwise. Must be given.
    pub name: At<Name>,
    /// Who shares which secret (protocol section 3): any but `ibc`, which needs registration. Default `trusted-servers`.
    #[serde(default, deserialize_with = "static_mode")]
    pub mode: Mode,
    /// Whether the metrics are sealed. Default `sealed`.
    #[serde(default)]
    pub protection: Protection,
    /// The algorithms. Both ends must name the same. Default x25519 with aes-128-gcm.
    #[serde(default)]
    pub suite: Suite,
    /// The Primary Client's 32 random bytes, as 64 hexadecimal digits; both ends write the same. Must be given where something is sealed.
    #[serde(default)]
    pub salt: Option<At<Secret>>,
    /// The PairMasterSecret: 32 random bytes, as 64 hexadecimal digits; both ends write the same. It or `pms_file` must be given where
    /// something is sealed. Filled from `pms_file` when the configuration is loaded.
    #[serde(default)]
    pub pms: Option<At<Secret>>,
    /// A file with the PairMasterSecret, as 64 hexadecimal digits or 32 raw bytes, that others than its owner and group cannot read.
    /// A relative path starts at the configuration's folder.
    #[serde(default)]
    pub pms_file: Option<At<PathBuf>>,
    /// The client list, at least one entry. Must be given.
    pub clients: At<Vec<Client>>,
    /// The server list, at least one entry. Must be given.
    pub servers: At<Vec<Server>>,
}

impl Pairing {
    /// Whether options of this pairing are sealed, so that it needs secrets.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.mode != Mode::NoProtection && self.protection == Protection::Sealed
    }

    /// Salt and PairMasterSecret, if both are there; checked to be there if [`is_sealed`](Self::is_sealed).
    #[must_use]
    pub fn secrets(&self) -> Option<(&Secret, &Secret)> {
        Some((self.salt.as_deref()?, self.pms.as_deref()?))
    }
}

/// Any mode but `ibc`: a secret between two Secondaries that no file can hold.
fn static_mode<'de, D: Deserializer<'de>>(from: D) -> Result<Mode, D::Error> {
    let allowed = "one of trusted-servers, asymmetric-poll, no-protection; ibc needs registration: `primary.pairings`";
    text(from, allowed, |word| {
        let mode = Mode::deserialize(IntoDeserializer::<WordError>::into_deserializer(word));
        mode.ok().filter(|mode| *mode != Mode::Ibc)
    })
}

words! {
    /// `mode`: the security mode of operation.
    #[derive(Default)]
    Mode {
        /// A client shares one secret with every server of a group.
        #[default]
        TrustedServers = "trusted-servers",
        /// A client shares a secret with each server entry alone.
        AsymmetricPoll = "asymmetric-poll",
        /// A client shares a secret with each server entry alone, by identity-based cryptography. Of registered pairings only.
        Ibc = "ibc",
        /// No secret and no option: the lists alone, as access control.
        NoProtection = "no-protection",
    }
}

words! {
    /// `protection`: whether the metrics are sealed.
    #[derive(Default)]
    Protection {
        /// Sealed by the suite's AEAD: option length 0x22.
        #[default]
        Sealed = "sealed",
        /// Readable: option length 0x12, for a path that is protected otherwise.
        Clear = "clear",
    }
}

/// `suite`: the algorithms, by the names of HPKE's registries. The key derivation function is always HKDF-SHA256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Suite {
    /// Key encapsulation mechanism; its id is bound into every key. Default `x25519`.
    pub kem: Kem,
    /// What seals the option. Default `aes-128-gcm`.
    pub aead: Aead,
}

words! {
    /// `suite.kem`.
    #[derive(Default)]
    Kem {
        /// DHKEM(X25519, HKDF-SHA256), 0x0020.
        #[default]
        X25519 = "x25519",
        /// DHKEM(P-256, HKDF-SHA256), 0x0010.
        P256 = "p-256",
    }
}

words! {
    /// `suite.aead`.
    #[derive(Default)]
    Aead {
        /// AES-128-GCM, 0x0001.
        #[default]
        Aes128Gcm = "aes-128-gcm",
        /// AES-256-GCM, 0x0002.
        Aes256Gcm = "aes-256-gcm",
        /// ChaCha20-Poly1305, 0x0003.
        ChaCha20Poly1305 = "chacha20-poly1305",
    }
}

/// Where a sender's generation starts, and where the receiver looks for it first, when the state file knows nothing. 0 to 4294967295.
pub type Generation = Whole<u32, 0, 4_294_967_295>;

fn first_generation() -> Generation {
    Whole(1)
}

/// An entry of the client list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// The clients' addresses; one host is a /128. The most specific entry counts. Must be given, once in the list.
    pub prefix: At<Prefix>,
    /// The generation at which both ends start. 0 to 4294967295, default 1. Both ends write the same; never lower it under one PMS.
    #[serde(default = "first_generation")]
    pub generation: Generation,
}

/// An entry of the server list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// The servers' addresses; one host is a /128. The most specific entry counts. Must be given, once in the list.
    pub prefix: At<Prefix>,
    /// The group, 1 to 255 bytes of text, whose servers share the secrets of `trusted-servers`. Must be given in that mode; the others
    /// ignore it.
    #[serde(default)]
    pub group: Option<Group>,
    /// As for a client.
    #[serde(default = "first_generation")]
    pub generation: Generation,
}
