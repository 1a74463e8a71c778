//! The identity of one direction of a flow (protocol section 1).

/// Addresses, ports and upper-layer protocol of a packet, as the key schedule and the flow table name it.
///
/// Ports are numbers in host order, 0 for protocols that have none, ICMPv6 included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FiveTuple {
    /// Source address, network order.
    pub src: [u8; 16],
    /// Final destination address, network order.
    pub dst: [u8; 16],
    // In the order that has `ports` read one word.
    /// Destination port.
    pub dport: u16,
    /// Source port.
    pub sport: u16,
    /// Upper-layer protocol, an IANA protocol number.
    pub protocol: u8,
}

impl FiveTuple {
    /// Whether both are the same: `==` without a branch for each field, of which look-ups take one a packet.
    #[inline]
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let address = |bytes: &[u8; 16]| u128::from_ne_bytes(*bytes);
        let addresses =
            (address(&self.src) ^ address(&other.src)) | (address(&self.dst) ^ address(&other.dst));
        let upper = (self.ports() ^ other.ports()) | u32::from(self.protocol ^ other.protocol);
        addresses | u128::from(upper) == 0
    }

    fn ports(&self) -> u32 {
        u32::from(self.sport) << 16 | u32::from(self.dport)
    }

    /// Ports and protocol in one number.
    #[inline]
    #[must_use]
    pub fn upper(&self) -> u64 {
        u64::from(self.ports()) | u64::from(self.protocol) << 32
    }

    /// The tuple of the opposite direction.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            protocol: self.protocol,
        }
    }
}
