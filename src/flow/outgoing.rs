//! Numbers for the packets that go out: one source of (Kri, PRSEQ, PSNTP) a flow, whatever worker asks.
//!
//! A (key, nonce) pair that repeats breaks GCM entirely, so this is the one place that gives numbers out.
//!
//! ```text
//! word     chapter (32) | count (16) | PSNTP (16)      replacing it takes one number
//! keys     [even chapters][odd chapters]               chapter c is sealed with keys[c & 1]
//! ```
//!
//! Who may replace the word, and whether by a plain write or a compare-and-swap, says [`super::owner`]: either way it still is what the
//! worker had read. A *chapter* is the time between two key changes of one entry; it only goes up, so the word is replaced only
//! while the chapter that the worker looked at still lasts, and the number that it took belongs to that chapter's key for
//! good. The Kri and epoch stand with the key.
//!
//! The key of chapter c + 1 is *prepared* in the other place by whichever worker wins `claim` (losers never wait: they go on
//! in chapter c), beginning when half of chapter c is used; it replaces the key of c - 1, so it is written only after each
//! worker has ended the burst in which it might have used that one. *Publishing* is to take the first number of c + 1, which anyone
//! does who takes numbers, so a worker that stalls while it holds the claim holds up nobody before chapter c is used up. A key that was
//! prepared for an epoch or a secret that is out of date by then is taken back.
//!
//! Within a chapter PRSEQ walks by what stands with the key (`out_key.rs`), and meets each of 1 … 32,767 once.
//!
//! What breaks if the property is lost: two packets sealed under one key with one nonce, which gives an observer the XOR
//! of their metrics and the authentication key.

use super::epoch::Epoch;
use super::floor::FloorCells;
use super::out_key::OutKey;
use super::owner::Access;
use super::quiescence::{Pin, Stamp};
use super::sync::{AtomicU32, AtomicU64, Ordering, SharedCell};
use super::times::{LastReceived, SendTimes};
use crate::crypto::{Aead, SessionKey};
use crate::wire::Prseq;

/// PRSEQ has 15 bits and is never 0.
pub const MAX_PACKETS_PER_KEY: u16 = 32_767;

/// One packet's own numbers.
#[derive(Clone, Copy)]
pub struct Number<'p> {
    /// The key that seals it. It is not read before it is needed, and may be on its way until then.
    pub key: &'p OutKey,
    /// Which packet of its key it is, counted from 1.
    count: u16,
    /// PSN This Packet.
    pub psntp: u16,
}

impl Number<'_> {
    /// The packet's PRSEQ: never the same for two packets of one key.
    #[inline]
    #[must_use]
    pub fn prseq(&self) -> Prseq {
        self.key.prseq(self.count)
    }

    /// Whether this packet is the first of its key.
    #[must_use]
    pub fn is_first_of_key(&self) -> bool {
        self.count == 1
    }
}

/// How many packets a key may seal, and, from half of them on, which ones see to the next key: 32 to 64 of them, as each takes the long way
/// and looks at `ready`, which is on another cache line.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    packets: u16,
    half: u16,
    /// Bits of the count that are 0 where a packet does.
    now_and_then: u16,
}

impl Limit {
    /// `packets` is 1 … [`MAX_PACKETS_PER_KEY`].
    #[must_use]
    pub fn new(packets: u16) -> Self {
        let apart = (packets / 64).max(1).ilog2();
        Self {
            packets,
            half: packets / 2,
            now_and_then: (1 << apart) - 1,
        }
    }

    fn leaves_room(self, count: u16) -> bool {
        count < self.packets
    }

    fn prepares(self, count: u16) -> bool {
        count >= self.half && count & self.now_and_then == 0
    }

    /// Whether there is nothing to be done but to count: there is room, and the packet does not prepare.
    fn only_counts(self, count: u16) -> bool {
        // Below half of them both are so, by one comparison.
        count < self.half || (self.leaves_room(count) && !self.prepares(count))
    }
}

