use super::*;
use crate::crypto::{Aead, Kem};
use proptest::prelude::*;
use serde::{Deserialize, de::DeserializeOwned};
use std::net::Ipv6Addr;

/// (p - 1) / 2, from which on y is the larger root.
const HALF_P: &str = "0d0088f51cbff34d258dd3db21a5d66bb23ba5c279c2895fb39869507b587b120f55ffff58a9ffffdcff7fffffffd555";
/// The field's and the groups' order.
const P: &str = "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab";
const R: &str = "73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001";

fn vectors<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let path = format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A case of `tests/vectors/rfc9380.json`: coordinates in hexadecimal, in G2 the real part first.
#[derive(Deserialize)]
struct Hashed {
    msg: String,
    g1: Point<String>,
    g2: Point<[String; 2]>,
}

#[derive(Deserialize)]
struct Point<T> {
    x: T,
    y: T,
}

/// The compressed form of the point with the x-coordinate `x`.
fn compressed<const N: usize>(x: &str, larger: bool) -> [u8; N] {
    let mut bytes = [0; N];
    hex::decode_to_slice(x, &mut bytes).unwrap();
    bytes[0] |= if larger { 0xa0 } else { 0x80 };
    bytes
}

#[test]
fn vectors_of_rfc_9380() {
    let cases: Vec<Hashed> = vectors("rfc9380.json");
    assert_eq!(cases.len(), 5);
    for Hashed { msg, g1, g2 } in cases {
        let dst = b"QUUX-V01-CS02-with-BLS12381G1_XMD:SHA-256_SSWU_RO_";
        let found = G1::hash(msg.as_bytes(), dst).compress();
        assert_eq!(*found, compressed(&g1.x, *g1.y > *HALF_P), "{msg}");

        let dst = b"QUUX-V01-CS02-with-BLS12381G2_XMD:SHA-256_SSWU_RO_";
        let found = G2::hash(msg.as_bytes(), dst).compress();
        let x = g2.x[1].clone() + &g2.x[0];
        assert_eq!(*found, compressed(&x, *g2.y[1] > *HALF_P), "{msg}");
    }
}

/// A case of `tests/vectors/pdmv2-ibc.json`. Byte strings are hexadecimal, entries `address/length`.
#[derive(Deserialize)]
struct Case {
    kem_id: u16,
    aead_id: u16,
    #[serde(with = "hex")]
    pairing_prk: [u8; 32],
    client_entry: String,
    server_entry: String,
    #[serde(with = "hex")]
    client_key: [u8; 48],
    #[serde(with = "hex")]
    server_key: [u8; 96],
    #[serde(with = "hex")]
    gt: Vec<u8>,
    #[serde(with = "hex")]
    shared_secret: [u8; 32],
}

fn entry(text: &str) -> EntryId {
    let (address, len) = text.split_once('/').unwrap();
    let address: Ipv6Addr = address.parse().unwrap();
    EntryId::new(&address.octets(), len.parse().unwrap()).unwrap()
}

#[test]
fn vectors_of_another_implementation() {
    let cases: Vec<Case> = vectors("pdmv2-ibc.json");
    assert_eq!(cases.len(), 6, "one of each suite");
    for case in cases {
        let suite = Suite {
            kem: Kem::try_from(case.kem_id).unwrap(),
            aead: Aead::try_from(case.aead_id).unwrap(),
        };
        let (client, server) = (entry(&case.client_entry), entry(&case.server_entry));
        let master = PairingPrk::from_bytes(case.pairing_prk).ibc_master(&suite);
        let client_key = master.client_key(&client);
        let server_key = master.server_key(&server);
        assert_eq!(*client_key.expose(), case.client_key);
        assert_eq!(*server_key.expose(), case.server_key);

        let point = G1::uncompress(&case.client_key).unwrap();
        let gt = curve::pairing(&point, &G2::hash(server.bytes(), DST_G2));
        assert_eq!(gt.as_slice(), case.gt);

        let expected = SharedSecret::from_bytes(case.shared_secret);
        let of_client = client_key.shared_secret(&suite, &server).unwrap();
        let of_server = server_key.shared_secret(&suite, &client).unwrap();
        assert_eq!(of_client, expected);
        assert_eq!(of_server, expected);
    }
}

#[test]
fn every_part_of_a_pair_counts() {
    let suite = Suite::default();
    let secret = |prk: u8, suite: &Suite, client: &str, server: &str| {
        let master = PairingPrk::from_bytes([prk; 32]).ibc_master(suite);
        let key = master.client_key(&entry(client));
        key.shared_secret(suite, &entry(server)).unwrap()
    };
    let (c, s) = ("2001:db8::c/128", "2001:db8::5/128");
    let chacha = Suite {
        aead: Aead::ChaCha20Poly1305,
        ..suite
    };
    let one = secret(1, &suite, c, s);
    assert_eq!(one, secret(1, &suite, c, s));
    for other in [
        secret(2, &suite, c, s),
        secret(1, &chacha, c, s),
        secret(1, &suite, s, c),
        secret(1, &suite, "2001:db8::c/127", s),
        secret(1, &suite, c, "2001:db8::5/127"),
    ] {
        assert_ne!(one, other);
    }
}

fn scalar(number: u64) -> Scalar {
    let mut bytes = [0; 48];
    bytes[40..].copy_from_slice(&number.to_be_bytes());
    Scalar::reduce(&bytes)
}

