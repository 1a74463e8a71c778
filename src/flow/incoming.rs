//! The receiver's half of a flow: which keys open it, and which packets were opened already (protocol section 4).
//!
//! A flow has up to two *tracks*, one per sending generation; a track is the key that opened last and the one before it, each
//! with its own replay window. Keys stand in up to four places: the flow's own, all that it needs until a key changes, and more taken from
//! the table's pool ([`super::places`]) when the flow needs one more. One word says which of them plays which role, and with which F bit,
//! so that the key of a packet is fetched without a look at the others:
//!
//! ```text
//! roles    track 0: now | track 0: before | track 1: now | track 1: before      a byte each: place + 4 * F, or NONE
//! places   the flow's own | second | third | fourth                             number in the pool + 1, or 0: not taken yet
//! ```
//!
//! State changes only after a packet opened. Taking in a new key is rare; whichever worker wins `claim` does it, and one that
//! loses lets its packet go on unmeasured rather than wait. A place whose key has left the roles is written again only after
//! every worker has ended the burst in which it might have read it. A number of a place, once there, stays until the flow ends, so roles
//! that are out of date still lead to the same place.
//!
//! A track only moves forward (a higher Kri of its epoch, or an epoch that [`Epoch::precedes`] allows), so a key that left the
//! roles never comes back with an empty window. What breaks if that is lost: packets recorded earlier are accepted again.

use super::epoch::Epoch;
use super::owner::Access;
use super::places::{Place, Places};
use super::quiescence::{Pin, Stamp};
use super::replay::{Replay, Window};
use super::sync::{AtomicU32, AtomicU64, Ordering};
use crate::crypto::{Aead, SessionKey};
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

/// A key that opens packets of a flow. 64 bytes.
#[derive(Default)]
#[repr(C)]
pub struct InKey {
    /// The key and its base nonce.
    pub session: SessionKey,
    /// The sender's Key Rotation Index.
    pub kri: u32,
    /// The epoch that Kri counts in.
    pub epoch: Epoch,
    base_psntp: u16,
    /// [`Aead::id`].
    aead: u16,
}

impl InKey {
    /// What the key opens with.
    #[inline]
    #[must_use]
    pub fn aead(&self) -> Aead {
        // Memory that is all zero has no key.
        Aead::try_from(self.aead).unwrap_or_default()
    }

    /// The F bit that its packets carry.
    #[must_use]
    pub fn f(&self) -> bool {
        self.kri & 1 == 1
    }

    pub(super) fn wipe(&mut self) {
        self.session.zeroize();
    }
}

/// A key with what its place remembers.
#[derive(Clone, Copy)]
pub struct Held<'p> {
    /// The key.
    pub key: &'p InKey,
    window: &'p Window,
    of: &'p Incoming,
    role: u8,
}

/// Why an opened packet's option is not used after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The packet was seen before, or is too old to tell.
    Replay(Replay),
    /// Its key is behind what the flow has moved to.
    Behind,
    /// Another worker is changing the flow's keys, or the place for a new one is not free yet, or the pool has none left.
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
    /// What the key opens with.
    pub aead: Aead,
    /// The packet's PSNTP.
    pub psntp: u16,
    /// A PSNTP before it: nothing up to that one is to be accepted under the key.
    pub after: Option<u16>,
    /// The time, in cycles.
    pub now: u64,
    /// The worker's access to the receiver's half.
    pub access: Access<'k>,
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

/// The receiver's half of a flow. `places`, for all that take them, are those of the table that the flow is in.
///
/// Only key changes touch the stamps. The own key is a cache line of the entry, and its window and all that follows another.
#[repr(C)]
pub struct Incoming {
    /// When each place's key left the roles.
    stamps: [AtomicU64; PLACES],
    /// The first place.
    own: Place,
    /// The others: number in the pool + 1, or 0 where none was taken yet.
    more: [AtomicU32; PLACES - 1],
    roles: AtomicU32,
    claim: AtomicU32,
    /// When each track last accepted a packet, in ticks of 2^[`TICK_SHIFT`] cycles.
    used: [AtomicU32; TRACKS],
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

/// Whether the roles name a place.
fn is_named(roles: Roles, index: usize) -> bool {
    roles.iter().any(|named| place(*named) == Some(index))
}

impl Held<'_> {
    /// Whether it is the one that opened last on its track, not the one before.
    #[inline]
    #[must_use]
    pub fn is_newest(&self) -> bool {
        self.role.is_multiple_of(2)
    }

