//! The key of one 5-tuple, epoch and Kri, as [`super::schedule`] derives it and [`super::seal`] uses it.

use core::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, zeroize_bytes};

/// `Nn`: the length of a nonce in bytes, the same for the three AEADs.
pub(super) const NONCE_LEN: usize = 12;
/// The longest `Nk`.
pub(super) const MAX_KEY_LEN: usize = 32;
/// The length of both.
pub(super) const SESSION_LEN: usize = NONCE_LEN + MAX_KEY_LEN;

/// A SessionTemporaryKey with its base nonce (protocol section 3). 44 bytes, zeroed when dropped.
///
/// One piece of memory, so that kernels follow one pointer; the nonce stands in front, where a block that starts with it ends within the key.
pub struct SessionKey(pub(super) [u8; SESSION_LEN]);

impl SessionKey {
    /// No key: all zeros.
    pub(crate) const fn none() -> Self {
        Self([0; SESSION_LEN])
    }

    /// Of a key's `Nk` bytes with zeros behind them, and its base nonce. The caller clears its own copies.
    #[must_use]
    pub fn new(key: &[u8; MAX_KEY_LEN], base_nonce: &[u8; NONCE_LEN]) -> Self {
        let mut session = Self::none();
        let (nonce_place, key_place) = session.0.split_at_mut(NONCE_LEN);
        nonce_place.copy_from_slice(base_nonce);
        key_place.copy_from_slice(key);
        session
    }

    /// Takes over another's key and nonce.
    pub(crate) const fn copy_from(&mut self, other: &Self) {
        self.0 = other.0;
    }

    /// The key: the first `Nk` bytes, zero behind them.
    #[must_use]
    pub fn key(&self) -> &[u8; MAX_KEY_LEN] {
        // There are so many bytes.
        self.0.last_chunk().unwrap_or(&[0; MAX_KEY_LEN])
    }

    /// XORed with PRSEQ, it is the nonce of a packet.
    #[must_use]
    pub fn base_nonce(&self) -> &[u8; NONCE_LEN] {
        // As above.
        self.0.first_chunk().unwrap_or(&[0; NONCE_LEN])
    }
}

impl Default for SessionKey {
    fn default() -> Self {
        Self::none()
    }
}

/// All at once: an array's own `zeroize` goes byte by byte, which is felt where keys are derived.
impl Zeroize for SessionKey {
    fn zeroize(&mut self) {
        zeroize_bytes(&mut self.0);
    }
}

impl Drop for SessionKey {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for SessionKey {}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey")
    }
}
