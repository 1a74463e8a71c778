//! Per-worker event counters: one writer each, merged when somebody reads.
//!
//! A worker owns one [`WorkerCounters`] and raises its numbers by a relaxed load and a relaxed store. No other thread
//! writes them, so no increment needs a locked instruction and none is lost; a reader may see a number that is a few
//! packets old, never one that went backwards.
//!
//! All counters are declared in one table below. A line there is all that a new counter needs: its identifier, the
//! directions it occurs in, its label value and one sentence of meaning. Prometheus, JSON and the tables on a terminal
//! read the same table.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::wire::{Malformed, Untouched};

/// Which way a packet crosses the appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Received on the inside port, sent on the outside port.
    Out = 0,
    /// Received on the outside port, sent on the inside port.
    In = 1,
}

impl Direction {
    /// Both directions.
    pub const ALL: [Self; 2] = [Self::Out, Self::In];

    /// The value of the label `direction`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }
}

/// The directions that a counter occurs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Both.
    Both,
    /// Inside to outside only.
    Out,
    /// Outside to inside only.
    In,
}

impl Scope {
    /// Whether the counter occurs in `direction`.
    #[must_use]
    pub const fn contains(self, direction: Direction) -> bool {
        matches!(
            (self, direction),
            (Self::Both, _) | (Self::Out, Direction::Out) | (Self::In, Direction::In)
        )
    }
}

/// How a family of counters is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// One number over both directions.
    Merged,
    /// One number a direction, with a label `direction`.
    Directed,
}

/// A family: one name in Prometheus and in JSON.
#[derive(Debug)]
pub struct Family {
    /// Name without the prefix `pdmgate_` and the suffix `_total`.
    pub name: &'static str,
    /// One sentence, without a full stop.
    pub help: &'static str,
    /// Whether it has a label `direction`.
    pub split: Split,
    /// Name of the label that tells its counters apart; none for a family of one.
    pub label: Option<&'static str>,
    /// Its counters.
    pub members: &'static [Member],
}

/// One counter of a family.
#[derive(Debug)]
pub struct Member {
    /// Which counter it is.
    pub counter: Counter,
    /// The directions it occurs in.
    pub scope: Scope,
}

