//! Settings that are refused before anything is sent, and members that are not there. What real ones do is in `tests/store_etcd.rs`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::*;
use crate::registration::store::{Store, StoreConfig};

fn config(endpoints: &[&str]) -> EtcdConfig {
    EtcdConfig {
        endpoints: endpoints.iter().map(|e| (*e).to_owned()).collect(),
        prefix: "pdmgate/campus".to_owned(),
        tls: None,
        user: None,
        lease: Duration::from_secs(10),
    }
}

fn tls() -> EtcdTls {
    EtcdTls {
        authorities: PathBuf::from("/missing/authorities.pem"),
        identity: Some((
            PathBuf::from("/missing/certificate.pem"),
            PathBuf::from("/missing/key.pem"),
        )),
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let good = config(&["http://etcd:2379"]);
    assert!(check(&good).is_ok());
    let secure = EtcdConfig {
        tls: Some(tls()),
        ..config(&["https://one:2379", "https://two:2379"])
    };
    assert!(check(&secure).is_ok());
    let with = |change: fn(&mut EtcdConfig)| {
        let mut config = good.clone();
        change(&mut config);
        config
    };
    let bad = [
        config(&[]),
        config(&["etcd:2379"]),
        config(&["unix:///run/etcd"]),
        config(&["https://etcd:2379"]),
        with(|config| config.tls = Some(tls())),
        with(|config| config.prefix = String::new()),
        with(|config| config.prefix = "/".to_owned()),
        with(|config| config.lease = Duration::from_secs(1)),
        with(|config| config.lease = Duration::from_millis(2500)),
    ];
    for config in bad {
        let refused = check(&config);
        let endpoints = &config.endpoints;
        assert!(
            matches!(refused, Err(StoreError::Settings { .. })),
            "{endpoints:?}"
        );
    }
}

#[test]
fn plain_text_is_warned_of() {
    let plain = config(&["https://one:2379", "http://two:2379"]).warning();
    assert!(plain.unwrap().contains("http://two:2379"));
    assert!(config(&["https://one:2379"]).warning().is_none());
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    fs::write(&path, "key").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = read(&path, true);
    assert!(matches!(
        refused,
        Err(StoreError::Exposed { mode: 0o640, .. })
    ));
    assert_eq!(*read(&path, false).unwrap(), b"key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(*read(&path, true).unwrap(), b"key");
    let missing = read(&folder.path().join("missing"), true).err().unwrap();
    assert!(missing.to_string().contains("missing"), "{missing}");
}

#[tokio::test]
async fn members_that_are_not_there_are_told() {
    // A port that was free a moment ago; and an address that takes connections and answers nothing.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let endpoints = [
        format!("http://{address}"),
        format!("http://{}", silent.local_addr().unwrap()),
    ];
    let mut config = config(&[&endpoints[0], &endpoints[1]]);
    config.lease = Duration::from_secs(2);
    let asked = Instant::now();
    let refused = Store::open(&StoreConfig::Etcd(config)).await.err().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(4));
    let StoreError::Unavailable { after, why, .. } = &refused else {
        panic!("{refused}");
    };
    assert!(*after >= Duration::from_millis(1900));
    assert!(why.contains("refused"), "{refused}");
}
