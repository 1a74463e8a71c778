//! Prometheus text exposition, format 0.0.4.
//!
//! Names follow the conventions that `promtool check metrics` enforces: prefix `pdmgate_`, counters end in `_total`,
//! delays are histograms in seconds, sizes are bytes.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry as Exposition;

use super::counters::{Direction, FAMILIES, Family, Split, Totals, Turns, WorkerCounters};
use super::histogram::Delays;
use super::pairing::{PairingCounter, PairingStats};
use super::records::Gauges;

/// The media type of what [`render`] writes.
pub use prometheus_text::CONTENT_TYPE;

/// Upper bounds of the delay histograms, in nanoseconds: 1, 2.5, 5 a decade, from 1 µs to 10 s.
const BOUNDS_NS: [u64; 22] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// The exposition of everything that is counted.
#[must_use]
pub fn render(
    workers: &[Arc<WorkerCounters>],
    pairings: Vec<Arc<PairingStats>>,
    gauges: Gauges,
) -> String {
    let reading = Reading {
        totals: Totals::over(workers.iter().map(AsRef::as_ref)),
        workers: workers.to_vec(),
        pairings,
        gauges,
    };
    exposition(reading)
}

/// The exposition of what one collector tells, every name behind `pdmgate_`.
pub(crate) fn exposition(reading: impl Collector) -> String {
    let mut exposition = Exposition::with_prefix("pdmgate");
    exposition.register_collector(Box::new(reading));
    let mut text = String::new();
    // A String takes whatever is written to it; the error is the format trait's, not a case of ours.
    let _ = prometheus_text::encode(&mut text, &exposition);
    text
}

#[derive(Debug)]
struct Reading {
    totals: Totals,
    workers: Vec<Arc<WorkerCounters>>,
    pairings: Vec<Arc<PairingStats>>,
    gauges: Gauges,
}

/// Names and values.
pub(crate) type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in FAMILIES {
            self.family(&mut encoder, family)?;
        }
        self.polls(&mut encoder)?;
        self.pairings(&mut encoder)?;
        self.ports(&mut encoder)?;
        let flows = self.gauges.flows;
        gauges(
            &mut encoder,
            "flows",
            "Flows in the flow table",
            [(vec![], flows.in_use)],
        )?;
        gauges(
            &mut encoder,
            "flow_capacity",
            "Flows that the flow table has room for",
            [(vec![], flows.capacity)],
        )?;
        gauges(
            &mut encoder,
            "build_info",
            "Always 1; its labels tell what runs",
            [(vec![("version", env!("CARGO_PKG_VERSION"))], 1)],
        )
    }
}

impl Reading {
    fn family(&self, encoder: &mut DescriptorEncoder<'_>, family: &Family) -> fmt::Result {
        let by_label = |value| family.label.map(|label| (label, value));
        let series: Vec<(Labels<'_>, u64)> = match family.split {
            Split::Merged => family
                .members
                .iter()
                .map(|m| {
                    (
                        by_label(m.counter.label_value()).into_iter().collect(),
                        self.totals.both(m.counter),
                    )
                })
                .collect(),
            Split::Directed => Direction::ALL
                .into_iter()
                .flat_map(|direction| {
                    let members = family.members.iter();
                    members
                        .filter(move |m| m.scope.contains(direction))
                        .map(move |m| {
                            let mut labels = vec![("direction", direction.label())];
                            labels.extend(by_label(m.counter.label_value()));
                            (labels, self.totals.get(direction, m.counter))
                        })
                })
                .collect(),
        };
        counters(encoder, family.name, family.help, series)
    }

    fn polls(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let names: Vec<String> = (0..self.workers.len()).map(|n| n.to_string()).collect();
        let series = |of: fn(&Turns) -> u64| {
            let workers = self.workers.iter().zip(&names);
            workers.flat_map(move |(worker, name)| {
                [("busy", &worker.busy), ("idle", &worker.idle)].map(|(state, turns)| {
                    (vec![("worker", name.as_str()), ("state", state)], of(turns))
                })
            })
        };
        counters(
            encoder,
            "worker_polls",
            "Turns of a worker's poll loop, by whether they found a packet",
            series(Turns::polls),
        )?;
        counters(
            encoder,
            "worker_cycles",
            "TSC cycles of these turns: what part of them is busy is how loaded the worker is",
            series(Turns::cycles),
        )
    }

    fn pairings(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for counter in PairingCounter::ALL {
            let series = self
                .pairings
                .iter()
                .map(|p| (vec![("pairing", p.name())], p.get(*counter)));
            let name = format!("pairing_{}", counter.name());
            counters(encoder, &name, counter.help(), series)?;
        }
        let delays = |read: fn(&PairingStats) -> Delays| {
            let pairings = self.pairings.iter();
            pairings.map(move |p| (vec![("pairing", p.name())], read(p)))
        };
        histograms(
            encoder,
            "rtt_seconds",
            "Network round-trip time",
            delays(PairingStats::rtt),
        )?;
        histograms(
            encoder,
            "server_delay_seconds",
            "Time between a packet's arrival at the peer and its answer",
            delays(PairingStats::server_delay),
        )
    }

