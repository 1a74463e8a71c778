//! Checks of `primary` and `secondary` in an appliance's file, against each other and the static pairings; and what to warn of.

use std::{collections::HashSet, fs, path::PathBuf};

use super::{MAX_PAIRINGS, Report, primary::primary, secondary::secondary};
use crate::config::{
    Config, Prefix, Primary, PrimaryStore, Secondary, SecondaryVia, error::Source,
};

/// Both sections of an appliance's file; fills `config.secondary`.
pub(super) fn check(config: &mut Config, source: &Source, report: Report<'_>) {
    if let Some(section) = config.secondary_section.take() {
        let mine = config.primary.as_ref();
        config.secondary = secondary(&section, mine, source, report);
    }
    let embedded = match &config.secondary {
        Some(Secondary {
            via: SecondaryVia::Embedded { name },
            ..
        }) => Some(name),
        _ => None,
    };
    let Some(mine) = &mut config.primary else {
        return;
    };
    primary(mine, embedded, source, report);
    let named = |name: &str| {
        let mut names = config.pairings.iter().map(|pairing| &pairing.name);
        names.find(|earlier| earlier.as_str() == name)
    };
    for pairing in &mine.pairings {
        if let Some(earlier) = named(pairing.name.as_str()) {
            report(source.fault_at(
                &pairing.name,
                &format!(
                    "`{}`, which is a static pairing of line {} too",
                    pairing.name.as_str(),
                    earlier.place().0
                ),
                "a name of its own for each pairing",
            ));
        }
    }
    let room = MAX_PAIRINGS.saturating_sub(config.pairings.len());
    if let Some(pairing) = mine.pairings.get(room)
        && mine.pairings.len() <= MAX_PAIRINGS
    {
        report(source.fault_at(
            &pairing.name,
            &format!(
                "{} pairings, the static ones included",
                mine.pairings.len() + config.pairings.len()
            ),
            format!("at most {MAX_PAIRINGS}; a pairing may have any number of entries"),
        ));
    }
}

/// What is valid and should be known.
pub(in crate::config) fn warnings(
    primary: Option<&Primary>,
    secondary: Option<&Secondary>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(primary) = primary {
        warnings.extend(unreadable("primary", primary.tls().all()));
        if let PrimaryStore::Etcd(etcd) = &primary.store {
            let files = [&etcd.authorities, &etcd.certificate, &etcd.key];
            let files = files.into_iter().flatten().map(|file| &**file);
            warnings.extend(unreadable("primary.store.etcd", files));
        }
    }
    if let Some(Secondary {
        via: SecondaryVia::Remote { tls, .. },
        ..
    }) = secondary
    {
        warnings.extend(unreadable("secondary", tls.all()));
    }
    let Some(primary) = primary else {
        return warnings;
    };
    if primary.pairings.is_empty() {
        warnings.push("primary: no pairings, so nobody agrees on anything".to_owned());
    }
    if let Some(path) = &primary.keylog {
        warnings.push(format!(
            "primary: every pairing secret is written to {}: WHO READS THAT FILE READS ALL METRICS",
            path.display()
        ));
    }
    if let PrimaryStore::Etcd(etcd) = &primary.store
        && etcd.endpoints.iter().any(|endpoint| !endpoint.is_tls())
    {
        warnings.push(
            "primary: the secrets of all pairings go to etcd in the clear (http): use https"
                .to_owned(),
        );
    }
    let served: HashSet<Prefix> = primary
        .secondaries
        .iter()
        .flat_map(|secondary| secondary.entries.iter().map(|entry| **entry))
        .collect();
    for pairing in &primary.pairings {
        let entries = pairing.entries.iter().map(|entry| *entry.prefix);
        let alone: Vec<_> = entries
            .filter(|entry| !served.contains(entry))
            .map(|entry| entry.to_string())
            .collect();
        if let [first, rest @ ..] = alone.as_slice() {
            let more = match rest.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            warnings.push(format!(
                "primary: no Secondary serves {first}{more} of the pairing `{}`, so nothing of theirs is marked",
                pairing.name.as_str()
            ));
        }
    }
    warnings
}

/// A warning of each file that cannot be read.
fn unreadable<'a>(
    section: &str,
    files: impl Iterator<Item = &'a PathBuf>,
) -> impl Iterator<Item = String> {
    files.filter_map(move |file| {
        let error = fs::File::open(file).err()?;
        Some(format!(
            "{section}: {} cannot be read: {error}",
            file.display()
        ))
    })
}