macro_rules! counters {
    (@label) => { None };
    (@label $label:literal) => { Some($label) };
    (@value) => { "" };
    (@value $value:literal) => { $value };
    ($( $family:literal $split:ident $(by $label:literal)? $help:literal {
        $( $counter:ident $scope:ident $($value:literal)? : $doc:literal )+
    } )+) => {
        /// Every event that a worker counts. A word wide: as the error of a `Result` of a byte it has the compiler copy what is beside it in
        /// pieces that straddle those it was written in, for which a processor has to wait.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u64)]
        pub enum Counter {
            $($( #[doc = $doc] $counter, )+)+
        }

        impl Counter {
            /// All of them, in the order of declaration.
            pub const ALL: &[Self] = &[$($( Self::$counter, )+)+];

            /// The value of its family's label; empty if the family has none.
            #[must_use]
            pub const fn label_value(self) -> &'static str {
                match self { $($( Self::$counter => counters!(@value $($value)?), )+)+ }
            }
        }

        /// All families, in the order in which they are shown.
        pub const FAMILIES: &[Family] = &[$( Family {
            name: $family,
            help: $help,
            split: Split::$split,
            label: counters!(@label $($label)?),
            members: &[$( Member {
                counter: Counter::$counter,
                scope: Scope::$scope,
            }, )+],
        }, )+];
    };
}

counters! {
    "packets_received" Directed "Packets taken from the receive queues" {
        PacketsReceived Both: "Packets received."
    }
    "packets_sent" Directed "Packets handed to the transmit queues" {
        PacketsSent Both: "Packets sent."
    }
    "bytes_received" Directed "Bytes of packets received, from the Ethernet header on" {
        BytesReceived Both: "Bytes received."
    }
    "bytes_sent" Directed "Bytes of packets sent, from the Ethernet header on" {
        BytesSent Both: "Bytes sent."
    }
    "marked" Merged by "protection" "Packets that were given a PDMv2 option" {
        MarkedSealed Out "sealed": "Sealed option inserted."
        MarkedClear Out "clear": "Option inserted in the clear."
    }
    "passed" Directed by "reason" "Packets forwarded without being marked or measured" {
        PassedIpv4 Both "ipv4": "IPv4."
        PassedNonIp Both "non_ip": "Neither IPv4 nor IPv6."
        PassedMulticast Both "multicast": "To a multicast address."
        PassedNeighbourDiscovery Both "neighbour_discovery": "Neighbour discovery (RFC 4861)."
        PassedMld Both "mld": "Multicast listener discovery (RFC 3810)."
        PassedIcmpv6Other Both "icmpv6_other": "ICMPv6 other than echo."
        PassedFragment Both "fragment": "A fragment, the first one included."
        PassedEsp Both "esp": "ESP, which hides the upper layer."
        PassedAh Both "ah": "AH, which protects the headers that would change."
        PassedHipShim6 Both "hip_shim6": "A HIP or Shim6 message, whose checksum covers its own header."
        PassedRouting Both "routing": "A routing header whose final destination cannot be told."
        PassedNoNextHeader Both "no_next_header": "No upper layer (next header 59)."
        PassedJumbogram Both "jumbogram": "Payload length in a jumbo option."
        PassedNoMatch Both "no_match": "The pair of addresses is in no pairing."
        PassedNoProtection Both "no_protection": "The pair is in a pairing without protection, which carries no PDMv2."
        PassedAlreadyMarked Both "already_marked": "The host itself put a PDM or PDMv2 option in."
        PassedOverMtu Out "over_mtu": "The option would have made it larger than the MTU."
        PassedCannotInsert Out "cannot_insert": "Destination Options header full, or no headroom."
        PassedFlowTableFull Both "flow_table_full": "No room for a new flow."
        PassedKeyNotReady Out "key_not_ready": "No key for the flow yet, or it has just come to this worker from another."
        PassedKeyAwaited Out "key_awaited": "Registered, but a secret or a generation of the pair is still to come."
        PassedNotServed Both "not_served": "Another appliance serves the entry inside."
        PassedNotMarked In "not_marked": "The pair matches, but the packet carries no option."
    }
    "malformed" Directed by "reason" "Packets whose headers contradict themselves" {
        MalformedTruncated Both "truncated": "Shorter than a header that it announces."
        MalformedVersion Both "version": "IPv6 by EtherType, another version in the header."
        MalformedPayloadLength Both "payload_length": "Payload length beyond the packet's end."
        MalformedHeaderChain Both "header_chain": "Extension headers past the end, or too many."
        MalformedOptionLength Both "option_length": "An option that is longer than its header."
        MalformedHopByHopOrder Both "hop_by_hop_order": "Hop-by-hop options that are not first."
        MalformedRouting Both "routing": "A routing header whose fields contradict each other."
    }
    "opened" Merged "Sealed options that opened" {
        Opened In: "Sealed option opened."
    }
    "clear_read" Merged "PDMv2 options read in the clear" {
        ClearRead In: "PDMv2 option in the clear read."
    }
    "pdm_read" Merged "RFC 8250 options read" {
        PdmRead In: "RFC 8250 option read."
    }
    "failed_open" Merged by "reason" "Options dropped because they could not be trusted" {
        FailedOpenAuthentication In "authentication": "No key opens it."
        FailedOpenSearchBudget In "search_budget": "The known keys do not open it, and the budget for others was used up."
        FailedOpenUnknownOption In "unknown_option": "Right option type, but a length or version that is not known."
        FailedOpenClearOnSealed In "clear_on_sealed": "In the clear although the pairing is sealed."
        FailedOpenThrottled In "throttled": "Not tried: its entry has failed too often."
        FailedOpenKeyAwaited In "key_awaited": "No key opens it, but a secret or a generation of the pair is still to come."
    }
    "replayed" Merged by "reason" "Options that opened but had been seen before, or may have been" {
        ReplayedRepeated In "repeated": "PSNTP seen before."
        ReplayedTooOld In "too_old": "PSNTP behind the replay window."
    }
    "contended" Merged "Options dropped because another worker had the flow in hand" {
        Contended In: "Option dropped: the flow's keys were being changed, or it has just come to this worker from another."
    }
    "dropped" Directed by "reason" "Packets that were not forwarded" {
        DroppedMalformed Both "malformed": "Malformed, and the policy drops these."
        DroppedFailedOpen In "failed_open": "Failed open, and the policy drops these."
        DroppedOverMtu Out "over_mtu": "Too large with the option, and the policy drops these."
        DroppedTransmitFull Both "transmit_full": "The transmit queue was full."
    }
    "packet_too_big_sent" Merged "ICMPv6 Packet Too Big messages sent to hosts" {
        PacketTooBigSent Out: "Packet Too Big sent."
    }
    "packet_too_big_suppressed" Merged "ICMPv6 Packet Too Big messages held back by the rate limit or RFC 4443" {
        PacketTooBigSuppressed Out: "Packet Too Big not sent."
    }
    "mss_clamped" Merged "TCP SYNs whose MSS was lowered" {
        MssClamped Both: "MSS lowered."
    }
    "options_stripped" Merged "Options taken off before the packet went to the host" {
        OptionsStripped In: "Option taken off."
    }
    "key_derivations" Merged "Session keys derived" {
        KeyDerivations Both: "Session key derived."
    }
    "key_searches" Merged "Options for which keys beyond the flow's own were tried" {
        KeySearches In: "Search for a key begun."
    }
    "key_changes" Directed "Flows that moved to another key" {
        KeyChanges Both: "Flow moved to another Kri or epoch."
    }
    "flows_created" Directed "Flows created, by the direction of their first packet" {
        FlowsCreated Both: "Flow created."
    }
    "late_flow_creation_contended" Merged "Flows that another worker created first" {
        LateFlowCreationContended Both: "Flow created by two workers at once; this one gave way."
    }
}

const COUNT: usize = Counter::ALL.len();

impl From<Untouched> for Counter {
    fn from(why: Untouched) -> Self {
        match why {
            Untouched::Ipv4 => Self::PassedIpv4,
            Untouched::NonIp => Self::PassedNonIp,
            Untouched::Multicast => Self::PassedMulticast,
            Untouched::NeighbourDiscovery => Self::PassedNeighbourDiscovery,
            Untouched::Mld => Self::PassedMld,
            Untouched::Icmpv6Other => Self::PassedIcmpv6Other,
            Untouched::Fragment => Self::PassedFragment,
            Untouched::Esp => Self::PassedEsp,
            Untouched::Ah => Self::PassedAh,
            Untouched::HipShim6 => Self::PassedHipShim6,
            Untouched::RoutingUnknown => Self::PassedRouting,
            Untouched::NoNextHeader => Self::PassedNoNextHeader,
            Untouched::Jumbogram => Self::PassedJumbogram,
        }
    }
}

impl From<Malformed> for Counter {
    fn from(what: Malformed) -> Self {
        match what {
            Malformed::Truncated => Self::MalformedTruncated,
            Malformed::Version => Self::MalformedVersion,
            Malformed::PayloadLength => Self::MalformedPayloadLength,
            Malformed::HeaderChain => Self::MalformedHeaderChain,
            Malformed::OptionLength => Self::MalformedOptionLength,
            Malformed::HopByHopOrder => Self::MalformedHopByHopOrder,
            Malformed::Routing => Self::MalformedRouting,
        }
    }
}

/// The counters of one direction of one worker.
#[derive(Debug)]
pub struct DirectionCounters([AtomicU64; COUNT]);

impl DirectionCounters {
    /// Adds `n`. Only the worker that owns the counters may call this: with two writers additions are lost.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) {
        if let Some(slot) = self.0.get(counter as usize) {
            bump(slot, n);
        }
    }

    /// The number as it stands.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0
            .get(counter as usize)
            .map_or(0, |slot| slot.load(Ordering::Relaxed))
    }
}

