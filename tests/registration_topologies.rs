//! The topologies of the draft's appendix A, as `config/registered/` has them: all processes of each really run and register. Only
//! devices, addresses and paths are replaced by such as a test can have.

mod common;

use common::authority::Authority;
use common::gate::PDMGATE;
use common::process::{Process, run};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A place of its own for one run of a topology.
struct Site {
    dir: tempfile::TempDir,
    /// The samples' addresses, and where they are here.
    addresses: BTreeMap<&'static str, String>,
}

impl Site {
    fn new() -> Self {
        // Held until all are chosen, so that no two are the same.
        let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let samples = ["[2001:db8:c::1]:8250", "[2001:db8:c::2]:8250"];
        let here = held.map(|held| held.local_addr().unwrap().to_string());
        Self {
            dir: tempfile::tempdir().unwrap(),
            addresses: samples.into_iter().zip(here).collect(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A sample as it can run here. What it does not say has defaults that processes on one machine cannot share.
    fn adapt(&self, name: &str, sample: &str) -> String {
        let own = self.path(name);
        fs::create_dir(&own).unwrap();
        let own = own.display();
        let mut text = sample
            .replace("/var/lib/pdmgate", &own.to_string())
            .replace("/run/pdmgate", &own.to_string())
            .replace("127.0.0.1:9465", "127.0.0.1:0")
            .replace("net_af_packet0,iface=in0", "net_null0,no-rx=1")
            .replace("net_af_packet1,iface=out0", "net_null1,no-rx=1");
        for (sample, here) in &self.addresses {
            text = text.replace(sample, here);
        }
        assert!(
            !text.contains("af_packet") && !text.contains("8250"),
            "{text}"
        );
        if text.contains("\nports:") {
            text = text.replace(
                "\nprimary:\n",
                &format!(
                    "\nprimary:\n  store: {{ path: {own}/primary.redb }}\n  socket: {own}/primary.sock\n"
                ),
            );
            text += &format!(
                "\nstate: {own}/state.json\ntelemetry: {{ prometheus: null, socket: {own}/pdmgate.sock }}\n"
            );
        } else {
            text = text.replace("prometheus: \"127.0.0.1:0\"", "prometheus: null");
        }
        text
    }

    /// `pdmgate registrations --json` at a process' Primary; `None` while nobody answers.
    fn registrations(&self, name: &str) -> Option<Value> {
        let mut command = Command::new(PDMGATE);
        command
            .args(["registrations", "--json", "--socket"])
            .arg(self.path(name).join("primary.sock"));
        let ended = run(command, Duration::from_secs(20));
        ended.status.success().then(|| ended.json())
    }
}

/// The generations of each entry that some Secondary sends under, if each entry has one Secondary, which sends.
fn sending(pairing: &Value) -> Option<BTreeMap<String, Vec<u64>>> {
    let own = pairing["own"].as_array()?.iter();
    own.map(|entry| match &**entry["secondaries"].as_array()? {
        [one] if one["state"] == "sending" => {
            Some((text(&entry["prefix"]), vec![one["generation"].as_u64()?]))
        }
        _ => None,
    })
    .collect()
}

/// The generations of each entry of the peer's list.
fn told(pairing: &Value) -> BTreeMap<String, Vec<u64>> {
    let list = pairing["peer_list"].as_array().unwrap().iter();
    list.map(|entry| {
        let generations = entry["generations"].as_array().unwrap().iter();
        let generations = generations.map(|generation| generation.as_u64().unwrap());
        (text(&entry["prefix"]), generations.collect())
    })
    .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Runs a topology until everybody is registered, then ends all of it. The secrets are in `mode`; the Primary Client is in the process
/// `client`, the Primary Server in `server`.
fn registers(topology: &str, mode: &str, [client, server]: [&str; 2]) {
    let site = Site::new();
    let authority = Authority::new(site.dir.path());
    let samples = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config/registered")
        .join(topology);
    let mut processes = BTreeMap::new();
    for sample in fs::read_dir(samples).unwrap() {
        let sample = sample.unwrap().path();
        let name = sample.file_stem().unwrap().to_str().unwrap().to_owned();
        let yaml = site.adapt(&name, &fs::read_to_string(&sample).unwrap());
        let certificate = yaml.lines().find_map(|line| {
            let file = line.trim().strip_prefix("certificate: ")?;
            file.strip_suffix(".pem")
        });
        authority.certificate(certificate.expect("a certificate"));
        let config = site.path(&format!("{name}.yaml"));
        fs::write(&config, &yaml).unwrap();
        let mut command = Command::new(PDMGATE);
        let appliance = yaml.contains("\nports:");
        command.arg(if appliance { "run" } else { "primary" });
        command.arg(config);
        processes.insert(name, Process::start(command));
    }

    let statuses = [client, server].map(|name| {
        let process = processes.get_mut(name).expect("the process");
        process.wait_until("registration of all", Duration::from_secs(60), |_| {
            std::thread::sleep(Duration::from_millis(100));
            let status = site.registrations(name)?;
            let pairing = &status["pairings"][0];
            let sealing = pairing["secrets"][0]["sealing"] == true;
            let told = told(pairing);
            let all_told = !told.is_empty() && told.values().all(|told| !told.is_empty());
            (sealing && all_told && sending(pairing).is_some()).then(|| pairing.clone())
        })
    });
    let [of_client, of_server] = &statuses;
    // Each knows what the other gave, and both mean the same secret.
    assert_eq!(sending(of_client), Some(told(of_server)));
    assert_eq!(sending(of_server), Some(told(of_client)));
    for field in ["id", "mode", "protection", "suite"] {
        let [a, b] = [of_client, of_server].map(|pairing| &pairing["secrets"][0][field]);
        assert_eq!(a, b);
    }
    assert_eq!(of_client["secrets"][0]["mode"], mode);
    assert_eq!(
        (&of_client["role"], &of_server["role"]),
        (&"client".into(), &"server".into())
    );

    for process in processes.values() {
        process.signal("TERM");
    }
    for process in processes.into_values() {
        process.end(Duration::from_secs(30)).success();
    }
}

#[test]
fn one_client_and_one_server() {
    registers("one-to-one", "trusted-servers", ["client", "server"]);
}

#[test]
fn many_clients_and_one_server() {
    registers("many-to-one", "asymmetric-poll", ["client-1", "server"]);
}

#[test]
fn many_clients_and_many_servers() {
    registers("many-to-many", "trusted-servers", ["client-1", "server-1"]);
}

#[test]
fn primaries_on_both_sides() {
    registers("primaries", "ibc", ["client-primary", "server-primary"]);
}
