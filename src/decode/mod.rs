//! Opens captures away from any appliance: with a configuration's secrets, or with what Primaries agreed on.
//!
//! A [`Decoder`] is given packets in the order of the capture and answers each with a [`PacketRecord`]: what the packet
//! is, and what its option says. At the end it tells of each flow what both directions say together: loss, reordering,
//! delays. It may begin anywhere in a flow's life, so it looks for keys much further than an appliance would
//! (`keys.rs`).

mod book;
pub mod capture;
mod flow;
mod keys;
pub mod records;
mod registered;

use std::collections::HashMap;

use crate::config::Config;
use crate::crypto::Kernel;
use crate::flow::Epoch;
use crate::snapshot::{BuildError, Inputs, Route, Snapshot, State};
use crate::telemetry::Counter;
use crate::wire::pdm::PDM_SIZE;
use crate::wire::pdmv2::{CLEAR_SIZE, HEADER_LEN, METRICS_LEN, SEALED_SIZE};
use crate::wire::{
    self, FiveTuple, Ipv6Packet, Metrics, OptionHeader, OptionKind, Parsed, Pdm, PdmOption,
};

use book::Book;
use capture::Captured;
use flow::{Flow, Key};
use keys::Finder;
use records::{
    Direction, FlowRecord, KeyRecord, NotOpened, OptionRecord, PacketRecord, TupleRecord,
};
pub use registered::Registered;

/// Bytes of the longest frame that can hold an IPv6 packet: link headers with two tags, IPv6 header, payload.
const LONGEST_FRAME: usize = 22 + 40 + 65_535;

/// How far keys are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Kri: from 0, or from the last one that opened, so many ahead.
    pub kri: u32,
    /// Generations, for both ends: of static pairings from the configured one so many ahead, of registered ones so many before the
    /// listed ones.
    pub generations: u32,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            kri: 1_024,
            generations: 16,
        }
    }
}

/// Two entries, of whichever pairing.
type Ends = (u32, u32, u32, bool);

fn ends_of(route: &Route) -> Ends {
    (
        route.pairing,
        route.local,
        route.remote,
        route.local_is_client,
    )
}

/// A snapshot of a configuration's static pairings, for one who only reads.
fn configured(config: &Config) -> Result<Snapshot, BuildError> {
    let inputs = Inputs {
        previous: None,
        serial: 1,
        // Nothing here waits.
        tsc_hz: 1,
        new_era: false,
    };
    Snapshot::build(config, &[], &mut State::in_memory(), inputs)
}

/// Reads the packets of one capture.
pub struct Decoder {
    book: Book,
    option_type: u8,
    kernel: Kernel,
    windows: Windows,
    flows: HashMap<Key, Flow>,
    /// Flows in the order of their first packet.
    order: Vec<Key>,
    /// Epochs that opened anything from one entry to another, the latest first.
    heard: HashMap<Ends, Vec<Epoch>>,
}

