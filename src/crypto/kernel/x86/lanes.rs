//! AES-GCM over a block of each of a few options at once, as text that [`super::aesni`], [`super::vaes`] and [`super::avx512`] each
//! compile with their own instructions and for their own number of options. It is a macro because `target_feature` takes nothing but a
//! literal.
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
//! | `zero_halves(a)` | all bits of each 64-bit half that is zero, none of the others |
//! | `round(a, key)`, `last_round(a, key)` | a round of AES encryption |
//! | `clmul::<I>(a, b)` | the carry-less product of one half of each: bit 0 of I takes the upper one of `a`, bit 4 of `b` |
//! | `add_halves(a, b)` | sums of the 64-bit halves |
//! | `spread_words(a)` | of the four words from the lowest on: the fourth, the first, the second and the fourth |
//! | `sign_words(a)` | all bits of each word whose highest is set, none of the others |
//!
//! The macro takes the type that proves that the processor has the instructions, these, and the class of registers that `Lanes` are in.

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
/// The base nonce in the first block of a session key.
pub(super) const NONCE: [u8; 16] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0,
];
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
/// Behind the text of an option that opened: [`crate::crypto::seal::Opened`].
pub(super) const RIGHT: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
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

/// Functions that do to each of two registers what an intrinsic does to one.
macro_rules! each {
    ($features:literal; $($name:ident $(<$n:ident>)? ($($arg:ident),+) = $f:expr;)+) => {$(
        #[inline]
        #[target_feature(enable = $features)]
        fn $name $(<const $n: i32>)? ($($arg: Lanes),+) -> Lanes {
            [$f($($arg[0]),+), $f($($arg[1]),+)]
        }
    )+};
}

