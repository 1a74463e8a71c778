//! The core's side of the link, with a test's Primary behind the agent's.

use super::*;
use crate::config::{Config, Mode};
use crate::registration::link::{AgentEnd, link};
use crate::snapshot::tests::primary::{Primary, prefix};
use crate::snapshot::{Inputs, Role, Route};
use std::path::Path;

const CLIENT: &str = "2001:db8:1::/64";
const WEB: &str = "2001:db8:2::/64";

/// What the core has of an appliance, without devices.
struct Bench {
    registered: Registered,
    agent: AgentEnd,
    state: State,
    snapshot: Snapshot,
    awaited: ArrayQueue<Awaited>,
}

impl Bench {
    fn new() -> Self {
        let (agent, core) = link();
        let mut state = State::in_memory();
        let snapshot = build(&[], &mut state, None);
        Self {
            registered: Registered::new(Some(core)),
            agent,
            state,
            snapshot,
            awaited: ArrayQueue::new(64),
        }
    }

    /// A tick of the core, all workers being quick; whether there was a new snapshot.
    fn tick(&mut self) -> bool {
        let mut stale = self.registered.take();
        self.registered.notes(&self.snapshot, &self.awaited);
        stale |= self.registered.compute(&self.snapshot, &mut self.state);
        if stale {
            let grants = self.registered.grants().to_vec();
            self.snapshot = build(&grants, &mut self.state, Some(&self.snapshot));
            self.registered.in_force(&self.snapshot);
        }
        self.registered.seen(&self.snapshot);
        stale
    }

    fn applied(&self) -> u64 {
        *self.agent.applied().borrow()
    }

    /// What the agent is asked for now.
    fn wishes(&mut self) -> Vec<Want> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(async {
            let mut wishes = Vec::new();
            while let Some(want) = tokio::select! {
                biased;
                want = self.agent.wanted() => want,
                () = std::future::ready(()) => None,
            } {
                wishes.push(want);
            }
            wishes
        })
    }

    fn route(&self, local: &str, remote: &str) -> Route {
        let [local, remote] =
            [local, remote].map(|a| a.parse::<std::net::Ipv6Addr>().expect("one").octets());
        self.snapshot.resolve(&local, &remote).expect("a route")
    }

    /// A worker lacks the secrets between these two.
    fn lack(&self, local: &str, remote: &str) -> usize {
        let route = self.route(local, remote);
        let notes = self.snapshot.awaited(&route);
        notes
            .filter(|note| self.awaited.push(*note).is_ok())
            .count()
    }
}

fn build(grants: &[Arc<Grant>], state: &mut State, previous: Option<&Snapshot>) -> Snapshot {
    let text = "ports: { inside: { device: net_ring0 }, outside: { device: net_ring1 } }\n";
    let config = Config::parse(text, Path::new("test.yaml")).expect("valid");
    let inputs = Inputs {
        previous,
        serial: previous.map_or(1, |previous| previous.serial + 1),
        tsc_hz: 1_000_000_000,
        new_era: false,
    };
    Snapshot::build(&config, grants, state, inputs).expect("a snapshot")
}

#[test]
fn a_set_is_told_of_when_it_is_seen() {
    let mut bench = Bench::new();
    assert!(!bench.tick());
    assert_eq!(bench.applied(), 0);
    let primary = Primary::new(Mode::TrustedServers);
    let grant = |generation| primary.grant(Role::Client, &[(CLIENT, generation)]);
    bench.agent.publish(7, vec![grant(2)]);
    assert!(bench.tick());
    assert_eq!(bench.applied(), 7);
    bench.agent.publish(8, vec![grant(1)]);
    assert!(bench.tick());
    assert_eq!((bench.applied(), bench.snapshot.refused.len()), (8, 1));
    assert!(bench.snapshot.needs_generations());
    bench.agent.publish(9, vec![grant(3)]);
    bench.tick();
    assert_eq!(bench.applied(), 9);
    bench.agent.publish(10, Vec::new());
    bench.tick();
    assert_eq!((bench.applied(), bench.snapshot.pairings.len()), (10, 0));
}

