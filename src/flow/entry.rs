//! One flow: both directions of a 5-tuple, named as its packets go out.

use super::epoch::Epoch;
use super::free::Linked;
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::owner::{Access, Owner};
use super::places::Places;
use super::quiescence::Pin;
use super::sequence::Sequence;
use super::sync::{AtomicU8, AtomicU32, AtomicU64, Ordering, SharedCell};
use crate::wire::FiveTuple;

/// Where an entry is in its life. Only `LIVE` and `DYING` ones are in workers' hands.
pub(crate) mod life {
    /// In nobody's hands.
    pub const FREE: u8 = 0;
    /// In use.
    pub const LIVE: u8 = 1;
    /// Idle for too long; a packet still brings it back.
    pub const DYING: u8 = 2;
    /// Given up: about to leave the index.
    pub const DEAD: u8 = 3;
}

/// A flow's state, split by who writes it: its name, the sender's half, the receiver's half, what was measured.
///
/// At a million flows each cache line that a packet touches comes from memory, so what is touched together stands together:
///
/// ```text
/// byte    0   name, life, owners, route                                     every packet
///        64   outgoing: key changes | 128 its two keys | 256 its number,    one that goes out: one key, the line at 256
///             the last packet received, newest send times | 320 older ones
///       416   incoming: key changes | 448 its own key | 512 its window,     one that comes in: the lines at 448 (or that of another
///             roles, the other places | 576 what was measured               place), 512 and 576
///       624   the highest number and its track | 640 earlier series
/// ```
#[repr(C, align(64))]
pub struct Entry {
    name: SharedCell<Name>,
    /// When a packet was last seen, in ticks of 2^24 cycles.
    touched: AtomicU32,
    /// What the snapshot said of it, see [`Entry::route`].
    route: AtomicU64,
    life: AtomicU8,
    /// Whose the sender's half is, and the receiver's, with what was measured and counted.
    sender: Owner,
    receiver: Owner,
    /// Options in a row that did not open.
    failed_in_a_row: AtomicU32,
    /// The sender's half.
    pub outgoing: Outgoing,
    /// The receiver's half.
    pub incoming: Incoming,
    /// Round trips and server delays.
    pub measured: Measured,
    /// Loss and reordering of what came in.
    pub sequence: Sequence,
    /// While the entry is in no flow's hands: the next such one.
    link: AtomicU32,
    /// When each half was taken away from its first worker, for `sender` and `receiver`.
    sender_left: AtomicU64,
    receiver_left: AtomicU64,
}

impl Linked for Entry {
    fn link(&self) -> u32 {
        self.link.load(Ordering::Relaxed)
    }

    fn set_link(&self, link: u32) {
        self.link.store(link, Ordering::Relaxed);
    }
}

/// What a flow remembers of the snapshot that it was last looked up in, so that not each packet has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The remote list entry, below 2^31.
    pub remote: u32,
    /// Whether the key that the flow sends with is of that snapshot's epoch and secret. Only the sender's half says so: a packet
    /// that came in tells nothing of it.
    pub settled: bool,
}

impl Noted {
    /// In a note, the bit that says `settled`.
    pub const SETTLED: u64 = 1;

