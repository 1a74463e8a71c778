//! An appliance in the lab: its configuration, its life, and what it says over its socket.

use super::lab::{Lab, Side, bridge};
use super::process::{Ended, Process, run};
use serde_json::Value;
use std::fs::Permissions;
use std::io::{Read, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The appliance.
pub const PDMGATE: &str = env!("CARGO_BIN_EXE_pdmgate");

/// How an appliance reaches its interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    AfPacket,
    /// With two queues; set [`Settings::queues`] too.
    AfPacketTwice,
    AfXdp,
    Tap,
}

impl Driver {
    fn devices(self) -> (&'static str, &'static str) {
        match self {
            Self::AfPacket => ("net_af_packet0,iface=in0", "net_af_packet1,iface=out0"),
            Self::AfPacketTwice => (
                "net_af_packet0,iface=in0,qpairs=2",
                "net_af_packet1,iface=out0,qpairs=2",
            ),
            Self::AfXdp => (
                "net_af_xdp0,iface=in0,start_queue=0,queue_count=1",
                "net_af_xdp1,iface=out0,start_queue=0,queue_count=1",
            ),
            Self::Tap => ("net_tap0,iface=tapin", "net_tap1,iface=tapout"),
        }
    }
}

/// What a test can choose of a configuration. Both appliances of a lab get the same.
#[derive(Clone, Debug)]
pub struct Settings {
    pub mode: &'static str,
    pub protection: &'static str,
    pub aead: &'static str,
    /// 64 hexadecimal digits.
    pub salt: String,
    /// 64 hexadecimal digits.
    pub pms: String,
    /// Packets until a new key; at most 32767.
    pub rotation_packets: u16,
    pub rotation_age: &'static str,
    /// Bytes that a packet may have with its option.
    pub mtu: u16,
    pub over_mtu: &'static str,
    pub failed_open: &'static str,
    /// Lines added under `policy:`, each with its two blanks in front.
    pub policy_extra: &'static str,
    /// How long a flow without a packet is kept.
    pub idle_timeout: &'static str,
    /// Queues of each port, one worker each.
    pub queues: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: "trusted-servers",
            protection: "sealed",
            aead: "aes-128-gcm",
            salt: random_hex(),
            pms: random_hex(),
            rotation_packets: 32767,
            rotation_age: "1h",
            mtu: 1500,
            over_mtu: "pass",
            failed_open: "forward-stripped",
            policy_extra: "",
            idle_timeout: "60s",
            queues: 1,
        }
    }
}

fn random_hex() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    hex::encode(bytes)
}

impl Settings {
    /// The configuration of an appliance with these devices that keeps its state and socket in `dir`.
    pub fn yaml(&self, inside: &str, outside: &str, dir: &Path, core: usize) -> String {
        let dir = dir.display();
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        let cores: Vec<_> = (0..self.queues).map(|queue| (core + queue) % all).collect();
        format!(
            r#"ports:
  inside: {{ device: "{inside}" }}
  outside: {{ device: "{outside}" }}
  queues: {queues}
workers: {{ cores: {cores:?}, idle: sleep }}
management: {{ core: {core} }}
eal: {{ hugepages: off }}
flows: {{ capacity: 4096, idle_timeout: {idle_timeout} }}
policy:
  mtu: {mtu}
  over_mtu: {over_mtu}
  failed_open: {failed_open}
{policy_extra}
rotation: {{ packets: {rotation_packets}, age: {rotation_age} }}
state: {dir}/state.json
telemetry: {{ prometheus: null, socket: {dir}/pdmgate.sock }}
pairings:
  - name: lab
    mode: {mode}
    protection: {protection}
    suite: {{ kem: x25519, aead: {aead} }}
    salt: {salt}
    pms: {pms}
    clients: [ {{ prefix: "2001:db8:1::/64", generation: 1 }} ]
    servers: [ {{ prefix: "2001:db8:2::/64", group: web, generation: 1 }} ]
"#,
            mtu = self.mtu,
            over_mtu = self.over_mtu,
            failed_open = self.failed_open,
            policy_extra = self.policy_extra,
            rotation_packets = self.rotation_packets,
            rotation_age = self.rotation_age,
            mode = self.mode,
            protection = self.protection,
            aead = self.aead,
            salt = self.salt,
            pms = self.pms,
            idle_timeout = self.idle_timeout,
            queues = self.queues,
        )
    }
}

/// A running appliance.
pub struct Gate {
    process: Process,
    dir: PathBuf,
}

impl Gate {
    /// Starts one in a lab; a second start on the same side finds the state of the first.
    pub fn start(lab: &Lab, side: Side, driver: Driver, settings: &Settings) -> Self {
        let dir = lab.dir().join(format!("gate-{side:?}").to_lowercase());
        let (inside, outside) = driver.devices();
        let core = side as usize % std::thread::available_parallelism().map_or(1, usize::from);
        let command = lab.gate_netns(side).command(PDMGATE);
        let gate = Self::launch(command, dir, |dir| {
            settings.yaml(inside, outside, dir, core)
        });
        if driver == Driver::Tap {
            // The driver makes its own interfaces; the hosts are reached by bridging to them.
            let netns = lab.gate_netns(side);
            bridge(netns, "brin", "tapin", "in0");
            bridge(netns, "brout", "tapout", "out0");
        }
        gate
    }

