//! The ports as the management core watches them: links that come and go, and what the drivers count.

use crate::dpdk::Port;
use crate::telemetry::records;

/// One port under watch.
pub(super) struct Watched {
    name: &'static str,
    port: Port,
    up: Option<bool>,
}

impl Watched {
    pub fn new(name: &'static str, port: Port) -> Self {
        Self {
            name,
            port,
            up: None,
        }
    }

    /// Looks at the port, and logs if its link changed.
    pub fn look(&mut self) -> records::Port {
        let up = self.port.link().is_some_and(|link| link.up);
        if self.up != Some(up) {
            if up {
                tracing::info!(port = self.name, device = %self.port.device(), "link is up");
            } else {
                tracing::warn!(port = self.name, device = %self.port.device(), "link is down");
            }
            self.up = Some(up);
        }
        let stats = self.port.stats().unwrap_or_default();
        records::Port {
            name: self.name.to_owned(),
            link_up: up,
            receive_missed: stats.imissed,
            receive_errors: stats.ierrors,
            receive_no_buffer: stats.rx_nombuf,
            transmit_errors: stats.oerrors,
        }
    }
}
