//! How two Primaries agree on a PairMasterSecret: HPKE (RFC 9180; protocol section 5).
//!
//! ```text
//!   Primary Server: generate ──► private key, pkPS ──────────────► Primary Client: encapsulate(pkPS, info, PSK)
//!                                                                     │
//!   decapsulate(private key, enc, info, PSK) ◄── enc ─────────────────┤
//!      └─► PairMasterSecret                                           └─► PairMasterSecret
//! ```
//!
//! Mode Base, or PSK where both were given the same pre-shared key. That the two keys differ shows in nothing here: the two
//! PairMasterSecrets differ then. Only `Export` of the HPKE context is used.

use super::secret::PairMasterSecret;
use super::suite::{Aead, Kem, Suite};
use ::hpke::aead::{Aead as HpkeAead, AesGcm128, AesGcm256, ChaCha20Poly1305};
use ::hpke::kdf::HkdfSha256;
use ::hpke::kem::{DhP256HkdfSha256, X25519HkdfSha256};
use ::hpke::rand_core::{CryptoRng, UnwrapErr};
use ::hpke::{
    Deserializable, Kem as HpkeKem, OpModeR, OpModeS, PskBundle, Serializable, setup_receiver,
    setup_sender_with_rng,
};
use core::fmt;
use getrandom::SysRng;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

/// The exporter context of the PairMasterSecret.
const EXPORT_PMS: &[u8] = b"pdmv2 pms";
/// What `info` starts with.
const INFO: &[u8] = b"pdmv2 registration";
/// The least entropy that RFC 9180 section 9.5 asks of a PSK is 32 bytes; what is shorter cannot have it.
const MIN_PSK_LEN: usize = 32;
/// So that a PSK's identifier fits any message.
const MAX_PSK_ID_LEN: usize = 255;
/// The library counts `info` and the PSK's identifier in 16 bits, with 5 bytes of its own.
const MAX_INFO_LEN: usize = u16::MAX as usize - 5 - MAX_PSK_ID_LEN;

/// A pre-shared key that HPKE cannot use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnfitPsk {
    /// Too short to have the entropy that RFC 9180 section 9.5 asks for.
    #[error("expected a pre-shared key of at least 32 bytes, found {found}")]
    KeyLength {
        /// Its length in bytes.
        found: usize,
    },
    /// It has no name, or too long a one.
    #[error("expected a pre-shared key's identifier of 1 to 255 bytes, found {found}")]
    IdLength {
        /// The identifier's length in bytes.
        found: usize,
    },
}

/// A pre-shared key and the identifier by which the two Primaries mean the same one.
pub struct Psk {
    id: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Psk {
    /// The key `key`, called `id`.
    ///
    /// # Errors
    /// [`UnfitPsk`] for a key shorter than 32 bytes, or an identifier that is empty or longer than 255 bytes.
    pub fn new(id: Vec<u8>, key: Zeroizing<Vec<u8>>) -> Result<Self, UnfitPsk> {
        if key.len() < MIN_PSK_LEN {
            return Err(UnfitPsk::KeyLength { found: key.len() });
        }
        if id.is_empty() || id.len() > MAX_PSK_ID_LEN {
            return Err(UnfitPsk::IdLength { found: id.len() });
        }
        Ok(Self { id, key })
    }

    fn bundle(&self) -> PskBundle<'_> {
        PskBundle::new(&self.key, &self.id).expect("neither is empty: `new` checked both")
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk")
    }
}

/// The Primary Server's private key of one setup. Zeroed when it is dropped.
pub struct KemPrivateKey(PrivateKey);

enum PrivateKey {
    X25519(<X25519HkdfSha256 as HpkeKem>::PrivateKey),
    P256(<DhP256HkdfSha256 as HpkeKem>::PrivateKey),
}

impl KemPrivateKey {
    /// The KEM that it belongs to.
    #[must_use]
    pub const fn kem(&self) -> Kem {
        match self.0 {
            PrivateKey::X25519(_) => Kem::X25519HkdfSha256,
            PrivateKey::P256(_) => Kem::P256HkdfSha256,
        }
    }

    /// The key itself, `Nsk` bytes (RFC 9180 section 7.1.2), for a file.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match &self.0 {
            PrivateKey::X25519(key) => key.to_bytes().to_vec(),
            PrivateKey::P256(key) => key.to_bytes().to_vec(),
        })
    }
}

