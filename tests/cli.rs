//! The `pdmgate` command as a shell sees it: exit codes, standard output and standard error.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use pdmgate::telemetry::records::{FlowRecord, FlowTable, Generations, protocol_name};
use pdmgate::telemetry::server::{Listen, Server, Source};
use pdmgate::telemetry::{Counter, Direction, FlowQuery, Gauges, Stats, Telemetry};

/// An appliance that has counted a little and has many flows.
struct Sample(Telemetry);

impl Sample {
    fn gauges() -> Gauges {
        Gauges {
            flows: FlowTable {
                in_use: 20_000,
                capacity: 1 << 20,
            },
            ..Gauges::default()
        }
    }
}

impl Source for Sample {
    fn stats(&self) -> Stats {
        self.0.stats(Self::gauges())
    }

    fn flows(&self, query: &FlowQuery) -> Vec<FlowRecord> {
        query.select(|take| {
            (0..20_000)
                .map(|port| FlowRecord {
                    local_address: "2001:db8:1::10".parse().unwrap(),
                    local_port: port,
                    remote_address: "2001:db8:2::20".parse().unwrap(),
                    remote_port: 443,
                    protocol: 6,
                    protocol_name: protocol_name(6),
                    pairing: "campus".to_owned(),
                    packets_out: port.into(),
                    packets_in: 0,
                    rtt_ns: None,
                    server_delay_ns: None,
                    lost: 0,
                    reordered: 0,
                    replayed: 0,
                    failed: 0,
                    kri_out: Some(0),
                    kri_in: None,
                    generations: Generations {
                        local: 1,
                        remote: None,
                    },
                    age_s: 1.0,
                    idle_s: 0.0,
                })
                .for_each(take);
        })
    }

    fn metrics(&self) -> String {
        self.0.metrics(Self::gauges())
    }
}

fn serve(socket: &Path) -> Server {
    let telemetry = Telemetry::new(1);
    telemetry.workers[0]
        .of(Direction::Out)
        .add(Counter::PassedFragment, 7);
    let listen = Listen {
        prometheus: None,
        socket: Some(socket.to_owned()),
    };
    Server::start(&listen, Arc::new(Sample(telemetry))).unwrap()
}

fn pdmgate(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pdmgate"));
    command.args(args).env_remove("PDMGATE_LOG");
    command
}

fn ends(args: &[&str], code: i32) -> Output {
    let output = pdmgate(args).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    output
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn help_is_no_error_and_tells_what_there_is() {
    let text = stdout(&ends(&["--help"], 0));
    for part in [
        "check",
        "decode",
        "flows",
        "run",
        "stats",
        "Exit codes",
        "78",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    for command in ["run", "check", "decode", "flows", "keygen", "stats"] {
        let text = stdout(&ends(&[command, "--help"], 0));
        assert!(text.contains("Examples:"), "{command}\n{text}");
    }
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_2() {
    for args in [
        &[][..],
        &["fly"],
        &["run"],
        &["flows", "--sort", "size"],
        &["flows", "--watch", "1ms"],
        &["stats", "--log", "x=y=z"],
        &["stats", "--log", "warning"],
    ] {
        let output = ends(args, 2);
        assert!(stdout(&output).is_empty());
        assert!(!stderr(&output).is_empty());
    }
    for level in ["a=b=c", "verbose"] {
        let output = pdmgate(&["stats"]).env("PDMGATE_LOG", level).output();
        assert_eq!(output.unwrap().status.code(), Some(2), "{level}");
    }
}

#[test]
fn an_appliance_that_does_not_run_is_an_error_with_a_hint() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("none.sock");
    for command in ["flows", "stats"] {
        let output = ends(&[command, "--socket", socket.to_str().unwrap()], 1);
        let text = stderr(&output);
        assert!(
            text.starts_with("pdmgate: error: no pdmgate answers"),
            "{text}"
        );
        assert!(text.contains("none.sock"), "{text}");
        assert!(text.contains("hint: is `pdmgate run` running?"), "{text}");
        assert!(stdout(&output).is_empty());
    }
}

#[test]
fn operators_are_told_which_socket_is_theirs() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("s");
    let commands = [
        &["registrations"][..],
        &["renew"],
        &["revoke", "pairing", "branch"],
        &["lists", "remove", "branch", "2001:db8:7::/64"],
    ];
    let hints = |words: &str| {
        for command in commands {
            let args = [command, &["--socket", path.to_str().unwrap()]].concat();
            let text = stderr(&ends(&args, 1));
            assert!(text.contains(words), "{args:?}: {text}");
            assert!(text.contains("primary.socket"), "{args:?}: {text}");
        }
    };
    hints("hint: is the Primary running");
    let _server = serve(&path);
    hints("hint: that is the socket of an appliance's numbers");
}

#[test]
fn lists_takes_its_options_before_and_after_what_to_change() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("none.sock");
    let socket = socket.to_str().unwrap();
    let add = ["add", "branch", "2001:db8:7::/64"];
    for args in [
        [&["lists", "--socket", socket], &add[..]].concat(),
        [&["lists", "--json", "--socket", socket], &add[..]].concat(),
        [&["lists", "--log", "debug", "--socket", socket], &add[..]].concat(),
        [&["lists"], &add[..], &["--json", "--socket", socket]].concat(),
    ] {
        let text = stderr(&ends(&args, 1));
        assert!(text.contains("none.sock"), "{args:?}: {text}");
    }
    let nobody = [&["lists"], &add[..], &["--secondary", "not a name!"]].concat();
    let text = stderr(&ends(&nobody, 2));
    assert!(text.contains("such as hq.example"), "{text}");
}

