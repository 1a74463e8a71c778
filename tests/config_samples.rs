//! Every sample in `config/` loads, and becomes a snapshot.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use pdmgate::{
    config::{
        Config, ConfigFile, Device, Hugepages, Mode, PairingRole, Prefix, Primary, Protection,
        Secondary, SecondaryVia,
    },
    snapshot::{Inputs, Snapshot, State},
};

fn sample(name: &str) -> Config {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(name);
    Config::load(&path).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_sample_loads_and_is_known_to_have_no_real_secret() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut samples = 0;
    for file in fs::read_dir(folder).expect("the samples") {
        let name = file.expect("a file").file_name();
        let name = name.to_str().expect("text");
        if !name.ends_with(".yaml") {
            continue;
        }
        samples += 1;
        let config = sample(name);
        let sealed = config.pairings.iter().filter(|p| p.is_sealed()).count();
        assert!(sealed > 0, "{name}");
        let fake = |warning: &&String| warning.contains("is no secret");
        assert_eq!(
            config.warnings.iter().filter(fake).count(),
            sealed,
            "{name}"
        );
        let summary = config.summary();
        for pairing in &config.pairings {
            assert!(summary.contains(pairing.name.as_str()), "{summary}");
        }
        assert!(
            !summary.contains("fa4e") && !summary.contains("5a17"),
            "{summary}"
        );
        let inputs = Inputs {
            previous: None,
            serial: 1,
            tsc_hz: 2_600_000_000,
            new_era: false,
        };
        let snapshot = Snapshot::build(&config, &[], &mut State::in_memory(), inputs);
        let snapshot = snapshot.expect("a snapshot");
        assert_eq!(snapshot.pairings.len(), config.pairings.len(), "{name}");
    }
    assert!(samples >= 4);
}

#[test]
fn pci_pair() {
    let config = sample("pci-pair.yaml");
    let inside = Device::Pci("0000:03:00.0".to_owned());
    assert_eq!(*config.ports.inside.device, inside);
    assert_eq!(config.ports.queues.get(), 4);
    assert_eq!(config.workers.cores.as_ref().expect("cores").len(), 4);
    assert_eq!(config.eal.hugepages, Hugepages::Require);
    assert_eq!(config.pairings[1].mode, Mode::NoProtection);
}

#[test]
fn af_xdp() {
    let config = sample("af-xdp.yaml");
    assert!(config.ports.outside.device.as_str().contains("net_af_xdp1"));
    assert!(config.workers.cores.is_none());
    assert_eq!(config.pairings[0].mode, Mode::AsymmetricPoll);
}

#[test]
fn af_packet() {
    let config = sample("af-packet.yaml");
    assert!(config.ports.inside.device.as_str().contains("iface=in0"));
    assert_eq!(config.eal.hugepages, Hugepages::Off);
    assert!(config.telemetry.prometheus.is_none());
}

#[test]
fn lab_pcap() {
    let config = sample("lab-pcap.yaml");
    assert!(config.ports.inside.device.as_str().contains("rx_pcap="));
    assert_eq!(config.ports.queues.get(), 1);
    assert_eq!(config.eal.hugepages, Hugepages::Off);
    assert_eq!(config.pairings[1].protection, Protection::Clear);
}

/// The files of a topology, by their names without `.yaml`.
fn topology(name: &str) -> BTreeMap<String, ConfigFile> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("config/registered")
        .join(name);
    let files = fs::read_dir(folder).expect("the samples").map(|file| {
        let path = file.expect("a file").path();
        let file = ConfigFile::load(&path).unwrap_or_else(|error| panic!("{error}"));
        let name = path.file_stem().and_then(|name| name.to_str());
        (name.expect("text").to_owned(), file)
    });
    files.collect()
}

fn primary_of(file: &ConfigFile) -> Option<&Primary> {
    match file {
        ConfigFile::Appliance(config) => config.primary.as_ref(),
        ConfigFile::Primary(file) => Some(&file.primary),
    }
}

fn secondary_of(file: &ConfigFile) -> Option<&Secondary> {
    match file {
        ConfigFile::Appliance(config) => config.secondary.as_ref(),
        ConfigFile::Primary(_) => None,
    }
}

/// The name that a sample's certificate is for: that of its file.
fn certified(certificate: &Path) -> &str {
    let name = certificate.file_stem().and_then(|name| name.to_str());
    name.expect("text")
}

