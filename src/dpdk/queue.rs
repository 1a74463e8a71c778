//! Where packets come from and go to.

use std::sync::Arc;

use super::ffi;
use super::port::Opened;
use super::{BURST, Burst};
use crate::dpdk::Mbuf;

/// One receive queue of a port, and its only handle.
#[derive(Debug)]
pub struct RxQueue {
    port: Arc<Opened>,
    queue: u16,
}

/// One transmit queue of a port, and its only handle.
#[derive(Debug)]
pub struct TxQueue {
    port: Arc<Opened>,
    queue: u16,
}

/// No receive queue holds more packets: numbers of descriptors are of 16 bits.
const MOST_HELD: usize = 1 << 16;

impl RxQueue {
    /// # Safety
    /// `port` is started and has the receive queue `queue`, for which there is no other handle.
    pub(super) unsafe fn new(port: Arc<Opened>, queue: u16) -> Self {
        Self { port, queue }
    }

    /// Adds the packets that have arrived behind those already in `burst`, as many as there is room for, and returns how
    /// many. Some drivers only deliver to room for at least 4 to 32 packets, so `burst` should be empty.
    #[inline]
    pub fn burst(&mut self, burst: &mut Burst) -> usize {
        let held = burst.len();
        let room = (BURST - held) as u16; // held is at most BURST
        // SAFETY: `held` is at most the capacity, so this points into the vector's array or to its end.
        let free = unsafe { burst.as_mut_ptr().add(held) };
        // SAFETY: the port is started for as long as `self.port` is held, the queue is one of its own and `&mut self` the
        // only way to it. `free` has room for `room` pointers, and `Mbuf` is a transparent wrapper of one.
        let received =
            unsafe { ffi::pdmgate_rx_burst(self.port.id, self.queue, free.cast(), room) };
        let received = usize::from(received.min(room));
        // SAFETY: the driver has written `received` pointers behind the `held` ones, none of them null, each to an mbuf that
        // is its receiver's alone: reference count 1, in a buffer that no other mbuf uses.
        unsafe { burst.set_len(held + received) };
        // A ring hands over what another core wrote last.
        burst.iter().skip(held).for_each(Mbuf::prefetch_header);
        received
    }

    /// Frees what has arrived up to now. Where packets arrive as fast as they are freed, it ends all the same, having freed more
    /// than a queue holds.
    pub(super) fn discard(&mut self) {
        let mut burst = Burst::new();
        for _ in 0..MOST_HELD / BURST {
            let received = self.burst(&mut burst);
            burst.clear();
            if received < BURST {
                break;
            }
        }
    }
}

impl TxQueue {
    /// # Safety
    /// `port` is started and has the transmit queue `queue`, for which there is no other handle.
    pub(super) unsafe fn new(port: Arc<Opened>, queue: u16) -> Self {
        Self { port, queue }
    }

    /// Sends as many packets from the front of `burst` as the driver takes, and returns how many. The others move to the
    /// front, in order: to be sent later or freed.
    #[inline]
    pub fn burst(&mut self, burst: &mut Burst) -> usize {
        let held = burst.len();
        let packets: *mut Mbuf = burst.as_mut_ptr();
        // SAFETY: none of the slots counts as an element any more, so that nothing is freed that the driver has.
        unsafe { burst.set_len(0) };
        // SAFETY: the port is started for as long as `self.port` is held, the queue is one of its own and `&mut self` the
        // only way to it. The first `held` slots are pointers to mbufs that are ours alone, `Mbuf` being a transparent
        // wrapper of one; those the driver takes are not looked at again.
        let sent =
            unsafe { ffi::pdmgate_tx_burst(self.port.id, self.queue, packets.cast(), held as u16) };
        let sent = usize::from(sent).min(held);
        let kept = held - sent;
        if kept > 0 {
            // SAFETY: slots `sent .. held` hold the packets that the driver did not take; they move within the array, and
            // `copy` allows overlap.
            unsafe { packets.copy_from(packets.add(sent), kept) };
        }
        // SAFETY: the first `kept` slots hold the packets that were not taken, each once.
        unsafe { burst.set_len(kept) };
        sent
    }
}