#[test]
fn pairing_is_bilinear() {
    let (p, q) = (G1::hash(b"p", DST_G1), G2::hash(b"q", DST_G2));
    let (a, b) = (0x1234_5678, 0xfedc_ba98);
    let (sa, sb, product) = (scalar(a), scalar(b), scalar(a * b));
    let expected = curve::pairing(&p.times(&product), &q);
    assert_eq!(curve::pairing(&p, &q.times(&product)), expected);
    assert_eq!(curve::pairing(&p.times(&sa), &q.times(&sb)), expected);
    assert_eq!(curve::pairing(&p.times(&sb).times(&sa), &q), expected);
    assert_ne!(curve::pairing(&p, &q), expected);
}

/// `R` and `more`, in 48 bytes big-endian.
fn r_plus(more: u8) -> [u8; 48] {
    let mut bytes = [0; 48];
    hex::decode_to_slice(R, &mut bytes[16..]).unwrap();
    bytes[47] += more;
    bytes
}

#[test]
fn numbers_are_reduced_by_the_order() {
    let p = G1::hash(b"p", DST_G1);
    for more in [0, 1, 7] {
        let reduced = p.times(&Scalar::reduce(&r_plus(more))).compress();
        assert_eq!(reduced, p.times(&scalar(more.into())).compress());
    }
}

#[test]
fn a_master_of_zero_makes_keys_that_are_refused() {
    let master = IbcMaster(Scalar::reduce(&r_plus(0)));
    let (suite, host) = (Suite::default(), entry("2001:db8::1/128"));
    let client = master.client_key(&host).shared_secret(&suite, &host);
    assert_eq!(client.unwrap_err(), BadPoint::Identity);
    let server = master.server_key(&host).shared_secret(&suite, &host);
    assert_eq!(server.unwrap_err(), BadPoint::Identity);
}

fn refused_client(key: [u8; 48]) -> Option<BadPoint> {
    let host = entry("2001:db8::1/128");
    let key = IbcClientKey::from_bytes(key);
    key.shared_secret(&Suite::default(), &host).err()
}

fn refused_server(key: [u8; 96]) -> Option<BadPoint> {
    let host = entry("2001:db8::1/128");
    let key = IbcServerKey::from_bytes(key);
    key.shared_secret(&Suite::default(), &host).err()
}

/// What becomes of the points whose x is 0 to 255, in the compressed form of `N` bytes.
fn small_x<const N: usize>(refused: fn([u8; N]) -> Option<BadPoint>) -> [usize; 2] {
    let found = (0..=255).map(|x| {
        let mut key = [0; N];
        key[0] = 0x80;
        key[N - 1] = x;
        refused(key)
    });
    let found: Vec<_> = found.collect();
    [BadPoint::Encoding, BadPoint::Subgroup]
        .map(|kind| found.iter().filter(|&&f| f == Some(kind)).count())
}

#[test]
fn points_off_the_curve_or_the_subgroup_are_refused() {
    // About half of all x have a point, and no more than one of 2¹²⁵ of these is in the subgroup.
    for [off, outside] in [small_x(refused_client), small_x(refused_server)] {
        assert_eq!(off + outside, 256);
        assert!(off > 64 && outside > 64);
    }
    let mut order_3 = [0; 48];
    order_3[0] = 0x80;
    assert_eq!(refused_client(order_3), Some(BadPoint::Subgroup), "(0, 2)");
}

#[test]
fn other_bytes_than_a_point_are_refused() {
    let encoding = Some(BadPoint::Encoding);
    assert_eq!(refused_client([0; 48]), encoding);
    assert_eq!(refused_server([0; 96]), encoding);
    let mut identity = [0; 48];
    identity[0] = 0xc0;
    assert_eq!(refused_client(identity), Some(BadPoint::Identity));
    for (at, value) in [(0, 0xe0), (0, 0x40), (47, 1)] {
        let mut bytes = identity;
        bytes[at] = value;
        assert_eq!(refused_client(bytes), encoding, "byte {at}");
    }
    let mut identity = [0; 96];
    identity[0] = 0xc0;
    assert_eq!(refused_server(identity), Some(BadPoint::Identity));

    // x = p stands for 0, but not in its only form.
    assert_eq!(refused_client(compressed(P, false)), encoding);
    let (zero, p) = ("0".repeat(96), P.to_owned());
    for x in [zero.clone() + &p, p.clone() + &zero, p.clone() + &p] {
        assert_eq!(refused_server(compressed(&x, false)), encoding);
    }

    // A key with another flag: the uncompressed form's, the other root (a key, of somebody else).
    let master = PairingPrk::from_bytes([7; 32]).ibc_master(&Suite::default());
    let mut key = *master.client_key(&entry("2001:db8::2/128")).expose();
    assert_eq!(refused_client(key), None);
    key[0] ^= 0x20;
    assert_eq!(refused_client(key), None);
    key[0] ^= 0x80;
    assert_eq!(refused_client(key), encoding);
}

#[test]
fn debug_shows_the_name_only() {
    let master = PairingPrk::from_bytes([7; 32]).ibc_master(&Suite::default());
    assert_eq!(format!("{master:?}"), "IbcMaster");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_from_outside_panic(mut client in any::<[u8; 48]>(), server in any::<[u8; 48]>()) {
        // Most random numbers of 381 bits are below p: let half of the cases pass the first check.
        client[0] = 0x80 | client[0] & 0x3f;
        let mut both = [0; 96];
        both[..48].copy_from_slice(&client);
        both[48..].copy_from_slice(&server);
        both[48] &= 0x0f;
        prop_assert!(refused_client(client).is_some());
        prop_assert!(refused_server(both).is_some());
    }
}
