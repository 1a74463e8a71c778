//! What no single value can know about itself: checks between values, and the secrets that stand in files of their own.

mod files;
pub(super) mod primary;
pub(super) mod roles;
mod secondary;
mod store;

use std::{collections::HashMap, fmt::Display, hash::Hash};

use super::{Config, Fault, Idle, Mode, Name, Pairing, Prefix, Secret, error::Source, scalar::At};
use files::{resolved, secret_of};

/// Pairings that telemetry can tell apart.
const MAX_PAIRINGS: usize = 256;

/// Takes each fault that a check finds.
type Report<'a> = &'a mut dyn FnMut(Fault);

/// Every fault of `config`, in the order found; reads the `pms_file`s on the way.
pub(super) fn check(config: &mut Config, source: &Source) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut report = |fault: Fault| faults.push(fault);
    ports(config, source, &mut report);
    cores(config, source, &mut report);
    memory(config, source, &mut report);
    for pairing in &mut config.pairings {
        read_pms(pairing, source, &mut report);
        secrets(pairing, source, &mut report);
        lists(pairing, source, &mut report);
    }
    between_pairings(&config.pairings, source, &mut report);
    roles::check(config, source, &mut report);
    faults
}

/// What is valid and should be known.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let sealed = config.pairings.iter().filter(|pairing| pairing.is_sealed());
    let patterns = sealed
        .filter(|pairing| pairing.pms.as_deref().is_some_and(Secret::is_pattern))
        .map(|pairing| {
            format!(
                "the PairMasterSecret of the pairing `{}` is no secret, but a pattern such as the samples have: openssl rand -hex 32",
                pairing.name.as_str()
            )
        });
    let roles = roles::warnings(config.primary.as_ref(), config.secondary.as_ref());
    patterns.chain(roles).collect()
}

fn ports(config: &Config, source: &Source, report: Report<'_>) {
    let (inside, outside) = (&config.ports.inside.device, &config.ports.outside.device);
    if inside.name() == outside.name() {
        report(source.fault_at(
            outside,
            &format!(
                "`{}`, which is the inside port's device too",
                outside.name()
            ),
            "another device, or another number behind the driver's name",
        ));
    } else if let Some(interface) = outside.interface()
        && inside.interface() == Some(interface)
    {
        report(source.fault_at(
            outside,
            &format!("`iface={interface}`, which is the inside port's interface too"),
            "another interface: what comes in by one port goes out by the other",
        ));
    }
    if let Some(mtu) = &config.ports.mtu
        && mtu.get() < config.policy.mtu.get()
    {
        report(source.fault_at(
            mtu,
            &format!("{}", **mtu),
            format!(
                "at least {}, which is `policy.mtu`: packets with their option have to fit",
                config.policy.mtu
            ),
        ));
    }
}

fn cores(config: &Config, source: &Source, report: Report<'_>) {
    let Some(cores) = &config.workers.cores else {
        return;
    };
    let queues = config.ports.queues.get();
    if cores.len() != usize::from(queues) {
        report(source.fault_at(
            cores,
            &format!("{} cores", cores.len()),
            format!("as many as `ports.queues`, which is {queues}: one worker a queue"),
        ));
    }
    let twice = cores
        .iter()
        .enumerate()
        .find(|(at, core)| cores.iter().take(*at).any(|earlier| earlier == *core));
    if let Some((_, core)) = twice {
        report(source.fault_at(
            cores,
            &format!("core {core} for the second time"),
            "each core once",
        ));
    }
    if let Some(core) = &config.management.core
        && config.workers.idle == Idle::Poll
        && cores.contains(core)
    {
        report(source.fault_at(
            core,
            &format!("core {}, which is a worker's", **core),
            "a core of its own, or `workers.idle: pause` or `sleep`: a polling worker leaves nothing of its core",
        ));
    }
}

fn memory(config: &Config, source: &Source, report: Report<'_>) {
    if let Some(mbufs) = &config.eal.mbufs
        && mbufs.get() < config.least_mbufs()
    {
        report(source.fault_at(
            mbufs,
            &format!("{}", **mbufs),
            format!(
                "at least {}: both ports' descriptors of every queue, and 512 a queue on their way",
                config.least_mbufs()
            ),
        ));
    }
    if let Some(size) = &config.eal.mbuf_size
        && size.get() < config.longest_frame()
    {
        report(source.fault_at(
            size,
            &format!("{}", **size),
            format!(
                "at least {}: the ports' MTU {} + 14 (Ethernet) + 8 (two VLAN tags)",
                config.longest_frame(),
                config.port_mtu()
            ),
        ));
    }
}

