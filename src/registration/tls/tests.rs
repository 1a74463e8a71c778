mod authority;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use authority::{Holder, Lab};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(test)
}

type Stream = TlsStream<DuplexStream>;

/// A handshake between two identities, and one byte each way, so that both ends know how it went.
async fn meet(
    client: &Identity,
    server: &Identity,
    name: &str,
) -> (Result<Stream, String>, Result<Stream, String>) {
    let (near, far) = duplex(1 << 16);
    let connect = async {
        let mut stream = client
            .connect(near, name)
            .await
            .map_err(|error| error.to_string())?;
        stream.write_all(b"c").await.map_err(|e| e.to_string())?;
        stream.flush().await.map_err(|e| e.to_string())?;
        stream.read_u8().await.map_err(|e| e.to_string())?;
        Ok(stream)
    };
    let accept = async {
        let mut stream = server
            .accept(far)
            .await
            .map_err(|error| error.to_string())?;
        stream.write_all(b"s").await.map_err(|e| e.to_string())?;
        stream.flush().await.map_err(|e| e.to_string())?;
        stream.read_u8().await.map_err(|e| e.to_string())?;
        Ok(stream)
    };
    tokio::join!(connect, accept)
}

fn assert_fails<T>(end: Result<T, String>, words: &str) {
    match end {
        Ok(_) => panic!("expected a failure of {words}"),
        Err(error) => assert!(error.contains(words), "{words}: {error}"),
    }
}

#[test]
fn two_ends_that_trust_each_other() {
    let lab = Lab::new();
    let (client, server) = (lab.identity("pc.example"), lab.identity("ps.example"));
    run(async {
        let (near, far) = meet(&client, &server, "PS.Example").await;
        let (near, far) = (near.unwrap(), far.unwrap());
        assert_eq!(peer_names(&near).unwrap(), server.names());
        assert_eq!(peer_names(&far).unwrap(), client.names());
        assert_eq!(peer_expires(&near).unwrap(), server.expires());
        assert_eq!(peer_expires(&far).unwrap(), client.expires());
        for stream in [&near, &far] {
            let (_, session) = stream.get_ref();
            assert_eq!(session.alpn_protocol(), Some(ALPN));
            assert_eq!(
                session.protocol_version(),
                Some(rustls::ProtocolVersion::TLSv1_3)
            );
        }
    });
}

#[test]
fn nothing_is_resumed() {
    let lab = Lab::new();
    let (client, server) = (lab.identity("pc.example"), lab.identity("ps.example"));
    run(async {
        for _ in 0..3 {
            let (near, far) = meet(&client, &server, "ps.example").await;
            for stream in [near.unwrap(), far.unwrap()] {
                let (_, session) = stream.get_ref();
                let kind = session.handshake_kind();
                assert_eq!(kind, Some(rustls::HandshakeKind::Full));
            }
        }
    });
}

#[test]
fn names_are_compared_letter_by_letter() {
    let lab = Lab::new();
    let client = lab.identity("pc.example");
    let server = lab.load(
        &lab.authority
            .issue(&["ps.example", "*.wild.example", "Other.Example"]),
    );
    let names: Vec<&str> = server.names().iter().map(PeerName::as_str).collect();
    assert_eq!(names, ["other.example", "ps.example"]);
    run(async {
        for good in ["ps.example", "other.example"] {
            let (near, far) = meet(&client, &server, good).await;
            assert!(near.is_ok() && far.is_ok(), "{good}");
        }
        let (near, _) = meet(&client, &server, "third.example").await;
        assert_fails(near, "handshake failed");
        // webpki would take the wildcard.
        let (near, _) = meet(&client, &server, "any.wild.example").await;
        assert_fails(
            near,
            "expected the peer any.wild.example, found other.example, ps.example",
        );
        for no_name in ["", "*.wild.example", "2001:db8::1", "ps.example."] {
            let (near, _) = meet(&client, &server, no_name).await;
            assert_fails(near, "expected a DNS name");
        }
    });
}

