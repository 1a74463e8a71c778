//! The receiver's half of a flow: which keys open it, and which packets were opened already (protocol section 4).
//!
//! A flow has up to two *tracks*, one per sending generation; a track is the key that opened last and the one before it, each
//! with its own replay window. Keys stand in four places, and one word says which place plays which role, and with which F bit, so that
//! the key of a packet is fetched without a look at the others:
//!
//! ```text
//! roles    track 0: now | track 0: before | track 1: now | track 1: before      a byte each: place + 4 * F, or NONE
//! ```
//!
//! State changes only after a packet opened. Taking in a new key is rare; whichever worker wins `claim` does it, and one that
//! loses lets its packet go on unmeasured rather than wait. A place whose key has left the roles is written again only after
//! every worker has ended the burst in which it might have read it.
//!
//! A track only moves forward (a higher Kri of its epoch, or an epoch that [`Epoch::precedes`] allows), so a key that left the
//! roles never comes back with an empty window. What breaks if that is lost: packets recorded earlier are accepted again.

use super::epoch::Epoch;
use super::quiescence::{Pin, Stamp};
use super::replay::{Replay, Window};
use super::sync::{AtomicU32, AtomicU64, Ordering, SharedCell};
use crate::crypto::SessionKey;
use arrayvec::ArrayVec;
use zeroize::Zeroize;

const PLACES: usize = 4;
/// Tracks a flow can have.
pub const TRACKS: usize = 2;
const NONE: u8 = 0x80;
/// In a role's byte, where F stands.
const F_SHIFT: u32 = 2;
/// What a window calls the PSNTP that its key was first seen with: 32,767 numbers fit on either side.
const WINDOW_ORIGIN: u32 = 0x1_0000;

/// A key that opens packets of a flow. One cache line, where a flow's entry places it.
#[derive(Default)]
#[repr(C)]
pub struct InKey {
    /// The AEAD's key in its first bytes.
    pub key: [u8; 32],
    /// XORed with PRSEQ for each packet's nonce.
    pub base_nonce: [u8; 12],
    /// The sender's Key Rotation Index.
    pub kri: u32,
    /// The epoch that Kri counts in.
    pub epoch: Epoch,
    base_psntp: u16,
}

impl InKey {
    /// The F bit that its packets carry.
    #[must_use]
    pub fn f(&self) -> bool {
        self.kri & 1 == 1
    }

    fn wipe(&mut self) {
        self.key.zeroize();
        self.base_nonce.zeroize();
    }
}

/// A key with what its place remembers.
#[derive(Clone, Copy)]
pub struct Held<'p> {
    /// The key.
    pub key: &'p InKey,
    of: &'p Incoming,
    place: u8,
    role: u8,
}

/// Why an opened packet's option is not used after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The packet was seen before, or is too old to tell.
    Replay(Replay),
    /// Its key is behind what the flow has moved to.
    Behind,
    /// Another worker is changing the flow's keys, or the place for a new one is not free yet.
    Busy,
}

/// A packet that opened with a key that the flow does not hold.
pub struct Found<'k> {
    /// The key's epoch.
    pub epoch: Epoch,
    /// The key's Kri.
    pub kri: u32,
    /// The key.
    pub session: &'k SessionKey,
    /// The packet's PSNTP.
    pub psntp: u16,
    /// The time, in cycles.
    pub now: u64,
}

/// Where a track stands, for the search ahead and for what is remembered when the flow goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The epoch of the key that opened last.
    pub epoch: Epoch,
    /// Its Kri.
    pub kri: u32,
    /// The highest PSNTP that it accepted.
    pub highest_psntp: u16,
}

/// The receiver's half of a flow.
#[repr(C)]
pub struct Incoming {
    keys: [SharedCell<InKey>; PLACES],
    windows: [Window; PLACES],
    roles: AtomicU32,
    claim: AtomicU32,
    /// When each track last accepted a packet, in ticks of 2^[`TICK_SHIFT`] cycles.
    used: [AtomicU32; TRACKS],
    /// When each place's key left the roles.
    stamps: [AtomicU64; PLACES],
}

/// How coarse `used` is: 2^24 cycles are 6 ms at 2.6 GHz. Few packets write it.
const TICK_SHIFT: u32 = 24;

type Roles = [u8; PLACES];

/// The place that a byte of the roles names.
#[inline]
fn place(named: u8) -> Option<usize> {
    (named != NONE).then_some(usize::from(named) % PLACES)
}

/// Whether a byte of the roles names a key with this F bit.
#[inline]
fn has_f(named: u8, f: bool) -> bool {
    named & (NONE | 1 << F_SHIFT) == u8::from(f) << F_SHIFT
}

