//! What a Primary tells its operator: who is registered, for what, since when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Primary,
    pairing::Pairing,
    record::{Given, PairingRecord},
    unix,
};
use crate::{
    crypto::{Aead, Kem, Suite},
    snapshot::{Role, grant::Listed},
};

/// A command was carried out.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {
    /// What was done.
    pub done: String,
}

/// Everything. Times are Unix seconds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Registrations {
    /// Names this replica.
    pub replica: String,
    /// Whether this replica connects to peers and renews secrets.
    pub leads: bool,
    /// When the Primary's certificate ends.
    pub certificate_expires: u64,
    /// Connections that were closed from this side, by reason.
    pub closed: BTreeMap<String, u64>,
    /// The pairings.
    pub pairings: Vec<PairingStatus>,
}

/// One pairing.
#[derive(Debug, Serialize, Deserialize)]
pub struct PairingStatus {
    /// Its name.
    pub name: String,
    /// The peer Primary's name.
    pub peer: String,
    /// Which list is ours: `client` or `server`.
    pub role: String,
    /// Since when the peer is connected to this replica.
    pub connected: Option<u64>,
    /// Whether an operator revoked it.
    pub revoked: bool,
    /// The master secrets, newest first.
    pub secrets: Vec<SecretStatus>,
    /// When the next one is due; `None` if the peer decides that.
    pub next_renewal: Option<u64>,
    /// Our list.
    pub own: Vec<EntryStatus>,
    /// The peer's list.
    pub peer_list: Vec<PeerEntry>,
}

/// One master secret.
#[derive(Debug, Serialize, Deserialize)]
pub struct SecretStatus {
    /// Names it without telling it.
    pub id: String,
    /// When it was agreed on.
    pub since: u64,
    /// Whether packets are sealed under it.
    pub sealing: bool,
    /// Mode, protection and suite.
    pub mode: String,
    /// `sealed` or `clear`.
    pub protection: String,
    /// Key encapsulation and AEAD.
    pub suite: String,
}

/// An entry of our list.
#[derive(Debug, Serialize, Deserialize)]
pub struct EntryStatus {
    /// Its addresses.
    pub prefix: String,
    /// A server's group.
    pub group: String,
    /// The Secondaries that serve it.
    pub secondaries: Vec<SecondaryStatus>,
}

/// A Secondary at an entry.
#[derive(Debug, Serialize, Deserialize)]
pub struct SecondaryStatus {
    /// The name in its certificate.
    pub name: String,
    /// Its process.
    pub instance: String,
    /// Its generation.
    pub generation: u32,
    /// When that was given.
    pub since: u64,
    /// `sending`, `waiting` (others do not all hold it yet), `replaced` or `away`.
    pub state: String,
    /// Since when it is away.
    pub away: Option<u64>,
}

/// An entry of the peer's list.
#[derive(Debug, Serialize, Deserialize)]
pub struct PeerEntry {
    /// Its addresses.
    pub prefix: String,
    /// A server's group.
    pub group: String,
    /// The live generations, ascending.
    pub generations: Vec<u32>,
}

impl Registrations {
    pub(super) fn of(primary: &Primary) -> Self {
        let closed = primary.counters.all().into_iter();
        Self {
            replica: primary.store.replica().to_owned(),
            leads: *primary.store.leads().borrow(),
            certificate_expires: unix(primary.certificate.current().expires()),
            closed: closed
                .map(|(reason, count)| (reason.to_owned(), count))
                .collect(),
            pairings: primary
                .pairings
                .iter()
                .map(|pairing| PairingStatus::of(pairing, &primary.record(pairing)))
                .collect(),
        }
    }
}

impl PairingStatus {
    fn of(pairing: &Pairing, record: &PairingRecord) -> Self {
        let newest = record.masters.first();
        let age = pairing.renew_after.map(|age| age.as_secs());
        Self {
            name: pairing.name.clone(),
            peer: pairing.peer.clone(),
            role: match pairing.role {
                Role::Client => "client",
                Role::Server => "server",
            }
            .to_owned(),
            connected: {
                let (links, since) = *pairing.connected.borrow();
                (links > 0).then_some(since)
            },
            revoked: record.revoked,
            secrets: record
                .masters
                .iter()
                .map(|master| SecretStatus {
                    id: master.id.to_string(),
                    since: master.since,
                    sealing: master.sealing,
                    mode: master.mode.to_string(),
                    protection: master.protection.to_string(),
                    suite: suite_text(&master.suite).to_owned(),
                })
                .collect(),
            next_renewal: newest.zip(age).map(|(newest, age)| newest.since + age),
            own: record
                .own
                .iter()
                .map(|own| EntryStatus {
                    prefix: own.prefix.to_string(),
                    group: own.group.clone(),
                    secondaries: own.given.iter().map(SecondaryStatus::of).collect(),
                })
                .collect(),
            peer_list: record.peer.iter().map(PeerEntry::of).collect(),
        }
    }
}

impl SecondaryStatus {
    fn of(given: &Given) -> Self {
        let state = match given {
            Given { away: Some(_), .. } => "away",
            Given {
                retire: Some(_), ..
            } => "replaced",
            Given { sending: true, .. } => "sending",
            _ => "waiting",
        };
        Self {
            name: given.secondary.clone(),
            instance: hex::encode(given.instance),
            generation: given.number,
            since: given.since,
            state: state.to_owned(),
            away: given.away,
        }
    }
}

impl PeerEntry {
    fn of(listed: &Listed) -> Self {
        Self {
            prefix: listed.prefix.to_string(),
            group: listed.group.clone(),
            generations: listed.generations.clone(),
        }
    }
}

fn suite_text(suite: &Suite) -> &'static str {
    match (suite.kem, suite.aead) {
        (Kem::X25519HkdfSha256, Aead::Aes128Gcm) => "x25519/aes-128-gcm",
        (Kem::X25519HkdfSha256, Aead::Aes256Gcm) => "x25519/aes-256-gcm",
        (Kem::X25519HkdfSha256, Aead::ChaCha20Poly1305) => "x25519/chacha20-poly1305",
        (Kem::P256HkdfSha256, Aead::Aes128Gcm) => "p-256/aes-128-gcm",
        (Kem::P256HkdfSha256, Aead::Aes256Gcm) => "p-256/aes-256-gcm",
        (Kem::P256HkdfSha256, Aead::ChaCha20Poly1305) => "p-256/chacha20-poly1305",
    }
}
