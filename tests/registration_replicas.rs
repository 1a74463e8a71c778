//! A site with two replicas of its Primary on three members of etcd: any of them may die, and nothing waits for longer than the lease.

mod common;
mod etcd_support;

use common::gate::Gate;
use common::lab::{Datagrams, Lab, Shape, Side};
use common::process;
use common::site::{self, Terms};
use etcd_support::Cluster;
use std::time::{Duration, Instant};

const LEASE: Duration = Duration::from_secs(4);
/// How much longer is waited before a test gives up; what took longer than the lease fails it too.
const SLACK: Duration = Duration::from_secs(1);
/// As long as a death may interrupt anything.
const STREAM: Datagrams = Datagrams {
    count: 2_500,
    rate: 500,
    size: 100,
    echo: true,
};

/// A lab with a replicated Primary on one side.
struct Site<'l> {
    lab: &'l Lab,
    side: Side,
    gates: [&'l Gate; 2],
}

impl Site<'_> {
    fn pairing(&self) -> &'static str {
        match self.side {
            Side::A => "branch",
            Side::B => "hq",
        }
    }

    /// The newest secret's id if it seals, as a replica sees it.
    fn sealing(&self, replica: u16) -> Option<String> {
        let args = ["registrations", "--json"];
        let status = site::operate_at(self.lab, self.side, replica, &args);
        let status = status.success().json();
        let newest = &status["pairings"][0]["secrets"][0];
        (newest["sealing"] == true).then(|| newest["id"].to_string())
    }

    /// Asks a replica for a new secret and waits until it is in use.
    fn renews(&self, replica: u16, limit: Duration) {
        let until = Instant::now() + limit;
        let before = self.sealing(replica);
        loop {
            let args = ["renew", self.pairing()];
            let asked = site::operate_at(self.lab, self.side, replica, &args);
            if asked.status.success() {
                break;
            }
            let why = asked.err;
            assert!(Instant::now() < until, "nobody takes the order: {why}");
            std::thread::sleep(Duration::from_millis(50));
        }
        loop {
            let now = self.sealing(replica);
            if now.is_some() && now != before {
                return;
            }
            assert!(Instant::now() < until, "not renewed in {limit:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Has something die under traffic. Asserts that every packet of the hosts crosses, sealed, and opens; and that within the lease a
    /// new secret is agreed on and in use, which takes the peer's Primary, this one, its store, and all Secondaries.
    fn survives(&self, what: &str, replica: u16, death: impl FnOnce()) {
        // Two secrets within a second are not agreed on anyway.
        std::thread::sleep(Duration::from_millis(1_100));
        let before = self
            .gates
            .map(|gate| (gate.count("marked.sealed"), gate.failed()));
        let took = std::thread::scope(|scope| {
            let stream = scope.spawn(|| self.lab.udp(Side::A, 6001, &STREAM));
            std::thread::sleep(Duration::from_millis(500));
            death();
            let died = Instant::now();
            self.renews(replica, LEASE + SLACK);
            let took = died.elapsed();
            let (seen, sent) = stream.join().unwrap();
            let all = STREAM.count.into();
            assert_eq!((&seen["distinct"], &sent["echoes"]), (&all, &all), "{what}");
            took
        });
        println!("{what}: a new secret after {took:?}");
        assert!(took < LEASE, "{what}: {took:?}");
        for (gate, (marked, failures)) in self.gates.iter().zip(before) {
            let sealed = gate.count("marked.sealed") - marked;
            assert!(sealed >= STREAM.count, "{what}: {sealed}\n{}", gate.log());
            assert_eq!(gate.failed(), failures, "{what}: {}", gate.log());
        }
    }
}

fn replicas_and_members_die(side: Side) {
    let Some(lab) = Lab::new(Shape::default()) else {
        return;
    };
    site::prepare(&lab);
    let mut cluster = Cluster::start_in(lab.gate_netns(side).name(), 3);
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
    let mut first = Some(site::primary(&lab, side, &terms(0)));
    let second = site::primary(&lab, side, &terms(1));
    let _others = site::primary(&lab, side.other(), &Terms::default());
    let gate_a = site::apart(&lab, Side::A, &Terms::default());
    let gate_b = site::apart(&lab, Side::B, &Terms::default());
    site::wait_until_registered(&lab);
    let site = Site {
        lab: &lab,
        side,
        gates: [&gate_a, &gate_b],
    };
    // Any replica takes an order, and all see what comes of it.
    site.survives("nothing", 0, || {});
    site.survives("nothing", 1, || {});

    site.survives("one of three members", 1, || cluster.kill(0));
    cluster.restart(0);

    // The replica that leads, and that everybody is connected to.
    let gate = [&gate_a, &gate_b][side as usize];
    let generation = || gate.flow(17, (6001, 6001))["generations"]["local"].clone();
    let before = generation();
    let death = || drop(first.take().unwrap().stop("KILL"));
    site.survives("the first replica", 1, death);
    assert_eq!(
        before,
        generation(),
        "a connection that is resumed keeps its generation"
    );

    // The other one is the one that dies, after the first came back.
    let first = site::primary(&lab, side, &terms(0));
    site.survives("the second replica", 0, || drop(second.stop("KILL")));
    gate_a.stop();
    gate_b.stop();
    first.stop("TERM").success();
}

#[test]
fn replicas_of_a_server_and_members_die_and_registration_goes_on() {
    replicas_and_members_die(Side::B);
}

#[test]
fn replicas_of_a_client_and_members_die_and_registration_goes_on() {
    replicas_and_members_die(Side::A);
}
