//! A packet's bytes with room in front and behind, so that all packet code runs on plain memory too.

use thiserror::Error;

/// Less room in front of the packet than an insertion needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no headroom for {wanted} more bytes in front of the packet")]
pub struct NoHeadroom {
    /// Bytes asked for.
    pub wanted: usize,
}

/// Less room behind the packet than a longer one needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no tailroom for a packet of {wanted} bytes")]
pub struct NoTailroom {
    /// Length asked for, in bytes.
    pub wanted: usize,
}

/// One packet in one contiguous piece of memory.
pub trait PacketBuf {
    /// The packet, from the Ethernet header on.
    fn data(&self) -> &[u8];
    /// The packet, writable.
    fn data_mut(&mut self) -> &mut [u8];
    /// Bytes that can be put in front.
    fn headroom(&self) -> usize;
    /// Moves the start of the packet `n` bytes forward; the new bytes hold anything.
    ///
    /// # Errors
    /// [`NoHeadroom`] leaves the packet as it was.
    fn prepend(&mut self, n: usize) -> Result<(), NoHeadroom>;
    /// Takes `n` bytes off the front; all of them if the packet has fewer.
    fn trim_front(&mut self, n: usize);
    /// Cuts the packet's tail, or grows it by bytes that hold anything, to `len` bytes.
    ///
    /// # Errors
    /// [`NoTailroom`] leaves the packet as it was.
    fn resize(&mut self, len: usize) -> Result<(), NoTailroom>;
    /// Has the processor fetch what will be read and written soon: the packet's first bytes, and those in front of them if the packet
    /// `grows`, else those behind. A packet that no device and no other core has written need not be fetched.
    fn prefetch(&self, _grows: bool) {}
}

/// A packet on the heap with as much headroom as an mbuf has.
#[derive(Clone, Debug)]
pub struct VecBuf {
    memory: Vec<u8>,
    start: usize,
}

impl VecBuf {
    /// Bytes in front of a new packet: `RTE_PKTMBUF_HEADROOM` of Debian's DPDK.
    pub const HEADROOM: usize = 128;

    /// A copy of `packet` with room in front.
    #[must_use]
    pub fn new(packet: &[u8]) -> Self {
        let mut memory = vec![0; Self::HEADROOM];
        memory.extend_from_slice(packet);
        Self {
            memory,
            start: Self::HEADROOM,
        }
    }
}

impl PacketBuf for VecBuf {
    fn data(&self) -> &[u8] {
        &self.memory[self.start..]
    }

    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..]
    }

    fn headroom(&self) -> usize {
        self.start
    }

    fn prepend(&mut self, n: usize) -> Result<(), NoHeadroom> {
        self.start = self.start.checked_sub(n).ok_or(NoHeadroom { wanted: n })?;
        Ok(())
    }

    fn trim_front(&mut self, n: usize) {
        self.start = (self.start + n).min(self.memory.len());
    }

    fn resize(&mut self, len: usize) -> Result<(), NoTailroom> {
        self.memory.resize(self.start + len, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_shrinks_at_the_front() {
        let mut p = VecBuf::new(b"payload");
        p.prepend(3).unwrap();
        p.data_mut()[..3].copy_from_slice(b"abc");
        assert_eq!(p.data(), b"abcpayload");
        p.trim_front(4);
        assert_eq!(p.data(), b"ayload");
        assert_eq!(p.prepend(1_000), Err(NoHeadroom { wanted: 1_000 }));
        assert_eq!(p.data(), b"ayload");
        p.trim_front(100);
        assert!(p.data().is_empty());
    }

    #[test]
    fn resizes_the_tail() {
        let mut p = VecBuf::new(b"abc");
        p.resize(5).unwrap();
        assert_eq!(p.data().len(), 5);
        p.resize(2).unwrap();
        assert_eq!(p.data(), b"ab");
    }
}