macro_rules! gcm_of_lanes {
    ($tier:ident, $features:literal, $register:ident) => {
        impl $tier {
            pub(in crate::crypto::kernel) fn seal<const KEY_LEN: usize>(
                self,
                jobs: &mut [SealJob<'_>],
            ) {
                // SAFETY: `seal_lanes` and all that it calls enable features that the tier's `detect` asks for, with those that they
                // imply, and only `detect` makes a value of this type. Nothing else about the call is unsafe: it takes checked
                // references.
                unsafe { seal_lanes::<KEY_LEN>(to_seal(jobs, &mut [[0; OPTION_LEN]; WIDTH])) };
            }

            pub(in crate::crypto::kernel) fn open<const KEY_LEN: usize>(
                self,
                jobs: &mut [OpenJob<'_>],
            ) {
                // SAFETY: as in `seal`.
                unsafe { open_lanes::<KEY_LEN>(to_open(jobs, &mut spare())) };
            }
        }

        /// One block for all options.
        #[inline]
        #[target_feature(enable = $features)]
        fn constant(block: [u8; 16]) -> Lanes {
            all(load(block))
        }

        /// Shifts left by one bit, in GHASH's field. The bits that fall out of the halves, spread over the words that [`CARRIES`] has for
        /// them, tell which of it to add.
        #[inline]
        #[target_feature(enable = $features)]
        fn double(a: Lanes) -> Lanes {
            let carried = sign_words(spread_words(a));
            xor(add_halves(a, a), and(carried, constant(CARRIES)))
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

        /// Keeps what is made of these values behind what they are made of. The compiler does not know that nothing is done to them here;
        /// else it would make all round keys first, then all rounds, then all tags, and keep what that leaves over in memory.
        #[inline]
        #[target_feature(enable = $features)]
        fn in_order(key: &mut Lanes, blocks: &mut [Lanes; 3], tags: &mut Tags) {
            let [a, b, c] = blocks;
            // SAFETY: there is no instruction in it, so every register holds afterwards what it held before.
            unsafe {
                core::arch::asm!(
                    "/* {} {} {} {} {} {} {} {} {} {} */",
                    inout($register) key[0],
                    inout($register) key[1],
                    inout($register) a[0],
                    inout($register) a[1],
                    inout($register) b[0],
                    inout($register) b[1],
                    inout($register) c[0],
                    inout($register) c[1],
                    inout($register) tags.hash[0],
                    inout($register) tags.hash[1],
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
        }

        /// Two rounds, each with a round key made right before it and a step of `tags` behind it.
        #[inline]
        #[target_feature(enable = $features)]
        fn two_rounds<const AT: usize, const COPY: bool>(
            key: &mut Lanes,
            blocks: &mut [Lanes; 3],
            tags: &mut Tags,
        ) {
            let [c, d] = RCON[AT];
            let (mut next, after) = next_keys(*key, sub_word(*key, ROT_WORD, c));
            *blocks = rounds(*blocks, next);
            tags.step(2 * AT);
            in_order(&mut next, blocks, tags);
            *key = xor(after, sub_word(next, ROT_WORD, d));
            *blocks = rounds(*blocks, *key);
            tags.step(2 * AT + 1);
            in_order(key, blocks, tags);
        }

        /// AES-128 of three blocks to which the key was added already. `tags` are done when this is.
        ///
        /// `COPY` gives each caller a function of its own, which the compiler then builds into it: a call in between would
        /// take sixteen registers through memory.
        #[inline]
        #[target_feature(enable = $features)]
        fn encrypt_128<const COPY: bool>(
            mut key: Lanes,
            mut blocks: [Lanes; 3],
            tags: &mut Tags,
        ) -> [Lanes; 3] {
            two_rounds::<0, COPY>(&mut key, &mut blocks, tags);
            two_rounds::<1, COPY>(&mut key, &mut blocks, tags);
            two_rounds::<2, COPY>(&mut key, &mut blocks, tags);
            two_rounds::<3, COPY>(&mut key, &mut blocks, tags);
            let [c, d] = RCON[4];
            let (mut next, after) = next_keys(key, sub_word(key, ROT_WORD, c));
            blocks = rounds(blocks, next);
            tags.step(8);
            in_order(&mut next, &mut blocks, tags);
            last_rounds(blocks, xor(after, sub_word(next, ROT_WORD, d)))
        }

        /// [`two_rounds`] twice, of AES-256: even and odd round keys are two rows; each makes its next key from the newest key of the other.
        #[inline]
        #[target_feature(enable = $features)]
        fn four_rounds<const AT: usize, const COPY: bool>(
            [even, odd]: &mut [Lanes; 2],
            blocks: &mut [Lanes; 3],
            tags: &mut Tags,
        ) {
            let [c, d] = RCON[AT];
            let (mut next_even, after_even) = next_keys(*even, sub_word(*odd, ROT_WORD, c));
            *blocks = rounds(*blocks, next_even);
            tags.step(4 * AT);
            in_order(&mut next_even, blocks, tags);
            let (mut next_odd, after_odd) = next_keys(*odd, sub_word(next_even, LAST_WORD, 0));
            *blocks = rounds(*blocks, next_odd);
            tags.step(4 * AT + 1);
            in_order(&mut next_odd, blocks, tags);
            *even = xor(after_even, sub_word(next_odd, ROT_WORD, d));
            *blocks = rounds(*blocks, *even);
            tags.step(4 * AT + 2);
            in_order(even, blocks, tags);
            *odd = xor(after_odd, sub_word(*even, LAST_WORD, 0));
            *blocks = rounds(*blocks, *odd);
            tags.step(4 * AT + 3);
            in_order(odd, blocks, tags);
        }

        /// AES-256 of three blocks to which the key's first half was added already. `tags` and `COPY` as in [`encrypt_128`].
        #[inline]
        #[target_feature(enable = $features)]
        fn encrypt_256<const COPY: bool>(
            mut key: [Lanes; 2],
            mut blocks: [Lanes; 3],
            tags: &mut Tags,
        ) -> [Lanes; 3] {
            blocks = rounds(blocks, key[1]);
            four_rounds::<0, COPY>(&mut key, &mut blocks, tags);
            four_rounds::<1, COPY>(&mut key, &mut blocks, tags);
            four_rounds::<2, COPY>(&mut key, &mut blocks, tags);
            let [even, odd] = key;
            let [c, _] = RCON[3];
            let (last, _) = next_keys(even, sub_word(odd, ROT_WORD, c));
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

        /// The tags of options that were encrypted, on their way: nine steps, each a wait long. They are taken between the rounds of the
        /// options after them, since either alone leaves the processor waiting for most of its time.
        struct Tags {
            /// GHASH's key: as encrypted; after the first step reversed, and doubled, since a product of two reversed numbers is reversed one
            /// bit short.
            h: Lanes,
            /// The headers as encryption left them, then the sum so far.
            hash: Lanes,
            /// Text as received or sent, reversed.
            ciphertext: Lanes,
            /// What hides the tag; on opening with the tag received added to it.
            mask: Lanes,
            /// A product that is being folded.
            low: Lanes,
            middle: Lanes,
        }

        impl Tags {
            /// Of nobody.
            #[inline]
            #[target_feature(enable = $features)]
            fn none() -> Self {
                let zero = all(_mm_setzero_si128());
                Self {
                    h: zero,
                    hash: zero,
                    ciphertext: zero,
                    mask: zero,
                    low: zero,
                    middle: zero,
                }
            }

            /// Horner's rule over header, text and lengths; a product is folded in two steps.
            #[inline]
            #[target_feature(enable = $features)]
            fn step(&mut self, at: usize) {
                match at {
                    0 => self.h = double(shuffle(self.h, constant(REVERSE))),
                    // The header's lower half is zero.
                    1 => self.middle = clmul::<0x01>(self.hash, self.h),
                    2 => self.hash = xor(self.folded(), self.ciphertext),
                    3 | 6 => {
                        let (hash, h) = (self.hash, self.h);
                        self.low = clmul::<0x00>(hash, h);
                        self.middle = xor(clmul::<0x01>(hash, h), clmul::<0x10>(hash, h));
                    }
                    4 | 7 => self.middle = fold(self.low, self.middle),
                    5 => self.hash = xor(self.folded(), constant(LENGTHS)),
                    8 => {
                        let hash = shuffle(self.folded(), constant(REVERSE));
                        self.hash = xor(hash, self.mask);
                    }
                    _ => {}
                }
            }

            /// `hash` times H, of which `middle` has what is below bit 128.
            #[inline]
            #[target_feature(enable = $features)]
            fn folded(&self) -> Lanes {
                fold(self.middle, clmul::<0x11>(self.hash, self.h))
            }

            /// All steps at once.
            #[inline]
            #[target_feature(enable = $features)]
            fn finish(&mut self) {
                for at in 0..9 {
                    self.step(at);
                }
            }
        }

        /// Output text (two zero bytes behind it) of each option, and its tag to be made; on opening the difference of that to the tag
        /// received. `before` is done when this is.
        #[inline]
        #[target_feature(enable = $features)]
        fn crypt<const KEY_LEN: usize, const OPEN: bool>(
            keys: [&[u8; SESSION_LEN]; WIDTH],
            options: [&[u8; OPTION_LEN]; WIDTH],
            before: &mut Tags,
        ) -> (Lanes, Tags) {
            let key = join(blocks::<NONCE_LEN, SESSION_LEN, WIDTH>(keys));
            let header = join(blocks::<0, OPTION_LEN, WIDTH>(options));
            let text = join(blocks::<HEADER_LEN, OPTION_LEN, WIDTH>(options));
            let nonce = and(join(blocks::<0, SESSION_LEN, WIDTH>(keys)), constant(NONCE));

            let prseq = halve_words(shuffle(header, constant(PRSEQ)));
            let prseq = shuffle(prseq, constant(PRSEQ_SWAPPED));
            let nonce = xor(xor(nonce, prseq), key);
            // The block of zeros is GHASH's key, counter 1 hides the tag, counter 2 the text.
            let plain = [
                key,
                xor(nonce, constant(counter(1))),
                xor(nonce, constant(counter(2))),
            ];
            let [hash_key, tag_mask, key_stream] = if KEY_LEN == 16 {
                encrypt_128::<OPEN>(key, plain, before)
            } else {
                let second = join(blocks::<{ NONCE_LEN + 16 }, SESSION_LEN, WIDTH>(keys));
                encrypt_256::<OPEN>([key, second], plain, before)
            };

            let output = and(xor(text, key_stream), constant(TEXT));
            let (ciphertext, mask) = if OPEN {
                // Nothing is left of a tag that is right.
                let received = join(blocks::<TAG_AT, OPTION_LEN, WIDTH>(options));
                (and(text, constant(TEXT)), xor(tag_mask, received))
            } else {
                (output, tag_mask)
            };
            let tags = Tags {
                h: hash_key,
                hash: shuffle(header, constant(HEADER_REVERSED)),
                ciphertext: shuffle(ciphertext, constant(REVERSE)),
                mask,
                ..Tags::none()
            };
            (output, tags)
        }

        #[target_feature(enable = $features)]
        fn seal_lanes<'j, const KEY_LEN: usize>(
            lanes: impl Iterator<Item = [SealJob<'j>; WIDTH]>,
        ) {
            let put_tags = |jobs: [SealJob<'_>; WIDTH], tags: &Tags| {
                for (job, tag) in jobs.into_iter().zip(split(tags.hash)) {
                    put::<TAG_AT, 16, OPTION_LEN>(job.option, store(tag));
                }
            };
            let (mut before, mut tags) = (None, Tags::none());
            for mut jobs in lanes {
                let (texts, next) = crypt::<KEY_LEN, false>(
                    jobs.each_ref().map(|job| &job.key.0),
                    jobs.each_ref().map(|job| &*job.option),
                    &mut tags,
                );
                if let Some(before) = before {
                    put_tags(before, &tags);
                }
                for (job, text) in jobs.iter_mut().zip(split(texts)) {
                    // The block of text ends in two zeros; the tag is written over them.
                    put::<HEADER_LEN, 16, OPTION_LEN>(job.option, store(text));
                }
                (before, tags) = (Some(jobs), next);
            }
            if let Some(last) = before {
                tags.finish();
                put_tags(last, &tags);
            }
        }

        #[target_feature(enable = $features)]
        fn open_lanes<'c, 'j: 'c, const KEY_LEN: usize>(
            lanes: impl Iterator<Item = [&'c mut OpenJob<'j>; WIDTH]>,
        ) {
            let put_opened = |jobs: [&mut OpenJob<'_>; WIDTH], texts: Lanes, tags: &Tags| {
                // No branch and no early end: time does not tell how much of a forged tag was right.
                let zero = zero_halves(tags.hash);
                let right = and(zero, swap(zero));
                let opened = and(xor(texts, constant(RIGHT)), right);
                for (job, opened) in jobs.into_iter().zip(split(opened)) {
                    job.opened = Opened(store(opened));
                }
            };
            let (mut before, mut tags) = (None, Tags::none());
            for jobs in lanes {
                let (texts, next) = crypt::<KEY_LEN, true>(
                    jobs.each_ref().map(|job| &job.key.0),
                    jobs.each_ref().map(|job| job.option),
                    &mut tags,
                );
                if let Some((jobs, texts)) = before {
                    put_opened(jobs, texts, &tags);
                }
                (before, tags) = (Some((jobs, texts)), next);
            }
            if let Some((jobs, texts)) = before {
                tags.finish();
                put_opened(jobs, texts, &tags);
            }
        }
    };
}

pub(super) use {each, gcm_of_lanes};
