//! The sections of the file, one type each, one comment a field: what it is, its unit, its range and its default.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer};

use super::{
    scalar::{At, Period, Whole, words},
    types::{Device, Listen, Unicast},
};

/// `ports`: the two links between which the appliance stands, and their queues.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// The link to the protected hosts. Must be given.
    pub inside: Port,
    /// The link to the rest of the network. Must be given.
    pub outside: Port,
    /// Receive queues, and as many transmit queues, of each port; one worker serves one queue of both. 1 to 64, default 1.
    #[serde(default = "one_queue")]
    pub queues: At<Whole<u16, 1, 64>>,
    /// Descriptors of each receive queue. 64 to 32768, default 1024; the driver rounds it to what the device can.
    #[serde(default = "descriptors")]
    pub rx_descriptors: Whole<u16, 64, 32768>,
    /// Descriptors of each transmit queue. 64 to 32768, default 1024; the driver rounds it to what the device can.
    #[serde(default = "descriptors")]
    pub tx_descriptors: Whole<u16, 64, 32768>,
    /// MTU of both ports: bytes of the largest IPv6 packet that they take and send. 1280 to 9702, at least `policy.mtu`. Default null:
    /// 1500, or `policy.mtu` if that is more.
    #[serde(default)]
    pub mtu: Option<At<Mtu>>,
    /// Whether the ports take frames for every MAC address, as a box in the middle must. Default true.
    #[serde(default = "yes")]
    pub promiscuous: bool,
    /// What the devices spread over the queues by. Default `addresses`.
    #[serde(default)]
    pub rss: Rss,
}

/// One port.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// A PCI address, or a virtual device with its arguments. Must be given.
    pub device: At<Device>,
}

words! {
    /// `ports.rss`: the fields of a packet that choose its queue, by a hash that is the same in both directions.
    #[derive(Default)]
    Rss {
        /// Source and destination address: the same queue with and without the option, and for fragments.
        #[default]
        Addresses = "addresses",
        /// Addresses and ports: spreads few hosts over many queues; devices differ on packets that carry the option.
        AddressesAndPorts = "addresses-and-ports",
    }
}

fn one_queue() -> At<Whole<u16, 1, 64>> {
    Whole(1).into()
}

fn descriptors() -> Whole<u16, 64, 32768> {
    Whole(1024)
}

fn yes() -> bool {
    true
}

/// `workers`: the threads that carry packets.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Workers {
    /// CPU cores of the workers, one each, 0 to 1023, as many as `ports.queues`. Default null: chosen at start among the cores the
    /// process may use.
    pub cores: Option<At<Vec<Core>>>,
    /// What a worker does while no packet comes. Default `poll`.
    pub idle: Idle,
}

/// The number of a CPU core.
pub type Core = Whole<u16, 0, 1023>;

words! {
    /// `workers.idle`: what a worker does while no packet comes.
    #[derive(Default)]
    Idle {
        /// Asks again at once: the lowest delay, a whole core.
        #[default]
        Poll = "poll",
        /// Asks again after the CPU's pause instruction: leaves more to the core's sibling.
        Pause = "pause",
        /// Sleeps for some tens of microseconds after a while: leaves the core to others.
        Sleep = "sleep",
    }
}

/// `management`: the thread for everything that is not a packet.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Management {
    /// Its CPU core, 0 to 1023; none of the workers' cores if these poll. Default null: chosen at start.
    pub core: Option<At<Core>>,
}

/// `eal`: the environment abstraction layer of DPDK and its memory.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Eal {
    /// Whether memory comes from hugepages. Default `auto`.
    pub hugepages: Hugepages,
    /// Packet buffers in the pool, 1024 to 4194304. Default null: 16384, or more if the queues need more.
    pub mbufs: Option<At<Whole<u32, 1024, 4_194_304>>>,
    /// Bytes of one packet buffer for a frame, without its headroom, 1302 to 16384. Must hold the ports' MTU + 14 (Ethernet) + 8
    /// (two VLAN tags). At least 2048, and what the ports' MTU needs, are taken in any case. Default null: no more than that.
    pub mbuf_size: Option<At<Whole<u16, 1302, 16384>>>,
    /// More arguments for `rte_eal_init`, as they are. Default none.
    pub extra_args: Vec<String>,
}

words! {
    /// `eal.hugepages`: where memory comes from.
    #[derive(Default)]
    Hugepages {
        /// Hugepages where there are enough, else ordinary pages.
        #[default]
        Auto = "auto",
        /// Hugepages, or no start.
        Require = "require",
        /// Ordinary pages: for laboratories and virtual devices.
        Off = "off",
    }
}

/// `flows`: the table of flows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Flows {
    /// Flows (5-tuples, both directions in one) that fit; further ones pass unmarked. 1024 to 67108864, default 1048576.
    pub capacity: Whole<u32, 1024, 67_108_864>,
    /// How long a flow without a packet is kept. 1s to 1day, default 60s.
    pub idle_timeout: Period<1_000, 86_400_000>,
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            capacity: Whole(1 << 20),
            idle_timeout: Period(Duration::from_secs(60)),
        }
    }
}

