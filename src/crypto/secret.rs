//! The secrets of protocol sections 3 and 6, one type each, so that none is taken for another.
//!
//! Every type zeroes its memory when it is dropped, prints nothing but its name, compares in constant time, and cannot be
//! cloned.

use super::expand::Expander;
use core::fmt;
use subtle::ConstantTimeEq;
use zeroize::ZeroizeOnDrop;

/// Shows nothing but the name, and compares in constant time.
macro_rules! told_by_name {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.expose().ct_eq(other.expose()).into()
            }
        }

        impl Eq for $name {}
    };
}

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        secret!($(#[$doc])* $name: 32);
    };
    ($(#[$doc:meta])* $name:ident: $len:literal) => {
        $(#[$doc])*
        #[derive(ZeroizeOnDrop)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Takes the secret over; the caller clears its own copy.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            #[allow(dead_code, reason = "the keys of identities leave this room as bytes only")]
            pub(super) const fn bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The secret itself, for the message or the store that it goes into. Whoever copies it clears the copy.
            #[must_use]
            pub const fn expose(&self) -> &[u8; $len] {
                &self.0
            }
        }

        told_by_name!($name);
    };
}

secret!(
    /// What the two Primaries agreed on by HPKE, or a static pairing was given.
    PairMasterSecret
);
secret!(
    /// The pairing's pseudorandom key: the PairMasterSecret with the Primary Client's salt worked in.
    PairingPrk
);
secret!(
    /// TrustedServers: what every Secondary Server of one group holds.
    PairServerSecret
);
secret!(
    /// What one Secondary Client holds. Its derivation tells TrustedServers from AsymmetricPoll.
    PairClientSecret
);
secret!(
    /// AsymmetricPoll: what one Secondary Client and one Secondary Server share.
    PairDeviceKey
);
secret!(
    /// IBC: the key of one Secondary Client, a compressed point of G1.
    IbcClientKey: 48
);
secret!(
    /// IBC: the key of one Secondary Server, a compressed point of G2.
    IbcServerKey: 96
);

/// What both ends of a flow hold: the root of its SessionTemporaryKeys. Unlike the others it is kept ready: a worker that derives a key from
/// it does not hash HMAC's two key blocks each time, which is two fifths of the work.
#[derive(ZeroizeOnDrop)]
pub struct SharedSecret {
    bytes: [u8; 32],
    // Clears itself.
    #[zeroize(skip)]
    ready: Expander,
}

impl SharedSecret {
    /// Takes the secret over; the caller clears its own copy.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let ready = Expander::new(&bytes);
        Self { bytes, ready }
    }

    /// The secret itself, for another view of it. Whoever copies it clears the copy.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }

    pub(super) const fn ready(&self) -> &Expander {
        &self.ready
    }
}

told_by_name!(SharedSecret);

/// TrustedServers: the client's secret is the shared one.
impl From<PairClientSecret> for SharedSecret {
    fn from(secret: PairClientSecret) -> Self {
        Self::from_bytes(*secret.bytes())
    }
}

/// AsymmetricPoll: the pair's key is the shared one.
impl From<PairDeviceKey> for SharedSecret {
    fn from(key: PairDeviceKey) -> Self {
        Self::from_bytes(*key.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_name_only() {
        let secret = SharedSecret::from_bytes([0xab; 32]);
        assert_eq!(format!("{secret:?}"), "SharedSecret");
        assert_eq!(format!("{secret:#?}"), "SharedSecret");
    }

    #[test]
    fn equality_sees_every_byte() {
        let secret = PairingPrk::from_bytes([7; 32]);
        assert_eq!(secret, PairingPrk::from_bytes([7; 32]));
        for at in 0..32 {
            let mut other = [7; 32];
            other[at] ^= 0x80;
            assert_ne!(secret, PairingPrk::from_bytes(other));
        }
    }
}
