//! A connection of an analyzer: the legitimate third party of the draft's section 5.1.

use std::sync::Arc;

use tokio::io::{AsyncWrite, WriteHalf};

use super::{
    Primary,
    counters::{Closed, who},
};
use crate::{
    crypto::PairingPrk,
    registration::{
        frame::Writer,
        message::{Analysis, AnalysisMaster, Analyze, Message, Reason, Refused, VERSION},
    },
};

/// Gives an analyzer what opens a pairing's captures, if its certificate is allowed that. Each grant is logged.
pub(super) async fn serve<S: AsyncWrite>(
    primary: &Arc<Primary>,
    names: &[String],
    mut writer: Writer<WriteHalf<S>>,
    analyze: &Analyze,
) {
    let who = who(names, None);
    let pairing = primary.pairings.iter().find(|pairing| {
        let allowed = || names.iter().any(|name| pairing.analyzers.contains(name));
        pairing.name == analyze.pairing && allowed()
    });
    let refusal = match pairing {
        Some(pairing) if analyze.version == VERSION => {
            let record = primary.record(pairing);
            let newest = record.masters.first();
            let (clients, servers) = record.lists(pairing.role);
            let masters = record.masters.iter().map(|master| AnalysisMaster {
                suite: master.suite,
                prk: PairingPrk::from_bytes(*master.prk.expose()),
            });
            let analysis = Analysis {
                pairing: pairing.name.clone(),
                mode: newest.map_or(pairing.mode, |master| master.mode),
                protection: newest.map_or(pairing.protection, |master| master.protection),
                clients,
                servers,
                masters: masters.collect(),
            };
            tracing::warn!(
                analyzer = %who,
                pairing = %pairing.name,
                secrets = analysis.masters.len(),
                "an analyzer was given the secrets of a pairing"
            );
            let _ = writer.send(&Message::Analysis(analysis)).await;
            return;
        }
        // Whether there is such a pairing is not told to somebody who may not have it.
        None => Reason::NotAllowed,
        Some(_) => Reason::Version,
    };
    let refused = Message::Refused(Refused { reason: refusal });
    let _ = writer.send(&refused).await;
    let why = format!("it asked to analyse `{}`", analyze.pairing);
    primary.counters.closed(Closed::NotAllowed, &who, &why);
}
