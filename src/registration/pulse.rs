//! Whether the other end of a connection is still there: it is asked after a while of silence, and taken for gone after a longer one.

use std::time::{Duration, Instant};

use thiserror::Error;

/// How long the other end may be silent before it is asked whether it is there, and before it is taken for gone: its machine may vanish
/// without a word. Shorter than the lease of a Primary's replica is by default, so that nobody waits for longer than that, whatever dies.
const PING: Duration = Duration::from_secs(3);
const SILENT: Duration = Duration::from_secs(8);

/// The other end said nothing for too long.
#[derive(Debug, Error)]
#[error("nothing came for {} s", .0.as_secs())]
pub(super) struct Silent(Duration);

/// When something came last.
pub(super) struct Pulse {
    ask_after: Duration,
    gone_after: Duration,
    heard: Instant,
    /// Whether it was asked in this silence.
    asked: bool,
    /// Questions that it has not answered.
    open: u32,
}

impl Pulse {
    /// One that beats as all connections do.
    pub fn new() -> Self {
        Self::of(PING, SILENT)
    }

    fn of(ask_after: Duration, gone_after: Duration) -> Self {
        Self {
            ask_after,
            gone_after,
            heard: Instant::now(),
            asked: false,
            open: 0,
        }
    }

    /// Something came.
    pub fn heard(&mut self) {
        (self.heard, self.asked) = (Instant::now(), false);
    }

    /// Whether the other end is to be asked now: once in a silence. Who is in the middle of a frame is not silent, and has that frame's
    /// own time.
    pub fn asks(&mut self, within_frame: bool) -> Result<bool, Silent> {
        if within_frame {
            return Ok(false);
        }
        let silence = self.heard.elapsed();
        if silence > self.gone_after {
            return Err(Silent(self.gone_after));
        }
        let asks = silence > self.ask_after && !self.asked;
        self.asked |= asks;
        self.open += u32::from(asks);
        Ok(asks)
    }

    /// An answer came; false if nothing was asked.
    pub fn answered(&mut self) -> bool {
        let asked = self.open > 0;
        self.open -= u32::from(asked);
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_once_and_then_gives_up() {
        let moment = Duration::from_millis(20);
        let mut pulse = Pulse::of(Duration::ZERO, 3 * moment);
        std::thread::sleep(moment);
        assert!(pulse.asks(false).expect("not gone"));
        assert!(!pulse.asks(false).expect("not gone"));
        pulse.heard();
        assert!(pulse.answered());
        assert!(!pulse.answered(), "an answer that nobody asked for");
        std::thread::sleep(moment);
        assert!(pulse.asks(false).expect("not gone"));
        std::thread::sleep(3 * moment);
        assert!(!pulse.asks(true).expect("in the middle of a frame"));
        assert!(pulse.asks(false).is_err());
    }
}
