//! `pdmgate registrations`, `renew`, `revoke` and `lists`: what operators ask of a running Primary.

use std::path::PathBuf;

use hyper::Method;
use serde::{Serialize, de::DeserializeOwned};

use super::{Failure, output::Output};
use crate::{
    config::{DnsName, Prefix},
    registration::primary::{
        now,
        registrations::{Done, PairingStatus, Registrations},
    },
    telemetry::{
        client::{Client, escape},
        text::{Align, Table, age},
    },
};

#[derive(Debug, clap::Args)]
struct Asked {
    /// Local socket of the running Primary (primary.socket of its configuration)
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        default_value = "/run/pdmgate/primary.sock"
    )]
    socket: PathBuf,
    /// Print one line of JSON instead of text; times in Unix seconds
    #[arg(long, global = true)]
    json: bool,
}

impl Asked {
    fn registrations(&self) -> Result<Registrations, Failure> {
        self.ask(Method::GET, "/v1/registrations")
    }

    fn ask<T: DeserializeOwned>(&self, method: Method, target: &str) -> Result<T, Failure> {
        let answer = Client::new(&self.socket).and_then(|client| client.ask(method, target));
        answer.map_err(Failure::Operator)
    }

    fn print(&self, record: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let mut output = Output::new();
        if self.json {
            output.json(record)?;
        } else {
            output.text(&text())?;
        }
        output.flush()
    }

    /// Has something done, and prints what was.
    fn order(&self, path: &str, query: &[(&str, Option<&str>)]) -> Result<(), Failure> {
        let given = query
            .iter()
            .filter_map(|(key, value)| Some((key, (*value)?)));
        let query: Vec<String> = given
            .map(|(key, value)| format!("{key}={}", escape(value)))
            .collect();
        let target = format!("{path}?{}", query.join("&"));
        let done: Done = self.ask(Method::POST, &target)?;
        self.print(&done, || format!("{}\n", done.done))
    }
}

/// Show who is registered at a running Primary.
///
/// For each pairing: the peer, its secrets and when the next one is due, then each entry of our list with its Secondaries
/// and their generations.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  pdmgate registrations
  pdmgate registrations --json | jq '.pairings[].own[].secondaries[] | select(.state == \"away\")'")]
pub struct RegistrationsArgs {
    #[command(flatten)]
    asked: Asked,
}

/// Prints who is registered.
pub fn registrations(args: &RegistrationsArgs) -> Result<(), Failure> {
    let registrations = args.asked.registrations()?;
    args.asked
        .print(&registrations, || registrations_text(&registrations, now()))
}

/// Replace the secrets of pairings now.
///
/// Traffic goes on: the secret before opens what is under way until everybody holds the new one.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  pdmgate renew                                          of every pairing
  pdmgate renew branch                                   of one")]
pub struct RenewArgs {
    /// The pairing; all without
    #[arg(value_name = "PAIRING")]
    pairing: Option<String>,
    #[command(flatten)]
    asked: Asked,
}

/// Has secrets renewed.
pub fn renew(args: &RenewArgs) -> Result<(), Failure> {
    args.asked
        .order("/v1/renew", &[("pairing", args.pairing.as_deref())])
}

/// Revoke a Secondary or a pairing.
///
/// A Secondary that is revoked loses its place in all lists at once, here and at every peer, and the secrets that it knew are
/// replaced. A pairing that is revoked ends at both Primaries; its packets go on unmarked. Both survive a restart, until --undo.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  pdmgate revoke secondary gate1.example
  pdmgate revoke pairing branch
  pdmgate revoke pairing branch --undo")]
pub struct RevokeArgs {
    /// What to revoke
    #[arg(value_enum)]
    what: Revocable,
    /// The Secondary's name in its certificate, or the pairing's name
    name: String,
    /// Allow it again
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Revocable {
    Secondary,
    Pairing,
}

/// Has something revoked.
pub fn revoke(args: &RevokeArgs) -> Result<(), Failure> {
    let key = match args.what {
        Revocable::Secondary => "secondary",
        Revocable::Pairing => "pairing",
    };
    let undo = args.undo.then_some("true");
    args.asked
        .order("/v1/revoke", &[(key, Some(&args.name)), ("undo", undo)])
}

/// Show or change the lists of pairings.
///
/// Changes are kept in the store over restarts, beside what the configuration says, and told to the peer and to all Secondaries
/// at once.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  pdmgate lists
  pdmgate lists add branch 2001:db8:7::/64 --group web --secondary gate7.example
  pdmgate lists remove branch 2001:db8:7::/64")]
pub struct ListsArgs {
    #[command(subcommand)]
    change: Option<Change>,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, clap::Subcommand)]
enum Change {
    /// Add an entry to our list of a pairing
    Add {
        /// The pairing
        pairing: String,
        /// The entry's addresses
        prefix: Prefix,
        /// The group, where we are the server of trusted-servers
        #[arg(long)]
        group: Option<String>,
        /// Certificate name of a Secondary that may serve it, besides those of the configuration
        #[arg(long, value_name = "NAME", value_parser = parse_name)]
        secondary: Option<DnsName>,
    },
    /// Take an entry off our list of a pairing
    Remove {
        /// The pairing
        pairing: String,
        /// The entry's addresses
        prefix: Prefix,
    },
}

fn parse_name(word: &str) -> Result<DnsName, String> {
    DnsName::parse(word).ok_or_else(|| format!("expected {}", DnsName::ALLOWED))
}

