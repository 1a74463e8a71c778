//! A worker core's loop: one receive and one transmit queue of each port, every stage to completion on a burst.

use crate::config::Idle;
use crate::dataplane::{Fate, Fates, Worker};
use crate::dpdk::{self, Burst, RxQueue, TxQueue};
use crate::telemetry::{Counter, Direction};
use crate::wire::PacketBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Times that a full transmit queue is asked again before packets are dropped.
const TRANSMIT_TRIES: usize = 16;
/// Empty polls before a worker that may sleep does, and the longest that it sleeps: short of what a round trip is measured in.
const POLLS_BEFORE_SLEEP: u32 = 256;
const SLEEP: Duration = Duration::from_micros(50);
/// Empty polls after which a worker that is to stop has drained its queues, and the part of a second after which it stops although
/// more comes, or the core is too busy for so many polls.
const POLLS_TO_DRAIN: u32 = 1_000;
const STOPS_WITHIN: u64 = 10;

/// A worker's queues of one port.
pub struct Side {
    /// Where packets come from.
    pub rx: RxQueue,
    /// Where they go to.
    pub tx: TxQueue,
}

/// Carries packets until `stop`, and then until nothing has come for a while. `tsc_hz` are the cycles of a second.
pub fn poll(
    mut worker: Worker<'_>,
    inside: &mut Side,
    outside: &mut Side,
    idle: Idle,
    stop: &AtomicBool,
    tsc_hz: u64,
) {
    let longest_drain = tsc_hz / STOPS_WITHIN;
    let mut burst = Burst::new();
    let mut quiet = 0u32;
    let mut stopping = None;
    let mut began = now();
    loop {
        let mut received = inside.rx.burst(&mut burst);
        if received > 0 {
            let fates = worker.outbound(&mut burst, now());
            send(&worker, Direction::Out, &mut burst, &fates, outside, inside);
        }
        let inbound = outside.rx.burst(&mut burst);
        if inbound > 0 {
            received += inbound;
            let fates = worker.inbound(&mut burst, now());
            send(&worker, Direction::In, &mut burst, &fates, inside, outside);
        }
        if received > 0 {
            quiet = 0;
        } else {
            quiet = quiet.saturating_add(1);
            worker.quiesce();
            if stopping.is_none() {
                rest(&mut worker, idle, quiet);
            }
        }
        let ended = now();
        worker
            .counters()
            .polled(received > 0, ended.saturating_sub(began));
        began = ended;
        if stop.load(Ordering::Relaxed) {
            let since = *stopping.get_or_insert(ended);
            if quiet > POLLS_TO_DRAIN || ended.saturating_sub(since) > longest_drain {
                return;
            }
        }
    }
}

/// What an idle loop does with its core.
fn rest(worker: &mut Worker<'_>, idle: Idle, quiet: u32) {
    match idle {
        Idle::Poll => {}
        Idle::Pause => std::hint::spin_loop(),
        Idle::Sleep if quiet < POLLS_BEFORE_SLEEP => std::hint::spin_loop(),
        Idle::Sleep => {
            worker.rest();
            std::thread::sleep(SLEEP);
        }
    }
}

/// Sends a burst on, each packet by its fate. Leaves `burst` empty.
fn send(
    worker: &Worker<'_>,
    direction: Direction,
    burst: &mut Burst,
    fates: &Fates,
    onward: &mut Side,
    back: &mut Side,
) {
    if !fates.all_forward() {
        let mut forward = Burst::new();
        let mut answers = Burst::new();
        for (at, packet) in burst.drain(..).enumerate() {
            match fates.get(at) {
                Fate::Forward => forward.push(packet),
                Fate::Return => answers.push(packet),
                Fate::Drop => drop(packet),
            }
        }
        transmit(worker, direction, &mut answers, &mut back.tx);
        *burst = forward;
    }
    transmit(worker, direction, burst, &mut onward.tx);
}

fn transmit(worker: &Worker<'_>, direction: Direction, burst: &mut Burst, tx: &mut TxQueue) {
    let bytes = |burst: &Burst| burst.iter().map(|p| p.data().len() as u64).sum::<u64>();
    let (packets, total) = (burst.len(), bytes(burst));
    let mut tries = 0;
    while !burst.is_empty() && tries < TRANSMIT_TRIES {
        if tx.burst(burst) == 0 {
            tries += 1;
            std::hint::spin_loop();
        }
    }
    let counters = worker.counters().of(direction);
    counters.add(Counter::PacketsSent, (packets - burst.len()) as u64);
    counters.add(Counter::BytesSent, total - bytes(burst));
    if !burst.is_empty() {
        counters.add(Counter::DroppedTransmitFull, burst.len() as u64);
        dpdk::free(burst);
    }
}

/// The time, in TSC cycles.
#[inline]
pub(super) fn now() -> u64 {
    dpdk::cycles()
}
