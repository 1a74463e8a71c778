//! Why bytes are no message.

use std::{fmt, ops::RangeInclusive};

use minicbor::data::Type;
use thiserror::Error;

/// Why bytes are no message. Shows nothing that could be a secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end early, or are no CBOR (RFC 8949).
    #[error("not well-formed CBOR from byte {at} on")]
    Malformed {
        /// The place in the message.
        at: usize,
    },
    /// CBOR that no message uses.
    #[error(
        "expected maps, arrays, integers, booleans, null and undivided strings only, found {found} at byte {at}"
    )]
    Unsupported {
        /// The place in the message.
        at: usize,
        /// What stands there.
        found: Type,
    },
    /// More maps and arrays in each other than any message has.
    #[error("expected at most {limit} maps and arrays inside each other, found more at byte {at}")]
    TooDeep {
        /// The place in the message.
        at: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// Bytes behind the message.
    #[error("expected nothing behind the message, found {found} bytes")]
    Trailing {
        /// How many.
        found: usize,
    },
    /// A key of a map is no text.
    #[error("expected a text as key of a map, found {found}")]
    KeyType {
        /// What it is.
        found: Type,
    },
    /// A key that must be there is not.
    #[error("expected the key `{key}`, found none")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A key comes twice in one map.
    #[error("expected every key once, found `{key}` twice")]
    Doubled {
        /// The key, shortened.
        key: String,
    },
    /// A key that the map does not have.
    #[error("found the key `{key}`, which does not belong there")]
    Unknown {
        /// The key, shortened.
        key: String,
    },
    /// A string or an array is too short or too long.
    #[error(
        "`{key}`: expected a size of {} to {}, found {found}",
        expected.start(),
        expected.end()
    )]
    Size {
        /// The key it stands under.
        key: &'static str,
        /// Bytes of a string, or items of an array.
        expected: RangeInclusive<usize>,
        /// The size found; `usize::MAX` if it is that large or larger.
        found: usize,
    },
    /// A value of the wrong type, or one that is not allowed.
    #[error("`{key}`: expected {expected}, found {found}")]
    Wrong {
        /// The key it stands under.
        key: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What is there.
        found: Found,
    },
}

/// What was found instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Another type.
    Type(Type),
    /// A number.
    Number(u64),
    /// A text, shortened.
    Text(String),
    /// The same a second time.
    Double,
    /// Something that does not fit the rest of the message.
    Other,
}

impl fmt::Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type(found) => found.fmt(out),
            Self::Number(found) => found.fmt(out),
            Self::Text(found) => write!(out, "`{found}`"),
            Self::Double => out.write_str("one twice"),
            Self::Other => out.write_str("another"),
        }
    }
}

impl DecodeError {
    pub(super) fn unknown_type(found: &str) -> Self {
        Self::Wrong {
            key: super::TYPE,
            expected: "the name of a message",
            found: Found::Text(shown(found)),
        }
    }
}

/// The beginning of a peer's text, fit for a log line.
pub(super) fn shown(text: &str) -> String {
    const LENGTH: usize = 32;
    let mut short: String = text
        .chars()
        .take(LENGTH)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(LENGTH).is_some() {
        short.push('…');
    }
    short
}
