//! Every kernel against `ring`, and against bits that were changed. Known answers stand in `tests/vectors_crypto.rs`.

use super::*;
use proptest::array::{uniform12, uniform32};
use proptest::prelude::*;

const AEADS: [Aead; 3] = [Aead::Aes128Gcm, Aead::Aes256Gcm, Aead::ChaCha20Poly1305];

/// What a job refers to.
#[derive(Clone, Debug)]
struct Owned {
    key: [u8; 32],
    base_nonce: [u8; 12],
    option: [u8; OPTION_LEN],
}

fn keys(batch: &[Owned]) -> Vec<SessionKey> {
    let keys = batch.iter();
    keys.map(|owned| SessionKey::new(&owned.key, &owned.base_nonce))
        .collect()
}

/// Pseudorandom, the same each time.
struct Source(u64);

impl Source {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        [(); N].map(|()| {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 56) as u8
        })
    }

    fn owned(&mut self) -> Owned {
        Owned {
            key: self.bytes(),
            base_nonce: self.bytes(),
            option: self.bytes(),
        }
    }
}

fn seal(kernel: Kernel, aead: Aead, batch: &mut [Owned]) {
    let keys = keys(batch);
    let mut jobs: Vec<_> = keys
        .iter()
        .zip(batch)
        .map(|(key, owned)| SealJob {
            key,
            option: &mut owned.option,
        })
        .collect();
    kernel.seal(aead, &mut jobs);
}

/// The metrics of each option, `None` where the tag was wrong.
fn open(kernel: Kernel, aead: Aead, batch: &[Owned]) -> Vec<Option<[u8; METRICS_LEN]>> {
    let keys = keys(batch);
    let mut jobs: Vec<_> = keys
        .iter()
        .zip(batch)
        .map(|(key, owned)| OpenJob {
            // What stood there before must not show.
            opened: Opened::of(&[0x5a; METRICS_LEN]),
            ..OpenJob::new(key, &owned.option)
        })
        .collect();
    kernel.open(aead, &mut jobs);
    jobs.iter()
        .map(|job| {
            let metrics = job.opened.metrics();
            assert!(metrics.is_some() || job.opened.0 == Opened::NOT.0);
            metrics.copied()
        })
        .collect()
}

/// Seals and opens by every kernel and compares.
fn check(aead: Aead, batch: &[Owned]) {
    let mut expected = batch.to_vec();
    seal(Kernel::portable(), aead, &mut expected);
    for kernel in Kernel::available() {
        let mut sealed = batch.to_vec();
        seal(kernel, aead, &mut sealed);
        let opened = open(kernel, aead, &sealed);
        assert_eq!(opened.len(), batch.len());
        for (((plain, sealed), expected), opened) in
            batch.iter().zip(&sealed).zip(&expected).zip(&opened)
        {
            let name = kernel.name();
            assert_eq!(sealed.option, expected.option, "{aead:?} by {name}");
            let metrics = part(&plain.option);
            assert_eq!(*opened, Some(metrics), "{aead:?} by {name}");
        }
    }
}

fn part(option: &[u8; OPTION_LEN]) -> [u8; METRICS_LEN] {
    option[HEADER_LEN..TAG_AT].try_into().unwrap()
}

#[test]
fn kernels_agree_on_every_batch_size() {
    let mut source = Source(1);
    for size in 0..=67 {
        let batch: Vec<_> = (0..size).map(|_| source.owned()).collect();
        for aead in AEADS {
            check(aead, &batch);
        }
    }
}

#[test]
fn kernels_agree_on_random_jobs() {
    let mut source = Source(2);
    let mut left = 100_000;
    while left > 0 {
        let [size] = source.bytes();
        let batch: Vec<_> = (0..size % 68).map(|_| source.owned()).collect();
        left -= batch.len().min(left);
        check(Aead::Aes128Gcm, &batch);
        check(Aead::Aes256Gcm, &batch);
    }
}

