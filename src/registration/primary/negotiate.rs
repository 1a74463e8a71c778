//! Agreeing on a master secret: the two commands, without the connection that carries them (protocol section 5, RFC 9180).

use std::sync::Arc;

use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{now, pairing::Pairing, record::MasterRecord};
use crate::{
    config::{Mode, Protection},
    crypto::{
        PairMasterSecret, PairingPrk, Suite,
        hpke::{self, HpkeError, KemPrivateKey},
    },
    registration::message::{KemRequest, Message, SetupRequest, SetupResponse, SuiteIds, VERSION},
    snapshot::{Fingerprint, grant::Listed},
};

/// Why there is no master secret.
#[derive(Debug, Error)]
pub(super) enum NegotiationError {
    /// Another version of the protocol.
    #[error("expected protocol version {VERSION}, found {found}")]
    Version {
        /// The version found.
        found: u16,
    },
    /// The peer can nothing that we may, or chose something that we did not offer.
    #[error("no suite in common: the peer has {theirs}, this end allows {ours}")]
    NoCommonSuite {
        /// What the peer named.
        theirs: String,
        /// What the configuration allows.
        ours: String,
    },
    /// HPKE refused the peer's key or encapsulation.
    #[error(transparent)]
    Hpke(#[from] HpkeError),
    /// The secrets differ.
    #[error("the two ends derived different secrets: is `psk` the same at both?")]
    NotConfirmed,
    /// The system has no random numbers.
    #[error("no random numbers from the operating system: {0}")]
    Random(#[from] getrandom::Error),
}

/// What a Primary Client has said first.
pub(super) struct Asked {
    request: Zeroizing<Vec<u8>>,
}

/// What a Primary Server has offered.
pub(super) struct Offered {
    suite: Suite,
    key: KemPrivateKey,
    info: Vec<u8>,
    mode: Mode,
    protection: Protection,
}

fn named(suites: impl Iterator<Item = SuiteIds>) -> String {
    let names = suites.map(|s| format!("{:#06x}/{:#06x}/{:#06x}", s.kem, s.kdf, s.aead));
    names.collect::<Vec<_>>().join(", ")
}

fn no_common_suite(pairing: &Pairing, theirs: impl Iterator<Item = SuiteIds>) -> NegotiationError {
    NegotiationError::NoCommonSuite {
        theirs: named(theirs),
        ours: named(pairing.suites.iter().copied().map(SuiteIds::from)),
    }
}

fn random() -> Result<[u8; 32], getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Primary Client: the `setup` request.
pub(super) fn ask(pairing: &Pairing) -> Result<(Asked, Message), NegotiationError> {
    let message = Message::SetupRequest(SetupRequest {
        version: VERSION,
        suites: pairing.suites.iter().copied().map(SuiteIds::from).collect(),
        random: random()?,
    });
    let request = message.encode();
    Ok((Asked { request }, message))
}

/// Primary Server: the `setup` response to a request, whose bytes are `bytes`.
pub(super) fn offer(
    pairing: &Pairing,
    request: &SetupRequest,
    bytes: &[u8],
) -> Result<(Offered, Message), NegotiationError> {
    if request.version != VERSION {
        return Err(NegotiationError::Version {
            found: request.version,
        });
    }
    let common = request
        .suites
        .iter()
        .filter_map(|ids| Suite::try_from(*ids).ok());
    let mut common = common.filter(|suite| pairing.suites.contains(suite));
    let suite = common
        .next()
        .ok_or_else(|| no_common_suite(pairing, request.suites.iter().copied()))?;
    let (key, pk) = hpke::generate(suite.kem);
    let message = Message::SetupResponse(SetupResponse {
        suite: suite.into(),
        pk,
        mode: pairing.mode,
        protection: pairing.protection,
        random: random()?,
    });
    let offered = Offered {
        suite,
        key,
        info: hpke::info(bytes, &message.encode()),
        mode: pairing.mode,
        protection: pairing.protection,
    };
    Ok((offered, message))
}

/// Primary Client: the `kem` request that answers a response, whose bytes are `bytes`; and the master secret.
pub(super) fn encapsulate(
    pairing: &Pairing,
    asked: &Asked,
    response: &SetupResponse,
    bytes: &[u8],
    entries: Vec<Listed>,
) -> Result<(MasterRecord, Message), NegotiationError> {
    let chosen = Suite::try_from(response.suite)
        .ok()
        .filter(|suite| pairing.suites.contains(suite));
    let suite = chosen.ok_or_else(|| no_common_suite(pairing, std::iter::once(response.suite)))?;
    let info = hpke::info(&asked.request, bytes);
    let (enc, pms) = hpke::encapsulate(&suite, &response.pk, &info, pairing.psk.as_ref())?;
    let salt = random()?;
    let master = master(&suite, &salt, &pms, response.mode, response.protection);
    let message = Message::KemRequest(KemRequest {
        enc,
        salt,
        entries,
        confirm: Some(master.id.0),
    });
    Ok((master, message))
}

/// Primary Server: the master secret of a `kem` request.
pub(super) fn decapsulate(
    pairing: &Pairing,
    offered: &Offered,
    request: &KemRequest,
) -> Result<MasterRecord, NegotiationError> {
    let psk = pairing.psk.as_ref();
    let pms = hpke::decapsulate(
        &offered.suite,
        &offered.key,
        &request.enc,
        &offered.info,
        psk,
    )?;
    let master = master(
        &offered.suite,
        &request.salt,
        &pms,
        offered.mode,
        offered.protection,
    );
    match request.confirm {
        Some(confirm) if !bool::from(confirm.ct_eq(&master.id.0)) => {
            Err(NegotiationError::NotConfirmed)
        }
        _ => Ok(master),
    }
}

fn master(
    suite: &Suite,
    salt: &[u8; 32],
    pms: &PairMasterSecret,
    mode: Mode,
    protection: Protection,
) -> MasterRecord {
    let prk = PairingPrk::extract(suite, salt, pms);
    MasterRecord {
        id: Fingerprint(prk.fingerprint(suite)),
        suite: *suite,
        mode,
        protection,
        prk: Arc::new(prk),
        since: now(),
        version: 0,
        announced: None,
        sealing: false,
        retire: None,
    }
}
