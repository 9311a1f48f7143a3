//! How words of 32 bits become numbers, in registers.

use pulp::Simd;

/// How words become numbers.
pub trait Held {
    /// Numbers of a word.
    const VALUES: usize;
    /// Whether numbers are in steps of a scale, from a zero.
    const PACKED: bool;
    /// What their products are still to be multiplied with.
    const STEPS: f32;

    /// Number `k` of each word.
    fn value<S: Simd>(simd: S, words: S::u32s, k: usize) -> S::f32s;
}

/// Moves bits up, or down where `by` is negative.
#[inline(always)]
fn shift<S: Simd>(simd: S, words: S::u32s, by: i32) -> S::u32s {
    let amount = simd.splat_u32s(by.unsigned_abs());
    match by < 0 {
        true => simd.wrapping_dyn_shr_u32s(words, amount),
        false => simd.wrapping_dyn_shl_u32s(words, amount),
    }
}

/// One number.
pub struct F32;

impl Held for F32 {
    const VALUES: usize = 1;
    const PACKED: bool = false;
    const STEPS: f32 = 1.0;

    #[inline(always)]
    fn value<S: Simd>(simd: S, words: S::u32s, _: usize) -> S::f32s {
        simd.transmute_f32s_u32s(words)
    }
}

/// Two, the first in the lower half.
pub struct Bf16;

impl Held for Bf16 {
    const VALUES: usize = 2;
    const PACKED: bool = false;
    const STEPS: f32 = 1.0;

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

impl Held for F16 {
    const VALUES: usize = 2;
    const PACKED: bool = false;
    const STEPS: f32 = 1.0;

    /// Exponent and mantissa in their places of an f32, times the difference of the exponents' biases. Weights are finite.
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

/// Packed numbers `q` of `BITS`, as `1 + q / 2^BITS`: their bits in the upper end of the mantissa of one, which
/// spares a conversion.
pub struct Packing<const BITS: usize>;

impl<const BITS: usize> Held for Packing<BITS> {
    const VALUES: usize = 32 / BITS;
    const PACKED: bool = true;
    const STEPS: f32 = (1 << BITS) as f32;

    #[inline(always)]
    fn value<S: Simd>(simd: S, words: S::u32s, k: usize) -> S::f32s {
        let place = 23 - BITS;
        let bits = shift(simd, words, place as i32 - (BITS * k) as i32);
        let mask = simd.splat_u32s(((1 << BITS) - 1) << place);
        let one = simd.splat_u32s(1f32.to_bits());
        simd.transmute_f32s_u32s(simd.or_u32s(simd.and_u32s(bits, mask), one))
    }
}
