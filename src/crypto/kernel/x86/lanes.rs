//! AES-GCM over a block of each of a few options at once, as text that [`super::aesni`] and [`super::vaes`] each compile with their own
//! instructions and for their own number of options. It is a macro because `target_feature` takes nothing but a literal.
//!
//! Where it is used, these names must mean:
//!
//! | name | on the block of each option |
//! |---|---|
//! | `WIDTH` | how many options |
//! | `Lanes`, `join`, `split`, `all` | so many blocks; from and to single blocks; one block so many times |
//! | `xor`, `and` | bitwise |
//! | `shuffle(a, mask)` | byte i is byte `mask[i]` of `a`, or 0 if the top bit of `mask[i]` is set |
//! | `shift::<N>(a)` | each byte N places up, zeros below |
//! | `halve_words(a)` | each 16-bit little-endian number shifted right by one bit |
//! | `even_words(a)` | of four equal words, the first and the third, zeros for the others |
//! | `swap(a)` | the 64-bit halves change places |
//! | `round(a, key)`, `last_round(a, key)` | a round of AES encryption |
//! | `clmul::<I>(a, b)` | the carry-less product of one half of each: bit 0 of I takes the upper one of `a`, bit 4 of `b` |
//! | `double(a)` | shifted left by one bit, in GHASH's field |

/// For `fold`: x^128 = x^7 + x^2 + x + 1 in GHASH's field, all but the 1. In the upper half, bit 64 - i stands for x^i.
pub(super) const POLYNOMIAL: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc2];

/// For `double`: what comes back of the bits that a shift pushes out. Bit 128 - i stands for x^i, so the one that leaves at
/// the top is 1 = x^128 + x^7 + x^2 + x; the one that leaves the lower half enters the upper one.
pub(super) const CARRIES: [u8; 16] = [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc2];

/// A block's bytes in reverse: GHASH's order to the processor's and back.
pub(super) const REVERSE: [u8; 16] = [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];

/// In a mask of `shuffle`: a zero.
const Z: u8 = 0x80;

/// The option's 6 header bytes as GHASH's first block, reversed.
pub(super) const HEADER_REVERSED: [u8; 16] = [Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, 5, 4, 3, 2, 1, 0];
/// The header's last two bytes, PRSEQ and F, as a little-endian number where the nonce ends.
pub(super) const PRSEQ: [u8; 16] = [Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, 5, 4, Z, Z, Z, Z];
/// That number back to big-endian.
pub(super) const PRSEQ_SWAPPED: [u8; 16] = [Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, 11, 10, Z, Z, Z, Z];
/// Bytes 0 to 8 and 4 to 12 of the base nonce, side by side, to the nonce.
pub(super) const NONCE: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15, Z, Z, Z, Z];
/// RotWord of a key's last word, in all four words.
pub(super) const ROT_WORD: [u8; 16] = [
    13, 14, 15, 12, 13, 14, 15, 12, 13, 14, 15, 12, 13, 14, 15, 12,
];
/// A key's last word, in all four words.
pub(super) const LAST_WORD: [u8; 16] = [
    12, 13, 14, 15, 12, 13, 14, 15, 12, 13, 14, 15, 12, 13, 14, 15,
];
/// The 14 bytes of text in a block.
pub(super) const TEXT: [u8; 16] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0,
];
/// GHASH's last block, reversed: 48 bits of additional data, 112 of text.
pub(super) const LENGTHS: [u8; 16] = [112, 0, 0, 0, 0, 0, 0, 0, 48, 0, 0, 0, 0, 0, 0, 0];

/// The round constants of AES-128, of which AES-256 uses the first seven.
pub(super) const RCON: [[i32; 2]; 5] = [
    [0x01, 0x02],
    [0x04, 0x08],
    [0x10, 0x20],
    [0x40, 0x80],
    [0x1b, 0x36],
];

/// The end of GCM's counter block.
pub(super) const fn counter(value: u8) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, value]
}

