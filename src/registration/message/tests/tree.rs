//! CBOR as a tree that tests take apart and put together; shares nothing with the product's codec.

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cbor {
    Number(u64),
    Negative(u64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Cbor>),
    Map(Vec<(Cbor, Cbor)>),
    Bool(bool),
    Null,
    /// Bytes as they are.
    Raw(Vec<u8>),
}

/// One step from an item to one inside it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step(usize);

impl Cbor {
    /// Reads all of `bytes`, which must be definite-length CBOR without tags and floats.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let (item, rest) = Self::item(bytes);
        assert!(rest.is_empty());
        item
    }

    fn item(bytes: &[u8]) -> (Self, &[u8]) {
        let (first, rest) = bytes.split_first().unwrap();
        let more = match first & 0x1f {
            0..24 => 0,
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            _ => panic!("indefinite"),
        };
        let (number, mut rest) = rest.split_at(more);
        let number = match more {
            0 => u64::from(first & 0x1f),
            _ => number
                .iter()
                .fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
        };
        let size = number as usize;
        let mut next = || {
            let (item, left) = Self::item(rest);
            rest = left;
            item
        };
        let item = match first >> 5 {
            0 => Self::Number(number),
            1 => Self::Negative(number),
            4 => Self::Array((0..size).map(|_| next()).collect()),
            5 => Self::Map((0..size).map(|_| (next(), next())).collect()),
            7 if number == 20 || number == 21 => Self::Bool(number == 21),
            7 if number == 22 => Self::Null,
            major @ (2 | 3) => {
                let (string, left) = rest.split_at(size);
                rest = left;
                match major {
                    2 => Self::Bytes(string.to_vec()),
                    _ => Self::Text(String::from_utf8(string.to_vec()).unwrap()),
                }
            }
            _ => panic!("{first:#x}"),
        };
        (item, rest)
    }

    /// Its bytes, as short as can be.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, false);
        out
    }

    /// Its bytes with indefinite lengths and eight-byte integers.
    pub(super) fn long_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, true);
        out
    }

    fn write(&self, out: &mut Vec<u8>, long: bool) {
        let mut head = |major: u8, number: u64| {
            let major = major << 5;
            match number {
                _ if long => {
                    out.push(major | 27);
                    out.extend(number.to_be_bytes());
                }
                0..24 => out.push(major | number as u8),
                24..0x100 => out.extend([major | 24, number as u8]),
                0x100..0x1_0000 => {
                    out.push(major | 25);
                    out.extend((number as u16).to_be_bytes());
                }
                0x1_0000..0x1_0000_0000 => {
                    out.push(major | 26);
                    out.extend((number as u32).to_be_bytes());
                }
                _ => {
                    out.push(major | 27);
                    out.extend(number.to_be_bytes());
                }
            }
        };
        match self {
            Self::Number(number) => head(0, *number),
            Self::Negative(number) => head(1, *number),
            Self::Bytes(bytes) => {
                head(2, bytes.len() as u64);
                out.extend(bytes);
            }
            Self::Text(text) => {
                head(3, text.len() as u64);
                out.extend(text.bytes());
            }
            Self::Array(items) => {
                if long {
                    out.push(0x9f);
                } else {
                    head(4, items.len() as u64);
                }
                items.iter().for_each(|item| item.write(out, long));
                if long {
                    out.push(0xff);
                }
            }
            Self::Map(fields) => {
                if long {
                    out.push(0xbf);
                } else {
                    head(5, fields.len() as u64);
                }
                for (key, value) in fields {
                    key.write(out, long);
                    value.write(out, long);
                }
                if long {
                    out.push(0xff);
                }
            }
            Self::Bool(value) => out.push(if *value { 0xf5 } else { 0xf4 }),
            Self::Null => out.push(0xf6),
            Self::Raw(bytes) => out.extend(bytes),
        }
    }

    /// The way to every item in it, itself included.
    pub(super) fn ways(&self) -> Vec<Vec<Step>> {
        let mut ways = vec![Vec::new()];
        for (at, item) in self.inner().into_iter().enumerate() {
            for mut way in item.ways() {
                way.insert(0, Step(at));
                ways.push(way);
            }
        }
        ways
    }

    fn inner(&self) -> Vec<&Self> {
        match self {
            Self::Array(items) => items.iter().collect(),
            Self::Map(fields) => fields.iter().map(|(_, value)| value).collect(),
            _ => Vec::new(),
        }
    }

    pub(super) fn at(&self, way: &[Step]) -> &Self {
        match way {
            [] => self,
            [Step(at), rest @ ..] => self.inner()[*at].at(rest),
        }
    }

    pub(super) fn at_mut(&mut self, way: &[Step]) -> &mut Self {
        match way {
            [] => self,
            [Step(at), rest @ ..] => match self {
                Self::Array(items) => items[*at].at_mut(rest),
                Self::Map(fields) => fields[*at].1.at_mut(rest),
                _ => panic!("nothing inside"),
            },
        }
    }

    /// The key under which the item at the end of `way` stands; arrays in between do not count.
    pub(super) fn key(&self, way: &[Step]) -> String {
        let mut key = "message".to_owned();
        for length in 0..way.len() {
            if let Self::Map(fields) = self.at(&way[..length]) {
                let (Self::Text(found), _) = &fields[way[length].0] else {
                    panic!("a key is no text");
                };
                key.clone_from(found);
            }
        }
        key
    }

    /// A copy with something else at the end of `way`.
    pub(super) fn with(&self, way: &[Step], other: Self) -> Self {
        let mut copy = self.clone();
        *copy.at_mut(way) = other;
        copy
    }

    /// A copy with every map's keys in the opposite order.
    pub(super) fn backwards(&self) -> Self {
        match self {
            Self::Array(items) => Self::Array(items.iter().map(Self::backwards).collect()),
            Self::Map(fields) => Self::Map(
                fields
                    .iter()
                    .rev()
                    .map(|(key, value)| (key.clone(), value.backwards()))
                    .collect(),
            ),
            _ => self.clone(),
        }
    }
}
