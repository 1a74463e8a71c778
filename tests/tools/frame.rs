//! The little that the wire wants to know of a frame: which flow it is of, and where its PDMv2 option stands.
//! Written apart from the appliance's parser on purpose.

/// Length in bytes of a sealed PDMv2 option, its two bytes of type and length included.
pub const SEALED_OPTION: usize = 36;

/// A flow as the wire sees it: one direction of a 5-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
    /// Source and destination port; 0 for protocols other than TCP and UDP.
    pub ports: (u16, u16),
    /// Upper-layer protocol.
    pub protocol: u8,
}

/// What the wire found in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The flow.
    pub flow: Flow,
    /// Offset of the first option of the wanted type in a Destination Options header, and its whole length, in bytes.
    pub option: Option<(usize, usize)>,
}

/// Looks through an Ethernet frame with up to two VLAN tags. `None` unless it is IPv6 and whole up to its upper layer.
pub fn look(frame: &[u8], option_type: u8) -> Option<Found> {
    let mut at = 12;
    for _ in 0..2 {
        if matches!(word(frame, at)?, 0x8100 | 0x88a8) {
            at += 4;
        }
    }
    if word(frame, at)? != 0x86dd {
        return None;
    }
    let ip = frame.get(at + 2..)?;
    let start = at + 2;
    let source = ip.get(8..24)?.try_into().ok()?;
    let destination = ip.get(24..40)?.try_into().ok()?;
    let mut protocol = *ip.get(6)?;
    let mut offset = 40;
    let mut option = None;
    while let 0 | 43 | 60 = protocol {
        let length = 8 * (usize::from(*ip.get(offset + 1)?) + 1);
        let header = ip.get(offset..offset + length)?;
        if protocol == 60 && option.is_none() {
            option = find(header, option_type).map(|(from, size)| (start + offset + from, size));
        }
        protocol = header[0];
        offset += length;
    }
    let ports = match protocol {
        6 | 17 => (word(ip, offset)?, word(ip, offset + 2)?),
        _ => (0, 0),
    };
    Some(Found {
        flow: Flow {
            source,
            destination,
            ports,
            protocol,
        },
        option,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn find(header: &[u8], option_type: u8) -> Option<(usize, usize)> {
    let mut at = 2;
    while let Some(&kind) = header.get(at) {
        if kind == 0 {
            at += 1;
            continue;
        }
        let size = 2 + usize::from(*header.get(at + 1)?);
        if kind == option_type {
            return (at + size <= header.len()).then_some((at, size));
        }
        at += size;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(options: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([
            0x86,
            0xdd,
            0x60,
            0,
            0,
            0,
            0,
            0,
            if options.is_empty() { 17 } else { 60 },
            64,
        ]);
        frame.extend([1; 16]);
        frame.extend([2; 16]);
        frame.extend(options);
        frame.extend([0x12, 0x34, 0x00, 0x35, 0, 8, 0, 0]);
        frame
    }

    #[test]
    fn finds_flow_and_option() {
        let found = look(&udp(&[]), 0x0f).unwrap();
        assert_eq!(
            found.flow,
            Flow {
                source: [1; 16],
                destination: [2; 16],
                ports: (0x1234, 0x35),
                protocol: 17
            }
        );
        assert_eq!(found.option, None);

        let mut header = [0u8; 40];
        header[..6].copy_from_slice(&[17, 4, 1, 0, 0x0f, 0x22]);
        let found = look(&udp(&header), 0x0f).unwrap();
        assert_eq!(found.option, Some((54 + 4, SEALED_OPTION)));
        assert_eq!(found.flow.ports, (0x1234, 0x35));
        assert_eq!(look(&udp(&header), 0x1f).unwrap().option, None);
    }

    #[test]
    fn never_reads_outside() {
        let mut header = [0u8; 40];
        header[..6].copy_from_slice(&[17, 4, 1, 0, 0x0f, 0xff]);
        assert_eq!(look(&udp(&header), 0x0f).unwrap().option, None);
        let frame = udp(&header);
        for length in 0..frame.len() - 4 {
            assert_eq!(look(&frame[..length], 0x0f), None, "{length}");
        }
    }
}
