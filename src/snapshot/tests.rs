//! Look-ups against a naive search, epochs over starts and reloads, and keys against the vectors.

mod granted;
mod lists;
pub(crate) mod primary;
mod refused;
mod reload;
mod vectors;

use std::path::Path;

use super::*;
use crate::config::Config;

/// A clock of 1 GHz.
const HZ: u64 = 1_000_000_000;
const PORTS: &str =
    "ports: { inside: { device: net_ring0 }, outside: { device: net_ring1 } }\npairings:\n";

fn config(pairings: &str) -> Config {
    Config::parse(&format!("{PORTS}{pairings}"), Path::new("test.yaml")).expect("valid")
}

/// A pairing with a secret made of one digit.
fn pairing(name: &str, pms: char, rest: &str) -> String {
    let secret = |digit: char| digit.to_string().repeat(64);
    format!(
        "- name: {name}\n  salt: {}\n  pms: {}\n{rest}",
        secret('5'),
        secret(pms)
    )
}

const LISTS: &str = "  clients: [ { prefix: '2001:db8:1::/64', generation: 4 } ]
  servers: [ { prefix: '2001:db8:2::/64', generation: 7, group: web } ]\n";

fn inputs(previous: Option<&Snapshot>) -> Inputs<'_> {
    Inputs {
        previous,
        serial: previous.map_or(1, |previous| previous.serial + 1),
        tsc_hz: HZ,
        new_era: false,
    }
}

fn build(config: &Config, state: &mut State, previous: Option<&Snapshot>) -> Snapshot {
    Snapshot::build(config, &[], state, inputs(previous)).expect("a snapshot")
}

fn address(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>()
        .expect("an address")
        .octets()
}

fn route(snapshot: &Snapshot, local: &str, remote: &str) -> Route {
    snapshot
        .resolve(&address(local), &address(remote))
        .expect("a route")
}

/// A client of [`LISTS`] inside, a server outside.
fn client_side(snapshot: &Snapshot) -> Route {
    route(snapshot, "2001:db8:1::17", "2001:db8:2::1")
}

/// A server of [`LISTS`] inside, a client outside.
fn server_side(snapshot: &Snapshot) -> Route {
    route(snapshot, "2001:db8:2::1", "2001:db8:1::17")
}

fn tuple() -> FiveTuple {
    FiveTuple {
        src: address("2001:db8:1::17"),
        dst: address("2001:db8:2::1"),
        sport: 5353,
        dport: 53,
        protocol: 17,
    }
}

/// (PMS, sender's generation, receiver's generation) of each epoch.
fn epochs(snapshot: &Snapshot, route: &Route) -> Vec<(u32, u32, u32)> {
    snapshot
        .receive_epochs(route)
        .map(|e| (e.pms_serial, e.src_generation, e.dst_generation))
        .collect()
}
