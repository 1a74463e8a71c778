//! `pdmgate keygen`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::Failure;
use super::output::Output;
use crate::config::DnsName;
use crate::crypto::{Kem, hpke};
use crate::registration::keygen::{Issued, KeygenError, authority, certificate};

/// Make certificates, keys and secrets.
///
/// A private authority and its certificates are enough for a lab, and for a site that has no authority of its own. Secrets
/// come from the system's random numbers and go into files that only their owner can read (mode 0600). No file is ever
/// replaced without --force.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Two Primaries and a Secondary, from nothing:
  pdmgate keygen ca lab                                 ca.pem for everybody; ca.key stays here
  pdmgate keygen certificate lab --name hq.example      hq.example.pem and hq.example.key
  pdmgate keygen certificate lab --name branch.example
  pdmgate keygen certificate lab --name gate1.example
  pdmgate keygen psk hq-branch.psk                      for both, if certificates are not enough

Examples:
  pdmgate keygen ca lab --name \"Our lab\" --days 365
  pdmgate keygen certificate lab --name hq.example --name hq2.example --json
  pdmgate keygen pms campus.pms && pdmgate keygen salt  a static pairing

In the configuration:
  certificate: hq.example.pem
  key: hq.example.key
  authorities: ca.pem")]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// Replace files that are there already
    #[arg(long, global = true)]
    force: bool,
    /// Print what was made as one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A private authority: DIR/ca.pem, which everybody needs, and DIR/ca.key, which signs
    ///
    /// Both are ECDSA on P-256. Keep ca.key away from the machines that carry traffic: whoever has it can be anybody.
    Ca {
        /// Folder of the authority; made if need be
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// What the authority is called in its certificate, 1 to 64 characters
        #[arg(long, value_name = "TEXT", default_value = "pdmgate private authority")]
        name: String,
        /// Days until it expires, and all that it signed with it
        #[arg(long, value_name = "N", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=7300))]
        days: u32,
    },
    /// A certificate signed by the authority in DIR: DIR/NAME.pem and DIR/NAME.key
    ///
    /// It serves a Primary, a Secondary and an analyzer alike, as a server and as a client: what its names are allowed is said by the
    /// configuration of the others (peer, secondaries, analyzers).
    Certificate {
        /// Folder of the authority, made by `pdmgate keygen ca`
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// DNS name to certify; the first names the files. May be given more than once
        #[arg(long = "name", value_name = "NAME", required = true, value_parser = parse_name)]
        names: Vec<DnsName>,
        /// Days until it expires, at most 825; not later than the authority
        #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=825))]
        days: u32,
    },
    /// A pre-shared key of two Primaries, 32 bytes as 64 hexadecimal digits
    Psk {
        /// File to write
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// A PairMasterSecret of a static pairing (pms_file), 32 bytes as 64 hexadecimal digits
    Pms {
        /// File to write
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// A salt of a static pairing, printed as 64 hexadecimal digits
    Salt,
    /// An HPKE key pair, for experiments: FILE (private) and FILE.pub (public), hexadecimal digits
    ///
    /// A Primary makes a key pair of its own for each setup and forgets it after; it reads no such file. The encoding is
    /// SerializePrivateKey and SerializePublicKey of RFC 9180, section 7.1.
    Hpke {
        /// File of the private key
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Key encapsulation mechanism
        #[arg(long, value_enum, value_name = "KEM", default_value_t = KemName::X25519)]
        kem: KemName,
    },
}

/// The KEMs, by the names that the configuration has for them.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum KemName {
    /// DHKEM(X25519, HKDF-SHA256)
    X25519,
    /// DHKEM(P-256, HKDF-SHA256)
    #[value(name = "p-256")]
    P256,
}

fn parse_name(word: &str) -> Result<DnsName, String> {
    // Its files would be the authority's.
    if word.eq_ignore_ascii_case("ca") {
        return Err("`ca` is the authority's own file: expected another name".to_owned());
    }
    DnsName::parse(word).ok_or_else(|| {
        "expected a DNS name such as hq.example: no wildcard, no address, no dot at the end"
            .to_owned()
    })
}

