//! HPKE by the `hpke` crate, and the secrets of protocol section 3 and 6, written apart.

use super::cbor::Cbor;
use crate::common::oracle::{Entry, labeled_expand, labeled_extract};
use hpke::aead::{Aead, AesGcm128, AesGcm256, ChaCha20Poly1305};
use hpke::kdf::HkdfSha256;
use hpke::kem::{DhP256HkdfSha256, Kem, X25519HkdfSha256};
use hpke::rand_core::UnwrapErr;
use hpke::{
    Deserializable, OpModeR, OpModeS, PskBundle, Serializable, setup_receiver,
    setup_sender_with_rng,
};
use ring::digest;

/// HPKE's identifiers; the KDF is HKDF-SHA256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    pub kem: u16,
    pub aead: u16,
}

pub const X25519: u16 = 0x20;
pub const P256: u16 = 0x10;

impl Suite {
    pub fn cbor(self) -> Cbor {
        suite(self.kem, 1, self.aead)
    }

    pub fn read(value: &Cbor) -> Self {
        assert_eq!(value.get("kdf").uint(), 1);
        Self {
            kem: value.get("kem").uint() as u16,
            aead: value.get("aead").uint() as u16,
        }
    }

    fn id(self) -> Vec<u8> {
        let mut id = b"HPKE".to_vec();
        for number in [self.kem, 1, self.aead] {
            id.extend(number.to_be_bytes());
        }
        id
    }
}

/// Any triple.
pub fn suite(kem: u16, kdf: u16, aead: u16) -> Cbor {
    Cbor::map()
        .with("kem", u64::from(kem))
        .with("kdf", u64::from(kdf))
        .with("aead", u64::from(aead))
}

/// A pre-shared key.
#[derive(Clone, Copy)]
pub struct Psk {
    pub id: &'static str,
    pub key: [u8; 32],
}

impl Psk {
    fn bundle(&self) -> PskBundle<'_> {
        PskBundle::new(&self.key, self.id.as_bytes()).unwrap()
    }
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

pub fn info(request: &[u8], response: &[u8]) -> Vec<u8> {
    let hash = digest::digest(&digest::SHA256, &[request, response].concat());
    [b"pdmv2 registration", hash.as_ref()].concat()
}

fn send<A: Aead, K: Kem>(pk: &[u8], info: &[u8], psk: Option<&Psk>) -> (Vec<u8>, [u8; 32]) {
    let pk = K::PublicKey::from_bytes(pk).unwrap();
    let mode = psk.map_or(OpModeS::Base, |psk| OpModeS::Psk(psk.bundle()));
    let mut rng = UnwrapErr(getrandom::SysRng);
    let (enc, context) =
        setup_sender_with_rng::<A, HkdfSha256, K>(&mode, &pk, info, &mut rng).unwrap();
    let mut pms = [0; 32];
    context.export(b"pdmv2 pms", &mut pms).unwrap();
    (enc.to_bytes().to_vec(), pms)
}

fn receive<A: Aead, K: Kem>(sk: &[u8], enc: &[u8], info: &[u8], psk: Option<&Psk>) -> [u8; 32] {
    let sk = K::PrivateKey::from_bytes(sk).unwrap();
    let enc = K::EncappedKey::from_bytes(enc).unwrap();
    let mode = psk.map_or(OpModeR::Base, |psk| OpModeR::Psk(psk.bundle()));
    let context = setup_receiver::<A, HkdfSha256, K>(&mode, &sk, &enc, info).unwrap();
    let mut pms = [0; 32];
    context.export(b"pdmv2 pms", &mut pms).unwrap();
    pms
}

/// A Primary Client's part: `enc`, and the PMS.
pub fn encapsulate(suite: Suite, pk: &[u8], info: &[u8], psk: Option<&Psk>) -> (Vec<u8>, [u8; 32]) {
    match (suite.kem, suite.aead) {
        (X25519, 1) => send::<AesGcm128, X25519HkdfSha256>(pk, info, psk),
        (X25519, 2) => send::<AesGcm256, X25519HkdfSha256>(pk, info, psk),
        (X25519, 3) => send::<ChaCha20Poly1305, X25519HkdfSha256>(pk, info, psk),
        (P256, 1) => send::<AesGcm128, DhP256HkdfSha256>(pk, info, psk),
        (P256, 2) => send::<AesGcm256, DhP256HkdfSha256>(pk, info, psk),
        (P256, 3) => send::<ChaCha20Poly1305, DhP256HkdfSha256>(pk, info, psk),
        other => panic!("no suite {other:?}"),
    }
}

/// A Primary Server's key pair: the private key and `pk`.
pub fn generate(suite: Suite) -> (Vec<u8>, Vec<u8>) {
    fn pair<K: Kem>() -> (Vec<u8>, Vec<u8>) {
        let (sk, pk) = K::derive_keypair(&random::<32>());
        (sk.to_bytes().to_vec(), pk.to_bytes().to_vec())
    }
    match suite.kem {
        X25519 => pair::<X25519HkdfSha256>(),
        P256 => pair::<DhP256HkdfSha256>(),
        other => panic!("no KEM {other}"),
    }
}