#[test]
fn another_authority() {
    let (lab, other) = (Lab::new(), Lab::new());
    let ours = lab.identity("pc.example");
    let theirs = other.identity("ps.example");
    run(async {
        let (near, far) = meet(&ours, &theirs, "ps.example").await;
        assert_fails(near, "UnknownIssuer");
        assert_fails(far, "handshake");
    });
    // A server that is trusted, but does not trust.
    let trusted = lab.authority.issue(&["ps.example"]);
    let mut files = lab.files(&trusted);
    files.authorities = other.write("authorities.pem", &other.authority.pem());
    let theirs = Identity::load(&files).unwrap();
    run(async {
        let (near, far) = meet(&ours, &theirs, "ps.example").await;
        assert_fails(far, "UnknownIssuer");
        assert_fails(near, "UnknownCA");
    });
}

#[test]
fn certificates_out_of_their_time() {
    let lab = Lab::new();
    let good = lab.identity("pc.example");
    let now = SystemTime::now();
    for (begins, expires, words) in [
        (now - 20 * DAY, now - DAY, "certificate expired"),
        (now + DAY, now + 20 * DAY, "not valid yet"),
    ] {
        let bad = lab.load(&lab.authority.issue_for(&["pc.example"], begins, expires));
        run(async {
            let (near, _) = meet(&good, &bad, "pc.example").await;
            assert_fails(near, words);
            let (_, far) = meet(&bad, &good, "pc.example").await;
            assert_fails(far, words);
        });
    }
}

#[test]
fn warnings_come_in_time() {
    let lab = Lab::new();
    let (begins, expires) = (
        SystemTime::UNIX_EPOCH + 20_000 * DAY,
        SystemTime::UNIX_EPOCH + 20_100 * DAY,
    );
    let identity = lab.load(&lab.authority.issue_for(&["a.example"], begins, expires));
    assert_eq!(identity.expires(), expires);
    let warnings = |now| identity.warnings(now);
    let second = Duration::from_secs(1);
    assert!(matches!(
        warnings(begins - second)[..],
        [Warning::NotYet { .. }]
    ));
    assert_eq!(warnings(begins), []);
    assert_eq!(warnings(expires - EXPIRES_SOON), []);
    let soon = warnings(expires - 3 * DAY - second);
    let path = lab.files_path("certificate.pem");
    assert_eq!(
        soon,
        [Warning::ExpiresSoon {
            path: path.clone(),
            expires,
            left: 3 * DAY
        }]
    );
    assert_eq!(
        soon[0].to_string(),
        format!(
            "the certificate {} expires in 3days, at 2025-01-12T00:00:00Z",
            path.display()
        )
    );
    assert!(matches!(
        warnings(expires + second)[..],
        [Warning::Expired { .. }]
    ));
}

#[test]
fn revoked_certificates() {
    let lab = Lab::new();
    let (client, server) = (
        lab.authority.issue(&["pc.example"]),
        lab.authority.issue(&["ps.example"]),
    );
    let honest = lab.identity("third.example");
    let due = SystemTime::now() - DAY;
    let list = lab.authority.revoke(&[&client, &server], due);
    let mut files = lab.files(&lab.authority.issue(&["fourth.example"]));
    files.revocations = Some(lab.write("revocations.pem", &list));
    let strict = Identity::load(&files).unwrap();
    let (client, server) = (lab.load(&client), lab.load(&server));
    run(async {
        let (_, far) = meet(&client, &strict, "fourth.example").await;
        assert_fails(far, "Revoked");
        let (near, _) = meet(&strict, &server, "ps.example").await;
        assert_fails(near, "Revoked");
        let (near, far) = meet(&honest, &strict, "fourth.example").await;
        assert!(near.is_ok() && far.is_ok());
    });
    // The list is old, still obeyed, and somebody is told.
    let warnings = strict.warnings(SystemTime::now());
    assert!(matches!(warnings[..], [Warning::OldRevocations { .. }]));
    let early = strict.warnings(due - DAY);
    assert!(!early.contains(&warnings[0]), "{early:?}");
}

#[test]
fn an_authority_without_a_revocation_list_has_revoked_nothing() {
    let (lab, other) = (Lab::new(), Lab::new());
    let list = lab.authority.revoke(&[], SystemTime::now() + DAY);
    let both = [lab.authority.pem(), other.authority.pem()].concat();
    let mut files = lab.files(&lab.authority.issue(&["ps.example"]));
    files.authorities = lab.write("both.pem", &both);
    files.revocations = Some(lab.write("revocations.pem", &list));
    let server = Identity::load(&files).unwrap();
    let mut files = other.files(&other.authority.issue(&["pc.example"]));
    files.authorities = other.write("both.pem", &both);
    let client = Identity::load(&files).unwrap();
    run(async {
        let (near, far) = meet(&client, &server, "ps.example").await;
        assert!(near.is_ok() && far.is_ok());
    });
}