/// Why nothing, or not everything, was made.
#[derive(Debug, Error)]
pub enum KeygenFailure {
    /// A file is there and `--force` is not.
    #[error("{} is there already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The authority's files cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The system has no random numbers.
    #[error("no random numbers from the system: {0}")]
    Random(getrandom::Error),
    /// The certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] KeygenError),
}

/// What was made, for people and scripts.
#[derive(Default, Serialize)]
struct Made {
    files: Vec<MadeFile>,
    /// The names in the certificate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
    /// When the certificate expires, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<String>,
    /// What is printed, not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    salt: Option<String>,
}

#[derive(Serialize)]
struct MadeFile {
    path: PathBuf,
    what: &'static str,
    /// Whether it is a secret, with mode 0600.
    secret: bool,
}

/// A file to write.
struct Draft {
    path: PathBuf,
    what: &'static str,
    secret: bool,
    text: Zeroizing<String>,
}

impl Draft {
    fn secret(path: PathBuf, what: &'static str, text: Zeroizing<String>) -> Self {
        Self {
            path,
            what,
            secret: true,
            text,
        }
    }

    fn public(path: PathBuf, what: &'static str, text: String) -> Self {
        Self {
            path,
            what,
            secret: false,
            text: Zeroizing::new(text),
        }
    }
}

/// Makes what the command line says.
pub fn keygen(args: &Args) -> Result<(), Failure> {
    let made = make(args)?;
    let mut output = Output::new();
    if args.json {
        output.json(&made)?;
        return output.flush();
    }
    for file in &made.files {
        let mode = if file.secret { " (secret)" } else { "" };
        output.text(&format!("{}: {}{mode}\n", file.path.display(), file.what))?;
    }
    if !made.names.is_empty() {
        output.text(&format!("for {}\n", made.names.join(", ")))?;
    }
    if let Some(end) = &made.not_after {
        output.text(&format!("valid until {end}\n"))?;
    }
    if let Some(salt) = &made.salt {
        output.text(&format!("{salt}\n"))?;
    }
    output.flush()
}

fn make(args: &Args) -> Result<Made, KeygenFailure> {
    let (drafts, made) = match &args.what {
        What::Ca { folder, name, days } => {
            let issued = authority(name, *days, now())?;
            fs::create_dir_all(folder).map_err(|source| KeygenFailure::Write {
                path: folder.clone(),
                source,
            })?;
            let what = ["authority's private key", "authority's certificate"];
            of_certificate(folder, "ca", what, issued)
        }
        What::Certificate {
            folder,
            names,
            days,
        } => {
            let read = |name| {
                let path = folder.join(name);
                let text = fs::read_to_string(&path).map(Zeroizing::new);
                text.map_err(|source| KeygenFailure::Authority { path, source })
            };
            let issued = certificate(&read("ca.pem")?, &read("ca.key")?, names, *days, now())?;
            let first = names.first().map_or("", DnsName::as_str);
            let what = ["private key", "certificate"];
            let (drafts, made) = of_certificate(folder, first, what, issued);
            let names = names.iter().map(|name| name.as_str().to_owned()).collect();
            (drafts, Made { names, ..made })
        }
        What::Psk { file } => (
            vec![Draft::secret(file.clone(), "pre-shared key", random()?)],
            Made::default(),
        ),
        What::Pms { file } => (
            vec![Draft::secret(file.clone(), "PairMasterSecret", random()?)],
            Made::default(),
        ),
        What::Salt => {
            let salt = Some(random()?.trim_end().to_owned());
            let made = Made {
                salt,
                ..Made::default()
            };
            (Vec::new(), made)
        }
        What::Hpke { file, kem } => {
            let (private, public) = hpke::generate(match kem {
                KemName::X25519 => Kem::X25519HkdfSha256,
                KemName::P256 => Kem::P256HkdfSha256,
            });
            let mut public_file = file.clone().into_os_string();
            public_file.push(".pub");
            let drafts = vec![
                Draft::secret(
                    file.clone(),
                    "HPKE private key",
                    digits(&private.to_bytes()),
                ),
                Draft::public(
                    public_file.into(),
                    "HPKE public key",
                    digits(&public).to_string(),
                ),
            ];
            (drafts, Made::default())
        }
    };
    write_all(drafts, args.force, made)
}

