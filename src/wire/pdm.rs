//! The PDM option (RFC 8250 section 3.2), which PDMv2 replaces.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+---------------+---------------+
//! |  Option Type  |    10         |   ScaleDTLR   |   ScaleDTLS   |
//! +---------------+---------------+---------------+---------------+
//! |        PSN This Packet        |       PSN Last Received       |
//! +-------------------------------+-------------------------------+
//! |    Delta Time Last Received   |     Delta Time Last Sent      |
//! +-------------------------------+-------------------------------+
//! ```

use super::time::ScaledDelta;

/// Option Length of PDM.
pub const PDM_LEN: u8 = 0x0a;
/// Bytes of the whole option, type and length included.
pub const PDM_SIZE: usize = 12;

/// What a PDM option tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pdm {
    /// Delta Time Last Received with its scale.
    pub dtlr: ScaledDelta,
    /// Delta Time Last Sent with its scale.
    pub dtls: ScaledDelta,
    /// Packet Sequence Number This Packet.
    pub psntp: u16,
    /// Packet Sequence Number Last Received.
    pub psnlr: u16,
}

impl Pdm {
    /// Reads a whole option. Type and length are not looked at: [`super::frame::parse`] has told it to be PDM.
    #[must_use]
    pub const fn from_bytes(option: &[u8; PDM_SIZE]) -> Self {
        let &[_, _, scale_dtlr, scale_dtls, p0, p1, l0, l1, r0, r1, s0, s1] = option;
        Self {
            dtlr: ScaledDelta {
                delta: u16::from_be_bytes([r0, r1]),
                scale: scale_dtlr,
            },
            dtls: ScaledDelta {
                delta: u16::from_be_bytes([s0, s1]),
                scale: scale_dtls,
            },
            psntp: u16::from_be_bytes([p0, p1]),
            psnlr: u16::from_be_bytes([l0, l1]),
        }
    }

    /// Writes the whole option.
    #[must_use]
    pub const fn to_bytes(self, option_type: u8) -> [u8; PDM_SIZE] {
        let [p0, p1] = self.psntp.to_be_bytes();
        let [l0, l1] = self.psnlr.to_be_bytes();
        let [r0, r1] = self.dtlr.delta.to_be_bytes();
        let [s0, s1] = self.dtls.delta.to_be_bytes();
        [
            option_type,
            PDM_LEN,
            self.dtlr.scale,
            self.dtls.scale,
            p0,
            p1,
            l0,
            l1,
            r0,
            r1,
            s0,
            s1,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_stand_where_rfc_8250_puts_them() {
        let pdm = Pdm {
            dtlr: ScaledDelta {
                delta: 0x0506,
                scale: 0x2a,
            },
            dtls: ScaledDelta {
                delta: 0x0708,
                scale: 0x2b,
            },
            psntp: 0x0102,
            psnlr: 0x0304,
        };
        let bytes = [0x0f, 0x0a, 0x2a, 0x2b, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(pdm.to_bytes(0x0f), bytes);
        assert_eq!(Pdm::from_bytes(&bytes), pdm);
    }

    proptest! {
        #[test]
        fn reads_back_any_bytes(mut option in any::<[u8; PDM_SIZE]>()) {
            option[1] = PDM_LEN;
            prop_assert_eq!(Pdm::from_bytes(&option).to_bytes(option[0]), option);
        }
    }
}
