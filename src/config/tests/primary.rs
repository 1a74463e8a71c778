//! `primary`: what is read, what hangs on what, and what is refused.

use std::time::Duration;

use super::*;

pub(super) const HEAD: &str =
    "primary:\n  certificate: hq.pem\n  key: hq.key\n  authorities: ca.pem\n";
pub(super) const SERVER: &str = "  - name: branch\n    peer: branch.example\n    role: server\n    entries: [ { prefix: '2001:db8:2::/64', group: web } ]\n";
pub(super) const CLIENT: &str = "  - name: hq\n    peer: hq.example\n    role: client\n    connect: [ 'hq.example:8250' ]\n    entries: [ { prefix: '2001:db8:1::/64' } ]\n";

/// A file with a Primary that has the lines `rest` and these pairings.
pub(super) fn with_primary(rest: &str, pairings: &str) -> String {
    with_ports(&format!("{HEAD}{rest}  pairings:\n{pairings}"))
}

/// A pairing as `SERVER` or `CLIENT`, with a line more.
pub(super) fn plus(pairing: &str, line: &str) -> String {
    format!("{pairing}    {line}\n")
}

pub(super) fn primary(text: &str) -> Primary {
    parse(text).primary.expect("a Primary")
}

#[test]
fn the_roles_have_defaults() {
    let config = parse(&with_ports(HEAD));
    assert!(config.secondary.is_none() && config.pairings.is_empty());
    let primary = config.primary.expect("a Primary");
    let listen: Vec<_> = primary.listen.iter().map(|at| at.to_string()).collect();
    assert_eq!(listen, ["[::]:8250"]);
    assert_eq!(*primary.certificate, Path::new("hq.pem"));
    assert!(primary.revocations.is_none() && primary.keylog.is_none());
    let PrimaryStore::Embedded(path) = &primary.store else {
        panic!("{:?}", primary.store);
    };
    assert_eq!(path, Path::new("/var/lib/pdmgate/primary.redb"));
    assert_eq!(
        primary.socket.as_deref(),
        Some(Path::new("/run/pdmgate/primary.sock"))
    );
    assert_eq!(primary.forget_after.get(), Duration::from_secs(300));
    assert!(primary.pairings.is_empty() && primary.secondaries.is_empty());
    assert!(
        parse(&with_ports("primary:\nsecondary:\n"))
            .primary
            .is_none()
    );

    let primary = self::primary(&with_primary("", &format!("{SERVER}{CLIENT}")));
    let [server, client] = primary.pairings.as_slice() else {
        panic!("two pairings");
    };
    assert_eq!(server.mode(), Mode::TrustedServers);
    assert_eq!(server.protection(), Protection::Sealed);
    assert_eq!(server.renew_after(), None);
    assert_eq!(client.renew_after(), Some(Duration::from_secs(86400)));
    assert_eq!(server.asymmetric_poll(), PairKeys::Ask);
    assert_eq!(client.asymmetric_poll(), PairKeys::Hold);
    assert_eq!(client.addresses()[0].to_string(), "hq.example:8250");
    assert!(server.addresses().is_empty() && server.psk.is_none());
    let suites: Vec<_> = server.suites.iter().map(|suite| **suite).collect();
    assert_eq!(suites.len(), 6);
    assert_eq!(suites[0], Suite::default());
    assert_eq!(suites[3].kem, Kem::P256);
}

