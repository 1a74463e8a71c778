//! By what name a peer goes: a dNSName of its certificate (RFC 5280 section 4.2.1.6).

use std::{fmt, str::FromStr};

use rustls_pki_types::DnsName;
use thiserror::Error;

/// A DNS name in lower case, without a wildcard and without a dot at its end. Two are the same if all their bytes are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(String);

impl PeerName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

impl AsRef<str> for PeerName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// A text that is no [`PeerName`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected a DNS name without wildcard such as primary.example.org, found `{}`", found.escape_debug())]
pub struct NotAName {
    /// The text.
    pub found: String,
}

impl FromStr for PeerName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        if DnsName::try_from(text).is_err() || text.ends_with('.') {
            return Err(NotAName {
                found: text.to_owned(),
            });
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case() {
        let name: PeerName = "Primary-1.Example.ORG".parse().unwrap();
        assert_eq!(name.as_str(), "primary-1.example.org");
        assert_eq!(name, "primary-1.example.org".parse().unwrap());
        assert_ne!(name, "primary-2.example.org".parse().unwrap());
        assert!("host".parse::<PeerName>().is_ok());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("{}.example", "a".repeat(64));
        for text in [
            "",
            ".",
            "*.example.org",
            "a.*.org",
            "example.org.",
            "a..b",
            "-a.org",
            "a b",
            "192.0.2.1",
            "2001:db8::1",
            "ä.org",
            "a\0b",
            &long,
        ] {
            assert!(text.parse::<PeerName>().is_err(), "{text}");
        }
    }
}
