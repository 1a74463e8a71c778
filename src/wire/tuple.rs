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
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Upper-layer protocol, an IANA protocol number.
    pub protocol: u8,
}

impl FiveTuple {
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