/// An MTU: bytes of an IPv6 packet.
pub type Mtu = Whole<u16, 1280, 9702>;

/// `policy`: what happens to packets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Option Type of PDM and PDMv2. 2 to 31 (0x02 to 0x1f): its top three bits must be 0, so that others skip it, and 0 and 1
    /// are padding. Default 0x0f.
    pub option_type: Whole<u8, 2, 31>,
    /// Bytes of the largest IPv6 packet that is marked, option included: what the outside link carries, or the path where that is
    /// narrower. What the ports take is `ports.mtu`. 1280 to 9702, default 1500.
    pub mtu: Mtu,
    /// What happens to a packet that the option would make larger than `mtu`. Default `pass`.
    pub over_mtu: OverMtu,
    /// Source of the ICMPv6 errors of `packet-too-big`, one unicast IPv6 address. Default null: the packet's own destination.
    pub icmp_source: Option<Unicast>,
    /// Whether the MSS of TCP SYNs is lowered so that segments leave room for the option. Default false.
    pub mss_clamp: bool,
    /// What happens to a malformed packet. Default `pass`.
    pub malformed: Malformed,
    /// What happens to a packet whose option does not open. Default `forward-stripped`.
    pub failed_open: FailedOpen,
    /// Limit on failed opens of one peer entry. Default null: no limit but `receiver.search_per_second`.
    pub throttle: Option<Throttle>,
    /// Whether failed opens are logged, by entry and at a bounded rate. Default true.
    pub log_failures: bool,
}

impl Policy {
    /// Lowers `mtu` to `most`; what it was if it was more.
    pub fn cap_mtu(&mut self, most: u16) -> Option<u16> {
        let wanted = self.mtu.get();
        if wanted <= most {
            return None;
        }
        self.mtu = Whole(most);
        Some(wanted)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            option_type: Whole(0x0f),
            mtu: Whole(1500),
            over_mtu: OverMtu::Pass,
            icmp_source: None,
            mss_clamp: false,
            malformed: Malformed::Pass,
            failed_open: FailedOpen::ForwardStripped,
            throttle: None,
            log_failures: true,
        }
    }
}

words! {
    /// `policy.over_mtu`: a packet that the option would make larger than the MTU.
    OverMtu {
        /// Goes on unmarked.
        Pass = "pass",
        /// Is answered by an ICMPv6 Packet Too Big with the reduced MTU (RFC 4443), at a bounded rate.
        PacketTooBig = "packet-too-big",
    }
}

words! {
    /// `policy.malformed`: a packet whose headers do not add up.
    Malformed {
        /// Goes on as it is.
        Pass = "pass",
        /// Is dropped.
        Drop = "drop",
    }
}

words! {
    /// `policy.failed_open`: a packet whose option does not open.
    FailedOpen {
        /// Loses the option and goes on.
        ForwardStripped = "forward-stripped",
        /// Is dropped.
        Drop = "drop",
    }
}

/// `policy.throttle`: past so many failed opens of one peer entry in a window, its options are no longer tried until the window ends.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// Failed opens of one entry in one window. 1 to 1000000. Must be given.
    pub failures: Whole<u32, 1, 1_000_000>,
    /// The window. 100ms to 1h, default 1s.
    #[serde(default = "one_second")]
    pub window: Period<100, 3_600_000>,
}

fn one_second() -> Period<100, 3_600_000> {
    Period(Duration::from_secs(1))
}

/// `rotation`: when a flow changes its key, by count or age, whichever comes first.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rotation {
    /// Packets of a direction under one key. 256 to 32767, default 32767, which is every value PRSEQ has.
    pub packets: Whole<u16, 256, 32767>,
    /// Age of a key. 1s to 30days, default 1h.
    pub age: Period<1_000, 2_592_000_000>,
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            packets: Whole(32767),
            age: Period(Duration::from_secs(3600)),
        }
    }
}

/// `receiver`: how far the receiver looks for the key of a packet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Receiver {
    /// Key indices tried ahead of the last known one. 1 to 1024, default 16.
    pub kri_window: Whole<u16, 1, 1024>,
    /// Keys that one worker may derive for the search, a second, so that forged packets buy no work. 100 to 100000000, default 200000.
    /// A worker that does not keep up derives no more than one for 32 packets besides.
    pub search_per_second: Whole<u32, 100, 100_000_000>,
}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            kri_window: Whole(16),
            search_per_second: Whole(200_000),
        }
    }
}

/// `telemetry`: where others read what the appliance measured.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Address and TCP port of the Prometheus endpoint. Default 127.0.0.1:9464; null for none.
    pub prometheus: Option<Listen>,
    /// Path of the local socket that `pdmgate flows` and `pdmgate stats` ask. Default /run/pdmgate/pdmgate.sock; null for none.
    pub socket: Option<PathBuf>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            prometheus: Some(Listen::new((Ipv4Addr::LOCALHOST, 9464).into())),
            socket: Some("/run/pdmgate/pdmgate.sock".into()),
        }
    }
}

/// Reads a section that may stand there empty (`flows:` and nothing behind it) as its defaults.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
