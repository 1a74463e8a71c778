//! Registered pairings: what a snapshot makes of grants, and what it refuses.

use super::primary::{Primary, prefix};
use super::*;
use crate::snapshot::grant::{Listed, Own};
use std::sync::Arc;

pub(super) const CLIENT: &str = "2001:db8:1::/64";
const WEB: &str = "2001:db8:2::/64";
const DB: &str = "2001:db8:3::/64";

fn nothing() -> Config {
    let text = "ports: { inside: { device: net_ring0 }, outside: { device: net_ring1 } }\n";
    Config::parse(text, Path::new("test.yaml")).expect("valid")
}

fn build_with(
    grants: &[Arc<Grant>],
    state: &mut State,
    previous: Option<&Snapshot>,
    new_era: bool,
) -> Snapshot {
    let inputs = Inputs {
        new_era,
        ..inputs(previous)
    };
    Snapshot::build(&nothing(), grants, state, inputs).expect("a snapshot")
}

/// A client's appliance over snapshots.
pub(super) struct Appliance {
    pub(super) state: State,
    pub(super) snapshot: Snapshot,
}

impl Appliance {
    pub(super) fn new(grants: &[Arc<Grant>]) -> Self {
        let mut state = State::in_memory();
        let snapshot = build_with(grants, &mut state, None, false);
        Self { state, snapshot }
    }

    pub(super) fn next(&mut self, grants: &[Arc<Grant>]) -> &Snapshot {
        self.snapshot = build_with(grants, &mut self.state, Some(&self.snapshot), false);
        &self.snapshot
    }

    fn next_era(&mut self, grants: &[Arc<Grant>]) -> &Snapshot {
        self.snapshot = build_with(grants, &mut self.state, Some(&self.snapshot), true);
        &self.snapshot
    }

    pub(super) fn sealing(&self) -> Result<(u32, u32), NotSealing> {
        let epoch = self.snapshot.sealing(&client_side(&self.snapshot))?;
        Ok((epoch.src_generation, epoch.dst_generation))
    }

    pub(super) fn serial(&self) -> u32 {
        self.snapshot.pairings[0].pms_serial().expect("sealed")
    }
}

pub(super) fn client(primary: &Primary, generation: u32) -> Arc<Grant> {
    primary.grant(Role::Client, &[(CLIENT, generation)])
}

/// The grant changed by `edit`.
pub(super) fn edited(grant: Arc<Grant>, edit: impl FnOnce(&mut Grant)) -> Arc<Grant> {
    let mut grant = Arc::into_inner(grant).expect("the only one");
    edit(&mut grant);
    Arc::new(grant)
}

#[test]
fn both_ends_of_every_mode_have_the_same_keys_as_the_definition() {
    for mode in [Mode::TrustedServers, Mode::AsymmetricPoll, Mode::Ibc] {
        let mut primary = Primary::new(mode);
        primary.pairs = vec![(prefix(WEB), prefix(CLIENT))];
        let mut near = Appliance::new(&[client(&primary, 1)]);
        let mut far = Appliance::new(&[primary.grant(Role::Server, &[(WEB, 1), (DB, 1)])]);
        for appliance in [&mut near, &mut far] {
            let route = [client_side, server_side].map(|side| side(&appliance.snapshot));
            let notes: Vec<_> = route
                .iter()
                .flat_map(|route| appliance.snapshot.awaited(route))
                .collect();
            for note in notes {
                let (name, pair, source) = appliance.snapshot.wanted(&note).expect("wanted");
                assert_eq!((name, source), ("campus", Source::Computed));
                let secret = appliance.snapshot.compute(&pair).expect("granted");
                appliance
                    .state
                    .keep_pair(pair, secret.expect("good points"));
                assert!(appliance.state.has_pair(&pair));
                let again = appliance.snapshot.pairings[0]
                    .granted
                    .as_ref()
                    .expect("one");
                let grant = Arc::clone(&again.grant);
                appliance.next(&[grant]);
                assert_eq!(
                    appliance.snapshot.wanted(&note),
                    None,
                    "of another snapshot"
                );
            }
        }
        let (there, back) = (client_side(&near.snapshot), server_side(&far.snapshot));
        let epoch = near.snapshot.sealing(&there).expect("sealing");
        let found = far
            .snapshot
            .receive_epochs(&back)
            .next()
            .expect("an epoch to open");
        assert_eq!(epoch.src_generation, found.src_generation);
        let definition = primary
            .shared_secret(&primary.prks[0], &prefix(CLIENT), &prefix(WEB))
            .session_key(
                &primary.suite,
                &SessionInfo {
                    tuple: &tuple(),
                    src_generation: 1,
                    dst_generation: 1,
                    kri: 3,
                },
            );
        for (snapshot, route, epoch) in [
            (&near.snapshot, &there, epoch),
            (&far.snapshot, &back, found),
        ] {
            let key = snapshot.session_key(route, &epoch, &tuple(), 3);
            let key = key.expect("a key");
            assert_eq!(key.key(), definition.key(), "{mode:?}");
            assert_eq!(key.base_nonce(), definition.base_nonce());
        }
    }
}

