//! Options that all differ, with keys that all differ, for what seals and opens them again and again.

use pdmgate::crypto::{OpenJob, SealJob};

/// As many of each.
#[derive(Clone)]
pub struct Options {
    pub keys: Vec<[u8; 32]>,
    pub nonces: Vec<[u8; 12]>,
    pub options: Vec<[u8; 36]>,
}

/// Bytes that differ.
fn bytes<const N: usize>(seed: usize) -> [u8; N] {
    std::array::from_fn(|at| (seed * 131 + at * 89 + at * at * 7 + 5) as u8)
}

impl Options {
    /// `count` of them.
    pub fn new(count: usize) -> Self {
        Self {
            keys: (0..count).map(bytes).collect(),
            nonces: (0..count).map(|n| bytes(n + 64)).collect(),
            options: (0..count).map(|n| bytes(n + 128)).collect(),
        }
    }

    /// To seal them in place.
    pub fn seal_jobs(&mut self) -> Vec<SealJob<'_>> {
        let keys = self.keys.iter().zip(&self.nonces);
        keys.zip(&mut self.options)
            .map(|((key, base_nonce), option)| SealJob {
                key,
                base_nonce,
                option,
            })
            .collect()
    }

    /// To open them.
    pub fn open_jobs(&self) -> Vec<OpenJob<'_>> {
        let keys = self.keys.iter().zip(&self.nonces);
        keys.zip(&self.options)
            .map(|((key, base_nonce), option)| OpenJob::new(key, base_nonce, option))
            .collect()
    }
}
