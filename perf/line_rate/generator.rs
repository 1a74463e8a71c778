//! The generator: a process on the harness's core that fills packets in memory and hands them to a program under test by shared
//! memory (`net_memif`). It does what it is told, a line of words at a time, and answers each by a line of JSON.
//!
//! ```text
//! seal COUNT                         seals options for as many packets
//! in PORT COUNT MS PPS               sends packets with these options; without more of them it ends early
//! again PORT MS                      sends packets with these options over and over, for a program that does not mind
//! trip PORT MS PPS                   sends outgoing packets with the time in them, and takes what comes back by PORT + 1
//! ```
//!
//! PPS 0 is as fast as the ring takes them. A full ring is asked again, so nothing is lost here. Where it was never full, the generator was
//! the limit.

use crate::bench::Result;
use crate::frames::{Size, Template, Turns};
use crate::peer::{Peer, Sealed};
use crate::process::Process;
use crate::rig::Rig;
use crate::setup::Setup;
use crate::{bench::Bench, latency};
use pdmgate::dpdk::{self, BURST, Burst, OpenPort};
use pdmgate::wire::PacketBuf;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// How the process is started.
#[derive(clap::Args)]
pub struct Spec {
    /// Sockets to connect to.
    #[arg(long)]
    memif: Vec<PathBuf>,
    #[arg(long)]
    flows: usize,
    #[arg(long)]
    size: Size,
}

/// What one order came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sent {
    pub sent: u64,
    pub seconds: f64,
    /// Share of attempts that found the ring full: near 0, the generator is the limit.
    pub full: f64,
}

impl Sent {
    pub fn rate(&self) -> f64 {
        self.sent as f64 / self.seconds
    }
}

/// The process, from outside.
pub struct Generator {
    process: Process,
    seen: usize,
}

impl Generator {
    /// Starts it, and waits until it is joined to all the sockets.
    pub fn start(bench: &Bench, memif: &[PathBuf], flows: usize, size: Size) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("generate")
            .args(["--flows", &flows.to_string(), "--size", &size.name()]);
        for socket in memif {
            command.arg("--memif").arg(socket);
        }
        let mut generator = Self {
            process: Process::start(bench, "generator", &mut command)?,
            seen: 0,
        };
        generator.answer::<String>(bench, Duration::from_secs(60))?;
        Ok(generator)
    }

    /// Gives an order and waits for the answer.
    pub fn order<T: DeserializeOwned>(&mut self, bench: &Bench, order: &str) -> Result<T> {
        self.process.tell(order)?;
        self.answer(bench, Duration::from_secs(60))
    }

    fn answer<T: DeserializeOwned>(&mut self, bench: &Bench, limit: Duration) -> Result<T> {
        let (process, seen) = (&mut self.process, &mut self.seen);
        let line = bench.wait("answer of the generator", limit, || {
            let text = process.output()?;
            let new = text.get(*seen..).unwrap_or_default();
            match new.split_once('\n') {
                Some((line, _)) => {
                    *seen += line.len() + 1;
                    Ok(Some(line.to_owned()))
                }
                None => process.alive().map(|()| None),
            }
        })?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Ends it.
    pub fn end(self, bench: &Bench) -> Result<()> {
        self.process.end(bench)
    }
}

/// The process, from inside.
struct Inside {
    rig: Rig,
    ports: Vec<OpenPort>,
    peer: Peer,
    sizes: Vec<Template>,
    options: Vec<Sealed>,
    /// The flows of all options, and of those that are left.
    first: Turns,
    turns: Turns,
    next: usize,
    hz: u64,
}