#[test]
fn flows_and_stats_print_tables_and_json() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("s");
    let socket = path.to_str().unwrap();
    let _server = serve(&path);

    let text = stdout(&ends(&["flows", "--socket", socket, "--limit", "2"], 0));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[1].starts_with("[2001:db8:1::10]:19999"), "{text}");

    let text = stdout(&ends(
        &["flows", "--socket", socket, "--json", "--limit", "0"],
        0,
    ));
    let flows: Vec<FlowRecord> = serde_json::from_str(&text).unwrap();
    assert_eq!(flows.len(), 20_000);

    let text = stdout(&ends(&["stats", "--socket", socket], 0));
    assert!(text.contains("20,000 of 1,048,576 flows"), "{text}");
    assert!(text.contains("passed out fragment"), "{text}");

    let text = stdout(&ends(&["stats", "--socket", socket, "--json"], 0));
    let stats: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(stats["counters"]["passed"]["out"]["fragment"], 7);
}

/// A configuration of one pairing with a port that `extra` may spoil.
fn write_config(path: &Path, extra: &str) {
    let yaml = format!(
        "ports: {{ inside: {{ device: net_null0 }}, outside: {{ device: net_null1 }} }}\n\
         {extra}\n\
         pairings:\n\
         - name: campus\n  \
           salt: {salt}\n  \
           pms: {pms}\n  \
           clients: [ {{ prefix: \"2001:db8:1::/64\" }} ]\n  \
           servers: [ {{ prefix: \"2001:db8:2::/64\", group: web }} ]\n",
        salt = "5a".repeat(32),
        pms = "c3".repeat(32),
    );
    std::fs::write(path, yaml).unwrap();
}

#[test]
fn check_prints_the_configuration_without_its_secrets() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("pdmgate.yaml");
    write_config(&path, "");
    let text = stdout(&ends(&["check", path.to_str().unwrap()], 0));
    assert!(text.contains("campus"), "{text}");
    assert!(text.contains("net_null0"), "{text}");
    assert!(!text.contains("c3c3"), "{text}");
}

#[test]
fn a_configuration_that_cannot_be_used_ends_with_78() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("pdmgate.yaml");
    write_config(&path, "policy: { mtu: 12 }");
    let output = ends(&["check", path.to_str().unwrap()], 78);
    let text = stderr(&output);
    assert!(text.starts_with("pdmgate: error: "), "{text}");
    assert!(text.contains("pdmgate.yaml:2:16"), "{text}");
    assert!(!text.contains("c3c3"), "{text}");
    assert!(stdout(&output).is_empty());
    let missing = root.path().join("none.yaml");
    let text = stderr(&ends(&["check", missing.to_str().unwrap()], 78));
    assert!(text.contains("none.yaml"), "{text}");
}

