//! The worker's stages on plain memory, without a device: only the stages are timed, a burst at a time, not what fills the burst.

use crate::bench::Result;
use crate::frames::{Size, Template, Turns};
use crate::peer::{Batch, Peer, Sealed};
use crate::setup::Setup;
use pdmgate::crypto::Kernel;
use pdmgate::dataplane::{BURST, Clock, Fates, Shared, View, Worker};
use pdmgate::dpdk;
use pdmgate::flow::{Ageing, FlowTable, Reader};
use pdmgate::telemetry::{Counter, Direction, Telemetry, Totals};
use pdmgate::wire::{NoHeadroom, NoTailroom, PacketBuf};

/// An appliance without ports, for `workers` workers. `huge` takes reserved hugepages where there are enough.
pub fn appliance(setup: &Setup, workers: usize, tsc_hz: u64, huge: bool) -> Result<Shared> {
    let snapshot = setup.snapshot(tsc_hz)?;
    let telemetry = Telemetry::new(workers);
    let view = View::new(snapshot, &telemetry)?;
    let table = FlowTable::new(
        setup.flows,
        [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f],
        huge,
    )?;
    Ok(Shared::new(
        telemetry,
        table,
        view,
        Kernel::detect(),
        Clock::new(tsc_hz),
    ))
}

/// Room in front of a packet, as an mbuf has, and for the largest behind it.
const HEADROOM: usize = 128;
const ROOM: usize = 2_048;

/// A packet in memory that is used again and again.
pub struct Slot {
    memory: Box<[u8; HEADROOM + ROOM]>,
    start: usize,
    len: usize,
}

impl Slot {
    fn new() -> Self {
        Self {
            memory: Box::new([0; HEADROOM + ROOM]),
            start: HEADROOM,
            len: 0,
        }
    }

    /// Makes it a packet of `len` bytes.
    fn begin(&mut self, len: usize) -> &mut [u8] {
        (self.start, self.len) = (HEADROOM, len);
        self.data_mut()
    }
}

impl PacketBuf for Slot {
    fn data(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }

    fn headroom(&self) -> usize {
        self.start
    }

    fn prepend(&mut self, n: usize) -> std::result::Result<(), NoHeadroom> {
        self.start = self.start.checked_sub(n).ok_or(NoHeadroom { wanted: n })?;
        self.len += n;
        Ok(())
    }

    fn trim_front(&mut self, n: usize) {
        let n = n.min(self.len);
        self.start += n;
        self.len -= n;
    }

    fn resize(&mut self, len: usize) -> std::result::Result<(), NoTailroom> {
        if self.start + len > self.memory.len() {
            return Err(NoTailroom { wanted: len });
        }
        self.len = len;
        Ok(())
    }
}

/// Options that are sealed between two stretches of timed bursts.
const STRETCH: usize = 64 * BURST;

/// What packets are like.
#[derive(Clone, Copy)]
pub struct Traffic {
    pub size: Size,
    /// Of 64 packets so many are spoilt.
    pub spoilt: usize,
    /// What that does to a packet.
    pub spoil: fn(&mut [u8]),
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            size: Size::Bytes(80),
            spoilt: 0,
            spoil: |_| {},
        }
    }
}

/// One worker and the packets it is given.
pub struct Lane<'s> {
    worker: Worker<'s>,
    burst: Vec<Slot>,
    /// The worker's time, in cycles: it stands still while bursts are filled, or the budget for searches would be earned by time that no
    /// packet is charged for.
    now: u64,
}

impl<'s> Lane<'s> {
    /// Worker `index` of the appliance.
    pub fn new(shared: &'s Shared, index: usize) -> Result<Self> {
        let now = dpdk::cycles();
        let worker = Worker::new(shared, index, 77 + index as u64, now);
        Ok(Self {
            worker: worker.ok_or("no such worker")?,
            burst: (0..BURST).map(|_| Slot::new()).collect(),
            now,
        })
    }