/// Puts the secret of `pms_file` where `pms` would be.
fn read_pms(pairing: &mut Pairing, source: &Source, report: Report<'_>) {
    let Some(file) = &pairing.pms_file else {
        return;
    };
    if let Some(pms) = &pairing.pms {
        report(source.fault_at(pms, "`pms` beside `pms_file`", "one of the two"));
        return;
    }
    let path = resolved(file, source);
    let allowed =
        "a file with 64 hexadecimal digits or 32 raw bytes, not readable by others (chmod o-rwx)";
    match secret_of(&path) {
        Ok(secret) => pairing.pms = Some(file.with(secret)),
        Err(found) => {
            let found = format!("{}: {found}", path.display());
            report(source.fault_at(file, &found, allowed));
        }
    }
}

fn secrets(pairing: &Pairing, source: &Source, report: Report<'_>) {
    let why = "must be given where `protection` is sealed";
    if pairing.is_sealed() {
        if pairing.salt.is_none() {
            report(source.fault_at(
                &pairing.name,
                &format!("no `salt` in the pairing `{}`", pairing.name.as_str()),
                format!("`salt: ` and {}; it {why}", Secret::ALLOWED),
            ));
        }
        if pairing.pms.is_none() && pairing.pms_file.is_none() {
            report(source.fault_at(
                &pairing.name,
                &format!(
                    "no `pms` and no `pms_file` in the pairing `{}`",
                    pairing.name.as_str()
                ),
                format!(
                    "`pms: ` and {}, or `pms_file: ` and a path; one {why}",
                    Secret::ALLOWED
                ),
            ));
        }
    }
}

fn lists(pairing: &Pairing, source: &Source, report: Report<'_>) {
    if pairing.clients.is_empty() {
        report(source.fault_at(
            &pairing.clients,
            "an empty list of clients",
            "at least one entry",
        ));
    }
    if pairing.servers.is_empty() {
        report(source.fault_at(
            &pairing.servers,
            "an empty list of servers",
            "at least one entry",
        ));
    }
    let clients = pairing.clients.iter().map(|client| &client.prefix);
    prefixes_once(clients, "a client list", source, report);
    let servers = pairing.servers.iter().map(|server| &server.prefix);
    prefixes_once(servers, "a server list", source, report);
    for server in pairing.servers.iter() {
        if pairing.is_sealed() && pairing.mode == Mode::TrustedServers && server.group.is_none() {
            report(source.fault_at(
                &server.prefix,
                "a server entry without `group`",
                "`group: ` and a name that both ends write alike; trusted-servers derives keys from it",
            ));
        }
    }
}

/// One entry to `most`.
fn number<T>(list: &At<Vec<T>>, most: usize, source: &Source, report: Report) {
    if !(1..=most).contains(&list.len()) {
        report(source.fault_at(
            list,
            &format!("{} entries", list.len()),
            format!("1 to {most} entries"),
        ));
    }
}

fn prefixes_once<'a>(
    prefixes: impl Iterator<Item = &'a At<Prefix>>,
    list: &str,
    source: &Source,
    report: Report,
) {
    let allowed = format!("each prefix once in {list}; prefixes inside each other are fine");
    once_by(prefixes, |prefix| **prefix, &allowed, source, report);
}

/// Reports what comes again.
fn once_by<'a, T: 'a, K: Eq + Hash + Display>(
    list: impl Iterator<Item = &'a At<T>>,
    key: impl Fn(&At<T>) -> K,
    allowed: &str,
    source: &Source,
    report: Report,
) {
    let mut lines = HashMap::new();
    for one in list {
        let found = key(one);
        let again = format!("`{found}` for the second time, after line ");
        if let Some(first) = lines.insert(found, one.place().0) {
            report(source.fault_at(one, &format!("{again}{first}"), allowed));
        }
    }
}

/// Whether there are more pairings than telemetry can tell apart, which is reported.
fn too_many<'a>(
    mut names: impl ExactSizeIterator<Item = &'a At<Name>>,
    source: &Source,
    report: Report,
) -> bool {
    let count = names.len();
    let Some(name) = names.nth(MAX_PAIRINGS) else {
        return false;
    };
    report(source.fault_at(
        name,
        &format!("{count} pairings"),
        format!("at most {MAX_PAIRINGS}; a pairing may have any number of entries"),
    ));
    true
}

fn between_pairings(pairings: &[Pairing], source: &Source, report: Report<'_>) {
    if too_many(pairings.iter().map(|pairing| &pairing.name), source, report) {
        return;
    }
    for (at, pairing) in pairings.iter().enumerate() {
        for earlier in pairings.iter().take(at) {
            if earlier.name.as_str() == pairing.name.as_str() {
                report(source.fault_at(
                    &pairing.name,
                    &format!(
                        "`{}` for the second time, after line {}",
                        pairing.name.as_str(),
                        earlier.name.place().0
                    ),
                    "a name of its own for each pairing",
                ));
            }
            if let (Some(ours), Some(theirs)) = (pairing.secrets(), earlier.secrets())
                && ours == theirs
            {
                report(source.fault_at(
                    &pairing.name,
                    &format!(
                        "the salt and the PairMasterSecret of the pairing `{}` again",
                        earlier.name.as_str()
                    ),
                    "secrets of its own for each pairing: `openssl rand -hex 32`",
                ));
            }
        }
    }
}
