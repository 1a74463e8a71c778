//! The key schedule and the sealing of the protocol page, sections 2 and 3, written apart from the appliance's: what a peer, or
//! a test that judges one, makes of a sealed option.

use super::capture::{Sealed, Tuple};
use super::gate::Settings;
use ring::{aead, hmac};
use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;

/// HKDF-SHA256's output, bytes.
const NH: usize = 32;
/// Bytes of an option in front of what is sealed.
const HEADER: usize = 6;

/// A list entry: prefix and its length in bits.
#[derive(Clone, Copy, Debug)]
pub struct Entry(pub Ipv6Addr, pub u8);

impl Entry {
    pub fn bytes(self) -> [u8; 17] {
        let mask = u128::MAX.checked_shl(128 - u32::from(self.1)).unwrap_or(0);
        let mut bytes = [self.1; 17];
        bytes[..16].copy_from_slice(&(self.0.to_bits() & mask).to_be_bytes());
        bytes
    }
}

/// What tells one key from another within a pairing: the flow's direction, both generations and Kri.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId {
    pub tuple: Tuple,
    /// Generations of the sender and of the receiver's entry.
    pub generations: (u32, u32),
    pub kri: u32,
}

/// A session key with its base nonce.
#[derive(Clone)]
pub struct Key {
    key: aead::LessSafeKey,
    base_nonce: [u8; 12],
}

/// The seven metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    pub scale_dtlr: u8,
    pub scale_dtls: u8,
    pub global_pointer: u32,
    pub psntp: u16,
    pub psnlr: u16,
    pub delta_tlr: u16,
    pub delta_tls: u16,
}

impl Metrics {
    pub fn read(bytes: &[u8]) -> Self {
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        Self {
            scale_dtlr: bytes[0],
            scale_dtls: bytes[1],
            global_pointer: u32::from(word(2)) << 16 | u32::from(word(4)),
            psntp: word(6),
            psnlr: word(8),
            delta_tlr: word(10),
            delta_tls: word(12),
        }
    }

    pub fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![self.scale_dtlr, self.scale_dtls];
        bytes.extend(self.global_pointer.to_be_bytes());
        for word in [self.psntp, self.psnlr, self.delta_tlr, self.delta_tls] {
            bytes.extend(word.to_be_bytes());
        }
        bytes
    }
}

/// A pairing's secrets, as its Primaries know them.
pub struct Oracle {
    suite_id: [u8; 10],
    algorithm: &'static aead::Algorithm,
    shared_secret: Vec<u8>,
    keys: HashMap<KeyId, Key>,
}

/// RFC 5869, with RFC 9180's labels.
pub fn labeled_extract(suite: &[u8], salt: &[u8], label: &str, ikm: &[u8]) -> Vec<u8> {
    let labeled = [b"HPKE-v1", suite, label.as_bytes(), ikm].concat();
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), &labeled)
        .as_ref()
        .to_vec()
}

pub fn labeled_expand(
    suite: &[u8],
    prk: &[u8],
    label: &str,
    info: &[u8],
    length: usize,
) -> Vec<u8> {
    let info = [
        &(length as u16).to_be_bytes(),
        &b"HPKE-v1"[..],
        suite,
        label.as_bytes(),
        info,
    ]
    .concat();
    let prk = hmac::Key::new(hmac::HMAC_SHA256, prk);
    let (mut out, mut block) = (Vec::new(), Vec::new());
    for counter in 1.. {
        block = hmac::sign(&prk, &[&block[..], &info, &[counter]].concat())
            .as_ref()
            .to_vec();
        out.extend(&block);
        if out.len() >= length {
            break;
        }
    }
    out.truncate(length);
    out
}