#[test]
fn every_field_of_a_primary_is_read() {
    let text = "primary:
  listen: [ '[2001:db8::1]:8250', '192.0.2.1:1' ]
  certificate: hq.pem
  key: /keys/hq.key
  authorities: ca.pem
  revocations: crl.pem
  store:
    etcd:
      endpoints: [ 'https://10.0.0.1:2379', 'https://[2001:db8::2]:2379' ]
      prefix: lab/
      lease: 3s
      authorities: etcd-ca.pem
      certificate: etcd.pem
      key: etcd.key
  socket: null
  keylog: keys.log
  forget_after: 1s
  pairings:
  - name: branch
    peer: Branch.Example
    role: server
    mode: ibc
    protection: clear
    suites: [ { kem: p-256, aead: chacha20-poly1305 }, { } ]
    renew_after: 1s
    asymmetric_poll: hold
    entries: [ { prefix: '2001:db8:2::/64', group: web }, { prefix: '2001:db8:3::/64' } ]
    analyzers: [ analyst.example ]
  secondaries:
  - { name: gate1.example, entries: [ '2001:db8:2::/64', '2001:db8:3::/64' ] }
  - { name: gate2.example, entries: [ '2001:db8:2::/64' ] }
";
    let file = Path::new("/etc/pdmgate/primary.yaml");
    let file = PrimaryFile::parse(text, file).unwrap_or_else(|error| panic!("{error}"));
    let primary = &file.primary;
    assert_eq!(primary.listen[1].get().port(), 1);
    let tls = TlsFiles {
        certificate: "/etc/pdmgate/hq.pem".into(),
        key: "/keys/hq.key".into(),
        authorities: "/etc/pdmgate/ca.pem".into(),
        revocations: Some("/etc/pdmgate/crl.pem".into()),
    };
    assert_eq!(primary.tls(), tls);
    let PrimaryStore::Etcd(etcd) = &primary.store else {
        panic!("{:?}", primary.store);
    };
    assert_eq!(etcd.endpoints[1].as_str(), "https://[2001:db8::2]:2379");
    assert_eq!(etcd.prefix.as_str(), "lab/");
    assert_eq!(etcd.lease.get(), Duration::from_secs(3));
    assert_eq!(
        etcd.key.as_deref().map(PathBuf::as_path),
        Some(Path::new("/etc/pdmgate/etcd.key"))
    );
    assert!(primary.socket.is_none());
    assert_eq!(
        primary.keylog.as_deref(),
        Some(Path::new("/etc/pdmgate/keys.log"))
    );
    let pairing = &primary.pairings[0];
    assert_eq!(pairing.peer.as_str(), "branch.example");
    assert_eq!(pairing.mode(), Mode::Ibc);
    assert_eq!(pairing.protection(), Protection::Clear);
    assert_eq!(pairing.suites.len(), 2);
    assert_eq!(pairing.suites[0].aead, Aead::ChaCha20Poly1305);
    assert_eq!(pairing.renew_after(), Some(Duration::from_secs(1)));
    assert_eq!(pairing.asymmetric_poll(), PairKeys::Hold);
    let group = pairing.entries[0].group.as_deref();
    assert_eq!(group.map(Group::as_str), Some("web"));
    assert!(pairing.is_analyzer("analyst.example") && !pairing.is_analyzer("branch.example"));
    assert!(primary.pairing_with_client("branch.example").is_some());
    assert!(primary.pairing_with_client("hq.example").is_none());
    let gate = primary.secondary("gate2.example").expect("allowed");
    assert_eq!(gate.entries[0].to_string(), "2001:db8:2::/64");
    let warned = file.warnings.join("\n");
    assert!(warned.contains("WHO READS THAT FILE"), "{warned}");
    let summary = file.summary();
    for part in [
        "[2001:db8::1]:8250, 192.0.2.1:1",
        "https://10.0.0.1:2379, https://[2001:db8::2]:2379",
        "branch: server of branch.example, ibc, clear",
        "p-256 with chacha20-poly1305, x25519 with aes-128-gcm",
        "renewed after 1s",
        "analyzer analyst.example",
        "gate2.example: 2001:db8:2::/64",
        "KEYS ARE WRITTEN TO /etc/pdmgate/keys.log",
        "127.0.0.1:9465",
    ] {
        assert!(summary.contains(part), "{part}\n{summary}");
    }
}