/// A pcap of UDP packets between hosts of the pairing.
fn write_capture(path: &Path, packets: usize) {
    let address = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let mut frame = vec![2; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
    frame.extend(address("2001:db8:1::10"));
    frame.extend(address("2001:db8:2::20"));
    frame.extend([0x9c, 0x40, 1, 0xbb, 0, 8, 0, 0]);
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for second in 0..packets {
        for word in [second, 0, frame.len(), frame.len()] {
            file.extend((word as u32).to_le_bytes());
        }
        file.extend(&frame);
    }
    std::fs::write(path, file).unwrap();
}

#[test]
fn decode_prints_a_line_a_packet_and_a_line_a_flow() {
    let root = tempfile::tempdir().unwrap();
    let (config, capture) = (root.path().join("c.yaml"), root.path().join("c.pcap"));
    write_config(&config, "");
    write_capture(&capture, 3);
    let (config, capture) = (config.to_str().unwrap(), capture.to_str().unwrap());
    let lines = |text: &str| -> Vec<serde_json::Value> {
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap()
    };
    let all = lines(&stdout(&ends(&["decode", config, capture, "--summary"], 0)));
    assert_eq!(all.len(), 4);
    assert_eq!(all[2]["type"], "packet");
    assert_eq!(all[2]["number"], 3);
    assert_eq!(all[2]["pairing"], "campus");
    assert_eq!(all[3]["type"], "flow");
    assert_eq!(all[3]["forward"]["packets"], 3);
    assert_eq!(all[3]["sport"], 40_000);

    let mut piped = pdmgate(&["decode", config, "-"]);
    piped.stdin(std::fs::File::open(capture).unwrap());
    let output = piped.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(lines(&stdout(&output)), all[..3]);
}

#[test]
fn decode_reads_what_there_is_of_a_capture_that_was_cut_off() {
    let root = tempfile::tempdir().unwrap();
    let (config, capture) = (root.path().join("c.yaml"), root.path().join("c.pcap"));
    write_config(&config, "");
    write_capture(&capture, 2);
    let whole = std::fs::read(&capture).unwrap();
    std::fs::write(&capture, &whole[..whole.len() - 1]).unwrap();
    let args = [
        "decode",
        config.to_str().unwrap(),
        capture.to_str().unwrap(),
    ];
    let output = ends(&args, 0);
    assert_eq!(stdout(&output).lines().count(), 1);
    let text = stderr(&output);
    assert!(text.contains("WARN"), "{text}");
    assert!(text.contains("in the middle of packet 2"), "{text}");
}

#[test]
fn decode_says_what_is_wrong_with_a_file_that_is_no_capture() {
    let root = tempfile::tempdir().unwrap();
    let (config, capture) = (root.path().join("c.yaml"), root.path().join("c.pcap"));
    write_config(&config, "");
    let args = [
        "decode",
        config.to_str().unwrap(),
        capture.to_str().unwrap(),
    ];
    let text = stderr(&ends(&args, 1));
    assert!(text.contains("c.pcap: cannot read"), "{text}");
    // A capture of `any`: Linux cooked, link type 113.
    write_capture(&capture, 1);
    let mut file = std::fs::read(&capture).unwrap();
    file[20] = 113;
    std::fs::write(&capture, file).unwrap();
    let text = stderr(&ends(&args, 1));
    assert!(text.contains("found link type 113"), "{text}");
    assert!(text.contains("hint: capture on one interface"), "{text}");
    std::fs::write(&capture, "#!/bin/sh").unwrap();
    let text = stderr(&ends(&args, 1));
    assert!(text.contains("expected a pcap or pcapng file"), "{text}");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("s");
    let socket = path.to_str().unwrap();
    let _server = serve(&path);
    for args in [
        &["flows", "--limit", "0"][..],
        &["flows", "--limit", "0", "--json"],
        &["stats", "--json", "--watch", "100ms"],
    ] {
        let mut child = pdmgate(args)
            .args(["--socket", socket])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 16];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut first)
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        assert_eq!(stderr(&output), "", "{args:?}");
    }
}
