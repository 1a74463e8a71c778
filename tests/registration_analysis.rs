//! Captures of registered pairings are opened afterwards: by a keylog, and by asking a Primary.

mod common;

use common::gate::{Gate, PDMGATE};
use common::lab::{Datagrams, Lab, Place, Shape, Side};
use common::process::{Ended, run};
use common::site::{self, Terms};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const ANALYST: &str = "analyst.example";
const STRANGER: &str = "stranger.example";
const GRANTED: &str = "an analyzer was given the secrets of a pairing";
const STREAM: Datagrams = Datagrams {
    count: 300,
    rate: 1_000,
    size: 100,
    echo: true,
};

/// Asks side A's Primary for a capture's secrets.
fn ask(lab: &Lab, who: &str, pairing: &str, name: &str, capture: &Path) -> Ended {
    let file = |ending: &str| lab.dir().join(format!("{who}.{ending}"));
    let mut command = lab.gate_netns(Side::A).command(PDMGATE);
    command.args(["decode", "--primary", "10.9.0.1:8250"]);
    command.args(["--primary-name", name, "--pairing", pairing]);
    command.arg("--certificate").arg(file("pem"));
    command.arg("--key").arg(file("key"));
    command.arg("--authorities").arg(lab.dir().join("ca.pem"));
    command.arg(capture);
    run(command, Duration::from_secs(300))
}

fn by_keylog(keylog: &Path, capture: &Path) -> Ended {
    let mut command = Command::new(PDMGATE);
    command.arg("decode").arg("--keylog").arg(keylog);
    command.arg(capture);
    run(command, Duration::from_secs(300))
}

/// Asserts that each of the `sealed` options was opened; the generations of the packets' sources, by direction.
fn assert_opened(ended: Ended, sealed: usize) -> Vec<(String, u64)> {
    let ended = ended.success();
    let lines = ended
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let options: Vec<Value> = lines.filter(|line| line["option"] == "sealed").collect();
    assert_eq!(options.len(), sealed);
    let closed = options.iter().filter(|line| line["opened"] != true);
    let closed: Vec<&Value> = closed.collect();
    assert!(
        closed.is_empty(),
        "{} of {sealed} not opened, the first: {:#}",
        closed.len(),
        closed[0]
    );
    let mut ends: Vec<_> = options
        .iter()
        .map(|line| {
            assert_eq!(line["pairing"], "branch");
            let generation = line["key"]["src_generation"].as_u64().unwrap();
            (line["direction"].as_str().unwrap().to_owned(), generation)
        })
        .collect();
    ends.sort();
    ends.dedup();
    ends
}

/// The capture's sealed options, counted by the tests' own parser.
fn count_sealed(capture: &Path) -> usize {
    let packets = common::capture::read(capture);
    let sealed = packets.iter().filter_map(|p| p.ipv6()?.sealed());
    sealed.count()
}

fn terms(mode: &'static str) -> (Terms, Terms) {
    let of_b = Terms {
        mode,
        rotation_packets: 256,
        ..Terms::default()
    };
    let of_a = Terms {
        client_extra: format!("      analyzers: [{ANALYST}]\n"),
        primary_extra: "  keylog: keylog\n".to_owned(),
        ..of_b.clone()
    };
    (of_a, of_b)
}

fn start(mode: &'static str) -> Option<(Lab, Gate, Gate)> {
    let lab = Lab::new(Shape::default())?;
    let authority = site::prepare(&lab);
    authority.certificate(ANALYST);
    authority.certificate(STRANGER);
    let (of_a, of_b) = terms(mode);
    let gate_a = site::embedded(&lab, Side::A, &of_a);
    let gate_b = site::embedded(&lab, Side::B, &of_b);
    site::wait_until_registered(&lab);
    Some((lab, gate_a, gate_b))
}

