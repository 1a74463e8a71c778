//! Secrets are there where they are needed, and never show.

use std::{fs, os::unix::fs::PermissionsExt};

use super::{
    primary::{HEAD, SERVER, plus, primary, with_primary},
    *,
};

#[test]
fn secrets_are_needed_where_something_is_sealed() {
    refuse(
        &with_pairing(&format!("- name: «a\n  pms: PMS\n{LISTS}")),
        "no `salt`",
        "64 hexadecimal digits",
    );
    refuse(
        &with_pairing(&format!("- name: «a\n  salt: SALT\n{LISTS}")),
        "no `pms` and no `pms_file`",
        "64 hexadecimal digits",
    );
    for rest in ["  protection: clear\n", "  mode: no-protection\n"] {
        assert!(
            !parse(&with_pairing(&format!("- name: a\n{rest}{LISTS}"))).pairings[0].is_sealed()
        );
    }
}

#[test]
fn secrets_never_show() {
    // Too short, too long, not hexadecimal, all digits (a number to YAML), in quotes, over lines, on the line of another fault.
    let short = &PMS[..62];
    for line in [
        format!("pms: «{short}"),
        format!("pms: «{PMS}00"),
        format!("pms: «{}", PMS.replace('f', "g")),
        format!("pms: «{}", "1".repeat(63)),
        format!("pms: «\"{short}\""),
        format!("salt: «{short}"),
    ] {
        let text = with_pairing(&format!("- name: a\n  {line}\n{LISTS}"));
        let fault = refuse(&text, "characters", "64 hexadecimal digits");
        assert_eq!(fault.excerpt, None);
        let shown = format!("{fault} {fault:?}");
        assert!(
            !shown.contains("fa4e0") && !shown.contains("11111") && !shown.contains("5a170"),
            "{shown}"
        );
        assert!(shown.contains("may hold a secret"));
    }
    for text in [
        format!("- name: a\n  suite: {PMS}\n{LISTS}"),
        format!("- name: a\n  {PMS}: x\n{LISTS}"),
        format!("- name: a\n  pms: [ {PMS} ]\n{LISTS}"),
        format!("- name: a\n  pms: |\n    {short}\n    00\n{LISTS}"),
        format!("- {{ name: a, mode: {PMS}, salt: {SALT} }}\n"),
        format!("- name: a\n  pms: {PMS}\n  pms: {PMS}\n{LISTS}"),
        format!("- name: a\n  pms: '{PMS}\n"),
    ] {
        let all = faults(&with_pairing(&text));
        let shown = format!("{} {all:?}", all[0]);
        assert!(
            !shown.contains("fa4e00") && !shown.contains("5a1700"),
            "{shown}"
        );
    }
    let config = parse(&with_pairing(&format!(
        "- name: a\n  salt: SALT\n  pms: PMS\n{LISTS}"
    )));
    let shown = format!("{config:?} {}", config.summary());
    let bytes = format!(
        "{:?}",
        config.pairings[0].secrets().expect("secrets").1.bytes()
    );
    assert!(!shown.contains("fa4e") && !shown.contains("5a17") && !shown.contains(&bytes));
    assert!(shown.contains("(hidden)"));
}

#[test]
fn pms_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let yaml = folder.path().join("gate.yaml");
    let secret = folder.path().join("campus.pms");
    let text = with_pairing(&format!(
        "- name: a\n  salt: SALT\n  pms_file: campus.pms\n{LISTS}"
    ));
    fs::write(&yaml, &text).expect("written");
    let write = |bytes: &[u8], mode: u32| {
        fs::write(&secret, bytes).expect("written");
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).expect("changed");
    };
    let refused = |found: &str| {
        let error = Config::load(&yaml).expect_err("refused");
        let shown = error.to_string();
        assert!(
            shown.contains(&format!("{}:7:13: found ", yaml.display())),
            "{shown}"
        );
        assert!(
            shown.contains(found) && shown.contains("chmod o-rwx"),
            "{shown}"
        );
        assert!(!shown.contains("fa4e"), "{shown}");
    };
    refused("No such file");
    write(PMS.as_bytes(), 0o644);
    refused("mode 0644, open to everyone");
    write(&PMS.as_bytes()[..63], 0o600);
    refused("63 bytes that are not a secret");
    write(&[7; 33], 0o600);
    refused("33 bytes");
    write(format!("{PMS}\n").as_bytes(), 0o640);
    let config = Config::load(&yaml).expect("digits");
    let pms = |config: &Config| *config.pairings[0].secrets().expect("secrets").1.bytes();
    assert_eq!(hex::encode(pms(&config)), PMS);
    assert!(config.warnings.is_empty());
    write(&[7; 32], 0o600);
    assert_eq!(pms(&Config::load(&yaml).expect("raw bytes")), [7; 32]);
    let both = with_pairing(&format!(
        "- name: a\n  salt: SALT\n  pms_file: x\n  pms: «PMS\n{LISTS}"
    ));
    refuse(&both, "`pms` beside `pms_file`", "one of the two");
}

