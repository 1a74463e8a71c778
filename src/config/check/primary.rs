//! Checks of `primary`.

use std::collections::HashSet;

use super::{
    Report,
    files::{private, psk_of, resolve, resolved},
    number, once_by, prefixes_once,
    secondary::MAX_SERVED,
    store::cluster,
    too_many,
};
use crate::config::{
    DnsName, Mode, PairingRole, Prefix, Primary, PrimaryPairing, PrimaryStore, Protection,
    error::Source, scalar::At,
};

/// Entries of one list that a message has room for.
const MAX_ENTRIES: usize = 8192;

/// The section `primary`; `embedded` is the Secondary in the same process.
pub(in crate::config) fn primary(
    primary: &mut Primary,
    embedded: Option<&DnsName>,
    source: &Source,
    report: Report<'_>,
) {
    paths(primary, source, report);
    listeners(primary, embedded, source, report);
    if let PrimaryStore::Etcd(etcd) = &mut primary.store {
        cluster(etcd, source, report);
    }
    for pairing in &mut primary.pairings {
        read_psk(pairing, source, report);
        sides(pairing, source, report);
        suites(pairing, source, report);
        entries(pairing, source, report);
        let analyzers = pairing.analyzers.iter();
        once(analyzers, "each name once in a pairing", source, report);
    }
    between_pairings(&primary.pairings, source, report);
    secondaries(primary, source, report);
}

fn paths(primary: &mut Primary, source: &Source, report: Report<'_>) {
    for file in [
        &mut primary.certificate,
        &mut primary.key,
        &mut primary.authorities,
    ] {
        resolve(file, source);
    }
    if let Some(file) = &mut primary.revocations {
        resolve(file, source);
    }
    for path in [&mut primary.socket, &mut primary.keylog]
        .into_iter()
        .flatten()
    {
        *path = resolved(path, source);
    }
    if let PrimaryStore::Embedded(path) = &mut primary.store {
        *path = resolved(path, source);
    }
    private(&primary.key, source, report);
}

fn listeners(primary: &Primary, embedded: Option<&DnsName>, source: &Source, report: Report<'_>) {
    once_by(
        primary.listen.iter(),
        |address| address.get(),
        "each address once",
        source,
        report,
    );
    if !primary.listen.is_empty() {
        return;
    }
    let pairing = primary.pairings.iter().find_map(|pairing| {
        let name = pairing.name.as_str();
        if *pairing.role == PairingRole::Server {
            Some(format!("the peer of `{name}` connects to us"))
        } else {
            let analyzer = pairing.analyzers.first()?;
            Some(format!("the analyzer {} of `{name}` connects", **analyzer))
        }
    });
    let secondary = || {
        let mut others = primary.secondaries.iter();
        let other = others.find(|secondary| embedded != Some(&*secondary.name))?;
        Some(format!("the Secondary {} connects", *other.name))
    };
    if let Some(who) = pairing.or_else(secondary) {
        report(source.fault_at(
            &primary.listen,
            &format!("no address to listen on, and {who}"),
            "at least one address:port such as [::]:8250",
        ));
    }
}

fn read_psk(pairing: &mut PrimaryPairing, source: &Source, report: Report<'_>) {
    let Some(psk) = &mut pairing.psk else {
        return;
    };
    resolve(&mut psk.file, source);
    match psk_of(&psk.file) {
        Ok(key) => psk.key = key,
        Err(found) => report(source.fault_at(
            &psk.file,
            &format!("{}: {found}", psk.file.display()),
            "a file with 32 to 1024 random bytes, as hexadecimal digits or raw, not readable by others (chmod o-rwx): `pdmgate keygen psk`",
        )),
    }
}