proptest! {
    /// Bytes that shrink, and that proptest likes to make extreme.
    #[test]
    fn kernels_agree_on_any_job(key in uniform32(any::<u8>()), base_nonce in uniform12(any::<u8>()), header in any::<[u8; 6]>(), metrics in any::<[u8; 14]>()) {
        let mut option = [0; OPTION_LEN];
        option[..HEADER_LEN].copy_from_slice(&header);
        option[HEADER_LEN..TAG_AT].copy_from_slice(&metrics);
        let job = Owned { key, base_nonce, option };
        for aead in AEADS {
            check(aead, std::slice::from_ref(&job));
        }
    }
}

/// The nonce takes PRSEQ alone: not F, which stands below it, nor anything above.
#[test]
fn the_nonce_is_the_number_alone() {
    let mut source = Source(3);
    let base = source.owned();
    for aead in AEADS {
        for kernel in Kernel::available() {
            for prseq in [0u16, 1, 0x7f, 0x80, 0xff, 0x100, 0x3fff, 0x4000, 0x7fff] {
                for f in [0, 1] {
                    let number = (prseq << 1 | f).to_be_bytes();
                    let mut numbered = base.clone();
                    numbered.option[4..6].copy_from_slice(&number);
                    let [.., high, low] = &mut numbered.base_nonce;
                    *high ^= (prseq >> 8) as u8;
                    *low ^= prseq as u8;
                    seal(kernel, aead, std::slice::from_mut(&mut numbered));

                    // The same nonce without a number: GCM's and Poly1305's ciphertext does not depend on the header.
                    let mut plain = base.clone();
                    plain.option[4..6].copy_from_slice(&[0, f as u8]);
                    seal(kernel, aead, std::slice::from_mut(&mut plain));
                    assert_eq!(part(&numbered.option), part(&plain.option), "{prseq} {f}");
                }
            }
        }
    }
}

/// A bit of key, nonce, header, ciphertext or tag that changed, in each lane, shuts this option and no other.
#[test]
fn any_changed_bit_is_noticed() {
    let mut source = Source(4);
    for aead in AEADS {
        let mut sealed: Vec<_> = (0..9).map(|_| source.owned()).collect();
        let metrics: Vec<_> = sealed
            .iter()
            .map(|owned| Some(part(&owned.option)))
            .collect();
        seal(Kernel::portable(), aead, &mut sealed);
        for kernel in Kernel::available() {
            for changed in 0..sealed.len() {
                let mut expected = metrics.clone();
                expected[changed] = None;
                for bit in 0..8 * (OPTION_LEN + 12 + aead.key_len()) {
                    let mut batch = sealed.clone();
                    let Owned {
                        key,
                        base_nonce,
                        option,
                    } = &mut batch[changed];
                    let mut bytes = option.iter_mut().chain(base_nonce).chain(key);
                    *bytes.nth(bit / 8).unwrap() ^= 1 << (bit % 8);
                    let opened = open(kernel, aead, &batch);
                    assert_eq!(opened, expected, "{aead:?} {} bit {bit}", kernel.name());
                }
            }
        }
    }
}

#[test]
fn aes_128_ignores_the_rest_of_the_key() {
    let owned = Source(5).owned();
    for kernel in Kernel::available() {
        let [mut short, mut long] = [owned.clone(), owned.clone()];
        short.key[16..].fill(0);
        seal(kernel, Aead::Aes128Gcm, std::slice::from_mut(&mut short));
        seal(kernel, Aead::Aes128Gcm, std::slice::from_mut(&mut long));
        assert_eq!(short.option, long.option);
    }
}

#[test]
fn the_twin_is_always_there() {
    assert_eq!(Kernel::available()[0].name(), Kernel::portable().name());
    let fastest = Kernel::available().pop().unwrap();
    assert_eq!(Kernel::detect().name(), fastest.name());
}