impl fmt::Debug for KemPrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KemPrivateKey")
    }
}

/// Why no PairMasterSecret came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HpkeError {
    /// The peer's `pkPS` or `enc` is not as long as the KEM's keys are.
    #[error("expected a public key of {expected} bytes, found {found}")]
    KeyLength {
        /// `Npk` of the KEM (RFC 9180 section 7.1), in bytes.
        expected: usize,
        /// The length found, in bytes.
        found: usize,
    },
    /// The peer's `pkPS` or `enc` is not on the curve, or leads to a shared secret that everyone knows (RFC 9180 section 7.1.4).
    #[error("expected a point on the KEM's curve of no small order, found another public key")]
    Key,
    /// The private key belongs to the other KEM.
    #[error("expected a private key of {expected:?}, found one of {found:?}")]
    Kem {
        /// The suite's KEM.
        expected: Kem,
        /// The key's KEM.
        found: Kem,
    },
    /// More `info` than HPKE is used with here.
    #[error("expected info of at most {MAX_INFO_LEN} bytes, found {found}")]
    InfoLength {
        /// The length found, in bytes.
        found: usize,
    },
}

impl From<::hpke::HpkeError> for HpkeError {
    fn from(error: ::hpke::HpkeError) -> Self {
        match error {
            ::hpke::HpkeError::IncorrectInputLength(expected, found) => {
                Self::KeyLength { expected, found }
            }
            // ValidationError, EncapError, DecapError. The others are for sealing and opening by HPKE, and for PSKs that
            // `Psk::new` refuses.
            _ => Self::Key,
        }
    }
}

/// `info` of a registration: `"pdmv2 registration" ‖ SHA-256(setup request ‖ setup response)` over the encoded messages,
/// without their length in front.
#[must_use]
pub fn info(setup_request: &[u8], setup_response: &[u8]) -> Vec<u8> {
    let messages = Sha256::new()
        .chain_update(setup_request)
        .chain_update(setup_response)
        .finalize();
    [INFO, messages.as_slice()].concat()
}

/// A new key pair: the private key and `pkPS`, serialized as RFC 9180 section 7.1.1 says (32 bytes for X25519, 65 for P-256).
///
/// # Panics
/// If the system has no randomness.
#[must_use]
pub fn generate(kem: Kem) -> (KemPrivateKey, Vec<u8>) {
    match kem {
        Kem::X25519HkdfSha256 => {
            let (private, public) = X25519HkdfSha256::gen_keypair();
            let private = KemPrivateKey(PrivateKey::X25519(private));
            (private, public.to_bytes().to_vec())
        }
        Kem::P256HkdfSha256 => {
            let (private, public) = DhP256HkdfSha256::gen_keypair();
            let private = KemPrivateKey(PrivateKey::P256(private));
            (private, public.to_bytes().to_vec())
        }
    }
}

/// The Primary Client's part: `enc` for the holder of `pk`'s private key, and the PairMasterSecret. Mode PSK if there is a `psk`.
///
/// # Errors
/// [`HpkeError::KeyLength`] and [`HpkeError::Key`] for a `pk` that is not of the suite's KEM, [`HpkeError::InfoLength`].
///
/// # Panics
/// If the system has no randomness.
pub fn encapsulate(
    suite: &Suite,
    pk: &[u8],
    info: &[u8],
    psk: Option<&Psk>,
) -> Result<(Vec<u8>, PairMasterSecret), HpkeError> {
    let mut pms = Zeroizing::new([0; 32]);
    let context = Context { suite, info, psk };
    let enc = context.export_to(pk, &mut UnwrapErr(SysRng), EXPORT_PMS, pms.as_mut_slice())?;
    Ok((enc, PairMasterSecret::from_bytes(*pms)))
}

/// The Primary Server's part: the PairMasterSecret that the maker of `enc` has, if `info` and `psk` are the same.
///
/// # Errors
/// [`HpkeError::KeyLength`] and [`HpkeError::Key`] for an `enc` that is not of the suite's KEM, [`HpkeError::Kem`] for such a
/// private key, [`HpkeError::InfoLength`].
pub fn decapsulate(
    suite: &Suite,
    sk: &KemPrivateKey,
    enc: &[u8],
    info: &[u8],
    psk: Option<&Psk>,
) -> Result<PairMasterSecret, HpkeError> {
    let mut pms = Zeroizing::new([0; 32]);
    let context = Context { suite, info, psk };
    context.export_from(sk, enc, EXPORT_PMS, pms.as_mut_slice())?;
    Ok(PairMasterSecret::from_bytes(*pms))
}