#[test]
fn the_store_is_one_of_two() {
    let etcd = |rest: &str| format!("  store: {{ etcd: {{ {rest} }} }}\n");
    for (store, found, allowed) in [
        (
            "  store: { «file: /x }\n".to_owned(),
            "unknown field `file`",
            "path, etcd",
        ),
        (
            "  store: { path: /x, «etcd: { } }\n".to_owned(),
            "`etcd`",
            "one field",
        ),
        (etcd("endpoints: «[]"), "empty list", "at least one URL"),
        (
            etcd("endpoints: [ «'etcd:2379' ]"),
            "etcd:2379",
            "https://host:port",
        ),
        (
            etcd("endpoints: [ «'http://a/b:1' ]"),
            "http://a/b:1",
            "https://host:port",
        ),
        (
            etcd("endpoints: [ 'http://a:1', «'http://a:1' ]"),
            "second time",
            "each member once",
        ),
        (
            etcd("endpoints: [ 'http://a:1', «'https://a:1' ]"),
            "beside",
            "http for all",
        ),
        (
            etcd("endpoints: [ «'https://a:1' ]"),
            "without `authorities`",
            "PEM",
        ),
        (
            etcd("endpoints: [ 'http://a:1' ], authorities: «ca.pem"),
            "members by http",
            "https",
        ),
        (
            etcd("endpoints: [ 'https://a:1' ], authorities: a, key: «k"),
            "without `certificate`",
            "both",
        ),
        (
            etcd("endpoints: [ 'http://a:1' ], user: «me"),
            "without `password_file`",
            "both",
        ),
        (
            etcd("endpoints: [ 'http://a:1' ], prefix: «pdmgate"),
            "pdmgate",
            "end in /",
        ),
        (
            etcd("endpoints: [ 'http://a:1' ], lease: «999ms"),
            "999ms",
            "from 1s to 5m",
        ),
        (
            etcd("endpoints: [ 'http://a:1' ], user: me, password_file: «/none"),
            "No such file",
            "password",
        ),
    ] {
        refuse(&with_primary(&store, SERVER), found, allowed);
    }
    let text = with_primary(&etcd("endpoints: [ 'http://a:1' ]"), SERVER);
    let warned = parse(&text).warnings.join("\n");
    assert!(warned.contains("in the clear"), "{warned}");
    let text = with_primary(
        &etcd("endpoints: [ 'https://a:1' ], authorities: none/ca.pem"),
        SERVER,
    );
    let warned = parse(&text).warnings.join("\n");
    assert!(
        warned.contains("primary.store.etcd: none/ca.pem cannot be read"),
        "{warned}"
    );
}

#[test]
fn what_one_role_has_the_other_has_not() {
    let no_connect = CLIENT.replace("    connect: [ 'hq.example:8250' ]\n", "");
    for (pairing, found, allowed) in [
        (
            no_connect.replace("hq\n", "«hq\n"),
            "no `connect`",
            "host:port",
        ),
        (
            CLIENT.replace("[ 'hq.example:8250' ]", "«[]"),
            "an empty list",
            "at least one",
        ),
        (plus(CLIENT, "mode: «ibc"), "`mode`", "role: server"),
        (
            plus(CLIENT, "protection: «clear"),
            "`protection`",
            "role: server",
        ),
        (
            CLIENT.replace("' } ]", "', group: «web } ]"),
            "`group`",
            "role: server",
        ),
        (
            plus(SERVER, "connect: «[ 'a:1' ]"),
            "`connect`",
            "role: client",
        ),
        (
            SERVER
                .replace("'2001", "«'2001")
                .replace(", group: web", ""),
            "without `group`",
            "trusted-servers",
        ),
        (
            plus(CLIENT, "renew_after: «999ms"),
            "999ms",
            "from 1s to 30days",
        ),
        (
            plus(CLIENT, "asymmetric_poll: «perhaps"),
            "perhaps",
            "one of ask, hold",
        ),
        (
            CLIENT.replace("client", "«peer"),
            "peer",
            "one of client, server",
        ),
        (
            CLIENT
                .replace("hq.example:8250", "hq.example")
                .replace("'hq", "«'hq"),
            "hq.example",
            "host:port",
        ),
        (
            CLIENT.replace("hq.example\n", "«'*.example'\n"),
            "*.example",
            "no wildcard",
        ),
        (
            CLIENT.replace("hq.example\n", "«192.0.2.1\n"),
            "192.0.2.1",
            "no address",
        ),
        (
            plus(SERVER, "suites: «[]"),
            "empty list of suites",
            "at least one",
        ),
        (
            plus(SERVER, "suites: [ {}, «{ kem: x25519 } ]"),
            "x25519 with aes-128-gcm for the second",
            "each suite once",
        ),
        (
            plus(SERVER, "analyzers: [ a.example, «A.example ]"),
            "`a.example` for the second time",
            "each name once",
        ),
        (
            plus(SERVER, "suits: «[]").replace("suits: «", "«suits: "),
            "unknown field `suits`",
            "suites",
        ),
    ] {
        refuse(&with_primary("", &pairing), found, allowed);
    }
    for line in ["mode: ibc", "mode: no-protection", "protection: clear"] {
        let pairing = plus(&SERVER.replace(", group: web", ""), line);
        primary(&with_primary("", &pairing));
    }
}