impl Held<'_> {
    /// Whether it is the one that opened last on its track, not the one before.
    #[inline]
    #[must_use]
    pub fn is_newest(&self) -> bool {
        self.role.is_multiple_of(2)
    }

    fn window(&self) -> &Window {
        &self.of.windows[usize::from(self.place) % PLACES]
    }

    fn used(&self) -> &AtomicU32 {
        &self.of.used[usize::from(self.role / 2) % TRACKS]
    }

    /// Fetches what [`Held::accept`] needs, and the key.
    #[inline]
    pub fn prefetch(&self) {
        super::prefetch(self.key);
        super::prefetch(self.window());
    }

    /// Takes in a packet that opened with this key.
    ///
    /// # Errors
    /// [`Refused::Replay`].
    #[inline]
    pub fn accept(&self, psntp: u16, now: u64) -> Result<(), Refused> {
        let step = psntp.wrapping_sub(self.key.base_psntp) as i16;
        let number = WINDOW_ORIGIN.wrapping_add_signed(i32::from(step));
        self.window().accept(number).map_err(Refused::Replay)?;
        let tick = (now >> TICK_SHIFT) as u32;
        let used = self.used();
        if used.load(Ordering::Relaxed) != tick {
            used.store(tick, Ordering::Relaxed);
        }
        Ok(())
    }

    fn highest_psntp(&self) -> u16 {
        let above = self
            .window()
            .highest()
            .map_or(0, |n| n.wrapping_sub(WINDOW_ORIGIN));
        self.key.base_psntp.wrapping_add(above as u16)
    }
}

