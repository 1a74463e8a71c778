//! Strict CBOR on top of `minicbor`.
//!
//! Reading goes from outside in. A map is walked once: its keys are noted and its values skipped over. Then each value is taken by its
//! key and read from its own slice; at the end no key may be left. So keys come in any order, and a value is known to be there in full
//! before anything is allocated for it.
//!
//! Integers may be longer than need be, and maps and arrays may be of indefinite length; strings come undivided. Tags and floating-point
//! numbers are refused.

use std::{collections::HashSet, convert::Infallible, hash::Hash, ops::RangeInclusive};

use arrayvec::ArrayVec;
use minicbor::{Decoder, Encoder, data::Type, encode::Write};
use zeroize::Zeroizing;

use super::error::{DecodeError, Found, shown};

/// The most keys of any map.
const MAX_KEYS: usize = 16;
/// The most maps and arrays inside each other.
const MAX_DEPTH: usize = 10;

/// One item that is well-formed and complete, and the key it stands under.
pub(super) struct Value<'b> {
    key: &'static str,
    item: &'b [u8],
}

/// The keys of one map that are not taken yet.
pub(super) struct Fields<'b> {
    left: ArrayVec<(&'b str, &'b [u8]), MAX_KEYS>,
}

impl<'b> Fields<'b> {
    /// The value of `key`.
    pub(super) fn take(&mut self, key: &'static str) -> Result<Value<'b>, DecodeError> {
        let at = self.left.iter().position(|(found, _)| *found == key);
        let (_, item) = at
            .and_then(|at| self.left.swap_pop(at))
            .ok_or(DecodeError::Missing { key })?;
        Ok(Value { key, item })
    }

    /// Checks that every key was taken.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        match self.left.first() {
            None => Ok(()),
            Some((key, _)) => Err(DecodeError::Unknown { key: shown(key) }),
        }
    }
}

impl<'b> Value<'b> {
    /// All of `bytes` as one item.
    pub(super) fn whole(bytes: &'b [u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(bytes);
        skip(&mut from, MAX_DEPTH)?;
        match bytes.len() - from.position() {
            0 => Ok(Self {
                key: "message",
                item: bytes,
            }),
            found => Err(DecodeError::Trailing { found }),
        }
    }

    /// A refusal of this value.
    pub(super) fn wrong(&self, expected: &'static str, found: Found) -> DecodeError {
        DecodeError::Wrong {
            key: self.key,
            expected,
            found,
        }
    }

    fn kind(&self) -> Type {
        // An item is never empty, so the default is never seen.
        Decoder::new(self.item).datatype().unwrap_or(Type::Break)
    }

    fn wrong_type(&self, expected: &'static str) -> DecodeError {
        self.wrong(expected, Found::Type(self.kind()))
    }

    fn sized(&self, expected: RangeInclusive<usize>, found: usize) -> Result<(), DecodeError> {
        if expected.contains(&found) {
            return Ok(());
        }
        Err(DecodeError::Size {
            key: self.key,
            expected,
            found,
        })
    }

    /// `None` for null.
    pub(super) fn optional(self) -> Option<Self> {
        (self.kind() != Type::Null).then_some(self)
    }

    pub(super) fn boolean(&self) -> Result<bool, DecodeError> {
        Decoder::new(self.item)
            .bool()
            .map_err(|_| self.wrong_type("true or false"))
    }

    pub(super) fn u64(&self) -> Result<u64, DecodeError> {
        Decoder::new(self.item)
            .u64()
            .map_err(|_| self.wrong_type("an unsigned integer"))
    }

    pub(super) fn u32(&self) -> Result<u32, DecodeError> {
        let found = self.u64()?;
        u32::try_from(found).map_err(|_| self.wrong("0 to 4294967295", Found::Number(found)))
    }

    pub(super) fn u16(&self) -> Result<u16, DecodeError> {
        let found = self.u64()?;
        u16::try_from(found).map_err(|_| self.wrong("0 to 65535", Found::Number(found)))
    }

