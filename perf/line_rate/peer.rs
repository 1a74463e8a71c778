//! The far side: seals what comes in to the appliance under test, beforehand, in memory.
//!
//! A repeated option is a replay, so each packet has its own: only the 36 bytes of it are kept, and the packet is written around
//! them when it is sent.

use crate::bench::Result;
use crate::frames::{self, Turns};
use crate::setup::Setup;
use pdmgate::crypto::{Aead, Kernel, OpenJob, SealJob, SessionKey};
use pdmgate::flow::Epoch;
use pdmgate::snapshot::{Route, Snapshot};
use pdmgate::wire::{self, FiveTuple, Metrics, Parsed, Prseq, ScaledDelta, pdmv2};

/// A sealed option.
pub type Sealed = [u8; pdmv2::SEALED_SIZE];

/// Options, and the flows that they are of.
#[derive(Default)]
pub struct Batch {
    pub options: Vec<Sealed>,
    pub turns: Turns,
}

/// Above what Kris the flows of a full table start at.
const HIGHEST_KRI: u32 = 64;
/// Options that are sealed at once.
const BATCH: usize = 64;

/// The hosts' appliance on the servers' side.
pub struct Peer {
    snapshot: Snapshot,
    route: Route,
    epoch: Epoch,
    aead: Aead,
    kernel: Kernel,
    rotation: u16,
    flows: Vec<Flow>,
    turns: Turns,
}

/// What one flow is sealed with.
struct Flow {
    key: SessionKey,
    kri: u32,
    /// Packets under this key.
    count: u16,
    psntp: u16,
    /// What the other end sent last, as far as this one knows: named in each packet, one further each time.
    psnlr: Option<u16>,
}

impl Peer {
    /// Derives the keys of `flows` flows.
    pub fn new(setup: &Setup, flows: usize, tsc_hz: u64) -> Result<Self> {
        let snapshot = setup.snapshot(tsc_hz)?;
        let tuple = frames::tuple(0).reversed();
        let route = snapshot
            .resolve(&tuple.src, &tuple.dst)
            .ok_or("the lists do not have the traffic")?;
        let epoch = snapshot.send_epoch(&route);
        let aead = snapshot.pairing(&route).ok_or("no pairing")?.suite.aead;
        let mut peer = Self {
            snapshot,
            route,
            epoch,
            aead,
            kernel: Kernel::detect(),
            rotation: setup.rotation,
            flows: Vec::with_capacity(flows),
            turns: Turns::in_order(flows),
        };
        for flow in 0..flows {
            let key = peer.key(flow, 0)?;
            peer.flows.push(Flow {
                key,
                kri: 0,
                count: 0,
                psntp: 0,
                psnlr: None,
            });
        }
        Ok(peer)
    }

    fn key(&self, flow: usize, kri: u32) -> Result<SessionKey> {
        let tuple: FiveTuple = frames::tuple(flow).reversed();
        let key = self
            .snapshot
            .session_key(&self.route, &self.epoch, &tuple, kri);
        Ok(key.ok_or("no key")?)
    }

    /// From now on flows come in an order that is not the one in which they were made.
    pub fn scatter(&mut self) {
        self.turns = Turns::scattered(self.flows.len());
    }

    /// Opens a packet that the appliance under test sent as the first of its flow, and names it in the flow's packets from now on.
    pub fn hear(&mut self, frame: &[u8]) -> Result<()> {
        let Parsed::Packet(packet) = wire::parse(frame, pdmv2::DEFAULT_OPTION_TYPE)? else {
            return Err("no packet of a flow".into());
        };
        let at = packet.option.ok_or("no option")?.at;
        let option = frame
            .get(usize::from(at)..)
            .and_then(|rest| rest.first_chunk())
            .ok_or("no option")?;
        // What goes out is sealed in the same epoch seen from the other end: both ends' generations are their first. A flow starts at a
        // higher Kri where its floor was raised by a stranger's.
        let f = u32::from(
            option
                .get(pdmv2::HEADER_LEN - 1)
                .is_some_and(|byte: &u8| byte & 1 == 1),
        );
        let opened = (f..HIGHEST_KRI).step_by(2).find_map(|kri| {
            let key = self
                .snapshot
                .session_key(&self.route, &self.epoch, &packet.tuple, kri)?;
            let mut jobs = [OpenJob::new(&key, option)];
            self.kernel.open(self.aead, &mut jobs);
            let [job] = jobs;
            job.opened.metrics().map(Metrics::from_bytes)
        });
        let metrics = opened.ok_or("what the appliance sealed does not open")?;
        let flow = frames::flow(&packet.tuple);
        let flow = self.flows.get_mut(flow).ok_or("no such flow")?;
        flow.psnlr = Some(metrics.psntp);
        Ok(())
    }

    /// Seals `count` more options, the flows in turn.
    pub fn seal(&mut self, count: usize) -> Result<Batch> {
        let turns = self.turns;
        let mut options = vec![[0; pdmv2::SEALED_SIZE]; count];
        for batch in options.chunks_mut(BATCH) {
            self.seal_batch(batch)?;
        }
        Ok(Batch { options, turns })
    }

    fn seal_batch(&mut self, options: &mut [Sealed]) -> Result<()> {
        let mut keys = Vec::with_capacity(options.len());
        for option in options.iter_mut() {
            let at = self.turns.next();
            if self.flows[at].count == self.rotation {
                let kri = self.flows[at].kri + 1;
                let key = self.key(at, kri)?;
                let flow = &mut self.flows[at];
                (flow.key, flow.kri, flow.count) = (key, kri, 0);
            }
            let flow = &mut self.flows[at];
            flow.count += 1;
            flow.psntp = flow.psntp.wrapping_add(1);
            let prseq = Prseq::new(flow.count).ok_or("no PRSEQ")?;
            let header = pdmv2::option_header(
                pdmv2::DEFAULT_OPTION_TYPE,
                pdmv2::SEALED_LEN,
                prseq,
                flow.kri & 1 == 1,
            );
            let metrics = Metrics {
                // Some tens of microseconds of a server's work.
                dtlr: ScaledDelta {
                    delta: 40_000,
                    scale: 30,
                },
                dtls: ScaledDelta {
                    delta: 50_000,
                    scale: 34,
                },
                global_pointer: at as u32,
                psntp: flow.psntp,
                // Of a flow of which nothing was heard, any number that changes: what is looked up for it is what would be for another.
                psnlr: flow.psnlr.unwrap_or(flow.psntp),
            };
            flow.psnlr = flow.psnlr.map(|psn| psn.wrapping_add(1));
            option[..pdmv2::HEADER_LEN].copy_from_slice(&header);
            option[pdmv2::HEADER_LEN..][..pdmv2::METRICS_LEN].copy_from_slice(&metrics.to_bytes());
            // Of its own, as the flow's may change within a batch.
            keys.push(SessionKey::new(flow.key.key(), flow.key.base_nonce()));
        }
        let jobs = options.iter_mut().zip(&keys);
        let mut jobs: Vec<_> = jobs.map(|(option, key)| SealJob { key, option }).collect();
        self.kernel.seal(self.aead, &mut jobs);
        Ok(())
    }
}
