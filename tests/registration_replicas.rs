//! A site with two replicas of its Primary on three members of etcd: any of them may die.

mod common;
mod etcd_support;

use common::gate::Gate;
use common::lab::{Lab, Shape, Side};
use common::process;
use common::site::{self, Terms};
use etcd_support::Cluster;
use std::time::{Duration, Instant};

const LEASE: Duration = Duration::from_secs(4);
/// What follows a lease that ran out: elections, and connections that are made anew.
const SLACK: Duration = Duration::from_secs(8);

/// The newest secret's id if it seals, as a replica of B sees it.
fn sealing(lab: &Lab, replica: u16) -> Option<String> {
    let status = site::operate_at(lab, Side::B, replica, &["registrations", "--json"]);
    let status = status.success().json();
    let newest = &status["pairings"][0]["secrets"][0];
    (newest["sealing"] == true).then(|| newest["id"].to_string())
}

/// Asks a replica of B for a new secret and waits until it is in use.
fn renews(lab: &Lab, replica: u16, limit: Duration) {
    let until = Instant::now() + limit;
    let before = sealing(lab, replica);
    loop {
        let asked = site::operate_at(lab, Side::B, replica, &["renew", "hq"]);
        if asked.status.success() {
            break;
        }
        assert!(
            Instant::now() < until,
            "nobody takes the order: {}",
            asked.err
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    loop {
        let now = sealing(lab, replica);
        if now.is_some() && now != before {
            return;
        }
        assert!(Instant::now() < until, "not renewed in {limit:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Asserts that hosts' packets cross, sealed, and open.
fn crosses(lab: &Lab, gates: [&Gate; 2]) {
    let before = gates.map(|gate| (gate.count("marked.sealed"), gate.failed()));
    assert_eq!(lab.ping(Side::A, 10, "0.02").len(), 10);
    for (gate, (marked, failures)) in gates.iter().zip(before) {
        assert!(gate.count("marked.sealed") >= marked + 10, "{}", gate.log());
        assert_eq!(gate.failed(), failures);
    }
}

#[test]
fn replicas_and_members_die_and_registration_goes_on() {
    let Some(lab) = Lab::new(Shape::default()) else {
        return;
    };
    site::prepare(&lab);
    let mut cluster = Cluster::start_in(lab.gate_netns(Side::B).name(), 3);
    let store = format!(
        "{{ etcd: {{ endpoints: {:?}, lease: {}s }} }}",
        cluster.endpoints("http"),
        LEASE.as_secs()
    );
    let terms = |replica| Terms {
        store: Some(store.clone()),
        replica,
        ..Terms::default()
    };
    let mut first = Some(site::primary(&lab, Side::B, &terms(0)));
    let second = site::primary(&lab, Side::B, &terms(1));
    let _primary_a = site::primary(&lab, Side::A, &Terms::default());
    let gate_a = site::apart(&lab, Side::A, &Terms::default());
    let gate_b = site::apart(&lab, Side::B, &terms(0));
    site::wait_until_registered(&lab);
    let gates = [&gate_a, &gate_b];
    crosses(&lab, gates);
    renews(&lab, 0, SLACK);
    // Any replica takes an order, and all see what comes of it.
    renews(&lab, 1, SLACK);
    crosses(&lab, gates);

    // One of three members dies.
    cluster.kill(0);
    crosses(&lab, gates);
    renews(&lab, 1, LEASE + SLACK);
    crosses(&lab, gates);
    cluster.restart(0);

    // The replica that everybody is connected to dies.
    let generation = |gate: &Gate| gate.flow(58, (0, 0))["generations"]["local"].clone();
    let before = generation(&gate_b);
    first.take().unwrap().stop("KILL");
    crosses(&lab, gates);
    renews(&lab, 1, LEASE + SLACK);
    crosses(&lab, gates);
    assert_eq!(
        before,
        generation(&gate_b),
        "a connection that is resumed keeps its generation"
    );

    // The other one is the one that dies, after the first came back.
    let first = site::primary(&lab, Side::B, &terms(0));
    second.stop("KILL");
    renews(&lab, 0, LEASE + SLACK);
    crosses(&lab, gates);
    gate_a.stop();
    gate_b.stop();
    first.stop("TERM").success();
}
