//! From a PairMasterSecret to the key of one flow (protocol section 3; RFC 9180 section 4; RFC 5869).
//!
//! ```text
//!   salt, PairMasterSecret ──► PairingPrk ─┬─► PairServerSecret ──► PairClientSecret ──► SharedSecret    TrustedServers
//!                                          ├─► PairClientSecret ──► PairDeviceKey ─────► SharedSecret    AsymmetricPoll
//!                                          └─► super::ibc                                               IBC
//!
//!   SharedSecret, SessionInfo ──► SessionKey: key (Nk) ‖ base_nonce (12)
//! ```
//!
//! Workers derive session keys for new flows and key changes, so nothing here allocates.

use super::expand::Expander;
use super::secret::{
    PairClientSecret, PairDeviceKey, PairMasterSecret, PairServerSecret, PairingPrk, SharedSecret,
};
use super::session::{NONCE_LEN, SESSION_LEN, SessionKey};
use super::suite::Suite;
use crate::wire::FiveTuple;
use hkdf::HkdfExtract;
use sha2::Sha256;
use thiserror::Error;
use zeroize::{Zeroize, zeroize_bytes};

/// The version label that RFC 9180 section 4 puts in front of everything.
const VERSION: &[u8] = b"HPKE-v1";
/// The label of session keys.
const SESSION: &[u8; 13] = b"pdmv2 session";
/// The length of what a session key is bound to: a length, version, suite and label, then [`SessionInfo`].
const SESSION_INFO_LEN: usize = 32 + 49;

/// RFC 9180's `LabeledExtract(salt, label, ikm)`.
pub(super) fn labeled_extract(suite: &Suite, salt: &[u8], label: &[u8], ikm: &[u8]) -> [u8; 32] {
    let mut extract = HkdfExtract::<Sha256>::new(Some(salt));
    for part in [VERSION, &suite.suite_id(), label, ikm] {
        extract.input_ikm(part);
    }
    let (mut output, _) = extract.finalize();
    let prk = output.into();
    output.as_mut_slice().zeroize();
    prk
}

/// RFC 9180's `LabeledExpand(prk, label, info, L)`, where `L` is the length of `okm`.
pub(super) fn labeled_expand(
    prk: &[u8; 32],
    suite: &Suite,
    label: &[u8],
    info: &[u8],
    okm: &mut [u8],
) {
    let length = (okm.len() as u16).to_be_bytes();
    Expander::new(prk).expand(&[&length, VERSION, &suite.suite_id(), label, info], okm);
}

/// [`labeled_expand`] to `Nh`, 32 bytes.
fn labeled_expand_secret(prk: &[u8; 32], suite: &Suite, label: &[u8], info: &[u8]) -> [u8; 32] {
    let mut okm = [0; 32];
    labeled_expand(prk, suite, label, info, &mut okm);
    okm
}

/// A prefix length that no IPv6 prefix has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected a prefix length of 0 to 128 bits, found {found}")]
pub struct PrefixTooLong {
    /// The length found, in bits.
    pub found: u8,
}

/// `entry(p)`: a list entry as the key schedule names it, the masked prefix and then its length in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntryId([u8; 17]);

impl EntryId {
    /// The entry of `address` (network order) masked to `prefix_len` bits; a single host is a /128.
    ///
    /// # Errors
    /// [`PrefixTooLong`] above 128 bits.
    pub fn new(address: &[u8; 16], prefix_len: u8) -> Result<Self, PrefixTooLong> {
        let Some(host_bits) = 128u32.checked_sub(prefix_len.into()) else {
            return Err(PrefixTooLong { found: prefix_len });
        };
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        let prefix = u128::from_be_bytes(*address) & mask;
        let mut entry = [prefix_len; 17];
        entry[..16].copy_from_slice(&prefix.to_be_bytes());
        Ok(Self(entry))
    }

    pub(super) const fn bytes(&self) -> &[u8; 17] {
        &self.0
    }
}

impl PairingPrk {
    /// `LabeledExtract(salt, "pdmv2 prk", PMS)`.
    #[must_use]
    pub fn extract(suite: &Suite, salt: &[u8; 32], pms: &PairMasterSecret) -> Self {
        Self::from_bytes(labeled_extract(suite, salt, b"pdmv2 prk", pms.bytes()))
    }