/// What a worker knows when it asks for a number.
#[derive(Clone, Copy)]
pub struct Need<'f> {
    /// The worker's access to the sender's half.
    pub access: Access<'f>,
    /// The epoch that the worker's snapshot asks for.
    pub epoch: Epoch,
    /// Tells apart the SharedSecrets that one epoch may see when lists change.
    pub secret: u32,
    /// What keys of that epoch seal with.
    pub aead: Aead,
    /// Serial number of the worker's snapshot: an older one never takes a flow back.
    pub serial: u32,
    /// The floor of (epoch, 5-tuple).
    pub floor: FloorCells<'f>,
    /// Packets a key may seal.
    pub limit: Limit,
    /// Cycles a key may be used.
    pub max_age: u64,
    /// The time, in cycles.
    pub now: u64,
    /// 32 fresh random bits for the walk of PRSEQ.
    pub random: u32,
}

/// No number can be had right now: the next key is not ready, or (after 2^32 keys) there is none left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoNumber;

/// The sender's half of a flow, which begins with a cache line of its entry. Key changes have one of their own, each key has one, and
/// what every packet reads and writes begins another. It ends in the middle of one, which the receiver's half goes on with.
#[repr(C, align(32))]
pub struct Outgoing {
    /// Packets of the chapters before.
    earlier: AtomicU64,
    /// When the spare key went out of sight, for the chapter in `stamped`.
    stamp: AtomicU64,
    stamped: AtomicU32,
    claim: AtomicU32,
    /// The chapter whose key is prepared.
    ready: AtomicU32,
    /// See [`Outgoing::serial`].
    serial: AtomicU32,
    secrets: [AtomicU32; 2],
    keys: [SharedCell<OutKey>; 2],
    word: AtomicU64,
    /// When the chapter began, in cycles.
    born: AtomicU64,
    /// The last packet received, for what the next one to go out says of it.
    pub last_received: LastReceived,
    /// Send times, for round trips.
    pub send_times: SendTimes,
}

#[derive(Clone, Copy)]
struct Word {
    chapter: u32,
    count: u16,
    psntp: u16,
}

impl Word {
    fn unpack(bits: u64) -> Self {
        Self {
            chapter: (bits >> 32) as u32,
            count: (bits >> 16) as u16,
            psntp: bits as u16,
        }
    }

    /// The word that takes the next number of the chapter.
    fn following(self) -> Self {
        Self {
            count: self.count + 1,
            psntp: self.psntp.wrapping_add(1),
            ..self
        }
    }

    fn pack(self) -> u64 {
        (u64::from(self.chapter) << 32) | (u64::from(self.count) << 16) | u64::from(self.psntp)
    }
}

impl Outgoing {
    #[cfg(any(test, feature = "loom"))]
    pub(crate) fn new() -> Self {
        Self {
            earlier: AtomicU64::new(0),
            stamp: AtomicU64::new(0),
            stamped: AtomicU32::new(0),
            claim: AtomicU32::new(0),
            ready: AtomicU32::new(0),
            serial: AtomicU32::new(0),
            secrets: [AtomicU32::new(0), AtomicU32::new(0)],
            keys: [
                SharedCell::new(OutKey::default()),
                SharedCell::new(OutKey::default()),
            ],
            word: AtomicU64::new(0),
            born: AtomicU64::new(0),
            last_received: LastReceived::new(),
            send_times: SendTimes::new(),
        }
    }

    /// Makes a fresh half: no key, and PSNTP starting at `psntp` + 1.
    ///
    /// To be called before anyone else can see the flow.
    pub(crate) fn reset(&self, psntp: u16) {
        let word = Word {
            chapter: 0,
            count: 0,
            psntp,
        };
        self.word.store(word.pack(), Ordering::Relaxed);
        for counter in [&self.born, &self.earlier, &self.stamp] {
            counter.store(0, Ordering::Relaxed);
        }
        for counter in [&self.stamped, &self.claim, &self.ready, &self.serial] {
            counter.store(0, Ordering::Relaxed);
        }
        self.last_received.reset();
        self.send_times.reset();
    }

    /// When the last packet was sent, in cycles of 48 bits; `None` before the first.
    #[inline]
    #[must_use]
    pub fn last_sent(&self) -> Option<u64> {
        let word = Word::unpack(self.word.load(Ordering::Relaxed));
        self.send_times.when_newest(word.psntp)
    }

