//! Takes a pairing's steps when they are due: see [`PairingRecord::advance`](super::record::PairingRecord::advance).

use std::{sync::Arc, time::Duration};

use super::{Primary, now};

/// The longest that a step which is due by time alone waits.
const TICK: Duration = Duration::from_millis(500);
/// Where replicas tell each other what their Secondaries work with.
const HELD: &str = "held/";

/// Looks after the pairing in place `at`.
pub(super) async fn keep(primary: Arc<Primary>, at: usize) {
    let Some(pairing) = primary.pairings.get(at) else {
        return;
    };
    let name = format!("{HELD}{}", pairing.name);
    let (mut records, mut acknowledged) = (primary.mirror.changes(), primary.barrier.changes());
    let mut told = None;
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            changed = records.changed() => if changed.is_err() { return },
            changed = acknowledged.changed() => if changed.is_err() { return },
        }
        let mine = primary.barrier.held(at);
        if told != Some(mine) {
            match primary
                .store
                .put_mine(&name, mine.to_string().as_bytes())
                .await
            {
                Ok(()) => told = Some(mine),
                Err(error) => {
                    tracing::warn!("the store does not take what Secondaries hold: {error}")
                }
            }
        }
        let replicas = match primary.store.replicas(&name).await {
            Ok(replicas) => replicas,
            Err(error) => {
                tracing::warn!("the store does not tell what Secondaries hold: {error}");
                continue;
            }
        };
        let held = replicas
            .iter()
            .map(|(_, held)| {
                let text = std::str::from_utf8(held).ok();
                text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
            })
            // Without a lease this replica is not among them.
            .chain([mine])
            .min()
            .unwrap_or(mine);
        // Whoever is just connecting again holds what it held, and cannot say so.
        let reconnects = primary.record(pairing).reconnects(now());
        let before = *pairing.held.borrow();
        let held = if reconnects { held.min(before) } else { held };
        pairing.held.send_replace(held);
        let step = |record: &mut super::record::PairingRecord| {
            record.away(now(), |given| {
                given.away.is_none() && replicas.iter().all(|(replica, _)| *replica != given.via)
            });
            record.advance(held, primary.forget_after, now());
        };
        let mut trial = (*primary.record(pairing)).clone();
        step(&mut trial);
        if trial != *primary.record(pairing)
            && let Err(error) = primary.update(pairing, step).await
        {
            tracing::error!(pairing = %pairing.name, "cannot go on: {error}");
            tokio::time::sleep(TICK).await;
        }
    }
}
