//! Bytes of the packets that the appliance reads and writes.
//!
//! Nothing here knows of secrets, flows or devices: bytes in, bytes out. No function panics on any bytes, and those
//! that run per packet neither allocate nor loop further than the packet is long.

pub mod buffer;
pub mod common;
pub mod dest_opts;
pub mod frame;
pub mod icmpv6;
mod options;
pub mod pdm;
pub mod pdmv2;
pub mod tcp;
pub mod time;
pub mod tuple;

pub use buffer::{NoHeadroom, NoTailroom, PacketBuf, VecBuf};
pub use common::Common;
pub use dest_opts::{CannotInsert, Plan, insert, plan_insert, strip};
pub use frame::{Ipv6Packet, Malformed, OptionKind, Parsed, PdmOption, Untouched, parse};
pub use pdm::Pdm;
pub use pdmv2::{Metrics, OptionHeader, Prseq};
pub use time::ScaledDelta;
pub use tuple::FiveTuple;