impl Decoder {
    /// A decoder with the secrets of `config`. The state file is left alone.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn new(config: &Config, windows: Windows) -> Result<Self, BuildError> {
        let snapshot = configured(config)?;
        let option_type = snapshot.policy.option_type;
        let book = Book::Configured(Box::new(snapshot));
        Ok(Self::with(book, option_type, windows))
    }

    /// A decoder with what is known of registered pairings, of options of that type.
    #[must_use]
    pub fn registered(registered: Registered, option_type: u8, windows: Windows) -> Self {
        Self::with(Book::Registered(registered), option_type, windows)
    }

    fn with(book: Book, option_type: u8, windows: Windows) -> Self {
        Self {
            book,
            option_type,
            kernel: Kernel::detect(),
            windows,
            flows: HashMap::new(),
            order: Vec::new(),
            heard: HashMap::new(),
        }
    }

    /// Reads the next packet.
    pub fn packet(&mut self, captured: &Captured<'_>) -> PacketRecord {
        let mut record = PacketRecord::of(captured);
        // Zeros stand for what was not kept, so that the headers are read as far as they were.
        let mut padded = Vec::new();
        let frame = if captured.data.len() < captured.original_len {
            padded.extend_from_slice(&captured.data);
            padded.resize(captured.original_len.min(LONGEST_FRAME), 0);
            padded.as_slice()
        } else {
            &captured.data
        };
        match wire::parse(frame, self.option_type) {
            Ok(Parsed::Packet(packet)) => self.ipv6(&mut record, frame, &packet),
            Ok(Parsed::Untouched(why)) => record.untouched = Some(Counter::from(why).label_value()),
            Err(what) => record.malformed = Some(Counter::from(what).label_value()),
        }
        record
    }

    /// What was seen of each flow that is of a pairing or carries options, in the order of their first packets.
    #[must_use]
    pub fn flows(&self) -> Vec<FlowRecord> {
        let flows = self.order.iter().filter_map(|key| self.flows.get(key));
        flows
            .filter(|flow| flow.is_of_interest())
            .map(Flow::record)
            .collect()
    }

    fn ipv6(&mut self, record: &mut PacketRecord, frame: &[u8], packet: &Ipv6Packet) {
        let tuple = &packet.tuple;
        record.tuple = Some(TupleRecord::from(tuple));
        let route = self.book.resolve(&tuple.src, &tuple.dst);
        record.direction = route.map(|route| Direction::of(&route));
        record.pairing = route
            .and_then(|route| self.book.name(&route))
            .map(str::to_owned);

        let (key, forward) = Key::of(tuple);
        let flow = self.flows.entry(key).or_insert_with(|| {
            self.order.push(key);
            Flow::new(tuple, record.direction, record.pairing.clone())
        });
        flow.counted(forward);
        let Some(option) = packet.option else {
            return;
        };
        let keys = &mut flow.side(forward).keys;
        let finder = Finder {
            book: &self.book,
            kernel: &self.kernel,
            windows: self.windows,
            time: record.time_ns / 1_000_000_000,
        };
        let read = read(frame, option, |sealed, f| {
            let route = route.ok_or(NotOpened::NoPairing)?;
            let heard = self.heard.entry(ends_of(&route)).or_default();
            open(&finder, &route, tuple, sealed, f, keys, heard)
        });
        flow.option(forward, record.time_ns, &read);
        record.option = Some(read);
    }
}

/// Opens one sealed option, if there is a secret for it.
fn open(
    finder: &Finder<'_>,
    route: &Route,
    tuple: &FiveTuple,
    sealed: &[u8; SEALED_SIZE],
    f: bool,
    keys: &mut keys::Keys,
    heard: &mut Vec<Epoch>,
) -> Result<(KeyRecord, Metrics), NotOpened> {
    if !finder.book.seals(route) {
        return Err(NotOpened::NoSecret);
    }
    keys.open(finder, route, tuple, sealed, f, heard)
        .ok_or(NotOpened::NoKey)
}

/// Reads an option of any kind.
fn read(
    frame: &[u8],
    option: PdmOption,
    open: impl FnOnce(&[u8; SEALED_SIZE], bool) -> Result<(KeyRecord, Metrics), NotOpened>,
) -> OptionRecord {
    let bytes = frame.get(option.at.into()..).unwrap_or_default();
    let header = bytes
        .first_chunk::<HEADER_LEN>()
        .and_then(|header| OptionHeader::from_bytes(header).ok());
    let read = match option.kind {
        OptionKind::Pdm => bytes
            .first_chunk::<PDM_SIZE>()
            .map(|option| OptionRecord::pdm(&Pdm::from_bytes(option))),
        OptionKind::Clear => bytes
            .first_chunk::<CLEAR_SIZE>()
            .and_then(|option| option.last_chunk::<METRICS_LEN>())
            .zip(header)
            .map(|(metrics, header)| OptionRecord::clear(header, &Metrics::from_bytes(metrics))),
        OptionKind::Sealed => bytes
            .first_chunk::<SEALED_SIZE>()
            .zip(header)
            .map(|(option, header)| OptionRecord::sealed(header, open(option, header.f))),
        OptionKind::Unknown => None,
    };
    read.unwrap_or_else(OptionRecord::unknown)
}

#[cfg(test)]
mod tests;