#[test]
fn generations_come_from_the_lists() {
    let mut primary = Primary::new(Mode::TrustedServers);
    primary.listed(CLIENT).generations = vec![3, 5, 8];
    primary.listed(WEB).generations = vec![2, 4];
    let mut near = Appliance::new(&[client(&primary, 5)]);
    let serial = near.serial();
    assert_eq!(near.sealing(), Ok((5, 4)));
    let route = client_side(&near.snapshot);
    let expected: Vec<_> = [(4, 8), (4, 5), (2, 8), (2, 5)]
        .map(|(src, dst)| (serial, src, dst))
        .into();
    assert_eq!(epochs(&near.snapshot, &route), expected);
    assert_eq!(near.snapshot.far_epochs(&route).count(), 0);
    let live = |near: &Appliance, src_generation| {
        let epoch = Epoch {
            pms_serial: serial,
            src_generation,
            dst_generation: 8,
        };
        near.snapshot
            .is_live(client_side(&near.snapshot).remote, &epoch)
    };
    assert_eq!(
        [1, 2, 3, 4, 5].map(|g| live(&near, g)),
        [false, true, false, true, true]
    );
    // Another Secondary joins at each end; a peer whose list lags takes 8 for the newest.
    primary.listed(CLIENT).generations = vec![3, 5, 9];
    primary.listed(WEB).generations = vec![2, 4, 6];
    near.next(&[client(&primary, 5)]);
    assert_eq!(near.serial(), serial);
    assert_eq!(near.sealing(), Ok((5, 6)));
    let own: Vec<_> = epochs(&near.snapshot, &route)
        .iter()
        .map(|e| e.2)
        .take(3)
        .collect();
    assert_eq!(own, [9, 8, 5]);
    // The newest never goes down, whatever a list says; but who is gone is not looked for.
    primary.listed(WEB).generations = vec![2, 4];
    near.next(&[client(&primary, 5)]);
    assert_eq!(near.sealing(), Ok((5, 6)));
    assert!(epochs(&near.snapshot, &route).iter().all(|e| e.1 != 6));
    // Nobody there: nothing is marked.
    primary.listed(WEB).generations = Vec::new();
    near.next(&[client(&primary, 5)]);
    assert_eq!(near.sealing(), Err(NotSealing::NotYet));
    assert!(near.snapshot.is_incomplete(&route));
    assert_eq!(epochs(&near.snapshot, &route), []);
    assert!(!near.snapshot.marks_in_clear(&route));
}

#[test]
fn a_new_secret_opens_before_it_seals() {
    let mut primary = Primary::new(Mode::TrustedServers);
    primary.sealing = None;
    let mut near = Appliance::new(&[client(&primary, 1)]);
    assert_eq!(
        near.sealing(),
        Err(NotSealing::NotYet),
        "it only opens so far"
    );
    assert_eq!(
        epochs(&near.snapshot, &client_side(&near.snapshot)).len(),
        1
    );
    primary.seal_with_newest();
    near.next(&[client(&primary, 1)]);
    let first = near.serial();
    primary.renew();
    near.next(&[client(&primary, 1)]);
    let second = near.serial();
    assert!(second > first);
    let route = client_side(&near.snapshot);
    assert_eq!(near.snapshot.send_epoch(&route).pms_serial, first);
    let serials: Vec<_> = epochs(&near.snapshot, &route).iter().map(|e| e.0).collect();
    assert_eq!(serials, [second, first]);
    primary.seal_with_newest();
    near.next(&[client(&primary, 1)]);
    assert_eq!(near.snapshot.send_epoch(&route).pms_serial, second);
    primary.given = 1;
    near.next(&[client(&primary, 1)]);
    let old = Epoch {
        pms_serial: first,
        src_generation: 1,
        dst_generation: 1,
    };
    assert!(!near.snapshot.has_secret(&route, &old));
    assert!(!near.snapshot.is_live(route.remote, &old));
    assert!(
        near.snapshot
            .session_key(&route, &old, &tuple(), 0)
            .is_none()
    );
}

