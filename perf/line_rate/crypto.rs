//! Sealing and opening one option, keys hot: by each kernel that the processor has, against `ring` and against DPDK's own crypto driver.

use crate::bench::{Bench, HARNESS_CORE, Result, TESTED_CORE};
use crate::options::Options;
use crate::report::{Report, Section, Table};
use crate::samples::Spread;
use pdmgate::crypto::{Aead, Kernel};
use pdmgate::dpdk;
use ring::aead::{Aad, LessSafeKey, Nonce, UnboundKey};
use std::hint::black_box;
use std::process::Command;

/// Options in a burst, as in the other program's.
const BURST: usize = 32;
const AEADS: [Aead; 3] = [Aead::Aes128Gcm, Aead::Aes256Gcm, Aead::ChaCha20Poly1305];

/// Bursts in a run.
const BURSTS: usize = 64;

/// `ring` with the keys set up beforehand, which no appliance with a million flows can afford. The kernel that is named `ring` sets up a
/// key for each option.
const KEPT: &str = "ring, keys kept";

/// What is timed: cycles of one run of [`BURST`] times [`BURSTS`] options.
struct Line {
    aead: Aead,
    seal: bool,
    by: String,
    run: Box<dyn FnMut()>,
    samples: Vec<f64>,
}

impl Line {
    fn new(aead: Aead, seal: bool, by: &str, run: impl FnMut() + 'static) -> Self {
        Self {
            aead,
            seal,
            by: by.to_owned(),
            run: Box::new(run),
            samples: Vec::new(),
        }
    }
}

fn kernel_lines(aead: Aead, kernel: Kernel) -> [Line; 2] {
    let mut sealed = Options::new(BURST);
    kernel.seal(aead, &mut sealed.seal_jobs());
    let mut options = Options::new(BURST);
    let seal = move || {
        let mut jobs = options.seal_jobs();
        for _ in 0..BURSTS {
            kernel.seal(aead, black_box(&mut jobs));
        }
    };
    let open = move || {
        let mut jobs = sealed.open_jobs();
        for _ in 0..BURSTS {
            kernel.open(aead, black_box(&mut jobs));
        }
        assert!(
            jobs.iter().all(|job| job.opened.metrics().is_some()),
            "what was sealed opens"
        );
    };
    [
        Line::new(aead, true, kernel.name(), seal),
        Line::new(aead, false, kernel.name(), open),
    ]
}

fn ring_lines(aead: Aead) -> Result<[Line; 2]> {
    let algorithm = match aead {
        Aead::Aes128Gcm => &ring::aead::AES_128_GCM,
        Aead::Aes256Gcm => &ring::aead::AES_256_GCM,
        Aead::ChaCha20Poly1305 => &ring::aead::CHACHA20_POLY1305,
    };
    let mut options = Options::new(BURST);
    let keys = options.keys.iter().map(|key| {
        let key = UnboundKey::new(algorithm, &key.key()[..aead.key_len()]);
        key.map(LessSafeKey::new)
            .map_err(|_| "ring does not take the key")
    });
    let keys = keys.collect::<std::result::Result<Vec<_>, _>>()?;
    let mut sealed = Options::new(BURST);
    ring_seal(&keys, &mut sealed);
    let opening = keys.clone();
    let seal = move || (0..BURSTS).for_each(|_| ring_seal(&keys, black_box(&mut options)));
    let open = move || (0..BURSTS).for_each(|_| ring_open(&opening, black_box(&sealed)));
    Ok([
        Line::new(aead, true, KEPT, seal),
        Line::new(aead, false, KEPT, open),
    ])
}

fn ring_seal(keys: &[LessSafeKey], options: &mut Options) {
    for ((key, session), option) in keys.iter().zip(&options.keys).zip(&mut options.options) {
        let (header, rest) = option.split_at_mut(6);
        let (text, tag) = rest.split_at_mut(14);
        let nonce = Nonce::assume_unique_for_key(*session.base_nonce());
        let sealed = key.seal_in_place_separate_tag(nonce, Aad::from(header), text);
        tag.copy_from_slice(sealed.expect("14 bytes can be sealed").as_ref());
    }
}

fn ring_open(keys: &[LessSafeKey], options: &Options) {
    for ((key, session), option) in keys.iter().zip(&options.keys).zip(&options.options) {
        let (header, rest) = option.split_at(6);
        let mut text: [u8; 30] = std::array::from_fn(|at| rest[at]);
        let nonce = Nonce::assume_unique_for_key(*session.base_nonce());
        let opened = key.open_in_place(nonce, Aad::from(header), &mut text);
        black_box(opened.expect("the tag is right"));
    }
}

