//! The identity-based mode: Sakai-Ohgishi-Kasahara key agreement on BLS12-381 (protocol section 6).
//!
//! ```text
//!   PairingPrk ──► IbcMaster, s ─┬─► IbcClientKey = s · H1(client) ──┐
//!                                └─► IbcServerKey = s · H2(server) ──┤
//!                                                                    ▼
//!   e(IbcClientKey, H2(server)) = e(H1(client), IbcServerKey) = e(H1(client), H2(server))^s ──► SharedSecret
//! ```
//!
//! | | value |
//! |---|---|
//! | s | `LabeledExpand(PRK, "pdmv2 ibc", "", 48)` as a big-endian number, mod r |
//! | H1, H2 | `hash_to_curve(entry(p))` of RFC 9380's suites `BLS12381G1_XMD:SHA-256_SSWU_RO_` and `BLS12381G2_XMD:SHA-256_SSWU_RO_`; the tag is `PDMV2-V01-CS01-with-` and the suite's name |
//! | a key | its point compressed, as in BLS signatures (Zcash's form, below) |
//! | SharedSecret | `LabeledExtract("", "pdmv2 ibc pair", GT)`, GT the 576 bytes below |
//!
//! A compressed point is x big-endian: 48 bytes, in G2 96, where x = a + b·u is written b ‖ a. The top three bits of its first
//! byte are 1, 1 for the identity (all else is 0 then), and 1 if y is the larger of the two roots, in G2 by b and then by a.
//!
//! # The pairing, and the bytes of GT
//!
//! Pairings that differ by a fixed power work equally well, so an implementation has to take the same one. With the tower
//!
//! ```text
//!   Fp2 = Fp[u] / (u² + 1)        Fp6 = Fp2[v] / (v³ - (u + 1))        Fp12 = Fp6[w] / (w² - v)
//! ```
//!
//! `e(P, Q)` is the optimal ate pairing: the Miller loop over |x| = 0xd201000000010000, conjugated as x is negative, raised to
//! 3 · (p¹² - 1) / r. The factor 3 comes with the usual fast final exponentiation: whoever has a library that raises to
//! (p¹² - 1) / r cubes its result, and if it does not conjugate, inverts it. Every element is
//! `c0 + c1·w + c2·w² + … + c5·w⁵` with coefficients in Fp2 (v is w²), and is written
//!
//! ```text
//!   c0 ‖ c1 ‖ c2 ‖ c3 ‖ c4 ‖ c5,    c = a + b·u as  a (48 bytes, big-endian) ‖ b (48)
//! ```
//!
//! A Secondary computes one pairing for each pair of entries that talk, on the management core: one to two milliseconds.

mod curve;

use super::schedule::{EntryId, labeled_expand, labeled_extract};
use super::secret::{IbcClientKey, IbcServerKey, PairingPrk, SharedSecret};
use super::suite::Suite;
use core::fmt;
use curve::{G1, G2, Scalar};
use thiserror::Error;
use zeroize::Zeroizing;

/// H1's domain separation tag.
const DST_G1: &[u8] = b"PDMV2-V01-CS01-with-BLS12381G1_XMD:SHA-256_SSWU_RO_";
/// H2's domain separation tag.
const DST_G2: &[u8] = b"PDMV2-V01-CS01-with-BLS12381G2_XMD:SHA-256_SSWU_RO_";

/// Why a key from outside is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadPoint {
    /// Not the compressed form of a point: flags, a coordinate that is not below p, or no point with that x.
    #[error("expected a compressed point of the curve, found other bytes")]
    Encoding,
    /// On the curve, but outside the subgroup of order r.
    #[error("expected a point of the subgroup of order r, found one outside")]
    Subgroup,
    /// The identity, with which every shared secret would be known.
    #[error("expected a key, found the group's identity")]
    Identity,
}

/// The Primaries' secret number of one PairMasterSecret, from which they make every Secondary's key. Zeroed when it is dropped.
pub struct IbcMaster(Scalar);

impl fmt::Debug for IbcMaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IbcMaster")
    }
}

impl PairingPrk {
    /// IBC: `s`.
    ///
    /// Should it be 0, at odds of 1 to 2²⁵⁴, each key is the identity, which its holder refuses; the next
    /// PairMasterSecret heals that.
    #[must_use]
    pub fn ibc_master(&self, suite: &Suite) -> IbcMaster {
        let mut okm = Zeroizing::new([0; 48]);
        labeled_expand(self.bytes(), suite, b"pdmv2 ibc", b"", okm.as_mut_slice());
        IbcMaster(Scalar::reduce(&okm))
    }
}

impl IbcMaster {
    /// The key of the Secondary Client that `client` names.
    #[must_use]
    pub fn client_key(&self, client: &EntryId) -> IbcClientKey {
        IbcClientKey::from_bytes(*G1::hash(client.bytes(), DST_G1).times(&self.0).compress())
    }

    /// The key of the Secondary Server that `server` names.
    #[must_use]
    pub fn server_key(&self, server: &EntryId) -> IbcServerKey {
        IbcServerKey::from_bytes(*G2::hash(server.bytes(), DST_G2).times(&self.0).compress())
    }
}

impl IbcClientKey {
    /// What this client shares with the server that `server` names.
    ///
    /// # Errors
    /// [`BadPoint`] if this is no key: a point of the subgroup and not the identity.
    pub fn shared_secret(&self, suite: &Suite, server: &EntryId) -> Result<SharedSecret, BadPoint> {
        let key = G1::uncompress(self.bytes())?;
        Ok(agree(suite, &key, &G2::hash(server.bytes(), DST_G2)))
    }
}

impl IbcServerKey {
    /// What this server shares with the client that `client` names.
    ///
    /// # Errors
    /// [`BadPoint`] if this is no key: a point of the subgroup and not the identity.
    pub fn shared_secret(&self, suite: &Suite, client: &EntryId) -> Result<SharedSecret, BadPoint> {
        let key = G2::uncompress(self.bytes())?;
        Ok(agree(suite, &G1::hash(client.bytes(), DST_G1), &key))
    }
}

fn agree(suite: &Suite, p: &G1, q: &G2) -> SharedSecret {
    let gt = curve::pairing(p, q);
    SharedSecret::from_bytes(labeled_extract(
        suite,
        b"",
        b"pdmv2 ibc pair",
        gt.as_slice(),
    ))
}

#[cfg(test)]
mod tests;
