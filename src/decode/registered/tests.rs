//! Packets sealed here under a pairing PRK, as Secondaries would.

use super::*;
use crate::crypto::Kem;
use crate::decode::capture::Captured;
use crate::decode::records::{KeyRecord, NotOpened, OptionRecord};
use crate::decode::tests::{OPTION_TYPE, frame, metrics, seal, tuple};
use crate::decode::{Decoder, Windows};
use crate::registration::message::AnalysisMaster;

const SUITE: Suite = Suite {
    kem: Kem::P256HkdfSha256,
    aead: Aead::ChaCha20Poly1305,
};
const CLIENT: &str = "2001:db8:1::/64";
const SERVER: &str = "2001:db8:2::/64";

fn listed(prefix: &str, group: &str, generations: &[u32]) -> Listed {
    Listed {
        prefix: prefix.parse().unwrap(),
        group: group.to_owned(),
        generations: generations.to_vec(),
    }
}

fn analysis(mode: Mode, masters: &[u8], clients: Listed, servers: Listed) -> Analysis {
    let master = |byte: &u8| AnalysisMaster {
        suite: SUITE,
        prk: PairingPrk::from_bytes([*byte; 32]),
    };
    Analysis {
        pairing: "branch".to_owned(),
        mode,
        protection: Protection::Sealed,
        clients: vec![clients],
        servers: vec![servers],
        masters: masters.iter().map(master).collect(),
    }
}

fn simple(mode: Mode, masters: &[u8]) -> Analysis {
    let (client, server) = (listed(CLIENT, "", &[1, 2]), listed(SERVER, "web", &[7]));
    analysis(mode, masters, client, server)
}

/// What a server of `group` derives, which is the other way round than a decoder does it.
fn server_secret(mode: Mode, prk: u8, group: &str) -> SharedSecret {
    let id = |prefix: &str| {
        let prefix: Prefix = prefix.parse().unwrap();
        EntryId::new(&prefix.address(), prefix.length()).unwrap()
    };
    let (client, server) = (id(CLIENT), id(SERVER));
    let prk = PairingPrk::from_bytes([prk; 32]);
    match mode {
        Mode::TrustedServers => prk
            .server_secret(&SUITE, group)
            .client_secret(&SUITE, &client)
            .into(),
        Mode::AsymmetricPoll => prk
            .poll_client_secret(&SUITE, &client)
            .pair_device_key(&SUITE, &server)
            .into(),
        Mode::Ibc => {
            let key = prk.ibc_master(&SUITE).server_key(&server);
            key.shared_secret(&SUITE, &client).unwrap()
        }
        Mode::NoProtection => unreachable!(),
    }
}

fn decoder(states: Vec<(u64, u64, Analysis)>) -> Decoder {
    let mut registered = Registered::default();
    for (since, time, analysis) in states {
        registered.add(analysis, since, time);
    }
    Decoder::registered(registered, OPTION_TYPE, Windows::default())
}

/// Seals a packet of Unix second `time` and decodes it; `key` is source generation, destination generation, Kri.
fn pass(
    decoder: &mut Decoder,
    shared: &SharedSecret,
    from_client: bool,
    time: u64,
    key: (u32, u32, u32),
) -> OptionRecord {
    let tuple = tuple(from_client);
    let (src_generation, dst_generation, kri) = key;
    let info = SessionInfo {
        tuple: &tuple,
        src_generation,
        dst_generation,
        kri,
    };
    let session = shared.session_key(&SUITE, &info);
    let option = seal(SUITE.aead, &session, 5, kri, &metrics(1, 2, 0));
    let frame = frame(&tuple, &option);
    let record = decoder.packet(&Captured {
        number: 1,
        time_ns: time * 1_000_000_000,
        data: frame.as_slice().into(),
        original_len: frame.len(),
    });
    assert_eq!(record.pairing.as_deref(), Some("branch"));
    record.option.unwrap()
}

fn opened(option: &OptionRecord) -> (u32, u32, u32) {
    let Some(KeyRecord {
        src_generation,
        dst_generation,
        kri,
    }) = option.key
    else {
        panic!("{option:?}");
    };
    (src_generation, dst_generation, kri)
}

#[test]
fn every_mode_is_opened_in_both_directions() {
    for mode in [Mode::TrustedServers, Mode::AsymmetricPoll, Mode::Ibc] {
        let mut decoder = decoder(vec![(0, 0, simple(mode, &[1]))]);
        let shared = server_secret(mode, 1, "web");
        // The second end of the client's entry; an older generation than listed; midway.
        for (from_client, key) in [
            (true, (2, 7, 0)),
            (false, (7, 2, 0)),
            (true, (1, 7, 1)),
            (false, (5, 1, 500)),
        ] {
            let option = pass(&mut decoder, &shared, from_client, 0, key);
            assert_eq!(opened(&option), key, "{mode:?}");
        }
        let stranger = server_secret(mode, 2, "web");
        let option = pass(&mut decoder, &stranger, true, 0, (2, 7, 0));
        assert_eq!(option.reason, Some(NotOpened::NoKey));
    }
}

