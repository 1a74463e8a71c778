//! The flow table: a fixed number of entries that all workers share, found by 5-tuple.
//!
//! Workers look up and insert; one thread of the management core ages. An idle entry leaves in steps, each after every worker
//! has ended the burst it was in (see [`super::quiescence`]), and no worker ever waits:
//!
//! ```text
//!          idle too long          quiet          out of the index, quiet
//!   LIVE ───────────────► DYING ─────────► DEAD ─────────────────────────► FREE
//!     ▲                     │                 tracks are remembered           keys are wiped, places given back
//!     └── a packet comes ───┘
//! ```

use super::entry::{Entry, Name, Remembered, life};
use super::floor::Floors;
use super::free::{Free, Stack};
use super::hash::TupleHasher;
use super::index::{Choice, Index, NotInserted};
use super::memory::Memory;
use super::places::Places;
use super::quiescence::{Pin, Quiescence, Stamp};
use super::slab::Slab;
use crate::wire::FiveTuple;
use crossbeam::utils::CachePadded;
use std::collections::VecDeque;
use std::io;
use thiserror::Error;

/// Times that an insert is tried while another worker inserts the same tuple.
const INSERT_TRIES: usize = 4;

/// The table could not be made.
#[derive(Debug, Error)]
pub enum TableError {
    /// More flows than an index can name, or none.
    #[error("a flow table holds 1 to 1,073,741,824 flows, not {0}")]
    Capacity(usize),
    /// No memory.
    #[error("no memory for a table of {capacity} flows ({bytes} bytes): {source}")]
    Memory {
        /// Flows asked for.
        capacity: usize,
        /// Bytes that they need.
        bytes: usize,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Why a packet has no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFlow {
    /// Every entry is in use, or both buckets of the tuple are.
    Full,
    /// Another worker is making the same flow this moment.
    Contended,
}

/// The table.
pub struct FlowTable {
    entries: Slab<Entry>,
    index: Index,
    free: CachePadded<Free>,
    /// Entries that an insert gave back, though another worker may have looked at them.
    given_back: CachePadded<Stack>,
    hasher: TupleHasher,
    /// Where the keys are that open packets.
    pub places: Places,
    /// Where Kris may start.
    pub floors: Floors,
    /// What evicted flows had accepted.
    pub memory: Memory,
}

impl FlowTable {
    /// A table for `capacity` flows, its hash keyed by two secret words.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn new(capacity: usize, seed: [u64; 2], huge: bool) -> Result<Self, TableError> {
        if capacity == 0 || capacity > 1 << 30 {
            return Err(TableError::Capacity(capacity));
        }
        let no_memory = |source| TableError::Memory {
            capacity,
            bytes: capacity * (size_of::<Entry>() + Places::BYTES_A_FLOW),
            source,
        };
        #[cfg(not(feature = "loom"))]
        let entries = Slab::new(capacity, huge).map_err(no_memory)?;
        #[cfg(feature = "loom")]
        let entries = Slab::owned(capacity, Entry::new);
        Ok(Self {
            entries,
            index: Index::new(capacity, huge).map_err(no_memory)?,
            free: CachePadded::new(Free::new()),
            given_back: CachePadded::new(Stack::new()),
            hasher: TupleHasher::new(seed),
            places: Places::new(capacity, huge).map_err(no_memory)?,
            floors: Floors::new(capacity, huge).map_err(no_memory)?,
            memory: Memory::new(capacity, huge).map_err(no_memory)?,
        })
    }

    /// Flows that fit.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// Flows that are there, those about to leave included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.free.in_use()
    }

    /// Whether there is no flow.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keyed hash of tuples.
    #[must_use]
    pub fn hasher(&self) -> &TupleHasher {
        &self.hasher
    }