    /// A text of any length.
    pub(super) fn text(&self) -> Result<&'b str, DecodeError> {
        Decoder::new(self.item)
            .str()
            .map_err(|_| self.wrong_type("a text"))
    }

    /// The member of `all` whose `word` is the text.
    pub(super) fn word<T: Copy>(
        &self,
        all: &[T],
        word: impl Fn(T) -> &'static str,
        expected: &'static str,
    ) -> Result<T, DecodeError> {
        let found = self.text()?;
        let is = |one: &&T| word(**one) == found;
        all.iter()
            .find(is)
            .copied()
            .ok_or_else(|| self.wrong(expected, Found::Text(shown(found))))
    }

    /// A byte string of a length within `expected`.
    pub(super) fn bytes(&self, expected: RangeInclusive<usize>) -> Result<&'b [u8], DecodeError> {
        let bytes = Decoder::new(self.item)
            .bytes()
            .map_err(|_| self.wrong_type("a byte string"))?;
        self.sized(expected, bytes.len())?;
        Ok(bytes)
    }

    /// A byte string of `N` bytes.
    pub(super) fn exactly<const N: usize>(&self) -> Result<[u8; N], DecodeError> {
        let bytes = self.bytes(N..=N)?;
        bytes
            .try_into()
            .map_err(|_| self.wrong_type("a byte string"))
    }

    /// A secret of `N` bytes.
    pub(super) fn secret<const N: usize, T>(
        &self,
        make: impl FnOnce([u8; N]) -> T,
    ) -> Result<T, DecodeError> {
        Ok(make(*Zeroizing::new(self.exactly()?)))
    }

    /// The keys of a map.
    pub(super) fn fields(self) -> Result<Fields<'b>, DecodeError> {
        let mut from = Decoder::new(self.item);
        let count = from.map().map_err(|_| self.wrong_type("a map"))?;
        let mut left = ArrayVec::<(&str, &[u8]), MAX_KEYS>::new();
        let mut seen = 0;
        while more(&mut from, count, seen) {
            seen += 1;
            let key = from.str().map_err(|_| DecodeError::KeyType {
                found: from.datatype().unwrap_or(Type::Break),
            })?;
            if left.iter().any(|(other, _)| *other == key) {
                return Err(DecodeError::Doubled { key: shown(key) });
            }
            let item = self.next(&mut from)?;
            // More keys than any map has: one of them does not belong there.
            left.try_push((key, item))
                .map_err(|_| DecodeError::Unknown { key: shown(key) })?;
        }
        Ok(Fields { left })
    }

    /// An array of a size within `expected`, its items read by `read`. It is allocated once, for secrets in it would leave copies behind.
    pub(super) fn list<T>(
        &self,
        expected: RangeInclusive<usize>,
        mut read: impl FnMut(Value<'b>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let mut from = Decoder::new(self.item);
        let count = from.array().map_err(|_| self.wrong_type("an array"))?;
        let size = match count {
            Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
            None => {
                let mut ahead = from.clone();
                let mut size = 0;
                while more(&mut ahead, None, 0) {
                    self.next(&mut ahead)?;
                    size += 1;
                }
                size
            }
        };
        self.sized(expected, size)?;
        let mut list = Vec::with_capacity(size);
        for _ in 0..size {
            let item = self.next(&mut from)?;
            list.push(read(Value {
                key: self.key,
                item,
            })?);
        }
        Ok(list)
    }

    /// Like [`list`](Self::list), and no two items may have the same `id`.
    pub(super) fn set<T, I: Hash + Eq>(
        &self,
        expected: RangeInclusive<usize>,
        read: impl FnMut(Value<'b>) -> Result<T, DecodeError>,
        id: impl Fn(&T) -> I,
    ) -> Result<Vec<T>, DecodeError> {
        let list = self.list(expected, read)?;
        let different: HashSet<I> = list.iter().map(id).collect();
        if different.len() == list.len() {
            Ok(list)
        } else {
            Err(self.wrong("each once", Found::Double))
        }
    }

    /// The bytes of the next item.
    fn next(&self, from: &mut Decoder<'b>) -> Result<&'b [u8], DecodeError> {
        let start = from.position();
        skip(from, MAX_DEPTH)?;
        self.item
            .get(start..from.position())
            .ok_or(DecodeError::Malformed { at: start })
    }
}

/// Whether a map or an array of `count` members, or up to its break, has another one after `seen`. Passes over the break.
fn more(from: &mut Decoder<'_>, count: Option<u64>, seen: u64) -> bool {
    match count {
        Some(count) => seen < count,
        None if matches!(from.datatype(), Ok(Type::Break)) => {
            from.set_position(from.position() + 1);
            false
        }
        None => true,
    }
}

/// Passes over one item, which may have `depth` maps and arrays inside each other.
fn skip(from: &mut Decoder<'_>, depth: usize) -> Result<(), DecodeError> {
    let at = from.position();
    let malformed = |_| DecodeError::Malformed { at };
    let found = from.datatype().map_err(malformed)?;
    let (count, items) = match found {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => {
            return from.u64().map(drop).map_err(malformed);
        }
        Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => {
            return from.int().map(drop).map_err(malformed);
        }
        Type::Bytes => return from.bytes().map(drop).map_err(malformed),
        Type::String => return from.str().map(drop).map_err(malformed),
        Type::Bool => return from.bool().map(drop).map_err(malformed),
        Type::Null => return from.null().map_err(malformed),
        Type::Array | Type::ArrayIndef => (from.array().map_err(malformed)?, 1),
        Type::Map | Type::MapIndef => (from.map().map_err(malformed)?, 2),
        _ => return Err(DecodeError::Unsupported { at, found }),
    };
    let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep {
        at,
        limit: MAX_DEPTH,
    })?;
    let mut seen = 0;
    while more(from, count, seen) {
        for _ in 0..items {
            skip(from, depth)?;
        }
        seen += 1;
    }
    Ok(())
}

/// Where a message is written to: first only counted, then into a buffer of that size, so that no outgrown buffer keeps a secret.
enum Sink {
    Counting(usize),
    Bytes(Zeroizing<Vec<u8>>),
}

impl Write for Sink {
    type Error = Infallible;

    fn write_all(&mut self, more: &[u8]) -> Result<(), Infallible> {
        match self {
            Self::Counting(written) => *written += more.len(),
            Self::Bytes(bytes) => bytes.extend_from_slice(more),
        }
        Ok(())
    }
}

/// Writes CBOR: definite lengths, integers as short as they can be.
pub(super) struct Out(Encoder<Sink>);

/// The result of writing to memory.
fn done<T>(written: Result<T, minicbor::encode::Error<Infallible>>) {
    let _ = written.expect("memory takes every byte");
}

impl Out {
    pub(super) fn counting() -> Self {
        Self(Encoder::new(Sink::Counting(0)))
    }

    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Encoder::new(Sink::Bytes(Zeroizing::new(
            Vec::with_capacity(bytes),
        ))))
    }

    /// How many bytes were written.
    pub(super) fn written(&self) -> usize {
        match self.0.writer() {
            Sink::Counting(written) => *written,
            Sink::Bytes(bytes) => bytes.len(),
        }
    }

    pub(super) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        match self.0.into_writer() {
            Sink::Counting(_) => Zeroizing::default(),
            Sink::Bytes(bytes) => bytes,
        }
    }

    /// Opens a map of `keys` keys.
    pub(super) fn map(&mut self, keys: u64) {
        done(self.0.map(keys));
    }

    /// A key; its value comes next.
    pub(super) fn key(&mut self, key: &'static str) -> &mut Self {
        self.text(key);
        self
    }

    pub(super) fn number(&mut self, number: impl Into<u64>) {
        done(self.0.u64(number.into()));
    }

    pub(super) fn boolean(&mut self, value: bool) {
        done(self.0.bool(value));
    }

    pub(super) fn null(&mut self) {
        done(self.0.null());
    }

    pub(super) fn text(&mut self, text: &str) {
        done(self.0.str(text));
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        done(self.0.bytes(bytes));
    }

    /// An array, its items written by `write`.
    pub(super) fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        done(self.0.array(items.len() as u64));
        for item in items {
            write(self, item);
        }
    }
}
