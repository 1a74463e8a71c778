//! Whether the other end of a connection is still there: it is asked after a while of silence, and taken for gone after a longer one.

use std::time::{Duration, Instant};

use thiserror::Error;

/// How long the other end may be silent before it is asked whether it is there, and before it is taken for gone: its machine may vanish
/// without a word. Shorter than the lease of a Primary's replica is by default, so that nobody waits for longer than that, whatever dies.
const PING: Duration = Duration::from_secs(3);
const SILENT: Duration = Duration::from_secs(8);

/// What counts of the time between two looks, at most: twice the longest tick of those who look. The rest of it went by in sending or
/// storing, and what came meanwhile was not read yet.
const LOOK: Duration = Duration::from_millis(500);

/// The other end said nothing for too long.
#[derive(Debug, Error)]
#[error("nothing came for {} s", SILENT.as_secs())]
pub(super) struct Silent;

/// For how long nothing came.
pub(super) struct Pulse {
    /// The silence up to the last look.
    silence: Duration,
    looked: Instant,
    /// Whether it was asked in this silence.
    asked: bool,
    /// Questions that it has not answered.
    open: u32,
}

impl Pulse {
    /// One that beats from now on.
    pub fn new() -> Self {
        Self {
            silence: Duration::ZERO,
            looked: Instant::now(),
            asked: false,
            open: 0,
        }
    }

    /// Something came.
    pub fn heard(&mut self) {
        (self.silence, self.looked, self.asked) = (Duration::ZERO, Instant::now(), false);
    }

    /// Whether the other end is to be asked now: once in a silence. Who is in the middle of a frame is not silent, and has that frame's
    /// own time. To be called between any two looks for what came, and at least twice a second.
    pub fn asks(&mut self, within_frame: bool) -> Result<bool, Silent> {
        if within_frame {
            return Ok(false);
        }
        self.silence += self.looked.elapsed().min(LOOK);
        self.looked = Instant::now();
        if self.silence > SILENT {
            return Err(Silent);
        }
        let asks = self.silence > PING && !self.asked;
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

    /// Lets time pass, with a look each time a tick does.
    fn wait(pulse: &mut Pulse, time: Duration) -> Result<bool, Silent> {
        let tick = Duration::from_millis(250);
        let mut asks = false;
        for _ in 0..time.as_millis() / tick.as_millis() {
            pulse.looked -= tick;
            asks |= pulse.asks(false)?;
        }
        Ok(asks)
    }

    #[test]
    fn it_asks_once_and_then_gives_up() {
        let mut pulse = Pulse::new();
        assert!(!wait(&mut pulse, PING / 2).expect("not gone"));
        assert!(wait(&mut pulse, PING).expect("not gone"));
        assert!(!wait(&mut pulse, PING / 2).expect("not gone"));
        pulse.heard();
        assert!(pulse.answered());
        assert!(!pulse.answered(), "an answer that nobody asked for");
        assert!(wait(&mut pulse, PING * 2).expect("not gone"));
        pulse.looked -= SILENT;
        assert!(!pulse.asks(true).expect("in the middle of a frame"));
        assert!(wait(&mut pulse, SILENT - PING).is_err());
    }

    #[test]
    fn who_could_not_be_heard_was_not_silent() {
        let mut pulse = Pulse::new();
        for _ in 0..SILENT.as_secs() {
            pulse.looked -= 2 * SILENT;
            pulse.asks(false).expect("not gone");
        }
    }
}
