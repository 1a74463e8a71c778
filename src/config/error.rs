//! What is wrong with a configuration, where, what was found and what is allowed; never a secret.

use std::{fmt, io, path::PathBuf};

use serde_saphyr::{Error as YamlError, MessageFormatter, UserMessageFormatter};
use thiserror::Error;

use super::scalar::At;

/// A configuration that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file asked for.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// The file was read and says something that is not allowed.
    #[error("{}", Listing(faults))]
    Invalid {
        /// What is wrong, in the order of the file; never empty.
        faults: Vec<Fault>,
    },
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What stands there.
    pub found: String,
    /// What may stand there.
    pub allowed: String,
    /// The line and how many characters of it are meant; `None` for a line that may hold a secret.
    pub excerpt: Option<(String, u32)>,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        writeln!(
            out,
            "{}:{}:{}: found {}",
            self.file.display(),
            self.line,
            self.column,
            self.found
        )?;
        match &self.excerpt {
            Some((line, width)) => {
                // A tab takes as much room under the line as in it.
                let indent: String = line
                    .chars()
                    .take(self.column.saturating_sub(1) as usize)
                    .map(|c| if c == '\t' { '\t' } else { ' ' })
                    .collect();
                let carets = "^".repeat((*width).max(1) as usize);
                writeln!(
                    out,
                    "{gutter} |\n{number} | {line}\n{gutter} | {indent}{carets}"
                )?;
            }
            None => writeln!(
                out,
                "{gutter} | (line {number} may hold a secret and is not shown)"
            )?,
        }
        write!(out, "{gutter} = allowed: {}", self.allowed)
    }
}

struct Listing<'a>(&'a [Fault]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.0.iter().enumerate() {
            if at > 0 {
                out.write_str("\n\n")?;
            }
            fault.fmt(out)?;
        }
        Ok(())
    }
}

