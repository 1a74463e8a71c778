//! Every refusal with its place and what it allows instead; `«` marks the place in the text.

mod primary;
mod secondary;
mod secrets;

use super::*;

const SALT: &str = "5a17000000000000000000000000000000000000000000000000000000005a17";
const PMS: &str = "fa4e000000000000000000000000000000000000000000000000000000fa4e00";
const PORTS: &str = "ports:\n  inside: { device: net_ring0 }\n  outside: { device: net_ring1 }\n";

/// A valid file around `rest`.
fn with_ports(rest: &str) -> String {
    format!("{PORTS}{rest}")
}

/// A valid file around the lines of one pairing.
fn with_pairing(lines: &str) -> String {
    let lines = lines.replace("SALT", SALT).replace("PMS", PMS);
    with_ports(&format!("pairings:\n{lines}"))
}

fn faults(text: &str) -> Vec<Fault> {
    match Config::parse(text, Path::new("gate.yaml")) {
        Err(ConfigError::Invalid { faults }) => faults,
        other => panic!("expected faults in\n{text}\nbut got {other:?}"),
    }
}

/// The one fault of `marked`, which must stand at the mark.
#[track_caller]
fn refuse(marked: &str, found: &str, allowed: &str) -> Fault {
    let before = marked.split_once('«').expect("a mark").0;
    let line = before.matches('\n').count() as u32 + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count() as u32
        + 1;
    let all = faults(&marked.replace('«', ""));
    assert_eq!(all.len(), 1, "one fault in\n{marked}\n{all:#?}");
    let fault = all.into_iter().next().expect("one fault");
    assert_eq!((fault.line, fault.column), (line, column), "{fault}");
    assert!(fault.found.contains(found), "found {found:?}?\n{fault}");
    assert!(
        fault.allowed.contains(allowed),
        "allowed {allowed:?}?\n{fault}"
    );
    assert_eq!(fault.file, Path::new("gate.yaml"));
    fault
}

fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("gate.yaml")).expect("a valid configuration")
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let config = parse(PORTS);
    assert_eq!(config.ports.queues.get(), 1);
    assert_eq!(config.ports.rx_descriptors.get(), 1024);
    assert!(config.ports.promiscuous);
    assert_eq!(config.ports.rss, Rss::Addresses);
    assert!(config.workers.cores.is_none());
    assert_eq!(config.workers.idle, Idle::Poll);
    assert_eq!(config.eal.hugepages, Hugepages::Auto);
    assert_eq!((config.mbufs(), config.mbuf_size()), (16384, 2048));
    assert_eq!(config.flows.capacity.get(), 1 << 20);
    assert_eq!(config.flows.idle_timeout.get().as_secs(), 60);
    assert_eq!(config.policy.option_type.get(), 0x0f);
    assert_eq!((config.policy.mtu.get(), config.port_mtu()), (1500, 1500));
    assert_eq!(config.policy.over_mtu, OverMtu::Pass);
    assert_eq!(config.policy.failed_open, FailedOpen::ForwardStripped);
    assert!(config.policy.log_failures && !config.policy.mss_clamp);
    assert_eq!(config.rotation.packets.get(), 32767);
    assert_eq!(config.rotation.age.get().as_secs(), 3600);
    assert_eq!(config.receiver.kri_window.get(), 16);
    assert_eq!(config.receiver.search_per_second.get(), 200_000);
    assert_eq!(config.state, Path::new("/var/lib/pdmgate/state.json"));
    assert!(config.pairings.is_empty() && config.warnings.is_empty());
}

#[test]
fn an_empty_section_is_its_defaults() {
    let config = parse(&with_ports("flows:\npolicy:\ntelemetry:\npairings:\n"));
    assert_eq!(config.flows.capacity.get(), 1 << 20);
    assert!(config.telemetry.prometheus.is_some() && config.pairings.is_empty());
    let config = parse(&with_ports(
        "telemetry: { prometheus: null, socket: null }\n",
    ));
    assert!(config.telemetry.prometheus.is_none() && config.telemetry.socket.is_none());
}

