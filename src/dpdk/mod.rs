//! EAL, ports, pools and packet buffers as safe types; the only place that calls the bindings.
//!
//! ```text
//!   Eal ── launch ──► worker lcores, each owning ── RxQueue ◄─┐
//!    │                                          └── TxQueue ◄─┤
//!    ├──► Pool (mbufs) ──────────────────────────────────────►├── Port::open
//!    └──► Device (PCI address or vdev string) ───────────────►┘
//! ```
//!
//! What makes the safe types safe:
//!
//! - Nothing here is ever unmapped. A [`Pool`] lives until the process ends and `rte_eal_cleanup` is not called, so an
//!   [`Mbuf`] is valid wherever and for however long it is kept. The process ending is what returns the memory; there
//!   is nothing on disk that would have to be removed.
//! - Each receive and each transmit queue exists once, as an owned handle that needs `&mut` to be used. A port is stopped
//!   and closed when its last handle is dropped, so no queue is polled while its port stops.
//! - An [`Mbuf`] is one packet with one owner. Transmitting moves it to the driver; what the driver did not take stays.
#![allow(unsafe_code)]

mod cores;
mod device;
mod eal;
mod ffi;
mod hugepages;
mod log;
mod mbuf;
mod pool;
mod port;
mod queue;
mod rss;
mod tsc;

use std::fmt;
use std::io;

pub use cores::Cores;
pub use device::{Device, DeviceError};
pub use eal::{Eal, EalConfig, EalError, LaunchError, Worker};
pub use hugepages::Hugepages;
pub use mbuf::{BURST, Burst, Mbuf, free};
pub use pool::{Pool, PoolConfig, PoolError};
pub use port::{Link, OpenPort, Port, PortConfig, PortError, PortStats};
pub use queue::{RxQueue, TxQueue};
pub use rss::Rss;
pub use tsc::Calibration;

/// The processor's time stamp counter, at [`Eal::tsc_hz`] ticks a second.
#[inline]
#[must_use]
pub fn cycles() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and it touches nothing.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// An error number as DPDK reports it, shown as the system's text for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// From a DPDK function that returns 0 or more, or the error number negated.
    fn check(returned: i32) -> Result<i32, Self> {
        if returned < 0 {
            Err(Self(returned.saturating_neg()))
        } else {
            Ok(returned)
        }
    }

    /// The error of the calling thread's last DPDK call that reports through `rte_errno`.
    fn last() -> Self {
        // SAFETY: reads a thread-local integer; there are no preconditions.
        Self(unsafe { ffi::pdmgate_errno() })
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}
