//! The portable twin: `ring`, one option at a time, its key set up each time.
//!
//! `ring` keeps a key in place, so none of this allocates.

use crate::crypto::seal::{HEADER_LEN, METRICS_LEN, OPTION_LEN, OpenJob, Opened, SealJob};
use crate::crypto::suite::Aead;
use ring::aead::{self, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

pub(super) fn seal(aead: Aead, jobs: &mut [SealJob<'_>]) {
    for job in jobs {
        let nonce = nonce(job.key.base_nonce(), job.option);
        let (header, rest) = job.option.split_at_mut(HEADER_LEN);
        let (text, tag) = rest.split_at_mut(METRICS_LEN);
        match seal_text(aead, job.key.key(), nonce, header, text) {
            Some(value) => tag.copy_from_slice(value.as_ref()),
            // Cannot happen, for it is about lengths that are right; but if it did, metrics must not leave in the clear.
            None => rest.fill(0),
        }
    }
}

fn seal_text(
    aead: Aead,
    key: &[u8; 32],
    nonce: Nonce,
    header: &[u8],
    text: &mut [u8],
) -> Option<Tag> {
    load_key(aead, key)?
        .seal_in_place_separate_tag(nonce, Aad::from(header), text)
        .ok()
}

pub(super) fn open(aead: Aead, jobs: &mut [OpenJob<'_>]) {
    for job in jobs {
        job.opened = match open_text(aead, job) {
            Some(metrics) => Opened::of(&metrics),
            None => Opened::NOT,
        };
    }
}

fn open_text(aead: Aead, job: &OpenJob<'_>) -> Option<[u8; METRICS_LEN]> {
    let (header, rest) = job.option.split_at(HEADER_LEN);
    let (text, tag) = rest.split_at(METRICS_LEN);
    let mut text = <[u8; METRICS_LEN]>::try_from(text).ok()?;
    let tag = Tag::try_from(tag).ok()?;
    let nonce = nonce(job.key.base_nonce(), job.option);
    load_key(aead, job.key.key())?
        .open_in_place_separate_tag(nonce, Aad::from(header), tag, &mut text, 0..)
        .ok()?;
    Some(text)
}

/// `base_nonce` XOR PRSEQ, the upper 15 bits of the header's last two bytes.
fn nonce(base_nonce: &[u8; 12], option: &[u8; OPTION_LEN]) -> Nonce {
    let mut nonce = *base_nonce;
    let [.., nonce_high, nonce_low] = &mut nonce;
    let prseq = u16::from_be_bytes([option[4], option[5]]) >> 1;
    let [high, low] = prseq.to_be_bytes();
    *nonce_high ^= high;
    *nonce_low ^= low;
    Nonce::assume_unique_for_key(nonce)
}

fn load_key(aead: Aead, key: &[u8; 32]) -> Option<LessSafeKey> {
    let algorithm = match aead {
        Aead::Aes128Gcm => &aead::AES_128_GCM,
        Aead::Aes256Gcm => &aead::AES_256_GCM,
        Aead::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
    };
    let key = key.get(..aead.key_len())?;
    UnboundKey::new(algorithm, key).ok().map(LessSafeKey::new)
}

#[cfg(test)]
mod tests;
