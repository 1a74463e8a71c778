//! Checks of `secondary`, and its defaults.

use std::path::PathBuf;

use super::{
    Report,
    files::{private, resolved},
    number, prefixes_once,
};
use crate::config::{
    AllowedSecondary, DnsName, Prefix, Primary, Secondary, SecondaryVia, TlsFiles, error::Source,
    scalar::At, secondary::SecondarySection,
};

/// Entries that one Secondary may ask for.
pub(super) const MAX_SERVED: usize = 4096;

/// The section `secondary`; nothing if it cannot be made sense of, which is reported.
pub(super) fn secondary(
    section: &At<SecondarySection>,
    primary: Option<&Primary>,
    source: &Source,
    report: Report<'_>,
) -> Option<Secondary> {
    if let Some(entries) = &section.entries {
        number(entries, MAX_SERVED, source, report);
        prefixes_once(entries.iter(), "a Secondary's list", source, report);
    }
    match (&section.primary, primary) {
        (Some(_), _) => remote(section, source, report),
        (None, Some(primary)) => embedded(section, primary, source, report),
        (None, None) => {
            report(source.fault_at(
                section,
                "no `primary` in it, and no section `primary` in the file",
                "`primary: ` and a list of host:port, or a section `primary` that makes this process a Primary",
            ));
            None
        }
    }
}

fn remote(
    section: &At<SecondarySection>,
    source: &Source,
    report: Report<'_>,
) -> Option<Secondary> {
    let addresses = section.primary.as_ref()?;
    let mut faults = 0;
    let mut report = |fault| {
        faults += 1;
        report(fault);
    };
    if let Some(name) = &section.name {
        report(source.fault_at(
            name,
            "`name` beside `primary`",
            "only with the Primary in the same process; elsewhere the certificate says the name",
        ));
    }
    let first = addresses.first();
    if first.is_none() {
        report(source.fault_at(addresses, "an empty list", "at least one host:port"));
    }
    let host = || first.and_then(|first| DnsName::parse(first.host()));
    let primary_name = match &section.primary_name {
        Some(name) => Some((**name).clone()),
        None => host(),
    };
    if let (Some(first), None) = (first, &primary_name) {
        report(source.fault_at(
            addresses,
            &format!("`{first}` and no `primary_name`"),
            "`primary_name: ` and the name in the Primary's certificate, where the first address has none",
        ));
    }
    for (file, field) in [
        (&section.certificate, "certificate"),
        (&section.key, "key"),
        (&section.authorities, "authorities"),
    ] {
        if file.is_none() {
            report(source.fault_at(
                section,
                &format!("no `{field}` in it"),
                format!("`{field}: ` and a PEM file; both ends of the connection to a Primary have a certificate"),
            ));
        }
    }
    if section.entries.is_none() {
        report(source.fault_at(
            section,
            "no `entries` in it",
            "`entries: ` and a list of the prefixes whose hosts are behind the inside port",
        ));
    }
    let file = |file: &Option<At<PathBuf>>| {
        let file = file.as_ref()?;
        Some(file.with(resolved(file, source)))
    };
    let key = file(&section.key);
    if let Some(key) = &key {
        private(key, source, &mut report);
    }
    if faults > 0 {
        return None;
    }
    Some(Secondary {
        via: SecondaryVia::Remote {
            addresses: addresses.to_vec(),
            primary_name: primary_name?,
            tls: TlsFiles {
                certificate: file(&section.certificate)?.into_inner(),
                key: key?.into_inner(),
                authorities: file(&section.authorities)?.into_inner(),
                revocations: file(&section.revocations).map(At::into_inner),
            },
        },
        entries: served(section.entries.as_ref()?),
    })
}

fn served(entries: &[At<Prefix>]) -> Vec<Prefix> {
    entries.iter().map(|entry| **entry).collect()
}

fn embedded(
    section: &At<SecondarySection>,
    primary: &Primary,
    source: &Source,
    report: Report<'_>,
) -> Option<Secondary> {
    let tls = [
        (&section.certificate, "certificate"),
        (&section.key, "key"),
        (&section.authorities, "authorities"),
        (&section.revocations, "revocations"),
    ];
    let needless = "only beside `primary: [host:port]`: there is no connection to a Primary in the same process";
    for (file, field) in tls {
        if let Some(file) = file {
            report(source.fault_at(file, &format!("`{field}` without `primary`"), needless));
        }
    }
    if let Some(name) = &section.primary_name {
        report(source.fault_at(name, "`primary_name` without `primary`", needless));
    }
    let among = || {
        let names = primary.secondaries.iter().map(|one| one.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let me: &AllowedSecondary = match (&section.name, primary.secondaries.as_slice()) {
        (Some(name), _) => match primary.secondary(name.as_str()) {
            Some(me) => me,
            None => {
                report(source.fault_at(
                    name,
                    &format!("`{}`, which is not in `primary.secondaries`", **name),
                    format!("one of the names there: {}", among()),
                ));
                return None;
            }
        },
        (None, [only]) => only,
        (None, all) => {
            report(source.fault_at(
                section,
                &format!(
                    "no `name` in it, and {} in `primary.secondaries`",
                    all.len()
                ),
                format!("`name: ` and the one that this appliance is: {}", among()),
            ));
            return None;
        }
    };
    for entry in section.entries.iter().flat_map(|entries| entries.iter()) {
        if !me.entries.iter().any(|allowed| **allowed == **entry) {
            report(source.fault_at(
                entry,
                &format!("`{}`, which `{}` is not allowed", **entry, *me.name),
                "an entry that `primary.secondaries` allows it, written with the same length",
            ));
        }
    }
    Some(Secondary {
        via: SecondaryVia::Embedded {
            name: (*me.name).clone(),
        },
        entries: served(section.entries.as_deref().unwrap_or(&me.entries)),
    })
}