#[test]
fn a_pairs_key_is_asked_for_once_a_second() {
    let mut bench = Bench::new();
    let mut primary = Primary::new(Mode::AsymmetricPoll);
    let server = |primary: &Primary| vec![primary.grant(Role::Server, &[(WEB, 1)])];
    bench.agent.publish(1, server(&primary));
    bench.tick();
    for _ in 0..5 {
        assert_eq!(bench.lack("2001:db8:2::1", "2001:db8:1::1"), 1);
        assert!(!bench.tick());
    }
    let wish = Want::PairKey {
        pairing: "campus".to_owned(),
        master: primary.id(0),
        own: prefix(WEB),
        peer: prefix(CLIENT),
    };
    assert_eq!(bench.wishes(), [wish]);
    primary.pairs.push((prefix(WEB), prefix(CLIENT)));
    bench.agent.publish(2, server(&primary));
    bench.tick();
    assert_eq!(bench.lack("2001:db8:2::1", "2001:db8:1::1"), 0);
    assert_eq!(bench.applied(), 2);
}

#[test]
fn secrets_are_computed_a_few_at_a_time_and_come_together() {
    let mut bench = Bench::new();
    let mut primary = Primary::new(Mode::Ibc);
    for n in 4..9 {
        let mut more = primary.servers[0].clone();
        more.prefix = prefix(&format!("2001:db8:{n}::/64"));
        primary.servers.push(more);
    }
    let client = primary.grant(Role::Client, &[(CLIENT, 1)]);
    bench.agent.publish(1, vec![client]);
    bench.tick();
    for n in (2..9).chain(2..9) {
        assert_eq!(bench.lack("2001:db8:1::1", &format!("2001:db8:{n}::1")), 1);
    }
    let mut snapshots = 0;
    for _ in 0..7 / COMPUTED_A_TICK + 1 {
        snapshots += usize::from(bench.tick());
    }
    assert!((1..4).contains(&snapshots));
    for n in 2..9 {
        assert_eq!(bench.lack("2001:db8:1::1", &format!("2001:db8:{n}::1")), 0);
    }
    assert!(!bench.tick());
}

#[test]
fn a_new_secret_counts_as_held_when_its_pairs_have_theirs() {
    for mode in [Mode::AsymmetricPoll, Mode::Ibc] {
        let mut bench = Bench::new();
        let mut primary = Primary::new(mode);
        let server = |primary: &Primary| vec![primary.grant(Role::Server, &[(WEB, 1)])];
        primary.pairs.push((prefix(WEB), prefix(CLIENT)));
        bench.agent.publish(1, server(&primary));
        bench.tick();
        bench.lack("2001:db8:2::1", "2001:db8:1::1");
        bench.tick();
        assert_eq!(bench.applied(), 1);
        primary.renew();
        if mode == Mode::AsymmetricPoll {
            let pairs = std::mem::take(&mut primary.pairs);
            let mut bare = server(&primary);
            primary.pairs = pairs;
            let full = server(&primary);
            // The key under the older secret is there, that under the new one is not.
            let older = Arc::into_inner(full.into_iter().next().expect("one")).expect("one");
            let grant = Arc::get_mut(&mut bare[0]).expect("the only one");
            grant.masters.truncate(1);
            grant.masters.extend(older.masters.into_iter().skip(1));
            bench.agent.publish(2, bare);
            bench.tick();
            assert_eq!(bench.applied(), 1);
            let wishes = bench.wishes();
            let asked = |want: &Want| matches!(want, Want::PairKey { master, .. } if *master == primary.id(0));
            assert!(wishes.len() == 1 && wishes.iter().all(asked), "{wishes:?}");
            bench.agent.publish(3, server(&primary));
            bench.tick();
            assert_eq!(bench.applied(), 3);
        } else {
            bench.agent.publish(2, server(&primary));
            bench.tick();
            assert_eq!(bench.applied(), 1);
            // Computed, in force, told.
            assert!(bench.tick());
            assert_eq!(bench.applied(), 2);
        }
        assert_eq!(bench.lack("2001:db8:2::1", "2001:db8:1::1"), 0);
    }
}

#[test]
fn generations_are_asked_for_where_something_is_sealed() {
    let mut bench = Bench::new();
    bench.registered.ask_for_generations(&bench.snapshot);
    let open = Primary::new(Mode::NoProtection);
    bench
        .agent
        .publish(1, vec![open.grant(Role::Client, &[(CLIENT, 1)])]);
    bench.tick();
    bench.registered.ask_for_generations(&bench.snapshot);
    assert_eq!(bench.wishes(), []);
    let sealed = Primary::new(Mode::TrustedServers);
    bench
        .agent
        .publish(2, vec![sealed.grant(Role::Client, &[(CLIENT, 1)])]);
    bench.tick();
    bench.registered.ask_for_generations(&bench.snapshot);
    assert_eq!(bench.wishes(), [Want::NewGenerations]);
    // Without a link nothing is wanted of anybody.
    Registered::new(None).ask_for_generations(&bench.snapshot);
}