    /// TrustedServers: the secret of the servers of `group`.
    #[must_use]
    pub fn server_secret(&self, suite: &Suite, group: &str) -> PairServerSecret {
        PairServerSecret::from_bytes(labeled_expand_secret(
            self.bytes(),
            suite,
            b"pdmv2 servers",
            group.as_bytes(),
        ))
    }

    /// AsymmetricPoll: the secret of the client that `client` names.
    #[must_use]
    pub fn poll_client_secret(&self, suite: &Suite, client: &EntryId) -> PairClientSecret {
        PairClientSecret::from_bytes(labeled_expand_secret(
            self.bytes(),
            suite,
            b"pdmv2 poll client",
            &client.0,
        ))
    }

    /// A name for this key that may be stored, shown and sent: it tells secrets apart and gives nothing of the key away. Registration names
    /// secrets by it, and two Primaries compare it to see that theirs are the same.
    #[must_use]
    pub fn fingerprint(&self, suite: &Suite) -> [u8; 16] {
        let mut okm = [0; 16];
        labeled_expand(self.bytes(), suite, b"pdmgate fingerprint", b"", &mut okm);
        okm
    }
}

impl PairServerSecret {
    /// TrustedServers: the secret of the client that `client` names.
    #[must_use]
    pub fn client_secret(&self, suite: &Suite, client: &EntryId) -> PairClientSecret {
        PairClientSecret::from_bytes(labeled_expand_secret(
            self.bytes(),
            suite,
            b"pdmv2 client",
            &client.0,
        ))
    }
}

impl PairClientSecret {
    /// AsymmetricPoll: the key of this client with the server that `server` names.
    #[must_use]
    pub fn pair_device_key(&self, suite: &Suite, server: &EntryId) -> PairDeviceKey {
        PairDeviceKey::from_bytes(labeled_expand_secret(
            self.bytes(),
            suite,
            b"pdmv2 pair",
            &server.0,
        ))
    }
}

/// What one SessionTemporaryKey belongs to.
#[derive(Clone, Copy, Debug)]
pub struct SessionInfo<'a> {
    /// The packets' own direction.
    pub tuple: &'a FiveTuple,
    /// The sending Secondary's generation.
    pub src_generation: u32,
    /// The newest generation of the receiver's entry, as the sender knows it.
    pub dst_generation: u32,
    /// The key's index within the epoch; its lowest bit is F on the wire.
    pub kri: u32,
}

impl SessionInfo<'_> {
    /// All that `LabeledExpand` to `length` bytes takes in, in one piece: each piece would be hashed by itself.
    fn labeled(self, suite: &Suite, length: usize) -> [u8; SESSION_INFO_LEN] {
        let tuple = self.tuple;
        let mut info = [0; SESSION_INFO_LEN];
        info[..2].copy_from_slice(&(length as u16).to_be_bytes());
        info[2..9].copy_from_slice(VERSION);
        info[9..19].copy_from_slice(&suite.suite_id());
        info[19..32].copy_from_slice(SESSION);
        info[32..36].copy_from_slice(&self.src_generation.to_be_bytes());
        info[36..40].copy_from_slice(&self.dst_generation.to_be_bytes());
        info[40..56].copy_from_slice(&tuple.src);
        info[56..72].copy_from_slice(&tuple.dst);
        info[72..74].copy_from_slice(&tuple.sport.to_be_bytes());
        info[74..76].copy_from_slice(&tuple.dport.to_be_bytes());
        info[76] = tuple.protocol;
        info[77..].copy_from_slice(&self.kri.to_be_bytes());
        info
    }
}

impl SharedSecret {
    /// The key that seals the packets `info` names.
    #[must_use]
    pub fn session_key(&self, suite: &Suite, info: &SessionInfo<'_>) -> SessionKey {
        let mut okm = [0; SESSION_LEN];
        let key_len = suite.aead.key_len();
        let used = &mut okm[..key_len + NONCE_LEN];
        self.ready()
            .expand(&[&info.labeled(suite, used.len())], used);
        let (key, base_nonce) = used.split_at(key_len);
        let mut session = SessionKey::none();
        session.0[..NONCE_LEN].copy_from_slice(base_nonce);
        session.0[NONCE_LEN..][..key_len].copy_from_slice(key);
        zeroize_bytes(&mut okm);
        session
    }
}

#[cfg(test)]
mod tests;
