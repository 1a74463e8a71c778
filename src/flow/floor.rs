//! Where a flow's Kri may start (protocol section 4, *Kri floor*).
//!
//! Within an epoch a 5-tuple must never start at a Kri that it used before, and one that was never seen should start at 0.
//! Remembering each tuple ever seen would take unbounded memory. The classic answer is one cell per hash value that keeps
//! the highest Kri + 1; but then each *new* tuple that meets a used cell also raises it, and after a few dozen tuples a cell
//! its flows start beyond the receiver's window. Here each tuple has two cells and its floor is the lower one, so a tuple
//! starts too high only if strangers sit in both; and when the floors handed out still climb, [`Floors::level`] tells the
//! management core, which begins a new *era*: a new generation for all that this process sends, counted in the other
//! bank, so every flow starts at 0 again. Static pairings have their new generation in that moment. A registered one gets it from its
//! Primary, some time later, and stays with its bank until then; so the next era has to wait for the last of them.
//!
//! Property kept: for one (epoch, tuple) the values that `start` returns and those given to `raise` only ever go up, since
//! cells only go up while a bank is in use, and no epoch is counted in two banks (`snapshot/ledger.rs`). A bank is cleared only after
//! its era is out of every worker's sight. It follows that lists may change under an epoch: cells know tuples, not entries.

use super::slab::Slab;
use super::sync::{AtomicU32, Ordering};
use std::io;

/// Two banks of cells.
pub struct Floors {
    banks: [Slab<AtomicU32>; 2],
    mask: u64,
    /// Per bank.
    levels: [AtomicU32; 2],
}

/// The cells of one (epoch, tuple) in the bank of one era.
#[derive(Clone, Copy)]
pub struct FloorCells<'f> {
    a: &'f AtomicU32,
    b: &'f AtomicU32,
    level: &'f AtomicU32,
}

impl Floors {
    /// Cells for about `flows` flows at a time: two a flow and bank.
    ///
    /// # Errors
    /// The operating system's, when there is no memory.
    pub fn new(flows: usize, huge: bool) -> io::Result<Self> {
        let cells = (2 * flows).next_power_of_two();
        #[cfg(not(feature = "loom"))]
        let bank = || Slab::new(cells, huge);
        #[cfg(feature = "loom")]
        let bank = || {
            let _ = huge;
            io::Result::Ok(Slab::owned(cells, || AtomicU32::new(0)))
        };
        Ok(Self {
            banks: [bank()?, bank()?],
            mask: cells as u64 - 1,
            levels: [AtomicU32::new(0), AtomicU32::new(0)],
        })
    }

    /// The cells of what `hash` stands for (a hash of epoch and tuple) in the bank of `era`.
    #[must_use]
    pub fn cells(&self, era: u32, hash: u64) -> Option<FloorCells<'_>> {
        let bank = &self.banks[(era & 1) as usize];
        Some(FloorCells {
            a: bank.get((hash & self.mask) as usize)?,
            b: bank.get(((hash >> 32) & self.mask) as usize)?,
            level: self.level_of(era),
        })
    }

    fn level_of(&self, era: u32) -> &AtomicU32 {
        &self.levels[(era & 1) as usize]
    }

    /// The highest Kri that a flow had to start at in `era`, this one or the one before: 0 while every tuple was told apart.
    #[must_use]
    pub fn level(&self, era: u32) -> u32 {
        self.level_of(era).load(Ordering::Relaxed)
    }

    /// Clears the bank that `era` will use.
    ///
    /// To be called when no worker can see the era before the current one any more, no pairing counts in it, and before `era` is
    /// published.
    pub fn prepare(&self, era: u32) {
        for cell in self.banks[(era & 1) as usize].iter() {
            cell.store(0, Ordering::Relaxed);
        }
        self.level_of(era).store(0, Ordering::Relaxed);
    }
}

impl FloorCells<'_> {
    /// Fetches them, before [`FloorCells::start`].
    #[inline]
    pub fn prefetch(&self) {
        super::prefetch(self.a);
        super::prefetch(self.b);
    }

    /// Takes the Kri that a flow starts at, and raises the floor above it.
    #[must_use]
    pub fn start(&self) -> u32 {
        let kri = self
            .a
            .load(Ordering::Acquire)
            .min(self.b.load(Ordering::Acquire));
        self.raise(kri);
        if kri > self.level.load(Ordering::Relaxed) {
            self.level.fetch_max(kri, Ordering::Relaxed);
        }
        kri
    }

    /// Raises the floor above `kri`; to be called before `kri` is first used.
    pub fn raise(&self, kri: u32) {
        let floor = kri.saturating_add(1);
        self.a.fetch_max(floor, Ordering::AcqRel);
        self.b.fetch_max(floor, Ordering::AcqRel);
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn a_tuple_starts_at_0_and_then_above_all_it_used() {
        let floors = Floors::new(1 << 10, false).unwrap();
        let cells = floors.cells(0, 0x0123_4567_89ab_cdef).unwrap();
        assert_eq!(cells.start(), 0);
        cells.raise(1);
        cells.raise(2);
        assert_eq!(cells.start(), 3);
        assert_eq!(cells.start(), 4);
        assert_eq!((floors.level(0), floors.level(1)), (4, 0));
    }

    #[test]
    fn the_other_bank_starts_over_once_prepared() {
        let floors = Floors::new(64, false).unwrap();
        assert_eq!(floors.cells(0, 99).unwrap().start(), 0);
        assert_eq!(floors.cells(1, 99).unwrap().start(), 0);
        assert_eq!(floors.cells(2, 99).unwrap().start(), 1);
        floors.prepare(3);
        assert_eq!((floors.level(2), floors.level(3)), (1, 0));
        assert_eq!(floors.cells(3, 99).unwrap().start(), 0);
    }

    #[test]
    fn strangers_rarely_lift_a_new_tuple() {
        let flows = 1 << 14;
        let floors = Floors::new(flows, false).unwrap();
        let hasher = super::super::hash::TupleHasher::new([3, 4]);
        let lifted = (0..flows as u64)
            .filter(|&i| floors.cells(0, hasher.extend(i, [0, 0])).unwrap().start() > 0)
            .count();
        // Both cells taken by strangers: below the share squared, (1 - 1/e)^2 = 0.4, on average a third of it.
        assert!(lifted < flows / 4, "{lifted} of {flows}");
    }
}