#[test]
fn a_chain_of_two() {
    let lab = Lab::new();
    let between = lab.authority.subordinate();
    let leaf = between.issue(&["ps.example"]);
    let mut chained = leaf.clone();
    chained.certificate += &between.pem();
    let client = lab.identity("pc.example");
    run(async {
        let server = lab.load(&chained);
        let (near, far) = meet(&client, &server, "ps.example").await;
        assert!(near.is_ok() && far.is_ok());
        let server = lab.load(&leaf);
        let (near, _) = meet(&client, &server, "ps.example").await;
        assert_fails(near, "UnknownIssuer");
    });
}

/// A client of the test's own making.
fn other_client(
    lab: &Lab,
    holder: Option<&Holder>,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(lab.authority.der()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match holder {
        Some(holder) => builder
            .with_client_auth_cert(holder.chain(), holder.private_key())
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn accept_from(server: &Identity, client: TlsConnector) -> Result<Stream, String> {
    let (near, far) = duplex(1 << 16);
    let connect = async {
        let name = ServerName::try_from("ps.example").unwrap();
        if let Ok(mut stream) = client.connect(name, near).await {
            let _ = stream.read_u8().await;
        }
    };
    let accept = async {
        let stream = server.accept(far).await.map_err(|error| error.to_string());
        stream.map(drop)
    };
    let ((), accepted) = tokio::join!(connect, accept);
    accepted.map(|()| panic!("accepted"))
}

#[test]
fn clients_that_are_refused() {
    let lab = Lab::new();
    let server = lab.identity("ps.example");
    let good = lab.authority.issue(&["pc.example"]);
    let tls13: &[&rustls::SupportedProtocolVersion] = &[&TLS13];
    run(async {
        let client = other_client(&lab, None, tls13, &[ALPN]);
        assert_fails(
            accept_from(&server, client).await,
            "peer sent no certificates",
        );
        let client = other_client(&lab, Some(&good), tls13, &[b"h2", b"pdmv2-reg/2"]);
        assert_fails(accept_from(&server, client).await, "any known protocol");
        let client = other_client(&lab, Some(&good), tls13, &[]);
        assert_fails(
            accept_from(&server, client).await,
            "expected the application protocol pdmv2-reg/1, found none",
        );
        let tls12 = &[&rustls::version::TLS12];
        let client = other_client(&lab, Some(&good), tls12, &[ALPN]);
        assert_fails(accept_from(&server, client).await, "incompatible");
    });
}

#[test]
fn servers_that_are_refused() {
    let lab = Lab::new();
    let client = lab.identity("pc.example");
    let good = lab.authority.issue(&["ps.example"]);
    for (alpn, version, words) in [
        (&[][..], &TLS13, "expected the application protocol"),
        (&[&b"h2"[..]], &TLS13, "handshake"),
        (&[ALPN], &rustls::version::TLS12, "handshake"),
    ] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(good.chain(), good.private_key())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let server = TlsAcceptor::from(Arc::new(config));
        run(async {
            let (near, far) = duplex(1 << 16);
            let (near, _) = tokio::join!(client.connect(near, "ps.example"), server.accept(far));
            assert_fails(near.map_err(|error| error.to_string()), words);
        });
    }
}

#[test]
fn a_certificate_for_one_end_only() {
    let lab = Lab::new();
    let only_server = lab.load(&lab.authority.issue_server_only(&["ps.example"]));
    let other = lab.identity("pc.example");
    run(async {
        let (near, far) = meet(&other, &only_server, "ps.example").await;
        assert!(near.is_ok() && far.is_ok());
        let (_, far) = meet(&only_server, &other, "pc.example").await;
        assert_fails(far, "key usage");
    });
}

#[test]
fn bytes_that_are_no_tls() {
    let lab = Lab::new();
    let server = lab.identity("ps.example");
    run(async {
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], b""] {
            let (mut near, far) = duplex(1 << 16);
            near.write_all(bytes).await.unwrap();
            drop(near);
            assert!(matches!(
                server.accept(far).await,
                Err(PeerError::Handshake(_))
            ));
        }
    });
}

