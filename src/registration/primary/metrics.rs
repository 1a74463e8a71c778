//! A Primary's numbers for Prometheus. An appliance with a Primary in it tells them after its own.

use std::{fmt, future::IntoFuture, sync::Arc};

use axum::{
    Router, extract::State, http::header::CONTENT_TYPE, response::IntoResponse, routing::get,
};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};
use tokio::net::TcpListener;

use super::{Primary, now, registrations::Registrations};
use crate::telemetry::prometheus::{self, Labels, counters, gauges};

/// What is told at one time.
#[derive(Debug)]
struct Reading {
    registrations: Registrations,
    now: u64,
}

/// The exposition.
pub(super) fn render(primary: &Primary) -> String {
    prometheus::exposition(Reading {
        registrations: Registrations::of(primary),
        now: now(),
    })
}

/// Answers `/metrics` and `/healthz` for ever.
pub(super) async fn serve(primary: Arc<Primary>, listener: TcpListener) {
    let metrics = |State(primary): State<Arc<Primary>>| async move {
        ([(CONTENT_TYPE, prometheus::CONTENT_TYPE)], render(&primary)).into_response()
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(primary);
    if let Err(error) = axum::serve(listener, router).into_future().await {
        tracing::error!("Prometheus is no longer answered: {error}");
    }
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = &self.registrations;
        let pairings = || all.pairings.iter();
        let of = |name| vec![("pairing", name)];
        gauges(
            &mut encoder,
            "registration_leads",
            "Whether this replica connects to peers and renews secrets",
            [(vec![], u64::from(all.leads))],
        )?;
        gauges(
            &mut encoder,
            "registration_certificate_expires_timestamp_seconds",
            "When the Primary's certificate ends",
            [(vec![], all.certificate_expires)],
        )?;
        counters(
            &mut encoder,
            "registration_connections_closed",
            "Connections that were closed from this side",
            all.closed
                .iter()
                .map(|(reason, count)| (vec![("reason", reason.as_str())], *count)),
        )?;
        gauges(
            &mut encoder,
            "registration_peer_connected",
            "Whether the peer Primary is connected to this replica",
            pairings().map(|p| (of(p.name.as_str()), u64::from(p.connected.is_some()))),
        )?;
        gauges(
            &mut encoder,
            "registration_secret_age_seconds",
            "Age of the newest secret of a pairing",
            pairings().filter_map(|p| {
                let since = p.secrets.first()?.since;
                Some((of(p.name.as_str()), self.now.saturating_sub(since)))
            }),
        )?;
        gauges(
            &mut encoder,
            "registration_secret_seals",
            "Whether the newest secret of a pairing is in use",
            pairings().filter_map(|p| {
                let seals = p.secrets.first()?.sealing;
                Some((of(p.name.as_str()), u64::from(seals)))
            }),
        )?;
        let states = ["sending", "waiting", "replaced", "away"];
        let series = pairings().flat_map(|pairing| {
            states.map(|state| {
                let secondaries = pairing.own.iter().flat_map(|own| &own.secondaries);
                let count = secondaries.filter(|s| s.state == state).count() as u64;
                let labels: Labels<'_> = vec![("pairing", &pairing.name), ("state", state)];
                (labels, count)
            })
        });
        gauges(
            &mut encoder,
            "registration_secondaries",
            "Secondaries at entries of our list",
            series.collect::<Vec<_>>(),
        )
    }
}
