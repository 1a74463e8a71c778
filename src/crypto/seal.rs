//! Sealing and opening options in batches (protocol section 2). `docs/seal-kernel.md` says how and why.
//!
//! ```text
//!   0      1      2             4             6                        20                      36
//!   +------+------+------+------+------+------+------------------------+-----------------------+
//!   | type | len  | version, res| PRSEQ, F    | metrics (14)           | tag (16)              |
//!   +------+------+------+------+------+------+------------------------+-----------------------+
//!   '------------ additional data ------------'------- sealed ---------'
//! ```
//!
//! The nonce is `base_nonce` XOR PRSEQ, and PRSEQ is read from the option itself: what is sealed under a number and what
//! the wire says its number is cannot differ. That no key meets a PRSEQ twice is the caller's to keep.

use super::kernel::Backend;
use super::session::SessionKey;
use super::suite::Aead;

/// The additional data: type, length, version, reserved bits, PRSEQ and F.
pub(super) const HEADER_LEN: usize = 6;
/// The sealed metrics.
pub(super) const METRICS_LEN: usize = 14;
/// Where the tag starts.
pub(super) const TAG_AT: usize = HEADER_LEN + METRICS_LEN;
/// A sealed option.
pub(super) const OPTION_LEN: usize = TAG_AT + 16;

/// One option to seal in place.
#[derive(Debug)]
pub struct SealJob<'a> {
    /// What seals it; AES-128-GCM uses the first 16 bytes of the key.
    pub key: &'a SessionKey,
    /// In: 6 header bytes with PRSEQ in them, 14 metric bytes, 16 bytes of anything.
    /// Out: the same header, ciphertext, tag.
    pub option: &'a mut [u8; OPTION_LEN],
}

/// One sealed option to open.
#[derive(Debug)]
pub struct OpenJob<'a> {
    /// What is to open it; AES-128-GCM uses the first 16 bytes of the key.
    pub key: &'a SessionKey,
    /// As received; opening does not change it.
    pub option: &'a [u8; OPTION_LEN],
    /// Out: what came of it.
    pub opened: Opened,
}

/// What came of opening an option: metric bytes and two with all bits set behind them; if its tag was wrong, zeros. Sixteen bytes, which
/// are written and read as one block.
#[derive(Clone, Copy, Debug)]
pub struct Opened(pub(super) [u8; METRICS_LEN + 2]);

impl Opened {
    /// Of an option that has not opened.
    pub(super) const NOT: Self = Self([0; METRICS_LEN + 2]);

    /// Of one that has.
    pub(super) fn of(metrics: &[u8; METRICS_LEN]) -> Self {
        let mut opened = [0xff; METRICS_LEN + 2];
        opened[..METRICS_LEN].copy_from_slice(metrics);
        Self(opened)
    }

    /// The metric bytes, if the tag was right.
    #[inline]
    #[must_use]
    pub fn metrics(&self) -> Option<&[u8; METRICS_LEN]> {
        let (metrics, right) = self.0.split_first_chunk()?;
        (right != [0; 2]).then_some(metrics)
    }
}

impl<'a> OpenJob<'a> {
    /// A job that is not done yet.
    #[must_use]
    pub const fn new(key: &'a SessionKey, option: &'a [u8; OPTION_LEN]) -> Self {
        Self {
            key,
            option,
            opened: Opened::NOT,
        }
    }
}

/// The code that seals and opens on this machine.
#[derive(Clone, Copy, Debug)]
pub struct Kernel(Backend);

impl Kernel {
    /// The fastest that this processor runs.
    #[must_use]
    pub fn detect() -> Self {
        Self(Backend::fastest())
    }

    /// `ring`'s code, which runs everywhere.
    #[must_use]
    pub const fn portable() -> Self {
        Self(Backend::Portable)
    }

    /// Every one that this processor runs, for comparing them.
    #[must_use]
    pub fn available() -> Vec<Self> {
        Backend::available().into_iter().map(Self).collect()
    }

    /// A name for logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.0.name()
    }

    /// Seals every job's option. The jobs may have different keys, of one AEAD.
    pub fn seal(&self, aead: Aead, jobs: &mut [SealJob<'_>]) {
        self.0.seal(aead, jobs);
    }

    /// Opens every job's option and says of each whether its tag was right.
    pub fn open(&self, aead: Aead, jobs: &mut [OpenJob<'_>]) {
        self.0.open(aead, jobs);
    }
}

#[cfg(test)]
mod tests;
