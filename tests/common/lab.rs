//! The lab's shape, its hosts and what they can do.

use super::capture::Capture;
use super::gate::{Driver, Gate, Settings};
use super::netns::{Netns, PREFIX, reap};
use super::process::{Process, run};
use serde_json::Value;
use std::fs::File;
use std::net::Ipv6Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const TOOL: &str = env!("CARGO_BIN_EXE_pdmgate-lab");
/// Switched off on every interface: a driver that reads packets from a socket sees them before the kernel would have filled in
/// checksums, cut segments or put back VLAN tags.
const OFFLOADS: &str = "rx off tx off sg off tso off gso off gro off rxvlan off txvlan off";

/// One half of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    A,
    B,
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The host's address.
    pub fn address(self) -> Ipv6Addr {
        match self {
            Self::A => "2001:db8:1::17".parse().unwrap(),
            Self::B => "2001:db8:2::23".parse().unwrap(),
        }
    }

    fn subnet(self) -> &'static str {
        match self {
            Self::A => "2001:db8:1::/64",
            Self::B => "2001:db8:2::/64",
        }
    }
}

/// What joins the appliances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Middle {
    /// The kernel, as fast as it can.
    Bridge,
    /// The wire, once [`Lab::wire`] has started it.
    Wire,
}

/// Where packets can be captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the host.
    Host(Side),
    /// Where the appliance of that side meets the wire: before the wire does anything to packets of that side.
    Outside(Side),
}

/// How a lab is built.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub middle: Middle,
    /// MTU of the hosts' interfaces, in bytes of IPv6 packet.
    pub host_mtu: u16,
    /// MTU between the appliances.
    pub outside_mtu: u16,
}

impl Default for Shape {
    /// Hosts that leave room for 40 bytes of option on a link of 1500.
    fn default() -> Self {
        Self {
            middle: Middle::Bridge,
            host_mtu: 1460,
            outside_mtu: 1500,
        }
    }
}

/// A lab; everything of it is gone when it is dropped.
pub struct Lab {
    background: Vec<Process>,
    hosts: [Netns; 2],
    gates: [Netns; 2],
    middle: Netns,
    shape: Shape,
    dir: TempDir,
    /// Held as long as the lab stands.
    _turn: File,
}

impl Lab {
    /// Builds a lab, without appliances yet. `None`, with a note, where namespaces are not permitted.
    pub fn new(shape: Shape) -> Option<Self> {
        let turn = File::create(std::env::temp_dir().join("pdmgate-lab.lock")).unwrap();
        turn.lock().unwrap();
        reap();
        let namespaces = ["host-a", "gate-a", "wire", "gate-b", "host-b"].map(Netns::new);
        if let Some(Err(reason)) = namespaces.iter().find(|n| n.is_err()) {
            println!("SKIPPED: network namespaces are not permitted here ({reason})");
            return None;
        }
        let [host_a, gate_a, middle, gate_b, host_b] = namespaces.map(Result::unwrap);
        let dir = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .tempdir()
            .unwrap();
        let lab = Self {
            background: Vec::new(),
            hosts: [host_a, host_b],
            gates: [gate_a, gate_b],
            middle,
            shape,
            dir,
            _turn: turn,
        };
        lab.build();
        Some(lab)
    }

    fn build(&self) {
        for netns in self.gates.iter().chain([&self.middle]) {
            // The kernel must not say anything of its own where only packets of the hosts are to be seen.
            netns.sh("echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6");
        }
        for side in [Side::A, Side::B] {
            let end = if side == Side::A { "a0" } else { "b0" };
            let (host, gate) = (self.host(side), &self.gates[side as usize]);
            host.sh("echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad; echo 0 >/proc/sys/net/ipv6/conf/default/accept_ra");
            self.veth((host, "eth0"), (gate, "in0"), self.shape.host_mtu);
            self.veth((gate, "out0"), (&self.middle, end), self.shape.outside_mtu);
            host.sh(&format!(
                "ip address add {}/64 dev eth0 nodad; ip route add {} dev eth0",
                side.address(),
                side.other().subnet()
            ));
        }
        if self.shape.middle == Middle::Bridge {
            bridge(&self.middle, "br0", "a0", "b0");
        }
    }

    fn veth(&self, a: (&Netns, &str), b: (&Netns, &str), mtu: u16) {
        a.0.sh(&format!(
            "ip link add {} mtu {mtu} type veth peer name {} mtu {mtu} netns {}",
            a.1,
            b.1,
            b.0.name()
        ));
        for (netns, interface) in [a, b] {
            netns.sh(&format!(
                "ethtool -K {interface} {OFFLOADS} >/dev/null; ip link set {interface} up"
            ));
        }
    }

    /// Makes room for two appliances in a row at a side: a link `mid0` to `mid1` between them.
    pub fn split(&self, side: Side) {
        let gate = self.gate_netns(side);
        self.veth((gate, "mid0"), (gate, "mid1"), self.shape.outside_mtu);
    }

    pub fn host(&self, side: Side) -> &Netns {
        &self.hosts[side as usize]
    }

    pub fn gate_netns(&self, side: Side) -> &Netns {
        &self.gates[side as usize]
    }

