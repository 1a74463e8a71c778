//! The messages of registration (protocol section 5; `docs/registration.md` has their CDDL): what travels in a frame.
//!
//! A message is one CBOR map with text keys; the key `type` says which. Decoding is strict: every key exactly once and no other, the
//! exact types, sizes within the limits below, nothing behind the map. Nothing is allocated before its size is checked, and never more
//! than a small multiple of what came. So a message that decodes needs no more checks of its form, only of its meaning.
//!
//! Encoded messages may hold secrets and are zeroed when dropped. What a message holds is written without checks: whoever builds one
//! keeps to the limits, or the other end refuses it.

mod analysis;
mod codec;
mod common;
mod error;
mod grant;
mod parts;
mod primary;
mod secondary;
#[cfg(test)]
mod tests;

use zeroize::Zeroizing;

pub use analysis::{Analysis, AnalysisMaster, Analyze};
use codec::{Fields, Out, Value};
pub use common::{Ping, Pong, Reason, Refused};
pub use error::{DecodeError, Found};
pub use parts::{SuiteIds, UnknownSuite};
pub use primary::{
    KemRequest, KemResponse, ListRequest, ListResponse, Renew, Revoke, SetupRequest, SetupResponse,
    Status,
};
pub use secondary::{Ack, NewGenerations, Poll, PollKey, Register, Share};

/// The version of the protocol that a first message names.
pub const VERSION: u16 = 1;
/// The most suites in a setup request.
pub const MAX_SUITES: usize = 32;
/// The most bytes of a public key or an encapsulation.
pub const MAX_KEM_BYTES: usize = 256;
/// The most entries of a list.
pub const MAX_ENTRIES: usize = 8192;
/// The most live generations of an entry.
pub const MAX_GENERATIONS: usize = 64;
/// The most entries of one Secondary.
pub const MAX_OWN: usize = 4096;
/// The most pairings of one Secondary.
pub const MAX_PAIRINGS: usize = 1024;
/// The most PairMasterSecrets of a pairing in use at once.
pub const MAX_MASTERS: usize = 2;
/// The most PairMasterSecrets in an analysis.
pub const MAX_ANALYSIS_MASTERS: usize = 64;

/// What each message's struct does. The key `type` is not among its fields.
trait Body: Sized {
    /// The value of `type`.
    const TYPE: &'static str;
    /// How many keys [`write`](Self::write) writes.
    const FIELDS: u64;
    /// Takes its fields.
    fn read(fields: &mut Fields<'_>) -> Result<Self, DecodeError>;
    /// Writes its fields.
    fn write(&self, out: &mut Out);
}

macro_rules! messages {
    ($($name:ident,)+) => {
        /// A message, whoever sends it.
        #[derive(Debug)]
        pub enum Message {
            $(#[doc = concat!("See [`", stringify!($name), "`].")] $name($name),)+
        }

        impl Message {
            /// The value of its key `type`, for log lines and counters.
            #[must_use]
            pub const fn kind(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => $name::TYPE,)+
                }
            }

            fn read(kind: &str, fields: &mut Fields<'_>) -> Result<Option<Self>, DecodeError> {
                Ok(Some(match kind {
                    $($name::TYPE => Self::$name($name::read(fields)?),)+
                    _ => return Ok(None),
                }))
            }

            fn write(&self, out: &mut Out) {
                match self {
                    $(Self::$name(body) => {
                        out.map(1 + $name::FIELDS);
                        out.key(TYPE).text($name::TYPE);
                        body.write(out);
                    })+
                }
            }
        }

        $(impl From<$name> for Message {
            fn from(body: $name) -> Self {
                Self::$name(body)
            }
        })+
    };
}

messages! {
    SetupRequest,
    SetupResponse,
    KemRequest,
    KemResponse,
    ListRequest,
    ListResponse,
    Renew,
    Revoke,
    Refused,
    Ping,
    Pong,
    Register,
    Share,
    Ack,
    NewGenerations,
    Poll,
    PollKey,
    Analyze,
    Analysis,
}

/// The key that tells messages apart.
const TYPE: &str = "type";

impl Message {
    /// Reads one message from exactly `bytes`.
    ///
    /// # Errors
    /// See [`DecodeError`]; it names the first thing that is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Value::whole(bytes)?.fields()?;
        let kind = fields.take(TYPE)?.text()?;
        let message =
            Self::read(kind, &mut fields)?.ok_or_else(|| DecodeError::unknown_type(kind))?;
        fields.finish()?;
        Ok(message)
    }

    /// The message's bytes, in a buffer of exactly their number.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut counting = Out::counting();
        self.write(&mut counting);
        let mut out = Out::with_capacity(counting.written());
        self.write(&mut out);
        out.into_bytes()
    }
}