#[test]
fn a_handshake_that_does_not_end() {
    let lab = Lab::new();
    let server = lab.identity("ps.example");
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(async {
            let (_near, far) = duplex(64);
            let started = std::time::Instant::now();
            let error = in_time_of(Duration::from_millis(50), server.acceptor.accept(far))
                .await
                .unwrap_err();
            assert_eq!(error.reason(), "late");
            assert!(started.elapsed() < Duration::from_secs(5));
        });
}

fn load_error(files: &TlsFiles, words: &str) {
    let error = Identity::load(files).unwrap_err().to_string();
    assert!(error.contains(words), "{words}: {error}");
}

#[test]
fn files_that_cannot_be_used() {
    let lab = Lab::new();
    let good = lab.authority.issue(&["ps.example"]);
    let files = || lab.files(&good);
    Identity::load(&files()).unwrap();

    let missing = lab.files_path("missing.pem");
    let with = |change: &dyn Fn(&mut TlsFiles)| {
        let mut files = files();
        change(&mut files);
        files
    };
    for missing_one in [
        with(&|files| files.certificate.clone_from(&missing)),
        with(&|files| files.key.clone_from(&missing)),
        with(&|files| files.authorities.clone_from(&missing)),
        with(&|files| files.revocations = Some(missing.clone())),
    ] {
        load_error(&missing_one, &format!("cannot read {}", missing.display()));
    }

    let empty = lab.write("empty.pem", "nothing in here\n");
    for (file, words) in [
        (
            with(&|files| files.certificate.clone_from(&empty)),
            "a certificate",
        ),
        (with(&|files| files.key.clone_from(&empty)), "a private key"),
        (
            with(&|files| files.authorities.clone_from(&empty)),
            "an authority's certificate",
        ),
        (
            with(&|files| files.revocations = Some(empty.clone())),
            "a revocation list",
        ),
    ] {
        load_error(
            &file,
            &format!("expected {words} in {}, found none", empty.display()),
        );
    }

    let broken = lab.write(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    load_error(
        &with(&|files| files.certificate.clone_from(&broken)),
        "cannot use the certificate",
    );
    load_error(
        &with(&|files| files.authorities.clone_from(&broken)),
        "cannot use authority 1 of",
    );
    let cut = lab.write("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    load_error(
        &with(&|files| files.authorities.clone_from(&cut)),
        "a PEM section without an end",
    );
    let list = lab.write(
        "list.pem",
        "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
    );
    load_error(
        &with(&|files| files.revocations = Some(list.clone())),
        "cannot use the revocation list",
    );

    let nameless = lab.authority.issue(&["*.example"]);
    load_error(&lab.files(&nameless), "dNSName without wildcard");
}

#[test]
fn keys_that_cannot_be_used() {
    let lab = Lab::new();
    let good = lab.authority.issue(&["ps.example"]);
    let key = lab.files_path("key.pem");
    let files = || lab.files(&good);

    for mode in [0o644, 0o604, 0o602] {
        let files = files();
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        load_error(&files, &format!("open to everyone (mode {mode:04o})"));
    }
    for mode in [0o600, 0o400, 0o640] {
        let files = files();
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        Identity::load(&files).unwrap();
    }

    let with = |text: &str| {
        let mut files = files();
        files.key = lab.write("other-key.pem", text);
        files
    };
    let encrypted = good.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    load_error(&with(&encrypted), "found an encrypted one");
    let old = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    load_error(&with(old), "found an encrypted one");
    load_error(&with(&good.key.repeat(2)), "expected one private key");
    let other = lab.authority.issue(&["ps.example"]);
    load_error(
        &with(&other.key),
        "does not belong to the first certificate",
    );
    let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    load_error(&with(nonsense), "Ed25519 or RSA private key in");
    // Nothing of the key in any message.
    let spoiled = good.key.replace('\n', "!\n");
    let error = Identity::load(&with(&spoiled)).unwrap_err().to_string();
    let line = good.key.lines().nth(1).unwrap();
    assert!(!error.contains(&line[..16]), "{error}");
}

#[test]
fn debug_shows_no_key() {
    let lab = Lab::new();
    let shown = format!("{:?}", lab.identity("ps.example"));
    assert!(shown.starts_with("Identity {"), "{shown}");
    assert!(shown.len() < 300, "{shown}");
}
