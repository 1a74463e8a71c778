//! Whether the other end of a connection is still there: it is asked after a while of silence, and taken for gone after a longer one.

use std::time::{Duration, Instant};

use thiserror::Error;

/// The other end said nothing for too long.
#[derive(Debug, Error)]
#[error("nothing came for {} s", .0.as_secs())]
pub(super) struct Silent(Duration);

/// When something came last.
pub(super) struct Pulse {
    ask_after: Duration,
    gone_after: Duration,
    heard: Instant,
    asked: bool,
}

impl Pulse {
    pub fn new(ask_after: Duration, gone_after: Duration) -> Self {
        Self {
            ask_after,
            gone_after,
            heard: Instant::now(),
            asked: false,
        }
    }

    /// Something came.
    pub fn heard(&mut self) {
        (self.heard, self.asked) = (Instant::now(), false);
    }

    /// Whether the other end is to be asked now: once in a silence.
    pub fn asks(&mut self) -> Result<bool, Silent> {
        let silence = self.heard.elapsed();
        if silence > self.gone_after {
            return Err(Silent(self.gone_after));
        }
        let asks = silence > self.ask_after && !self.asked;
        self.asked |= asks;
        Ok(asks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_once_and_then_gives_up() {
        let moment = Duration::from_millis(20);
        let mut pulse = Pulse::new(Duration::ZERO, 3 * moment);
        std::thread::sleep(moment);
        assert!(pulse.asks().expect("not gone"));
        assert!(!pulse.asks().expect("not gone"));
        pulse.heard();
        std::thread::sleep(moment);
        assert!(pulse.asks().expect("not gone"));
        std::thread::sleep(3 * moment);
        assert!(pulse.asks().is_err());
    }
}
