//! What `pdmgate stats` and `pdmgate flows` get as JSON over the local socket.
//!
//! The field names here are the appliance's interface to scripts: they may be added to, not renamed. Delays are whole
//! nanoseconds, spans of time are seconds.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use super::counters::{Direction, FAMILIES, Family, Member, Split, Totals};
use super::histogram::Delays;
use super::pairing::{PairingCounter, PairingStats};

/// What only the management core knows; it fills this for each answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gauges {
    /// Seconds since the workers started.
    pub uptime_s: f64,
    /// The flow table.
    pub flows: FlowTable,
    /// The ports, inside first.
    pub ports: Vec<Port>,
    /// The CPU core of each worker.
    pub worker_cores: Vec<usize>,
}

/// How full the flow table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTable {
    /// Flows it holds.
    pub in_use: u64,
    /// Flows it has room for.
    pub capacity: u64,
}

/// State of a port, and what its driver counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// `inside` or `outside`.
    pub name: String,
    /// Whether the link is up.
    pub link_up: bool,
    /// Packets that the receive queues had no room for (`imissed`).
    pub receive_missed: u64,
    /// Packets received with an error (`ierrors`).
    pub receive_errors: u64,
    /// Packets for which no buffer was free (`rx_nombuf`).
    pub receive_no_buffer: u64,
    /// Packets that could not be sent (`oerrors`).
    pub transmit_errors: u64,
}

/// Counters by family, then by direction if the family has one, then by the value of the family's label if it has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CounterTree {
    /// A number.
    Count(u64),
    /// The next level.
    Split(BTreeMap<String, CounterTree>),
}

impl CounterTree {
    /// All families of `totals`.
    #[must_use]
    pub fn of(totals: &Totals) -> Self {
        let families = FAMILIES
            .iter()
            .map(|family| (family.name.to_owned(), Self::of_family(family, totals)));
        Self::Split(families.collect())
    }

    fn of_family(family: &Family, totals: &Totals) -> Self {
        match family.split {
            Split::Merged => {
                Self::of_members(family, |_| true, |member| totals.both(member.counter))
            }
            Split::Directed => {
                let directions = Direction::ALL.into_iter().map(|direction| {
                    let members = Self::of_members(
                        family,
                        |member| member.scope.contains(direction),
                        |member| totals.get(direction, member.counter),
                    );
                    (direction.label().to_owned(), members)
                });
                Self::Split(directions.collect())
            }
        }
    }

    fn of_members(
        family: &Family,
        occurs: impl Fn(&Member) -> bool,
        count: impl Fn(&Member) -> u64,
    ) -> Self {
        if family.label.is_none() {
            return Self::Count(family.members.first().map_or(0, count));
        }
        let members = family.members.iter().filter(|member| occurs(member));
        Self::Split(
            members
                .map(|member| {
                    (
                        member.counter.label_value().to_owned(),
                        Self::Count(count(member)),
                    )
                })
                .collect(),
        )
    }

    /// Every number with the path that leads to it.
    #[must_use]
    pub fn leaves(&self) -> Vec<(Vec<&str>, u64)> {
        match self {
            Self::Count(n) => vec![(Vec::new(), *n)],
            Self::Split(children) => children
                .iter()
                .flat_map(|(name, child)| {
                    child.leaves().into_iter().map(move |(mut path, n)| {
                        path.insert(0, name.as_str());
                        (path, n)
                    })
                })
                .collect(),
        }
    }
}

/// The answer to `/v1/stats`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Version of the appliance.
    pub version: String,
    /// Seconds since the workers started.
    pub uptime_s: f64,
    /// The flow table.
    pub flows: FlowTable,
    /// The ports, inside first.
    pub ports: Vec<Port>,
    /// Counters over all workers.
    pub counters: CounterTree,
    /// Each worker apart.
    pub workers: Vec<WorkerStats>,
    /// Each pairing apart.
    pub pairings: Vec<PairingRecord>,
}

