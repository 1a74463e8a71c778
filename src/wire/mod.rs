//! Bytes of the packets that the appliance reads and writes.

pub mod buffer;
pub mod tuple;

pub use buffer::{NoHeadroom, NoTailroom, PacketBuf, VecBuf};
pub use tuple::FiveTuple;