fn mode_is_opened(mode: &'static str) {
    let Some((lab, gate_a, gate_b)) = start(mode) else {
        return;
    };
    // The pair's keys come with the first packets.
    lab.ping(Side::A, 5, "0.2");
    let capture = lab.capture(Place::Outside(Side::A), "ip6");
    assert_eq!(lab.ping(Side::A, 10, "0.02").len(), 10);
    lab.udp(Side::A, 6001, &STREAM);
    let capture = capture.file();
    let sealed = count_sealed(&capture);
    assert!(sealed >= 620, "{sealed}");

    let keylog = gate_a.config().with_file_name("keylog");
    let ends = [
        ("client-to-server", site::generation(&lab, Side::A)),
        ("server-to-client", site::generation(&lab, Side::B)),
    ];
    let both = ends.map(|(direction, generation)| (direction.to_owned(), generation));
    assert_eq!(assert_opened(by_keylog(&keylog, &capture), sealed), both);
    let asked = ask(&lab, ANALYST, "branch", "hq.example", &capture);
    assert_eq!(assert_opened(asked, sealed), both);
    gate_a.stop();
    gate_b.stop();
}

#[test]
fn trusted_servers() {
    mode_is_opened("trusted-servers");
}

#[test]
fn asymmetric_poll() {
    mode_is_opened("asymmetric-poll");
}

#[test]
fn identity_based() {
    mode_is_opened("ibc");
}

#[test]
fn renewals_and_restarts_are_in_the_keylog() {
    let Some((lab, gate_a, gate_b)) = start("trusted-servers") else {
        return;
    };
    let capture = lab.capture(Place::Outside(Side::A), "ip6");
    let echoed = |what: &str| {
        let (_, sent) = lab.udp(Side::A, 6001, &STREAM);
        assert_eq!(sent["echoes"], 300, "{what}");
    };
    echoed("at first");
    for turn in ["the first", "the second"] {
        let before = site::registrations(&lab, Side::A);
        let newest = &before["pairings"][0]["secrets"][0]["id"];
        site::operate(&lab, Side::A, &["renew", "branch"]).success();
        site::wait_for(&lab, "a new secret", |status| {
            let secret = &status["pairings"][0]["secrets"][0];
            secret["id"] != *newest && secret["sealing"] == true
        });
        echoed(&format!("after {turn} renewal"));
    }
    // Another process has another generation.
    let first = site::generation(&lab, Side::B);
    gate_b.stop();
    let gate_b = site::embedded(&lab, Side::B, &terms("trusted-servers").1);
    site::wait_for(&lab, "the second generation of the server", |status| {
        let pairing = &status["pairings"][0];
        let told = pairing["peer_list"][0]["generations"].as_array();
        let told = told.is_some_and(|told| told.contains(&(first + 1).into()));
        let sending = pairing["own"][0]["secondaries"].as_array();
        let sending = sending.and_then(|all| all.iter().find(|s| s["generation"] == first + 1));
        pairing["secrets"][0]["sealing"] == true
            && (told || sending.is_some_and(|s| s["state"] == "sending"))
    });
    echoed("after a restart");
    let capture = capture.file();
    let sealed = count_sealed(&capture);
    assert!(sealed >= 2_400, "{sealed}");

    let keylog = gate_a.config().with_file_name("keylog");
    let ends = assert_opened(by_keylog(&keylog, &capture), sealed);
    for end in [("server-to-client", first), ("server-to-client", first + 1)] {
        assert!(ends.contains(&(end.0.to_owned(), end.1)), "{ends:?}");
    }
    gate_a.stop();
    gate_b.stop();
}