/// One worker's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStats {
    /// Index, which is also that of its queues.
    pub index: usize,
    /// CPU core that it is pinned to.
    pub core: Option<usize>,
    /// Turns of the poll loop that found a packet.
    pub busy_polls: u64,
    /// Turns of the poll loop that found none.
    pub idle_polls: u64,
    /// TSC cycles of turns that found a packet.
    pub busy_cycles: u64,
    /// TSC cycles of turns that found none, with what the worker rested in them.
    pub idle_cycles: u64,
    /// Its counters.
    pub counters: CounterTree,
}

/// One pairing's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairingRecord {
    /// Name of the pairing.
    pub name: String,
    /// Counters by name.
    pub counters: BTreeMap<String, u64>,
    /// Network round-trip time; null before the first sample.
    pub rtt_ns: Option<Quantiles>,
    /// Server delay of the peers; null before the first sample.
    pub server_delay_ns: Option<Quantiles>,
}

impl From<&PairingStats> for PairingRecord {
    fn from(stats: &PairingStats) -> Self {
        let counters = PairingCounter::ALL
            .iter()
            .map(|counter| (counter.name().to_owned(), stats.get(*counter)));
        Self {
            name: stats.name().to_owned(),
            counters: counters.collect(),
            rtt_ns: Quantiles::of(&stats.rtt()),
            server_delay_ns: Quantiles::of(&stats.server_delay()),
        }
    }
}

/// A distribution of delays, in nanoseconds, within 0.5 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Number of samples.
    pub count: u64,
    /// Mean.
    pub mean: u64,
    /// Median.
    pub p50: u64,
    /// 9 of 10 samples are at most this.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1,000.
    #[serde(rename = "p99.9")]
    pub p999: u64,
    /// The largest.
    pub max: u64,
}

impl Quantiles {
    /// None without a sample.
    #[must_use]
    pub fn of(delays: &Delays) -> Option<Self> {
        let hdr = delays.to_hdr();
        let mean = delays.sum_ns.checked_div(hdr.len())?;
        Some(Self {
            count: hdr.len(),
            mean,
            p50: hdr.value_at_quantile(0.5),
            p90: hdr.value_at_quantile(0.9),
            p99: hdr.value_at_quantile(0.99),
            p999: hdr.value_at_quantile(0.999),
            max: hdr.max(),
        })
    }
}

/// One flow: both directions of a 5-tuple, told from the side that the appliance protects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// Address of the host behind the inside port.
    pub local_address: Ipv6Addr,
    /// Its port; 0 for protocols that have none.
    pub local_port: u16,
    /// Address of the other host.
    pub remote_address: Ipv6Addr,
    /// Its port; 0 for protocols that have none.
    pub remote_port: u16,
    /// Upper-layer protocol, an IANA protocol number.
    pub protocol: u8,
    /// Its name, in lower case.
    pub protocol_name: Cow<'static, str>,
    /// Name of the pairing.
    pub pairing: String,
    /// Packets marked.
    pub packets_out: u64,
    /// Packets whose option was read.
    pub packets_in: u64,
    /// Network round-trip time; null before the first sample.
    pub rtt_ns: Option<FlowDelays>,
    /// The remote host's delay; null before the first sample.
    pub server_delay_ns: Option<FlowDelays>,
    /// Packets from the remote host that never arrived.
    pub lost: u64,
    /// Packets from the remote host that arrived behind a later one.
    pub reordered: u64,
    /// Options dropped as replays.
    pub replayed: u64,
    /// Options that failed to open.
    pub failed: u64,
    /// Kri of the key that seals; null while nothing was sealed.
    pub kri_out: Option<u32>,
    /// Kri of the key that opened last; null before the first.
    pub kri_in: Option<u32>,
    /// Generations of the epochs in use.
    pub generations: Generations,
    /// Seconds since the flow was created.
    pub age_s: f64,
    /// Seconds since its last packet.
    pub idle_s: f64,
}

