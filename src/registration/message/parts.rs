//! What several messages hold: entries, lists, suites, modes, names.

use thiserror::Error;

use super::{
    DecodeError, MAX_ENTRIES, MAX_GENERATIONS,
    codec::{Out, Value},
    error::{Found, shown},
};
use crate::{
    config::{Mode, Prefix, Protection},
    crypto::{Aead, Kem, Suite},
    snapshot::{Fingerprint, Role, grant::Listed},
};

/// HKDF-SHA256.
const KDF: u16 = 0x0001;

/// A suite by HPKE's identifiers, known or not (RFC 9180 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SuiteIds {
    /// The KEM.
    pub kem: u16,
    /// The KDF.
    pub kdf: u16,
    /// The AEAD.
    pub aead: u16,
}

impl From<Suite> for SuiteIds {
    fn from(suite: Suite) -> Self {
        Self {
            kem: suite.kem.id(),
            kdf: KDF,
            aead: suite.aead.id(),
        }
    }
}

/// A suite of which the protocol does not use a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "expected KEM 0x0010 or 0x0020, KDF 0x0001 and AEAD 0x0001, 0x0002 or 0x0003, found {:#06x}, {:#06x} and {:#06x}",
    found.kem, found.kdf, found.aead
)]
pub struct UnknownSuite {
    /// The identifiers found.
    pub found: SuiteIds,
}

impl TryFrom<SuiteIds> for Suite {
    type Error = UnknownSuite;

    fn try_from(found: SuiteIds) -> Result<Self, UnknownSuite> {
        match (
            Kem::try_from(found.kem),
            found.kdf,
            Aead::try_from(found.aead),
        ) {
            (Ok(kem), KDF, Ok(aead)) => Ok(Self { kem, aead }),
            _ => Err(UnknownSuite { found }),
        }
    }
}

impl SuiteIds {
    pub(super) fn read(value: Value<'_>) -> Result<Self, DecodeError> {
        let mut fields = value.fields()?;
        let ids = Self {
            kem: fields.take("kem")?.u16()?,
            kdf: fields.take("kdf")?.u16()?,
            aead: fields.take("aead")?.u16()?,
        };
        fields.finish()?;
        Ok(ids)
    }

    pub(super) fn write(self, out: &mut Out) {
        out.map(3);
        out.key("kem").number(self.kem);
        out.key("kdf").number(self.kdf);
        out.key("aead").number(self.aead);
    }
}

/// A suite that is in use, so a known one.
pub(super) fn read_suite(value: Value<'_>) -> Result<Suite, DecodeError> {
    SuiteIds::read(value)?
        .try_into()
        .map_err(|_| DecodeError::Wrong {
            key: "suite",
            expected: "a suite of the protocol",
            found: Found::Other,
        })
}

pub(super) fn read_mode(value: &Value<'_>) -> Result<Mode, DecodeError> {
    value.word(
        Mode::ALL,
        Mode::word,
        "trusted-servers, asymmetric-poll, ibc or no-protection",
    )
}

pub(super) fn read_protection(value: &Value<'_>) -> Result<Protection, DecodeError> {
    value.word(Protection::ALL, Protection::word, "sealed or clear")
}

pub(super) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Server => "server",
    }
}

pub(super) fn read_role(value: &Value<'_>) -> Result<Role, DecodeError> {
    value.word(&[Role::Client, Role::Server], role_word, "client or server")
}

/// A pairing's name, by the rule of [`crate::config::Name`].
pub(super) fn read_pairing(value: &Value<'_>) -> Result<String, DecodeError> {
    let name = value.text()?;
    let legal = |c: u8| c.is_ascii_alphanumeric() || b".-_".contains(&c);
    if (1..=64).contains(&name.len()) && name.bytes().all(legal) {
        return Ok(name.to_owned());
    }
    Err(value.wrong(
        "1 to 64 letters, digits, dots, dashes and underscores",
        Found::Text(shown(name)),
    ))
}

/// A group's name, by the rule of [`crate::config::Group`]; empty where there is none.
pub(super) fn read_group(value: &Value<'_>) -> Result<String, DecodeError> {
    let group = value.text()?;
    if group.len() <= 255 && !group.chars().any(char::is_control) {
        return Ok(group.to_owned());
    }
    Err(value.wrong(
        "at most 255 bytes of text without control characters",
        Found::Text(shown(group)),
    ))
}

/// An entry: 16 bytes of address, one of length in bits (`entry(p)` of protocol section 3).
pub(super) fn read_prefix(value: &Value<'_>) -> Result<Prefix, DecodeError> {
    let [address @ .., length] = value.exactly::<17>()?;
    Prefix::holding(address, length)
        .filter(|prefix| prefix.address() == address)
        .ok_or_else(|| {
            value.wrong(
                "a length of 0 to 128 bits and zeros behind them",
                Found::Other,
            )
        })
}

pub(super) fn write_prefix(out: &mut Out, prefix: &Prefix) {
    let mut entry = [0; 17];
    let (address, length) = entry.split_at_mut(16);
    address.copy_from_slice(&prefix.address());
    length.copy_from_slice(&[prefix.length()]);
    out.bytes(&entry);
}

pub(super) fn read_fingerprint(value: &Value<'_>) -> Result<Fingerprint, DecodeError> {
    value.exactly().map(Fingerprint)
}

fn read_listed(value: Value<'_>) -> Result<Listed, DecodeError> {
    let mut fields = value.fields()?;
    let prefix = read_prefix(&fields.take("entry")?)?;
    let group = read_group(&fields.take("group")?)?;
    let value = fields.take("generations")?;
    let generations = value.list(0..=MAX_GENERATIONS, |generation| generation.u32())?;
    let ascend = |pair: &[u32]| pair.first() < pair.last();
    if !generations.windows(2).all(ascend) {
        return Err(value.wrong("ascending numbers, each once", Found::Other));
    }
    fields.finish()?;
    Ok(Listed {
        prefix,
        group,
        generations,
    })
}

/// A client list or a server list.
pub(super) fn read_entries(value: &Value<'_>) -> Result<Vec<Listed>, DecodeError> {
    value.set(0..=MAX_ENTRIES, read_listed, |listed| listed.prefix)
}

pub(super) fn write_entries(out: &mut Out, entries: &[Listed]) {
    out.list(entries, |out, listed| {
        out.map(3);
        write_prefix(out.key("entry"), &listed.prefix);
        out.key("group").text(&listed.group);
        out.key("generations")
            .list(&listed.generations, |out, generation| {
                out.number(*generation);
            });
    });
}
