use super::*;
use ::hpke::rand_core::{Infallible, TryCryptoRng, TryRng};
use proptest::prelude::*;
use serde::Deserialize;

const SUITES: [Suite; 6] = {
    let (x, p) = (Kem::X25519HkdfSha256, Kem::P256HkdfSha256);
    let (a, b, c) = (Aead::Aes128Gcm, Aead::Aes256Gcm, Aead::ChaCha20Poly1305);
    [
        Suite { kem: x, aead: a },
        Suite { kem: x, aead: b },
        Suite { kem: x, aead: c },
        Suite { kem: p, aead: a },
        Suite { kem: p, aead: b },
        Suite { kem: p, aead: c },
    ]
};

/// One case of `tests/vectors/rfc9180.json`, names as in RFC 9180 appendix A. Byte strings are hexadecimal.
#[derive(Deserialize)]
struct Case {
    mode: u8,
    kem_id: u16,
    aead_id: u16,
    #[serde(with = "hex")]
    info: Vec<u8>,
    #[serde(with = "hex")]
    ikm_e: Vec<u8>,
    #[serde(with = "hex")]
    sk_r: Vec<u8>,
    #[serde(with = "hex")]
    pk_r: Vec<u8>,
    #[serde(with = "hex")]
    enc: Vec<u8>,
    #[serde(with = "hex", default)]
    psk: Vec<u8>,
    #[serde(with = "hex", default)]
    psk_id: Vec<u8>,
    exports: Vec<Export>,
}

#[derive(Deserialize)]
struct Export {
    #[serde(with = "hex")]
    context: Vec<u8>,
    #[serde(with = "hex")]
    value: Vec<u8>,
}

/// Gives a vector's `ikmE` as the randomness that the ephemeral key is derived from.
struct Given<'a>(&'a [u8]);

impl TryRng for Given<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        let (given, rest) = self.0.split_at(bytes.len());
        bytes.copy_from_slice(given);
        self.0 = rest;
        Ok(())
    }
}

impl TryCryptoRng for Given<'_> {}

fn private_key(kem: Kem, bytes: &[u8]) -> KemPrivateKey {
    KemPrivateKey(match kem {
        Kem::X25519HkdfSha256 => PrivateKey::X25519(Deserializable::from_bytes(bytes).unwrap()),
        Kem::P256HkdfSha256 => PrivateKey::P256(Deserializable::from_bytes(bytes).unwrap()),
    })
}

fn psk(id: &[u8], byte: u8) -> Psk {
    Psk::new(id.to_vec(), Zeroizing::new(vec![byte; 32])).unwrap()
}

#[test]
fn vectors_of_rfc_9180() {
    let vectors = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/vectors/rfc9180.json"
    ));
    let cases: Vec<Case> = serde_json::from_str(vectors).unwrap();
    assert_eq!(cases.len(), 12, "two modes of six suites");
    for case in cases {
        let suite = Suite {
            kem: Kem::try_from(case.kem_id).unwrap(),
            aead: Aead::try_from(case.aead_id).unwrap(),
        };
        let psk = (case.mode == 1).then(|| Psk::new(case.psk_id, case.psk.into()).unwrap());
        let context = Context {
            suite: &suite,
            info: &case.info,
            psk: psk.as_ref(),
        };
        let sk = private_key(suite.kem, &case.sk_r);
        assert_eq!(case.exports.len(), 3);
        for export in case.exports {
            let mut found = vec![0; export.value.len()];
            let enc = context
                .export_to(
                    &case.pk_r,
                    &mut Given(&case.ikm_e),
                    &export.context,
                    &mut found,
                )
                .unwrap();
            assert_eq!((&enc, &found), (&case.enc, &export.value), "{suite:?}");
            found.fill(0);
            context
                .export_from(&sk, &case.enc, &export.context, &mut found)
                .unwrap();
            assert_eq!(found, export.value, "{suite:?}");
        }
    }
}

#[test]
fn both_ends_agree() {
    for suite in SUITES {
        let (sk, pk) = generate(suite.kem);
        assert_eq!(sk.kem(), suite.kem);
        let ours = psk(b"lab", 7);
        let others = [psk(b"lab", 8), psk(b"lab2", 7)];
        for psk in [None, Some(&ours)] {
            let (enc, pms) = encapsulate(&suite, &pk, b"info", psk).unwrap();
            let opened = |enc: &[u8], info: &[u8], psk| decapsulate(&suite, &sk, enc, info, psk);
            assert_eq!(opened(&enc, b"info", psk).unwrap(), pms);
            assert_ne!(opened(&enc, b"inf0", psk).unwrap(), pms);
            for other in &others {
                assert_ne!(opened(&enc, b"info", Some(other)).unwrap(), pms);
            }
            let (again, fresh) = encapsulate(&suite, &pk, b"info", psk).unwrap();
            assert!(again != enc && fresh != pms);
        }
    }
}

#[test]
fn pms_is_the_named_export() {
    let suite = Suite::default();
    let (sk, pk) = generate(suite.kem);
    let (enc, pms) = encapsulate(&suite, &pk, b"i", None).unwrap();
    let context = Context {
        suite: &suite,
        info: b"i",
        psk: None,
    };
    let mut exported = [0; 32];
    context
        .export_from(&sk, &enc, b"pdmv2 pms", &mut exported)
        .unwrap();
    assert_eq!(&exported, pms.expose());
}

