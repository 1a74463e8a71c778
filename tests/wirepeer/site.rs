//! A Primary of pdmgate on the loopback interface, with everybody's certificates.

use super::conn::{ALPN, Conn, client_config};
use super::secret::Psk;
use crate::common::authority::Authority;
use crate::common::process::{Ended, Process, run};
use serde_json::Value;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

const PDMGATE: &str = env!("CARGO_BIN_EXE_pdmgate");

/// A folder with an authority, the certificate of `hq.example`, and whatever a test adds.
pub struct Site {
    dir: tempfile::TempDir,
    pub authority: Authority,
}

impl Site {
    /// With the certificates of others.
    pub fn new(others: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new(dir.path());
        for name in ["hq.example"].iter().chain(others) {
            authority.certificate(name);
        }
        Self { dir, authority }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A pairing's line with its pre-shared key, which is put into a file.
    pub fn psk_yaml(&self, file: &str, psk: &Psk) -> String {
        let path = self.dir().join(file);
        std::fs::write(&path, hex::encode(psk.key)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        format!(
            "      psk: {{ id: {}, file: {} }}\n",
            psk.id,
            path.display()
        )
    }

    /// Starts `hq.example`, which listens at two addresses. Items of the two lists, each line with its blanks in front.
    pub fn start(&self, pairings: &str, secondaries: &str) -> Primary {
        let dir = self.dir().display();
        let port = free_port();
        let list = |name, items: &str| match items {
            "" => String::new(),
            items => format!("  {name}:\n{items}"),
        };
        let yaml = format!(
            r#"primary:
  listen: ["127.0.0.1:{port}", "127.0.0.2:{port}"]
  certificate: {dir}/hq.example.pem
  key: {dir}/hq.example.key
  authorities: {dir}/ca.pem
  store: {{ path: {dir}/hq.redb }}
  socket: {dir}/hq.sock
  keylog: {dir}/keylog
{}{}telemetry: {{ prometheus: null }}
"#,
            list("pairings", pairings),
            list("secondaries", secondaries),
        );
        let config = self.dir().join("hq.yaml");
        std::fs::write(&config, yaml).unwrap();
        // No more descriptors than a service usually has.
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -Sn 1024; exec \"$0\" primary \"$1\"", PDMGATE]);
        command.arg(config);
        let mut process = Process::start(command);
        process.wait_for("running", Duration::from_secs(20));
        Primary {
            process,
            port,
            dir: self.dir().to_owned(),
        }
    }
}

/// A port outside of the range from which connecting sockets take theirs.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000
            + ((std::process::id() as u16)
                .wrapping_mul(37)
                .wrapping_add(step))
                % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The running Primary.
pub struct Primary {
    pub process: Process,
    pub port: u16,
    dir: PathBuf,
}

impl Primary {
    /// Connects with a certificate of the site.
    pub fn connect(&self, name: &str) -> Conn {
        Conn::connect(&self.dir, name, self.port)
    }

    /// Connects with a certificate, or with none, of another folder.
    pub fn connect_from(&self, dir: &Path, name: Option<&str>) -> std::io::Result<Conn> {
        Conn::try_connect(client_config(dir, name, &[ALPN]), self.port)
    }

    /// An operator's command.
    pub fn operate(&self, args: &[&str]) -> Ended {
        let mut command = Command::new(PDMGATE);
        command
            .args(args)
            .arg("--socket")
            .arg(self.dir.join("hq.sock"));
        run(command, Duration::from_secs(20))
    }

    pub fn registrations(&self) -> Value {
        self.operate(&["registrations", "--json"]).success().json()
    }

    /// The pairing of a name in the registrations.
    pub fn pairing(&self, name: &str) -> Value {
        let status = self.registrations();
        let mut pairings = status["pairings"].as_array().unwrap().iter();
        pairings
            .find(|pairing| pairing["name"] == name)
            .unwrap()
            .clone()
    }

    /// How many connections were closed for a reason.
    pub fn closed(&self, reason: &str) -> u64 {
        self.registrations()["closed"][reason].as_u64().unwrap_or(0)
    }

    /// The pairing PRKs in the keylog, in hexadecimal, oldest first.
    pub fn keylog(&self, pairing: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.join("keylog")).unwrap();
        // What no newline ends is being written.
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        let lines = whole
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines = lines.filter(|line| line["pairing"] == pairing);
        // A line comes for each change of the lists too.
        let mut secrets: Vec<_> = lines
            .map(|line| line["prk"].as_str().unwrap().to_owned())
            .collect();
        secrets.dedup();
        secrets
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Resident memory, in KiB.
    pub fn resident(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}
