//! Standard output, buffered, without the panic of `println!` when its reader has left.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use serde::Serialize;

use super::Failure;

/// Standard output of one command.
pub struct Output {
    stdout: BufWriter<StdoutLock<'static>>,
    terminal: bool,
}

impl Output {
    /// Takes standard output.
    pub fn new() -> Self {
        let stdout = io::stdout();
        Self {
            terminal: stdout.is_terminal(),
            stdout: BufWriter::new(stdout.lock()),
        }
    }

    /// Writes text as it is.
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.stdout.write_all(text.as_bytes())?)
    }

    /// Writes a record as one line of JSON.
    pub fn json(&mut self, record: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.stdout, record)?;
        self.text("\n")
    }

    /// Clears the screen, or sets what follows apart from what came before where there is none.
    pub fn fresh_page(&mut self) -> Result<(), Failure> {
        self.text(if self.terminal { "\x1b[H\x1b[2J" } else { "\n" })
    }

    /// Hands everything to the reader.
    pub fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.stdout.flush()?)
    }
}