/// Shows or changes lists.
pub fn lists(args: &ListsArgs) -> Result<(), Failure> {
    let asked = &args.asked;
    match &args.change {
        None => {
            let registrations = asked.registrations()?;
            asked.print(&registrations.pairings, || {
                lists_text(&registrations.pairings)
            })
        }
        Some(Change::Add {
            pairing,
            prefix,
            group,
            secondary,
        }) => asked.order(
            "/v1/lists/add",
            &[
                ("pairing", Some(pairing)),
                ("prefix", Some(&prefix.to_string())),
                ("group", group.as_deref()),
                ("secondary", secondary.as_ref().map(DnsName::as_str)),
            ],
        ),
        Some(Change::Remove { pairing, prefix }) => asked.order(
            "/v1/lists/remove",
            &[
                ("pairing", Some(pairing)),
                ("prefix", Some(&prefix.to_string())),
            ],
        ),
    }
}

fn ago(then: u64, now: u64) -> String {
    format!("{} ago", age(now.saturating_sub(then) as f64))
}

fn ahead(then: Option<u64>, now: u64) -> String {
    match then {
        Some(then) => format!("in {}", age(then.saturating_sub(now) as f64)),
        None => "when the peer says".to_owned(),
    }
}

fn registrations_text(registrations: &Registrations, now: u64) -> String {
    let mut text = format!(
        "replica {}{}, certificate ends in {}\n",
        registrations.replica,
        if registrations.leads { ", leads" } else { "" },
        age(registrations.certificate_expires.saturating_sub(now) as f64),
    );
    for pairing in &registrations.pairings {
        text.push_str(&pairing_text(pairing, now));
    }
    if !registrations.closed.is_empty() {
        let counts = registrations.closed.iter();
        let counts: Vec<String> = counts
            .map(|(why, count)| format!("{why} {count}"))
            .collect();
        text.push_str(&format!("\nconnections closed: {}\n", counts.join(", ")));
    }
    text
}

fn pairing_text(pairing: &PairingStatus, now: u64) -> String {
    let connected = match (pairing.revoked, pairing.connected) {
        (true, _) => "revoked".to_owned(),
        (false, Some(since)) => format!("connected {}", ago(since, now)),
        (false, None) => "not connected".to_owned(),
    };
    let mut text = format!(
        "\n{}: our {} list with {}, {connected}\n",
        pairing.name, pairing.role, pairing.peer
    );
    let mut secrets = Table::new(&[
        ("secret", Align::Left),
        ("mode", Align::Left),
        ("suite", Align::Left),
        ("agreed", Align::Left),
        ("state", Align::Left),
    ]);
    for secret in &pairing.secrets {
        secrets.row(vec![
            secret.id.chars().take(8).collect(),
            format!("{} {}", secret.mode, secret.protection),
            secret.suite.clone(),
            ago(secret.since, now),
            if secret.sealing { "seals" } else { "opens" }.to_owned(),
        ]);
    }
    if pairing.secrets.is_empty() {
        text.push_str("no secret was agreed on yet\n");
    } else {
        text.push_str(&secrets.to_string());
        let next = ahead(pairing.next_renewal, now);
        text.push_str(&format!("next renewal {next}\n"));
    }
    let mut entries = Table::new(&[
        ("entry", Align::Left),
        ("group", Align::Left),
        ("Secondary", Align::Left),
        ("generation", Align::Right),
        ("since", Align::Left),
        ("state", Align::Left),
    ]);
    for entry in &pairing.own {
        let (prefix, group) = (&entry.prefix, &entry.group);
        for secondary in &entry.secondaries {
            entries.row(vec![
                prefix.clone(),
                group.clone(),
                secondary.name.clone(),
                secondary.generation.to_string(),
                ago(secondary.since, now),
                secondary.state.clone(),
            ]);
        }
        if entry.secondaries.is_empty() {
            let nobody = ["-", "", "", "nobody is registered"].map(str::to_owned);
            entries.row([vec![prefix.clone(), group.clone()], nobody.to_vec()].concat());
        }
    }
    text + &entries.to_string()
}

fn lists_text(pairings: &[PairingStatus]) -> String {
    let mut lists = Table::new(&[
        ("pairing", Align::Left),
        ("list", Align::Left),
        ("whose", Align::Left),
        ("entry", Align::Left),
        ("group", Align::Left),
        ("generations", Align::Left),
    ]);
    for pairing in pairings {
        let (ours, theirs) = match &*pairing.role {
            "client" => ("client", "server"),
            _ => ("server", "client"),
        };
        let joined = |generations: &mut dyn Iterator<Item = u32>| {
            generations
                .map(|g| g.to_string())
                .collect::<Vec<_>>()
                .join(" ")
        };
        for entry in &pairing.own {
            lists.row(vec![
                pairing.name.clone(),
                ours.to_owned(),
                "ours".to_owned(),
                entry.prefix.clone(),
                entry.group.clone(),
                joined(&mut entry.secondaries.iter().map(|s| s.generation)),
            ]);
        }
        for entry in &pairing.peer_list {
            lists.row(vec![
                pairing.name.clone(),
                theirs.to_owned(),
                "theirs".to_owned(),
                entry.prefix.clone(),
                entry.group.clone(),
                joined(&mut entry.generations.iter().copied()),
            ]);
        }
    }
    lists.to_string()
}