    /// Has the stages take the burst. Returns the cycles that they took.
    fn turn(&mut self, stages: fn(&mut Worker<'s>, &mut [Slot], u64) -> Fates) -> u64 {
        let start = dpdk::cycles();
        stages(&mut self.worker, &mut self.burst, self.now);
        let took = dpdk::cycles() - start;
        self.now += took;
        took
    }

    /// Gives it `bursts` bursts from inside. Returns the cycles that the stages took.
    pub fn outgoing(&mut self, traffic: &Traffic, turns: &mut Turns, bursts: usize) -> u64 {
        let templates = Templates::new(traffic.size, Template::outgoing);
        let mut cycles = 0;
        for _ in 0..bursts {
            for (n, slot) in self.burst.iter_mut().enumerate() {
                let template = templates.get(n);
                let frame = slot.begin(template.size());
                template.write(frame, turns.next(), None);
                if is_spoilt(n, traffic.spoilt) {
                    (traffic.spoil)(frame);
                }
            }
            cycles += self.turn(Worker::outbound);
        }
        self.worker.rest();
        cycles
    }

    /// Gives it `bursts` bursts from outside, sealed by `peer`.
    pub fn incoming(&mut self, traffic: &Traffic, peer: &mut Peer, bursts: usize) -> Result<u64> {
        let templates = Templates::new(traffic.size, Template::incoming);
        let (mut cycles, mut left) = (0, bursts);
        while left > 0 {
            let stretch = left.min(STRETCH / BURST);
            left -= stretch;
            let Batch { options, mut turns } = peer.seal(stretch * BURST)?;
            for options in options.chunks(BURST) {
                cycles += self.incoming_burst(traffic, &templates, &mut turns, options);
            }
        }
        self.worker.rest();
        Ok(cycles)
    }

    fn incoming_burst(
        &mut self,
        traffic: &Traffic,
        templates: &Templates,
        turns: &mut Turns,
        options: &[Sealed],
    ) -> u64 {
        for (n, (slot, option)) in self.burst.iter_mut().zip(options).enumerate() {
            let template = templates.get(n);
            let frame = slot.begin(template.size());
            template.write(frame, turns.next(), Some(option));
            if is_spoilt(n, traffic.spoilt) {
                (traffic.spoil)(frame);
            }
        }
        self.turn(Worker::inbound)
    }

    /// Makes `flows` flows: keys are derived for what goes out, and found for what comes in if there is a peer. At a pace that leaves the
    /// budget for searches at its half.
    pub fn warm(
        &mut self,
        flows: usize,
        peer: Option<&mut Peer>,
        searches: u32,
        hz: u64,
    ) -> Result<()> {
        let bursts = flows.div_ceil(BURST);
        self.outgoing(&Traffic::default(), &mut Turns::in_order(flows), bursts);
        let Some(peer) = peer else {
            return Ok(());
        };
        let pause = hz / u64::from(searches) * 2 * BURST as u64;
        for _ in 0..bursts {
            self.incoming(&Traffic::default(), peer, 1)?;
            self.worker.quiesce();
            self.now += pause;
        }
        Ok(())
    }
}

/// Whether the `n`th of a burst is one of `of_64`, evenly spread.
fn is_spoilt(n: usize, of_64: usize) -> bool {
    (n + 1) * of_64 / 64 > n * of_64 / 64
}

struct Templates(Vec<Template>);

impl Templates {
    fn new(size: Size, make: fn(usize) -> Template) -> Self {
        Self((0..Size::PERIOD).map(|n| make(size.of(n))).collect())
    }

    fn get(&self, n: usize) -> &Template {
        &self.0[n % Size::PERIOD]
    }
}

/// One counter over all workers.
pub fn count(shared: &Shared, direction: Direction, counter: Counter) -> u64 {
    Totals::over(shared.telemetry.workers.iter().map(|worker| &**worker)).get(direction, counter)
}

/// What the counters rose by.
pub struct Rise<'s> {
    shared: &'s Shared,
    direction: Direction,
    counter: Counter,
    before: u64,
}

impl<'s> Rise<'s> {
    /// From now on.
    pub fn of(shared: &'s Shared, direction: Direction, counter: Counter) -> Self {
        Self {
            shared,
            direction,
            counter,
            before: count(shared, direction, counter),
        }
    }

    /// An error unless it rose by as many packets.
    pub fn check(&self, packets: usize) -> Result<()> {
        let rose = count(self.shared, self.direction, self.counter) - self.before;
        match rose == packets as u64 {
            true => Ok(()),
            false => Err(format!("{:?} rose by {rose}, not by {packets}", self.counter).into()),
        }
    }
}

/// Ages every flow out of a table, as the management core does with idle ones.
pub fn forget(table: &FlowTable, reader: &mut Reader<'_>) -> Result<()> {
    let mut ageing = Ageing::new(table);
    // Three steps for each entry, and each needs the ones before it to be out of every worker's sight.
    for _ in 0..16 {
        if table.is_empty() {
            reader.rest();
            return Ok(());
        }
        // Far in the future everything is idle.
        ageing.step(
            &reader.pin(),
            dpdk::cycles() + (1 << 50),
            1 << 40,
            usize::MAX / 2,
        );
    }
    Err(format!("{} flows do not leave the table", table.len()).into())
}