/// Runs the process.
pub fn run(spec: &Spec) -> Result<()> {
    let rig = Rig::start(&[], 16_384)?;
    let mut ports = Vec::new();
    for (n, socket) in spec.memif.iter().enumerate() {
        let socket = socket.display();
        ports.push(rig.open(&format!(
            "net_memif{n},role=client,id=0,socket-abstract=no,rsize=12,socket={socket}"
        ))?);
    }
    let end = Instant::now() + Duration::from_secs(20);
    while !ports
        .iter()
        .all(|port| port.port.link().is_some_and(|link| link.up))
    {
        if Instant::now() > end {
            return Err("no link over memif".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let hz = rig.eal.tsc_hz();
    let mut inside = Inside {
        peer: Peer::new(&Setup::default(), spec.flows, hz)?,
        rig,
        ports,
        sizes: (0..Size::PERIOD)
            .map(|n| Template::incoming(spec.size.of(n)))
            .collect(),
        options: Vec::new(),
        first: Turns::in_order(spec.flows),
        turns: Turns::in_order(spec.flows),
        next: 0,
        hz,
    };
    say(&"ready")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let number =
            |at: usize| -> Result<u64> { Ok(words.get(at).ok_or("a word is missing")?.parse()?) };
        match words.first() {
            Some(&"seal") => {
                let batch = inside.peer.seal(number(1)? as usize)?;
                (inside.options, inside.first, inside.turns) =
                    (batch.options, batch.turns, batch.turns);
                inside.next = 0;
                say(&"sealed")?;
            }
            Some(&"in") => {
                let sent = inside.send(
                    number(1)? as usize,
                    number(2)?,
                    number(3)?,
                    number(4)?,
                    false,
                )?;
                say(&sent)?;
            }
            Some(&"again") => {
                say(&inside.send(number(1)? as usize, u64::MAX, number(2)?, 0, true)?)?
            }
            Some(&"trip") => {
                let port = number(1)? as usize;
                let (near, far) = inside.ports.split_at_mut(port + 1);
                let (near, far) = near.last_mut().zip(far.first_mut()).ok_or("no such port")?;
                let trip =
                    latency::trip(&inside.rig, near, far, spec.flows, number(2)?, number(3)?)?;
                say(&trip)?;
            }
            _ => return Err(format!("no order: {line}").into()),
        }
    }
    Ok(())
}

/// Answers.
fn say(answer: &impl Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// The cycle before which no more may be sent at a pace.
pub struct Pace {
    start: u64,
    hz: u64,
    pps: u64,
}

impl Pace {
    /// `pps` 0 is no pace.
    pub fn new(start: u64, hz: u64, pps: u64) -> Self {
        Self { start, hz, pps }
    }

    /// Packets that are due at `now` and not yet sent.
    #[inline]
    pub fn due(&self, now: u64, sent: u64) -> u64 {
        match self.pps {
            0 => u64::MAX,
            pps => {
                let due = u128::from(now - self.start) * u128::from(pps) / u128::from(self.hz);
                (due as u64).saturating_sub(sent)
            }
        }
    }
}

impl Inside {
    fn send(&mut self, port: usize, count: u64, ms: u64, pps: u64, again: bool) -> Result<Sent> {
        let tx = self
            .ports
            .get_mut(port)
            .and_then(|port| port.tx.first_mut())
            .ok_or("no such port")?;
        let start = dpdk::cycles();
        let end = start + self.hz / 1_000 * ms;
        let pace = Pace::new(start, self.hz, pps);
        let mut burst = Burst::new();
        let (mut sent, mut filled, mut full, mut polls) = (0, 0, 0u64, 0u64);
        let finished = loop {
            let now = dpdk::cycles();
            if burst.is_empty() {
                if now >= end {
                    break now;
                }
                let room = (count - filled)
                    .min(pace.due(now, filled))
                    .min(BURST as u64);
                for _ in 0..room {
                    if again && self.next == self.options.len() {
                        self.next = 0;
                        self.turns = self.first;
                    }
                    let Some(option) = self.options.get(self.next) else {
                        break;
                    };
                    let mut packet = self.rig.pool.alloc().ok_or("no packet buffer")?;
                    let flow = self.turns.next();
                    let template = &self.sizes[self.next % Size::PERIOD];
                    packet.resize(template.size())?;
                    template.write(packet.data_mut(), flow, Some(option));
                    burst.push(packet);
                    self.next += 1;
                }
                filled += burst.len() as u64;
                if burst.is_empty() {
                    if filled == count || (!again && self.next == self.options.len()) {
                        break now;
                    }
                    continue;
                }
            }
            let taken = tx.burst(&mut burst);
            polls += 1;
            full += u64::from(!burst.is_empty());
            sent += taken as u64;
            if now > end + self.hz {
                return Err("a packet was not taken for a second".into());
            }
        };
        Ok(Sent {
            sent,
            seconds: (finished - start) as f64 / self.hz as f64,
            full: full as f64 / polls.max(1) as f64,
        })
    }
}
