//! `pdmgate keygen` as a shell sees it, and its files as openssl does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use pdmgate::config::PrimaryFile;

fn keygen(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pdmgate"));
    command.arg("keygen").args(args).current_dir(folder);
    command.env_remove("PDMGATE_LOG").output().unwrap()
}

#[track_caller]
fn made(folder: &Path, args: &[&str]) -> serde_json::Value {
    let output = keygen(folder, &[args, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn refused(folder: &Path, args: &[&str], code: i32) -> String {
    let output = keygen(folder, args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// What openssl says; `None` where it is not installed.
fn openssl(folder: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("openssl")
        .args(args)
        .current_dir(folder)
        .output();
    let output = match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("no openssl: not asked");
            return None;
        }
        output => output.unwrap(),
    };
    assert!(output.status.success(), "openssl {args:?}: {output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn an_authority_and_certificates_that_openssl_accepts() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let ca = made(root, &["ca", "lab", "--name", "Our lab"]);
    assert_eq!(ca["files"][0]["path"], "lab/ca.key");
    assert_eq!(ca["files"][0]["secret"], true);
    assert_eq!(ca["files"][1]["path"], "lab/ca.pem");
    assert!(ca["not_after"].as_str().unwrap().ends_with('Z'));
    let hq = made(
        root,
        &[
            "certificate",
            "lab",
            "--name",
            "HQ.example",
            "--name",
            "hq2.example",
        ],
    );
    assert_eq!(
        hq["names"],
        serde_json::json!(["hq.example", "hq2.example"])
    );
    assert_eq!(hq["files"][1]["path"], "lab/hq.example.pem");
    assert!(hq["not_after"].as_str() < ca["not_after"].as_str());
    let lab = root.join("lab");
    for (file, expected) in [
        ("ca.key", 0o600),
        ("ca.pem", 0o644),
        ("hq.example.key", 0o600),
        ("hq.example.pem", 0o644),
    ] {
        // What the umask takes away is not there.
        assert_eq!(mode(&lab.join(file)) & !0o044, expected & !0o044, "{file}");
    }
    assert_eq!(mode(&lab.join("hq.example.key")), 0o600);
    assert_eq!(
        fs::read_dir(&lab).unwrap().count(),
        4,
        "nothing is left over"
    );

    for purpose in ["sslserver", "sslclient"] {
        let verify = [
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-CAfile",
            "ca.pem",
        ];
        openssl(
            &lab,
            &[
                &verify[..],
                &["-verify_hostname", "hq2.example", "hq.example.pem"],
            ]
            .concat(),
        );
    }
    openssl(
        &lab,
        &["verify", "-x509_strict", "-CAfile", "ca.pem", "ca.pem"],
    );
    let public = ["x509", "-in", "hq.example.pem", "-noout", "-pubkey"];
    let of_certificate = openssl(&lab, &public);
    let of_key = openssl(&lab, &["pkey", "-in", "hq.example.key", "-pubout"]);
    assert_eq!(of_certificate, of_key);
    if let Some(text) = openssl(&lab, &["x509", "-in", "hq.example.pem", "-noout", "-text"]) {
        for part in [
            "ecdsa-with-SHA256",
            "prime256v1",
            "CN = Our lab",
            "CA:FALSE",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }
}

#[test]
fn nothing_is_replaced_without_force() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    made(root, &["ca", "."]);
    let before = fs::read(root.join("ca.key")).unwrap();
    let text = refused(root, &["ca", "."], 1);
    assert!(
        text.contains("ca.key is there already") && text.contains("hint: --force"),
        "{text}"
    );
    // One of two is enough, and the other is not written.
    made(root, &["certificate", ".", "--name", "a.example"]);
    fs::remove_file(root.join("a.example.key")).unwrap();
    let text = refused(root, &["certificate", ".", "--name", "a.example"], 1);
    assert!(text.contains("a.example.pem is there already"), "{text}");
    assert!(!root.join("a.example.key").exists());
    assert_eq!(fs::read(root.join("ca.key")).unwrap(), before);
    // A file that everybody may read becomes a secret.
    fs::set_permissions(root.join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    made(root, &["ca", ".", "--force"]);
    assert_ne!(fs::read(root.join("ca.key")).unwrap(), before);
    assert_eq!(mode(&root.join("ca.key")), 0o600);
}

#[test]
fn secrets_and_hpke_keys() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for (what, file) in [("psk", "a.psk"), ("pms", "a.pms")] {
        let made = made(root, &[what, file]);
        assert_eq!(made["files"][0]["path"], file);
        let text = fs::read_to_string(root.join(file)).unwrap();
        assert_eq!(hex::decode(text.trim_end()).unwrap().len(), 32);
        assert_eq!(mode(&root.join(file)), 0o600);
    }
    let salt = made(root, &["salt"]);
    assert_eq!(
        hex::decode(salt["salt"].as_str().unwrap()).unwrap().len(),
        32
    );
    let printed = keygen(root, &["salt"]).stdout;
    assert_eq!(printed.len(), 65);
    for (kem, private, public) in [("x25519", 32, 32), ("p-256", 32, 65)] {
        made(root, &["hpke", kem, "--kem", kem]);
        let read = |file: &str| {
            let text = fs::read_to_string(root.join(file)).unwrap();
            hex::decode(text.trim_end()).unwrap().len()
        };
        assert_eq!((read(kem), read(&format!("{kem}.pub"))), (private, public));
        assert_eq!(mode(&root.join(kem)), 0o600);
    }
}

#[test]
fn mistakes_are_told() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let text = refused(root, &["certificate", ".", "--name", "a.example"], 1);
    assert!(
        text.contains("cannot read ./ca.pem") && text.contains("hint: `pdmgate keygen ca`"),
        "{text}"
    );
    for args in [
        &["certificate", "."][..],
        &["certificate", ".", "--name", "*.example"],
        &["certificate", ".", "--name", "ca"],
        &["certificate", ".", "--name", "a.example", "--days", "826"],
        &["ca", ".", "--days", "0"],
        &["hpke", "x", "--kem", "rsa"],
        &["dsa", "x"],
    ] {
        assert!(!refused(root, args, 2).is_empty());
    }
    let long = "n".repeat(65);
    assert!(refused(root, &["ca", ".", "--name", &long], 1).contains("1 to 64 characters"));
    made(root, &["ca", "one"]);
    made(root, &["ca", "two"]);
    fs::copy(root.join("two/ca.key"), root.join("one/ca.key")).unwrap();
    let text = refused(root, &["certificate", "one", "--name", "a.example"], 1);
    assert!(
        text.contains("private key of the authority's certificate"),
        "{text}"
    );
    assert_eq!(fs::read_dir(root).unwrap().count(), 2);
}

#[test]
fn a_primary_s_file_takes_what_was_made() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    made(root, &["ca", "."]);
    made(root, &["certificate", ".", "--name", "hq.example"]);
    made(root, &["psk", "hq.psk"]);
    let yaml = root.join("primary.yaml");
    let text = "primary:
  certificate: hq.example.pem
  key: hq.example.key
  authorities: ca.pem
  pairings:
  - name: branch
    peer: branch.example
    role: client
    connect: [\"branch.example:8250\"]
    psk: { id: hq-branch, file: hq.psk }
    entries: [{ prefix: \"2001:db8:1::/64\" }]
  secondaries: [{ name: gate1.example, entries: [\"2001:db8:1::/64\"] }]
";
    fs::write(&yaml, text).unwrap();
    let file = PrimaryFile::load(&yaml).unwrap_or_else(|error| panic!("{error}"));
    assert!(file.warnings.is_empty(), "{:?}", file.warnings);
    let psk = file.primary.pairings[0].psk.as_ref().unwrap();
    assert_eq!(psk.key.bytes().len(), 32);
    assert_eq!(file.primary.tls().key, root.join("hq.example.key"));
}

#[test]
fn certificates_that_cannot_be_used_end_with_78() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    made(root, &["ca", "."]);
    made(root, &["certificate", ".", "--name", "hq.example"]);
    made(root, &["certificate", ".", "--name", "other.example"]);
    let yaml = root.join("primary.yaml");
    let ends = |command: &str, lines: &str, code: i32| -> (String, String) {
        let text = format!(
            "primary:\n  certificate: hq.example.pem\n  authorities: ca.pem\n  listen: []\n  socket: null\n{lines}"
        );
        fs::write(&yaml, text).unwrap();
        let mut pdmgate = Command::new(env!("CARGO_BIN_EXE_pdmgate"));
        let output = pdmgate.arg(command).arg(&yaml).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{lines}: {output:?}");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let ours = "  key: hq.example.key\n";
    let other = "  key: other.example.key\n  store: { path: p.redb }\n";
    let etcd = |certificate: &str| {
        format!(
            "{ours}  store: {{ etcd: {{ endpoints: [\"https://[::1]:1\"], authorities: ca.pem, \
             certificate: {certificate}, key: other.example.key }} }}\n"
        )
    };
    for lines in [other, &etcd("hq.example.pem")] {
        for command in ["check", "primary"] {
            let (out, err) = ends(command, lines, 78);
            assert!(
                err.contains("other.example.key does not belong to"),
                "{err}"
            );
            assert_eq!(out, "");
        }
    }
    let (out, _) = ends("check", &etcd("none.pem"), 0);
    let words = format!(
        "primary.store.etcd: {} cannot be read",
        root.join("none.pem").display()
    );
    assert!(out.contains(&words), "{out}");

    fs::write(root.join("keys.log"), "").unwrap();
    fs::set_permissions(root.join("keys.log"), fs::Permissions::from_mode(0o644)).unwrap();
    let keylog = format!("{ours}  store: {{ path: p.redb }}\n  keylog: keys.log\n");
    let (_, err) = ends("primary", &keylog, 78);
    assert!(err.contains("mode 0644"), "{err}");
}