/// Adds to a number that only the calling thread writes.
#[inline]
pub(super) fn bump(slot: &AtomicU64, n: u64) {
    slot.store(
        slot.load(Ordering::Relaxed).wrapping_add(n),
        Ordering::Relaxed,
    );
}

/// All counters of one worker, on cache lines of their own (128 bytes: the prefetcher takes lines in pairs).
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerCounters {
    by_direction: [DirectionCounters; 2],
    /// Turns of the poll loop that found a packet.
    pub busy: Turns,
    /// Those that found none.
    pub idle: Turns,
}

/// Turns of the poll loop of one kind.
#[derive(Debug, Default)]
pub struct Turns {
    polls: AtomicU64,
    cycles: AtomicU64,
}

impl Default for WorkerCounters {
    fn default() -> Self {
        Self {
            by_direction: [const { DirectionCounters([const { AtomicU64::new(0) }; COUNT]) }; 2],
            busy: Turns::default(),
            idle: Turns::default(),
        }
    }
}

impl WorkerCounters {
    /// The counters of one direction. A worker takes them once a burst.
    #[inline]
    #[must_use]
    pub fn of(&self, direction: Direction) -> &DirectionCounters {
        let [out, inwards] = &self.by_direction;
        match direction {
            Direction::Out => out,
            Direction::In => inwards,
        }
    }

