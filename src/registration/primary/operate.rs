//! Operators' commands over a local socket: JSON over HTTP, asked by `pdmgate registrations`, `renew`, `revoke` and `lists`.
//!
//! | method | path | answer |
//! |---|---|---|
//! | GET | `/v1/registrations` | [`Registrations`] |
//! | POST | `/v1/renew?pairing=` | [`Done`] |
//! | POST | `/v1/revoke?secondary=&undo=` or `?pairing=&undo=` | [`Done`] |
//! | POST | `/v1/lists/add?pairing=&prefix=&group=&secondary=` | [`Done`] |
//! | POST | `/v1/lists/remove?pairing=&prefix=` | [`Done`] |
//!
//! The socket is its owner's alone (mode 0600): whoever may connect may revoke.

use std::{future::IntoFuture, path::Path, sync::Arc};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::{get, post},
};
use serde::Deserialize;
use tokio::net::UnixListener;

use super::{
    Primary, PrimaryError,
    pairing::Pairing,
    record::{Addition, PairingRecord, Renewal},
    registrations::{Done, Registrations},
};
use crate::{
    config::{DnsName, Prefix},
    snapshot::Role,
    telemetry::socket::Claim,
};

pub(super) struct Socket {
    claim: Claim,
    listener: UnixListener,
}

impl Socket {
    /// Binds the socket, if there is to be one.
    pub fn bind(path: Option<&Path>) -> Result<Option<Self>, PrimaryError> {
        let Some(path) = path else {
            return Ok(None);
        };
        let (claim, listener) = Claim::bind(path)?;
        let listener = listener
            .set_nonblocking(true)
            .and_then(|()| UnixListener::from_std(listener))
            .map_err(PrimaryError::Thread)?;
        Ok(Some(Self { claim, listener }))
    }

    /// Answers until the task ends.
    pub async fn serve(self, primary: Arc<Primary>) {
        let router = Router::new()
            .route("/v1/registrations", get(registrations))
            .route("/v1/renew", post(renew))
            .route("/v1/revoke", post(revoke))
            .route("/v1/lists/add", post(add))
            .route("/v1/lists/remove", post(remove))
            .with_state(primary);
        if let Err(error) = axum::serve(self.listener, router).into_future().await {
            tracing::error!("operators' commands are no longer answered: {error}");
        }
        drop(self.claim);
    }
}

/// What a command answers if it does nothing.
type Refusal = (StatusCode, String);
type Answer = Result<Json<Done>, Refusal>;

fn unknown(what: &str, name: &str) -> Refusal {
    (
        StatusCode::NOT_FOUND,
        format!("there is no {what} `{name}`"),
    )
}

fn wrong(why: impl std::fmt::Display) -> Refusal {
    (StatusCode::BAD_REQUEST, why.to_string())
}

fn failed(error: &PrimaryError) -> Refusal {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

fn pairing<'p>(primary: &'p Primary, name: &str) -> Result<&'p Pairing, Refusal> {
    let mut pairings = primary.pairings.iter();
    let found = pairings.find(|pairing| pairing.name == name);
    found.ok_or_else(|| unknown("pairing", name))
}

async fn update<T>(
    primary: &Primary,
    pairing: &Pairing,
    edit: impl FnMut(&mut PairingRecord) -> T,
) -> Result<T, Refusal> {
    let updated = primary.update(pairing, edit).await;
    updated.map_err(|error| failed(&error))
}

fn done(text: String) -> Answer {
    tracing::warn!("by an operator: {text}");
    Ok(Json(Done { done: text }))
}