/// Delays of one flow, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowDelays {
    /// The latest.
    pub last: u64,
    /// The smallest.
    pub min: u64,
    /// A moving average.
    pub smoothed: u64,
    /// The largest.
    pub max: u64,
    /// Number of samples.
    pub samples: u64,
}

/// Generations of the two ends (section 4 of the protocol page).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generations {
    /// The appliance's own.
    pub local: u32,
    /// The peer's; null before an option of it opened.
    pub remote: Option<u32>,
}

/// The name of an upper-layer protocol, or its number where it has no common name.
#[must_use]
pub fn protocol_name(protocol: u8) -> Cow<'static, str> {
    Cow::Borrowed(match protocol {
        4 => "ipip",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        41 => "ipv6",
        47 => "gre",
        58 => "icmpv6",
        89 => "ospf",
        103 => "pim",
        112 => "vrrp",
        132 => "sctp",
        136 => "udplite",
        other => return Cow::Owned(other.to_string()),
    })
}

/// What `/v1/flows` is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowQuery {
    /// At most so many flows; 0 is all of them.
    pub limit: usize,
    /// Which come first.
    pub sort: FlowSort,
    /// Only flows of this pairing.
    pub pairing: Option<String>,
}

impl Default for FlowQuery {
    fn default() -> Self {
        Self {
            limit: 100,
            sort: FlowSort::Packets,
            pairing: None,
        }
    }
}

/// Order of flows: the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FlowSort {
    /// By packets in both directions.
    #[default]
    Packets,
    /// By smoothed round-trip time.
    Rtt,
    /// By packets lost.
    Loss,
}

impl FlowSort {
    /// Its name, as in the query and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Rtt => "rtt",
            Self::Loss => "loss",
        }
    }

    fn key(self, flow: &FlowRecord) -> u64 {
        match self {
            Self::Packets => flow.packets_out + flow.packets_in,
            Self::Rtt => flow.rtt_ns.map_or(0, |rtt| rtt.smoothed),
            Self::Loss => flow.lost,
        }
    }
}

impl FlowQuery {
    /// The flows that are asked for, in order, of those that `each` shows to the function it is given. Holds at most twice the
    /// limit at a time, however many flows there are.
    pub fn select(&self, each: impl FnOnce(&mut dyn FnMut(FlowRecord))) -> Vec<FlowRecord> {
        let limit = if self.limit == 0 {
            usize::MAX
        } else {
            self.limit
        };
        let mut best = Vec::new();
        each(&mut |flow| {
            if self.pairing.as_ref().is_none_or(|p| *p == flow.pairing) {
                best.push(flow);
            }
            if best.len() >= limit.saturating_mul(2) {
                self.cut(&mut best, limit);
            }
        });
        self.cut(&mut best, limit);
        best
    }