#[test]
fn every_field_is_read() {
    let text = with_pairing(
        "- name: campus
  mode: asymmetric-poll
  protection: sealed
  suite: { kem: p-256, aead: chacha20-poly1305 }
  salt: SALT
  pms: PMS
  clients: [ { prefix: '2001:db8:1::/64', generation: 4294967295 } ]
  servers: [ { prefix: 2001:db8:2::/64, group: web, generation: 0x10 } ]
",
    );
    let config = parse(&text);
    let pairing = &config.pairings[0];
    assert_eq!(pairing.name.as_str(), "campus");
    assert_eq!(pairing.mode, Mode::AsymmetricPoll);
    let suite = Suite {
        kem: Kem::P256,
        aead: Aead::ChaCha20Poly1305,
    };
    assert_eq!(pairing.suite, suite);
    let (salt, pms) = pairing.secrets().expect("secrets");
    assert_eq!(hex::encode(salt.bytes()), SALT);
    assert_eq!(hex::encode(pms.bytes()), PMS);
    assert_eq!(pairing.clients[0].generation.get(), u32::MAX);
    assert_eq!(pairing.servers[0].prefix.to_string(), "2001:db8:2::/64");
    assert_eq!(pairing.servers[0].generation.get(), 16);
    let group = pairing.servers[0].group.as_ref().expect("a group");
    assert_eq!(group.as_str(), "web");
}

#[test]
fn wrong_devices() {
    for device in [
        "«0000:03:00",
        "«03:00.0",
        "«0000:03:20.0",
        "«0000:03:00.8",
        "«0000:3:00.0",
        "«+000:03:00.0",
        "«af_packet0",
        "«net_",
        "\u{ab}\"net_af packet0\"",
        "«\"net_pcap0,rx_pcap\"",
        "«\"net_pcap0,=a\"",
    ] {
        let text = format!(
            "ports:\n  inside:\n    device: {device}\n  outside: {{ device: net_null0 }}\n"
        );
        let fault = refuse(&text, "string", "0000:03:00.0");
        assert!(fault.allowed.contains("net_af_packet0,iface=in0"));
    }
    let same = "ports:\n  inside: { device: 'net_pcap0,rx_pcap=a' }\n  outside: { device: «'net_pcap0,rx_pcap=b' }\n";
    refuse(same, "`net_pcap0`", "another number");
    let same = "ports:\n  inside: { device: '0000:03:00.0' }\n  outside: { device: «'00000000:03:00.0' }\n";
    refuse(same, "`0000:03:00.0`", "another device");
    let same = "ports:\n  inside: { device: 'net_af_packet0,iface=a' }\n  outside: { device: «'net_af_xdp1,queue_count=1,iface=a' }\n";
    refuse(same, "`iface=a`", "another interface");
}

#[test]
fn right_devices() {
    for device in [
        "0000:03:00.0",
        "10000:e1:1F.7",
        "net_null0",
        "eth_pcap1,rx_pcap=/a-b.pcap,tx_pcap=c",
    ] {
        let text = format!(
            "ports: {{ inside: {{ device: '{device}' }}, outside: {{ device: net_ring9 }} }}\n"
        );
        let config = parse(&text);
        assert_eq!(
            *config.ports.inside.device,
            Device::parse(device).expect("a device")
        );
    }
}