    /// Which of the flow's tracks it is on: 0 or 1.
    #[inline]
    #[must_use]
    pub fn track(&self) -> u8 {
        self.role / 2
    }

    fn used(&self) -> &AtomicU32 {
        &self.of.used[usize::from(self.track()) % TRACKS]
    }

    /// Fetches what [`Held::accept`] needs, and the key.
    #[inline]
    pub fn prefetch(&self) {
        super::prefetch(self.key);
        super::prefetch(self.window);
    }

    /// Takes in a packet that opened with this key.
    ///
    /// # Errors
    /// [`Refused::Replay`].
    #[inline]
    pub fn accept(&self, psntp: u16, now: u64, access: Access<'_>) -> Result<(), Refused> {
        let step = psntp.wrapping_sub(self.key.base_psntp) as i16;
        let number = WINDOW_ORIGIN.wrapping_add_signed(i32::from(step));
        self.window
            .accept(number, access)
            .map_err(Refused::Replay)?;
        let tick = (now >> TICK_SHIFT) as u32;
        let used = self.used();
        if used.load(Ordering::Relaxed) != tick {
            used.store(tick, Ordering::Relaxed);
        }
        Ok(())
    }

    fn highest_psntp(&self) -> u16 {
        let above = self
            .window
            .highest()
            .map_or(0, |n| n.wrapping_sub(WINDOW_ORIGIN));
        self.key.base_psntp.wrapping_add(above as u16)
    }
}

impl Incoming {
    #[cfg(any(test, feature = "loom"))]
    pub(crate) fn new() -> Self {
        let incoming = Self {
            stamps: std::array::from_fn(|_| AtomicU64::new(0)),
            own: Place::new(),
            more: std::array::from_fn(|_| AtomicU32::new(0)),
            roles: AtomicU32::new(0),
            claim: AtomicU32::new(0),
            used: std::array::from_fn(|_| AtomicU32::new(0)),
        };
        incoming.reset();
        incoming
    }

    /// Makes a fresh half without keys; to be called before anyone else can see the flow. Its own place is empty and it has no others: the
    /// flow before left it so.
    pub(crate) fn reset(&self) {
        self.roles
            .store(u32::from_ne_bytes([NONE; 4]), Ordering::Relaxed);
        self.claim.store(0, Ordering::Relaxed);
        for stamp in &self.stamps {
            stamp.store(0, Ordering::Relaxed);
        }
    }

    /// Overwrites the keys and gives their places back.
    ///
    /// # Safety
    /// No worker may see the flow, and `places` are those of its table.
    pub(crate) unsafe fn wipe(&self, places: &Places) {
        // SAFETY: the caller is the only one who can reach the flow.
        unsafe { self.own.wipe() };
        self.own.window.reset();
        for place in &self.more {
            if let Some(number) = place.load(Ordering::Relaxed).checked_sub(1) {
                place.store(0, Ordering::Relaxed);
                // SAFETY: the flow took the place and names it no more, and the caller is the only one who can reach the flow.
                unsafe { places.give_back(number) };
            }
        }
    }

    fn roles(&self) -> Roles {
        self.roles.load(Ordering::Acquire).to_ne_bytes()
    }

    /// What says which place of the pool is the flow's place `place`; `None` for its own.
    #[inline]
    fn taken(&self, place: usize) -> Option<&AtomicU32> {
        self.more.get(place.wrapping_sub(1))
    }

    /// Whether the flow has its place `place`.
    fn has(&self, place: usize) -> bool {
        self.taken(place)
            .is_none_or(|number| number.load(Ordering::Relaxed) != 0)
    }