    /// Starts one whose ports read `inside.pcap` and `outside.pcap` of `dir`, each once, and write `to-inside.pcap` and
    /// `to-outside.pcap`, which are whole when it has ended.
    pub fn start_on_files(dir: &Path, settings: &Settings) -> Self {
        let device = |number: u8, from: &str, to: &str| {
            let dir = dir.display();
            format!("net_pcap{number},rx_pcap={dir}/{from},tx_pcap={dir}/{to}")
        };
        let inside = device(0, "inside.pcap", "to-inside.pcap");
        let outside = device(1, "outside.pcap", "to-outside.pcap");
        let command = Command::new(PDMGATE);
        Self::launch(command, dir.to_owned(), |dir| {
            settings.yaml(&inside, &outside, dir, 0)
        })
    }

    /// Starts one on AF_PACKET in a lab with a whole configuration, whose socket is `pdmgate.sock` in `dir`.
    pub fn start_with(lab: &Lab, side: Side, dir: PathBuf, yaml: &str) -> Self {
        let command = lab.gate_netns(side).command(PDMGATE);
        Self::launch(command, dir, |_| yaml.to_owned())
    }

    fn launch(mut command: Command, dir: PathBuf, yaml: impl Fn(&Path) -> String) -> Self {
        std::fs::create_dir_all(&dir).unwrap();
        let config = dir.join("pdmgate.yaml");
        std::fs::write(&config, yaml(&dir)).unwrap();
        // It holds secrets.
        std::fs::set_permissions(&config, Permissions::from_mode(0o600)).unwrap();
        command.arg("run").arg(&config);
        let mut gate = Self {
            process: Process::start(command),
            dir,
        };
        let socket = gate.socket();
        let answers = |_: &mut Process| get(&socket, "/v1/stats");
        gate.process
            .wait_until("answer on its socket", Duration::from_secs(30), answers);
        gate
    }

    /// Waits until a counter, `packets_received.out` for instance, is at least `count`.
    pub fn wait_for_count(&mut self, path: &str, count: u64) {
        let socket = self.socket();
        let pointer = format!("/counters/{}", path.replace('.', "/"));
        let reached = |_: &mut Process| {
            let stats = get(&socket, "/v1/stats")?;
            let value = stats
                .pointer(&pointer)
                .unwrap_or_else(|| panic!("no counter {path} in {stats:#}"));
            (value.as_u64()? >= count).then_some(())
        };
        self.process.wait_until(
            &format!("{path} of {count}"),
            Duration::from_secs(20),
            reached,
        );
    }

    /// A counter by its path.
    pub fn count(&self, path: &str) -> u64 {
        let stats = self.stats();
        let value = stats.pointer(&format!("/counters/{}", path.replace('.', "/")));
        value
            .and_then(Value::as_u64)
            .unwrap_or_else(|| panic!("no counter {path} in {stats:#}"))
    }

    /// Options that did not open, whatever the reason.
    pub fn failed(&self) -> u64 {
        let stats = self.stats();
        let failed = stats["counters"]["failed_open"].as_object().unwrap();
        failed.values().filter_map(Value::as_u64).sum()
    }

    pub fn config(&self) -> PathBuf {
        self.dir.join("pdmgate.yaml")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("pdmgate.sock")
    }

    /// Log so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// `/v1/stats` over the socket.
    pub fn stats(&self) -> Value {
        get(&self.socket(), "/v1/stats").expect("no answer on the socket")
    }

    /// `pdmgate flows --json`: one record a flow.
    pub fn flows(&self) -> Vec<Value> {
        let mut command = Command::new(PDMGATE);
        command
            .args(["flows", "--json", "--limit", "0", "--socket"])
            .arg(self.socket());
        let ended = run(command, Duration::from_secs(20)).success();
        serde_json::from_str(&ended.out).unwrap()
    }

    /// The record of the flow with this protocol whose ends have these ports, the local one first.
    pub fn flow(&self, protocol: u8, ports: (u16, u16)) -> Value {
        let flows = self.flows();
        let found = flows.iter().find(|flow| {
            flow["protocol"] == protocol
                && flow["local_port"] == ports.0
                && flow["remote_port"] == ports.1
        });
        found
            .cloned()
            .unwrap_or_else(|| panic!("no flow {protocol} {ports:?} in {flows:#?}"))
    }

    /// SIGHUP.
    pub fn reload(&self) {
        self.process.signal("HUP");
    }

    /// SIGTERM; asserts that it ends well.
    pub fn stop(self) -> Ended {
        self.process.stop("TERM").success()
    }

    /// SIGKILL, as a crash would.
    pub fn kill(self) -> Ended {
        self.process.stop("KILL")
    }
}

/// What `pdmgate decode` says of each packet of a capture.
pub fn decode(config: &Path, capture: &Path) -> Vec<Value> {
    let mut command = Command::new(PDMGATE);
    command.arg("decode").arg(config).arg(capture);
    let ended = run(command, Duration::from_secs(600)).success();
    ended
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// GET over a Unix socket; `None` if nobody answers 200.
pub fn get(socket: &Path, path: &str) -> Option<Value> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: lab\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    if head.split(' ').nth(1) != Some("200") {
        return None;
    }
    serde_json::from_str(body).ok()
}