/// Fields that belong to one role.
fn sides(pairing: &PrimaryPairing, source: &Source, report: Report<'_>) {
    let name = pairing.name.as_str();
    match *pairing.role {
        PairingRole::Client => {
            match &pairing.connect {
                None => report(source.fault_at(
                    &pairing.name,
                    &format!("no `connect` in the pairing `{name}`"),
                    "`connect: ` and a list of host:port; a client must know where the peer listens",
                )),
                Some(connect) if connect.is_empty() => {
                    report(source.fault_at(connect, "an empty list", "at least one host:port"));
                }
                Some(_) => (),
            }
            let theirs = "only with `role: server`: a client learns it from the peer";
            if let Some(mode) = &pairing.given_mode {
                report(source.fault_at(mode, "`mode` with `role: client`", theirs));
            }
            if let Some(protection) = &pairing.given_protection {
                report(source.fault_at(protection, "`protection` with `role: client`", theirs));
            }
            let mut groups = pairing
                .entries
                .iter()
                .filter_map(|entry| entry.group.as_ref());
            if let Some(group) = groups.next() {
                report(source.fault_at(
                    group,
                    "`group` with `role: client`",
                    "only with `role: server`: clients have no group",
                ));
            }
        }
        PairingRole::Server => {
            if let Some(connect) = &pairing.connect {
                report(source.fault_at(
                    connect,
                    "`connect` with `role: server`",
                    "only with `role: client`: the peer connects to us",
                ));
            }
            let grouped = pairing.mode() == Mode::TrustedServers
                && pairing.protection() == Protection::Sealed;
            for entry in pairing.entries.iter() {
                if grouped && entry.group.is_none() {
                    report(source.fault_at(
                        &entry.prefix,
                        "a server entry without `group`",
                        "`group: ` and a name; trusted-servers derives keys from it",
                    ));
                }
            }
        }
    }
}

fn suites(pairing: &PrimaryPairing, source: &Source, report: Report<'_>) {
    if pairing.suites.is_empty() {
        report(source.fault_at(
            &pairing.suites,
            "an empty list of suites",
            "at least one, such as { kem: x25519, aead: aes-128-gcm }",
        ));
    }
    for (at, suite) in pairing.suites.iter().enumerate() {
        let mut earlier = pairing.suites.iter().take(at);
        if earlier.any(|earlier| **earlier == **suite) {
            report(source.fault_at(
                suite,
                &format!("{} with {} for the second time", suite.kem, suite.aead),
                "each suite once, in order of preference",
            ));
        }
    }
}

fn entries(pairing: &PrimaryPairing, source: &Source, report: Report<'_>) {
    number(&pairing.entries, MAX_ENTRIES, source, report);
    let prefixes = pairing.entries.iter().map(|entry| &entry.prefix);
    prefixes_once(prefixes, "a pairing's list", source, report);
}

fn between_pairings(pairings: &[PrimaryPairing], source: &Source, report: Report<'_>) {
    if too_many(pairings.iter().map(|pairing| &pairing.name), source, report) {
        return;
    }
    let names = pairings.iter().map(|pairing| &pairing.name);
    let own = "a name of its own for each pairing";
    once_by(names, |name| name.as_str().to_owned(), own, source, report);
    for role in [PairingRole::Client, PairingRole::Server] {
        let pairings = pairings.iter().filter(|pairing| *pairing.role == role);
        let allowed = format!("each peer once with `role: {role}`");
        let peers = pairings.map(|pairing| &pairing.peer);
        once(peers, &allowed, source, report);
    }
}

fn once<'a>(
    names: impl Iterator<Item = &'a At<DnsName>>,
    allowed: &str,
    source: &Source,
    report: Report<'_>,
) {
    once_by(names, |name| (**name).clone(), allowed, source, report);
}

fn secondaries(primary: &Primary, source: &Source, report: Report<'_>) {
    let names = primary.secondaries.iter().map(|one| &one.name);
    once(
        names,
        "each Secondary once; give it all its entries there",
        source,
        report,
    );
    let listed = listed(primary);
    for secondary in &primary.secondaries {
        number(&secondary.entries, MAX_SERVED, source, report);
        prefixes_once(
            secondary.entries.iter(),
            "a Secondary's list",
            source,
            report,
        );
        for entry in secondary.entries.iter() {
            if !listed.contains(&**entry) {
                report(source.fault_at(
                    entry,
                    &format!("`{}`, which stands in no pairing", **entry),
                    "an entry of `primary.pairings`, written with the same length",
                ));
            }
        }
    }
}

/// Every entry of every pairing.
fn listed(primary: &Primary) -> HashSet<Prefix> {
    let entries = primary.pairings.iter().flat_map(|one| one.entries.iter());
    entries.map(|entry| *entry.prefix).collect()
}