#[test]
fn numbers_out_of_range() {
    for (text, found, allowed) in [
        ("policy: { mtu: «1279 }", "1279", "from 1280 to 9702"),
        ("policy: { mtu: «9703 }", "9703", "from 1280 to 9702"),
        ("policy: { option_type: «0x20 }", "32", "from 2 to 31"),
        ("policy: { option_type: «0x01 }", "1", "from 2 to 31"),
        (
            "policy: { option_type: «fifteen }",
            "fifteen",
            "from 2 to 31",
        ),
        (
            "policy:\n  throttle: { failures: «0 }",
            "0",
            "from 1 to 1000000",
        ),
        (
            "policy:\n  throttle: { failures: 5, window: «99ms }",
            "99ms",
            "from 100ms to 1h",
        ),
        ("workers: { cores: [ «-1 ] }", "-1", "from 0 to 1023"),
        ("management: { core: «1024 }", "1024", "from 0 to 1023"),
        ("eal: { mbufs: «1023 }", "1023", "from 1024 to 4194304"),
        ("eal: { mbuf_size: «99999 }", "99999", "from 1302 to 16384"),
        (
            "flows: { capacity: «1023 }",
            "1023",
            "from 1024 to 67108864",
        ),
        ("flows: { capacity: «1.5 }", "1.5", "from 1024 to 67108864"),
        (
            "flows: { idle_timeout: «999ms }",
            "999ms",
            "from 1s to 1day",
        ),
        ("flows: { idle_timeout: «60 }", "60", "with its unit"),
        ("rotation: { packets: «255 }", "255", "from 256 to 32767"),
        (
            "rotation: { packets: «32768 }",
            "32768",
            "from 256 to 32767",
        ),
        ("rotation: { age: «31days }", "31days", "from 1s to 30days"),
        ("receiver: { kri_window: «0 }", "0", "from 1 to 1024"),
        ("receiver: { kri_window: «1025 }", "1025", "from 1 to 1024"),
        (
            "receiver: { search_per_second: «99 }",
            "99",
            "from 100 to 100000000",
        ),
        (
            "receiver:\n  kri_window: «[ 16 ]",
            "sequence",
            "from 1 to 1024",
        ),
    ] {
        refuse(&with_ports(text), found, allowed);
    }
    for (field, found) in [
        ("queues: «0", "0"),
        ("queues: «65", "65"),
        ("rx_descriptors: «63", "63"),
        ("tx_descriptors: «32769", "32769"),
        ("mtu: «1279", "1279"),
        ("mtu: «9703", "9703"),
    ] {
        refuse(&format!("{PORTS}  {field}\n"), found, "a whole number from");
    }
}

#[test]
fn wrong_words_are_answered_with_the_right_ones() {
    for (text, allowed) in [
        ("policy: { over_mtu: «drop }", "one of pass, packet-too-big"),
        ("policy: { malformed: «keep }", "one of pass, drop"),
        (
            "policy: { failed_open: «Drop }",
            "one of forward-stripped, drop",
        ),
        ("workers: { idle: «nap }", "one of poll, pause, sleep"),
        ("eal: { hugepages: «yes }", "one of auto, require, off"),
        (
            "policy: { icmp_source: «'ff02::1' }",
            "unicast IPv6 address",
        ),
        (
            "policy: { icmp_source: «192.0.2.1 }",
            "unicast IPv6 address",
        ),
        ("telemetry: { prometheus: «localhost }", "127.0.0.1:9464"),
    ] {
        refuse(&with_ports(text), "string", allowed);
    }
    refuse(
        &format!("{PORTS}  rss: «ports\n"),
        "ports",
        "one of addresses, addresses-and-ports",
    );
    refuse(
        &format!("{PORTS}  promiscuous: «perhaps\n"),
        "perhaps",
        "true or false",
    );
    let lists = "\n  clients: [ { prefix: '::/0' } ]\n  servers: [ { prefix: '::/0' } ]\n";
    for (text, allowed) in [
        (
            "- name: a\n  mode: «ibc",
            "one of trusted-servers, asymmetric-poll, no-protection",
        ),
        ("- name: a\n  protection: «none", "one of sealed, clear"),
        (
            "- name: a\n  suite: { aead: «aes }",
            "one of aes-128-gcm, aes-256-gcm, chacha20-poly1305",
        ),
        ("- name: a\n  suite:\n    kem: «rsa", "one of x25519, p-256"),
        ("- name: «'a b'", "1 to 64 letters"),
    ] {
        refuse(&with_pairing(&format!("{text}{lists}")), "string", allowed);
    }
}

#[test]
fn fields_unknown_missing_or_twice() {
    refuse(
        &with_ports("policy:\n  «mtv: 1500\n"),
        "unknown field `mtv`",
        "over_mtu",
    );
    refuse(
        &with_ports("«polices: {}\n"),
        "unknown field `polices`",
        "pairings",
    );
    refuse(
        "ports:\n  «inside: { device: net_ring0 }\n",
        "no `outside`",
        "`outside` must be given",
    );
    refuse(
        &with_ports("flows: { capacity: 2048, «capacity: 4096 }\n"),
        "capacity",
        "each field once",
    );
    refuse(&with_ports("policy: «1500\n"), "`1500`", "a mapping");
    refuse(&with_ports("pairings: «campus\n"), "`campus`", "a list");
    refuse("«", "an empty file", "`ports`");
    refuse("ports: «'inside\n", "quote", "YAML");
}

