//! The options of a Hop-by-Hop or Destination Options header (RFC 8200 sections 4.2, 4.3 and 4.6).
//!
//! ```text
//! +---------------+---------------+- - - - - - - - - - - - - - - -
//! |  Next Header  |  Hdr Ext Len  |  options, each one of
//! +---------------+---------------+- - - - - - - - - - - - - - - -
//!
//! +---+                Pad1: a single byte 0
//! | 0 |
//! +---+---+- - - -     PadN: length, and that many zeros
//! | 1 | n |
//! +---+---+- - - -     any other: type, length, data
//! | t | n |
//! +---+---+- - - -
//! ```

/// Bytes in front of the first option: Next Header and Hdr Ext Len.
pub(super) const FIRST_OPTION: usize = 2;
/// The longest header: Hdr Ext Len 255.
pub(super) const MAX_HEADER: usize = 2048;

/// Option Type of one byte of padding.
pub(super) const PAD1: u8 = 0;
/// Option Type of two or more bytes of padding.
pub(super) const PADN: u8 = 1;
/// Option Type of a jumbogram's length (RFC 2675).
pub(super) const JUMBO_PAYLOAD: u8 = 0xc2;

/// One option and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Tlv<'a> {
    /// Option Type.
    pub kind: u8,
    /// Offset from the start of the header.
    pub at: usize,
    /// All of it: type, length and data, or the one byte of Pad1.
    pub bytes: &'a [u8],
}

impl Tlv<'_> {
    pub fn end(&self) -> usize {
        self.at + self.bytes.len()
    }

    pub fn is_padding(&self) -> bool {
        self.kind == PAD1 || self.kind == PADN
    }
}

/// An option that does not end within its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overrun;

/// The options of one header, in order. Ends after the first [`Overrun`].
pub(super) struct Options<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Options<'a> {
    /// `header` is the whole extension header, from Next Header on.
    pub fn of(header: &'a [u8]) -> Self {
        Self {
            rest: header.get(FIRST_OPTION..).unwrap_or_default(),
            at: FIRST_OPTION,
        }
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<Tlv<'a>, Overrun>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let size = match *self.rest {
            [] => return None,
            [PAD1, ..] => 1,
            [_, len, ..] => FIRST_OPTION + usize::from(len),
            [_] => usize::MAX,
        };
        let Some((bytes, rest)) = self.rest.split_at_checked(size) else {
            self.rest = &[];
            return Some(Err(Overrun));
        };
        let at = self.at;
        self.rest = rest;
        self.at += size;
        bytes.first().map(|&kind| Ok(Tlv { kind, at, bytes }))
    }
}

/// Fills a gap with padding: nothing, one Pad1, or one PadN of zeros. A gap is at most 257 bytes.
pub(super) fn pad(gap: &mut [u8]) {
    match gap {
        [] => {}
        [one] => *one = PAD1,
        // The two bytes that nearly every header has are worth no call to clear the rest.
        [kind, len] => (*kind, *len) = (PADN, 0),
        [kind, len, zeros @ ..] => {
            (*kind, *len) = (PADN, zeros.len() as u8);
            zeros.fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(header: &[u8]) -> Vec<Result<(u8, usize, usize), Overrun>> {
        Options::of(header)
            .map(|tlv| tlv.map(|t| (t.kind, t.at, t.end())))
            .collect()
    }

    #[test]
    fn walks_padding_and_options() {
        assert_eq!(
            walk(&[59, 1, 0, 0x1e, 2, 7, 7, 1, 3, 0, 0, 0, 0x8b, 0, 1, 0]),
            [
                Ok((0, 2, 3)),
                Ok((0x1e, 3, 7)),
                Ok((1, 7, 12)),
                Ok((0x8b, 12, 14)),
                Ok((1, 14, 16))
            ]
        );
    }

    #[test]
    fn stops_at_a_length_that_lies() {
        assert_eq!(walk(&[59, 0, 1, 5, 0, 0, 0, 0]), [Err(Overrun)]);
        assert_eq!(
            walk(&[59, 0, 1, 3, 0, 0, 0, 0x1e]),
            [Ok((1, 2, 7)), Err(Overrun)],
            "no length byte"
        );
        assert_eq!(walk(&[59]), []);
    }

    #[test]
    fn pads_any_gap() {
        for (len, wanted) in [(0, &[][..]), (1, &[0]), (2, &[1, 0]), (3, &[1, 1, 0])] {
            let mut gap = vec![0xee; len];
            pad(&mut gap);
            assert_eq!(gap, wanted);
        }
    }
}
