//! Known answers of the key schedule and of sealing (protocol sections 2 and 3).
//!
//! They come from `tests/vectors/pdmv2-draft02.json`, or from the file that `PDMGATE_VECTORS` names.

use pdmgate::crypto::{
    Aead, EntryId, Kem, Kernel, OpenJob, PairMasterSecret, PairingPrk, SealJob, SessionInfo,
    SessionKey, SharedSecret, Suite,
};
use pdmgate::wire::FiveTuple;
use serde::Deserialize;
use std::net::Ipv6Addr;

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

/// One flow's way from the PairMasterSecret to a sealed option. Byte strings are hexadecimal, entries `address/length`.
#[derive(Deserialize)]
struct Case {
    mode: String,
    kem_id: u16,
    kdf_id: u16,
    aead_id: u16,
    #[serde(with = "hex")]
    salt: [u8; 32],
    #[serde(with = "hex")]
    pms: [u8; 32],
    group: String,
    client_entry: String,
    server_entry: String,
    #[serde(with = "hex")]
    pairing_prk: [u8; 32],
    #[serde(with = "hex")]
    shared_secret: [u8; 32],
    generation_src: u32,
    generation_dst: u32,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    sport: u16,
    dport: u16,
    protocol: u8,
    kri: u32,
    #[serde(with = "hex")]
    session_key: Vec<u8>,
    #[serde(with = "hex")]
    base_nonce: [u8; 12],
    prseq: u16,
    f: u8,
    #[serde(with = "hex")]
    clear_option: [u8; 20],
    #[serde(with = "hex")]
    sealed_option: [u8; 36],
}

impl Case {
    fn suite(&self) -> Suite {
        assert_eq!(self.kdf_id, 1, "HKDF-SHA256 is the only KDF");
        Suite {
            kem: Kem::try_from(self.kem_id).unwrap(),
            aead: Aead::try_from(self.aead_id).unwrap(),
        }
    }

    fn prk(&self) -> PairingPrk {
        let pms = PairMasterSecret::from_bytes(self.pms);
        PairingPrk::extract(&self.suite(), &self.salt, &pms)
    }

    fn shared_secret(&self) -> SharedSecret {
        let (suite, prk) = (self.suite(), self.prk());
        let client = entry(&self.client_entry);
        match self.mode.as_str() {
            "trusted-servers" => prk
                .server_secret(&suite, &self.group)
                .client_secret(&suite, &client)
                .into(),
            "asymmetric-poll" => prk
                .poll_client_secret(&suite, &client)
                .pair_device_key(&suite, &entry(&self.server_entry))
                .into(),
            mode => panic!("mode {mode} is none of the key schedule's"),
        }
    }

    fn tuple(&self) -> FiveTuple {
        FiveTuple {
            src: self.src.octets(),
            dst: self.dst.octets(),
            sport: self.sport,
            dport: self.dport,
            protocol: self.protocol,
        }
    }

    /// The sealed option's header and the clear option's metrics, with `fill` where the tag goes.
    fn unsealed_option(&self, fill: u8) -> [u8; 36] {
        let mut option = [fill; 36];
        option[..6].copy_from_slice(&self.sealed_option[..6]);
        option[6..20].copy_from_slice(&self.clear_option[6..]);
        option
    }
}

fn entry(text: &str) -> EntryId {
    let (address, prefix_len) = text.split_once('/').unwrap();
    let address: Ipv6Addr = address.parse().unwrap();
    EntryId::new(&address.octets(), prefix_len.parse().unwrap()).unwrap()
}

fn cases() -> Vec<Case> {
    let default = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/vectors/pdmv2-draft02.json"
    );
    let path = std::env::var("PDMGATE_VECTORS").unwrap_or_else(|_| default.to_owned());
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let vectors: Vectors =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(!vectors.cases.is_empty(), "{path} holds no case");
    vectors.cases
}

#[test]
fn secrets() {
    for (at, case) in cases().iter().enumerate() {
        assert_eq!(
            case.prk(),
            PairingPrk::from_bytes(case.pairing_prk),
            "pairing_prk of case {at}"
        );
        assert_eq!(
            case.shared_secret(),
            SharedSecret::from_bytes(case.shared_secret),
            "shared_secret of case {at}"
        );
    }
}

#[test]
fn session_keys() {
    for (at, case) in cases().iter().enumerate() {
        let tuple = case.tuple();
        let info = SessionInfo {
            tuple: &tuple,
            src_generation: case.generation_src,
            dst_generation: case.generation_dst,
            kri: case.kri,
        };
        let suite = case.suite();
        let session = case.shared_secret().session_key(&suite, &info);
        let (key, padding) = session.key().split_at(suite.aead.key_len());
        assert_eq!(key, case.session_key, "session_key of case {at}");
        assert!(padding.iter().all(|byte| *byte == 0));
        assert_eq!(
            *session.base_nonce(),
            case.base_nonce,
            "base_nonce of case {at}"
        );
    }
}

fn padded(key: &[u8]) -> [u8; 32] {
    let mut padded = [0; 32];
    padded[..key.len()].copy_from_slice(key);
    padded
}

#[test]
fn sealed_options() {
    for kernel in Kernel::available() {
        for (at, case) in cases().iter().enumerate() {
            let name = kernel.name();
            let number = u16::from_be_bytes([case.sealed_option[4], case.sealed_option[5]]);
            assert_eq!(number, case.prseq << 1 | u16::from(case.f));
            assert_eq!(u32::from(case.f), case.kri & 1);

            let aead = case.suite().aead;
            let key = SessionKey::new(&padded(&case.session_key), &case.base_nonce);
            for fill in [0, 0xff] {
                let mut option = case.unsealed_option(fill);
                let mut jobs = [SealJob {
                    key: &key,
                    option: &mut option,
                }];
                kernel.seal(aead, &mut jobs);
                assert_eq!(option, case.sealed_option, "case {at} sealed by {name}");
            }

            let mut jobs = [OpenJob::new(&key, &case.sealed_option)];
            kernel.open(aead, &mut jobs);
            let metrics = jobs[0].opened.metrics().map(|metrics| &metrics[..]);
            assert_eq!(
                metrics,
                Some(&case.clear_option[6..]),
                "case {at} opened by {name}"
            );
        }
    }
}
