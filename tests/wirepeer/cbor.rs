//! CBOR as a value.

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

/// One item. A map keeps the order of its keys, and its repetitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cbor {
    Uint(u64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Cbor>),
    Map(Vec<(String, Cbor)>),
    Bool(bool),
    Null,
}

macro_rules! from {
    ($($type:ty: $value:ident => $made:expr;)+) => {$(
        impl From<$type> for Cbor {
            fn from($value: $type) -> Self {
                $made
            }
        }
    )+};
}

from! {
    u64: n => Self::Uint(n);
    &str: text => Self::Text(text.to_owned());
    Vec<u8>: bytes => Self::Bytes(bytes);
    &[u8]: bytes => Self::Bytes(bytes.to_vec());
    Vec<Cbor>: items => Self::Array(items);
}

impl<const N: usize> From<[u8; N]> for Cbor {
    fn from(bytes: [u8; N]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl Cbor {
    pub fn map() -> Self {
        Self::Map(Vec::new())
    }

    /// A message that has its type only.
    pub fn message(kind: &str) -> Self {
        Self::map().with("type", kind)
    }

    /// With one more key.
    pub fn with(mut self, key: &str, value: impl Into<Cbor>) -> Self {
        match &mut self {
            Self::Map(pairs) => pairs.push((key.to_owned(), value.into())),
            other => panic!("{other:?} is no map"),
        }
        self
    }

    /// With another value of a key.
    pub fn changed(mut self, key: &str, value: impl Into<Cbor>) -> Self {
        *self.get_mut(key) = value.into();
        self
    }

    /// Without a key.
    pub fn without(mut self, key: &str) -> Self {
        match &mut self {
            Self::Map(pairs) => pairs.retain(|(found, _)| found != key),
            other => panic!("{other:?} is no map"),
        }
        self
    }

    pub fn pairs(&self) -> &[(String, Cbor)] {
        match self {
            Self::Map(pairs) => pairs,
            other => panic!("{other:?} is no map"),
        }
    }

    pub fn get(&self, key: &str) -> &Cbor {
        let mut pairs = self.pairs().iter();
        let found = pairs.find(|(found, _)| found == key);
        &found.unwrap_or_else(|| panic!("no {key} in {self:?}")).1
    }

    fn get_mut(&mut self, key: &str) -> &mut Cbor {
        match self {
            Self::Map(pairs) => {
                let found = pairs.iter_mut().find(|(found, _)| found == key);
                &mut found.unwrap_or_else(|| panic!("no {key}")).1
            }
            other => panic!("{other:?} is no map"),
        }
    }

    pub fn kind(&self) -> &str {
        self.get("type").text()
    }

    pub fn uint(&self) -> u64 {
        match self {
            Self::Uint(n) => *n,
            other => panic!("{other:?} is no unsigned integer"),
        }
    }

    pub fn bool(&self) -> bool {
        match self {
            Self::Bool(b) => *b,
            other => panic!("{other:?} is no boolean"),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            other => panic!("{other:?} is no byte string"),
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }

    pub fn items(&self) -> &[Cbor] {
        match self {
            Self::Array(items) => items,
            other => panic!("{other:?} is no array"),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new(Vec::new());
        self.write(&mut out);
        out.into_writer()
    }

    fn write(&self, out: &mut Encoder<Vec<u8>>) {
        match self {
            Self::Uint(n) => {
                out.u64(*n).unwrap();
            }
            Self::Bytes(bytes) => {
                out.bytes(bytes).unwrap();
            }
            Self::Text(text) => {
                out.str(text).unwrap();
            }
            Self::Array(items) => {
                out.array(items.len() as u64).unwrap();
                items.iter().for_each(|item| item.write(out));
            }
            Self::Map(pairs) => {
                out.map(pairs.len() as u64).unwrap();
                for (key, value) in pairs {
                    out.str(key).unwrap();
                    value.write(out);
                }
            }
            Self::Bool(b) => {
                out.bool(*b).unwrap();
            }
            Self::Null => {
                out.null().unwrap();
            }
        }
    }

    /// All of `bytes` as one item; panics if it is not one, since that is the appliance's mistake.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut from = Decoder::new(bytes);
        let item = Self::read(&mut from);
        assert_eq!(from.position(), bytes.len(), "something follows {item:?}");
        item
    }

    fn read(from: &mut Decoder<'_>) -> Self {
        match from.datatype().unwrap() {
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => Self::Uint(from.u64().unwrap()),
            Type::Bytes => Self::Bytes(from.bytes().unwrap().to_vec()),
            Type::String => Self::Text(from.str().unwrap().to_owned()),
            Type::Array => {
                let count = from.array().unwrap().expect("a definite array");
                Self::Array((0..count).map(|_| Self::read(from)).collect())
            }
            Type::Map => {
                let count = from.map().unwrap().expect("a definite map");
                let pairs = (0..count).map(|_| (from.str().unwrap().to_owned(), Self::read(from)));
                Self::Map(pairs.collect())
            }
            Type::Bool => Self::Bool(from.bool().unwrap()),
            Type::Null => {
                from.null().unwrap();
                Self::Null
            }
            other => panic!("{other} has no place in a message"),
        }
    }
}

impl Cbor {
    /// The same with keys and items in one order, for what comes in any.
    pub fn sorted(&self) -> Self {
        match self {
            Self::Array(items) => {
                let mut items: Vec<Self> = items.iter().map(Self::sorted).collect();
                items.sort_by_key(Self::encode);
                Self::Array(items)
            }
            Self::Map(pairs) => {
                let pairs = pairs
                    .iter()
                    .map(|(key, value)| (key.clone(), value.sorted()));
                let mut pairs: Vec<_> = pairs.collect();
                pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
                Self::Map(pairs)
            }
            other => other.clone(),
        }
    }
}
