//! The building blocks of the tier that includes this file, for bytes: what `tests.rs` composes to GCM of any length.

use super::*;
use crate::crypto::kernel::x86::tests::{Block, Primitives};

/// The blocks to compute on in `lane`, something else in the others.
fn spread(block: Block, lane: usize) -> Lanes {
    let mut blocks = [[0; 16]; WIDTH];
    for (at, other) in blocks.iter_mut().enumerate() {
        *other = if at == lane {
            block
        } else {
            block.map(|byte| byte.wrapping_mul(31).wrapping_add(at as u8 + 1))
        };
    }
    // SAFETY: this and the other functions below are reachable through `primitives` only, which asks `detect` first.
    unsafe { join(blocks.map(|block| load(block))) }
}

fn pick(lanes: Lanes, lane: usize) -> Block {
    // SAFETY: as in `spread`.
    unsafe { store(split(lanes)[lane]) }
}

fn encrypt(key: &[u8], blocks: [Block; 3], lane: usize) -> [Block; 3] {
    let halves: Vec<Lanes> = key
        .chunks(16)
        .map(|half| spread(half.try_into().unwrap(), lane))
        .collect();
    let blocks = blocks.map(|block| spread(block, lane));
    // SAFETY: as in `spread`.
    let encrypted = unsafe {
        let [a, b, c] = blocks;
        let blocks = [xor(a, halves[0]), xor(b, halves[0]), xor(c, halves[0])];
        match halves[..] {
            [key] => encrypt_128::<false>(key, blocks, &mut Tags::none()),
            [low, high] => encrypt_256::<false>([low, high], blocks, &mut Tags::none()),
            _ => panic!("a key of {} bytes", key.len()),
        }
    };
    encrypted.map(|lanes| pick(lanes, lane))
}

fn times_h(h: Block, a: Block, lane: usize) -> Block {
    let upper_only = a[8..] == [0; 8];
    let (h, a) = (spread(h, lane), spread(a, lane));
    // SAFETY: as in `spread`.
    unsafe {
        let reverse = constant(REVERSE);
        let begun = || {
            let mut tags = Tags {
                h,
                hash: shuffle(a, reverse),
                ..Tags::none()
            };
            tags.step(0);
            tags
        };
        let result = |hash: Lanes| pick(shuffle(hash, reverse), lane);
        let mut tags = begun();
        (3..=5).for_each(|at| tags.step(at));
        let product = result(xor(tags.hash, constant(LENGTHS)));
        if upper_only {
            let mut short = begun();
            (1..=2).for_each(|at| short.step(at));
            assert_eq!(result(short.hash), product);
        }
        product
    }
}

pub(in crate::crypto::kernel::x86) fn primitives() -> Option<Primitives> {
    Tier::detect().map(|_| Primitives {
        width: WIDTH,
        encrypt,
        times_h,
    })
}
