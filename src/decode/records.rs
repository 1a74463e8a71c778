//! The lines that `pdmgate decode` prints, one JSON object each. `type` tells them apart: `packet` or `flow`.
//!
//! Fields that do not apply to a packet are left out.

use std::net::Ipv6Addr;
use std::time::{Duration, UNIX_EPOCH};

use humantime_serde::re::humantime::format_rfc3339_nanos;
use serde::Serialize;

use super::capture::Captured;
use crate::flow::Epoch;
use crate::snapshot::Route;
use crate::telemetry::records::protocol_name;
use crate::wire::{FiveTuple, Metrics, OptionHeader, Pdm, ScaledDelta};

const ATTOSECONDS_PER_NS: u128 = 1_000_000_000;

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Line {
    /// A packet.
    Packet(Box<PacketRecord>),
    /// A flow, behind all packets.
    Flow(Box<FlowRecord>),
}

/// One packet of the capture.
#[derive(Debug, Serialize)]
pub struct PacketRecord {
    /// Number in the capture, from 1.
    pub number: u64,
    /// When it was captured, RFC 3339.
    pub time: String,
    /// The same in nanoseconds since 1970.
    pub time_ns: u64,
    /// Bytes on the wire.
    pub length: usize,
    /// Whether the capture kept less than the whole packet.
    #[serde(skip_serializing_if = "is_false")]
    pub cut: bool,
    /// Why an appliance would not look into it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untouched: Option<&'static str>,
    /// What is wrong with its headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub malformed: Option<&'static str>,
    /// Whose it is.
    #[serde(flatten)]
    pub tuple: Option<TupleRecord>,
    /// The pairing that has its addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairing: Option<String>,
    /// Which end of the pairing sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Its option.
    #[serde(flatten)]
    pub option: Option<OptionRecord>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl PacketRecord {
    /// What is known before the packet is read.
    #[must_use]
    pub fn of(captured: &Captured<'_>) -> Self {
        let time = UNIX_EPOCH + Duration::from_nanos(captured.time_ns);
        Self {
            number: captured.number,
            time: format_rfc3339_nanos(time).to_string(),
            time_ns: captured.time_ns,
            length: captured.original_len,
            cut: captured.data.len() < captured.original_len,
            untouched: None,
            malformed: None,
            tuple: None,
            pairing: None,
            direction: None,
            option: None,
        }
    }
}

/// A 5-tuple.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TupleRecord {
    /// Source address.
    pub src: Ipv6Addr,
    /// Source port; 0 for protocols that have none.
    pub sport: u16,
    /// Final destination address.
    pub dst: Ipv6Addr,
    /// Destination port.
    pub dport: u16,
    /// Upper-layer protocol, an IANA protocol number.
    pub protocol: u8,
    /// Its name, in lower case.
    pub protocol_name: String,
}

impl From<&FiveTuple> for TupleRecord {
    fn from(tuple: &FiveTuple) -> Self {
        Self {
            src: tuple.src.into(),
            sport: tuple.sport,
            dst: tuple.dst.into(),
            dport: tuple.dport,
            protocol: tuple.protocol,
            protocol_name: protocol_name(tuple.protocol).into_owned(),
        }
    }
}

/// Which end of a pairing sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The client's.
    ClientToServer,
    /// The server's.
    ServerToClient,
}

impl Direction {
    /// The direction of a packet whose source was taken as the local end.
    #[must_use]
    pub fn of(route: &Route) -> Self {
        match route.local_is_client {
            true => Self::ClientToServer,
            false => Self::ServerToClient,
        }
    }
}

/// What kind of option a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// RFC 8250.
    Pdm,
    /// PDMv2 in the clear.
    Clear,
    /// PDMv2, sealed.
    Sealed,
    /// The right type, but a length or version that is not known.
    Unknown,
}

/// Why a sealed option did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NotOpened {
    /// No pairing is known that has these addresses.
    NoPairing,
    /// The pairing has no secret: its mode or protection needs none.
    NoSecret,
    /// No key within the windows opens it: corrupted, or sealed under another secret, or further away.
    NoKey,
}

/// An option.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct OptionRecord {
    /// What it is.
    #[serde(rename = "option")]
    pub kind: Kind,
    /// PRSEQ, 1 to 32767; PDMv2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prseq: Option<u16>,
    /// The F bit as a number; PDMv2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub f: Option<u8>,
    /// Whether it opened; sealed options only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened: Option<bool>,
    /// Why it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<NotOpened>,
    /// What opened it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyRecord>,
    /// What it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<MetricsRecord>,
}