    /// Fetches what [`FlowTable::likely`] reads.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.index.prefetch(hash, Choice::First);
    }

    /// An entry with this hash, which is nearly always the flow that [`FlowTable::find`] finds, though its name was not read yet: so it
    /// can be fetched before it is. `None` where there is none in the one place where it mostly is; then what
    /// [`FlowTable::less_likely`] reads is being fetched.
    #[inline]
    #[must_use]
    pub fn likely<'p>(&'p self, hash: u64, _pin: &'p Pin<'_>) -> Option<&'p Entry> {
        match self.index.likely(hash, Choice::First) {
            Some(number) => self.entry(number),
            None => {
                self.index.prefetch(hash, Choice::Second);
                None
            }
        }
    }

    /// [`FlowTable::likely`] in the other place.
    #[inline]
    #[must_use]
    pub fn less_likely<'p>(&'p self, hash: u64, _pin: &'p Pin<'_>) -> Option<&'p Entry> {
        self.entry(self.index.likely(hash, Choice::Second)?)
    }

    #[inline]
    fn entry(&self, number: u32) -> Option<&Entry> {
        self.entries.get(number as usize)
    }

    fn named(&self, number: u32, tuple: &FiveTuple) -> bool {
        self.entry(number).is_some_and(|e| e.tuple().is(tuple))
    }

    /// The flow of a tuple, named as its packets go out.
    #[inline]
    #[must_use]
    pub fn find<'p>(
        &'p self,
        hash: u64,
        tuple: &FiveTuple,
        _pin: &'p Pin<'_>,
    ) -> Option<&'p Entry> {
        let number = self.index.find(hash, |number| self.named(number, tuple))?;
        self.entry(number)
    }

    /// Marks the flow as in use at `now` (cycles); false if it is leaving and its packet has to do without.
    #[inline]
    #[must_use]
    pub fn keep(entry: &Entry, now: u64) -> bool {
        Self::keep_live(entry, now) || Self::revive(entry)
    }

    /// [`FlowTable::keep`] of a flow that is not idle; false if it is, and what becomes of it has yet to be seen.
    #[inline]
    #[must_use]
    pub fn keep_live(entry: &Entry, now: u64) -> bool {
        entry.touch(now);
        entry.life() == life::LIVE
    }

    #[cold]
    fn revive(entry: &Entry) -> bool {
        match entry.life() {
            life::LIVE => {}
            life::DYING if entry.change_life(life::DYING, life::LIVE) => {}
            // Another worker may have brought it back first.
            _ if entry.life() == life::LIVE => {}
            _ => return false,
        }
        true
    }

    /// Makes the flow of a tuple, or finds the one that another worker made meanwhile.
    ///
    /// `psntp` is where PSNTP starts, at random; `now` is in cycles and `since` Unix time in seconds.
    ///
    /// # Errors
    /// [`NoFlow`]: the packet has to do without.
    pub fn insert<'p>(
        &'p self,
        hash: u64,
        tuple: &FiveTuple,
        psntp: u16,
        now: u64,
        since: u32,
        _pin: &'p Pin<'_>,
    ) -> Result<&'p Entry, NoFlow> {
        let number = self.free.take(&self.entries).ok_or(NoFlow::Full)?;
        let entry = self.entry(number).ok_or(NoFlow::Full)?;
        // All of it is written when it is taken, and a locked instruction then waits until it is there.
        if let Some(next) = self.free.next(&self.entries) {
            super::prefetch_whole(next);
        }
        let name = Name {
            tuple: *tuple,
            since,
        };
        // SAFETY: the number came off the free list just now, and is in no bucket before `insert` below.
        unsafe { entry.begin(name, psntp, now) };
        let mut refusal = NoFlow::Contended;
        for _ in 0..INSERT_TRIES {
            match self
                .index
                .insert(hash, number, |other| self.named(other, tuple))
            {
                Ok(()) => return Ok(entry),
                Err(NotInserted::Exists(other)) => {
                    self.give_back(number, entry);
                    return self.entry(other).ok_or(NoFlow::Contended);
                }
                Err(NotInserted::Contended) => std::hint::spin_loop(),
                Err(NotInserted::Full) => {
                    refusal = NoFlow::Full;
                    break;
                }
            }
        }
        self.give_back(number, entry);
        Err(refusal)
    }

    fn give_back(&self, number: u32, entry: &Entry) {
        // Ageing that has found it idle meanwhile frees it itself.
        if entry.change_life(life::LIVE, life::DEAD) {
            // A look at it is one at its name, which the link leaves alone.
            self.given_back.push(&self.entries, number);
        }
    }

    /// Shows the flows among `batch` entries from number `from` on to `visit`; returns where to go on, or `None` at the end.
    ///
    /// For the management core, which pins anew for each batch: a long pin would hold up key changes.
    pub fn visit(
        &self,
        _pin: &Pin<'_>,
        from: usize,
        batch: usize,
        mut visit: impl FnMut(&Entry),
    ) -> Option<usize> {
        let used = self.free.high_water();
        let end = from.saturating_add(batch).min(used);
        for entry in self.entries.get(from..end)? {
            if matches!(entry.life(), life::LIVE | life::DYING) {
                visit(entry);
            }
        }
        (end < used).then_some(end)
    }
}

