//! Two sites that register: a Primary and a Secondary at each end of the lab, in one process or in two.

use super::authority::Authority;
use super::gate::{Gate, PDMGATE};
use super::lab::{Lab, Side};
use super::process::{Ended, Process, run};
use serde_json::Value;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// What a test chooses of the registration.
#[derive(Clone, Debug)]
pub struct Terms {
    pub mode: &'static str,
    pub protection: &'static str,
    /// Lines of the pairing at each end, each with its six blanks in front.
    pub client_extra: String,
    pub server_extra: String,
    /// Lines of the section `primary` at both ends, each with its two blanks in front.
    pub primary_extra: String,
    /// Packets until a new key; at most 32767.
    pub rotation_packets: u16,
    /// Where Primaries keep what they know, as YAML; `None` for a file of each one's own.
    pub store: Option<String>,
    /// Which replica of a side's Primary: tells its port and its files apart.
    pub replica: u16,
    /// An appliance's interfaces, inside and outside.
    pub interfaces: [&'static str; 2],
}

/// Replicas that Secondaries and peers try.
const REPLICAS: u16 = 2;
const PORT: u16 = 8250;

impl Default for Terms {
    fn default() -> Self {
        Self {
            mode: "trusted-servers",
            protection: "sealed",
            client_extra: String::new(),
            server_extra: String::new(),
            primary_extra: String::new(),
            rotation_packets: 32767,
            store: None,
            replica: 0,
            interfaces: ["in0", "out0"],
        }
    }
}

/// The name in the certificate of a side's Primary.
pub fn primary_name(side: Side) -> &'static str {
    match side {
        Side::A => "hq.example",
        Side::B => "branch.example",
    }
}

/// The name in the certificate of a side's Secondary.
pub fn secondary_name(side: Side) -> &'static str {
    match side {
        Side::A => "gate-a.example",
        Side::B => "gate-b.example",
    }
}

fn prefix(side: Side) -> &'static str {
    match side {
        Side::A => "2001:db8:1::/64",
        Side::B => "2001:db8:2::/64",
    }
}

/// A side's Primaries, as YAML.
fn addresses(side: Side) -> String {
    let replicas = (0..REPLICAS).map(|at| format!("\"{}:{}\"", control_address(side), PORT + at));
    format!("[{}]", replicas.collect::<Vec<_>>().join(", "))
}

fn socket(lab: &Lab, side: Side, replica: u16) -> PathBuf {
    lab.dir()
        .join(format!("{}-{replica}.sock", primary_name(side)))
}

fn control_address(side: Side) -> &'static str {
    match side {
        Side::A => "10.9.0.1",
        Side::B => "10.9.0.2",
    }
}

/// Where a side's first Primary listens.
pub fn primary_address(side: Side) -> String {
    format!("{}:{PORT}", control_address(side))
}

/// Joins the two appliances' namespaces by a network of their own for registration, and makes everybody's certificates.
pub fn prepare(lab: &Lab) -> Authority {
    let (a, b) = (lab.gate_netns(Side::A), lab.gate_netns(Side::B));
    a.sh(&format!(
        "ip link add ctl type veth peer name ctl netns {}",
        b.name()
    ));
    for side in [Side::A, Side::B] {
        let address = control_address(side);
        lab.gate_netns(side).sh(&format!(
            "ip address add {address}/24 dev ctl; ip link set ctl up; ip link set lo up"
        ));
    }
    let authority = Authority::new(lab.dir());
    for side in [Side::A, Side::B] {
        authority.certificate(primary_name(side));
        authority.certificate(secondary_name(side));
    }
    authority
}

/// The section `primary`.
pub fn primary_yaml(lab: &Lab, side: Side, terms: &Terms) -> String {
    let dir = lab.dir().display();
    let name = primary_name(side);
    let pairing = match side {
        Side::A => format!(
            "    - name: branch\n      peer: {}\n      role: client\n      connect: {}\n      entries: [{{ prefix: \"{}\" }}]\n{}",
            primary_name(Side::B),
            addresses(Side::B),
            prefix(side),
            terms.client_extra
        ),
        Side::B => format!(
            "    - name: hq\n      peer: {}\n      role: server\n      mode: {}\n      protection: {}\n      entries: [{{ prefix: \"{}\", group: web }}]\n{}",
            primary_name(Side::A),
            terms.mode,
            terms.protection,
            prefix(side),
            terms.server_extra
        ),
    };
    format!(
        r#"primary:
  listen: ["{address}:{port}"]
  certificate: {dir}/{name}.pem
  key: {dir}/{name}.key
  authorities: {dir}/ca.pem
  store: {store}
  socket: {socket}
{extra}  pairings:
{pairing}  secondaries:
    - {{ name: {secondary}, entries: ["{prefix}"] }}
"#,
        address = control_address(side),
        port = PORT + terms.replica,
        store = terms
            .store
            .clone()
            .unwrap_or_else(|| format!("{{ path: {dir}/{name}.redb }}")),
        socket = socket(lab, side, terms.replica).display(),
        extra = terms.primary_extra,
        secondary = secondary_name(side),
        prefix = prefix(side),
    )
}

