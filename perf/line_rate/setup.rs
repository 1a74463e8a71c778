//! The configuration under test: every feature on, and the same secrets for the far side.

use crate::bench::{HARNESS_CORE, Result, TESTED_CORE};
use crate::frames::{CLIENTS, SERVERS};
use pdmgate::config::Config;
use pdmgate::snapshot::{Inputs, Snapshot, State};
use std::path::Path;

/// Keys that may be derived in a second, in search of one that opens, where nothing else is configured: what bounds the cost of forged options.
pub const USUAL_SEARCHES: u32 = 200_000;

/// What parts vary.
#[derive(Clone, Debug)]
pub struct Setup {
    pub inside: String,
    pub outside: String,
    /// Packet buffers.
    pub mbufs: u32,
    /// Flows that are to fit.
    pub flows: usize,
    pub aead: &'static str,
    /// Packets under one key.
    pub rotation: u16,
    /// Keys that may be derived in search of one that opens, a second. As thousands of flows begin at once here, more than by default.
    pub searches: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            inside: "net_null0,no-rx=1".to_owned(),
            outside: "net_null1,no-rx=1".to_owned(),
            mbufs: 16_384,
            // Twice as many as there are: a table that takes every hugepage leaves none to testpmd.
            flows: 1 << 17,
            aead: "aes-128-gcm",
            rotation: 32_767,
            searches: 100_000_000,
        }
    }
}

impl Setup {
    /// The configuration of an appliance that keeps its things in `dir`.
    ///
    /// What is not named is on by default.
    pub fn yaml(&self, dir: &Path) -> String {
        let dir = dir.display();
        format!(
            "ports:\n  inside: {{ device: \"{}\" }}\n  outside: {{ device: \"{}\" }}\n\
             workers: {{ cores: [{TESTED_CORE}], idle: poll }}\n\
             management: {{ core: {HARNESS_CORE} }}\n\
             eal: {{ hugepages: require, mbufs: {} }}\n\
             flows: {{ capacity: {}, idle_timeout: 1h }}\n\
             policy: {{ mtu: 1500, over_mtu: packet-too-big, mss_clamp: true }}\n\
             rotation: {{ packets: {} }}\n\
             receiver: {{ search_per_second: {} }}\n\
             state: {dir}/state.json\n\
             telemetry: {{ prometheus: null, socket: {dir}/gate.sock }}\n\
             pairings:\n  - name: bench\n    suite: {{ aead: {} }}\n    salt: {}\n    pms: {}\n\
             \x20   clients: [ {{ prefix: \"{CLIENTS}\" }} ]\n\
             \x20   servers: [ {{ prefix: \"{SERVERS}\", group: web }} ]\n",
            self.inside,
            self.outside,
            self.mbufs,
            self.flows,
            self.rotation,
            self.searches,
            self.aead,
            "3b9c51".repeat(11).get(..64).unwrap_or_default(),
            "c5e024".repeat(11).get(..64).unwrap_or_default(),
        )
    }

    /// What workers read of it at a start, on a clock of `tsc_hz`.
    pub fn snapshot(&self, tsc_hz: u64) -> Result<Snapshot> {
        let dir = Path::new("/nonexistent");
        let config = Config::parse(&self.yaml(dir), &dir.join("bench.yaml"))?;
        let inputs = Inputs {
            previous: None,
            serial: 1,
            tsc_hz,
            new_era: false,
        };
        Ok(Snapshot::build(
            &config,
            &[],
            &mut State::in_memory(),
            inputs,
        )?)
    }
}
