//! One packet in DPDK's memory.
//!
//! ```text
//!  buf_addr                                                        buf_addr + buf_len
//!  |<------- headroom ------->|<------- data ------->|<------ tailroom ------>|
//!                             ^ data_off             ^ data_off + data_len
//! ```
//!
//! The option is inserted by moving the headers forward into the headroom: 128 bytes, unless a driver leaves less.

use std::ptr::NonNull;
use std::slice;

use arrayvec::ArrayVec;

use super::ffi;
use crate::prefetch::{prefetch_line, prefetch_line_to_write};
use crate::wire::{NoHeadroom, NoTailroom, PacketBuf};

/// The largest burst, in packets.
pub const BURST: usize = 64;

/// Packets on their way between two queues, oldest first.
pub type Burst = ArrayVec<Mbuf, BURST>;

/// A packet that this process alone owns; dropping it returns the memory to its pool.
///
/// Only the first segment of a packet that a driver scattered over several is visible: see [`Mbuf::is_contiguous`]. Ports
/// are opened so that drivers do not scatter.
// Transparent, so that an array of these is what DPDK calls an array of `struct rte_mbuf *`.
#[repr(transparent)]
#[derive(Debug)]
pub struct Mbuf(NonNull<ffi::rte_mbuf>);

// SAFETY: the handle is the only way to the mbuf, pools accept mbufs from any thread (they are created multi-producer),
// and nothing in an mbuf belongs to the thread that received it.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes over a packet; `None` for a null pointer.
    ///
    /// # Safety
    /// `raw` is null, or the only reference to an allocated mbuf, with reference count 1 and not attached to another mbuf's
    /// buffer. The caller gives up the pointer.
    pub(super) unsafe fn from_raw(raw: *mut ffi::rte_mbuf) -> Option<Self> {
        NonNull::new(raw).map(Self)
    }

    fn header(&self) -> &ffi::rte_mbuf {
        // SAFETY: an `Mbuf` holds the only reference to an allocated mbuf, whose memory is never unmapped (see the room's
        // page), so the struct is initialised and nobody writes to it while `self` is borrowed.
        unsafe { self.0.as_ref() }
    }

    fn header_mut(&mut self) -> &mut ffi::rte_mbuf {
        // SAFETY: as in `header`; `&mut self` makes the reference exclusive.
        unsafe { self.0.as_mut() }
    }

    /// Fetches what DPDK notes of the packet, which every other method reads.
    #[inline]
    pub(super) fn prefetch_header(&self) {
        prefetch_line(self.0.as_ptr().cast());
    }

    /// Whether all of the packet is in [`PacketBuf::data`].
    #[inline]
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        self.header().nb_segs == 1
    }
}

impl PacketBuf for Mbuf {
    #[inline]
    fn data(&self) -> &[u8] {
        let m = self.header();
        // SAFETY: DPDK's invariant, kept by every method here: buf_addr points to buf_len bytes and
        // data_off + data_len <= buf_len. The bytes are initialised, as the memory came zeroed from the kernel, and no
        // other reference to the buffer exists, so nobody writes to them while `self` is borrowed.
        unsafe {
            let start = m.buf_addr.cast::<u8>().add(usize::from(m.data_off));
            slice::from_raw_parts(start, usize::from(m.data_len))
        }
    }

    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        let m = self.header_mut();
        // SAFETY: as in `data`; `&mut self` makes the reference exclusive.
        unsafe {
            let start = m.buf_addr.cast::<u8>().add(usize::from(m.data_off));
            slice::from_raw_parts_mut(start, usize::from(m.data_len))
        }
    }

    #[inline]
    fn headroom(&self) -> usize {
        usize::from(self.header().data_off)
    }

    #[inline]
    fn prepend(&mut self, n: usize) -> Result<(), NoHeadroom> {
        let m = self.header_mut();
        let Some((n, offset)) = u16::try_from(n)
            .ok()
            .and_then(|n| Some((n, m.data_off.checked_sub(n)?)))
        else {
            return Err(NoHeadroom { wanted: n });
        };
        // The end of the data stays where it is, so data_off + data_len <= buf_len still holds, and nothing wraps.
        m.data_off = offset;
        m.data_len = m.data_len.wrapping_add(n);
        m.pkt_len = m.pkt_len.wrapping_add(u32::from(n));
        Ok(())
    }

    #[inline]
    fn trim_front(&mut self, n: usize) {
        let m = self.header_mut();
        // At most data_len, so the sums below cannot wrap and the end of the data stays where it is.
        let n = u16::try_from(n).unwrap_or(u16::MAX).min(m.data_len);
        m.data_off += n;
        m.data_len -= n;
        m.pkt_len = m.pkt_len.saturating_sub(u32::from(n));
    }

    #[inline]
    fn resize(&mut self, len: usize) -> Result<(), NoTailroom> {
        let m = self.header_mut();
        let room = m.buf_len.saturating_sub(m.data_off);
        match u16::try_from(len) {
            // The tail of a scattered packet is in another segment.
            Ok(len) if len <= room && m.nb_segs == 1 => {
                m.data_len = len;
                m.pkt_len = u32::from(len);
                Ok(())
            }
            _ => Err(NoTailroom { wanted: len }),
        }
    }

    #[inline]
    fn prefetch(&self, grows: bool) {
        let m = self.header();
        let start = m
            .buf_addr
            .cast::<u8>()
            .wrapping_add(usize::from(m.data_off));
        let other = if grows {
            start.wrapping_sub(CACHE_LINE)
        } else {
            start.wrapping_add(CACHE_LINE)
        };
        prefetch_line_to_write(start);
        prefetch_line_to_write(other);
    }
}

/// Bytes of a cache line.
const CACHE_LINE: usize = 64;

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the only reference to an allocated mbuf, given up here. Its pool still exists: pools are never freed.
        unsafe { ffi::pdmgate_free(self.0.as_ptr()) }
    }
}

/// Returns the memory of all packets of `burst`, in one call.
#[inline]
pub fn free(burst: &mut Burst) {
    let count = burst.len() as u32; // at most BURST
    // SAFETY: no longer the vector's elements, so that they are not dropped a second time.
    unsafe { burst.set_len(0) };
    // SAFETY: the first `count` slots hold what were elements a moment ago: each the only reference to an allocated mbuf,
    // given up here. `Mbuf` is a transparent wrapper of a pointer, so the cast changes nothing.
    unsafe { ffi::rte_pktmbuf_free_bulk(burst.as_mut_ptr().cast(), count) };
}
