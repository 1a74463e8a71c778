//! An etcd cluster of a test: its own folder, free ports, and gone with the test. The test names `common/process.rs` as `process`.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod proxy;

use std::{
    env,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::process::Process;
use tempfile::TempDir;

/// How long a cluster may take to start.
const START: Duration = Duration::from_secs(20);

/// Where `scripts/setup.sh` unpacks tools.
const UNPACKED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/usr/bin/etcd");

/// One or more members.
pub struct Cluster {
    members: Vec<Member>,
    folder: TempDir,
}

struct Member {
    arguments: Vec<String>,
    port: u16,
    process: Option<Process>,
    /// Words in front of every command: for a namespace.
    within: Vec<String>,
}

/// PEM files for clients' TLS.
pub struct Tls {
    pub authorities: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

fn etcd() -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|folder| folder.join("etcd"))
        .chain([PathBuf::from(UNPACKED)])
        .find(|program| program.is_file())
        .expect("the program etcd is neither in PATH nor in target/tools: run scripts/setup.sh, or install the package etcd-server")
}

fn free_ports(count: usize) -> Vec<u16> {
    // All at once, so that no two are the same.
    let taken: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    taken
        .iter()
        .map(|t| t.local_addr().unwrap().port())
        .collect()
}

impl Member {
    fn command(&self, program: PathBuf) -> Command {
        let mut words = self.within.iter();
        let Some(first) = words.next() else {
            return Command::new(program);
        };
        let mut command = Command::new(first);
        command.args(words).arg(program);
        command
    }
}

impl Cluster {
    /// Starts `count` members that speak plain HTTP.
    pub fn start(count: usize) -> Self {
        Self::start_with(count, "http", &[], |_| Vec::new())
    }

    /// The same in a network namespace whose loopback is up.
    pub fn start_in(netns: &str, count: usize) -> Self {
        Self::start_with(count, "http", &["ip", "netns", "exec", netns], |_| {
            Vec::new()
        })
    }

    /// Starts a member that asks for clients' certificates; `make` gets a folder for the files.
    pub fn start_tls(make: impl FnOnce(&Path) -> Tls) -> Self {
        Self::start_with(1, "https", &[], |folder| {
            let tls = make(folder);
            let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
            vec![
                flag("cert-file", &tls.certificate),
                flag("key-file", &tls.key),
                flag("trusted-ca-file", &tls.authorities),
                "--client-cert-auth".to_owned(),
            ]
        })
    }

    fn start_with(
        count: usize,
        scheme: &str,
        within: &[&str],
        more: impl FnOnce(&Path) -> Vec<String>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let more = more(folder.path());
        let ports = free_ports(2 * count);
        let peer = |at: usize| format!("http://127.0.0.1:{}", ports[count + at]);
        let all: Vec<_> = (0..count).map(|at| format!("m{at}={}", peer(at))).collect();
        let member = |at: usize| {
            let client = format!("{scheme}://127.0.0.1:{}", ports[at]);
            let data = folder.path().join(format!("m{at}"));
            let mut arguments = vec![
                format!("--name=m{at}"),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={}", peer(at)),
                format!("--initial-advertise-peer-urls={}", peer(at)),
                format!("--initial-cluster={}", all.join(",")),
                "--initial-cluster-state=new".to_owned(),
                // Elections that a busy machine neither starts by mistake nor takes long for.
                "--heartbeat-interval=100".to_owned(),
                "--election-timeout=600".to_owned(),
                "--log-level=error".to_owned(),
            ];
            arguments.extend(more.iter().cloned());
            Member {
                arguments,
                port: ports[at],
                process: None,
                within: within.iter().map(|word| (*word).to_owned()).collect(),
            }
        };
        let members = (0..count).map(member).collect();
        let mut cluster = Self { members, folder };
        for at in 0..count {
            cluster.spawn(at);
        }
        for at in 0..count {
            cluster.wait(at);
        }
        cluster
    }

    fn spawn(&mut self, at: usize) {
        let mut command = self.members[at].command(etcd());
        command.args(&self.members[at].arguments);
        self.members[at].process = Some(Process::start(command));
    }

    /// A member takes clients only once it has joined the cluster.
    fn wait(&mut self, at: usize) {
        let member = &mut self.members[at];
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{}", member.port);
        let mut process = member.process.take().unwrap();
        let ready = |_: &mut Process| {
            let mut command = member.command("bash".into());
            let tried = command.args(["-c", &script]).output().unwrap();
            tried.status.success().then_some(())
        };
        process.wait_until("etcd's port", START, ready);
        member.process = Some(process);
    }

    /// For the store's settings.
    pub fn endpoints(&self, scheme: &str) -> Vec<String> {
        let endpoint = |m: &Member| format!("{scheme}://127.0.0.1:{}", m.port);
        self.members.iter().map(endpoint).collect()
    }

    pub fn address(&self, at: usize) -> String {
        format!("127.0.0.1:{}", self.members[at].port)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn kill(&mut self, at: usize) {
        self.members[at].process = None;
    }

    /// The member takes connections and says nothing.
    pub fn freeze(&self, at: usize) {
        self.members[at].process.as_ref().unwrap().signal("STOP");
    }

    pub fn thaw(&self, at: usize) {
        self.members[at].process.as_ref().unwrap().signal("CONT");
    }

    /// Starts a killed member again with what it has on disk.
    pub fn restart(&mut self, at: usize) {
        self.spawn(at);
        self.wait(at);
    }
}
