//! Records as people read them: aligned tables, and units that fit the size of the number.

use std::fmt::{self, Write as _};

use super::PairingCounter;
use super::records::{CounterTree, FlowRecord, PairingRecord, Stats};

/// What stands where there is no value.
const NONE: &str = "-";

/// A span in nanoseconds with two or three significant digits: `850 ns`, `1.2 ms`, `42 s`.
#[must_use]
pub fn duration(ns: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("µs", 1_000),
        ("ns", 1),
    ];
    // What would round to 1,000 of a unit is 1 of the next.
    let (unit, size) = UNITS
        .into_iter()
        .find(|(_, size)| ns >= size - size / 2_000)
        .unwrap_or(("ns", 1));
    let value = ns as f64 / size as f64;
    // 9.96 would round up to two digits before the point.
    if size > 1 && value < 9.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// A longer span in its two largest units: `12 s`, `3 min 4 s`, `2 d 5 h`.
#[must_use]
pub fn age(seconds: f64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let whole = seconds.max(0.0) as u64;
    let at = UNITS
        .iter()
        .position(|(_, size)| whole >= *size)
        .unwrap_or(UNITS.len() - 1);
    let (unit, size) = UNITS[at];
    let mut text = format!("{} {unit}", whole / size);
    if let Some((unit, smaller)) = UNITS.get(at + 1) {
        let rest = whole % size / smaller;
        if rest > 0 {
            let _ = write!(text, " {rest} {unit}");
        }
    }
    text
}

