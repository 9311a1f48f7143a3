//! Formats of the 32-bit words in which weights are read: how they become numbers, in registers.

use pulp::{Simd, bytemuck};

/// A format of words.
pub trait WordFormat {
    /// Numbers of a word.
    const VALUES: usize;
    /// True if numbers are steps of a scale, counted from a zero.
    const PACKED: bool;

    /// Number `k` of each word, times [`factor(k)`](WordFormat::factor).
    fn value<S: Simd>(simd: S, words: S::u32s, k: usize) -> S::f32s;

    /// A power of two.
    fn factor(_: usize) -> f32 {
        1.0
    }
}

/// Shifts left, or right where `by` is negative.
#[inline(always)]
fn shift<S: Simd>(simd: S, words: S::u32s, by: i32) -> S::u32s {
    let amount = simd.splat_u32s(by.unsigned_abs());
    if by < 0 {
        simd.wrapping_dyn_shr_u32s(words, amount)
    } else {
        simd.wrapping_dyn_shl_u32s(words, amount)
    }
}

/// One number.
pub struct F32;

impl WordFormat for F32 {
    const VALUES: usize = 1;
    const PACKED: bool = false;

    #[inline(always)]
    fn value<S: Simd>(simd: S, words: S::u32s, _: usize) -> S::f32s {
        simd.transmute_f32s_u32s(words)
    }
}

/// Two, the first in the lower half.
pub struct Bf16;

impl WordFormat for Bf16 {
    const VALUES: usize = 2;
    const PACKED: bool = false;

    #[inline(always)]
    fn value<S: Simd>(simd: S, words: S::u32s, k: usize) -> S::f32s {
        simd.transmute_f32s_u32s(match k {
            0 => shift(simd, words, 16),
            _ => simd.and_u32s(words, simd.splat_u32s(0xffff_0000)),
        })
    }
}

/// Two, the first in the lower half.
pub struct F16;

impl WordFormat for F16 {
    const VALUES: usize = 2;
    const PACKED: bool = false;

    /// Exponent and mantissa are moved to their places in an f32, which is multiplied by two to the
    /// difference of the exponents' biases. Weights are finite.
    #[inline(always)]
    fn value<S: Simd>(simd: S, words: S::u32s, k: usize) -> S::f32s {
        const REBIAS: f32 = f32::from_bits((127 + 127 - 15) << 23);
        let upper = if k == 0 {
            shift(simd, words, 16)
        } else {
            words
        };
        let sign = simd.and_u32s(upper, simd.splat_u32s(0x8000_0000));
        let rest = simd.and_u32s(shift(simd, upper, -3), simd.splat_u32s(0x0fff_e000));
        let number = simd.transmute_f32s_u32s(simd.or_u32s(sign, rest));
        simd.mul_f32s(number, simd.splat_f32s(REBIAS))
    }
}

/// Packed numbers of `BITS` bits.
pub struct PackedBits<const BITS: usize>;

impl<const BITS: usize> WordFormat for PackedBits<BITS> {
    const VALUES: usize = 32 / BITS;
    const PACKED: bool = true;

    /// Numbers stay where they are in their word, which saves a shift; only the last is moved down,
    /// because in its place it is a negative integer.
    #[inline(always)]
    fn value<S: Simd>(simd: S, words: S::u32s, k: usize) -> S::f32s {
        if k + 1 == Self::VALUES {
            return from_integers(simd, shift(simd, words, BITS as i32 - 32));
        }
        let mask = simd.splat_u32s(((1 << BITS) - 1) << (BITS * k));
        from_integers(simd, simd.and_u32s(words, mask))
    }

    fn factor(k: usize) -> f32 {
        if k + 1 == Self::VALUES {
            1.0
        } else {
            (1u32 << (BITS * k)) as f32
        }
    }
}

/// Integers below 2^31 as floats. Compilers turn the loop over the lanes into one instruction.
#[inline(always)]
fn from_integers<S: Simd>(simd: S, words: S::u32s) -> S::f32s {
    let mut floats = simd.splat_f32s(0.0);
    let lanes = bytemuck::cast_slice_mut::<_, f32>(std::slice::from_mut(&mut floats));
    let words = bytemuck::cast_slice::<_, i32>(std::slice::from_ref(&words));
    for i in 0..S::F32_LANES {
        lanes[i] = words[i] as f32;
    }
    floats
}
