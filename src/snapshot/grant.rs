//! What a Secondary is given for one pairing by its Primary (protocol sections 3 to 6), as the snapshot takes it in.
//!
//! A grant replaces the one before of the same pairing. Its secrets are zeroed when the last snapshot and the last message that hold it
//! are gone.

use super::{Fingerprint, Role};
use crate::{
    config::{Mode, Prefix, Protection},
    crypto::{
        IbcClientKey, IbcServerKey, PairClientSecret, PairDeviceKey, PairServerSecret, Suite,
    },
};

/// One pairing as a Secondary knows it.
#[derive(Debug)]
pub struct Grant {
    /// The pairing's name, as the Secondary's own Primary calls it.
    pub pairing: String,
    /// Who shares which secret.
    pub mode: Mode,
    /// Whether metrics are sealed.
    pub protection: Protection,
    /// The algorithms.
    pub suite: Suite,
    /// The list that the Secondary's own entries stand in.
    pub role: Role,
    /// The whole client list.
    pub clients: Vec<Listed>,
    /// The whole server list.
    pub servers: Vec<Listed>,
    /// The entries that this Secondary serves; all of them stand in the list of `role`.
    pub own: Vec<Own>,
    /// The PairMasterSecrets in use, newest first, at most two; empty where nothing is sealed.
    pub masters: Vec<GrantedMaster>,
}

/// An entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its addresses.
    pub prefix: Prefix,
    /// A server's group; empty for a client, or if there is none.
    pub group: String,
    /// The live generations of its Secondaries, ascending; the last is the newest. Empty: no Secondary serves it, so nothing is marked.
    pub generations: Vec<u32>,
}

/// An entry that the Secondary serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// The entry.
    pub prefix: Prefix,
    /// The generation under which this Secondary sends. Its entry may have newer ones, of other Secondaries.
    pub generation: u32,
}

/// One PairMasterSecret's share.
#[derive(Debug)]
pub struct GrantedMaster {
    /// Names it without telling it: `PairingPrk::fingerprint`.
    pub id: Fingerprint,
    /// Whether packets are to be sealed under it. At most one of a grant's is; a newer one than that only opens so far.
    pub sealing: bool,
    /// What it gives each own entry, in the order of [`Grant::own`].
    pub material: Vec<Material>,
}

/// The secrets that one entry gets under one PairMasterSecret (protocol section 3's table, section 6).
#[derive(Debug)]
pub enum Material {
    /// TrustedServers, a server: its group's secret.
    Server(PairServerSecret),
    /// TrustedServers, a client: its secret with each group of the server list.
    Client(Vec<(String, PairClientSecret)>),
    /// AsymmetricPoll, a client that derives the pairs' keys.
    PollClient(PairClientSecret),
    /// AsymmetricPoll, the end that asks: keys by the peer's entry, as far as they are there.
    PairKeys(Vec<(Prefix, PairDeviceKey)>),
    /// IBC, a client.
    IbcClient(IbcClientKey),
    /// IBC, a server.
    IbcServer(IbcServerKey),
}
