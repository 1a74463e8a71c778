//! Between two Primaries: the commands setup and kem (protocol section 5, draft appendix B), and changed lists.

use super::{
    Body, DecodeError, MAX_KEM_BYTES, MAX_SUITES,
    codec::{Fields, Out},
    parts::{SuiteIds, read_entries, read_fingerprint, read_mode, read_protection, write_entries},
};
use crate::{
    config::{Mode, Protection},
    snapshot::{Fingerprint, grant::Listed},
};

/// The Primary Client begins to agree on a PairMasterSecret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupRequest {
    /// The version of the protocol: [`super::VERSION`].
    pub version: u16,
    /// The suites that it may use, the best first; 1 to [`MAX_SUITES`].
    pub suites: Vec<SuiteIds>,
    /// Makes the exchange its own.
    pub random: [u8; 32],
}

impl Body for SetupRequest {
    const TYPE: &'static str = "setup-request";
    const FIELDS: u64 = 3;

    fn read(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            version: fields.take("version")?.u16()?,
            suites: fields
                .take("suites")?
                .list(1..=MAX_SUITES, SuiteIds::read)?,
            random: fields.take("random")?.exactly()?,
        })
    }

    fn write(&self, out: &mut Out) {
        out.key("version").number(self.version);
        out.key("suites")
            .list(&self.suites, |out, suite| suite.write(out));
        out.key("random").bytes(&self.random);
    }
}

/// The Primary Server's choice and its public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupResponse {
    /// One of the suites offered.
    pub suite: SuiteIds,
    /// `pkPS`, serialized as RFC 9180 has it for the KEM; 1 to [`MAX_KEM_BYTES`] bytes.
    pub pk: Vec<u8>,
    /// The pairing's mode.
    pub mode: Mode,
    /// The pairing's protection.
    pub protection: Protection,
    /// Makes the exchange its own.
    pub random: [u8; 32],
}

impl Body for SetupResponse {
    const TYPE: &'static str = "setup-response";
    const FIELDS: u64 = 5;

    fn read(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            suite: SuiteIds::read(fields.take("suite")?)?,
            pk: fields.take("pk")?.bytes(1..=MAX_KEM_BYTES)?.to_vec(),
            mode: read_mode(&fields.take("mode")?)?,
            protection: read_protection(&fields.take("protection")?)?,
            random: fields.take("random")?.exactly()?,
        })
    }

    fn write(&self, out: &mut Out) {
        self.suite.write(out.key("suite"));
        out.key("pk").bytes(&self.pk);
        out.key("mode").text(self.mode.word());
        out.key("protection").text(self.protection.word());
        out.key("random").bytes(&self.random);
    }
}

/// The Primary Client's encapsulation, and its list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KemRequest {
    /// HPKE's encapsulation; 1 to [`MAX_KEM_BYTES`] bytes.
    pub enc: Vec<u8>,
    /// Goes into the pairing PRK.
    pub salt: [u8; 32],
    /// The client list.
    pub entries: Vec<Listed>,
    /// The fingerprint of the pairing PRK that the sender arrived at, so that differing pre-shared keys are noticed.
    pub confirm: Option<[u8; 16]>,
}

impl Body for KemRequest {
    const TYPE: &'static str = "kem-request";
    const FIELDS: u64 = 4;

    fn read(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            enc: fields.take("enc")?.bytes(1..=MAX_KEM_BYTES)?.to_vec(),
            salt: fields.take("salt")?.exactly()?,
            entries: read_entries(&fields.take("entries")?)?,
            confirm: match fields.take("confirm")?.optional() {
                Some(value) => Some(value.exactly()?),
                None => None,
            },
        })
    }

    fn write(&self, out: &mut Out) {
        out.key("enc").bytes(&self.enc);
        out.key("salt").bytes(&self.salt);
        write_entries(out.key("entries"), &self.entries);
        match &self.confirm {
            Some(confirm) => out.key("confirm").bytes(confirm),
            None => out.key("confirm").null(),
        }
    }
}

/// The Primary Server has, or has not, arrived at the same secret; and its list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KemResponse {
    /// How it went.
    pub status: Status,
    /// The server list; of meaning with [`Status::Ok`] only.
    pub entries: Vec<Listed>,
}

impl Body for KemResponse {
    const TYPE: &'static str = "kem-response";
    const FIELDS: u64 = 2;

    fn read(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            status: Status::read(fields)?,
            entries: read_entries(&fields.take("entries")?)?,
        })
    }

    fn write(&self, out: &mut Out) {
        out.key("status").text(self.status.word());
        write_entries(out.key("entries"), &self.entries);
    }
}

/// The sender's whole list, after a change of it or of the PairMasterSecrets that its Secondaries hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListRequest {
    /// Raised by one end with each request of a connection.
    pub serial: u64,
    /// The newest PairMasterSecret that the sender and all of its Secondaries hold.
    pub pms: Option<Fingerprint>,
    /// The list.
    pub entries: Vec<Listed>,
}

impl Body for ListRequest {
    const TYPE: &'static str = "list-request";
    const FIELDS: u64 = 3;

    fn read(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            serial: fields.take("serial")?.u64()?,
            pms: match fields.take("pms")?.optional() {
                Some(value) => Some(read_fingerprint(&value)?),
                None => None,
            },
            entries: read_entries(&fields.take("entries")?)?,
        })
    }

    fn write(&self, out: &mut Out) {
        out.key("serial").number(self.serial);
        match &self.pms {
            Some(Fingerprint(pms)) => out.key("pms").bytes(pms),
            None => out.key("pms").null(),
        }
        write_entries(out.key("entries"), &self.entries);
    }
}

/// All Secondaries of the receiver hold what the request brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListResponse {
    /// The request's.
    pub serial: u64,
    /// How it went.
    pub status: Status,
}

impl Body for ListResponse {
    const TYPE: &'static str = "list-response";
    const FIELDS: u64 = 2;

    fn read(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            serial: fields.take("serial")?.u64()?,
            status: Status::read(fields)?,
        })
    }

    fn write(&self, out: &mut Out) {
        out.key("serial").number(self.serial);
        out.key("status").text(self.status.word());
    }
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Well.
    Ok,
    /// The fingerprint names no PairMasterSecret that is held here.
    UnknownPms,
    /// `confirm` is not the fingerprint that came out here: the pre-shared keys differ.
    NotConfirmed,
    /// Anything else.
    Refused,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Ok,
        Self::UnknownPms,
        Self::NotConfirmed,
        Self::Refused,
    ];

    /// The word that stands for it in a message, for log lines and counters too.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::UnknownPms => "unknown-pms",
            Self::NotConfirmed => "not-confirmed",
            Self::Refused => "refused",
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        fields.take("status")?.word(
            &Self::ALL,
            Self::word,
            "ok, unknown-pms, not-confirmed or refused",
        )
    }
}

/// The Primary Server asks for a new PairMasterSecret: the Primary Client begins with setup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renew;

impl Body for Renew {
    const TYPE: &'static str = "renew";
    const FIELDS: u64 = 0;

    fn read(_: &mut Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self)
    }

    fn write(&self, _: &mut Out) {}
}

/// The pairing is over; its secrets are forgotten at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoke;

impl Body for Revoke {
    const TYPE: &'static str = "revoke";
    const FIELDS: u64 = 0;

    fn read(_: &mut Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self)
    }

    fn write(&self, _: &mut Out) {}
}