/// Cycles an option by DPDK's driver, as its own test program tells.
fn dpdk_cycles(bench: &Bench, seal: bool, key_bytes: usize) -> Result<f64> {
    let mut command = Command::new("dpdk-test-crypto-perf");
    command
        .args([
            "--lcores",
            &format!("0@{HARNESS_CORE},1@{TESTED_CORE}"),
            "--in-memory",
            "--no-pci",
            "--no-telemetry",
        ])
        .args([
            "--vdev",
            "crypto_aesni_gcm0",
            "--",
            "--ptest",
            "throughput",
            "--silent",
            "--csv-friendly",
        ])
        .args([
            "--devtype",
            "crypto_aesni_gcm",
            "--optype",
            "aead",
            "--aead-algo",
            "aes-gcm",
        ])
        .args([
            "--aead-op",
            if seal { "encrypt" } else { "decrypt" },
            "--aead-key-sz",
            &key_bytes.to_string(),
        ])
        .args([
            "--aead-iv-sz",
            "12",
            "--aead-aad-sz",
            "6",
            "--digest-sz",
            "16",
        ])
        .args(["--buffer-sz", "14", "--burst-sz", &BURST.to_string()])
        .args([
            "--total-ops",
            if bench.quick { "100000" } else { "10000000" },
        ]);
    let words: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    bench.ran(format!("dpdk-test-crypto-perf {}", words.join(" ")));
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text
        .lines()
        .rfind(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    let cycles = last.and_then(|line| line.rsplit(',').next());
    let cycles = cycles.ok_or_else(|| format!("dpdk-test-crypto-perf gives no numbers: {text}"))?;
    Ok(cycles.trim().parse()?)
}

/// Every line's cycles, a column for each way.
fn by_kernel(lines: &[Line]) -> Table {
    let of = |aead, seal| {
        let lines = lines.iter();
        lines.filter(move |line| line.aead == aead && line.seal == seal)
    };
    let names = of(Aead::Aes128Gcm, true).map(|line| line.by.as_str());
    let mut table = Table::new(&["AEAD", ""].into_iter().chain(names).collect::<Vec<_>>());
    for aead in AEADS {
        for (seal, word) in [(true, "seal"), (false, "open")] {
            let mut row = vec![format!("{aead:?}").into(), word.into()];
            row.extend(of(aead, seal).map(|line| Spread::of(&line.samples).into()));
            table.rows.push(row);
        }
    }
    table
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut lines = Vec::new();
    let fastest = Kernel::detect();
    for aead in AEADS {
        lines.extend(ring_lines(aead)?);
        for kernel in Kernel::available() {
            lines.extend(kernel_lines(aead, kernel));
        }
    }
    core_affinity::set_for_current(core_affinity::CoreId { id: TESTED_CORE });
    let runs = if bench.quick { 5 } else { 201 };
    for _ in 0..runs {
        for line in &mut lines {
            let start = dpdk::cycles();
            (line.run)();
            let cycles = dpdk::cycles() - start;
            line.samples.push(cycles as f64 / (BURST * BURSTS) as f64);
        }
    }
    core_affinity::set_for_current(core_affinity::CoreId { id: HARNESS_CORE });

    let mut section = Section::new("Sealing and opening one option");
    section.text.push(format!(
        "Cycles an option (TSC), {BURST} options with keys of their own in the first-level cache. `ring` has its key schedules set up \
         beforehand, `{}` expands the key anew each time. `crypto_aesni_gcm` is measured by `dpdk-test-crypto-perf` with bursts of {BURST}, \
         one session, 14 bytes of text and 6 of additional data; its number includes filling the operations, as the program does it. \
         ChaCha20-Poly1305 is `ring`'s on both sides, with the key set up each time in ours. Below, all that this processor can do.",
        fastest.name()
    ));
    let mut table = Table::new(&[
        "AEAD",
        "",
        "pdmgate",
        "ring",
        "crypto_aesni_gcm",
        "times ring",
        "times crypto_aesni_gcm",
    ]);
    let find = |aead: Aead, seal: bool, by: &str| -> Result<&Line> {
        let mut of_it = lines.iter().filter(|l| l.aead == aead && l.seal == seal);
        of_it
            .find(|line| line.by == by)
            .ok_or_else(|| "a line is missing".into())
    };
    for aead in AEADS {
        for seal in [true, false] {
            let ours = find(aead, seal, fastest.name())?;
            let ring = find(aead, seal, KEPT)?;
            let word = if seal { "seal" } else { "open" };
            let times_ring = Spread::of_ratios(&ring.samples, &ours.samples);
            let mut driver = Vec::new();
            if aead != Aead::ChaCha20Poly1305 {
                for _ in 0..bench.rounds() {
                    bench.sleep(std::time::Duration::ZERO)?;
                    driver.push(dpdk_cycles(bench, seal, aead.key_len())?);
                }
            }
            let of_ours = Spread::of(&ours.samples);
            let times_driver: Vec<f64> = driver
                .iter()
                .map(|cycles| cycles / of_ours.median)
                .collect();
            if aead == Aead::Aes128Gcm {
                report.headline(&format!("crypto/{word}/ring"), times_ring);
                report.headline(&format!("crypto/{word}/dpdk"), Spread::of(&times_driver));
                let other = find(Aead::Aes256Gcm, seal, fastest.name())?;
                report.headline(
                    &format!("crypto/{word}/aes256"),
                    Spread::of_ratios(&other.samples, &ours.samples),
                );
            }
            let or_none = |samples: &[f64]| match samples {
                [] => "".into(),
                samples => Spread::of(samples).into(),
            };
            bench.say(&format!(
                "{word} {aead:?}: {:.1} cycles, ring {:.1}",
                of_ours.median,
                Spread::of(&ring.samples).median
            ));
            table.rows.push(vec![
                format!("{aead:?}").into(),
                word.into(),
                of_ours.into(),
                Spread::of(&ring.samples).into(),
                or_none(&driver),
                times_ring.into(),
                or_none(&times_driver),
            ]);
        }
    }
    section.tables.push(table);
    section.tables.push(by_kernel(&lines));
    report.sections.push(section);
    Ok(())
}