    fn cut(&self, flows: &mut Vec<FlowRecord>, limit: usize) {
        flows.sort_by_key(|flow| Reverse(self.sort.key(flow)));
        flows.truncate(limit);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::telemetry::{Counter, WorkerCounters};

    /// A flow that differs from the next one in everything that is sorted or filtered by.
    pub(crate) fn sample_flow(n: u16) -> FlowRecord {
        FlowRecord {
            local_address: "2001:db8:1::10".parse().unwrap(),
            local_port: 40_000 + n,
            remote_address: "2001:db8:2::20".parse().unwrap(),
            remote_port: 443,
            protocol: 6,
            protocol_name: protocol_name(6),
            pairing: if n.is_multiple_of(2) { "even" } else { "odd" }.to_owned(),
            packets_out: 1_000 + u64::from(n),
            packets_in: 2_000,
            rtt_ns: (n > 0).then(|| FlowDelays {
                last: 1_200_000,
                min: 120_000,
                smoothed: 1_000_000 - u64::from(n),
                max: 5_000_000,
                samples: 77,
            }),
            server_delay_ns: None,
            lost: u64::from(n % 5),
            reordered: 0,
            replayed: 0,
            failed: 0,
            kri_out: Some(3),
            kri_in: None,
            generations: Generations {
                local: 1,
                remote: None,
            },
            age_s: 75.5,
            idle_s: 0.25,
        }
    }

    #[test]
    fn counters_nest_by_family_direction_and_label() {
        let worker = WorkerCounters::default();
        worker.of(Direction::Out).add(Counter::PassedIpv4, 3);
        worker.of(Direction::Out).add(Counter::MarkedSealed, 5);
        worker.of(Direction::In).add(Counter::Opened, 7);
        worker.of(Direction::In).add(Counter::PacketsReceived, 9);
        let tree = CounterTree::of(&Totals::over([&worker]));
        let json = serde_json::to_value(&tree).unwrap();
        assert_eq!(json["passed"]["out"]["ipv4"], 3);
        assert_eq!(json["passed"]["in"]["ipv4"], 0);
        assert!(json["passed"]["in"].get("over_mtu").is_none());
        assert_eq!(json["marked"]["sealed"], 5);
        assert_eq!(json["opened"], 7);
        assert_eq!(json["packets_received"]["in"], 9);
        assert_eq!(serde_json::from_value::<CounterTree>(json).unwrap(), tree);
        assert!(tree.leaves().contains(&(vec!["passed", "out", "ipv4"], 3)));
    }

    #[test]
    fn quantiles_need_a_sample() {
        use crate::telemetry::Registry;
        let stats = Registry::new(1).register("a").unwrap();
        assert_eq!(PairingRecord::from(&*stats).rtt_ns, None);
        for ms in 1..=1_000 {
            stats.worker(0).record_rtt_ns(ms * 1_000_000);
        }
        let rtt = PairingRecord::from(&*stats).rtt_ns.unwrap();
        assert_eq!(rtt.count, 1_000);
        assert_eq!(rtt.mean, 500_500_000);
        assert!(rtt.p50.abs_diff(500_000_000) < 5_000_000);
        assert!(rtt.p999.abs_diff(999_000_000) < 10_000_000);
        let json = serde_json::to_value(rtt).unwrap();
        assert!(json["p99.9"].is_u64());
    }

    #[test]
    fn flows_are_selected_in_order() {
        let all = || (0..1_000).map(sample_flow);
        let query = FlowQuery {
            limit: 3,
            ..FlowQuery::default()
        };
        let ports = |query: &FlowQuery| -> Vec<u16> {
            let flows = query.select(|take| all().for_each(take));
            flows.iter().map(|f| f.local_port - 40_000).collect()
        };
        assert_eq!(ports(&query), [999, 998, 997]);
        let by_rtt = FlowQuery {
            sort: FlowSort::Rtt,
            ..query.clone()
        };
        assert_eq!(ports(&by_rtt), [1, 2, 3]);
        let by_loss = FlowQuery {
            sort: FlowSort::Loss,
            ..query.clone()
        };
        assert_eq!(ports(&by_loss), [4, 9, 14]);
        let odd = FlowQuery {
            pairing: Some("odd".to_owned()),
            ..query
        };
        assert_eq!(ports(&odd), [999, 997, 995]);
        let everything = FlowQuery {
            limit: 0,
            ..FlowQuery::default()
        };
        assert_eq!(ports(&everything).len(), 1_000);
    }

    #[test]
    fn records_survive_json() {
        let flow = sample_flow(7);
        let json = serde_json::to_string(&flow).unwrap();
        assert_eq!(serde_json::from_str::<FlowRecord>(&json).unwrap(), flow);
    }

    #[test]
    fn protocols_without_a_common_name_show_their_number() {
        assert_eq!(protocol_name(58), "icmpv6");
        assert_eq!(protocol_name(200), "200");
    }
}