#[test]
fn cores_queues_and_memory_must_agree() {
    refuse(
        &with_ports("workers: { cores: «[ 1, 2 ] }\n"),
        "2 cores",
        "`ports.queues`, which is 1",
    );
    let two = format!("{PORTS}  queues: 2\n");
    refuse(
        &format!("{two}workers: {{ cores: «[ 3, 3 ] }}\n"),
        "core 3",
        "each core once",
    );
    refuse(
        &with_ports("workers: { cores: [ 1 ] }\nmanagement: { core: «1 }\n"),
        "core 1",
        "a core of its own",
    );
    let shared = "workers: { cores: [ 1 ], idle: sleep }\nmanagement: { core: 1 }\n";
    assert!(parse(&with_ports(shared)).management.core.is_some());
    refuse(
        &with_ports("eal: { mbufs: «4096 }\n"),
        "4096",
        "at least 4608",
    );
    refuse(
        &with_ports("policy: { mtu: 9000 }\neal: { mbuf_size: «2048 }\n"),
        "2048",
        "at least 9022",
    );
    let config = parse(&format!("{PORTS}  queues: 8\npolicy: {{ mtu: 9702 }}\n"));
    assert_eq!(config.mbufs(), 8 * (4 * 1024 + 512));
    assert_eq!(config.mbuf_size(), 10 * 1024);
}

#[test]
fn packet_buffers_hold_a_frame_and_have_a_size_that_cards_take() {
    let size = |mtu: &str, size: &str| {
        parse(&format!(
            "{PORTS}  mtu: {mtu}\neal: {{ mbuf_size: {size} }}\n"
        ))
        .mbuf_size()
    };
    assert_eq!(size("1500", "null"), 2048);
    assert_eq!(
        size("1500", "2048"),
        2048,
        "headroom comes on top elsewhere"
    );
    assert_eq!(size("1500", "1522"), 2048);
    assert_eq!(size("1500", "4096"), 4096);
    assert_eq!(size("1766", "null"), 2048);
    assert_eq!(size("1767", "null"), 3072);
    assert_eq!(size("9000", "9022"), 10 * 1024);
}

#[test]
fn ports_take_what_is_not_marked_too() {
    let port_mtu = |ports: &str, policy: &str| {
        parse(&format!("{PORTS}{ports}policy: {{ mtu: {policy} }}\n")).port_mtu()
    };
    assert_eq!(
        port_mtu("", "1400"),
        1500,
        "a narrow path, not a narrow link"
    );
    assert_eq!(port_mtu("", "1540"), 1540);
    assert_eq!(port_mtu("  mtu: 9000\n", "1500"), 9000);
    assert_eq!(port_mtu("  mtu: 1400\n", "1400"), 1400);
    refuse(
        &format!("{PORTS}  mtu: «1499\npolicy: {{ mtu: 1500 }}\n"),
        "1499",
        "at least 1500, which is `policy.mtu`",
    );
    refuse(
        &format!("{PORTS}  mtu: 3000\neal: {{ mbuf_size: «3021 }}\n"),
        "3021",
        "at least 3022: the ports' MTU 3000",
    );
}

#[test]
fn wrong_prefixes() {
    for (prefix, found, allowed) in [
        (
            "«'2001:db8:1::17/64'",
            "2001:db8:1::17/64",
            "bits behind the length are 0: 2001:db8:1::/64",
        ),
        (
            "«'2001:db8::1'",
            "2001:db8::1",
            "one host is 2001:db8::1/128",
        ),
        ("«'2001:db8::/129'", "2001:db8::/129", "length 0 to 128"),
        ("«'2001:db8::/+64'", "2001:db8::/+64", "length 0 to 128"),
        ("«'192.0.2.0/24'", "192.0.2.0/24", "an IPv6 prefix"),
        ("«campus", "campus", "an IPv6 prefix"),
    ] {
        let pairing = format!(
            "- name: a\n  mode: no-protection\n  clients: [ {{ prefix: {prefix} }} ]\n  servers: [ {{ prefix: '::/0' }} ]\n"
        );
        refuse(&with_pairing(&pairing), found, allowed);
    }
}

