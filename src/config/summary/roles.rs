//! What `pdmgate check` prints about `primary` and `secondary`.

use std::fmt::{self, Write};

use crate::config::{
    Mode, PairKeys, PairingRole, Primary, PrimaryFile, PrimaryPairing, PrimaryStore, Protection,
    Secondary, SecondaryVia,
};

impl PrimaryFile {
    /// The whole file with its defaults, for people; no secrets.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_summary(&mut out);
        out
    }

    fn write_summary(&self, out: &mut String) -> fmt::Result {
        write_primary(&self.primary, out)?;
        match self.telemetry.prometheus {
            Some(at) => writeln!(out, "telemetry  Prometheus on {at}")?,
            None => writeln!(out, "telemetry  none")?,
        }
        for warning in &self.warnings {
            writeln!(out, "warning    {warning}")?;
        }
        Ok(())
    }
}

pub(super) fn write_secondary(secondary: &Secondary, out: &mut String) -> fmt::Result {
    match &secondary.via {
        SecondaryVia::Embedded { name } => {
            writeln!(out, "secondary  {name} of the Primary in this process")?;
        }
        SecondaryVia::Remote {
            addresses,
            primary_name,
            tls,
        } => {
            writeln!(out, "secondary  of {primary_name} at {}", listed(addresses))?;
            writeln!(out, "           certificate {}", tls.certificate.display())?;
        }
    }
    for entry in &secondary.entries {
        writeln!(out, "           serves {entry}")?;
    }
    Ok(())
}

pub(super) fn write_primary(primary: &Primary, out: &mut String) -> fmt::Result {
    match primary.listen.as_slice() {
        [] => writeln!(out, "primary    listens nowhere")?,
        addresses => {
            let addresses: Vec<_> = addresses.iter().map(|address| **address).collect();
            writeln!(out, "primary    listens on {}", listed(&addresses))?;
        }
    }
    writeln!(
        out,
        "           certificate {}, authorities {}",
        primary.certificate.display(),
        primary.authorities.display()
    )?;
    if let Some(file) = &primary.revocations {
        writeln!(out, "           revocations {}", file.display())?;
    }
    match &primary.store {
        PrimaryStore::Embedded(path) => writeln!(out, "           store {}", path.display())?,
        PrimaryStore::Etcd(etcd) => {
            let endpoints: Vec<_> = etcd.endpoints.iter().map(|one| one.as_str()).collect();
            writeln!(
                out,
                "           store etcd {}, keys {}…, lease {}",
                endpoints.join(", "),
                etcd.prefix.as_str(),
                etcd.lease
            )?;
        }
    }
    if let Some(path) = &primary.socket {
        writeln!(out, "           socket {}", path.display())?;
    }
    if let Some(path) = &primary.keylog {
        writeln!(out, "           KEYS ARE WRITTEN TO {}", path.display())?;
    }
    writeln!(
        out,
        "           forgets a Secondary that is away after {}",
        primary.forget_after
    )?;
    for pairing in &primary.pairings {
        write_pairing(pairing, out)?;
    }
    for secondary in &primary.secondaries {
        let entries: Vec<_> = secondary.entries.iter().map(|entry| **entry).collect();
        writeln!(out, "allowed    {}: {}", *secondary.name, listed(&entries))?;
    }
    Ok(())
}

fn write_pairing(pairing: &PrimaryPairing, out: &mut String) -> fmt::Result {
    let (name, peer) = (pairing.name.as_str(), &*pairing.peer);
    match *pairing.role {
        PairingRole::Client => writeln!(
            out,
            "registers  {name}: client of {peer} at {}",
            listed(pairing.addresses())
        )?,
        PairingRole::Server => {
            write!(
                out,
                "registers  {name}: server of {peer}, {}",
                pairing.mode()
            )?;
            match (pairing.mode(), pairing.protection()) {
                (Mode::NoProtection, _) => writeln!(out, ", packets stay unmarked")?,
                (_, Protection::Sealed) => writeln!(out, ", sealed")?,
                (_, Protection::Clear) => writeln!(out, ", clear")?,
            }
        }
    }
    let suites = pairing.suites.iter();
    let suites: Vec<_> = suites
        .map(|suite| format!("{} with {}", suite.kem, suite.aead))
        .collect();
    writeln!(out, "           {}", suites.join(", "))?;
    let renewal = match pairing.renew_after() {
        Some(age) => format!(
            "renewed after {}",
            humantime_serde::re::humantime::format_duration(age)
        ),
        None => "renewed when the peer wants".to_owned(),
    };
    let psk = pairing.psk.as_ref();
    let psk = psk.map_or(String::new(), |psk| {
        format!(", pre-shared key `{}`", psk.id.as_str())
    });
    let polls = *pairing.role == PairingRole::Client || pairing.mode() == Mode::AsymmetricPoll;
    let keys = match pairing.asymmetric_poll() {
        _ if !polls => "",
        PairKeys::Ask => "; in asymmetric-poll, Secondaries ask for keys",
        PairKeys::Hold => "; in asymmetric-poll, Secondaries hold their keys",
    };
    writeln!(out, "           {renewal}{psk}{keys}")?;
    for entry in pairing.entries.iter() {
        let prefix = entry.prefix.to_string();
        match &entry.group {
            Some(group) => writeln!(
                out,
                "           {} {prefix:<40} group {}",
                *pairing.role,
                group.as_str()
            )?,
            None => writeln!(out, "           {} {prefix}", *pairing.role)?,
        }
    }
    for analyzer in &pairing.analyzers {
        writeln!(out, "           analyzer {}", **analyzer)?;
    }
    Ok(())
}

fn listed<T: fmt::Display>(list: &[T]) -> String {
    let list: Vec<_> = list.iter().map(ToString::to_string).collect();
    list.join(", ")
}