    /// A directory that is deleted with the lab.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the wire, with options of `pdmgate-lab wire`. Stop it by [`report`].
    pub fn wire(&self, options: &[&str]) -> Process {
        let mut command = self.middle.command(TOOL);
        command
            .args(["wire", "--a", "a0", "--b", "b0"])
            .args(options);
        let mut wire = Process::start(command);
        wire.wait_for("wire: ready", Duration::from_secs(5));
        wire
    }

    /// Puts a kernel bridge where an appliance would stand.
    pub fn bypass(&self, side: Side) {
        bridge(&self.gates[side as usize], "br0", "in0", "out0");
    }

    /// Starts an appliance and waits until it forwards.
    pub fn gate(&self, side: Side, driver: Driver, settings: &Settings) -> Gate {
        Gate::start(self, side, driver, settings)
    }

    /// Captures into a file of the lab's directory.
    pub fn capture(&self, place: Place, filter: &str) -> Capture {
        let (netns, interface) = match place {
            Place::Host(side) => (self.host(side), "eth0"),
            Place::Outside(Side::A) => (&self.middle, "a0"),
            Place::Outside(Side::B) => (&self.middle, "b0"),
        };
        Capture::start(netns, interface, self.dir(), filter)
    }

    /// A tool of the lab, in a host.
    pub fn tool(&self, side: Side, args: &[&str]) -> Command {
        let mut command = self.host(side).command(TOOL);
        command.args(args);
        command
    }

    /// Pings the other host; the round-trip times in milliseconds of the echoes that came back.
    pub fn ping(&self, from: Side, count: u32, interval: &str) -> Vec<f64> {
        let mut command = self.host(from).command("ping");
        let to = from.other().address().to_string();
        command.args([
            "-6",
            "-n",
            "-c",
            &count.to_string(),
            "-i",
            interval,
            "-W",
            "2",
            &to,
        ]);
        let ended = run(command, Duration::from_secs(120));
        let times = ended.out.lines().filter_map(|line| {
            if line.contains("DUP!") {
                return None;
            }
            line.split("time=").nth(1)?.split(' ').next()?.parse().ok()
        });
        times.collect()
    }

    /// Sends a stream of `bytes` to the other host and asserts that it arrives intact; seconds that it took.
    pub fn tcp(&mut self, from: Side, bytes: u64, port: u16, limit: Duration) -> f64 {
        let mut server =
            Process::start(self.tool(from.other(), &["tcp-serve", "--port", &port.to_string()]));
        server.wait_for("tcp-serve: ready", Duration::from_secs(5));
        self.background.push(server);
        let to = format!("[{}]:{port}", from.other().address());
        let ended = run(
            self.tool(
                from,
                &["tcp-send", "--to", &to, "--bytes", &bytes.to_string()],
            ),
            limit,
        );
        ended.success().json()["seconds"].as_f64().unwrap()
    }

    /// Sends numbered datagrams to the other host; what the receiver and the sender say of it.
    pub fn udp(&self, from: Side, port: u16, options: &Datagrams) -> (Value, Value) {
        self.udp_served(from, port, options, "0ms")
    }

    /// The same to another address of the host.
    pub fn udp_to(
        &self,
        from: Side,
        to: Ipv6Addr,
        port: u16,
        options: &Datagrams,
    ) -> (Value, Value) {
        self.send(from, to, port, options, "0ms")
    }

    /// The same, to a receiver that takes a while over each datagram.
    pub fn udp_served(
        &self,
        from: Side,
        port: u16,
        options: &Datagrams,
        time: &str,
    ) -> (Value, Value) {
        self.send(from, from.other().address(), port, options, time)
    }

    fn send(
        &self,
        from: Side,
        to: Ipv6Addr,
        port: u16,
        options: &Datagrams,
        time: &str,
    ) -> (Value, Value) {
        let mut sink = self.tool(
            from.other(),
            &["udp-sink", "--port", &port.to_string(), "--delay", time],
        );
        if options.echo {
            sink.arg("--echo");
        }
        let mut sink = Process::start(sink);
        sink.wait_for("udp-sink: ready", Duration::from_secs(5));
        let to = format!("[{to}]:{port}");
        let mut send = self.tool(
            from,
            &["udp-send", "--to", &to, "--port", &port.to_string()],
        );
        send.args([
            "--count",
            &options.count.to_string(),
            "--rate",
            &options.rate.to_string(),
        ]);
        send.args(["--size", &options.size.to_string()]);
        let limit = Duration::from_secs(60 + options.count / options.rate);
        let sent = run(send, limit).success().json();
        (sink.end(Duration::from_secs(60)).success().json(), sent)
    }
}

/// A stream of datagrams.
pub struct Datagrams {
    pub count: u64,
    /// Datagrams per second.
    pub rate: u64,
    /// Bytes of payload.
    pub size: u16,
    /// Whether the receiver sends each one back.
    pub echo: bool,
}

/// Stops a wire and yields its report.
pub fn report(wire: Process) -> Value {
    wire.stop("TERM").success().json()
}

/// Joins two interfaces by the kernel.
pub fn bridge(netns: &Netns, name: &str, one: &str, other: &str) {
    netns.sh(&format!(
        "ip link add {name} type bridge mcast_snooping 0; ip link set {one} master {name}; \
         ip link set {other} master {name}; ip link set {name} up"
    ));
}