/// Calls a function with the library's type of an AEAD.
macro_rules! with_aead {
    ($aead:expr, $context:ident.$function:ident::<$kem:ty>($($argument:expr),*)) => {
        match $aead {
            Aead::Aes128Gcm => $context.$function::<AesGcm128, $kem>($($argument),*),
            Aead::Aes256Gcm => $context.$function::<AesGcm256, $kem>($($argument),*),
            Aead::ChaCha20Poly1305 => $context.$function::<ChaCha20Poly1305, $kem>($($argument),*),
        }
    };
}

/// What both ends know of an HPKE context before there is a secret.
struct Context<'a> {
    suite: &'a Suite,
    info: &'a [u8],
    psk: Option<&'a Psk>,
}

impl Context<'_> {
    /// The sender's `Export(label, out.len())`; returns `enc`. The ephemeral key is derived from what `rng` gives.
    fn export_to(
        &self,
        pk: &[u8],
        rng: &mut impl CryptoRng,
        label: &[u8],
        out: &mut [u8],
    ) -> Result<Vec<u8>, HpkeError> {
        self.check_info()?;
        let aead = self.suite.aead;
        match self.suite.kem {
            Kem::X25519HkdfSha256 => {
                with_aead!(aead, self.send::<X25519HkdfSha256>(pk, rng, label, out))
            }
            Kem::P256HkdfSha256 => {
                with_aead!(aead, self.send::<DhP256HkdfSha256>(pk, rng, label, out))
            }
        }
    }

    /// The receiver's `Export(label, out.len())`.
    fn export_from(
        &self,
        sk: &KemPrivateKey,
        enc: &[u8],
        label: &[u8],
        out: &mut [u8],
    ) -> Result<(), HpkeError> {
        self.check_info()?;
        let aead = self.suite.aead;
        match (self.suite.kem, &sk.0) {
            (Kem::X25519HkdfSha256, PrivateKey::X25519(sk)) => {
                with_aead!(aead, self.receive::<X25519HkdfSha256>(sk, enc, label, out))
            }
            (Kem::P256HkdfSha256, PrivateKey::P256(sk)) => {
                with_aead!(aead, self.receive::<DhP256HkdfSha256>(sk, enc, label, out))
            }
            (expected, _) => Err(HpkeError::Kem {
                expected,
                found: sk.kem(),
            }),
        }
    }

    fn check_info(&self) -> Result<(), HpkeError> {
        match self.info.len() {
            0..=MAX_INFO_LEN => Ok(()),
            found => Err(HpkeError::InfoLength { found }),
        }
    }

    fn send<A: HpkeAead, K: HpkeKem>(
        &self,
        pk: &[u8],
        rng: &mut impl CryptoRng,
        label: &[u8],
        out: &mut [u8],
    ) -> Result<Vec<u8>, HpkeError> {
        let pk = K::PublicKey::from_bytes(pk)?;
        let mode = match self.psk {
            None => OpModeS::Base,
            Some(psk) => OpModeS::Psk(psk.bundle()),
        };
        let (enc, context) = setup_sender_with_rng::<A, HkdfSha256, K>(&mode, &pk, self.info, rng)?;
        context.export(label, out)?;
        Ok(enc.to_bytes().to_vec())
    }

    fn receive<A: HpkeAead, K: HpkeKem>(
        &self,
        sk: &K::PrivateKey,
        enc: &[u8],
        label: &[u8],
        out: &mut [u8],
    ) -> Result<(), HpkeError> {
        let enc = K::EncappedKey::from_bytes(enc)?;
        let mode = match self.psk {
            None => OpModeR::Base,
            Some(psk) => OpModeR::Psk(psk.bundle()),
        };
        let context = setup_receiver::<A, HkdfSha256, K>(&mode, sk, &enc, self.info)?;
        Ok(context.export(label, out)?)
    }
}

#[cfg(test)]
mod tests;