/// Checks that a topology's files fit each other: whoever connects somewhere is expected there, for what it wants.
fn fits(name: &str) -> BTreeMap<String, ConfigFile> {
    let files = topology(name);
    let primaries: Vec<_> = files.values().filter_map(primary_of).collect();
    let listens_at = |address: &str| {
        let listening = primaries
            .iter()
            .find(|primary| primary.listen.iter().any(|at| at.to_string() == address));
        *listening.unwrap_or_else(|| panic!("{name}: nobody listens at {address}"))
    };
    let mut served: Vec<Prefix> = Vec::new();
    for file in files.values() {
        let secondary = secondary_of(file);
        served.extend(secondary.iter().flat_map(|secondary| &secondary.entries));
        if let Some(Secondary {
            via:
                SecondaryVia::Remote {
                    addresses,
                    primary_name,
                    tls,
                },
            entries,
        }) = secondary
        {
            let primary = listens_at(&addresses[0].to_string());
            assert_eq!(primary_name.as_str(), certified(&primary.certificate));
            let me = primary
                .secondary(certified(&tls.certificate))
                .expect("allowed");
            let allowed: Vec<_> = me.entries.iter().map(|entry| **entry).collect();
            assert_eq!(&allowed, entries);
        }
    }
    let mut pairings = 0;
    for client in &primaries {
        for pairing in &client.pairings {
            assert!(
                pairing
                    .entries
                    .iter()
                    .all(|entry| served.contains(&entry.prefix)),
                "{name}"
            );
            if *pairing.role == PairingRole::Client {
                let server = listens_at(&pairing.addresses()[0].to_string());
                assert_eq!(pairing.peer.as_str(), certified(&server.certificate));
                let theirs = server.pairing_with_client(certified(&client.certificate));
                let theirs = theirs.expect("the client is expected");
                let common = pairing
                    .suites
                    .iter()
                    .any(|ours| theirs.suites.iter().any(|suite| **suite == **ours));
                assert!(common, "{name}");
                pairings += 1;
            }
        }
    }
    assert_eq!(pairings, 1, "{name}");
    for file in files.values() {
        let warnings = match file {
            ConfigFile::Appliance(config) => &config.warnings,
            ConfigFile::Primary(file) => &file.warnings,
        };
        // Certificates are for those who try the sample to make.
        let other = warnings
            .iter()
            .find(|text| !text.contains("cannot be read"));
        assert_eq!(other, None, "{name}");
        assert!(!file.summary().is_empty());
    }
    files
}

/// The mode that the one Primary Server of a topology decides.
fn mode(files: &BTreeMap<String, ConfigFile>) -> Mode {
    let primaries = files.values().filter_map(primary_of);
    let mut pairings = primaries.flat_map(|primary| &primary.pairings);
    let server = pairings.find(|pairing| *pairing.role == PairingRole::Server);
    server.expect("a server").mode()
}

#[test]
fn one_client_and_one_server() {
    let files = fits("one-to-one");
    assert!(files.keys().eq(["client", "server"]));
    assert_eq!(mode(&files), Mode::TrustedServers);
    let embedded = files.values().filter_map(secondary_of);
    assert!(
        embedded
            .map(|one| &one.via)
            .all(|via| matches!(via, SecondaryVia::Embedded { .. }))
    );
}

#[test]
fn many_clients_and_one_server() {
    let files = fits("many-to-one");
    assert!(
        files
            .keys()
            .eq(["client-1", "client-2", "client-3", "server"])
    );
    assert_eq!(mode(&files), Mode::AsymmetricPoll);
}

#[test]
fn many_clients_and_many_servers() {
    let files = fits("many-to-many");
    assert!(
        files
            .keys()
            .eq(["client-1", "client-2", "server-1", "server-2"])
    );
    assert_eq!(mode(&files), Mode::TrustedServers);
    let primary = primary_of(&files["server-1"]).expect("a Primary");
    assert!(primary.pairings[0].is_analyzer("analyst.example"));
}

#[test]
fn primaries_on_both_sides() {
    let files = fits("primaries");
    let alone = |file: &ConfigFile| matches!(file, ConfigFile::Primary(_));
    assert!(alone(&files["client-primary"]) && alone(&files["server-primary"]));
    assert_eq!(files.values().filter(|file| alone(file)).count(), 2);
    assert_eq!(files.len(), 6);
    assert_eq!(mode(&files), Mode::Ibc);
}

#[test]
fn no_topology_goes_untested() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/registered");
    let files = fs::read_dir(folder).expect("the samples");
    let folders = files.filter(|file| file.as_ref().is_ok_and(|file| file.path().is_dir()));
    assert_eq!(folders.count(), 4);
}

#[test]
fn the_examples_of_the_documentation_load() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let page = fs::read_to_string(page).expect("the page");
    let ports = "ports: { inside: { device: net_ring0 }, outside: { device: net_ring1 } }\n";
    let mut examples = 0;
    for block in page.split("```yaml\n").skip(1) {
        let example = block.split("```").next().expect("a block");
        // Secrets in files are what the test has at hand.
        let mut text = String::new();
        for line in example.lines() {
            match line.split_once("pms_file:") {
                Some((indent, _)) => text += &format!("{indent}pms: {}\n", "7".repeat(64)),
                None if line.trim_start().starts_with("psk:") => (),
                None => text += &format!("{line}\n"),
            }
        }
        if !text.starts_with("ports:") {
            text.insert_str(0, ports);
        }
        if text.contains("cores: [2, 3]") {
            text = text.replace("net_ring1 } }", "net_ring1 }, queues: 2 }");
        }
        if let Err(error) = Config::parse(&text, Path::new("docs/configuration.md")) {
            panic!("{error}");
        }
        examples += 1;
    }
    assert!(examples >= 14, "{examples}");
}