    /// Fetches the line of the number, which is also that of the last packets sent and received.
    #[inline]
    pub(crate) fn prefetch(&self) {
        super::prefetch(&self.word);
    }

    /// Overwrites the keys.
    ///
    /// # Safety
    /// No worker may see the flow.
    pub(crate) unsafe fn wipe(&self) {
        for key in &self.keys {
            // SAFETY: the caller is the only one who can reach the flow.
            unsafe { key.write(OutKey::wipe) };
        }
    }

    /// Packets numbered so far.
    #[must_use]
    pub fn packets(&self) -> u64 {
        let word = Word::unpack(self.word.load(Ordering::Acquire));
        let earlier = self.earlier.load(Ordering::Relaxed);
        earlier.wrapping_add(u64::from(word.count))
    }

    /// The key in use, if there is one yet.
    #[must_use]
    pub fn key<'p>(&'p self, pin: &'p Pin<'_>) -> Option<&'p OutKey> {
        let word = Word::unpack(self.word.load(Ordering::Acquire));
        (word.chapter != 0).then(|| self.key_of(word.chapter, pin))
    }

    /// The snapshot that the newest key was prepared under, or is known to be right under.
    #[must_use]
    pub fn serial(&self) -> u32 {
        self.serial.load(Ordering::Relaxed)
    }

    /// What [`Need::secret`] was when the key in use was prepared.
    #[must_use]
    pub fn secret(&self) -> u32 {
        self.secret_of(Word::unpack(self.word.load(Ordering::Acquire)).chapter)
    }

    #[inline]
    fn key_of<'p>(&'p self, chapter: u32, _pin: &'p Pin<'_>) -> &'p OutKey {
        // SAFETY: the word, read under this pin, showed `chapter`, so its key was written before (the swap that published it
        // is a release, the read an acquire). `prepare` writes this place again only for chapter + 2, after a stamp taken
        // while the word showed chapter + 1 has passed, which it cannot before this pin ends.
        unsafe { self.keys[(chapter & 1) as usize].read() }
    }

    /// Takes the next number of the key in use, for a flow that has settled in its epoch: what nearly every packet does. `None` where
    /// the key is due to change, as it has been in use since `oldest` (cycles) or before, or the next one to be prepared:
    /// [`Outgoing::number`] does that.
    #[inline(always)]
    pub fn next<'p>(
        &'p self,
        access: Access<'p>,
        pin: &'p Pin<'_>,
        limit: Limit,
        oldest: u64,
    ) -> Option<Number<'p>> {
        let mut bits = self.word.load(Ordering::Acquire);
        loop {
            let word = Word::unpack(bits);
            let aged = self.born.load(Ordering::Relaxed) <= oldest;
            if word.chapter == 0 || !limit.only_counts(word.count) || aged {
                return None;
            }
            let next = word.following();
            match access.replace(&self.word, bits, next.pack()) {
                Ok(()) => {
                    return Some(Number {
                        key: self.key_of(next.chapter, pin),
                        count: next.count,
                        psntp: next.psntp,
                    });
                }
                Err(seen) => bits = seen,
            }
        }
    }

    /// Takes the next number for a sealed packet, changing the key first where that is due; and whether its key is of the epoch and secret
    /// that were asked for. If not, a later packet moves on.
    ///
    /// `derive` gives the key of an epoch and Kri, or `None` if its secret is gone.
    ///
    /// # Errors
    /// [`NoNumber`]: the packet has to go unmarked.
    pub fn number<'p>(
        &'p self,
        pin: &'p Pin<'_>,
        need: &Need<'_>,
        mut derive: impl FnMut(&Epoch, u32) -> Option<SessionKey>,
    ) -> Result<(Number<'p>, bool), NoNumber> {
        loop {
            let bits = self.word.load(Ordering::Acquire);
            let word = Word::unpack(bits);
            let next_chapter = word.chapter.wrapping_add(1);
            let usable = word.chapter != 0 && need.limit.leaves_room(word.count);
            let change = !usable || self.is_due(word.chapter, need, pin);
            let prepared = if change || need.limit.prepares(word.count) {
                self.prepare(pin, word.chapter, need, &mut derive)
            } else {
                false
            };
            let next = if change && prepared {
                Word {
                    chapter: next_chapter,
                    count: 1,
                    psntp: word.psntp.wrapping_add(1),
                }
            } else if usable {
                word.following()
            } else if Word::unpack(self.word.load(Ordering::Acquire)).chapter != word.chapter {
                continue;
            } else {
                return Err(NoNumber);
            };
            // To take a key back that was prepared changes the word.
            if self.word.load(Ordering::Acquire) != bits
                || need.access.replace(&self.word, bits, next.pack()).is_err()
            {
                continue;
            }
            let first_of_key = next.chapter != word.chapter;
            if first_of_key {
                self.born.store(need.now, Ordering::Relaxed);
                // A flow's first key ends nothing, and is spared the locked instruction.
                if word.count != 0 {
                    self.earlier
                        .fetch_add(u64::from(word.count), Ordering::Relaxed);
                }
                self.stamp_spare(pin);
            }
            let key = self.key_of(next.chapter, pin);
            let current = key.epoch == need.epoch && self.secret_of(next.chapter) == need.secret;
            let number = Number {
                key,
                count: next.count,
                psntp: next.psntp,
            };
            return Ok((number, current));
        }
    }

    /// Takes the next number of a flow whose options are sent in the clear: there is no key that could be used up.
    ///
    /// Chapter and count stay as they are, since a flow may have been sealed before and may be again.
    pub fn number_in_clear(&self, access: Access<'_>) -> (Prseq, u16) {
        let mut bits = self.word.load(Ordering::Acquire);
        loop {
            let word = Word::unpack(bits);
            let psntp = word.psntp.wrapping_add(1);
            let next = Word { psntp, ..word };
            match access.replace(&self.word, bits, next.pack()) {
                Ok(()) => {
                    let n = self.earlier.fetch_add(1, Ordering::Relaxed);
                    let prseq = n % u64::from(MAX_PACKETS_PER_KEY) + 1;
                    return (Prseq::saturating(prseq as u16), psntp);
                }
                Err(seen) => bits = seen,
            }
        }
    }

    fn secret_of(&self, chapter: u32) -> u32 {
        self.secrets[(chapter & 1) as usize].load(Ordering::Relaxed)
    }

    /// Whether the chapter has to end although its numbers last: its key is of another epoch or secret, or too old.
    fn is_due(&self, chapter: u32, need: &Need<'_>, pin: &Pin<'_>) -> bool {
        let key = self.key_of(chapter, pin);
        let outdated = (key.epoch != need.epoch || self.secret_of(chapter) != need.secret)
            && self.serial.load(Ordering::Relaxed) <= need.serial;
        outdated || need.now.saturating_sub(self.born.load(Ordering::Relaxed)) >= need.max_age
    }

    /// Sees to it that the key of the chapter after `chapter` is ready; false if it cannot be right now.
    fn prepare(
        &self,
        pin: &Pin<'_>,
        chapter: u32,
        need: &Need<'_>,
        derive: &mut impl FnMut(&Epoch, u32) -> Option<SessionKey>,
    ) -> bool {
        let Some(next) = chapter.checked_add(1) else {
            return false;
        };
        let is_same_view = self.serial.load(Ordering::Relaxed) == need.serial;
        if self.ready.load(Ordering::Acquire) == next && is_same_view {
            return true;
        }
        self.claimed(|| self.prepare_claimed(pin, chapter, next, need, derive))
            .unwrap_or(false)
    }

    /// Does what only one worker may do at a time; with another one at it, nothing.
    fn claimed<T>(&self, change: impl FnOnce() -> T) -> Option<T> {
        self.claim
            .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        let result = change();
        self.claim.store(0, Ordering::Release);
        Some(result)
    }

    fn prepare_claimed(
        &self,
        pin: &Pin<'_>,
        chapter: u32,
        next: u32,
        need: &Need<'_>,
        derive: &mut impl FnMut(&Epoch, u32) -> Option<SessionKey>,
    ) -> bool {
        let lasts = Word::unpack(self.word.load(Ordering::Acquire)).chapter == chapter;
        let is_ready = self.ready.load(Ordering::Acquire) == next;
        if !lasts || self.serial.load(Ordering::Relaxed) > need.serial {
            return is_ready;
        }
        if is_ready {
            if self.is_prepared_for(next, need) {
                self.serial.store(need.serial, Ordering::Relaxed);
                return true;
            }
            if !self.withdraw(chapter, need.access) {
                return false;
            }
        }
        if !self.spare_is_unseen(pin, chapter) {
            return false;
        }
        let running = (chapter != 0).then(|| self.key_of(chapter, pin));
        let kri = match running {
            Some(key) if key.epoch == need.epoch => {
                let Some(kri) = key.kri.checked_add(1) else {
                    return false;
                };
                need.floor.raise(kri);
                kri
            }
            _ => need.floor.start(),
        };
        let Some(session) = derive(&need.epoch, kri) else {
            return false;
        };
        let place = (next & 1) as usize;
        // SAFETY: only the holder of `claim` writes keys. This place held the key of chapter - 1, which nobody reads any more
        // (`spare_is_unseen`), and chapter + 1 is not published before `ready` says that it may be, below.
        unsafe {
            self.keys[place].write(|key| {
                key.session.copy_from(&session);
                key.kri = kri;
                key.epoch = need.epoch;
                key.draw_walk(need.aead, need.random);
            });
        }
        self.secrets[place].store(need.secret, Ordering::Relaxed);
        self.serial.store(need.serial, Ordering::Relaxed);
        self.ready.store(next, Ordering::Release);
        true
    }

    /// Whether the key of `next`, which is ready, is the one that is needed. Only the holder of `claim` asks.
    fn is_prepared_for(&self, next: u32, need: &Need<'_>) -> bool {
        // SAFETY: only the holder of `claim` writes keys.
        let key = unsafe { self.keys[(next & 1) as usize].read() };
        key.epoch == need.epoch && self.secret_of(next) == need.secret
    }

    /// Takes back that the key after `chapter`'s is ready, as it would be of an epoch or a secret that is out of date; false if `chapter`
    /// is over. Only the holder of `claim` does. Whoever saw it ready would publish it by a swap of the word as it was before: so the word
    /// changes, by a count that no packet gets.
    fn withdraw(&self, chapter: u32, access: Access<'_>) -> bool {
        self.ready.store(0, Ordering::Relaxed);
        let mut bits = self.word.load(Ordering::Acquire);
        loop {
            let word = Word::unpack(bits);
            // A count that has no room must not begin anew: its numbers would come again.
            let (true, Some(count)) = (word.chapter == chapter, word.count.checked_add(1)) else {
                return false;
            };
            let next = Word { count, ..word };
            match access.replace(&self.word, bits, next.pack()) {
                Ok(()) => break,
                Err(seen) => bits = seen,
            }
        }
        // Together with the count, the number of packets stays what it was.
        self.earlier.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// Stamps the key that a change has just ended, so that the next change need not wait when it comes.
    fn stamp_spare(&self, pin: &Pin<'_>) {
        let chapter = Word::unpack(self.word.load(Ordering::Acquire)).chapter;
        if chapter < 2 {
            return;
        }
        // Whoever holds the claim stamps it if need be.
        self.claimed(|| self.spare_is_unseen(pin, chapter));
    }

    /// Whether the key that is not `chapter`'s is out of every worker's sight. The first call in a chapter takes the stamp.
    fn spare_is_unseen(&self, pin: &Pin<'_>, chapter: u32) -> bool {
        // Before chapter 2 nothing was ever in the spare place.
        if chapter < 2 {
            return true;
        }
        if self.stamped.load(Ordering::Relaxed) != chapter {
            let stamp = pin.quiescence().retire();
            self.stamp.store(stamp.to_bits(), Ordering::Relaxed);
            self.stamped.store(chapter, Ordering::Relaxed);
        }
        let stamp = Stamp::from_bits(self.stamp.load(Ordering::Relaxed));
        pin.quiescence().passed(stamp)
    }
}

#[cfg(all(test, not(feature = "loom")))]
#[path = "outgoing_tests.rs"]
mod tests;