impl Oracle {
    /// Secrets of a client entry and a server entry, by the names that a configuration uses. Hexadecimal salt and PMS.
    pub fn new(
        mode: &str,
        aead: &str,
        salt: &str,
        pms: &str,
        group: &str,
        client: Entry,
        server: Entry,
    ) -> Self {
        let (aead_id, algorithm) = match aead {
            "aes-128-gcm" => (1, &aead::AES_128_GCM),
            "aes-256-gcm" => (2, &aead::AES_256_GCM),
            "chacha20-poly1305" => (3, &aead::CHACHA20_POLY1305),
            other => panic!("no AEAD {other}"),
        };
        let suite_id = [b'H', b'P', b'K', b'E', 0, 0x20, 0, 1, 0, aead_id];
        let prk = labeled_extract(
            &suite_id,
            &hex::decode(salt).unwrap(),
            "pdmv2 prk",
            &hex::decode(pms).unwrap(),
        );
        Self::of_prk(mode, suite_id, algorithm, &prk, group, client, server)
    }

    /// The same, from the pairing's PRK.
    pub fn of_prk(
        mode: &str,
        suite_id: [u8; 10],
        algorithm: &'static aead::Algorithm,
        prk: &[u8],
        group: &str,
        client: Entry,
        server: Entry,
    ) -> Self {
        let expand =
            |secret: &[u8], label, info: &[u8]| labeled_expand(&suite_id, secret, label, info, NH);
        let shared_secret = match mode {
            "trusted-servers" => {
                let servers = expand(prk, "pdmv2 servers", group.as_bytes());
                expand(&servers, "pdmv2 client", &client.bytes())
            }
            "asymmetric-poll" => {
                let client = expand(prk, "pdmv2 poll client", &client.bytes());
                expand(&client, "pdmv2 pair", &server.bytes())
            }
            other => panic!("no secrets in mode {other}"),
        };
        Self {
            suite_id,
            algorithm,
            shared_secret,
            keys: HashMap::new(),
        }
    }

    /// The secrets of a lab's pairing.
    pub fn of(settings: &Settings) -> Self {
        let Settings {
            mode,
            aead,
            salt,
            pms,
            ..
        } = settings;
        let client = Entry("2001:db8:1::".parse().unwrap(), 64);
        let server = Entry("2001:db8:2::".parse().unwrap(), 64);
        Self::new(mode, aead, salt, pms, "web", client, server)
    }

    /// The secrets of a lab's registered pairing in TrustedServers with the default suite.
    pub fn registered(prk: &[u8]) -> Self {
        let suite_id = *b"HPKE\x00\x20\x00\x01\x00\x01";
        let client = Entry("2001:db8:1::".parse().unwrap(), 64);
        let server = Entry("2001:db8:2::".parse().unwrap(), 64);
        let aead = &aead::AES_128_GCM;
        Self::of_prk(
            "trusted-servers",
            suite_id,
            aead,
            prk,
            "web",
            client,
            server,
        )
    }

    fn derive(&self, id: KeyId) -> Key {
        let (source, destination, source_port, destination_port, protocol) = id.tuple;
        let info = [
            &id.generations.0.to_be_bytes()[..],
            &id.generations.1.to_be_bytes(),
            &source.octets(),
            &destination.octets(),
            &source_port.to_be_bytes(),
            &destination_port.to_be_bytes(),
            &[protocol],
            &id.kri.to_be_bytes(),
        ]
        .concat();
        let nk = self.algorithm.key_len();
        let okm = labeled_expand(
            &self.suite_id,
            &self.shared_secret,
            "pdmv2 session",
            &info,
            nk + 12,
        );
        Key {
            key: aead::LessSafeKey::new(aead::UnboundKey::new(self.algorithm, &okm[..nk]).unwrap()),
            base_nonce: okm[nk..].try_into().unwrap(),
        }
    }

    fn key(&mut self, id: KeyId) -> Key {
        if let Some(key) = self.keys.get(&id) {
            return key.clone();
        }
        let key = self.derive(id);
        self.keys.insert(id, key.clone());
        key
    }

