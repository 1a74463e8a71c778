//! The PDMv2 option (draft-ietf-ippm-encrypted-pdmv2-02 section 6.3; protocol section 1).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+-------+-----------------------+  --
//! |  Option Type  | Option Length | Vrsn=2|     Reserved (12)     |   header: additional
//! +---------------+---------------+-------+-------+---------------+   data of the seal
//! |     Random Number (15)      |F|   ScaleDTLR   |   ScaleDTLS   |  --
//! +-----------------------------+-+---------------+---------------+   metrics: 14 bytes,
//! |                        Global Pointer (32)                    |   in the clear, or
//! +-------------------------------+-------------------------------+   sealed and followed
//! |      PSN This Packet (16)     |     PSN Last Received (16)    |   by a 16-byte tag
//! +-------------------------------+-------------------------------+
//! |   Delta Time Last Received    |      Delta Time Last Sent     |
//! +-------------------------------+-------------------------------+  --
//! ```

use std::num::NonZeroU16;

use thiserror::Error;

use super::time::ScaledDelta;

pub use super::pdm::PDM_LEN;

/// Option Type of RFC 8250, which the draft keeps. A configuration may choose another.
pub const DEFAULT_OPTION_TYPE: u8 = 0x0f;
/// Version Number in the four highest bits of the third byte.
pub const VERSION: u8 = 2;
/// Option Length of PDMv2 in the clear.
pub const CLEAR_LEN: u8 = 0x12;
/// Option Length of sealed PDMv2.
pub const SEALED_LEN: u8 = 0x22;
/// Bytes from Option Type to PRSEQ and F.
pub const HEADER_LEN: usize = 6;
/// Bytes of the metrics, which are the plaintext of the seal.
pub const METRICS_LEN: usize = 14;
/// Bytes of the authentication tag.
pub const TAG_LEN: usize = 16;
/// Bytes of a whole option in the clear, type and length included.
pub const CLEAR_SIZE: usize = HEADER_LEN + METRICS_LEN;
/// Bytes of a whole sealed option, type and length included.
pub const SEALED_SIZE: usize = HEADER_LEN + METRICS_LEN + TAG_LEN;

/// Where Global Pointer stands, behind the scales.
const GLOBAL_POINTER_AT: usize = HEADER_LEN + 2;

const _: () =
    assert!(CLEAR_SIZE == 2 + CLEAR_LEN as usize && SEALED_SIZE == 2 + SEALED_LEN as usize);

/// The Random Number field: 1 … 32767, never repeated under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prseq(NonZeroU16);

impl Prseq {
    /// The largest value, and how many there are under one key.
    pub const MAX: u16 = 0x7fff;

    /// `None` for 0 and for what does not fit 15 bits.
    #[must_use]
    pub const fn new(value: u16) -> Option<Self> {
        if value > Self::MAX {
            return None;
        }
        match NonZeroU16::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// `value` where it is in range, else the nearest that is.
    #[must_use]
    pub const fn saturating(value: u16) -> Self {
        let in_range = if value > Self::MAX { Self::MAX } else { value };
        match NonZeroU16::new(in_range) {
            Some(value) => Self(value),
            None => Self(NonZeroU16::MIN),
        }
    }

    /// The number, 1 … 32767.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

/// The seven metrics of PDMv2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Delta Time Last Received with its scale.
    pub dtlr: ScaledDelta,
    /// Delta Time Last Sent with its scale.
    pub dtls: ScaledDelta,
    /// Global Pointer: packets sent by the node from addresses of this type.
    pub global_pointer: u32,
    /// Packet Sequence Number This Packet.
    pub psntp: u16,
    /// Packet Sequence Number Last Received.
    pub psnlr: u16,
}

impl Metrics {
    /// Whether the sender had received nothing on the flow yet: PSNLR and DeltaTLR are both 0 then, and it answers nothing.
    #[must_use]
    pub fn has_heard_nothing(&self) -> bool {
        self.psnlr == 0 && self.dtlr == ScaledDelta::ZERO
    }

    /// Reads the metrics of a clear or opened option. Every value is legal.
    #[must_use]
    pub const fn from_bytes(bytes: &[u8; METRICS_LEN]) -> Self {
        let &[
            scale_dtlr,
            scale_dtls,
            g0,
            g1,
            g2,
            g3,
            p0,
            p1,
            l0,
            l1,
            r0,
            r1,
            s0,
            s1,
        ] = bytes;
        Self {
            dtlr: ScaledDelta {
                delta: u16::from_be_bytes([r0, r1]),
                scale: scale_dtlr,
            },
            dtls: ScaledDelta {
                delta: u16::from_be_bytes([s0, s1]),
                scale: scale_dtls,
            },
            global_pointer: u32::from_be_bytes([g0, g1, g2, g3]),
            psntp: u16::from_be_bytes([p0, p1]),
            psnlr: u16::from_be_bytes([l0, l1]),
        }
    }