impl Incoming {
    #[cfg(any(test, feature = "loom"))]
    pub(crate) fn new() -> Self {
        let incoming = Self {
            keys: std::array::from_fn(|_| SharedCell::new(InKey::default())),
            windows: std::array::from_fn(|_| Window::new()),
            roles: AtomicU32::new(0),
            claim: AtomicU32::new(0),
            used: std::array::from_fn(|_| AtomicU32::new(0)),
            stamps: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        incoming.reset();
        incoming
    }

    /// Makes a fresh half without keys; to be called before anyone else can see the flow.
    pub(crate) fn reset(&self) {
        self.roles
            .store(u32::from_ne_bytes([NONE; 4]), Ordering::Relaxed);
        self.claim.store(0, Ordering::Relaxed);
        for window in &self.windows {
            window.reset();
        }
        for stamp in &self.stamps {
            stamp.store(0, Ordering::Relaxed);
        }
    }

    /// Overwrites the keys.
    ///
    /// # Safety
    /// No worker may see the flow.
    pub(crate) unsafe fn wipe(&self) {
        for key in &self.keys {
            // SAFETY: the caller is the only one who can reach the flow.
            unsafe { key.write(InKey::wipe) };
        }
    }

    fn roles(&self) -> Roles {
        self.roles.load(Ordering::Acquire).to_ne_bytes()
    }

    /// The key in the place that has `role`: 0 and 1 are of the first track.
    #[inline]
    fn held<'p>(&'p self, roles: Roles, role: usize, pin: &'p Pin<'_>) -> Option<Held<'p>> {
        self.held_at(*roles.get(role)?, role, pin)
    }

    /// The key in the place that the byte `named` of the roles names.
    #[inline]
    fn held_at<'p>(&'p self, named: u8, role: usize, _pin: &'p Pin<'_>) -> Option<Held<'p>> {
        let place = place(named)?;
        // SAFETY: the roles, read under this pin, named the place, so its key was written before (they are published by a
        // release). `take_in` writes it again only after a stamp taken when the place had left the roles has passed, which it
        // cannot before this pin ends.
        let key = unsafe { self.keys[place].read() };
        Some(Held {
            key,
            of: self,
            place: place as u8,
            role: role as u8,
        })
    }

    /// The keys that may open a packet with this F bit, the likeliest first. Reads none of them.
    #[inline]
    pub fn keys<'p>(&'p self, f: bool, pin: &'p Pin<'_>) -> impl Iterator<Item = Held<'p>> {
        let roles = self.roles();
        let wanted = move |role: &usize| has_f(roles[*role], f);
        (0..PLACES)
            .filter(wanted)
            .filter_map(move |role| self.held(roles, role, pin))
    }

    /// Where each track stands.
    #[must_use]
    pub fn heads(&self, pin: &Pin<'_>) -> ArrayVec<Head, TRACKS> {
        let roles = self.roles();
        [0, 2]
            .into_iter()
            .filter_map(|role| self.held(roles, role, pin))
            .map(|held| Head {
                epoch: held.key.epoch,
                kri: held.key.kri,
                highest_psntp: held.highest_psntp(),
            })
            .collect()
    }

    /// Takes in a packet whose options come in the clear, by its number from [`super::sequence::Sequence::extend`].
    ///
    /// # Errors
    /// [`Refused::Replay`].
    pub fn accept_in_clear(&self, number: u32) -> Result<(), Refused> {
        self.windows[0].accept(number).map_err(Refused::Replay)
    }

    /// Takes in a packet together with the new key that opened it. `is_live` says whether an epoch's secret is in use and its
    /// generation still sends.
    ///
    /// # Errors
    /// [`Refused`], and the flow's tracks stay as they were.
    pub fn take_in(
        &self,
        found: &Found<'_>,
        pin: &Pin<'_>,
        is_live: impl Fn(&Epoch) -> bool,
    ) -> Result<(), Refused> {
        if self
            .claim
            .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            return Err(Refused::Busy);
        }
        let result = self.take_in_claimed(found, pin, is_live);
        self.claim.store(0, Ordering::Release);
        result
    }

    fn take_in_claimed(
        &self,
        found: &Found<'_>,
        pin: &Pin<'_>,
        is_live: impl Fn(&Epoch) -> bool,
    ) -> Result<(), Refused> {
        let roles = self.roles();
        for role in 0..PLACES {
            if let Some(held) = self.held(roles, role, pin)
                && held.key.epoch == found.epoch
                && held.key.kri == found.kri
            {
                return held.accept(found.psntp, found.now);
            }
        }
        let (track, follows) = self.track_for(roles, found, pin, is_live)?;
        let Some(index) = self.unseen_place(roles, pin) else {
            self.make_room(roles, track, pin);
            return Err(Refused::Busy);
        };
        // SAFETY: only the holder of `claim` writes keys, this place is in no role, and the stamp taken when it left them
        // has passed, so nobody reads it.
        unsafe {
            self.keys[index].write(|key| {
                key.key = found.session.key;
                key.base_nonce = found.session.base_nonce;
                key.kri = found.kri;
                key.epoch = found.epoch;
                key.base_psntp = found.psntp;
            });
        }
        self.windows[index].reset();
        let mut next = roles;
        let before = if follows { roles[track] } else { NONE };
        let now = index as u8 | (found.kri as u8 & 1) << F_SHIFT;
        (next[track], next[track + 1]) = (now, before);
        let accepted = self
            .held_at(now, track, pin)
            .map_or(Err(Refused::Busy), |held| {
                held.accept(found.psntp, found.now)
            });
        self.publish(roles, next, pin);
        accepted
    }

    /// The role index (0 or 2) of the track that the key goes to, and whether it follows the key there.
    fn track_for(
        &self,
        roles: Roles,
        found: &Found<'_>,
        pin: &Pin<'_>,
        is_live: impl Fn(&Epoch) -> bool,
    ) -> Result<(usize, bool), Refused> {
        let mut vacant = None;
        let mut dead = None;
        let mut oldest = (u32::MAX, 0);
        for track in [0, 2] {
            let Some(held) = self.held(roles, track, pin) else {
                vacant = vacant.or(Some(track));
                continue;
            };
            let head = held.key;
            if !is_live(&head.epoch) {
                dead = dead.or(Some(track));
                continue;
            }
            if head.epoch.src_generation == found.epoch.src_generation {
                let forward = head.epoch.precedes(&found.epoch)
                    || (head.epoch == found.epoch && found.kri > head.kri);
                return if forward {
                    Ok((track, true))
                } else {
                    Err(Refused::Behind)
                };
            }
            if head.epoch.pms_serial > found.epoch.pms_serial {
                return Err(Refused::Behind);
            }
            oldest = oldest.min((held.used().load(Ordering::Relaxed), track));
        }
        Ok((vacant.or(dead).unwrap_or(oldest.1), false))
    }

    fn unseen_place(&self, roles: Roles, pin: &Pin<'_>) -> Option<usize> {
        (0..PLACES).find(|&index| {
            let stamp = Stamp::from_bits(self.stamps[index].load(Ordering::Relaxed));
            let in_use = roles.iter().any(|named| place(*named) == Some(index));
            !in_use && pin.quiescence().passed(stamp)
        })
    }

    /// Gives up a key before the one in use, so that its place is free once the burst is over.
    fn make_room(&self, roles: Roles, track: usize, pin: &Pin<'_>) {
        if roles.contains(&NONE) {
            return;
        }
        let mut next = roles;
        next[track + 1] = NONE;
        self.publish(roles, next, pin);
    }

    fn publish(&self, old: Roles, next: Roles, pin: &Pin<'_>) {
        self.roles
            .store(u32::from_ne_bytes(next), Ordering::Release);
        let gone = |role: &u8| !next.contains(role) && *role != NONE;
        if old.iter().any(gone) {
            let stamp = pin.quiescence().retire().to_bits();
            for place in old.iter().filter(|r| gone(r)).filter_map(|r| place(*r)) {
                self.stamps[place].store(stamp, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
#[path = "incoming_tests.rs"]
mod tests;