/// A Primary Server's part: the PMS.
pub fn decapsulate(
    suite: Suite,
    sk: &[u8],
    enc: &[u8],
    info: &[u8],
    psk: Option<&Psk>,
) -> [u8; 32] {
    match (suite.kem, suite.aead) {
        (X25519, 1) => receive::<AesGcm128, X25519HkdfSha256>(sk, enc, info, psk),
        (X25519, 2) => receive::<AesGcm256, X25519HkdfSha256>(sk, enc, info, psk),
        (X25519, 3) => receive::<ChaCha20Poly1305, X25519HkdfSha256>(sk, enc, info, psk),
        (P256, 1) => receive::<AesGcm128, DhP256HkdfSha256>(sk, enc, info, psk),
        (P256, 2) => receive::<AesGcm256, DhP256HkdfSha256>(sk, enc, info, psk),
        (P256, 3) => receive::<ChaCha20Poly1305, DhP256HkdfSha256>(sk, enc, info, psk),
        other => panic!("no suite {other:?}"),
    }
}

/// A pairing PRK, and what comes from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prk {
    pub suite: Suite,
    pub bytes: Vec<u8>,
}

impl Prk {
    pub fn extract(suite: Suite, salt: &[u8], pms: &[u8; 32]) -> Self {
        let bytes = labeled_extract(&suite.id(), salt, "pdmv2 prk", pms);
        Self { suite, bytes }
    }

    fn expand(&self, secret: &[u8], label: &str, info: &[u8], length: usize) -> Vec<u8> {
        labeled_expand(&self.suite.id(), secret, label, info, length)
    }

    pub fn fingerprint(&self) -> Vec<u8> {
        self.expand(&self.bytes, "pdmgate fingerprint", b"", 16)
    }

    /// TrustedServers: PairServerSecret.
    pub fn server_secret(&self, group: &str) -> Vec<u8> {
        self.expand(&self.bytes, "pdmv2 servers", group.as_bytes(), 32)
    }

    /// TrustedServers: PairClientSecret.
    pub fn client_secret(&self, group: &str, client: Entry) -> Vec<u8> {
        let servers = self.server_secret(group);
        self.expand(&servers, "pdmv2 client", &client.bytes(), 32)
    }

    /// AsymmetricPoll: PairClientSecret.
    pub fn poll_client(&self, client: Entry) -> Vec<u8> {
        self.expand(&self.bytes, "pdmv2 poll client", &client.bytes(), 32)
    }

    /// AsymmetricPoll: PairDeviceKey.
    pub fn pair_device_key(&self, client: Entry, server: Entry) -> Vec<u8> {
        let client = self.poll_client(client);
        self.expand(&client, "pdmv2 pair", &server.bytes(), 32)
    }

    /// IBC: the scalar s, big-endian.
    fn ibc_scalar(&self) -> [u8; 32] {
        modulo_r(&self.expand(&self.bytes, "pdmv2 ibc", b"", 48))
    }

    /// IBC: the client's point, s · H1(entry). A signature is the same multiplication.
    pub fn ibc_client(&self, client: Entry) -> Vec<u8> {
        let s = blst::min_sig::SecretKey::from_bytes(&self.ibc_scalar()).unwrap();
        let tag = b"PDMV2-V01-CS01-with-BLS12381G1_XMD:SHA-256_SSWU_RO_";
        s.sign(&client.bytes(), tag, &[]).compress().to_vec()
    }

    /// IBC: the server's point, s · H2(entry).
    pub fn ibc_server(&self, server: Entry) -> Vec<u8> {
        let s = blst::min_pk::SecretKey::from_bytes(&self.ibc_scalar()).unwrap();
        let tag = b"PDMV2-V01-CS01-with-BLS12381G2_XMD:SHA-256_SSWU_RO_";
        s.sign(&server.bytes(), tag, &[]).compress().to_vec()
    }
}

/// The order of BLS12-381's groups, most significant word first.
const R: [u64; 4] = [
    0x73ed_a753_299d_7d48,
    0x3339_d808_09a1_d805,
    0x53bd_a402_fffe_5bfe,
    0xffff_ffff_0000_0001,
];

/// A big-endian number modulo r, bit by bit.
fn modulo_r(number: &[u8]) -> [u8; 32] {
    let mut rest = [0u64; 4];
    for bit in number
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1))
    {
        // r has 255 bits, so nothing is shifted out.
        let mut carry = u64::from(bit);
        for word in rest.iter_mut().rev() {
            (carry, *word) = (*word >> 63, *word << 1 | carry);
        }
        if rest >= R {
            let mut borrow = false;
            for (word, r) in rest.iter_mut().zip(R).rev() {
                let (less, a) = word.overflowing_sub(r);
                let (less, b) = less.overflowing_sub(u64::from(borrow));
                (*word, borrow) = (less, a || b);
            }
        }
    }
    let mut bytes = [0; 32];
    for (to, word) in bytes.chunks_exact_mut(8).zip(rest) {
        to.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}