/// The ageing of a table: one per table, in one thread.
pub struct Ageing<'t> {
    table: &'t FlowTable,
    next: usize,
    dying: VecDeque<(u32, Stamp)>,
    unlinked: VecDeque<(u32, Stamp)>,
}

impl<'t> Ageing<'t> {
    /// Ageing for `table`.
    #[must_use]
    pub fn new(table: &'t FlowTable) -> Self {
        Self {
            table,
            next: 0,
            dying: VecDeque::new(),
            unlinked: VecDeque::new(),
        }
    }

    /// Looks at up to `batch` entries for ones idle longer than `timeout` cycles, and moves on those already found.
    ///
    pub fn step(&mut self, pin: &Pin<'_>, now: u64, timeout: u64, batch: usize) {
        let quiescence = pin.quiescence();
        self.release(quiescence);
        self.unlink(pin, quiescence);
        let used = self.table.free.high_water();
        if self.next >= used {
            self.next = 0;
        }
        let end = (self.next + batch).min(used);
        let mut found = Vec::new();
        for number in self.next..end {
            let entry = &self.table.entries[number];
            if entry.life() == life::LIVE
                && entry.idle(now) > timeout
                && entry.change_life(life::LIVE, life::DYING)
            {
                found.push(number as u32);
            }
        }
        self.next = end;
        while let Some(number) = self.table.given_back.pop(&self.table.entries) {
            self.unlinked.push_back((number, quiescence.retire()));
        }
        if !found.is_empty() {
            let stamp = quiescence.retire();
            self.dying.extend(found.into_iter().map(|n| (n, stamp)));
        }
    }

    /// Takes what nobody brought back out of the index.
    fn unlink(&mut self, pin: &Pin<'_>, quiescence: &Quiescence) {
        let mut gone = Vec::new();
        while let Some(&(number, stamp)) = self.dying.front() {
            if !quiescence.passed(stamp) {
                break;
            }
            self.dying.pop_front();
            let entry = &self.table.entries[number as usize];
            if !entry.change_life(life::DYING, life::DEAD) {
                continue;
            }
            // No worker works on a dead entry: those that saw it alive have ended their bursts, the others saw it dying, and
            // one that brought it back would have made the change above fail. So the tracks are final.
            let hash = self.table.hasher.hash(entry.tuple());
            for head in entry.incoming.heads(pin, &self.table.places) {
                self.table.memory.remember(
                    hash,
                    &Remembered {
                        epoch: head.epoch,
                        kri: head.kri,
                        psntp: head.highest_psntp,
                    },
                );
            }
            self.table.index.remove(hash, number);
            gone.push(number);
        }
        if !gone.is_empty() {
            let stamp = quiescence.retire();
            self.unlinked.extend(gone.into_iter().map(|n| (n, stamp)));
        }
    }

    /// Frees what no worker can see any more.
    fn release(&mut self, quiescence: &Quiescence) {
        while let Some(&(number, stamp)) = self.unlinked.front() {
            if !quiescence.passed(stamp) {
                break;
            }
            self.unlinked.pop_front();
            let table = self.table;
            // SAFETY: the entry is out of the index, and every worker has ended the burst in which it might have found it; a
            // table's flows use its own places.
            unsafe { table.entries[number as usize].end(&table.places) };
            table.free.give_back(&table.entries, number);
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
#[path = "table_tests.rs"]
mod tests;
