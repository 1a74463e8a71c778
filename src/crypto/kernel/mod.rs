//! The implementations behind [`super::seal::Kernel`], and the choice between them.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::seal::{OpenJob, SealJob};
use super::suite::Aead;

/// An implementation that this processor is known to run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Backend {
    /// `ring`, an option at a time.
    Portable,
    /// AES-GCM for two options at once, one a register.
    #[cfg(target_arch = "x86_64")]
    AesNi(x86::AesNi),
    /// AES-GCM for four options at once, two a register.
    #[cfg(target_arch = "x86_64")]
    Vaes(x86::Vaes),
    /// AES-GCM for eight options at once, four a register.
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Avx512),
}

impl Backend {
    /// Fastest last.
    pub(super) fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        let native = [
            x86::AesNi::detect().map(Self::AesNi),
            x86::Vaes::detect().map(Self::Vaes),
            x86::Avx512::detect().map(Self::Avx512),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let native = [None; 0];
        let portable = [Some(Self::Portable)];
        portable.into_iter().chain(native).flatten().collect()
    }

    pub(super) fn fastest() -> Self {
        Self::available().pop().unwrap_or(Self::Portable)
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Portable => "ring",
            #[cfg(target_arch = "x86_64")]
            Self::AesNi(_) => "aes-ni",
            #[cfg(target_arch = "x86_64")]
            Self::Vaes(_) => "vaes",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx-512",
        }
    }

    pub(super) fn seal(self, aead: Aead, jobs: &mut [SealJob<'_>]) {
        #[cfg(target_arch = "x86_64")]
        match (self, aead) {
            (Self::AesNi(kernel), Aead::Aes128Gcm) => return kernel.seal::<16>(jobs),
            (Self::AesNi(kernel), Aead::Aes256Gcm) => return kernel.seal::<32>(jobs),
            (Self::Vaes(kernel), Aead::Aes128Gcm) => return kernel.seal::<16>(jobs),
            (Self::Vaes(kernel), Aead::Aes256Gcm) => return kernel.seal::<32>(jobs),
            (Self::Avx512(kernel), Aead::Aes128Gcm) => return kernel.seal::<16>(jobs),
            (Self::Avx512(kernel), Aead::Aes256Gcm) => return kernel.seal::<32>(jobs),
            (Self::Portable, _) | (_, Aead::ChaCha20Poly1305) => {}
        }
        portable::seal(aead, jobs);
    }

    pub(super) fn open(self, aead: Aead, jobs: &mut [OpenJob<'_>]) {
        #[cfg(target_arch = "x86_64")]
        match (self, aead) {
            (Self::AesNi(kernel), Aead::Aes128Gcm) => return kernel.open::<16>(jobs),
            (Self::AesNi(kernel), Aead::Aes256Gcm) => return kernel.open::<32>(jobs),
            (Self::Vaes(kernel), Aead::Aes128Gcm) => return kernel.open::<16>(jobs),
            (Self::Vaes(kernel), Aead::Aes256Gcm) => return kernel.open::<32>(jobs),
            (Self::Avx512(kernel), Aead::Aes128Gcm) => return kernel.open::<16>(jobs),
            (Self::Avx512(kernel), Aead::Aes256Gcm) => return kernel.open::<32>(jobs),
            (Self::Portable, _) | (_, Aead::ChaCha20Poly1305) => {}
        }
        portable::open(aead, jobs);
    }
}
