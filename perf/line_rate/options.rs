//! Options that all differ, with keys that all differ, for what seals and opens them again and again.

use pdmgate::crypto::{OpenJob, SealJob, SessionKey};

/// As many of each.
pub struct Options {
    pub keys: Vec<SessionKey>,
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
            keys: (0..count)
                .map(|n| SessionKey::new(&bytes(n), &bytes(n + 64)))
                .collect(),
            options: (0..count).map(|n| bytes(n + 128)).collect(),
        }
    }

    /// To seal them in place.
    pub fn seal_jobs(&mut self) -> Vec<SealJob<'_>> {
        let options = self.keys.iter().zip(&mut self.options);
        options
            .map(|(key, option)| SealJob { key, option })
            .collect()
    }

    /// To open them.
    pub fn open_jobs(&self) -> Vec<OpenJob<'_>> {
        let options = self.keys.iter().zip(&self.options);
        options
            .map(|(key, option)| OpenJob::new(key, option))
            .collect()
    }
}
