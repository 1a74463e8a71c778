//! Checks of `primary.store.etcd`.

use super::{
    Report,
    files::{password_of, private, resolve},
    once_by,
};
use crate::config::{EtcdStore, error::Source, scalar::At};

/// The section `etcd`; reads `password_file`.
pub(super) fn cluster(etcd: &mut EtcdStore, source: &Source, report: Report<'_>) {
    for file in [
        &mut etcd.authorities,
        &mut etcd.certificate,
        &mut etcd.key,
        &mut etcd.password_file,
    ]
    .into_iter()
    .flatten()
    {
        resolve(file, source);
    }
    let endpoints = etcd.endpoints.iter();
    once_by(
        endpoints,
        |endpoint| endpoint.as_str().to_owned(),
        "each member once",
        source,
        report,
    );
    let Some(first) = etcd.endpoints.first() else {
        report(source.fault_at(
            &etcd.endpoints,
            "an empty list of endpoints",
            "at least one URL such as https://etcd1.example:2379",
        ));
        return;
    };
    if let Some(other) = etcd
        .endpoints
        .iter()
        .find(|one| one.is_tls() != first.is_tls())
    {
        report(source.fault_at(
            other,
            &format!("`{}` beside `{}`", other.as_str(), first.as_str()),
            "https for all members, or http for all",
        ));
    }
    if first.is_tls() && etcd.authorities.is_none() {
        report(source.fault_at(
            first,
            "https without `authorities`",
            "`authorities: ` and a PEM file with those who sign the members' certificates",
        ));
    }
    if !first.is_tls()
        && let Some(file) = [&etcd.authorities, &etcd.certificate, &etcd.key]
            .into_iter()
            .flatten()
            .next()
    {
        report(source.fault_at(
            file,
            "a file for TLS, and members by http",
            "https://… in `endpoints`",
        ));
    }
    pair(
        (&etcd.certificate, "certificate"),
        (&etcd.key, "key"),
        source,
        report,
    );
    if let Some(key) = &etcd.key {
        private(key, source, report);
    }
    pair(
        (&etcd.user, "user"),
        (&etcd.password_file, "password_file"),
        source,
        report,
    );
    if let Some(file) = &etcd.password_file {
        match password_of(file) {
            Ok(password) => etcd.password = password,
            Err(found) => report(source.fault_at(
                file,
                &format!("{}: {found}", file.display()),
                "a file with a password of 1 to 1024 bytes, not readable by others (chmod o-rwx)",
            )),
        }
    }
}

/// Both or neither.
fn pair<A, B>(
    (a, a_name): (&Option<At<A>>, &str),
    (b, b_name): (&Option<At<B>>, &str),
    source: &Source,
    report: Report<'_>,
) {
    let both = "both, or neither of them";
    match (a, b) {
        (Some(a), None) => {
            report(source.fault_at(a, &format!("`{a_name}` without `{b_name}`"), both))
        }
        (None, Some(b)) => {
            report(source.fault_at(b, &format!("`{b_name}` without `{a_name}`"), both))
        }
        _ => (),
    }
}
