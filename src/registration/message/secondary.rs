//! Between a Primary and its Secondaries (protocol sections 4 and 5).

use super::{
    Body, DecodeError, MAX_OWN, MAX_PAIRINGS,
    codec::{Fields, Out},
    grant::{read_grant, write_grant},
    parts::{read_fingerprint, read_pairing, read_prefix, write_prefix},
};
use crate::{
    config::Prefix,
    crypto::PairDeviceKey,
    snapshot::{Fingerprint, Grant},
};

/// A Secondary's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// The version of the protocol: [`super::VERSION`].
    pub version: u16,
    /// Random, made when the process started and kept in memory only: who comes back with the same one still knows what it sent.
    pub instance: [u8; 16],
    /// The entries that it serves; 1 to [`MAX_OWN`].
    pub entries: Vec<Prefix>,
}

impl Body for Register {
    const TYPE: &'static str = "register";
    const FIELDS: u64 = 3;

    fn read(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            version: fields.take("version")?.u16()?,
            instance: fields.take("instance")?.exactly()?,
            entries: fields.take("entries")?.set(
                1..=MAX_OWN,
                |value| read_prefix(&value),
                |prefix| *prefix,
            )?,
        })
    }

    fn write(&self, out: &mut Out) {
        out.key("version").number(self.version);
        out.key("instance").bytes(&self.instance);
        out.key("entries").list(&self.entries, write_prefix);
    }
}

/// Everything that a Secondary is given. It replaces what was shared before.
#[derive(Debug)]
pub struct Share {
    /// Raised by the Primary with each share of a connection.
    pub serial: u64,
    /// One for each pairing; at most [`MAX_PAIRINGS`].
    pub grants: Vec<Grant>,
}

impl Body for Share {
    const TYPE: &'static str = "share";
    const FIELDS: u64 = 2;

    fn read(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            serial: fields.take("serial")?.u64()?,
            grants: fields
                .take("grants")?
                .set(0..=MAX_PAIRINGS, read_grant, |grant| grant.pairing.clone())?,
        })
    }

    fn write(&self, out: &mut Out) {
        out.key("serial").number(self.serial);
        out.key("grants").list(&self.grants, write_grant);
    }
}

/// Every worker of the Secondary uses what was shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The share's.
    pub serial: u64,
}

impl Body for Ack {
    const TYPE: &'static str = "ack";
    const FIELDS: u64 = 1;

    fn read(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        let serial = fields.take("serial")?.u64()?;
        Ok(Self { serial })
    }

    fn write(&self, out: &mut Out) {
        out.key("serial").number(self.serial);
    }
}

/// Healing (protocol section 4): the Secondary asks for new generations of all of its entries. The answer is a [`Share`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewGenerations;

impl Body for NewGenerations {
    const TYPE: &'static str = "new-generations";
    const FIELDS: u64 = 0;

    fn read(_: &mut Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self)
    }

    fn write(&self, _: &mut Out) {}
}

/// AsymmetricPoll: the end that cannot derive a pair's key asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// The pairing's name in the [`Share`].
    pub pairing: String,
    /// Under which PairMasterSecret.
    pub master: Fingerprint,
    /// The asking Secondary's entry.
    pub own: Prefix,
    /// The other end's entry.
    pub peer: Prefix,
}

impl Body for Poll {
    const TYPE: &'static str = "poll";
    const FIELDS: u64 = 4;

    fn read(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            pairing: read_pairing(&fields.take("pairing")?)?,
            master: read_fingerprint(&fields.take("master")?)?,
            own: read_prefix(&fields.take("own")?)?,
            peer: read_prefix(&fields.take("peer")?)?,
        })
    }

    fn write(&self, out: &mut Out) {
        out.key("pairing").text(&self.pairing);
        out.key("master").bytes(&self.master.0);
        write_prefix(out.key("own"), &self.own);
        write_prefix(out.key("peer"), &self.peer);
    }
}

/// Answers a [`Poll`].
#[derive(Debug, PartialEq, Eq)]
pub struct PollKey {
    /// What was asked for.
    pub poll: Poll,
    /// What the two ends share.
    pub key: PairDeviceKey,
}

impl Body for PollKey {
    const TYPE: &'static str = "poll-key";
    const FIELDS: u64 = Poll::FIELDS + 1;

    fn read(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            poll: Poll::read(fields)?,
            key: fields.take("key")?.secret(PairDeviceKey::from_bytes)?,
        })
    }

    fn write(&self, out: &mut Out) {
        self.poll.write(out);
        out.key("key").bytes(self.key.expose());
    }
}
