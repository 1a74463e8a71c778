//! What sealing, opening and deriving a key cost: `cargo bench --bench seal`.
//!
//! Each line is the median of many short runs over a burst of options whose keys all differ and which stay in the
//! first-level cache. The runs of all lines are interleaved, so that a change of the machine's clock or load meets them all alike.
//! `ring, key kept` is a key set up beforehand, what no appliance with a million flows can afford; the ratio is against it.

#![allow(unsafe_code)]

#[path = "line_rate/options.rs"]
mod options;

use options::Options;
use pdmgate::crypto::{Aead, Kernel, SessionInfo, SharedSecret, Suite};
use pdmgate::wire::FiveTuple;
use ring::aead::{Aad, LessSafeKey, Nonce, UnboundKey};
use std::hint::black_box;
use std::time::Instant;

/// Options in a burst.
const BURST: usize = 64;
/// Bursts in a run.
const BURSTS: usize = 16;
/// Runs of each line.
const RUNS: usize = 201;

/// What the other lines are compared with.
const KEPT: &str = "ring, key kept";

/// The processor's time-stamp counter; zero where there is none.
fn tsc() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has RDTSC, and it touches no memory. Where a kernel forbids it, the process ends; none does
    // by default.
    return unsafe { core::arch::x86_64::_rdtsc() };
    #[cfg(not(target_arch = "x86_64"))]
    0
}

/// One line of the table: a name, and what does one run of it.
struct Line {
    aead: Aead,
    what: &'static str,
    by: String,
    run: Box<dyn FnMut()>,
    /// Nanoseconds and time-stamp cycles of each run, per option.
    samples: Vec<(f64, f64)>,
}

impl Line {
    fn new(aead: Aead, what: &'static str, by: &str, run: impl FnMut() + 'static) -> Self {
        Self {
            aead,
            what,
            by: by.to_owned(),
            run: Box::new(run),
            samples: Vec::with_capacity(RUNS),
        }
    }

    fn sample(&mut self) {
        let (time, cycles) = (Instant::now(), tsc());
        (self.run)();
        let (cycles, time) = (tsc() - cycles, time.elapsed());
        let options = (BURST * BURSTS) as f64;
        self.samples
            .push((time.as_secs_f64() * 1e9 / options, cycles as f64 / options));
    }

    /// The run that took the median time.
    fn median(&mut self) -> (f64, f64) {
        let middle = self.samples.len() / 2;
        let (_, median, _) = self
            .samples
            .select_nth_unstable_by(middle, |a, b| a.0.total_cmp(&b.0));
        *median
    }
}

fn kernel_lines(aead: Aead, kernel: Kernel) -> [Line; 2] {
    let mut burst = Options::new(BURST);
    let seal = move || {
        let mut jobs = burst.seal_jobs();
        for _ in 0..BURSTS {
            kernel.seal(aead, black_box(&mut jobs));
        }
    };
    let mut burst = Options::new(BURST);
    kernel.seal(aead, &mut burst.seal_jobs());
    let open = move || {
        let mut jobs = burst.open_jobs();
        for _ in 0..BURSTS {
            kernel.open(aead, black_box(&mut jobs));
        }
        assert!(jobs.iter().all(|job| job.ok));
    };
    let name = match kernel.name() {
        "ring" => "ring, key set up each time",
        name => name,
    };
    [
        Line::new(aead, "seal", name, seal),
        Line::new(aead, "open", name, open),
    ]
}

/// The key set up, ready for any number of options.
fn ring_key(aead: Aead, key: &[u8; 32]) -> LessSafeKey {
    let algorithm = match aead {
        Aead::Aes128Gcm => &ring::aead::AES_128_GCM,
        Aead::Aes256Gcm => &ring::aead::AES_256_GCM,
        Aead::ChaCha20Poly1305 => &ring::aead::CHACHA20_POLY1305,
    };
    let key = UnboundKey::new(algorithm, &key[..aead.key_len()]);
    LessSafeKey::new(key.expect("the key has the algorithm's length"))
}

