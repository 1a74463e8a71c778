//! BLS12-381 as the identity-based mode needs it: safe types over blst, whose own safe ones are made for signatures.
#![allow(unsafe_code)]

use super::BadPoint;
use blst::{
    BLST_ERROR, blst_fp, blst_fp2, blst_fp6, blst_fp12, blst_hash_to_g1, blst_hash_to_g2, blst_p1,
    blst_p1_affine, blst_p1_compress, blst_p1_from_affine, blst_p1_in_g1, blst_p1_is_inf,
    blst_p1_to_affine, blst_p1_uncompress, blst_p2, blst_p2_affine, blst_p2_compress,
    blst_p2_from_affine, blst_p2_in_g2, blst_p2_is_inf, blst_p2_to_affine, blst_p2_uncompress,
    blst_scalar, blst_scalar_from_be_bytes, blst_sign_pk_in_g1, blst_sign_pk_in_g2,
};
use core::ptr;
use zeroize::{Zeroize, Zeroizing};

/// A number below r. blst's type zeroes itself when it is dropped.
pub(super) struct Scalar(blst_scalar);

impl Scalar {
    /// `number`, big-endian, mod r.
    pub(super) fn reduce(number: &[u8; 48]) -> Self {
        let mut scalar = blst_scalar::default();
        // It tells whether the result is 0, which is a number as any other here.
        // SAFETY: it reads 48 bytes at the second pointer and writes the 32 of `scalar`, whatever the values. Both live for
        // the call and do not overlap.
        let _ =
            unsafe { blst_scalar_from_be_bytes(&raw mut scalar, number.as_ptr(), number.len()) };
        Self(scalar)
    }
}

/// blst's plain numbers, that we wipe as any of them may belong to a secret point.
trait Wipe {
    fn wipe(&mut self);
}

impl Wipe for blst_fp {
    fn wipe(&mut self) {
        self.l.zeroize();
    }
}

impl Wipe for blst_fp2 {
    fn wipe(&mut self) {
        self.fp.iter_mut().for_each(Wipe::wipe);
    }
}

impl Wipe for blst_fp6 {
    fn wipe(&mut self) {
        self.fp2.iter_mut().for_each(Wipe::wipe);
    }
}

impl Wipe for blst_fp12 {
    fn wipe(&mut self) {
        self.fp6.iter_mut().for_each(Wipe::wipe);
    }
}

/// A value of blst's that is wiped when it is dropped.
struct Wiped<T: Wipe>(T);

impl<T: Wipe> Drop for Wiped<T> {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

macro_rules! group {
    (
        $(#[$doc:meta])* $name:ident: $point:ident, $affine:ident, $len:literal;
        $hash:ident, $sign:ident, $uncompress:ident, $from_affine:ident, $to_affine:ident, $in_group:ident, $is_inf:ident,
        $compress:ident
    ) => {
        impl Wipe for $point {
            fn wipe(&mut self) {
                self.x.wipe();
                self.y.wipe();
                self.z.wipe();
            }
        }

        impl Wipe for $affine {
            fn wipe(&mut self) {
                self.x.wipe();
                self.y.wipe();
            }
        }

        $(#[$doc])*
        ///
        /// Only this module makes values, each a point of the subgroup of order r, possibly the identity.
        pub(super) struct $name(Wiped<$point>);

        impl $name {
            /// RFC 9380's `hash_to_curve` with the domain separation tag `dst`.
            pub(super) fn hash(message: &[u8], dst: &[u8]) -> Self {
                let mut point = Wiped($point::default());
                // SAFETY: it reads the two slices as long as they are and nothing of the third, which is empty, and writes
                // one point. All live for the call; `point` is borrowed mutably, so it overlaps none of them.
                unsafe {
                    $hash(
                        &raw mut point.0,
                        message.as_ptr(),
                        message.len(),
                        dst.as_ptr(),
                        dst.len(),
                        ptr::null(),
                        0,
                    );
                }
                Self(point)
            }

            /// `scalar` times this point, in constant time.
            pub(super) fn times(&self, scalar: &Scalar) -> Self {
                let mut point = Wiped($point::default());
                // SAFETY: it reads one point of the subgroup and a scalar's 32 bytes below r, which is what these types hold,
                // and writes one point that nothing else refers to.
                unsafe { $sign(&raw mut point.0, &raw const self.0.0, &raw const scalar.0) };
                Self(point)
            }

            /// The point in its compressed form.
            pub(super) fn compress(&self) -> Zeroizing<[u8; $len]> {
                let mut bytes = Zeroizing::new([0; $len]);
                // SAFETY: it reads one point and writes as many bytes as the array has: 48 in G1, 96 in G2.
                unsafe { $compress(bytes.as_mut_ptr(), &raw const self.0.0) };
                bytes
            }

            /// The point that came from outside in its compressed form: of the subgroup, and not the identity.
            pub(super) fn uncompress(bytes: &[u8; $len]) -> Result<Self, BadPoint> {
                let mut affine = Wiped($affine::default());
                let mut point = Wiped($point::default());
                // SAFETY: it reads as many bytes as the array has, 48 in G1 and 96 in G2, and writes one affine point, or
                // nothing if it fails.
                let parsed = unsafe { $uncompress(&raw mut affine.0, bytes.as_ptr()) };
                match parsed {
                    BLST_ERROR::BLST_SUCCESS => {}
                    BLST_ERROR::BLST_POINT_NOT_IN_GROUP => return Err(BadPoint::Subgroup),
                    _ => return Err(BadPoint::Encoding),
                }
                // SAFETY: reads one affine point, writes one point; two variables of ours.
                unsafe { $from_affine(&raw mut point.0, &raw const affine.0) };
                // SAFETY: reads one point, which is on the curve: `parsed` says so.
                if unsafe { $is_inf(&raw const point.0) } {
                    return Err(BadPoint::Identity);
                }
                // SAFETY: as before.
                if !unsafe { $in_group(&raw const point.0) } {
                    return Err(BadPoint::Subgroup);
                }
                Ok(Self(point))
            }

            fn to_affine(&self) -> Wiped<$affine> {
                let mut affine = Wiped($affine::default());
                // SAFETY: reads one point and writes one affine point that nothing else refers to.
                unsafe { $to_affine(&raw mut affine.0, &raw const self.0.0) };
                affine
            }
        }
    };
}

group!(
    /// A point of G1.
    G1: blst_p1, blst_p1_affine, 48;
    blst_hash_to_g1, blst_sign_pk_in_g2, blst_p1_uncompress, blst_p1_from_affine, blst_p1_to_affine, blst_p1_in_g1,
    blst_p1_is_inf, blst_p1_compress
);

group!(
    /// A point of G2.
    G2: blst_p2, blst_p2_affine, 96;
    blst_hash_to_g2, blst_sign_pk_in_g1, blst_p2_uncompress, blst_p2_from_affine, blst_p2_to_affine, blst_p2_in_g2,
    blst_p2_is_inf, blst_p2_compress
);

/// `e(p, q)` in the bytes that the room's page describes.
pub(super) fn pairing(p: &G1, q: &G2) -> Zeroizing<[u8; 576]> {
    let miller = Wiped(blst_fp12::miller_loop(&q.to_affine().0, &p.to_affine().0));
    let power = Wiped(miller.0.final_exp());
    Zeroizing::new(power.0.to_bendian())
}