#[test]
fn wrong_lists() {
    let head = "- name: a\n  mode: no-protection\n";
    let servers = "  servers: [ { prefix: '::/0' } ]\n";
    refuse(
        &with_pairing(&format!("{head}  clients: «[]\n{servers}")),
        "empty list of clients",
        "at least one",
    );
    refuse(
        &with_pairing(&format!(
            "{head}  clients: [ {{ prefix: ::/0 }} ]\n  servers: «[]\n"
        )),
        "empty list of servers",
        "at least one",
    );
    let twice = format!(
        "{head}  clients:\n  - prefix: 2001:db8::/32\n  - prefix: 2001:db8:1::/48\n  - prefix: «2001:db8::/32\n{servers}"
    );
    refuse(
        &with_pairing(&twice),
        "`2001:db8::/32` for the second time, after line 8",
        "each prefix once in a client list",
    );
    let group = "- name: a\n  salt: SALT\n  pms: PMS\n  clients: [ { prefix: '::/0' } ]\n  servers: [ { prefix: «'::/0' } ]\n";
    refuse(&with_pairing(group), "without `group`", "trusted-servers");
    let generation =
        format!("{head}  clients: [ {{ prefix: '::/0', generation: «4294967296 }} ]\n{servers}");
    refuse(
        &with_pairing(&generation),
        "4294967296",
        "from 0 to 4294967295",
    );
}

const LISTS: &str =
    "  clients: [ { prefix: '::/0' } ]\n  servers: [ { prefix: '::/0', group: g } ]\n";

#[test]
fn pairings_must_differ() {
    let pairing =
        |name: &str, pms: &str| format!("- name: {name}\n  salt: SALT\n  pms: {pms}\n{LISTS}");
    let names = format!("{}{}", pairing("a", "PMS"), pairing("«a", SALT));
    refuse(
        &with_pairing(&names),
        "`a` for the second time, after line 5",
        "a name of its own",
    );
    let secrets = format!("{}{}", pairing("a", "PMS"), pairing("«b", "PMS"));
    refuse(
        &with_pairing(&secrets),
        "of the pairing `a` again",
        "openssl rand -hex 32",
    );
}

#[test]
fn no_more_pairings_than_telemetry_has_room_for() {
    let pairing = |n: usize| {
        format!(
            "- name: {}p{n}\n  mode: no-protection\n{LISTS}",
            if n == 256 { "«" } else { "" }
        )
    };
    let most: String = (0..256).map(pairing).collect();
    assert_eq!(parse(&with_pairing(&most)).pairings.len(), 256);
    let more: String = (0..257).map(pairing).collect();
    refuse(&with_pairing(&more), "257 pairings", "at most 256");
}

#[test]
fn errors_point_at_the_place() {
    let text = with_ports("policy:\n  mtu: 99 # small\n  failed_open: drop\n");
    let error = Config::parse(&text, Path::new("gate.yaml")).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "gate.yaml:5:8: found integer `99`
  |
5 |   mtu: 99 # small
  |        ^^
  = allowed: a whole number from 1280 to 9702"
    );
    // All checks behind the parser report at once, in the order of the file.
    let text = with_ports("eal: { mbufs: 2000 }\nworkers: { cores: [ 1, 2 ] }\n");
    let lines: Vec<_> = faults(&text).iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [4, 5]);
}

#[test]
fn the_summary_tells_what_will_run() {
    let pairing = format!(
        "- name: campus\n  salt: SALT\n  pms: PMS\n{LISTS}- name: lab\n  mode: no-protection\n{LISTS}"
    );
    let summary = parse(&with_pairing(&pairing)).summary();
    for part in [
        "net_ring0 (virtual)",
        "option type 0x0f, MTU 1500",
        "campus: trusted-servers, sealed, x25519 with aes-128-gcm",
        "group g",
        "lab: no-protection",
        "200000 keys a second",
    ] {
        assert!(summary.contains(part), "{part:?} in\n{summary}");
    }
    assert!(parse(PORTS).summary().contains("pairings   none"));
}