#[test]
fn a_restarted_secondary_tells_two_secrets_apart_by_age() {
    let mut primary = Primary::new(Mode::TrustedServers);
    primary.renew();
    let near = Appliance::new(&[client(&primary, 1)]);
    let route = client_side(&near.snapshot);
    assert!(near.snapshot.send_epoch(&route).pms_serial < near.serial());
}

#[test]
fn a_pairing_that_comes_back_has_its_epochs_and_floors_again() {
    let primary = Primary::new(Mode::TrustedServers);
    let mut near = Appliance::new(&[client(&primary, 4)]);
    let epoch = near.snapshot.send_epoch(&client_side(&near.snapshot));
    near.next(&[]);
    near.next(&[client(&primary, 4)]);
    assert_eq!(
        near.snapshot.send_epoch(&client_side(&near.snapshot)),
        epoch
    );
    // An era further its floors are still there, two further they are not.
    near.next(&[]);
    near.next_era(&[]);
    near.next(&[client(&primary, 4)]);
    assert_eq!((near.snapshot.era, near.snapshot.pairings[0].era), (1, 0));
    assert!(near.snapshot.has_stragglers());
    assert_eq!(near.sealing(), Ok((4, 1)));
    near.next(&[]);
    near.next_era(&[]);
    near.next(&[client(&primary, 4)]);
    assert_eq!(near.sealing(), Err(NotSealing::NotYet));
    assert!(near.snapshot.needs_generations() && !near.snapshot.has_stragglers());
    near.next(&[client(&primary, 5)]);
    assert_eq!(near.sealing(), Ok((5, 1)));
    assert!(!near.snapshot.needs_generations());
}

#[test]
fn an_era_is_joined_when_all_own_generations_are_new() {
    let mut primary = Primary::new(Mode::TrustedServers);
    primary.clients.push(Listed {
        prefix: prefix("2001:db8:9::/64"),
        group: String::new(),
        generations: vec![1],
    });
    let own = |primary: &Primary, a, b| {
        primary.grant(Role::Client, &[(CLIENT, a), ("2001:db8:9::/64", b)])
    };
    let mut near = Appliance::new(&[own(&primary, 1, 1)]);
    near.next_era(&[own(&primary, 1, 1)]);
    assert_eq!((near.snapshot.era, near.snapshot.pairings[0].era), (1, 0));
    near.next(&[own(&primary, 2, 1)]);
    assert_eq!(near.snapshot.pairings[0].era, 0);
    assert_eq!(near.sealing(), Ok((2, 1)), "in the floors of before");
    // Its generation 2 was used in era 0.
    near.next(&[own(&primary, 2, 2)]);
    assert_eq!(near.snapshot.pairings[0].era, 0);
    near.next(&[own(&primary, 3, 3)]);
    assert_eq!(near.snapshot.pairings[0].era, 1);
    assert_eq!(near.sealing(), Ok((3, 1)));
    assert!(!near.snapshot.has_stragglers());
    // A new PairMasterSecret was never used, so it joins by itself.
    near.next_era(&[own(&primary, 3, 3)]);
    primary.renew();
    near.next(&[own(&primary, 3, 3)]);
    assert_eq!(near.snapshot.pairings[0].era, 1, "the older one seals");
    primary.seal_with_newest();
    near.next(&[own(&primary, 3, 3)]);
    assert_eq!(near.snapshot.pairings[0].era, 2);
    assert_eq!(near.sealing(), Ok((3, 1)));
    // Left two eras behind, against the rule, it falls silent.
    near.next_era(&[own(&primary, 3, 3)]);
    near.next_era(&[own(&primary, 3, 3)]);
    assert_eq!(near.sealing(), Err(NotSealing::NotYet));
}

#[test]
fn servers_that_share_secrets_count_as_one_over_eras() {
    let mut primary = Primary::new(Mode::TrustedServers);
    let host = "2001:db8:2::1/128";
    primary.servers.push(Listed {
        prefix: prefix(host),
        group: "web".to_owned(),
        generations: vec![5],
    });
    let both = |wide, narrow| primary.grant(Role::Server, &[(WEB, wide), (host, narrow)]);
    let mut far = Appliance::new(&[both(4, 5)]);
    // Generation 5 is new for the network, but its host sealed under it with the same secret.
    far.next_era(&[both(5, 6)]);
    assert_eq!(far.snapshot.pairings[0].era, 0);
    far.next(&[both(7, 8)]);
    assert_eq!(far.snapshot.pairings[0].era, 1);
    // A client's entries have secrets of their own.
    let mut primary = Primary::new(Mode::TrustedServers);
    let host = "2001:db8:1::17/128";
    primary.clients.push(Listed {
        prefix: prefix(host),
        group: String::new(),
        generations: vec![5],
    });
    let both = |wide, narrow| primary.grant(Role::Client, &[(CLIENT, wide), (host, narrow)]);
    let mut near = Appliance::new(&[both(4, 5)]);
    near.next_era(&[both(5, 6)]);
    assert_eq!(near.snapshot.pairings[0].era, 1);
}