#[test]
fn info_binds_both_messages() {
    let joined = Sha256::digest(b"request, response");
    let expected = [b"pdmv2 registration".as_slice(), joined.as_slice()].concat();
    assert_eq!(info(b"request,", b" response"), expected);
}

#[test]
fn keys_of_another_length_are_refused() {
    for suite in SUITES {
        let (sk, pk) = generate(suite.kem);
        let longer = [pk.as_slice(), &[0]].concat();
        for found in [&[][..], &pk[1..], &longer] {
            let refused = HpkeError::KeyLength {
                expected: pk.len(),
                found: found.len(),
            };
            let sent = encapsulate(&suite, found, b"", None);
            assert_eq!(sent.unwrap_err(), refused);
            let received = decapsulate(&suite, &sk, found, b"", None);
            assert_eq!(received.unwrap_err(), refused);
        }
    }
}

#[test]
fn keys_of_small_order_or_off_the_curve_are_refused() {
    // RFC 7748 section 6.1 and the list that its security considerations point to: 0, 1, the two points of order 8, p - 1,
    // p and p + 1.
    let p_minus_1 = "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";
    let mut x25519: Vec<Vec<u8>> = [
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        p_minus_1,
        &p_minus_1.replacen("ec", "ed", 1),
        &p_minus_1.replacen("ec", "ee", 1),
    ]
    .map(|point| hex::decode(point).unwrap())
    .to_vec();
    x25519.extend([0, 1].map(|x| [vec![x], vec![0; 31]].concat()));
    // SEC 1: the identity padded to the length of a point, an x without a y, a compressed point's tag.
    let (_, off) = generate(Kem::P256HkdfSha256);
    let mut p256 = vec![vec![0; 65], vec![4; 65], off.clone(), off];
    p256[2][64] ^= 1;
    p256[3][0] = 2;
    for suite in SUITES {
        let (sk, _) = generate(suite.kem);
        let bad = match suite.kem {
            Kem::X25519HkdfSha256 => &x25519,
            Kem::P256HkdfSha256 => &p256,
        };
        for key in bad {
            let sent = encapsulate(&suite, key, b"", None);
            assert_eq!(sent.unwrap_err(), HpkeError::Key, "{key:02x?}");
            let received = decapsulate(&suite, &sk, key, b"", None);
            assert_eq!(received.unwrap_err(), HpkeError::Key, "{key:02x?}");
        }
    }
}

#[test]
fn a_key_of_the_other_kem_is_refused() {
    let suite = Suite::default();
    let (sk, pk) = generate(Kem::P256HkdfSha256);
    let refused = HpkeError::Kem {
        expected: Kem::X25519HkdfSha256,
        found: Kem::P256HkdfSha256,
    };
    let received = decapsulate(&suite, &sk, &pk[..32], b"", None);
    assert_eq!(received.unwrap_err(), refused);
}

#[test]
fn lengths_at_their_bounds() {
    let new = |id: usize, key: usize| Psk::new(vec![1; id], vec![2; key].into());
    let key_length = |found| UnfitPsk::KeyLength { found };
    assert_eq!(new(1, 0).unwrap_err(), key_length(0));
    assert_eq!(new(1, 31).unwrap_err(), key_length(31));
    assert_eq!(new(0, 32).unwrap_err(), UnfitPsk::IdLength { found: 0 });
    assert_eq!(new(256, 32).unwrap_err(), UnfitPsk::IdLength { found: 256 });
    let psk = new(255, 4096).unwrap();

    let suite = Suite::default();
    let (sk, pk) = generate(suite.kem);
    let longest = vec![0; MAX_INFO_LEN + 1];
    let fits = &longest[1..];
    let (enc, pms) = encapsulate(&suite, &pk, fits, Some(&psk)).unwrap();
    let received = decapsulate(&suite, &sk, &enc, fits, Some(&psk));
    assert_eq!(received.unwrap(), pms);
    let refused = HpkeError::InfoLength {
        found: longest.len(),
    };
    let sent = encapsulate(&suite, &pk, &longest, None);
    assert_eq!(sent.unwrap_err(), refused);
    let received = decapsulate(&suite, &sk, &enc, &longest, None);
    assert_eq!(received.unwrap_err(), refused);
}

#[test]
fn debug_shows_the_name_only() {
    let (sk, _) = generate(Kem::default());
    assert_eq!(format!("{sk:?}"), "KemPrivateKey");
    assert_eq!(format!("{:?}", psk(b"lab", 7)), "Psk");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_key_of_a_peer_panics(
        suite in prop::sample::select(&SUITES[..]),
        key in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..=80),
            prop::collection::vec(any::<u8>(), 32),
            prop::collection::vec(any::<u8>(), 64).prop_map(|xy| [vec![4], xy].concat()),
        ],
    ) {
        let (sk, pk) = generate(suite.kem);
        let sent = encapsulate(&suite, &key, b"", None);
        let received = decapsulate(&suite, &sk, &key, b"", None);
        prop_assert_eq!(sent.is_ok(), received.is_ok());
        prop_assert!(sent.is_err() || key.len() == pk.len());
    }
}
