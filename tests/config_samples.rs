//! Every sample in `config/` loads, and becomes a snapshot.

use std::{
    fs,
    path::{Path, PathBuf},
};

use pdmgate::{
    config::{Config, Device, Hugepages, Mode, Protection},
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
    assert!(examples >= 11, "{examples}");
}