fn now() -> OffsetDateTime {
    // Certificates count in whole seconds.
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(0).unwrap_or(now)
}

/// The files of a certificate: what it was made for first, so that none stands there without its key.
fn of_certificate(
    folder: &Path,
    name: &str,
    what: [&'static str; 2],
    issued: Issued,
) -> (Vec<Draft>, Made) {
    let file = |ending: &str| folder.join(format!("{name}.{ending}"));
    let [key, certificate] = what;
    let drafts = vec![
        Draft::secret(file("key"), key, issued.key),
        Draft::public(file("pem"), certificate, issued.certificate),
    ];
    let made = Made {
        not_after: issued.not_after.format(&Rfc3339).ok(),
        ..Made::default()
    };
    (drafts, made)
}

/// 32 random bytes, as digits and a line end.
fn random() -> Result<Zeroizing<String>, KeygenFailure> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(KeygenFailure::Random)?;
    Ok(digits(&*bytes))
}

fn digits(bytes: &[u8]) -> Zeroizing<String> {
    // With room for the line end from the start: a string that grows leaves a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len() + 1));
    for byte in bytes {
        for digit in [byte >> 4, byte & 0xf] {
            text.extend(char::from_digit(digit.into(), 16));
        }
    }
    text.push('\n');
    text
}

/// Writes all files, or none if one of them is there already.
fn write_all(drafts: Vec<Draft>, force: bool, mut made: Made) -> Result<Made, KeygenFailure> {
    if !force
        && let Some(draft) = drafts
            .iter()
            .find(|draft| draft.path.symlink_metadata().is_ok())
    {
        return Err(KeygenFailure::Exists {
            path: draft.path.clone(),
        });
    }
    for draft in drafts {
        write(&draft, force).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KeygenFailure::Exists {
                path: draft.path.clone(),
            },
            _ => KeygenFailure::Write {
                path: draft.path.clone(),
                source,
            },
        })?;
        made.files.push(MadeFile {
            path: draft.path,
            what: draft.what,
            secret: draft.secret,
        });
    }
    Ok(made)
}

/// Writes a file beside its place and puts it there whole; its mode never was wider than it ends up.
fn write(draft: &Draft, force: bool) -> io::Result<()> {
    let mut beside = draft.path.clone().into_os_string();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(if draft.secret { 0o600 } else { 0o644 })
            .open(&beside)?;
        file.write_all(draft.text.as_bytes())?;
        file.sync_all()?;
        if force {
            return fs::rename(&beside, &draft.path);
        }
        // A link, unlike a rename, replaces nothing.
        fs::hard_link(&beside, &draft.path)?;
        fs::remove_file(&beside)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_hexadecimal_and_end_the_line() {
        assert_eq!(digits(&[0, 0x5a, 0xff]).as_str(), "005aff\n");
        let (a, b) = (random().expect("random"), random().expect("random"));
        assert_eq!((a.len(), b.len()), (65, 65));
        assert_ne!(*a, *b);
    }

    #[test]
    fn names_that_name_no_host() {
        assert_eq!(
            parse_name("HQ.example").expect("a name").as_str(),
            "hq.example"
        );
        for word in [
            "",
            "ca",
            "CA",
            "*.example",
            "192.0.2.1",
            "::1",
            "a.",
            "a/b",
            "..",
            "a b",
        ] {
            assert!(parse_name(word).is_err(), "{word}");
        }
    }
}