#[test]
fn names_and_entries_stand_once() {
    for (text, found, allowed) in [
        (
            with_primary(
                "",
                &format!("{SERVER}{}", CLIENT.replace("name: hq", "name: «branch")),
            ),
            "`branch` for the second",
            "a name of its own",
        ),
        (
            with_primary(
                "",
                &format!(
                    "{SERVER}{}",
                    SERVER
                        .replace("name: branch", "name: b")
                        .replace("branch.ex", "«branch.ex")
                ),
            ),
            "`branch.example` for the second",
            "role: server",
        ),
        (
            with_primary(
                "",
                &SERVER.replace("} ]", "}, { prefix: «'2001:db8:2::/64', group: b } ]"),
            ),
            "second time",
            "each prefix once",
        ),
        (
            with_primary(
                "",
                &SERVER
                    .replace("[ {", "«[ {")
                    .replace(" { prefix: '2001:db8:2::/64', group: web } ", ""),
            ),
            "0 entries",
            "1 to 8192",
        ),
        (
            with_primary("  listen: [ '[::]:1', «'[::]:1' ]\n", SERVER),
            "second time",
            "each address once",
        ),
        (
            with_primary("  listen: «[]\n", SERVER),
            "the peer of `branch` connects",
            "at least one",
        ),
        (
            with_primary("  listen: «[]\n", &plus(CLIENT, "analyzers: [ a.example ]")),
            "the analyzer a.example",
            "at least one",
        ),
        (
            with_primary("  forget_after: «0s\n", SERVER),
            "0s",
            "from 1s to 1day",
        ),
    ] {
        refuse(&text, found, allowed);
    }
    // The same peer may be a client of ours and a server.
    let both = CLIENT.replace("hq.example\n", "branch.example\n");
    primary(&with_primary("", &format!("{SERVER}{both}")));

    let secondaries =
        |list: &str| format!("{}  secondaries: [ {list} ]\n", with_primary("", SERVER));
    for (list, found, allowed) in [
        (
            "{ name: a.example, entries: [ «'2001:db8:2::/65' ] }",
            "stands in no pairing",
            "same length",
        ),
        (
            "{ name: a.example, entries: «[] }",
            "0 entries",
            "1 to 4096",
        ),
        (
            "{ name: a.example, entries: [ '2001:db8:2::/64', «'2001:db8:2::/64' ] }",
            "second time",
            "each prefix once",
        ),
        (
            "{ name: a.example, entries: [ '2001:db8:2::/64' ] }, { name: «a.example, entries: [ '2001:db8:2::/64' ] }",
            "second time",
            "each Secondary once",
        ),
    ] {
        refuse(&secondaries(list), found, allowed);
    }
    let warned = parse(&with_primary("", SERVER)).warnings.join("\n");
    assert!(
        warned.contains("no Secondary serves 2001:db8:2::/64 of the pairing `branch`"),
        "{warned}"
    );
    let served = parse(&secondaries(
        "{ name: a.example, entries: [ '2001:db8:2::/64' ] }",
    ));
    assert!(
        !served.warnings.join("\n").contains("no Secondary"),
        "{:?}",
        served.warnings
    );
}

#[test]
fn static_and_registered_pairings_share_names_and_room() {
    let fixed = |n: usize| format!("- name: p{n}\n  mode: no-protection\n{LISTS}");
    let text = |fixed: &str, registered: &str| {
        format!("{}pairings:\n{fixed}", with_primary("", registered))
    };
    let same = text(&fixed(0), &SERVER.replace("name: branch", "name: «p0"));
    refuse(
        &same,
        "a static pairing of line 14 too",
        "a name of its own",
    );
    let many: String = (0..256).map(fixed).collect();
    let full = text(&many, &SERVER.replace("name: branch", "name: «branch"));
    refuse(
        &full,
        "257 pairings, the static ones included",
        "at most 256",
    );
    let ibc = with_pairing(&format!("- name: a\n  mode: «ibc\n{LISTS}"));
    refuse(&ibc, "ibc", "ibc needs registration");
}
