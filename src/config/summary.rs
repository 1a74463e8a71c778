//! What `pdmgate check` prints about a valid configuration.

mod roles;

use std::fmt::{self, Write};

use super::{Config, Device, Mode, Pairing};

impl Config {
    /// The whole configuration with its defaults, for people; no secrets.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_summary(&mut out);
        out
    }

    fn write_summary(&self, out: &mut String) -> fmt::Result {
        let ports = &self.ports;
        for (side, port) in [("inside", &ports.inside), ("outside", &ports.outside)] {
            let kind = match &*port.device {
                Device::Pci(_) => "PCI",
                Device::Vdev(_) => "virtual",
            };
            writeln!(out, "{side:<11}{} ({kind})", port.device.as_str())?;
        }
        writeln!(
            out,
            "queues     {} a port, {} + {} descriptors, MTU {}, RSS on {}, promiscuous {}",
            *ports.queues,
            ports.rx_descriptors,
            ports.tx_descriptors,
            self.port_mtu(),
            ports.rss,
            on_off(ports.promiscuous),
        )?;
        let cores = match &self.workers.cores {
            Some(cores) => {
                let list: Vec<_> = cores.iter().map(ToString::to_string).collect();
                format!("on cores {}", list.join(", "))
            }
            None => "on cores chosen at start".to_owned(),
        };
        writeln!(
            out,
            "workers    {} {cores}; idle: {}",
            *ports.queues, self.workers.idle
        )?;
        match &self.management.core {
            Some(core) => writeln!(out, "management on core {}", **core)?,
            None => writeln!(out, "management on a core chosen at start")?,
        }
        writeln!(
            out,
            "memory     hugepages {}, {} packet buffers of {} bytes",
            self.eal.hugepages,
            self.mbufs(),
            self.mbuf_size(),
        )?;
        writeln!(
            out,
            "flows      {} at most, forgotten after {}",
            self.flows.capacity, self.flows.idle_timeout,
        )?;
        self.write_policy(out)?;
        writeln!(out, "state      {}", self.state.display())?;
        let prometheus = self
            .telemetry
            .prometheus
            .map(|at| format!("Prometheus on {at}"));
        let socket = self.telemetry.socket.as_ref();
        let socket = socket.map(|path| format!("socket {}", path.display()));
        let telemetry: Vec<_> = prometheus.into_iter().chain(socket).collect();
        match telemetry.as_slice() {
            [] => writeln!(out, "telemetry  none")?,
            list => writeln!(out, "telemetry  {}", list.join(", "))?,
        }
        if self.pairings.is_empty() && self.secondary.is_none() {
            writeln!(out, "pairings   none: everything passes untouched")?;
        }
        for pairing in &self.pairings {
            write_pairing(pairing, out)?;
        }
        if let Some(secondary) = &self.secondary {
            roles::write_secondary(secondary, out)?;
        }
        if let Some(primary) = &self.primary {
            roles::write_primary(primary, out)?;
        }
        for warning in &self.warnings {
            writeln!(out, "warning    {warning}")?;
        }
        Ok(())
    }

    fn write_policy(&self, out: &mut String) -> fmt::Result {
        let policy = &self.policy;
        writeln!(
            out,
            "policy     option type 0x{:02x}, MTU {} (over it: {}), MSS clamp {}",
            policy.option_type.get(),
            policy.mtu,
            policy.over_mtu,
            on_off(policy.mss_clamp),
        )?;
        if let Some(source) = policy.icmp_source {
            writeln!(out, "           ICMPv6 errors from {source}")?;
        }
        write!(
            out,
            "           malformed packets: {}; failed open: {}",
            policy.malformed, policy.failed_open,
        )?;
        if let Some(throttle) = &policy.throttle {
            write!(
                out,
                ", throttled past {} in {}",
                throttle.failures, throttle.window
            )?;
        }
        writeln!(out, "{}", if policy.log_failures { ", logged" } else { "" })?;
        writeln!(
            out,
            "rotation   after {} packets or {}",
            self.rotation.packets, self.rotation.age
        )?;
        writeln!(
            out,
            "receiver   {} key indices ahead, {} keys a second and worker",
            self.receiver.kri_window, self.receiver.search_per_second
        )
    }
}

fn write_pairing(pairing: &Pairing, out: &mut String) -> fmt::Result {
    write!(
        out,
        "pairing    {}: {}",
        pairing.name.as_str(),
        pairing.mode
    )?;
    match pairing.mode {
        Mode::NoProtection => writeln!(out, ", packets stay unmarked")?,
        _ if pairing.is_sealed() => writeln!(
            out,
            ", {}, {} with {}",
            pairing.protection, pairing.suite.kem, pairing.suite.aead
        )?,
        _ => writeln!(out, ", {}", pairing.protection)?,
    }
    for client in pairing.clients.iter() {
        let prefix = client.prefix.to_string();
        writeln!(
            out,
            "           client {prefix:<40} generation {}",
            client.generation
        )?;
    }
    for server in pairing.servers.iter() {
        let prefix = server.prefix.to_string();
        write!(
            out,
            "           server {prefix:<40} generation {}",
            server.generation
        )?;
        match &server.group {
            Some(group) => writeln!(out, ", group {}", group.as_str())?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}
