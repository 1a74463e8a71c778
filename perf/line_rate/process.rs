//! Programs under test: one runs while the others are stopped, and none outlives the benchmark.
#![allow(unsafe_code)]

use crate::bench::{Bench, Result};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

/// How long a program may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// How long a whole measurement of another process may take.
const LONGEST: Duration = Duration::from_secs(180);

/// A program in the background. Killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    out: PathBuf,
    log: PathBuf,
}

impl Process {
    /// Starts a program; its output goes to files, and what is typed comes from [`Process::tell`].
    pub fn start(bench: &Bench, name: &str, command: &mut Command) -> Result<Self> {
        bench.ran(shown(command));
        let out = bench.dir().join(format!("{name}.out"));
        let log = bench.dir().join(format!("{name}.log"));
        command
            .stdin(Stdio::piped())
            .stdout(File::create(&out)?)
            .stderr(File::create(&log)?);
        // SAFETY: between fork and exec only async-signal-safe functions may be called, and this is one.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        Ok(Self {
            name: name.to_owned(),
            stdin: child.stdin.take(),
            child,
            out,
            log,
        })
    }

    /// Types a line.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or("no input")?;
        writeln!(stdin, "{line}")?;
        Ok(stdin.flush()?)
    }

    /// What it has printed.
    pub fn output(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.out)?).into_owned())
    }

    /// An error if the program is not there any more.
    pub fn alive(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        Err(format!(
            "{} ended early with {status}; its last words:\n{}",
            self.name,
            self.last_words()
        )
        .into())
    }

    fn last_words(&self) -> String {
        let read = |file| fs::read_to_string(file).unwrap_or_default();
        let text = read(&self.log) + &read(&self.out);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Takes the program off its cores.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: i32) {
        // SAFETY: sends a signal and touches no memory. The child has not been waited for (`alive` does, and its caller gives up
        // then), so the number is still its own.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Ends it well, which frees what it holds.
    pub fn end(mut self, bench: &Bench) -> Result<()> {
        self.resume();
        self.signal(libc::SIGTERM);
        self.ended(bench)
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self, bench: &Bench) -> Result<()> {
        let what = format!("end of {}", self.name);
        let child = &mut self.child;
        bench.wait(&what, GRACE, || Ok(child.try_wait()?.map(|_| ())))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bench {
    /// Runs a program to its end; returns what it printed.
    pub fn collect(&self, name: &str, command: &mut Command) -> Result<String> {
        let mut process = Process::start(self, name, command)?;
        let status = self.wait(&format!("end of {name}"), LONGEST, || {
            Ok(process.child.try_wait()?)
        })?;
        match status.success() {
            true => process.output(),
            false => Err(format!("{name} ended with {status}:\n{}", process.last_words()).into()),
        }
    }
}

/// A command as one would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| word.to_string_lossy());
    let words = words.map(|word| match word.rsplit_once('/') {
        // Programs without their folders.
        Some((_, name)) if !word.contains([',', '=']) && !word.ends_with(".yaml") => {
            name.to_owned()
        }
        _ => word.into_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}
