//! The negotiated suite: HPKE's identifiers (RFC 9180 section 7, protocol section 3).

use thiserror::Error;

/// HKDF-SHA256, the only key derivation function of the protocol.
const KDF_ID: u16 = 0x0001;

/// How an option is sealed (protocol section 2); the numbers are HPKE's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Aead {
    /// AES-128-GCM, the default.
    #[default]
    Aes128Gcm = 0x0001,
    /// AES-256-GCM.
    Aes256Gcm = 0x0002,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305 = 0x0003,
}

impl Aead {
    /// `Nk`: the length of a key in bytes.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// The identifier on the wire.
    #[must_use]
    pub const fn id(self) -> u16 {
        self as u16
    }
}

/// An AEAD identifier that the protocol does not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected AEAD identifier 0x0001, 0x0002 or 0x0003, found {found:#06x}")]
pub struct UnknownAead {
    /// The identifier found.
    pub found: u16,
}

impl TryFrom<u16> for Aead {
    type Error = UnknownAead;

    #[inline]
    fn try_from(id: u16) -> Result<Self, UnknownAead> {
        match id {
            0x0001 => Ok(Self::Aes128Gcm),
            0x0002 => Ok(Self::Aes256Gcm),
            0x0003 => Ok(Self::ChaCha20Poly1305),
            found => Err(UnknownAead { found }),
        }
    }
}

/// How two Primaries agree on a PairMasterSecret; the numbers are HPKE's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Kem {
    /// DHKEM(P-256, HKDF-SHA256).
    P256HkdfSha256 = 0x0010,
    /// DHKEM(X25519, HKDF-SHA256), the default.
    #[default]
    X25519HkdfSha256 = 0x0020,
}

impl Kem {
    /// The identifier on the wire.
    #[must_use]
    pub const fn id(self) -> u16 {
        self as u16
    }
}

/// A KEM identifier that the protocol does not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected KEM identifier 0x0010 or 0x0020, found {found:#06x}")]
pub struct UnknownKem {
    /// The identifier found.
    pub found: u16,
}

impl TryFrom<u16> for Kem {
    type Error = UnknownKem;

    fn try_from(id: u16) -> Result<Self, UnknownKem> {
        match id {
            0x0010 => Ok(Self::P256HkdfSha256),
            0x0020 => Ok(Self::X25519HkdfSha256),
            found => Err(UnknownKem { found }),
        }
    }
}

/// What a pairing negotiated. The KDF is HKDF-SHA256 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Suite {
    /// How the PairMasterSecret was agreed on.
    pub kem: Kem,
    /// How options are sealed.
    pub aead: Aead,
}

impl Suite {
    /// `suite_id` of RFC 9180 section 5.1: `"HPKE" ‖ kem_id ‖ kdf_id ‖ aead_id`, numbers big-endian.
    #[must_use]
    pub const fn suite_id(&self) -> [u8; 10] {
        let [k0, k1] = self.kem.id().to_be_bytes();
        let [d0, d1] = KDF_ID.to_be_bytes();
        let [a0, a1] = self.aead.id().to_be_bytes();
        [b'H', b'P', b'K', b'E', k0, k1, d0, d1, a0, a1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_the_ones_of_rfc_9180() {
        let aeads = [Aead::Aes128Gcm, Aead::Aes256Gcm, Aead::ChaCha20Poly1305];
        for (id, aead) in (1..).zip(aeads) {
            assert_eq!(aead.id(), id);
            assert_eq!(Aead::try_from(id), Ok(aead));
        }
        assert_eq!(Aead::try_from(4), Err(UnknownAead { found: 4 }));
        for kem in [Kem::P256HkdfSha256, Kem::X25519HkdfSha256] {
            assert_eq!(Kem::try_from(kem.id()), Ok(kem));
        }
        assert_eq!(Kem::try_from(0x21), Err(UnknownKem { found: 0x21 }));
    }

    #[test]
    fn default_suite_id() {
        assert_eq!(
            &Suite::default().suite_id(),
            b"HPKE\x00\x20\x00\x01\x00\x01"
        );
    }
}