#[test]
fn entries_of_others_are_not_served() {
    let mut primary = Primary::new(Mode::TrustedServers);
    let host = prefix("2001:db8:1::17/128");
    primary.clients.push(Listed {
        prefix: host,
        group: String::new(),
        generations: vec![1],
    });
    let near = Appliance::new(&[client(&primary, 1)]);
    let others = client_side(&near.snapshot);
    assert!(
        !near.snapshot.serves(&others),
        "the most specific entry is another's"
    );
    assert_eq!(near.sealing(), Err(NotSealing::NotYet));
    assert_eq!(epochs(&near.snapshot, &others), []);
    let own = route(&near.snapshot, "2001:db8:1::18", "2001:db8:2::1");
    assert!(near.snapshot.serves(&own));
    assert!(near.snapshot.sealing(&own).is_ok());
    // A list may grow before the secret of its new group comes.
    primary.listed(WEB).group = "new".to_owned();
    let lags = edited(client(&primary, 1), |g| {
        for master in &mut g.masters {
            if let grant::Material::Client(groups) = &mut master.material[0] {
                groups.retain(|(group, _)| group != "new");
            }
        }
    });
    let near = Appliance::new(&[lags]);
    assert_eq!(near.snapshot.sealing(&own), Err(NotSealing::NotYet));
    assert!(near.snapshot.is_incomplete(&own));
}

#[test]
fn a_renewal_tells_which_pairs_are_behind() {
    let mut primary = Primary::new(Mode::AsymmetricPoll);
    primary.pairs = vec![(prefix(WEB), prefix(CLIENT))];
    let server = |primary: &Primary| primary.grant(Role::Server, &[(WEB, 1)]);
    let mut far = Appliance::new(&[server(&primary)]);
    assert_eq!(far.snapshot.behind(), []);
    primary.renew();
    let bare = edited(server(&primary), |g| {
        g.masters[0].material = vec![grant::Material::PairKeys(Vec::new())];
    });
    far.next(&[bare]);
    let [behind] = far.snapshot.behind()[..] else {
        panic!("one pair is behind");
    };
    let (_, pair, source) = far.snapshot.wanted(&behind).expect("wanted");
    assert_eq!((pair.master, source), (primary.id(0), Source::Primary));
    assert_eq!(
        (pair.own.prefix, pair.peer.prefix),
        (prefix(WEB), prefix(CLIENT))
    );
    far.next(&[server(&primary)]);
    assert_eq!(far.snapshot.behind(), []);
}

#[test]
fn computed_secrets_stay_as_long_as_they_are_granted() {
    let mut primary = Primary::new(Mode::Ibc);
    let mut near = Appliance::new(&[client(&primary, 1)]);
    let route = client_side(&near.snapshot);
    let note = near.snapshot.awaited(&route).next().expect("awaited");
    assert_eq!(near.sealing(), Err(NotSealing::Awaited(note)));
    let (_, pair, _) = near.snapshot.wanted(&note).expect("wanted");
    let secret = near
        .snapshot
        .compute(&pair)
        .expect("granted")
        .expect("good");
    near.state.keep_pair(pair, secret);
    for generation in [1, 1, 2] {
        near.next(&[client(&primary, generation)]);
        assert_eq!(near.sealing(), Ok((generation, 1)));
    }
    primary.renew();
    near.next(&[client(&primary, 2)]);
    assert_eq!(near.sealing(), Ok((2, 1)));
    assert_eq!(near.snapshot.behind().len(), 1);
    let own = Own {
        prefix: prefix(CLIENT),
        generation: 2,
    };
    assert_eq!(
        near.snapshot.pairings[0]
            .granted
            .as_ref()
            .expect("one")
            .grant
            .own,
        [own]
    );
    near.next(&[]);
    assert!(!near.state.has_pair(&pair), "revoked");
    near.next(&[client(&primary, 2)]);
    assert!(matches!(near.sealing(), Err(NotSealing::Awaited(_))));
}