    fn ports(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ports = &self.gauges.ports;
        let link = ports
            .iter()
            .map(|p| (vec![("port", p.name.as_str())], u64::from(p.link_up)));
        gauges(
            encoder,
            "port_link_up",
            "Whether the port's link is up",
            link,
        )?;
        let errors = ports.iter().flat_map(|p| {
            [
                ("receive_missed", p.receive_missed),
                ("receive_error", p.receive_errors),
                ("receive_no_buffer", p.receive_no_buffer),
                ("transmit_error", p.transmit_errors),
            ]
            .map(|(kind, n)| (vec![("port", p.name.as_str()), ("kind", kind)], n))
        });
        counters(
            encoder,
            "port_errors",
            "Packets that the port's driver lost or refused",
            errors,
        )
    }
}

pub(crate) fn counters<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Labels<'a>, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, n) in series {
        ConstCounter::new(n).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

pub(crate) fn gauges<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Labels<'a>, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, n) in series {
        ConstGauge::new(n).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn histograms<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Labels<'a>, Delays)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, delays) in series {
        let bounds = BOUNDS_NS
            .iter()
            .map(|ns| seconds(*ns))
            .chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(delays.between(&BOUNDS_NS)).collect();
        family
            .encode_family(&labels)?
            .encode_histogram::<Labels<'_>>(
                seconds(delays.sum_ns),
                delays.count(),
                &buckets,
                None,
            )?;
    }
    Ok(())
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::telemetry::records::{FlowTable, Port};
    use crate::telemetry::{Counter, Registry};

    fn sample() -> String {
        let workers = [
            Arc::new(WorkerCounters::default()),
            Arc::new(WorkerCounters::default()),
        ];
        for worker in &workers {
            worker.of(Direction::Out).add(Counter::MarkedSealed, 21);
            worker.of(Direction::In).add(Counter::PassedNotMarked, 2);
            worker.polled(true, 700);
        }
        let registry = Registry::new(2);
        let campus = registry.register("a \"name\"\nto escape").unwrap();
        campus.worker(0).record_rtt_ns(900);
        campus.worker(1).record_rtt_ns(3_000_000);
        campus.worker(1).record_rtt_ns(60_000_000_000);
        campus.worker(1).add(PairingCounter::Skipped, 4);
        let gauges = Gauges {
            flows: FlowTable {
                in_use: 5,
                capacity: 1_048_576,
            },
            ports: vec![Port {
                name: "inside".to_owned(),
                link_up: true,
                receive_missed: 8,
                ..Port::default()
            }],
            ..Gauges::default()
        };
        render(&workers, registry.all(), gauges)
    }

    #[test]
    fn series_carry_their_labels_and_sums() {
        let text = sample();
        for line in [
            "# TYPE pdmgate_marked_total counter",
            "pdmgate_marked_total{protection=\"sealed\"} 42",
            "pdmgate_passed_total{direction=\"in\",reason=\"not_marked\"} 4",
            "pdmgate_opened_total 0",
            "pdmgate_worker_polls_total{worker=\"1\",state=\"busy\"} 1",
            "pdmgate_worker_cycles_total{worker=\"1\",state=\"busy\"} 700",
            "pdmgate_pairing_skipped_total{pairing=\"a \\\"name\\\"\\nto escape\"} 4",
            "pdmgate_port_link_up{port=\"inside\"} 1",
            "pdmgate_port_errors_total{port=\"inside\",kind=\"receive_missed\"} 8",
            "pdmgate_flows 5",
            "pdmgate_flow_capacity 1048576",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains("direction=\"in\",reason=\"over_mtu\""));
    }

    #[test]
    fn histograms_are_cumulative_and_in_seconds() {
        let text = sample();
        let bucket = |bound: &str| -> u64 {
            let wanted = format!("le=\"{bound}\"");
            let line = text
                .lines()
                .find(|l| l.starts_with("pdmgate_rtt_seconds_bucket") && l.contains(&wanted))
                .unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert_eq!(bucket("0.001"), 1);
        assert_eq!(bucket("0.005"), 2);
        assert_eq!(bucket("10"), 2);
        assert_eq!(bucket("+Inf"), 3);
        assert!(text.contains("pdmgate_rtt_seconds_count"));
    }

    #[test]
    fn promtool_accepts_it() {
        let Ok(mut promtool) = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
        else {
            eprintln!("skipped: promtool is not installed (package prometheus)");
            return;
        };
        let mut stdin = promtool.stdin.take().unwrap();
        stdin.write_all(sample().as_bytes()).unwrap();
        drop(stdin);
        let output = promtool.wait_with_output().unwrap();
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaints}");
        assert!(complaints.is_empty(), "{complaints}");
    }
}
