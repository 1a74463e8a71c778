//! Processes of the lab: their output is kept, every wait has an end, and none outlives its test.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a process may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(20);

/// A process in the background.
pub struct Process {
    name: String,
    child: Child,
    out: Output,
    err: Output,
    ended: bool,
}

/// What a process has written to one of its streams so far.
struct Output {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn follow(stream: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let copy = text.clone();
        let reader = thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while matches!(stream.read_until(b'\n', &mut line), Ok(1..)) {
                copy.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self {
            text,
            reader: Some(reader),
        }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.text()
    }
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    pub name: String,
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// Asserts that it succeeded.
    pub fn success(self) -> Self {
        let Self {
            name,
            status,
            out,
            err,
        } = &self;
        assert!(
            status.success(),
            "{name}: {status}\n--- stdout\n{out}\n--- stderr\n{err}"
        );
        self
    }

    /// The last line of its output as JSON.
    pub fn json(&self) -> Value {
        let line = self.out.lines().last().unwrap_or_default();
        serde_json::from_str(line)
            .unwrap_or_else(|e| panic!("{}: {e} in {line:?}\n{}", self.name, self.err))
    }
}

impl Process {
    pub fn start(mut command: Command) -> Self {
        let name = format!("{command:?}");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let out = Output::follow(child.stdout.take().unwrap());
        let err = Output::follow(child.stderr.take().unwrap());
        Self {
            name,
            child,
            out,
            err,
            ended: false,
        }
    }

    /// Waits until standard error holds `text`.
    pub fn wait_for(&mut self, text: &str, limit: Duration) {
        let ready = |process: &mut Self| process.err.text().contains(text).then_some(());
        self.wait_until(&format!("{text:?} on standard error"), limit, ready);
    }

    /// Waits until `ready` yields something; panics with the process's output if the process ends or the time is over.
    pub fn wait_until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut ready: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(result) = ready(self) {
                return result;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!(
                    "{} ended with {status} before {what}\n{}",
                    self.name,
                    self.err.whole()
                );
            }
            assert!(
                Instant::now() < deadline,
                "{}: no {what} in {limit:?}\n{}",
                self.name,
                self.err.text()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Standard error so far.
    pub fn log(&self) -> String {
        self.err.text()
    }

    /// Sends a signal by name, `TERM` for instance.
    pub fn signal(&self, signal: &str) {
        let kill = Command::new("sh")
            .args(["-c", "kill -$0 $1", signal, &self.child.id().to_string()])
            .status();
        assert!(
            kill.is_ok_and(|s| s.success()),
            "cannot send {signal} to {}",
            self.name
        );
    }

    /// Waits for the end.
    pub fn end(mut self, limit: Duration) -> Ended {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.ended = true;
                let (out, err) = (self.out.whole(), self.err.whole());
                return Ended {
                    name: self.name.clone(),
                    status,
                    out,
                    err,
                };
            }
            assert!(
                Instant::now() < deadline,
                "{} did not end in {limit:?}\n{}",
                self.name,
                self.err.text()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal and waits for the end.
    pub fn stop(self, signal: &str) -> Ended {
        self.signal(signal);
        self.end(GRACE)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- {}\n{}", self.name, self.err.text());
        }
    }
}

/// Runs a command to its end.
pub fn run(command: Command, limit: Duration) -> Ended {
    Process::start(command).end(limit)
}
