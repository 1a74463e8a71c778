//! What either end of any connection may send.

use super::{
    Body, DecodeError,
    codec::{Fields, Out},
};

/// Asks whether the other end is there; it answers with [`Pong`] of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Whatever the sender likes.
    pub number: u64,
}

/// Answers a [`Ping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// The ping's.
    pub number: u64,
}

impl Body for Ping {
    const TYPE: &'static str = "ping";
    const FIELDS: u64 = 1;

    fn read(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        let number = fields.take("number")?.u64()?;
        Ok(Self { number })
    }

    fn write(&self, out: &mut Out) {
        out.key("number").number(self.number);
    }
}

impl Body for Pong {
    const TYPE: &'static str = "pong";
    const FIELDS: u64 = 1;

    fn read(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        let number = fields.take("number")?.u64()?;
        Ok(Self { number })
    }

    fn write(&self, out: &mut Out) {
        out.key("number").number(self.number);
    }
}

/// The last message before a connection is closed on purpose; to authenticated peers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: Reason,
}

/// Why a peer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// None of the suites offered is allowed here.
    NoCommonSuite,
    /// The version is not spoken here.
    Version,
    /// The certificate's name is allowed nothing of what was asked for.
    NotAllowed,
    /// The pairing, or the certificate's name, was revoked.
    Revoked,
    /// Too much to do; come back later.
    Busy,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::NoCommonSuite,
        Self::Version,
        Self::NotAllowed,
        Self::Revoked,
        Self::Busy,
    ];

    /// The word that stands for it in a message, for log lines and counters too.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::NoCommonSuite => "no-common-suite",
            Self::Version => "version",
            Self::NotAllowed => "not-allowed",
            Self::Revoked => "revoked",
            Self::Busy => "busy",
        }
    }
}

impl Body for Refused {
    const TYPE: &'static str = "refused";
    const FIELDS: u64 = 1;

    fn read(fields: &mut Fields<'_>) -> Result<Self, DecodeError> {
        let reason = fields.take("reason")?.word(
            &Reason::ALL,
            Reason::word,
            "no-common-suite, version, not-allowed, revoked or busy",
        )?;
        Ok(Self { reason })
    }

    fn write(&self, out: &mut Out) {
        out.key("reason").text(self.reason.word());
    }
}
