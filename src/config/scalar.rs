//! Scalars that check themselves while the file is read, so that no type behind the parser can hold an illegal value.

use std::{fmt, ops::Deref, time::Duration};

use humantime_serde::re::humantime;
use serde::{
    Deserialize, Deserializer,
    de::{self, Expected, Unexpected, Visitor},
};
use serde_saphyr::Spanned;

/// A value and the place in the file where it stands, for checks that compare it with others.
#[derive(Clone, Copy)]
pub struct At<T> {
    value: T,
    line: u32,
    column: u32,
    width: u32,
}

impl<T> At<T> {
    /// The value without its place.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// Line, column (both from 1, columns in characters) and width in characters. All 0 for a default.
    pub(super) fn place(&self) -> (u32, u32, u32) {
        (self.line, self.column, self.width)
    }

    /// `value` as if it stood where `self` does.
    pub(super) fn with<U>(&self, value: U) -> At<U> {
        At {
            value,
            line: self.line,
            column: self.column,
            width: self.width,
        }
    }
}

/// A default, which stands nowhere in the file.
impl<T> From<T> for At<T> {
    fn from(value: T) -> Self {
        Self {
            value,
            line: 0,
            column: 0,
            width: 0,
        }
    }
}

/// The value alone: what stands elsewhere in the file is the same.
impl<T: fmt::Debug> fmt::Debug for At<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(out)
    }
}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Spanned {
            value, referenced, ..
        } = Spanned::deserialize(from)?;
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(Self {
            value,
            line: small(referenced.line()),
            column: small(referenced.column()),
            width: small(referenced.span().len()),
        })
    }
}

/// A whole number from `MIN` to `MAX`, both included. Hexadecimal (`0x0f`) is read too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole<T, const MIN: u64, const MAX: u64>(pub(super) T);

impl<T: Copy, const MIN: u64, const MAX: u64> Whole<T, MIN, MAX> {
    /// The number.
    pub fn get(self) -> T {
        self.0
    }
}

impl<T: fmt::Display, const MIN: u64, const MAX: u64> fmt::Display for Whole<T, MIN, MAX> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl<'de, T: TryFrom<u64>, const MIN: u64, const MAX: u64> Deserialize<'de> for Whole<T, MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Within<const MIN: u64, const MAX: u64>;

        impl<const MIN: u64, const MAX: u64> Visitor<'_> for Within<MIN, MAX> {
            type Value = u64;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "a whole number from {MIN} to {MAX}")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
                if (MIN..=MAX).contains(&number) {
                    Ok(number)
                } else {
                    Err(E::invalid_value(Unexpected::Unsigned(number), &self))
                }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
                match u64::try_from(number) {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
                }
            }
        }

        // `deserialize_any`, since the typed calls answer a word with an error that does not know MIN and MAX.
        let number = from.deserialize_any(Within::<MIN, MAX>)?;
        let number = T::try_from(number).map_err(|_| {
            de::Error::invalid_value(Unexpected::Unsigned(number), &Within::<MIN, MAX>)
        })?;
        Ok(Self(number))
    }
}

/// A duration from `MIN` to `MAX` milliseconds, both included, written as `250ms`, `60s`, `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period<const MIN: u64, const MAX: u64>(pub(super) Duration);

impl<const MIN: u64, const MAX: u64> Period<MIN, MAX> {
    /// The duration.
    #[must_use]
    pub fn get(self) -> Duration {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> fmt::Display for Period<MIN, MAX> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(out)
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Period<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (min, max) = (Duration::from_millis(MIN), Duration::from_millis(MAX));
        let allowed = format!(
            "a duration from {} to {}, with its unit: 500ms, 60s, 5m, 1h",
            humantime::format_duration(min),
            humantime::format_duration(max),
        );
        text(from, &allowed, |word| {
            let duration = humantime::parse_duration(word).ok()?;
            (min..=max).contains(&duration).then_some(Self(duration))
        })
    }
}

/// Reads a scalar as text and parses it; a refusal says what is `allowed`.
pub(super) fn text<'de, D: Deserializer<'de>, T>(
    from: D,
    allowed: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, D::Error> {
    text_or(from, allowed, |word| {
        parse(word).ok_or_else(|| allowed.to_owned())
    })
}

/// Like [`text`], but the parser itself says what would have been allowed instead.
pub(super) fn text_or<'de, D: Deserializer<'de>, T>(
    from: D,
    allowed: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    struct Text<'a, F>(&'a str, F);

    impl<T, F: FnOnce(&str) -> Result<T, String>> Visitor<'_> for Text<'_, F> {
        type Value = T;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str(self.0)
        }

        fn visit_str<E: de::Error>(self, word: &str) -> Result<T, E> {
            (self.1)(word)
                .map_err(|allowed| E::invalid_value(Unexpected::Str(word), &Allowed(allowed)))
        }
    }

    from.deserialize_str(Text(allowed, parse))
}

/// What is allowed, as serde's errors want it.
pub(super) struct Allowed(pub(super) String);

impl Expected for Allowed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// An enum whose values are words of the file; a wrong word is answered with the list of right ones.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$what])* $variant,)+
        }

        impl $name {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word for it.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.pad(self.word())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let allowed = format!("one of {}", [$($word),+].join(", "));
                $crate::config::scalar::text(from, &allowed, |word| match word {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                })
            }
        }
    };
}
pub(super) use words;