    /// Counts one turn of the poll loop, which took so many TSC cycles; `busy` if any queue had a packet. For the owning worker only.
    #[inline]
    pub fn polled(&self, busy: bool, cycles: u64) {
        let turns = if busy { &self.busy } else { &self.idle };
        bump(&turns.polls, 1);
        bump(&turns.cycles, cycles);
    }
}

impl Turns {
    /// How many there were.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    /// The TSC cycles that they took, from before packets were received until they were sent, or with what the worker rested.
    #[must_use]
    pub fn cycles(&self) -> u64 {
        self.cycles.load(Ordering::Relaxed)
    }
}

/// Plain numbers: the sum over some workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals([[u64; COUNT]; 2]);

impl Totals {
    /// The sum over `workers`.
    #[must_use]
    pub fn over<'a>(workers: impl IntoIterator<Item = &'a WorkerCounters>) -> Self {
        let mut sums = [[0; COUNT]; 2];
        for worker in workers {
            for (sums, counters) in sums.iter_mut().zip(&worker.by_direction) {
                for (sum, slot) in sums.iter_mut().zip(&counters.0) {
                    *sum = u64::wrapping_add(*sum, slot.load(Ordering::Relaxed));
                }
            }
        }
        Self(sums)
    }

    /// One counter of one direction.
    #[must_use]
    pub fn get(&self, direction: Direction, counter: Counter) -> u64 {
        self.0[direction as usize][counter as usize]
    }

    /// One counter over both directions.
    #[must_use]
    pub fn both(&self, counter: Counter) -> u64 {
        let [out, inwards] = Direction::ALL.map(|d| self.get(d, counter));
        out.wrapping_add(inwards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_slot_and_one_place_in_the_families() {
        let listed: Vec<Counter> = FAMILIES
            .iter()
            .flat_map(|f| f.members.iter().map(|m| m.counter))
            .collect();
        assert_eq!(listed, Counter::ALL);
        for (at, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, at);
        }
    }

    #[test]
    fn families_and_label_values_are_distinct() {
        let mut names: Vec<_> = FAMILIES.iter().map(|f| f.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.len());
        for family in FAMILIES {
            let mut values: Vec<_> = family
                .members
                .iter()
                .map(|m| m.counter.label_value())
                .collect();
            assert_eq!(family.label.is_some(), values.iter().all(|v| !v.is_empty()));
            values.sort_unstable();
            values.dedup();
            assert_eq!(values.len(), family.members.len(), "{}", family.name);
        }
    }

    #[test]
    fn totals_are_sums_over_workers_and_directions() {
        let workers: Vec<WorkerCounters> = (0..3).map(|_| WorkerCounters::default()).collect();
        for (n, worker) in (1..).zip(&workers) {
            worker.of(Direction::Out).add(Counter::PassedIpv4, n);
            worker.of(Direction::In).add(Counter::PassedIpv4, 10);
            worker.polled(true, 700);
        }
        let totals = Totals::over(&workers);
        assert_eq!(totals.get(Direction::Out, Counter::PassedIpv4), 6);
        assert_eq!(totals.get(Direction::In, Counter::PassedIpv4), 30);
        assert_eq!(totals.both(Counter::PassedIpv4), 36);
        assert_eq!(totals.both(Counter::Opened), 0);
        let (busy, idle) = (&workers[0].busy, &workers[0].idle);
        assert_eq!((busy.polls(), idle.polls()), (1, 0));
        assert_eq!((busy.cycles(), idle.cycles()), (700, 0));
    }

    #[test]
    fn workers_share_no_cache_line() {
        assert_eq!(align_of::<WorkerCounters>(), 128);
        assert_eq!(size_of::<WorkerCounters>() % 128, 0);
    }

    #[test]
    fn a_reader_never_sees_a_number_go_backwards() {
        let worker = WorkerCounters::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..100_000 {
                    worker.of(Direction::In).add(Counter::Opened, 1);
                }
            });
            let mut last = 0;
            while last < 100_000 {
                let now = Totals::over([&worker]).both(Counter::Opened);
                assert!(now >= last);
                last = now;
            }
        });
    }
}
