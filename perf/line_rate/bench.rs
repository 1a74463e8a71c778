//! What all parts share: how long runs are, where files go, and that Ctrl-C ends everything.

use signal_hook::consts::{SIGINT, SIGTERM};
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Everything that goes wrong ends a part with a sentence for the reader.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The core of the harness, of generators and of programs' management, and the core under test.
pub const HARNESS_CORE: usize = 0;
pub const TESTED_CORE: usize = 1;

/// One run of the benchmark.
pub struct Bench {
    /// Short runs for a look at whether everything works.
    pub quick: bool,
    dir: TempDir,
    interrupted: Arc<AtomicBool>,
    started: Instant,
    commands: RefCell<Vec<String>>,
}

impl Bench {
    /// Catches SIGINT and SIGTERM from here on.
    pub fn new(quick: bool) -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        Ok(Self {
            quick,
            dir: tempfile::Builder::new()
                .prefix("pdmgate-bench-")
                .tempdir()?,
            interrupted,
            started: Instant::now(),
            commands: RefCell::default(),
        })
    }

    /// A folder that is removed at the end.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Progress, for whoever waits.
    pub fn say(&self, text: &str) {
        eprintln!("bench: {:4} s  {text}", self.started.elapsed().as_secs());
    }

    /// Notes a command for the report, unless the same one is there.
    pub fn ran(&self, command: String) {
        let command = command.replace(&self.dir().display().to_string(), "DIR");
        let mut commands = self.commands.borrow_mut();
        if !commands.contains(&command) {
            commands.push(command);
        }
    }

    /// The commands so far.
    pub fn commands(&self) -> Vec<String> {
        self.commands.borrow().clone()
    }

    /// Whether somebody asked for the end.
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Rounds in which programs take turns.
    pub fn rounds(&self) -> usize {
        if self.quick { 2 } else { 5 }
    }

    /// How long something is done: a quarter in quick runs.
    pub fn time(&self, full: Duration) -> Duration {
        if self.quick { full / 4 } else { full }
    }

    /// Sleeps, unless interrupted.
    pub fn sleep(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            if self.interrupted() {
                return Err("interrupted".into());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    /// Asks again and again until there is something.
    pub fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut ready: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if let Some(found) = ready()? {
                return Ok(found);
            }
            self.sleep(Duration::from_millis(5))?;
        }
        Err(format!("no {what} within {} s", limit.as_secs()).into())
    }
}
