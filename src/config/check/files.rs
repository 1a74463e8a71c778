//! Files that the configuration names: where they are, whether others may read them, and the secrets in them.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::Report;
use crate::config::{Secret, SecretBytes, error::Source, scalar::At};

/// Bytes of a pre-shared key: as many as HPKE wants, and more than anybody needs.
const PSK_BYTES: std::ops::RangeInclusive<usize> = 32..=1024;

/// What a file holds that others cannot read, at most `most` bytes of it; or what is wrong with it.
fn private_bytes(path: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mode = file.metadata().map_err(|error| error.to_string())?.mode();
    if mode & 0o007 != 0 {
        return Err(format!("mode {:04o}, open to everyone", mode & 0o7777));
    }
    // With all its room from the start: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
    file.take(most as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// The PairMasterSecret in a file, or what is wrong with it.
pub(super) fn secret_of(path: &Path) -> Result<Secret, String> {
    // Room for the digits and one line end; more is no secret.
    let bytes = private_bytes(path, 128)?;
    let secret = Secret::from_raw(&bytes).or_else(|| {
        let text = std::str::from_utf8(&bytes).ok()?;
        Secret::from_hex(text.trim())
    });
    secret.ok_or_else(|| format!("{} bytes that are not a secret", bytes.len()))
}

/// The password in a file, or what is wrong with it.
pub(super) fn password_of(file: &Path) -> Result<SecretBytes, String> {
    let bytes = private_bytes(file, 1024)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| "no UTF-8 text".to_owned())?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.chars().any(char::is_control) {
        return Err("no password alone on one line".to_owned());
    }
    Ok(SecretBytes::new(Zeroizing::new(
        password.as_bytes().to_vec(),
    )))
}

/// The pre-shared key in a file, or what is wrong with it. Digits are digits; other text is refused, since it is more likely a slip than random bytes.
pub(super) fn psk_of(file: &Path) -> Result<SecretBytes, String> {
    // Digits are twice as long, and end with a line end.
    let bytes = private_bytes(file, 2 * PSK_BYTES.end() + 2)?;
    let text = std::str::from_utf8(&bytes).map(str::trim_end);
    let key = match text {
        Ok(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Zeroizing::new(hex::decode(digits).map_err(|_| "an odd number of digits".to_owned())?)
        }
        Ok(text)
            if text
                .bytes()
                .all(|byte| byte == b' ' || byte.is_ascii_graphic()) =>
        {
            return Err("text that is not hexadecimal".to_owned());
        }
        _ => bytes,
    };
    if !PSK_BYTES.contains(&key.len()) {
        return Err(format!("{} bytes", key.len()));
    }
    Ok(SecretBytes::new(key))
}

/// `file` as it is found from the configuration's folder.
pub(super) fn resolved(file: &Path, source: &Source) -> PathBuf {
    source.file.parent().unwrap_or(Path::new("")).join(file)
}

pub(super) fn resolve(file: &mut At<PathBuf>, source: &Source) {
    *file = file.with(resolved(file, source));
}

/// Refuses a private key that everyone may read; one that is not there yet is a warning.
pub(super) fn private(key: &At<PathBuf>, source: &Source, report: Report<'_>) {
    if let Ok(about) = fs::metadata(&**key)
        && about.mode() & 0o007 != 0
    {
        report(source.fault_at(
            key,
            &format!(
                "{}: mode {:04o}, open to everyone",
                key.display(),
                about.mode() & 0o7777
            ),
            "a private key that others cannot read (chmod o-rwx)",
        ));
    }
}