/// The appliance's own sections.
fn appliance_yaml(lab: &Lab, side: Side, terms: &Terms) -> String {
    let [inside, outside] = terms.interfaces;
    let dir = gate_dir(lab, side, terms);
    let dir = dir.display();
    let core = side as usize % std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        r#"ports:
  inside: {{ device: "net_af_packet0,iface={inside}" }}
  outside: {{ device: "net_af_packet1,iface={outside}" }}
workers: {{ cores: [{core}], idle: sleep }}
management: {{ core: {core} }}
eal: {{ hugepages: off }}
flows: {{ capacity: 4096 }}
rotation: {{ packets: {rotation} }}
state: {dir}/state.json
telemetry: {{ prometheus: null, socket: {dir}/pdmgate.sock }}
"#,
        rotation = terms.rotation_packets,
    )
}

fn gate_dir(lab: &Lab, side: Side, terms: &Terms) -> PathBuf {
    let inside = terms.interfaces[0];
    lab.dir()
        .join(format!("gate-{side:?}-{inside}").to_lowercase())
}

/// Starts the appliance of a side with its Primary in the same process.
pub fn embedded(lab: &Lab, side: Side, terms: &Terms) -> Gate {
    let yaml = format!(
        "{}{}secondary: {{ name: {}, entries: [\"{}\"] }}\n",
        appliance_yaml(lab, side, terms),
        primary_yaml(lab, side, terms),
        secondary_name(side),
        prefix(side)
    );
    Gate::start_with(lab, side, gate_dir(lab, side, terms), &yaml)
}

/// Starts the appliance of a side as a Secondary of the Primary that [`primary`] or [`embedded`] starts.
pub fn apart(lab: &Lab, side: Side, terms: &Terms) -> Gate {
    another(lab, side, terms, secondary_name(side), prefix(side))
}

/// Starts another appliance of a side, with a certificate and an entry of its own.
pub fn another(lab: &Lab, side: Side, terms: &Terms, name: &str, entry: &str) -> Gate {
    let dir = lab.dir().display();
    let yaml = format!(
        r#"{}secondary:
  primary: {}
  primary_name: {}
  certificate: {dir}/{name}.pem
  key: {dir}/{name}.key
  authorities: {dir}/ca.pem
  entries: ["{entry}"]
"#,
        appliance_yaml(lab, side, terms),
        addresses(side),
        primary_name(side),
    );
    Gate::start_with(lab, side, gate_dir(lab, side, terms), &yaml)
}

/// Starts the Primary of a side alone.
pub fn primary(lab: &Lab, side: Side, terms: &Terms) -> Process {
    let name = format!("{}-{}.yaml", primary_name(side), terms.replica);
    let config = lab.dir().join(name);
    let yaml = primary_yaml(lab, side, terms) + "telemetry: { prometheus: null }\n";
    std::fs::write(&config, yaml).unwrap();
    let mut command = lab.gate_netns(side).command(PDMGATE);
    command.arg("primary").arg(config);
    let mut process = Process::start(command);
    process.wait_for("running", Duration::from_secs(10));
    process
}

/// An operator's command at a side's Primary.
pub fn operate(lab: &Lab, side: Side, args: &[&str]) -> Ended {
    operate_at(lab, side, 0, args)
}

/// The same at one replica of it.
pub fn operate_at(lab: &Lab, side: Side, replica: u16, args: &[&str]) -> Ended {
    let socket = socket(lab, side, replica);
    let mut command = Command::new(PDMGATE);
    command.args(args).arg("--socket").arg(socket);
    run(command, Duration::from_secs(20))
}

/// `pdmgate registrations` at a side's Primary.
pub fn registrations(lab: &Lab, side: Side) -> Value {
    operate(lab, side, &["registrations", "--json"])
        .success()
        .json()
}

/// The generation of a side's Secondary.
pub fn generation(lab: &Lab, side: Side) -> u64 {
    let status = registrations(lab, side);
    let secondary = &status["pairings"][0]["own"][0]["secondaries"][0];
    secondary["generation"].as_u64().unwrap()
}

/// The lowest and the highest generation that a Secondary of either side has.
pub fn generations(lab: &Lab) -> RangeInclusive<u32> {
    let status = [Side::A, Side::B].map(|side| registrations(lab, side));
    let all = status.iter().flat_map(|status| {
        let secondaries = status["pairings"][0]["own"][0]["secondaries"].as_array();
        let given = secondaries.into_iter().flatten();
        given.filter_map(|secondary| secondary["generation"].as_u64())
    });
    let all: Vec<u32> = all.map(|generation| generation as u32).collect();
    *all.iter().min().unwrap()..=*all.iter().max().unwrap()
}

/// Waits until both sides seal under one secret that both hold, and every entry has a Secondary that sends.
pub fn wait_until_registered(lab: &Lab) {
    wait_for(lab, "both sides registered", |status| {
        let pairing = &status["pairings"][0];
        let secondaries = pairing["own"][0]["secondaries"].as_array();
        pairing["secrets"][0]["sealing"] == true
            && secondaries.is_some_and(|s| s.iter().any(|s| s["state"] == "sending"))
            && pairing["peer_list"][0]["generations"][0].is_u64()
    });
}

/// Waits until `holds` is true of both sides' registrations.
pub fn wait_for(lab: &Lab, what: &str, holds: impl Fn(&Value) -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let status = [Side::A, Side::B].map(|side| registrations(lab, side));
        if status.iter().all(&holds) {
            return;
        }
        assert!(Instant::now() < until, "never: {what}\n{status:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