macro_rules! gcm_of_lanes {
    ($features:literal) => {
        /// One block for all options.
        #[inline]
        #[target_feature(enable = $features)]
        fn constant(block: [u8; 16]) -> Lanes {
            all(load(block))
        }

        /// `SubWord` of the word that `mask` takes to all four words of `key`, and a round constant added.
        ///
        /// AES's last round is ShiftRows, SubBytes and the addition of a key. ShiftRows leaves four equal words alone.
        #[inline]
        #[target_feature(enable = $features)]
        fn sub_word(key: Lanes, mask: [u8; 16], rcon: i32) -> Lanes {
            last_round(shuffle(key, constant(mask)), all(_mm_set1_epi32(rcon)))
        }

        /// The round key after `key`, and the one after that but for its own `sub_word`, which is still to be added.
        ///
        /// With P the prefix sums of a key's words and t a `sub_word`, the next key is P(key) + t and the one after it
        /// P(P(key)) + P(t) + t'. As sums are XOR, P(P(key)) is key + (key moved up by two words), which is on the way to
        /// P(key) anyway, and P(t), t being four equal words, is t in the even words and zero in the others.
        #[inline]
        #[target_feature(enable = $features)]
        fn next_keys(key: Lanes, sub_word: Lanes) -> (Lanes, Lanes) {
            let twice = xor(key, shift::<8>(key));
            let next = xor(xor(twice, shift::<4>(twice)), sub_word);
            (next, xor(twice, even_words(sub_word)))
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn rounds(blocks: [Lanes; 3], key: Lanes) -> [Lanes; 3] {
            let [a, b, c] = blocks;
            [round(a, key), round(b, key), round(c, key)]
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn last_rounds(blocks: [Lanes; 3], key: Lanes) -> [Lanes; 3] {
            let [a, b, c] = blocks;
            [last_round(a, key), last_round(b, key), last_round(c, key)]
        }

        /// AES-128 of three blocks to which the key was added already. Each round key is made right before its round.
        ///
        /// `COPY` gives each caller a function of its own, which the compiler then builds into it: a call in between would
        /// take sixteen registers through memory.
        #[inline]
        #[target_feature(enable = $features)]
        fn encrypt_128<const COPY: bool>(mut key: Lanes, mut blocks: [Lanes; 3]) -> [Lanes; 3] {
            let [pairs @ .., [c, d]] = &RCON;
            for [c, d] in pairs {
                let (next, after) = next_keys(key, sub_word(key, ROT_WORD, *c));
                blocks = rounds(blocks, next);
                key = xor(after, sub_word(next, ROT_WORD, *d));
                blocks = rounds(blocks, key);
            }
            let (next, after) = next_keys(key, sub_word(key, ROT_WORD, *c));
            blocks = rounds(blocks, next);
            key = xor(after, sub_word(next, ROT_WORD, *d));
            last_rounds(blocks, key)
        }

        /// AES-256 of three blocks to which the key's first half was added already.
        ///
        /// Even and odd round keys are two rows; each makes its next key from the newest key of the other. `COPY` as in
        /// [`encrypt_128`].
        #[inline]
        #[target_feature(enable = $features)]
        fn encrypt_256<const COPY: bool>(key: [Lanes; 2], mut blocks: [Lanes; 3]) -> [Lanes; 3] {
            let [mut even, mut odd] = key;
            blocks = rounds(blocks, odd);
            let [pairs @ .., [c, _], _] = &RCON;
            for [c, d] in pairs {
                let (next_even, after_even) = next_keys(even, sub_word(odd, ROT_WORD, *c));
                blocks = rounds(blocks, next_even);
                let (next_odd, after_odd) = next_keys(odd, sub_word(next_even, LAST_WORD, 0));
                blocks = rounds(blocks, next_odd);
                even = xor(after_even, sub_word(next_odd, ROT_WORD, *d));
                blocks = rounds(blocks, even);
                odd = xor(after_odd, sub_word(even, LAST_WORD, 0));
                blocks = rounds(blocks, odd);
            }
            let (last, _) = next_keys(even, sub_word(odd, ROT_WORD, *c));
            last_rounds(blocks, last)
        }

        /// Takes the 64 lowest bits off a product: `low` is its bottom, `rest` what stands 64 bits further up.
        ///
        /// They hold powers that the field does not have; x^128 = x^7 + x^2 + x + 1 moves each of them up by 121 to 128 bits.
        #[inline]
        #[target_feature(enable = $features)]
        fn fold(low: Lanes, rest: Lanes) -> Lanes {
            let multiple = clmul::<0x10>(low, constant(POLYNOMIAL));
            xor(xor(rest, swap(low)), multiple)
        }

        /// `a` times H in GHASH's field: `a` and the product reversed, `h` reversed and doubled.
        ///
        /// A product of two reversed numbers is reversed one bit short; that `h` is doubled makes up for it.
        #[inline]
        #[target_feature(enable = $features)]
        fn multiply(a: Lanes, h: Lanes) -> Lanes {
            let low = clmul::<0x00>(a, h);
            let middle = xor(clmul::<0x01>(a, h), clmul::<0x10>(a, h));
            let high = clmul::<0x11>(a, h);
            fold(fold(low, middle), high)
        }

        /// [`multiply`] of an `a` whose lower half is zero.
        #[inline]
        #[target_feature(enable = $features)]
        fn multiply_upper(a: Lanes, h: Lanes) -> Lanes {
            fold(clmul::<0x01>(a, h), clmul::<0x11>(a, h))
        }

        /// Output text (two zero bytes behind it) and tag of each option.
        #[inline]
        #[target_feature(enable = $features)]
        fn crypt<const KEY_LEN: usize, const OPEN: bool>(
            keys: [&[u8; 32]; WIDTH],
            base_nonces: [&[u8; 12]; WIDTH],
            options: [&[u8; OPTION_LEN]; WIDTH],
        ) -> [[__m128i; WIDTH]; 2] {
            let key = join(blocks::<0, 32, WIDTH>(keys));
            let header = join(blocks::<0, OPTION_LEN, WIDTH>(options));
            let text = join(blocks::<HEADER_LEN, OPTION_LEN, WIDTH>(options));
            let nonce = join(nonce_halves(base_nonces));

            let prseq = halve_words(shuffle(header, constant(PRSEQ)));
            let prseq = shuffle(prseq, constant(PRSEQ_SWAPPED));
            let nonce = xor(xor(shuffle(nonce, constant(NONCE)), prseq), key);
            // The block of zeros is GHASH's key, counter 1 hides the tag, counter 2 the text.
            let plain = [
                key,
                xor(nonce, constant(counter(1))),
                xor(nonce, constant(counter(2))),
            ];
            let [hash_key, tag_mask, key_stream] = if KEY_LEN == 16 {
                encrypt_128::<OPEN>(key, plain)
            } else {
                encrypt_256::<OPEN>([key, join(blocks::<16, 32, WIDTH>(keys))], plain)
            };

            let output = and(xor(text, key_stream), constant(TEXT));
            let ciphertext = if OPEN {
                and(text, constant(TEXT))
            } else {
                output
            };
            let h = double(shuffle(hash_key, constant(REVERSE)));
            let hash = multiply_upper(shuffle(header, constant(HEADER_REVERSED)), h);
            let hash = multiply(xor(hash, shuffle(ciphertext, constant(REVERSE))), h);
            let hash = multiply(xor(hash, constant(LENGTHS)), h);
            let tag = xor(shuffle(hash, constant(REVERSE)), tag_mask);
            [split(output), split(tag)]
        }

        #[target_feature(enable = $features)]
        fn seal_lanes<const KEY_LEN: usize>(jobs: &mut [SealJob<'_>; WIDTH]) {
            let [texts, tags] = crypt::<KEY_LEN, false>(
                jobs.each_ref().map(|job| job.key),
                jobs.each_ref().map(|job| job.base_nonce),
                jobs.each_ref().map(|job| &*job.option),
            );
            for ((job, text), tag) in jobs.iter_mut().zip(texts).zip(tags) {
                // The block of text ends in two zeros; the tag is written over them.
                put::<HEADER_LEN, 16, OPTION_LEN>(job.option, store(text));
                put::<TAG_AT, 16, OPTION_LEN>(job.option, store(tag));
            }
        }

        #[target_feature(enable = $features)]
        fn open_lanes<const KEY_LEN: usize>(jobs: &mut [OpenJob<'_>; WIDTH]) {
            let [texts, tags] = crypt::<KEY_LEN, true>(
                jobs.each_ref().map(|job| job.key),
                jobs.each_ref().map(|job| job.base_nonce),
                jobs.each_ref().map(|job| job.option),
            );
            for ((job, text), tag) in jobs.iter_mut().zip(texts).zip(tags) {
                let received = load(part::<TAG_AT, 16, OPTION_LEN>(job.option));
                let difference = _mm_xor_si128(tag, received);
                // No branch and no early end: time does not tell how much of a forged tag was right.
                job.ok = _mm_testz_si128(difference, difference) == 1;
                let mask = _mm_set1_epi64x(-i64::from(job.ok));
                job.metrics = part::<0, METRICS_LEN, 16>(&store(_mm_and_si128(text, mask)));
            }
        }
    };
}

pub(super) use gcm_of_lanes;
