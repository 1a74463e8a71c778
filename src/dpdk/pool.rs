//! The memory packets are received into.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use thiserror::Error;

use super::ffi;
use super::{Eal, Errno, Mbuf};

/// Mbufs a core keeps to itself, so that it rarely touches what all cores share.
const CORE_CACHE: u32 = 256;

/// More does not fit a buffer whose length, with its headroom, is a 16-bit number.
const LARGEST: usize = u16::MAX as usize - ffi::RTE_PKTMBUF_HEADROOM as usize;

/// `SOCKET_ID_ANY`.
const ANY_SOCKET: i32 = -1;

/// How much of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Packets. All descriptors of all receive and transmit queues can be filled at once, and every core caches up to 384
    /// more: with fewer mbufs packets are lost that a port could hold.
    pub mbufs: u32,
    /// Bytes of one packet buffer for a frame, without its headroom. Cards take buffers in units of 1024; what is not a whole unit is
    /// lost to them.
    pub size: u16,
    /// The NUMA node to be on, where there are several: that of the cards.
    pub socket: Option<u16>,
}

impl PoolConfig {
    /// Bytes of one packet buffer, headroom included.
    fn data_room(&self) -> usize {
        ffi::RTE_PKTMBUF_HEADROOM as usize + usize::from(self.size)
    }

    /// Bytes of memory to give EAL: the pool, and what rings, queues and drivers take.
    pub(super) fn memory(&self) -> usize {
        const MBUF: usize = size_of::<ffi::rte_mbuf>() + 64; // and the pool's own header in front of each
        const REST: usize = 64 << 20;
        (self.mbufs as usize)
            .saturating_mul(self.data_room() + MBUF)
            .saturating_add(REST)
    }
}

/// Why a pool could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PoolError {
    /// EAL has no memory for it.
    #[error(
        "cannot allocate {mbufs} packet buffers of {data_room} bytes: {errno}; use fewer mbufs or reserve more hugepages"
    )]
    Create {
        /// Packets asked for.
        mbufs: u32,
        /// Bytes of each.
        data_room: usize,
        /// DPDK's reason.
        errno: Errno,
    },
    /// A buffer's length is a 16-bit number.
    #[error(
        "packet buffers of {size} bytes are not possible, {} are at most",
        LARGEST
    )]
    Size {
        /// Bytes asked for.
        size: u16,
    },
}

/// A pool of packet buffers, shared by all ports and threads. It lives until the process ends.
#[derive(Debug)]
pub struct Pool {
    raw: NonNull<ffi::rte_mempool>,
    mbufs: u32,
}

// SAFETY: the pool is created with the default flags, multi-producer and multi-consumer, so any thread may allocate and
// free at any time; per-core caches are only used by the EAL thread that owns them.
unsafe impl Send for Pool {}
// SAFETY: as above; `&Pool` allocates and counts, both of which DPDK allows concurrently.
unsafe impl Sync for Pool {}

impl Pool {
    /// Allocates and links all packet buffers.
    ///
    /// # Errors
    /// See [`PoolError`].
    pub fn create(_eal: &Eal, config: &PoolConfig) -> Result<Self, PoolError> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let room = config.data_room();
        let data_room = u16::try_from(room).map_err(|_| PoolError::Size { size: config.size })?;
        let failed = |errno| PoolError::Create {
            mbufs: config.mbufs,
            data_room: room,
            errno,
        };
        let name = format!("pdmgate_{}", SERIAL.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(name).map_err(|_| failed(Errno(libc::EINVAL)))?;
        // A small pool must not disappear in the caches.
        let cache = CORE_CACHE.min(config.mbufs / 16);
        // SAFETY: EAL is initialised (`_eal` proves it) and `name` is a terminated string that is only read.
        let create = |socket| unsafe {
            ffi::rte_pktmbuf_pool_create(name.as_ptr(), config.mbufs, cache, 0, data_room, socket)
        };
        let mut raw = create(config.socket.map_or(ANY_SOCKET, i32::from));
        if raw.is_null() && config.socket.is_some() {
            tracing::warn!(
                socket = config.socket,
                "no memory for packets on this NUMA node, taking another"
            );
            raw = create(ANY_SOCKET);
        }
        match NonNull::new(raw) {
            Some(raw) => Ok(Self {
                raw,
                mbufs: config.mbufs,
            }),
            None => Err(failed(Errno::last())),
        }
    }

    /// An empty packet with the usual headroom, or `None` when the pool is exhausted.
    #[inline]
    #[must_use]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool exists as pools are never freed. A new mbuf has reference count 1 and its own buffer.
        unsafe { Mbuf::from_raw(ffi::pdmgate_alloc(self.raw.as_ptr())) }
    }

    /// Packets the pool was made with.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.mbufs
    }

    /// Packets not in use at the moment, those in the cores' caches included. A look at every cache: not for each packet.
    #[must_use]
    pub fn available(&self) -> u32 {
        // SAFETY: the pool exists as pools are never freed; counting concurrently with use is allowed and only inexact.
        unsafe { ffi::rte_mempool_avail_count(self.raw.as_ptr()) }
    }

    pub(super) fn as_ptr(&self) -> *mut ffi::rte_mempool {
        self.raw.as_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_have_their_size_and_the_headroom() {
        let room = |size| {
            let config = PoolConfig {
                mbufs: 1,
                size,
                socket: None,
            };
            config.data_room()
        };
        assert_eq!(room(2048), 128 + 2048);
        let largest = LARGEST as u16;
        assert!(u16::try_from(room(largest)).is_ok());
        assert!(u16::try_from(room(largest + 1)).is_err());
    }
}
