//! What the appliance is to reach, for the table at the head of the report.

/// On which side of the number it has to be.
#[derive(Clone, Copy)]
pub enum Bound {
    AtLeast,
    AtMost,
}

/// One line of the table.
pub struct Target {
    /// What parts name it by.
    pub id: &'static str,
    pub what: &'static str,
    pub bound: Bound,
    pub number: f64,
    pub unit: &'static str,
}

const fn at_least(id: &'static str, what: &'static str, number: f64, unit: &'static str) -> Target {
    Target {
        id,
        what,
        bound: Bound::AtLeast,
        number,
        unit,
    }
}

const fn at_most(id: &'static str, what: &'static str, number: f64, unit: &'static str) -> Target {
    Target {
        bound: Bound::AtMost,
        ..at_least(id, what, number, unit)
    }
}

/// Microseconds that 99.9 % of the packets may take longer for the appliance, where the machine itself is steadier than that.
pub const LONGEST_ADDED: f64 = 50.0;

/// All of them, in the order of the table.
pub const TARGETS: &[Target] = &[
    at_least(
        "outgoing/4096",
        "outgoing, 80 bytes, 4,096 flows, against testpmd macswap",
        0.45,
        "of its packets/s",
    ),
    at_least(
        "outgoing/65536",
        "outgoing, 80 bytes, 65,536 flows, against testpmd macswap",
        0.45,
        "of its packets/s",
    ),
    at_least(
        "incoming/4096",
        "incoming, 80 bytes, 4,096 flows, against testpmd macswap",
        0.45,
        "of its packets a cycle",
    ),
    at_least(
        "incoming/65536",
        "incoming, 80 bytes, 65,536 flows, against testpmd macswap",
        0.45,
        "of its packets a cycle",
    ),
    at_least(
        "million/rate",
        "both directions at once, 1,048,576 flows, one core",
        6.0,
        "Mpps",
    ),
    at_most(
        "million/cycles",
        "the same, cycles a packet against 65,536 flows",
        1.6,
        "times",
    ),
    at_least(
        "crypto/seal/ring",
        "seal one option, against ring",
        8.0,
        "times as fast",
    ),
    at_least(
        "crypto/open/ring",
        "open one option, against ring",
        8.0,
        "times as fast",
    ),
    at_least(
        "crypto/seal/dpdk",
        "seal one option, against crypto_aesni_gcm",
        3.0,
        "times as fast",
    ),
    at_least(
        "crypto/open/dpdk",
        "open one option, against crypto_aesni_gcm",
        3.0,
        "times as fast",
    ),
    at_most(
        "crypto/seal/aes256",
        "seal by AES-256-GCM, against AES-128-GCM",
        1.3,
        "times the cycles",
    ),
    at_most(
        "crypto/open/aes256",
        "open by AES-256-GCM, against AES-128-GCM",
        1.3,
        "times the cycles",
    ),
    at_least(
        "workers",
        "two workers on two cores against one",
        1.9,
        "times",
    ),
    at_least("new_flows", "new flows a second a core", 1e6, "/s"),
    at_most(
        "memory",
        "memory a flow at 1,048,576 flows, everything included",
        768.0,
        "bytes",
    ),
    at_most(
        "latency/median",
        "latency added at half the zero-loss rate, median",
        10.0,
        "µs",
    ),
    at_most("latency/p99.9", "the same, 99.9 %", LONGEST_ADDED, "µs"),
    at_most(
        "forged",
        "a forged packet against an honest one",
        2.0,
        "times the cycles",
    ),
];
