//! Registration, byte by byte, by peers that were written apart from the appliance's.

#[path = "../common/mod.rs"]
mod common;
#[path = "../wirepeer/mod.rs"]
mod wirepeer;

mod primaries;
mod secondaries;

use wirepeer::conn::Door;
use wirepeer::secret::{Prk, Suite, X25519};
use wirepeer::site::Primary;

const OURS: &str = "2001:db8:1::/64";
const OURS_TOO: &str = "2001:db8:11::/64";
const THEIRS: &str = "2001:db8:2::/64";
const THEIRS_TOO: &str = "2001:db8:22::/64";

const DEFAULT: Suite = Suite {
    kem: X25519,
    aead: 1,
};
/// A pairing in which the Primary under test is the server.
fn as_server(name: &str, peer: &str, extra: &str) -> String {
    format!(
        "    - name: {name}\n      peer: {peer}\n      role: server\n      entries: [{{ prefix: \"{OURS}\", group: web }}, {{ prefix: \"{OURS_TOO}\", group: mail }}]\n{extra}"
    )
}

/// A pairing in which the Primary under test is the client.
fn as_client(name: &str, peer: &str, door: &Door, extra: &str) -> String {
    format!(
        "    - name: {name}\n      peer: {peer}\n      role: client\n      connect: [\"127.0.0.1:{}\"]\n      entries: [{{ prefix: \"{OURS}\" }}, {{ prefix: \"{OURS_TOO}\" }}]\n{extra}",
        door.port()
    )
}

fn sealing(primary: &Primary, pairing: &str, prk: &Prk) -> bool {
    let newest = &primary.pairing(pairing)["secrets"][0];
    newest["id"] == hex::encode(prk.fingerprint()) && newest["sealing"] == true
}