#[test]
fn a_new_secret_beside_the_old_one_is_found() {
    let mode = Mode::TrustedServers;
    // As a Primary tells them: the newest first.
    let mut decoder = decoder(vec![(0, 0, simple(mode, &[2, 1]))]);
    for prk in [1, 2, 1, 2] {
        let shared = server_secret(mode, prk, "web");
        let option = pass(&mut decoder, &shared, true, 0, (2, 7, 0));
        assert_eq!(opened(&option), (2, 7, 0));
    }
    let other_group = server_secret(mode, 1, "mail");
    let option = pass(&mut decoder, &other_group, true, 0, (2, 7, 0));
    assert_eq!(option.opened, Some(false));
}

#[test]
fn a_year_of_secrets_and_generations_goes_by_the_time_of_the_packet() {
    let mode = Mode::AsymmetricPoll;
    let states = (0..200_u8).map(|day| {
        let time = u64::from(day) * 86_400;
        let numbers = [u32::from(day) + 1, u32::from(day) + 2];
        let (client, server) = (
            listed(CLIENT, "", &numbers),
            listed(SERVER, "", &[3 * u32::from(day) + 1]),
        );
        (time, time, analysis(mode, &[day], client, server))
    });
    let mut decoder = decoder(states.collect());
    for day in [150, 3, 199] {
        let shared = server_secret(mode, day, "");
        let key = (u32::from(day) + 2, 3 * u32::from(day) + 1, 3);
        // In the middle of the day, a little before it began, and a little after it ended.
        for time in [43_200, -3, 86_403] {
            let time = (i64::from(day) * 86_400 + time) as u64;
            let option = pass(&mut decoder, &shared, true, time, key);
            assert_eq!(opened(&option), key, "{day} {time}");
        }
    }
}

#[test]
fn an_entry_that_changes_its_group_is_opened_before_and_after() {
    let mode = Mode::TrustedServers;
    let client = || listed(CLIENT, "", &[1]);
    let state = |server| analysis(mode, &[1], client(), server);
    let mut decoder = decoder(vec![
        (0, 10, state(listed(SERVER, "web", &[7]))),
        (0, 20, state(listed(SERVER, "mail", &[]))),
        (0, 30, state(listed(SERVER, "mail", &[8]))),
    ]);
    for (group, time, generation) in [("web", 15, 7), ("mail", 40, 8), ("web", 19, 7)] {
        let shared = server_secret(mode, 1, group);
        let option = pass(&mut decoder, &shared, true, time, (1, generation, 0));
        assert_eq!(opened(&option), (1, generation, 0));
    }
}

#[test]
fn what_cannot_be_opened_says_why() {
    let shared = server_secret(Mode::Ibc, 1, "");
    let mut clear = simple(Mode::Ibc, &[1]);
    clear.protection = Protection::Clear;
    let without = simple(Mode::Ibc, &[]);
    let open_to_all = simple(Mode::NoProtection, &[1]);
    for analysis in [clear, without, open_to_all] {
        let mut decoder = decoder(vec![(0, 0, analysis)]);
        let option = pass(&mut decoder, &shared, true, 0, (2, 7, 0));
        assert_eq!(option.reason, Some(NotOpened::NoSecret));
    }
    // No Secondary serves the client's entry any more; its numbers began somewhere.
    let gone = analysis(
        Mode::Ibc,
        &[1],
        listed(CLIENT, "", &[]),
        listed(SERVER, "", &[7]),
    );
    let mut decoder = decoder(vec![(0, 0, gone)]);
    let option = pass(&mut decoder, &shared, true, 0, (4, 7, 1));
    assert_eq!(opened(&option), (4, 7, 1));
}

#[test]
fn the_most_specific_entries_count() {
    let mut wide = simple(Mode::Ibc, &[1]);
    wide.clients.insert(0, listed("2001:db8::/32", "", &[1]));
    wide.servers.push(listed("2001:db8:2::20/128", "", &[1]));
    let mut registered = Registered::default();
    registered.add(wide, 0, 0);
    let (out, back) = (tuple(true), tuple(false));
    let forth = registered.resolve(&out.src, &out.dst).unwrap();
    assert_eq!((forth.local, forth.remote), (1, 1));
    assert!(forth.local_is_client);
    let back = registered.resolve(&back.src, &back.dst).unwrap();
    assert_eq!((back.local, back.remote), (1, 1));
    assert!(!back.local_is_client);
    assert_eq!(registered.resolve(&out.src, &[0x30; 16]), None);
    assert_eq!(registered.secrets(), 1);
}