#[test]
fn a_primary_tells_those_who_may_know_and_logs_it() {
    let Some((lab, gate_a, gate_b)) = start("trusted-servers") else {
        return;
    };
    let capture = lab.capture(Place::Outside(Side::A), "ip6");
    lab.ping(Side::A, 3, "0.1");
    let capture = capture.file();
    let sealed = count_sealed(&capture);
    let grants = || gate_a.log().matches(GRANTED).count();

    for (who, pairing, name, words) in [
        (STRANGER, "branch", "hq.example", "refuses to tell"),
        // The name of a peer is none of an analyzer.
        ("branch.example", "branch", "hq.example", "not-allowed"),
        // Nor is a pairing that is not there told from one that is not allowed.
        (ANALYST, "other", "hq.example", "not-allowed"),
        (ANALYST, "branch", "branch.example", "branch.example"),
    ] {
        let ended = ask(&lab, who, pairing, name, &capture);
        assert_eq!(ended.status.code(), Some(1), "{}", ended.err);
        assert_eq!(ended.out, "");
        assert!(ended.err.contains(words), "{words}: {}", ended.err);
    }
    assert_eq!(grants(), 0, "{}", gate_a.log());
    assert!(gate_a.log().contains("it asked to analyse `other`"));

    // A certificate of nobody's authority.
    let other = lab.dir().join("other");
    std::fs::create_dir(&other).unwrap();
    common::authority::Authority::new(&other).certificate("forger.example");
    for ending in ["pem", "key"] {
        let name = format!("forger.example.{ending}");
        std::fs::copy(other.join(&name), lab.dir().join(&name)).unwrap();
    }
    let ended = ask(&lab, "forger.example", "branch", "hq.example", &capture);
    assert_eq!((ended.status.code(), &*ended.out), (Some(1), ""));
    assert!(ended.err.contains("gives no answer"), "{}", ended.err);

    for count in 1..=2 {
        assert_opened(ask(&lab, ANALYST, "branch", "hq.example", &capture), sealed);
        assert_eq!(grants(), count, "{}", gate_a.log());
    }
    assert!(gate_a.log().contains(ANALYST));
    gate_a.stop();
    // Nobody is there any more.
    let ended = ask(&lab, ANALYST, "branch", "hq.example", &capture);
    assert_eq!((ended.status.code(), &*ended.out), (Some(1), ""));
    let words = "cannot connect to the Primary at 10.9.0.1:8250";
    assert!(ended.err.contains(words), "{}", ended.err);
    gate_b.stop();
}

/// What the command line and the file can have wrong, without a lab.
#[test]
fn what_makes_no_sense_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (keylog, broken, capture) = (path("keylog"), path("broken"), path("c.pcap"));
    let line = serde_json::json!({
        "time": 5, "pairing": "branch", "since": 1, "mode": "ibc", "protection": "sealed", "kem": 32, "aead": 1,
        "prk": "5a".repeat(32), "clients": [], "servers": [],
    });
    std::fs::write(&keylog, format!("{line}\n")).unwrap();
    std::fs::write(&broken, format!("{line}\nx\n{line}\n")).unwrap();
    // A pcap file without packets.
    let words = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1];
    std::fs::write(&capture, words.map(u32::to_le_bytes).concat()).unwrap();
    let missing = path("missing");
    let primary = [
        "--primary",
        "127.0.0.1:1",
        "--primary-name",
        "hq.example",
        "--pairing",
        "branch",
        "--certificate",
        &missing,
        "--key",
        &missing,
        "--authorities",
        &missing,
    ];
    let ends = |args: &[&str], code: i32, words: &str| {
        let mut command = Command::new(PDMGATE);
        command.arg("decode").args(args);
        let ended = run(command, Duration::from_secs(20));
        assert_eq!(ended.status.code(), Some(code), "{args:?}: {}", ended.err);
        assert!(ended.err.contains(words), "{words}: {}", ended.err);
    };
    ends(&["--keylog", &keylog, &capture], 0, "so others can read it");
    ends(&["--keylog", &broken, &capture], 0, "is broken in line 2: ");
    ends(
        &["--keylog", &missing, &capture],
        1,
        "cannot read the keylog",
    );
    ends(
        &["--keylog", &capture, &missing],
        1,
        "is broken in line 1: ",
    );
    ends(&["--keylog", &keylog, &missing], 1, "missing: ");
    ends(&[&capture], 2, "found one file");
    ends(
        &["--keylog", &keylog, "c.yaml", &capture],
        2,
        "found two files",
    );
    ends(
        &["--option-type", "9", "c.yaml", &capture],
        2,
        "policy.option_type",
    );
    ends(
        &["--keylog", &keylog, "--option-type", "0x20", &capture],
        2,
        "from 2 to 31",
    );
    ends(&["--primary", "a:1", &capture], 2, "--primary-name");
    ends(&["--pairing", "branch", "c.yaml", &capture], 2, "--primary");
    ends(
        &[&primary[..], &["--keylog", &keylog, &capture]].concat(),
        2,
        "cannot be used with",
    );
    ends(&[&primary[..], &[&capture]].concat(), 1, "cannot read ");
}