    /// The flow's place `place`, if it has it.
    #[inline]
    fn at<'p>(&'p self, place: usize, places: &'p Places) -> Option<&'p Place> {
        match self.taken(place) {
            None => Some(&self.own),
            // Without one, the number is beyond any pool's.
            Some(number) => places.get(number.load(Ordering::Acquire).wrapping_sub(1)),
        }
    }

    /// Fetches the own key's window, and what says which key a packet needs.
    #[inline]
    pub(crate) fn prefetch(&self) {
        super::prefetch(&self.own.window);
    }

    /// The key in the place that has `role`: 0 and 1 are of the first track.
    #[inline]
    fn held<'p>(
        &'p self,
        roles: Roles,
        role: usize,
        _pin: &'p Pin<'_>,
        places: &'p Places,
    ) -> Option<Held<'p>> {
        let place = self.at(place(*roles.get(role)?)?, places)?;
        // SAFETY: the roles, read under this pin, named the place, so its key was written before (they are published by a
        // release). The place, its own or one of the pool, is this flow's alone until the flow ends, which it cannot before this pin
        // does; and of this flow only `take_in` writes it again, after a stamp taken when the place had left the roles has passed, which
        // it cannot before this pin ends either. (`take_in` itself asks for a role that it has yet to publish: it wrote the key before,
        // and nobody else writes while it holds the claim.)
        let key = unsafe { place.key.read() };
        Some(Held {
            key,
            window: &place.window,
            of: self,
            role: role as u8,
        })
    }

    /// The keys that may open a packet with this F bit, the likeliest first. Reads none of them.
    #[inline]
    pub fn keys<'p>(
        &'p self,
        f: bool,
        pin: &'p Pin<'_>,
        places: &'p Places,
    ) -> impl Iterator<Item = Held<'p>> {
        let roles = self.roles();
        let wanted = move |role: &usize| has_f(roles[*role], f);
        (0..PLACES)
            .filter(wanted)
            .filter_map(move |role| self.held(roles, role, pin, places))
    }

    /// Where each track stands.
    #[must_use]
    pub fn heads(&self, pin: &Pin<'_>, places: &Places) -> ArrayVec<Head, TRACKS> {
        let roles = self.roles();
        [0, 2]
            .into_iter()
            .filter_map(|role| self.held(roles, role, pin, places))
            .map(|held| Head {
                epoch: held.key.epoch,
                kri: held.key.kri,
                highest_psntp: held.highest_psntp(),
            })
            .collect()
    }

    /// Takes in a packet whose options come in the clear, by its number from [`super::sequence::Sequence::extend`].
    /// Its window is that of the flow's own place.
    ///
    /// # Errors
    /// [`Refused::Replay`].
    pub fn accept_in_clear(&self, number: u32, access: Access<'_>) -> Result<(), Refused> {
        let accepted = self.own.window.accept(number, access);
        accepted.map_err(Refused::Replay)
    }

    /// Does what only one worker may do at a time; with another one at it, nothing.
    fn claimed<T>(&self, change: impl FnOnce() -> Result<T, Refused>) -> Result<T, Refused> {
        if self
            .claim
            .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            return Err(Refused::Busy);
        }
        let result = change();
        self.claim.store(0, Ordering::Release);
        result
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
        places: &Places,
        is_live: impl Fn(&Epoch) -> bool,
    ) -> Result<(), Refused> {
        self.claimed(|| self.take_in_claimed(found, pin, places, is_live))
    }

    fn take_in_claimed(
        &self,
        found: &Found<'_>,
        pin: &Pin<'_>,
        places: &Places,
        is_live: impl Fn(&Epoch) -> bool,
    ) -> Result<(), Refused> {
        let roles = self.roles();
        for role in 0..PLACES {
            if let Some(held) = self.held(roles, role, pin, places)
                && held.key.epoch == found.epoch
                && held.key.kri == found.kri
            {
                return held.accept(found.psntp, found.now, found.access);
            }
        }
        let (track, follows) = self.track_for(roles, found, pin, places, is_live)?;
        let unseen = self.unseen_place(roles, pin, places);
        let Some((index, place)) = unseen.and_then(|n| Some((n, self.at(n, places)?))) else {
            self.make_room(roles, track, pin);
            return Err(Refused::Busy);
        };
        // SAFETY: the place is this flow's alone, one of the pool from when it was taken until the flow ends. Of this flow, only the
        // holder of `claim` writes keys. Nobody reads this one: the place is in no role, and either the stamp taken when it left
        // them has passed, or it never was in one.
        unsafe {
            place.key.write(|key| {
                key.session.copy_from(found.session);
                key.kri = found.kri;
                key.epoch = found.epoch;
                key.base_psntp = found.psntp;
                key.aead = found.aead.id();
            });
        }
        place.window.reset();
        if let Some(after) = found.after {
            let step = after.wrapping_sub(found.psntp) as i16;
            let last = WINDOW_ORIGIN.wrapping_add_signed(i32::from(step));
            place.window.close(last);
        }
        let mut next = roles;
        let before = if follows { roles[track] } else { NONE };
        let now = index as u8 | (found.kri as u8 & 1) << F_SHIFT;
        (next[track], next[track + 1]) = (now, before);
        let accepted = self
            .held(next, track, pin, places)
            .map_or(Err(Refused::Busy), |held| {
                held.accept(found.psntp, found.now, found.access)
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
        places: &Places,
        is_live: impl Fn(&Epoch) -> bool,
    ) -> Result<(usize, bool), Refused> {
        let held = |track| self.held(roles, track, pin, places);
        // A sender has one track, on which it goes forward only, also when it is in no list any more. It starts over where the secret is gone.
        for track in [0, 2] {
            if let Some(Held { key: head, .. }) = held(track)
                && head.epoch.src_generation == found.epoch.src_generation
            {
                let forward = head.epoch.precedes(&found.epoch)
                    || (head.epoch == found.epoch && found.kri > head.kri);
                let starts_over = head.epoch.pms_serial != found.epoch.pms_serial;
                return if forward || (starts_over && !is_live(&head.epoch)) {
                    Ok((track, forward))
                } else {
                    Err(Refused::Behind)
                };
            }
        }
        let mut vacant = None;
        let mut dead = None;
        let mut oldest = (u32::MAX, 0);
        for track in [0, 2] {
            let Some(held) = held(track) else {
                vacant = vacant.or(Some(track));
                continue;
            };
            let head = held.key;
            if !is_live(&head.epoch) {
                dead = dead.or(Some(track));
                continue;
            }
            if head.epoch.pms_serial > found.epoch.pms_serial {
                return Err(Refused::Behind);
            }
            oldest = oldest.min((held.used().load(Ordering::Relaxed), track));
        }
        Ok((vacant.or(dead).unwrap_or(oldest.1), false))
    }

    /// A place of the flow that nobody reads, another one taken for it if need be. Only the holder of `claim` asks.
    fn unseen_place(&self, roles: Roles, pin: &Pin<'_>, places: &Places) -> Option<usize> {
        let unseen = |&index: &usize| {
            let stamp = Stamp::from_bits(self.stamps[index].load(Ordering::Relaxed));
            self.has(index) && !is_named(roles, index) && pin.quiescence().passed(stamp)
        };
        (0..PLACES).find(unseen).or_else(|| self.take_place(places))
    }

    /// Takes one more place from the pool. Only the holder of `claim` does.
    fn take_place(&self, places: &Places) -> Option<usize> {
        let index = (0..PLACES).find(|&index| !self.has(index))?;
        let taken = self.taken(index)?;
        taken.store(places.take()? + 1, Ordering::Release);
        Some(index)
    }

    /// Gives up a key before one in use, so that its place is free once the burst is over.
    fn make_room(&self, roles: Roles, track: usize, pin: &Pin<'_>) {
        // A place of the flow that is in no role will be free then anyway.
        if (0..PLACES).any(|index| self.has(index) && !is_named(roles, index)) {
            return;
        }
        // With the pool used up, the track itself may have none to give.
        let mut next = roles;
        let befores = [track + 1, (track + 3) % PLACES];
        if let Some(before) = befores.into_iter().find(|&role| roles[role] != NONE) {
            next[before] = NONE;
            self.publish(roles, next, pin);
        }
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
