//! The numbers of the configuration as workers need them: durations in TSC cycles, words as the branches they decide.

use std::time::Duration;

use crate::config::{Config, FailedOpen, Malformed, OverMtu, Protection};

/// What happens to packets, when keys change, how far the receiver looks.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Option Type of PDM and PDMv2, 2 to 31.
    pub option_type: u8,
    /// Bytes of the largest IPv6 packet on the outside link, option included.
    pub mtu: u16,
    /// What happens to a packet that the option would make larger.
    pub over_mtu: OverMtu,
    /// Source of Packet Too Big messages, network order; `None`: the packet's own destination.
    pub icmp_source: Option<[u8; 16]>,
    /// Whether the MSS of TCP SYNs is lowered.
    pub mss_clamp: bool,
    /// Whether malformed packets are dropped; else they pass as they are.
    pub drop_malformed: bool,
    /// Whether packets whose option does not open are dropped; else they go on without it.
    pub drop_failed_open: bool,
    /// Limit on failed opens of one peer entry.
    pub throttle: Option<Throttle>,
    /// Whether failed opens are logged.
    pub log_failures: bool,
    /// Packets of a direction under one key, 256 to 32767.
    pub packets_per_key: u16,
    /// Age at which a key is changed, in cycles.
    pub key_age_cycles: u64,
    /// Time without a packet after which a flow goes, in cycles.
    pub idle_cycles: u64,
    /// Key indices tried ahead, 1 to 1024.
    pub kri_window: u32,
    /// Keys that a worker may derive for the search, a second.
    pub search_per_second: u32,
}

/// Past `failures` failed opens of one peer entry within `window_cycles`, its options are not tried until the window ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// Failed opens.
    pub failures: u32,
    /// The window, in cycles.
    pub window_cycles: u64,
}

/// IPv6 and TCP header without options.
const IPV6_AND_TCP: u16 = 40 + 20;

impl Policy {
    pub(super) fn new(config: &Config, tsc_hz: u64) -> Self {
        let policy = &config.policy;
        let cycles = |duration| cycles(duration, tsc_hz);
        Self {
            option_type: policy.option_type.get(),
            mtu: policy.mtu.get(),
            over_mtu: policy.over_mtu,
            icmp_source: policy.icmp_source.map(|address| address.octets()),
            mss_clamp: policy.mss_clamp,
            drop_malformed: policy.malformed == Malformed::Drop,
            drop_failed_open: policy.failed_open == FailedOpen::Drop,
            throttle: policy.throttle.as_ref().map(|throttle| Throttle {
                failures: throttle.failures.get(),
                window_cycles: cycles(throttle.window.get()),
            }),
            log_failures: policy.log_failures,
            packets_per_key: config.rotation.packets.get(),
            key_age_cycles: cycles(config.rotation.age.get()),
            idle_cycles: cycles(config.flows.idle_timeout.get()),
            kri_window: config.receiver.kri_window.get().into(),
            search_per_second: config.receiver.search_per_second.get(),
        }
    }

    /// Bytes that a Destination Options header of its own adds to a packet.
    #[must_use]
    pub fn growth(&self, protection: Protection) -> u16 {
        match protection {
            Protection::Sealed => self.sealed_growth(),
            Protection::Clear => self.clear_growth(),
        }
    }

    /// Bytes of a Destination Options header that carries only the sealed option (protocol section 1).
    #[must_use]
    pub fn sealed_growth(&self) -> u16 {
        40
    }

    /// Bytes of a Destination Options header that carries only the clear option (protocol section 1).
    #[must_use]
    pub fn clear_growth(&self) -> u16 {
        24
    }

    /// The largest TCP segment that fits the MTU beside a header of `growth` bytes.
    #[must_use]
    pub fn mss(&self, growth: u16) -> u16 {
        self.mtu.saturating_sub(IPV6_AND_TCP + growth)
    }
}

/// A duration in cycles of a clock of `hz`.
fn cycles(duration: Duration, hz: u64) -> u64 {
    // At most 30 days, 2.6e15 ns, times 2^64: fits 128 bits.
    let cycles = duration.as_nanos() * u128::from(hz) / 1_000_000_000;
    u64::try_from(cycles).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_cycles() {
        assert_eq!(cycles(Duration::from_millis(1), 2_600_000_000), 2_600_000);
        assert_eq!(cycles(Duration::from_secs(2_592_000), u64::MAX), u64::MAX);
        assert_eq!(cycles(Duration::from_secs(1), 0), 0);
    }
}