impl OptionRecord {
    /// An option that cannot be read.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            kind: Kind::Unknown,
            prseq: None,
            f: None,
            opened: None,
            reason: None,
            key: None,
            metrics: None,
        }
    }

    /// An option of RFC 8250.
    #[must_use]
    pub fn pdm(pdm: &Pdm) -> Self {
        Self {
            kind: Kind::Pdm,
            metrics: Some(MetricsRecord::from(pdm)),
            ..Self::unknown()
        }
    }

    /// An option in the clear.
    #[must_use]
    pub fn clear(header: OptionHeader, metrics: &Metrics) -> Self {
        Self {
            kind: Kind::Clear,
            metrics: Some(MetricsRecord::from(metrics)),
            ..Self::header(header)
        }
    }

    /// A sealed option, opened or not.
    #[must_use]
    pub fn sealed(header: OptionHeader, opened: Result<(KeyRecord, Metrics), NotOpened>) -> Self {
        let (key, metrics) = opened.map_or((None, None), |(key, metrics)| {
            (Some(key), Some(MetricsRecord::from(&metrics)))
        });
        Self {
            kind: Kind::Sealed,
            opened: Some(opened.is_ok()),
            reason: opened.err(),
            key,
            metrics,
            ..Self::header(header)
        }
    }

    fn header(header: OptionHeader) -> Self {
        Self {
            prseq: Some(header.prseq.get()),
            f: Some(header.f.into()),
            ..Self::unknown()
        }
    }
}

/// The place of a key in the key schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct KeyRecord {
    /// Generation of the sender's entry.
    pub src_generation: u32,
    /// Generation of the receiver's entry that the sender knows.
    pub dst_generation: u32,
    /// Kri.
    pub kri: u32,
}

impl KeyRecord {
    /// The key of an epoch.
    #[must_use]
    pub fn new(epoch: &Epoch, kri: u32) -> Self {
        Self {
            src_generation: epoch.src_generation,
            dst_generation: epoch.dst_generation,
            kri,
        }
    }
}

/// The metrics of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MetricsRecord {
    /// Packet Sequence Number This Packet.
    pub psntp: u16,
    /// Packet Sequence Number Last Received.
    pub psnlr: u16,
    /// Global Pointer; PDMv2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_pointer: Option<u32>,
    /// Delta Time Last Received.
    pub dtlr: DeltaRecord,
    /// Delta Time Last Sent.
    pub dtls: DeltaRecord,
}

impl From<&Metrics> for MetricsRecord {
    fn from(metrics: &Metrics) -> Self {
        Self {
            psntp: metrics.psntp,
            psnlr: metrics.psnlr,
            global_pointer: Some(metrics.global_pointer),
            dtlr: metrics.dtlr.into(),
            dtls: metrics.dtls.into(),
        }
    }
}

impl From<&Pdm> for MetricsRecord {
    fn from(pdm: &Pdm) -> Self {
        Self {
            psntp: pdm.psntp,
            psnlr: pdm.psnlr,
            global_pointer: None,
            dtlr: pdm.dtlr.into(),
            dtls: pdm.dtls.into(),
        }
    }
}

/// A time difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DeltaRecord {
    /// As it stands in the option: its 16 most significant bits.
    pub delta: u16,
    /// As it stands in the option: how far they were shifted.
    pub scale: u8,
    /// In attoseconds.
    pub attoseconds: u128,
    /// In nanoseconds, rounded down.
    pub ns: u64,
}

impl From<ScaledDelta> for DeltaRecord {
    fn from(scaled: ScaledDelta) -> Self {
        let attoseconds = scaled.attoseconds();
        Self {
            delta: scaled.delta,
            scale: scaled.scale,
            attoseconds,
            ns: u64::try_from(attoseconds / ATTOSECONDS_PER_NS).unwrap_or(u64::MAX),
        }
    }
}

/// One flow of the capture.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct FlowRecord {
    /// The 5-tuple, from client to server; from who sent first if the flow is of no pairing.
    #[serde(flatten)]
    pub tuple: TupleRecord,
    /// The pairing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairing: Option<String>,
    /// Network round-trip time between the two senders of options, in nanoseconds: the sum of the medians of both
    /// directions' `rtt_ns`. Null without samples of both.
    pub rtt_ns: Option<u64>,
    /// The direction of the 5-tuple.
    pub forward: SideRecord,
    /// The other one.
    pub reverse: SideRecord,
}

/// One direction of a flow.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct SideRecord {
    /// Packets captured.
    pub packets: u64,
    /// Of these, with an option.
    pub options: u64,
    /// Of these, opened or read in the clear.
    pub opened: u64,
    /// Options that did not open or are not known.
    pub failed: u64,
    /// Packets that are missing in the capture, by the gaps in PSNTP.
    pub lost: u64,
    /// Packets captured behind a later one.
    pub reordered: u64,
    /// Packets captured again.
    pub repeated: u64,
    /// The sender's own delay: its DeltaTLR.
    pub server_delay_ns: Option<MedianRecord>,
    /// Network round-trip time between the place of the capture and the sender.
    pub rtt_ns: Option<MedianRecord>,
}

/// The middle of some samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MedianRecord {
    /// The median.
    pub median: u64,
    /// How many samples there are.
    pub samples: u64,
}