    /// The metrics as they stand in the option, from ScaleDTLR on.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; METRICS_LEN] {
        let [g0, g1, g2, g3] = self.global_pointer.to_be_bytes();
        let [p0, p1] = self.psntp.to_be_bytes();
        let [l0, l1] = self.psnlr.to_be_bytes();
        let [r0, r1] = self.dtlr.delta.to_be_bytes();
        let [s0, s1] = self.dtls.delta.to_be_bytes();
        [
            self.dtlr.scale,
            self.dtls.scale,
            g0,
            g1,
            g2,
            g3,
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

/// Why six bytes do not open a PDMv2 option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotPdmv2 {
    /// Neither the clear nor the sealed length.
    #[error("PDMv2 has Option Length {CLEAR_LEN:#04x} or {SEALED_LEN:#04x}, found {found:#04x}")]
    Length {
        /// Option Length found.
        found: u8,
    },
    /// Another version.
    #[error("PDMv2 has version {VERSION}, found {found}")]
    Version {
        /// Version Number found.
        found: u8,
    },
    /// A Random Number that no sender uses.
    #[error("the Random Number of PDMv2 is 1 to {max}, found 0", max = Prseq::MAX)]
    PrseqZero,
}

/// The first six bytes of a PDMv2 option, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// Whether 14 bytes of ciphertext and a tag follow, or 14 bytes of metrics.
    pub sealed: bool,
    /// Random Number.
    pub prseq: Prseq,
    /// Flag bit: the lowest bit of Kri.
    pub f: bool,
}

impl OptionHeader {
    /// Reads the header. The option's type is not looked at, the reserved bits are ignored.
    ///
    /// # Errors
    /// [`NotPdmv2`] names the first field that PDMv2 does not have this way.
    pub const fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Result<Self, NotPdmv2> {
        let &[_, option_len, version, _, r0, r1] = bytes;
        let sealed = match option_len {
            CLEAR_LEN => false,
            SEALED_LEN => true,
            found => return Err(NotPdmv2::Length { found }),
        };
        if version >> 4 != VERSION {
            return Err(NotPdmv2::Version {
                found: version >> 4,
            });
        }
        let random = u16::from_be_bytes([r0, r1]);
        match Prseq::new(random >> 1) {
            Some(prseq) => Ok(Self {
                sealed,
                prseq,
                f: random & 1 == 1,
            }),
            None => Err(NotPdmv2::PrseqZero),
        }
    }
}

/// Writes the option's first six bytes, reserved bits 0. They are the additional data of the seal.
#[must_use]
pub const fn option_header(
    option_type: u8,
    option_len: u8,
    prseq: Prseq,
    f: bool,
) -> [u8; HEADER_LEN] {
    let [r0, r1] = (prseq.get() << 1 | f as u16).to_be_bytes();
    [option_type, option_len, VERSION << 4, 0, r0, r1]
}

/// Writes a whole option in the clear.
#[must_use]
pub fn write_clear(option_type: u8, prseq: Prseq, f: bool, metrics: &Metrics) -> [u8; CLEAR_SIZE] {
    let mut option = [0; CLEAR_SIZE];
    let (header, body) = option.split_at_mut(HEADER_LEN);
    header.copy_from_slice(&option_header(option_type, CLEAR_LEN, prseq, f));
    body.copy_from_slice(&metrics.to_bytes());
    option
}

/// Writes a sealed option up to its tag, still to be sealed: its metrics are plain.
#[inline]
#[must_use]
pub fn unsealed(option_type: u8, prseq: Prseq, f: bool, metrics: &Metrics) -> [u8; CLEAR_SIZE] {
    // In words, since bytes one by one cost as much as all else that is done to a packet's headers.
    let random = u64::from(prseq.get() << 1 | u16::from(f));
    let scales = u16::from_be_bytes([metrics.dtlr.scale, metrics.dtls.scale]);
    let to_pointer = random << 48 | u64::from(scales) << 32 | u64::from(metrics.global_pointer);
    let numbers = u64::from(metrics.psntp) << 48 | u64::from(metrics.psnlr) << 32;
    let deltas = u64::from(metrics.dtlr.delta) << 16 | u64::from(metrics.dtls.delta);
    let mut option = [0; CLEAR_SIZE];
    let start = u32::from_le_bytes([0, SEALED_LEN, VERSION << 4, 0]) | u32::from(option_type);
    option[..4].copy_from_slice(&start.to_le_bytes());
    option[4..12].copy_from_slice(&to_pointer.to_be_bytes());
    option[12..].copy_from_slice(&(numbers | deltas).to_be_bytes());
    option
}

/// Writes Global Pointer into an option, clear or not sealed yet: into what both have.
#[inline]
pub fn set_global_pointer(option: &mut [u8; CLEAR_SIZE], global_pointer: u32) {
    option[GLOBAL_POINTER_AT..][..4].copy_from_slice(&global_pointer.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_stand_where_the_figure_puts_them() {
        let metrics = Metrics {
            dtlr: ScaledDelta {
                delta: 0x090a,
                scale: 0x2a,
            },
            dtls: ScaledDelta {
                delta: 0x0b0c,
                scale: 0x2b,
            },
            global_pointer: 0x0102_0304,
            psntp: 0x0506,
            psnlr: 0x0708,
        };
        let prseq = Prseq::new(0x7ffe).unwrap();
        assert_eq!(
            write_clear(0x0f, prseq, true, &metrics),
            [
                0x0f, 0x12, 0x20, 0x00, 0xff, 0xfd, 0x2a, 0x2b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
                12
            ]
        );
        assert_eq!(
            option_header(0x2f, SEALED_LEN, Prseq::new(1).unwrap(), false),
            [0x2f, 0x22, 0x20, 0, 0, 2]
        );
    }

    #[test]
    fn prseq_is_1_to_32767() {
        assert_eq!(Prseq::new(0), None);
        assert_eq!(Prseq::new(1).map(Prseq::get), Some(1));
        assert_eq!(Prseq::new(32_767).map(Prseq::get), Some(32_767));
        assert_eq!(Prseq::new(32_768), None);
    }

    #[test]
    fn header_says_what_is_wrong() {
        let read = |bytes| OptionHeader::from_bytes(&bytes);
        assert_eq!(
            read([15, 0x0a, 0x20, 0, 0, 2]),
            Err(NotPdmv2::Length { found: 0x0a })
        );
        assert_eq!(
            read([15, 0x22, 0x10, 0, 0, 2]),
            Err(NotPdmv2::Version { found: 1 })
        );
        assert_eq!(read([15, 0x22, 0x20, 0, 0, 1]), Err(NotPdmv2::PrseqZero));
        let reserved_bits_set = read([15, 0x22, 0x2f, 0xff, 0, 3]).unwrap();
        assert_eq!(
            (reserved_bits_set.prseq.get(), reserved_bits_set.f),
            (1, true)
        );
        assert_eq!(
            NotPdmv2::Version { found: 1 }.to_string(),
            "PDMv2 has version 2, found 1"
        );
    }

    proptest! {
        #[test]
        fn words_are_the_bytes_of_the_parts(
            option_type in any::<u8>(), prseq in 1..=Prseq::MAX, f in any::<bool>(), body in any::<[u8; METRICS_LEN]>()
        ) {
            let prseq = Prseq::new(prseq).unwrap();
            let option = unsealed(option_type, prseq, f, &Metrics::from_bytes(&body));
            prop_assert_eq!(&option[..HEADER_LEN], &option_header(option_type, SEALED_LEN, prseq, f));
            prop_assert_eq!(&option[HEADER_LEN..], &body);
            let pointer = Metrics::from_bytes(&body).global_pointer;
            let mut renumbered = unsealed(
                option_type, prseq, f, &Metrics { global_pointer: !pointer, ..Metrics::from_bytes(&body) },
            );
            set_global_pointer(&mut renumbered, pointer);
            prop_assert_eq!(renumbered, option);
        }

        #[test]
        fn metrics_read_back_any_bytes(bytes in any::<[u8; METRICS_LEN]>()) {
            prop_assert_eq!(Metrics::from_bytes(&bytes).to_bytes(), bytes);
        }

        #[test]
        fn header_reads_back(prseq in 1u16..=0x7fff, f: bool, sealed: bool, option_type: u8) {
            let prseq = Prseq::new(prseq).unwrap();
            let option_len = if sealed { SEALED_LEN } else { CLEAR_LEN };
            let bytes = option_header(option_type, option_len, prseq, f);
            prop_assert_eq!(OptionHeader::from_bytes(&bytes), Ok(OptionHeader { sealed, prseq, f }));
        }

        #[test]
        fn header_of_any_bytes_is_legal_or_refused(bytes in any::<[u8; HEADER_LEN]>()) {
            if let Ok(header) = OptionHeader::from_bytes(&bytes) {
                prop_assert!((1..=0x7fff).contains(&header.prseq.get()));
            }
        }
    }
}