/// A number with its thousands set apart: `1,048,576`.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[derive(Clone, Copy)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows of text whose columns line up.
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header: Vec<String> = self
            .columns
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        let lines = || [&header].into_iter().chain(&self.rows);
        let width = |column: usize| {
            lines()
                .filter_map(|line| line.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        for line in lines() {
            let mut text = String::new();
            for ((cell, width), (_, align)) in line.iter().zip(&widths).zip(&self.columns) {
                match align {
                    Align::Left => write!(text, "{cell:<width$}  ")?,
                    Align::Right => write!(text, "{cell:>width$}  ")?,
                }
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

fn endpoint(address: std::net::Ipv6Addr, port: u16) -> String {
    if port == 0 {
        address.to_string()
    } else {
        format!("[{address}]:{port}")
    }
}

/// One line a flow.
#[must_use]
pub fn flows(flows: &[FlowRecord]) -> String {
    use Align::{Left, Right};
    if flows.is_empty() {
        return "No flows.\n".to_owned();
    }
    let mut table = Table::new(&[
        ("LOCAL", Left),
        ("REMOTE", Left),
        ("PROTO", Left),
        ("PAIRING", Left),
        ("OUT", Right),
        ("IN", Right),
        ("RTT", Right),
        ("MIN", Right),
        ("MAX", Right),
        ("SERVER", Right),
        ("LOST", Right),
        ("REORD", Right),
        ("FAILED", Right),
        ("AGE", Right),
    ]);
    for flow in flows {
        let rtt = |read: fn(&super::records::FlowDelays) -> u64| {
            flow.rtt_ns
                .as_ref()
                .map_or(NONE.to_owned(), |d| duration(read(d)))
        };
        table.row(vec![
            endpoint(flow.local_address, flow.local_port),
            endpoint(flow.remote_address, flow.remote_port),
            flow.protocol_name.to_string(),
            flow.pairing.clone(),
            count(flow.packets_out),
            count(flow.packets_in),
            rtt(|d| d.smoothed),
            rtt(|d| d.min),
            rtt(|d| d.max),
            flow.server_delay_ns
                .map_or(NONE.to_owned(), |d| duration(d.smoothed)),
            count(flow.lost),
            count(flow.reordered),
            count(flow.failed + flow.replayed),
            age(flow.age_s),
        ]);
    }
    table.to_string()
}

/// A page of numbers: flow table, ports, workers, pairings, and the counters that are not 0.
#[must_use]
pub fn stats(stats: &Stats) -> String {
    let mut text = format!(
        "pdmgate {}, up {}, {} of {} flows\n\n",
        stats.version,
        age(stats.uptime_s),
        count(stats.flows.in_use),
        count(stats.flows.capacity),
    );
    for part in [
        ports(stats),
        workers(stats),
        pairings(stats),
        counters(&stats.counters),
    ] {
        let _ = writeln!(text, "{part}");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn ports(stats: &Stats) -> Table {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("PORT", Left),
        ("LINK", Left),
        ("MISSED", Right),
        ("RX ERRORS", Right),
        ("NO BUFFER", Right),
        ("TX ERRORS", Right),
    ]);
    for port in &stats.ports {
        table.row(vec![
            port.name.clone(),
            if port.link_up { "up" } else { "down" }.to_owned(),
            count(port.receive_missed),
            count(port.receive_errors),
            count(port.receive_no_buffer),
            count(port.transmit_errors),
        ]);
    }
    table
}

fn workers(stats: &Stats) -> Table {
    use Align::Right;
    let mut table = Table::new(&[
        ("WORKER", Right),
        ("CORE", Right),
        ("RECEIVED", Right),
        ("SENT", Right),
        ("BUSY", Right),
    ]);
    for worker in &stats.workers {
        let leaves = worker.counters.leaves();
        let sum = |family: &str| -> u64 {
            let of_family = leaves
                .iter()
                .filter(|(path, _)| path.first() == Some(&family));
            of_family.map(|(_, n)| n).sum()
        };
        let cycles = worker.busy_cycles as f64 + worker.idle_cycles as f64;
        let busy = worker.busy_cycles as f64 / cycles.max(1.0) * 100.0;
        table.row(vec![
            worker.index.to_string(),
            worker.core.map_or(NONE.to_owned(), |core| core.to_string()),
            count(sum("packets_received")),
            count(sum("packets_sent")),
            format!("{busy:.0} %"),
        ]);
    }
    table
}

fn pairings(stats: &Stats) -> Table {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("PAIRING", Left),
        ("MARKED", Right),
        ("OPENED", Right),
        ("FAILED", Right),
        ("REPLAYED", Right),
        ("LOST", Right),
        ("REORD", Right),
        ("DELAY", Left),
        ("SAMPLES", Right),
        ("P50", Right),
        ("P90", Right),
        ("P99", Right),
        ("P99.9", Right),
        ("MAX", Right),
    ]);
    for pairing in &stats.pairings {
        pairing_rows(&mut table, pairing);
    }
    table
}

/// Two rows, one for each kind of delay; the second repeats nothing.
fn pairing_rows(table: &mut Table, pairing: &PairingRecord) {
    use PairingCounter::{Failed, Late, Marked, Opened, Reordered, Replayed, Skipped};
    let number = |counter: PairingCounter| {
        let counters = &pairing.counters;
        counters.get(counter.name()).copied().unwrap_or(0)
    };
    let mut cells = vec![pairing.name.clone()];
    cells.extend([Marked, Opened, Failed, Replayed].map(|counter| count(number(counter))));
    // The two are read one after the other, so `late` may be ahead.
    cells.push(count(number(Skipped).saturating_sub(number(Late))));
    cells.push(count(number(Reordered)));
    let delays = [
        ("round trip", pairing.rtt_ns),
        ("server", pairing.server_delay_ns),
    ];
    for (name, delay) in delays {
        cells.push(name.to_owned());
        cells.push(count(delay.map_or(0, |d| d.count)));
        cells.extend(match delay {
            Some(d) => [d.p50, d.p90, d.p99, d.p999, d.max].map(duration),
            None => [NONE; 5].map(str::to_owned),
        });
        table.row(std::mem::replace(&mut cells, vec![String::new(); 7]));
    }
}

fn counters(tree: &CounterTree) -> Table {
    let mut table = Table::new(&[("COUNTER", Align::Left), ("COUNT", Align::Right)]);
    for (path, n) in tree.leaves() {
        if n > 0 {
            table.row(vec![path.join(" "), count(n)]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::records::tests::sample_flow;
    use crate::telemetry::records::{FlowTable, Port};
    use crate::telemetry::{Counter, Direction, Gauges, Telemetry};

    #[test]
    fn durations_choose_their_unit() {
        for (ns, text) in [
            (0, "0 ns"),
            (850, "850 ns"),
            (1_000, "1.0 µs"),
            (9_960, "10 µs"),
            (120_000, "120 µs"),
            (999_499, "999 µs"),
            (999_500, "1.0 ms"),
            (1_234_567, "1.2 ms"),
            (15_500_000, "16 ms"),
            (2_500_000_000, "2.5 s"),
            (61_000_000_000, "61 s"),
        ] {
            assert_eq!(duration(ns), text);
        }
    }

    #[test]
    fn ages_show_two_units() {
        for (seconds, text) in [
            (0.4, "0 s"),
            (-1.0, "0 s"),
            (75.5, "1 min 15 s"),
            (3_600.0, "1 h"),
            (200_000.0, "2 d 7 h"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_048_576), "1,048,576");
    }

    #[test]
    fn flows_line_up() {
        let mut echo = sample_flow(1);
        echo.local_port = 0;
        echo.remote_port = 0;
        echo.protocol_name = "icmpv6".into();
        echo.lost = 1_234;
        let text = flows(&[sample_flow(0), echo]);
        assert_eq!(
            text,
            "\
LOCAL                   REMOTE                PROTO   PAIRING    OUT     IN     RTT     MIN     MAX  SERVER   LOST  REORD  FAILED         AGE
[2001:db8:1::10]:40000  [2001:db8:2::20]:443  tcp     even     1,000  2,000       -       -       -       -      0      0       0  1 min 15 s
2001:db8:1::10          2001:db8:2::20        icmpv6  odd      1,001  2,000  1.0 ms  120 µs  5.0 ms       -  1,234      0       0  1 min 15 s
"
        );
        assert_eq!(flows(&[]), "No flows.\n");
    }

    #[test]
    fn stats_show_what_is_not_zero() {
        let telemetry = Telemetry::new(1);
        let counters = telemetry.workers[0].of(Direction::Out);
        counters.add(Counter::PacketsReceived, 1_500);
        counters.add(Counter::PassedIpv4, 2);
        telemetry.workers[0].polled(true, 600);
        telemetry.workers[0].polled(false, 200);
        let campus = telemetry.pairings.register("campus").unwrap();
        for (counter, n) in [
            (PairingCounter::Marked, 77),
            (PairingCounter::Opened, 76),
            (PairingCounter::Failed, 5),
            (PairingCounter::Replayed, 4),
            (PairingCounter::Skipped, 12),
            (PairingCounter::Late, 3),
            (PairingCounter::Reordered, 2),
        ] {
            campus.worker(0).add(counter, n);
        }
        campus.worker(0).record_rtt_ns(120_000);
        let text = stats(&telemetry.stats(Gauges {
            uptime_s: 7.0,
            flows: FlowTable {
                in_use: 3,
                capacity: 1_048_576,
            },
            ports: vec![Port {
                name: "inside".to_owned(),
                ..Port::default()
            }],
            worker_cores: vec![1],
        }));
        for part in [
            "up 7 s, 3 of 1,048,576 flows",
            "inside  down",
            "     0     1     1,500     0  75 %",
            "campus       77      76       5         4     9      2  round trip",
            "round trip        1  120 µs",
            "server            0       -",
            "passed out ipv4",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("multicast"), "{text}");
        assert!(text.ends_with("2\n"), "{text}");
    }
}
