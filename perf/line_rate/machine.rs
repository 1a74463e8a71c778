//! What the numbers were measured on, and whether everything is there that measuring needs.

use crate::bench::Result;
use crate::report::{Table, grouped};
use pdmgate::dpdk::Calibration;
use serde::Serialize;
use std::fs;
use std::process::Command;

/// Hugepages of 2 MB that the largest part needs: two programs with a packet buffer for each of 65,536 flows.
const PAGES: u64 = 384;

/// The machine.
#[derive(Serialize)]
pub struct Machine {
    processor: String,
    cores: usize,
    pub tsc_hz: u64,
    memory_mb: u64,
    kernel: String,
    hugepages_2mb: u64,
    hypervisor: bool,
}

/// What was measured, and with what.
#[derive(Serialize)]
pub struct Versions {
    pdmgate: String,
    commit: String,
    dpdk: String,
    rustc: String,
}

impl Machine {
    /// Reads the kernel's files, and counts cycles for a moment.
    pub fn read() -> Result<Self> {
        let info = fs::read_to_string("/proc/cpuinfo")?;
        let field = |name: &str| {
            let line = info.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(": "))
                .map_or("", |(_, value)| value)
        };
        Ok(Self {
            processor: field("model name").to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            tsc_hz: Calibration::begin().hz(),
            memory_mb: kilobytes("/proc/meminfo", "MemTotal:")? / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
            hugepages_2mb: pages("nr_hugepages"),
            hypervisor: field("flags").split(' ').any(|flag| flag == "hypervisor"),
        })
    }

    /// For the report.
    pub fn table(&self) -> Table {
        table(&[
            ("processor", self.processor.clone()),
            ("cores", self.cores.to_string()),
            ("TSC", format!("{} Hz", grouped(self.tsc_hz as i64))),
            ("memory", format!("{} MB", grouped(self.memory_mb as i64))),
            ("kernel", self.kernel.clone()),
            ("hugepages of 2 MB", self.hugepages_2mb.to_string()),
            (
                "virtual machine",
                if self.hypervisor { "yes" } else { "no" }.to_owned(),
            ),
        ])
    }
}

impl Versions {
    /// Asks the tools.
    pub fn read() -> Result<Self> {
        let changed = !said("git", &["status", "--porcelain", "--untracked-files=no"])?.is_empty();
        let commit = said("git", &["rev-parse", "--short=12", "HEAD"])?;
        Ok(Self {
            pdmgate: env!("CARGO_PKG_VERSION").to_owned(),
            commit: format!("{commit}{}", if changed { ", with changes" } else { "" }),
            dpdk: said("pkg-config", &["--modversion", "libdpdk"])?,
            rustc: said("rustc", &["--version"])?,
        })
    }

    /// For the report.
    pub fn table(&self) -> Table {
        table(&[
            ("pdmgate", self.pdmgate.clone()),
            ("commit", self.commit.clone()),
            ("DPDK", self.dpdk.clone()),
            ("rustc", self.rustc.clone()),
        ])
    }
}

fn table(rows: &[(&str, String)]) -> Table {
    let mut table = Table::new(&["", ""]);
    for (name, value) in rows {
        table.rows.push(vec![(*name).into(), value.clone().into()]);
    }
    table
}

/// What a command prints, or nothing where it fails: a report without a commit is better than none.
fn said(command: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(command).args(arguments).output();
    let text = output
        .ok()
        .filter(|output| output.status.success())
        .map(|output| output.stdout);
    Ok(String::from_utf8(text.unwrap_or_default())?
        .trim()
        .to_owned())
}

/// A number of kilobytes in a file of the kernel's.
pub fn kilobytes(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line
        .and_then(|line| line.split_whitespace().next())
        .unwrap_or("0");
    Ok(value.parse()?)
}

fn pages(which: &str) -> u64 {
    let file = format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{which}");
    fs::read_to_string(file)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// Looks for what measuring needs.
pub fn check() -> Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    if cores < 2 {
        return Err(
            "the benchmark needs 2 cores: one under test, one for generators and management".into(),
        );
    }
    let free = pages("free_hugepages");
    if free < PAGES {
        return Err(format!(
            "the benchmark needs {PAGES} free hugepages of 2 MB, there are {free}: as root, \
             echo 512 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
        )
        .into());
    }
    for program in ["dpdk-testpmd", "dpdk-test-crypto-perf"] {
        if Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output()?
            .stdout
            .is_empty()
        {
            return Err(format!(
                "{program} is not installed: make setup, or the Debian package dpdk-dev"
            )
            .into());
        }
    }
    Ok(())
}