fn ring_seal(keys: &[LessSafeKey], burst: &mut Options) {
    for ((key, nonce), option) in keys.iter().zip(&burst.nonces).zip(&mut burst.options) {
        let (header, rest) = option.split_at_mut(6);
        let (text, tag) = rest.split_at_mut(14);
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let value = key.seal_in_place_separate_tag(nonce, Aad::from(header), text);
        tag.copy_from_slice(value.expect("14 bytes can be sealed").as_ref());
    }
}

fn ring_open(keys: &[LessSafeKey], burst: &Options) {
    for ((key, nonce), option) in keys.iter().zip(&burst.nonces).zip(&burst.options) {
        let (header, rest) = option.split_at(6);
        let mut text: [u8; 30] = rest.try_into().expect("30 bytes are behind the header");
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key.open_in_place(nonce, Aad::from(header), &mut text);
        black_box(opened.expect("the tag is right"));
    }
}

fn ring_lines(aead: Aead) -> [Line; 2] {
    let (mut burst, mut sealed) = (Options::new(BURST), Options::new(BURST));
    let keys: Vec<_> = burst.keys.iter().map(|key| ring_key(aead, key)).collect();
    let opening_keys = keys.clone();
    ring_seal(&keys, &mut sealed);
    let seal = move || (0..BURSTS).for_each(|_| ring_seal(&keys, black_box(&mut burst)));
    let open = move || (0..BURSTS).for_each(|_| ring_open(&opening_keys, black_box(&sealed)));
    [
        Line::new(aead, "seal", KEPT, seal),
        Line::new(aead, "open", KEPT, open),
    ]
}

fn derive_line(aead: Aead) -> Line {
    let suite = Suite {
        aead,
        ..Suite::default()
    };
    let secret = SharedSecret::from_bytes([7; 32]);
    let mut tuple = FiveTuple {
        src: [1; 16],
        dst: [2; 16],
        sport: 0,
        dport: 443,
        protocol: 6,
    };
    Line::new(aead, "derive a key", "session_key", move || {
        for _ in 0..BURST * BURSTS {
            tuple.sport = tuple.sport.wrapping_add(1);
            black_box(secret.session_key(
                &suite,
                &SessionInfo {
                    tuple: &tuple,
                    src_generation: 1,
                    dst_generation: 1,
                    kri: 0,
                },
            ));
        }
    })
}

fn main() {
    let mut lines = Vec::new();
    for aead in [Aead::Aes128Gcm, Aead::Aes256Gcm, Aead::ChaCha20Poly1305] {
        lines.extend(ring_lines(aead));
        let mut kernels = Kernel::available();
        if aead == Aead::ChaCha20Poly1305 {
            kernels.truncate(1);
        }
        lines.extend(kernels.into_iter().flat_map(|k| kernel_lines(aead, k)));
        lines.push(derive_line(aead));
    }
    for _ in 0..RUNS {
        lines.iter_mut().for_each(Line::sample);
    }

    println!(
        "{:57} {:>6} {:>8} {:>20}",
        "per option", "ns", "cycles", "times ring, key kept"
    );
    let mut kept = [0.0; 2];
    for line in &mut lines {
        let (time, cycles) = line.median();
        let kept = match line.what {
            "seal" => Some(&mut kept[0]),
            "open" => Some(&mut kept[1]),
            _ => None,
        };
        let ratio = kept.map(|kept| {
            if line.by == KEPT {
                *kept = time;
            }
            format!("{:20.1}", *kept / time)
        });
        println!(
            "{:<16} {:<13} {:<26} {time:>6.1} {cycles:>8.1} {}",
            format!("{:?}", line.aead),
            line.what,
            line.by,
            ratio.unwrap_or_default(),
        );
    }
}