    /// What a note says under the snapshot `serial`.
    #[inline]
    #[must_use]
    pub fn of(note: u64, serial: u32) -> Option<Self> {
        ((note >> 32) as u32 == serial).then_some(Self {
            remote: (note as u32) >> 1,
            settled: note & Self::SETTLED != 0,
        })
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Name {
    pub(crate) tuple: FiveTuple,
    /// Unix time in seconds.
    pub(crate) since: u32,
}

/// How coarse `touched` is: 2^24 cycles are 6 ms at 2.6 GHz, and 2^32 ticks a year.
pub(crate) const TOUCH_SHIFT: u32 = 24;

impl Entry {
    #[cfg(any(test, feature = "loom"))]
    #[allow(dead_code)]
    pub(crate) fn new() -> Self {
        Self {
            name: SharedCell::new(Name {
                tuple: FiveTuple {
                    src: [0; 16],
                    dst: [0; 16],
                    sport: 0,
                    dport: 0,
                    protocol: 0,
                },
                since: 0,
            }),
            touched: AtomicU32::new(0),
            route: AtomicU64::new(0),
            life: AtomicU8::new(life::FREE),
            sender: Owner::new(),
            receiver: Owner::new(),
            failed_in_a_row: AtomicU32::new(0),
            outgoing: Outgoing::new(),
            incoming: Incoming::new(),
            measured: Measured::new(),
            sequence: Sequence::new(),
            link: AtomicU32::new(0),
            sender_left: AtomicU64::new(0),
            receiver_left: AtomicU64::new(0),
        }
    }

    /// Makes the entry a fresh flow.
    ///
    /// # Safety
    /// The caller took the entry's index off the free list and has not put it into the table's index yet.
    pub(crate) unsafe fn begin(&self, name: Name, psntp: u16, now: u64) {
        // SAFETY: nobody else can reach the entry.
        unsafe { self.name.write(|n| *n = name) };
        self.route.store(0, Ordering::Relaxed);
        self.sender.reset(&self.sender_left);
        self.receiver.reset(&self.receiver_left);
        self.outgoing.reset(psntp);
        self.incoming.reset();
        self.sequence.reset();
        self.measured.reset();
        self.failed_in_a_row.store(0, Ordering::Relaxed);
        self.touch(now);
        self.life.store(life::LIVE, Ordering::Release);
    }

    /// Overwrites the keys, gives the places of those that came in back, and gives the entry up.
    ///
    /// # Safety
    /// No worker may see the entry any more, and `places` are those that its packets were taken in with.
    pub(crate) unsafe fn end(&self, places: &Places) {
        // SAFETY: the caller is the only one who can reach the entry.
        unsafe {
            self.outgoing.wipe();
            self.incoming.wipe(places);
        }
        self.life.store(life::FREE, Ordering::Relaxed);
    }

    /// Fetches what a packet that goes out needs first: its key can be told only from the number.
    #[inline]
    pub fn prefetch_outgoing(&self) {
        super::prefetch(self);
        self.outgoing.prefetch();
    }

    /// Fetches what a packet that comes in needs first: its key can be told only from the roles.
    #[inline]
    pub fn prefetch_incoming(&self) {
        super::prefetch(self);
        self.incoming.prefetch();
    }

    /// Fetches where it is noted what a packet that opened tells.
    #[inline]
    pub fn prefetch_measured(&self) {
        super::prefetch(&self.measured);
        self.outgoing.prefetch();
    }

    /// How the worker of `pin` may change the sender's half: its number. `None` if not in this burst.
    #[inline]
    #[must_use]
    pub fn sending<'p>(&self, pin: &'p Pin<'_>) -> Option<Access<'p>> {
        self.sender.access(&self.sender_left, pin)
    }

    /// How the worker of `pin` may change the receiver's half: windows and sequence. `None` if not in this burst.
    #[inline]
    #[must_use]
    pub fn receiving<'p>(&self, pin: &'p Pin<'_>) -> Option<Access<'p>> {
        self.receiver.access(&self.receiver_left, pin)
    }

    /// Counts an option that did not open; returns how many did not in a row.
    pub fn count_failed(&self) -> u32 {
        count(&self.measured.failed);
        count(&self.failed_in_a_row)
    }

    /// Ends a row of failures.
    #[inline]
    pub fn count_opened(&self) {
        if self.failed_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failed_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn name(&self) -> &Name {
        // SAFETY: an entry is reached through the table's index only, under a pin or by the one ageing thread; it was named
        // before it was put there, and is named again only after it left and the pins of that time ended.
        unsafe { self.name.read() }
    }

    /// The 5-tuple as its packets go out.
    #[inline]
    #[must_use]
    pub fn tuple(&self) -> &FiveTuple {
        &self.name().tuple
    }

    /// When the flow was made, Unix time in seconds.
    #[must_use]
    pub fn since(&self) -> u32 {
        self.name().since
    }

    #[inline]
    pub(crate) fn life(&self) -> u8 {
        self.life.load(Ordering::Acquire)
    }

    pub(crate) fn change_life(&self, from: u8, to: u8) -> bool {
        self.life
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Notes that a packet is seen at `now`. Writes at most once in 2^24 cycles.
    #[inline]
    pub(crate) fn touch(&self, now: u64) {
        let tick = (now >> TOUCH_SHIFT) as u32;
        if self.touched.load(Ordering::Relaxed) != tick {
            self.touched.store(tick, Ordering::Relaxed);
        }
    }

    /// Cycles without a packet, to within 2^24.
    #[must_use]
    pub fn idle(&self, now: u64) -> u64 {
        let tick = (now >> TOUCH_SHIFT) as u32;
        let ticks = tick.wrapping_sub(self.touched.load(Ordering::Relaxed)) as i32;
        u64::from(ticks.max(0) as u32) << TOUCH_SHIFT
    }

    /// What a worker noted of this flow under the snapshot `serial`.
    #[inline]
    #[must_use]
    pub fn route(&self, serial: u32) -> Option<Noted> {
        Noted::of(self.noted(), serial)
    }

    /// The note itself: flows with the same one are of the same pair.
    #[inline]
    #[must_use]
    pub fn noted(&self) -> u64 {
        self.route.load(Ordering::Relaxed)
    }

    /// Notes something under the snapshot `serial` (not 0).
    pub fn set_route(&self, serial: u32, noted: Noted) {
        let low = (noted.remote << 1) | u32::from(noted.settled);
        self.route.store(
            (u64::from(serial) << 32) | u64::from(low),
            Ordering::Relaxed,
        );
    }
}

/// Times measured on one flow, in nanoseconds, and options that came to nothing; written without read-modify-write, since a lost update
/// between two workers costs one sample of a summary, or one of a count, and forged options must cost little.
#[repr(C)]
pub struct Measured {
    /// Network round-trip time (protocol section 1).
    pub round_trip: Summary,
    /// The peer's DeltaTLR.
    pub server_delay: Summary,
    /// Options that did not open.
    failed: AtomicU32,
    /// Options seen before.
    replayed: AtomicU32,
}

/// Last, least, greatest and smoothed of a series of times in nanoseconds, each kept as the bits of an `f32`: any time, to 24
/// significant bits.
pub struct Summary {
    last: AtomicU32,
    least: AtomicU32,
    greatest: AtomicU32,
    smoothed: AtomicU32,
    samples: AtomicU32,
}

/// A copy of a [`Summary`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SummaryValues {
    /// The last sample.
    pub last: u64,
    /// The least one.
    pub least: u64,
    /// The greatest one.
    pub greatest: u64,
    /// Exponentially weighted mean, an eighth for each new sample (as RFC 6298 smooths round trips).
    pub smoothed: u64,
    /// How many.
    pub samples: u32,
}

impl Summary {
    #[cfg(any(test, feature = "loom"))]
    fn new() -> Self {
        Self {
            last: AtomicU32::new(0),
            least: AtomicU32::new(0),
            greatest: AtomicU32::new(0),
            smoothed: AtomicU32::new(0),
            samples: AtomicU32::new(0),
        }
    }

    fn reset(&self) {
        for word in [
            &self.last,
            &self.least,
            &self.greatest,
            &self.smoothed,
            &self.samples,
        ] {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Takes in a sample.
    #[inline]
    pub fn record(&self, ns: u64) {
        let ns = ns as f32;
        let samples = self.samples.load(Ordering::Relaxed);
        let keep = |place: &AtomicU32, time: f32| place.store(time.to_bits(), Ordering::Relaxed);
        keep(&self.last, ns);
        if samples == 0 {
            for place in [&self.least, &self.greatest, &self.smoothed] {
                keep(place, ns);
            }
        } else {
            if ns < read(&self.least) {
                keep(&self.least, ns);
            }
            if ns > read(&self.greatest) {
                keep(&self.greatest, ns);
            }
            let before = read(&self.smoothed);
            keep(&self.smoothed, before + (ns - before) * 0.125);
        }
        self.samples
            .store(samples.saturating_add(1), Ordering::Relaxed);
    }

    /// What was taken in so far.
    #[must_use]
    pub fn values(&self) -> SummaryValues {
        SummaryValues {
            last: read(&self.last) as u64,
            least: read(&self.least) as u64,
            greatest: read(&self.greatest) as u64,
            smoothed: read(&self.smoothed) as u64,
            samples: self.samples.load(Ordering::Relaxed),
        }
    }
}

/// Counts one more; returns how many there are.
fn count(counter: &AtomicU32) -> u32 {
    let more = counter.load(Ordering::Relaxed).wrapping_add(1);
    counter.store(more, Ordering::Relaxed);
    more
}

#[inline]
fn read(time: &AtomicU32) -> f32 {
    f32::from_bits(time.load(Ordering::Relaxed))
}

impl Measured {
    #[cfg(any(test, feature = "loom"))]
    fn new() -> Self {
        Self {
            round_trip: Summary::new(),
            server_delay: Summary::new(),
            failed: AtomicU32::new(0),
            replayed: AtomicU32::new(0),
        }
    }

    fn reset(&self) {
        self.round_trip.reset();
        self.server_delay.reset();
        for counter in [&self.failed, &self.replayed] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// Counts an option that was seen before.
    pub fn count_replayed(&self) {
        count(&self.replayed);
    }

    /// Options that did not open.
    #[must_use]
    pub fn failed(&self) -> u32 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Options that were seen before.
    #[must_use]
    pub fn replayed(&self) -> u32 {
        self.replayed.load(Ordering::Relaxed)
    }
}

/// What is remembered of a track when its flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The track's epoch.
    pub epoch: Epoch,
    /// Its Kri.
    pub kri: u32,
    /// The last PSNTP accepted.
    pub psntp: u16,
}

impl Remembered {
    /// Whether a packet of (`epoch`, `kri`, `psntp`) is beyond what was accepted before the flow went.
    #[must_use]
    pub fn allows(&self, epoch: &Epoch, kri: u32, psntp: u16) -> bool {
        if self.epoch.src_generation != epoch.src_generation {
            return true;
        }
        if self.epoch != *epoch {
            return self.epoch.precedes(epoch);
        }
        kri > self.kri || (kri == self.kri && psntp.wrapping_sub(self.psntp) as i16 > 0)
    }
}

#[cfg(not(feature = "loom"))]
// SAFETY: every field is an atomic integer, or a cell around integers and arrays of them, for all of which zero bytes are a
// value; none of them needs a drop. A zero `life` is FREE.
unsafe impl super::slab::Zeroed for Entry {}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn an_entry_keeps_to_its_budget() {
        assert_eq!(size_of::<Entry>(), 704);
        assert_eq!(offset_of!(Entry, outgoing), 64);
        assert_eq!(offset_of!(Entry, incoming), 416);
        assert_eq!(offset_of!(Entry, measured), 576);
        // The 16 bytes of it that every packet reads are on the line of what is measured.
        assert_eq!(offset_of!(Entry, sequence), 624);
    }

    #[test]
    fn summarises() {
        let s = Summary::new();
        for ns in [800, 1_600, 400] {
            s.record(ns);
        }
        let v = s.values();
        assert_eq!(
            (v.last, v.least, v.greatest, v.samples),
            (400, 400, 1_600, 3)
        );
        assert_eq!(v.smoothed, 837);
    }

    #[test]
    fn idles_between_touches() {
        let e = Entry::new();
        e.touch(1 << 40);
        assert_eq!(e.idle((1 << 40) + (5 << TOUCH_SHIFT)), 5 << TOUCH_SHIFT);
        assert_eq!(e.idle(0), 0, "clocks of two cores may differ a little");
    }

    #[test]
    fn remembered_tracks_allow_only_what_is_beyond_them() {
        let epoch = Epoch {
            pms_serial: 1,
            src_generation: 4,
            dst_generation: 2,
        };
        let r = Remembered {
            epoch,
            kri: 3,
            psntp: 65_530,
        };
        assert!(!r.allows(&epoch, 2, 0));
        assert!(!r.allows(&epoch, 3, 65_530));
        assert!(r.allows(&epoch, 3, 4));
        assert!(r.allows(&epoch, 4, 0));
        assert!(r.allows(
            &Epoch {
                dst_generation: 3,
                ..epoch
            },
            0,
            0
        ));
        assert!(!r.allows(
            &Epoch {
                dst_generation: 1,
                ..epoch
            },
            9,
            0
        ));
        assert!(r.allows(
            &Epoch {
                src_generation: 5,
                ..epoch
            },
            0,
            0
        ));
    }
}