/// The text of a file, to make faults from.
pub(super) struct Source<'a> {
    pub(super) file: &'a std::path::Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// A fault at a place of the text.
    fn fault(&self, place: (u32, u32, u32), found: &str, allowed: String) -> Fault {
        let (line, column, width) = place;
        let text = self.line(line);
        let rest = text.chars().count() as u32 + 1;
        Fault {
            file: self.file.to_owned(),
            line,
            column,
            found: without_secrets(found),
            allowed,
            excerpt: (!may_hold_secret(text)).then(|| {
                let width = width.min(rest.saturating_sub(column));
                (text.to_owned(), width)
            }),
        }
    }

    /// A fault of a value that was read, by a check behind the parser.
    pub(super) fn fault_at<T>(&self, at: &At<T>, found: &str, allowed: impl Into<String>) -> Fault {
        self.fault(at.place(), found, allowed.into())
    }

    fn line(&self, number: u32) -> &str {
        let index = number.saturating_sub(1) as usize;
        self.text.lines().nth(index).unwrap_or_default()
    }

    /// What the parser found wrong.
    pub(super) fn fault_of(&self, error: &YamlError) -> Fault {
        let place = error.location().map_or((1, 1, 1), |place| {
            let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            (
                small(place.line()).max(1),
                small(place.column()).max(1),
                small(place.span().len()).max(1),
            )
        });
        let error = cause(error);
        let token = || match self.token(place) {
            token if token.is_empty() => "nothing".to_owned(),
            token => format!("`{token}`"),
        };
        match error {
            // serde names the key's place for a value that a type refused; the value is what should be looked at.
            YamlError::SerdeInvalidType {
                unexpected,
                expected,
                ..
            }
            | YamlError::SerdeInvalidValue {
                unexpected,
                expected,
                ..
            } => self.fault(self.value_behind(place), unexpected, expected.clone()),
            YamlError::SerdeUnknownField {
                field, expected, ..
            } => {
                let allowed = format!("one of the fields {}", expected.join(", "));
                self.fault(place, &format!("unknown field `{field}`"), allowed)
            }
            // An enum of which a field chooses the variant.
            YamlError::SerdeUnknownVariant {
                variant, expected, ..
            } => {
                let allowed = format!("one of the fields {}, and one only", expected.join(", "));
                self.fault(place, &format!("unknown field `{variant}`"), allowed)
            }
            YamlError::ExpectedStringKeyForExternallyTaggedEnum { .. }
            | YamlError::ExpectedMappingEndAfterEnumVariantValue { .. } => self.fault(
                place,
                &token(),
                "a mapping with one field, and one only".to_owned(),
            ),
            YamlError::SerdeMissingField { field, .. } => self.fault(
                place,
                &format!("no `{field}` in the mapping that starts here"),
                format!("`{field}` must be given"),
            ),
            YamlError::DuplicateMappingKey { .. } => self.fault(
                place,
                &format!("{} for the second time", token()),
                "each field once in a mapping".to_owned(),
            ),
            YamlError::Unexpected { expected, .. } => {
                let expected = match *expected {
                    "mapping start" => "a mapping, `field: value`",
                    "sequence start" => "a list, `- entry` lines or [ entry, entry ]",
                    "string scalar" => "text",
                    other => other,
                };
                self.fault(place, &token(), expected.to_owned())
            }
            YamlError::InvalidScalar { ty: "boolean", .. } => {
                self.fault(place, &token(), "true or false".to_owned())
            }
            YamlError::NullIntoString { .. } => {
                self.fault(place, "nothing (null)", "a text".to_owned())
            }
            YamlError::Eof { .. } => {
                let allowed = "a mapping with at least `ports`".to_owned();
                self.fault(place, "an empty file", allowed)
            }
            other => self.fault(
                place,
                &UserMessageFormatter.format_message(other),
                "YAML: `field: value` lines, indented by spaces".to_owned(),
            ),
        }
    }

    /// The characters at a place.
    fn token(&self, (line, column, width): (u32, u32, u32)) -> String {
        self.line(line)
            .chars()
            .skip(column.saturating_sub(1) as usize)
            .take(width as usize)
            .collect()
    }

    /// The place of the value, if `place` is that of its key.
    fn value_behind(&self, place: (u32, u32, u32)) -> (u32, u32, u32) {
        let (line, column, width) = place;
        let key_end = (column.saturating_sub(1) + width) as usize;
        let rest: String = self.line(line).chars().skip(key_end).collect();
        let Some(value) = rest.trim_start().strip_prefix(':') else {
            return place;
        };
        let value = value.trim();
        if value.is_empty() || value.starts_with('#') {
            return place;
        }
        let Some(before) = rest.find(value) else {
            return place;
        };
        let end = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value[1..].find(quote).map(|end| end + 2),
            _ => value.find([',', '}', ']', '#']),
        };
        let value = value.get(..end.unwrap_or(value.len())).unwrap_or(value);
        let before = rest.get(..before).unwrap_or_default().chars().count();
        (
            line,
            (key_end + before) as u32 + 1,
            value.trim_end().chars().count() as u32,
        )
    }
}

/// The error inside those that only say where.
pub(super) fn cause(mut error: &YamlError) -> &YamlError {
    while let YamlError::AliasError { error: inner, .. }
    | YamlError::WithSnippet { error: inner, .. } = error
    {
        error = inner;
    }
    error
}

/// Letters, digits and base64 signs in a row that are too many for a word.
const LONG_RUN: usize = 20;

fn is_run(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '+' || c == '='
}

/// Whether a line names a secret or has a run of characters long enough to be one.
fn may_hold_secret(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    let named = line.replace("pms_file", "");
    ["pms", "psk", "salt", "secret"]
        .iter()
        .any(|word| named.contains(word))
        || line.split(|c| !is_run(c)).any(|run| run.len() >= LONG_RUN)
}

/// `text` with each run that is long enough to be a secret taken out.
fn without_secrets(text: &str) -> String {
    text.split_inclusive(|c| !is_run(c))
        .map(|run| {
            let tail = run.trim_end_matches(|c| !is_run(c));
            if tail.len() >= LONG_RUN {
                run.replace(tail, "(hidden)")
            } else {
                run.to_owned()
            }
        })
        .collect()
}