    /// Opens an option with one key.
    pub fn open_with(&mut self, id: KeyId, option: &Sealed) -> Option<Metrics> {
        if (id.kri & 1 == 1) != option.f {
            return None;
        }
        let key = self.key(id);
        let mut text = option.data[HEADER - 2..].to_vec();
        let data = [&[0x0f, 0x22], &option.data[..HEADER - 2]].concat();
        let nonce = key.nonce(option.prseq);
        let metrics = key
            .key
            .open_in_place(nonce, aead::Aad::from(data), &mut text)
            .ok()?;
        Some(Metrics::read(metrics))
    }

    /// A whole sealed option, from its type on.
    pub fn seal(&mut self, id: KeyId, prseq: u16, metrics: Metrics) -> Vec<u8> {
        assert!((1..=0x7fff).contains(&prseq));
        let key = self.key(id);
        let prseq_f = prseq << 1 | (id.kri & 1) as u16;
        let mut option = vec![0x0f, 0x22, 0x20, 0];
        option.extend(prseq_f.to_be_bytes());
        let mut text = metrics.bytes();
        let nonce = key.nonce(prseq);
        key.key
            .seal_in_place_append_tag(nonce, aead::Aad::from(&option[..]), &mut text)
            .unwrap();
        option.extend(text);
        option
    }
}

impl Key {
    fn nonce(&self, prseq: u16) -> aead::Nonce {
        let mut nonce = self.base_nonce;
        nonce[10] ^= (prseq >> 8) as u8;
        nonce[11] ^= prseq as u8;
        aead::Nonce::assume_unique_for_key(nonce)
    }
}

/// Opens all that a capture holds and notes under which key and number each was sealed.
pub struct Ledger {
    pub oracle: Oracle,
    /// The highest generation that is tried for either end.
    generations: u32,
    last: HashMap<Tuple, KeyId>,
    used: HashSet<(KeyId, u16)>,
}

/// An option that opened.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    pub id: KeyId,
    pub prseq: u16,
    pub metrics: Metrics,
}

impl Ledger {
    pub fn new(settings: &Settings, generations: u32) -> Self {
        Self {
            oracle: Oracle::of(settings),
            generations,
            last: HashMap::new(),
            used: HashSet::new(),
        }
    }

    /// Finds the key of an option: near the last one of its flow first, then Kri 0 to 64 of every pair of generations.
    pub fn open(&mut self, tuple: Tuple, option: &Sealed) -> Option<Opened> {
        let near = self.last.get(&tuple).copied().into_iter();
        let near = near.flat_map(|id| {
            let from = id.kri.saturating_sub(2);
            [id.kri]
                .into_iter()
                .chain(from..id.kri + 64)
                .map(move |kri| KeyId { kri, ..id })
        });
        let generations = self.generations;
        let far = (1..=generations).flat_map(move |s| (1..=generations).map(move |d| (s, d)));
        let far = far.flat_map(|generations| {
            (0..64).map(move |kri| KeyId {
                tuple,
                generations,
                kri,
            })
        });
        let (id, metrics) = near
            .chain(far)
            .find_map(|id| Some((id, self.oracle.open_with(id, option)?)))?;
        self.last.insert(tuple, id);
        Some(Opened {
            id,
            prseq: option.prseq,
            metrics,
        })
    }

    /// Opens an option fresh from its sender; asserts that its key and number were not used before.
    pub fn enter(&mut self, tuple: Tuple, option: &Sealed) -> Opened {
        let opened = self.open(tuple, option);
        let opened = opened
            .unwrap_or_else(|| panic!("{tuple:?}: the pair's secrets do not open {option:02x?}"));
        assert!(
            self.used.insert((opened.id, opened.prseq)),
            "{:?} sealed twice with PRSEQ {}",
            opened.id,
            opened.prseq
        );
        opened
    }

    /// Keys that were seen.
    pub fn keys(&self) -> HashSet<KeyId> {
        self.used.iter().map(|(id, _)| *id).collect()
    }

    pub fn len(&self) -> usize {
        self.used.len()
    }
}