async fn registrations(State(primary): State<Arc<Primary>>) -> Json<Registrations> {
    Json(Registrations::of(&primary))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Renew {
    pairing: Option<String>,
}

async fn renew(State(primary): State<Arc<Primary>>, Query(query): Query<Renew>) -> Answer {
    let chosen: Vec<&Pairing> = match &query.pairing {
        Some(name) => vec![pairing(&primary, name)?],
        None => primary.pairings.iter().collect(),
    };
    let mut renewed = Vec::new();
    for pairing in chosen {
        let wanted = update(&primary, pairing, |record| {
            let has = !record.masters.is_empty();
            if has {
                record.renewal.get_or_insert(Renewal::Wanted);
            }
            has
        });
        if wanted.await? {
            renewed.push(pairing.name.clone());
        }
    }
    if renewed.is_empty() {
        return Err(wrong(
            "nothing was agreed on yet, so nothing can be renewed",
        ));
    }
    done(format!("a new secret is wanted for {}", renewed.join(", ")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    secondary: Option<String>,
    pairing: Option<String>,
    #[serde(default)]
    undo: bool,
}

async fn revoke(State(primary): State<Arc<Primary>>, Query(query): Query<Revoke>) -> Answer {
    match (&query.secondary, &query.pairing) {
        (Some(name), None) => revoke_secondary(&primary, name, query.undo).await,
        (None, Some(name)) => {
            let pairing = pairing(&primary, name)?;
            update(&primary, pairing, |record| record.revoke(!query.undo)).await?;
            done(format!(
                "the pairing {name} {}",
                if query.undo {
                    "may be agreed on again"
                } else {
                    "is revoked"
                }
            ))
        }
        _ => Err(wrong("expected one of `secondary` and `pairing`")),
    }
}

async fn revoke_secondary(primary: &Primary, name: &str, undo: bool) -> Answer {
    let records = primary
        .pairings
        .iter()
        .map(|pairing| primary.record(pairing));
    let known = records.into_iter().any(|record| {
        record.revoked_secondaries.contains(name)
            || record
                .added
                .iter()
                .any(|a| a.secondary.as_deref() == Some(name))
    });
    if !known && !primary.secondaries.contains_key(name) {
        return Err(unknown("Secondary", name));
    }
    let allowed = primary.allowed(name);
    let mut renewed = 0;
    for pairing in &primary.pairings {
        let knew = update(primary, pairing, |record| {
            if undo {
                record.revoked_secondaries.remove(name);
                return false;
            }
            record.revoked_secondaries.insert(name.to_owned());
            record.revoke_secondary(name, &allowed)
        });
        renewed += u32::from(knew.await?);
    }
    done(if undo {
        format!("the Secondary {name} may register again")
    } else {
        format!(
            "the Secondary {name} is revoked; secrets that it knew are replaced in {renewed} pairings"
        )
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    pairing: String,
    prefix: String,
    group: Option<String>,
    secondary: Option<String>,
}

fn prefix(text: &str) -> Result<Prefix, Refusal> {
    text.parse().map_err(|_| {
        wrong(format!(
            "expected an IPv6 prefix such as 2001:db8::/64, found `{text}`"
        ))
    })
}

/// The entry that `change` wants in our list.
fn addition(pairing: &Pairing, change: Change) -> Result<Addition, Refusal> {
    let prefix = prefix(&change.prefix)?;
    let group = change.group.unwrap_or_default();
    if group.len() > 255 || group.chars().any(char::is_control) {
        return Err(wrong("expected a group of at most 255 bytes of text"));
    }
    if pairing.role == Role::Client && !group.is_empty() {
        return Err(wrong("clients have no groups"));
    }
    if pairing.needs_groups() && group.is_empty() {
        return Err(wrong("servers of trusted-servers need a `group`"));
    }
    let secondary = match change.secondary {
        Some(name) => Some(
            DnsName::parse(&name)
                .ok_or_else(|| wrong(format!("expected {}, found `{name}`", DnsName::ALLOWED)))?,
        ),
        None => None,
    };
    // Of an entry that is configured the configuration's group counts.
    let mut configured = pairing.entries.iter();
    if let Some(entry) = configured.find(|entry| entry.prefix == prefix)
        && !group.is_empty()
        && group != entry.group
    {
        let whose = match &*entry.group {
            "" => "without a group".to_owned(),
            group => format!("with the group `{group}`"),
        };
        return Err((
            StatusCode::CONFLICT,
            format!("{prefix} is configured {whose}: change that in the configuration"),
        ));
    }
    Ok(Addition {
        prefix,
        group,
        secondary: secondary.map(|name| name.as_str().to_owned()),
    })
}

async fn add(State(primary): State<Arc<Primary>>, Query(change): Query<Change>) -> Answer {
    let pairing = pairing(&primary, &change.pairing)?;
    let addition = addition(pairing, change)?;
    let prefix = addition.prefix;
    update(&primary, pairing, |record| {
        record.removed.retain(|removed| *removed != prefix);
        record.added.retain(|added| added.prefix != prefix);
        record.added.push(addition.clone());
        record.configure(&pairing.entries);
    })
    .await?;
    done(format!("{prefix} is in our list of {}", pairing.name))
}

async fn remove(State(primary): State<Arc<Primary>>, Query(change): Query<Change>) -> Answer {
    let pairing = pairing(&primary, &change.pairing)?;
    let prefix = prefix(&change.prefix)?;
    let there = update(&primary, pairing, |record| {
        let there = record.own.iter().any(|own| own.prefix == prefix);
        record.added.retain(|added| added.prefix != prefix);
        if pairing.entries.iter().any(|entry| entry.prefix == prefix)
            && !record.removed.contains(&prefix)
        {
            record.removed.push(prefix);
        }
        record.configure(&pairing.entries);
        there
    });
    if !there.await? {
        return Err(unknown("entry", &change.prefix));
    }
    done(format!(
        "{prefix} is no longer in our list of {}",
        pairing.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PrimaryFile;

    const FILE: &str = "primary:
  certificate: hq.pem
  key: hq.key
  authorities: ca.pem
  pairings:
  - name: branch
    peer: branch.example
    role: server
    entries: [ { prefix: '2001:db8:2::/64', group: web } ]
";

    fn add(prefix: &str, group: &str, secondary: Option<&str>) -> Result<Addition, Refusal> {
        let file = PrimaryFile::parse(FILE, Path::new("primary.yaml")).expect("a Primary");
        let change = Change {
            pairing: "branch".to_owned(),
            prefix: prefix.to_owned(),
            group: Some(group.to_owned()),
            secondary: secondary.map(str::to_owned),
        };
        addition(&Pairing::new(&file.primary.pairings[0]), change)
    }

    #[test]
    fn a_secondary_is_added_by_the_name_that_certificates_are_compared_with() {
        let added = add("2001:db8:3::/64", "web", Some("GATE.Branch.Example"));
        let name = added.expect("a name").secondary;
        assert_eq!(name.as_deref(), Some("gate.branch.example"));
        let (status, why) =
            add("2001:db8:3::/64", "web", Some("not a name!")).expect_err("no name");
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(why.contains("found `not a name!`"), "{why}");
    }

    #[test]
    fn a_configured_entry_keeps_its_group() {
        let (status, why) = add("2001:db8:2::/64", "mail", None).expect_err("another group");
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(why.contains("configured with the group `web`"), "{why}");
        assert!(add("2001:db8:2::/64", "web", None).is_ok());
        assert!(add("2001:db8:3::/64", "mail", None).is_ok());
    }
}
