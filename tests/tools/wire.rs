//! The wire: frames of one interface leave by the other, after what [`crate::faults`] has in store for them.

use crate::faults::{Direction, Faults};
use crate::link::{Link, precise_timers, wait};
use clap::Args;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::low_level::pipe;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// The largest frame that is carried, in bytes.
const FRAME: usize = 1 << 16;
/// Frames taken from one end before the other gets its turn.
const BURST: usize = 64;

/// Joins two interfaces
#[derive(Args, Debug)]
pub struct Options {
    /// One end
    #[arg(long)]
    a: String,
    /// The other end
    #[arg(long)]
    b: String,
    /// Only one way suffers faults: "a-to-b" or "b-to-a"; the delay is on both
    #[arg(long, value_parser = ["both", "a-to-b", "b-to-a"], default_value = "both")]
    way: String,
    #[command(flatten)]
    faults: Faults,
}

/// Runs until SIGTERM or SIGINT, delivers what is still on the way, and prints the report. SIGUSR1 starts a blackhole, and
/// ends it the next time: every packet that faults may befall is lost meanwhile.
///
/// # Errors
/// An interface cannot be opened.
pub fn run(options: &Options) -> io::Result<()> {
    let (mut end, end_from) = UnixStream::pair()?;
    let (mut toggle, toggle_from) = UnixStream::pair()?;
    end.set_nonblocking(true)?;
    toggle.set_nonblocking(true)?;
    pipe::register(SIGTERM, end_from.try_clone()?)?;
    pipe::register(SIGINT, end_from)?;
    pipe::register(SIGUSR1, toggle_from)?;

    let links = [Link::open(&options.a)?, Link::open(&options.b)?];
    let none = Faults {
        loss: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
        corrupt: 0.0,
        ..options.faults.clone()
    };
    let suffers = |way: &str| {
        if options.way == "both" || options.way == way {
            &options.faults
        } else {
            &none
        }
    };
    let mut directions = [
        Direction::new(suffers("a-to-b"), 0),
        Direction::new(suffers("b-to-a"), 1),
    ];

    precise_timers();
    eprintln!("wire: ready");
    let mut buffer = vec![0; FRAME];
    let mut blackhole = false;
    let mut ending = false;
    let mut byte = [0];
    loop {
        for (from, direction) in directions.iter_mut().enumerate() {
            let out = &links[1 - from];
            while let Some(packet) = direction.arrived(Instant::now()) {
                let done = out.send(&packet.frame).is_ok();
                direction.sent(&packet, Instant::now(), done);
            }
        }
        let due = directions.iter().filter_map(Direction::next_due).min();
        if ending && due.is_none() {
            break;
        }
        let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
        if ending {
            wait([], timeout);
            continue;
        }
        wait(
            [
                links[0].as_raw_fd(),
                links[1].as_raw_fd(),
                end.as_raw_fd(),
                toggle.as_raw_fd(),
            ],
            timeout,
        );
        ending = end.read(&mut byte).is_ok();
        if toggle.read(&mut byte).is_ok() {
            blackhole = !blackhole;
            eprintln!("wire: blackhole {}", if blackhole { "on" } else { "off" });
        }
        for (from, direction) in directions.iter_mut().enumerate() {
            for _ in 0..BURST {
                let Some(length) = links[from].receive(&mut buffer) else {
                    break;
                };
                direction.take(Instant::now(), &buffer[..length], blackhole);
            }
        }
    }
    let report = json!({
        "a_to_b": directions[0].report(links[0].overrun()),
        "b_to_a": directions[1].report(links[1].overrun()),
    });
    writeln!(io::stdout(), "{report}")
}
