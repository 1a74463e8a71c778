//! A peer written apart from pdmgate's, from docs/registration.md alone: CBOR, TLS, HPKE and the key schedule, and a Primary to try it on.
#![allow(dead_code, reason = "each test uses a part of the peer")]

pub mod cbor;
pub mod conn;
pub mod ends;
pub mod rules;
pub mod secret;
pub mod site;

use std::time::{Duration, Instant};

/// How long anything may take that has to happen.
pub const SOON: Duration = Duration::from_secs(10);

/// Waits until `holds`.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
