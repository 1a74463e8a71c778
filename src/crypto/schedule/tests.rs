//! What the known answers do not cover: they stand in `tests/vectors_crypto.rs`.

use super::*;
use crate::crypto::suite::Aead;

const ADDRESS: [u8; 16] = [0xff; 16];

#[test]
fn entry_masks_the_host_bits() {
    for prefix_len in 0..=128u8 {
        let EntryId(entry) = EntryId::new(&ADDRESS, prefix_len).unwrap();
        let (prefix, length) = entry.split_at(16);
        assert_eq!(length, [prefix_len]);
        for bit in 0..128 {
            let set = prefix[bit / 8] & (0x80 >> (bit % 8)) != 0;
            assert_eq!(
                set,
                bit < usize::from(prefix_len),
                "bit {bit} of /{prefix_len}"
            );
        }
    }
    assert_eq!(
        EntryId::new(&ADDRESS, 129),
        Err(PrefixTooLong { found: 129 })
    );
}

const TUPLE: FiveTuple = FiveTuple {
    src: [1; 16],
    dst: [2; 16],
    sport: 0x0304,
    dport: 0x0506,
    protocol: 7,
};

fn info(tuple: &FiveTuple) -> SessionInfo<'_> {
    SessionInfo {
        tuple,
        src_generation: 0x0809_0a0b,
        dst_generation: 0x0c0d_0e0f,
        kri: 0x1011_1213,
    }
}

#[test]
fn session_info_is_laid_out_as_the_protocol_says() {
    // HPKE-v1, then the suite: X25519 (0x0020), HKDF-SHA256 (0x0001), AES-128-GCM (0x0001).
    let mut expected = b"\x00\x1cHPKE-v1HPKE\x00\x20\x00\x01\x00\x01pdmv2 session".to_vec();
    expected.extend([8, 9, 10, 11, 12, 13, 14, 15]);
    expected.extend([1; 16]);
    expected.extend([2; 16]);
    expected.extend([3, 4, 5, 6, 7, 0x10, 0x11, 0x12, 0x13]);
    assert_eq!(
        info(&TUPLE).labeled(&Suite::default(), 28).to_vec(),
        expected
    );
}

/// Every input parts the keys: a key that two flows, epochs or indices shared would meet a nonce twice.
#[test]
fn each_input_changes_the_session_key() {
    let secret = SharedSecret::from_bytes([9; 32]);
    let suite = Suite::default();
    let key = |suite: &Suite, info: &SessionInfo<'_>| *secret.session_key(suite, info).key();
    let mut keys = vec![key(&suite, &info(&TUPLE))];
    let tuples = [
        FiveTuple {
            src: [3; 16],
            ..TUPLE
        },
        FiveTuple {
            dst: [3; 16],
            ..TUPLE
        },
        FiveTuple { sport: 1, ..TUPLE },
        FiveTuple { dport: 1, ..TUPLE },
        FiveTuple {
            protocol: 1,
            ..TUPLE
        },
        TUPLE.reversed(),
    ];
    keys.extend(tuples.iter().map(|tuple| key(&suite, &info(tuple))));
    let base = info(&TUPLE);
    keys.push(key(
        &suite,
        &SessionInfo {
            src_generation: 1,
            ..base
        },
    ));
    keys.push(key(
        &suite,
        &SessionInfo {
            dst_generation: 1,
            ..base
        },
    ));
    keys.push(key(&suite, &SessionInfo { kri: 1, ..base }));
    for aead in [Aead::Aes256Gcm, Aead::ChaCha20Poly1305] {
        keys.push(key(&Suite { aead, ..suite }, &base));
    }
    let distinct: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
}

#[test]
fn short_keys_are_padded_with_zeros() {
    let session = SharedSecret::from_bytes([9; 32]).session_key(&Suite::default(), &info(&TUPLE));
    assert_ne!(session.key()[..16], [0; 16]);
    assert_eq!(session.key()[16..], [0; 16]);
    assert_eq!(format!("{session:?}"), "SessionKey");
}

#[test]
fn fingerprint_is_no_secret_of_the_schedule() {
    let suite = Suite::default();
    let prk = PairingPrk::from_bytes([9; 32]);
    let fingerprint = prk.fingerprint(&suite);
    assert_ne!(
        fingerprint,
        PairingPrk::from_bytes([8; 32]).fingerprint(&suite)
    );
    assert_ne!(fingerprint, prk.server_secret(&suite, "").bytes()[..16]);
}

#[test]
fn expands_what_is_labelled() {
    let suite = Suite::default();
    for len in [16usize, 28, 32, 44, 48] {
        let prk = [len as u8; 32];
        let (mut ours, mut other) = (vec![0; len], vec![0; len]);
        labeled_expand(&prk, &suite, b"label", b"information", &mut ours);
        let length = (len as u16).to_be_bytes();
        let parts = [
            &length,
            VERSION,
            &suite.suite_id(),
            &b"label"[..],
            b"information",
        ];
        let hkdf = hkdf::Hkdf::<Sha256>::from_prk(&prk).unwrap();
        hkdf.expand_multi_info(&parts, &mut other).unwrap();
        assert_eq!(ours, other, "{len}");
    }
}