#[test]
fn a_file_that_everyone_reads_is_warned_about() {
    let folder = tempfile::tempdir().expect("a folder");
    let yaml = folder.path().join("gate.yaml");
    fs::write(
        &yaml,
        with_pairing(&format!("- name: a\n  salt: SALT\n  pms: PMS\n{LISTS}")),
    )
    .expect("written");
    for (mode, warnings) in [(0o644, 1), (0o640, 0)] {
        fs::set_permissions(&yaml, fs::Permissions::from_mode(mode)).expect("changed");
        assert_eq!(Config::load(&yaml).expect("valid").warnings.len(), warnings);
    }
    let missing = Config::load(&folder.path().join("none.yaml")).expect_err("missing");
    assert!(
        missing.to_string().contains("none.yaml: No such file"),
        "{missing}"
    );
}

#[test]
fn pre_shared_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.psk");
    let psk = format!("psk: {{ id: ours, file: «{} }}", file.display());
    let text = with_primary("", &plus(SERVER, &psk));
    let write = |bytes: &[u8], mode: u32| {
        fs::write(&file, bytes).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("changed");
    };
    let allowed = "32 to 1024 random bytes";
    refuse(&text, "No such file", allowed);
    write(PMS.as_bytes(), 0o604);
    refuse(&text, "mode 0604, open to everyone", allowed);
    for (bytes, found) in [
        (&PMS.as_bytes()[..62], "31 bytes"),
        (&PMS.as_bytes()[..63], "an odd number of digits"),
        (
            b"a passphrase that is no random text",
            "text that is not hexadecimal",
        ),
        (&[7; 31], "31 bytes"),
        (&[200; 1025], "1025 bytes"),
        (b"", "0 bytes"),
    ] {
        write(bytes, 0o600);
        let fault = refuse(&text, found, allowed);
        assert_eq!(fault.excerpt, None);
    }
    let key = || {
        let primary = primary(&text.replace('«', ""));
        let psk = primary.pairings[0].psk.as_ref().expect("a key");
        assert_eq!(psk.id.as_str(), "ours");
        let shown = format!("{primary:?}");
        assert!(
            !shown.contains("fa4e") && shown.contains("(hidden)"),
            "{shown}"
        );
        psk.key.bytes().to_vec()
    };
    write(format!("{PMS}\n").as_bytes(), 0o640);
    assert_eq!(hex::encode(key()), PMS);
    write(&[200; 33], 0o600);
    assert_eq!(key(), [200; 33]);
    write(&[b'a'; 2048], 0o600);
    assert_eq!(key(), [0xaa; 1024]);
}

#[test]
fn keys_and_passwords_are_nobody_else_s() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "pass word\n").expect("written");
    let mode = |mode| {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("changed");
    };
    mode(0o644);
    let shown = file.display();
    let key = with_ports(&HEAD.replace("hq.key", &format!("«{shown}")));
    refuse(&key, "mode 0644, open to everyone", "chmod o-rwx");
    let remote = with_ports(&format!(
        "secondary: {{ primary: [ 'a.example:1' ], certificate: c, key: «{shown}, authorities: a, entries: [ '::/0' ] }}\n"
    ));
    refuse(&remote, "mode 0644, open to everyone", "chmod o-rwx");
    let etcd = format!(
        "  store: {{ etcd: {{ endpoints: [ 'http://a:1' ], user: me, password_file: «{shown} }} }}\n"
    );
    let etcd = with_primary(&etcd, SERVER);
    refuse(&etcd, "mode 0644, open to everyone", "chmod o-rwx");
    mode(0o600);
    let PrimaryStore::Etcd(store) = primary(&etcd.replace('«', "")).store else {
        panic!("etcd");
    };
    assert_eq!(store.password.bytes(), b"pass word");
    fs::write(&file, "two\nlines\n").expect("written");
    refuse(&etcd, "no password alone on one line", "1 to 1024 bytes");
}
