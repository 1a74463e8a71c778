//! How the types of other rooms stand in a record: as texts and numbers that people can read, secrets as hexadecimal digits.

/// `#[serde(with)]` modules for a type and its text.
macro_rules! as_text {
    ($($module:ident: $type:ty, $write:expr, $read:expr;)+) => {$(
        pub mod $module {
            use super::*;

            pub fn serialize<S: Serializer>(value: &$type, to: S) -> Result<S::Ok, S::Error> {
                let write: fn(&$type) -> Zeroizing<String> = $write;
                to.serialize_str(&write(value))
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                let text = Zeroizing::new(String::deserialize(from)?);
                let read: fn(&str) -> Option<$type> = $read;
                read(&text).ok_or_else(|| Error::custom(concat!("not a ", stringify!($module))))
            }
        }
    )+};
}

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use zeroize::Zeroizing;

use super::record::Instance;
use crate::{
    config::{Mode, Prefix, Protection},
    crypto::{Aead, Kem, PairingPrk, Suite},
    snapshot::grant::Listed,
};

as_text! {
    prefix: Prefix, |prefix| Zeroizing::new(prefix.to_string()), |text| text.parse().ok();
    instance: Instance, |id| Zeroizing::new(hex::encode(id)), |text| array(text);
    prk: Arc<PairingPrk>,
        |prk| Zeroizing::new(hex::encode(prk.expose())),
        |text| array(text).map(|bytes| Arc::new(PairingPrk::from_bytes(bytes)));
    mode: Mode,
        |mode| Zeroizing::new(mode.to_string()),
        |text| Mode::ALL.iter().find(|mode| mode.word() == text).copied();
    protection: Protection,
        |protection| Zeroizing::new(protection.to_string()),
        |text| Protection::ALL.iter().find(|protection| protection.word() == text).copied();
    suite: Suite,
        |suite| Zeroizing::new(format!("{:04x}-{:04x}", suite.kem.id(), suite.aead.id())),
        |text| {
            let (kem, aead) = text.split_once('-')?;
            Some(Suite {
                kem: Kem::try_from(u16::from_str_radix(kem, 16).ok()?).ok()?,
                aead: Aead::try_from(u16::from_str_radix(aead, 16).ok()?).ok()?,
            })
        };
}

fn array<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

pub mod prefixes {
    use super::*;

    pub fn serialize<S: Serializer>(prefixes: &[Prefix], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(prefixes.iter().map(Prefix::to_string))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Prefix>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        let parse = |text: String| text.parse().map_err(|_| Error::custom("not a prefix"));
        texts.into_iter().map(parse).collect()
    }
}

pub mod by_prefix {
    use super::*;

    pub fn serialize<S: Serializer>(map: &BTreeMap<Prefix, u32>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(
            map.iter()
                .map(|(prefix, value)| (prefix.to_string(), value)),
        )
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<Prefix, u32>, D::Error> {
        let texts = BTreeMap::<String, u32>::deserialize(from)?;
        let parse = |(text, value): (String, u32)| {
            let prefix = text.parse().map_err(|_| Error::custom("not a prefix"))?;
            Ok((prefix, value))
        };
        texts.into_iter().map(parse).collect()
    }
}

pub mod lists {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Entry {
        #[serde(with = "super::prefix")]
        prefix: Prefix,
        group: String,
        generations: Vec<u32>,
    }

    pub fn serialize<S: Serializer>(list: &[Listed], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(list.iter().map(|listed| Entry {
            prefix: listed.prefix,
            group: listed.group.clone(),
            generations: listed.generations.clone(),
        }))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Listed>, D::Error> {
        let entries = Vec::<Entry>::deserialize(from)?;
        let listed = |entry: Entry| Listed {
            prefix: entry.prefix,
            group: entry.group,
            generations: entry.generations,
        };
        Ok(entries.into_iter().map(listed).collect())
    }
}
