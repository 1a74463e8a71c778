//! Network namespaces by `ip netns`, and clearing away those that a killed test left.

use super::process::{Ended, run};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Names of the lab's namespaces and directories begin so; the number of the process follows.
pub const PREFIX: &str = "pdmgate-";
const LIMIT: Duration = Duration::from_secs(20);

/// A namespace, deleted with all that runs in it when dropped.
pub struct Netns {
    name: String,
}

fn ip(args: &[&str]) -> Ended {
    let mut command = Command::new("ip");
    command.args(args);
    run(command, LIMIT)
}

impl Netns {
    /// A fresh namespace with its loopback up.
    ///
    /// # Errors
    /// What `ip` says, if namespaces are not permitted.
    pub fn new(role: &str) -> Result<Self, String> {
        let name = format!("{PREFIX}{}-{role}", std::process::id());
        let added = ip(&["netns", "add", &name]);
        if !added.status.success() {
            return Err(added.err.trim().to_owned());
        }
        let netns = Self { name };
        netns.sh("ip link set lo up");
        Ok(netns)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs inside. `ip` replaces itself by it, so signals reach it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a line of shell inside; asserts that it succeeds.
    pub fn sh(&self, line: &str) -> String {
        let mut command = self.command("sh");
        command.args(["-ec", line]);
        run(command, LIMIT).success().out
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

fn delete(name: &str) {
    for pid in ip(&["netns", "pids", name]).out.split_whitespace() {
        let _ = Command::new("sh")
            .args(["-c", "kill -KILL $0", pid])
            .status();
    }
    ip(&["netns", "del", name]);
}

/// Deletes the namespaces and directories of labs whose process is gone.
pub fn reap() {
    for line in ip(&["netns", "list"]).out.lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        if is_stale(name) {
            delete(name);
        }
    }
    for entry in std::env::temp_dir()
        .read_dir()
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry.file_name().to_str().is_some_and(is_stale) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn is_stale(name: &str) -> bool {
    let owner = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split('-').next());
    owner.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
}
