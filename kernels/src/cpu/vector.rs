//! Loops over rows, compiled for each instruction set and chosen at run time.

use std::mem::MaybeUninit;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use pulp::{Arch, Simd, WithSimd};

use super::exp::exp_nonpositive;

/// Declares functions whose loops the compiler vectorises for the instruction set found at run
/// time.
///
/// The body has to be inlined into the function that has the instruction set's target feature. Only
/// `inline(always)` guarantees that; closures are not always inlined.
macro_rules! vectorised {
    ($($(#[$doc:meta])* fn $name:ident<'a>($($arg:ident: $type:ty),*) -> $out:ty $body:block)*) => {$(
        $(#[$doc])*
        pub fn $name<'a>(arch: Arch, $($arg: $type),*) -> $out {
            struct Loop<'a> {
                $($arg: $type),*
            }
            impl<'a> WithSimd for Loop<'a> {
                type Output = $out;
                #[inline(always)]
                fn with_simd<S: Simd>(self, _: S) -> $out {
                    let Loop { $($arg),* } = self;
                    $body
                }
            }
            arch.dispatch(Loop { $($arg),* })
        }
    )*};
}

/// Independent partial results of a reduction, so that it can be vectorised; fixed, so that the
/// order of additions is the same on every machine.
const LANES: usize = 16;

/// The loops for code that is already compiled for an instruction set.
pub mod inlined {
    use super::LANES;
    use crate::cpu::exp::exp2_nonpositive;

    /// Adds lane by lane, then the lanes, then the rest: the same order everywhere.
    #[inline(always)]
    pub fn sum(row: &[f32]) -> f32 {
        let mut lanes = [0f32; LANES];
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane += x;
            }
        }
        lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()
    }

    /// Largest value of a row; minus infinity for an empty one.
    #[inline(always)]
    pub fn max(row: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane = if x > *lane { x } else { *lane };
            }
        }
        let mut max = f32::NEG_INFINITY;
        for &x in lanes.iter().chain(rest) {
            max = if x > max { x } else { max };
        }
        max
    }

    /// Replaces the row by `2^(x - max)` and returns its sum; `max` is at least every value.
    #[inline(always)]
    pub fn exp2_sum(row: &mut [f32], max: f32) -> f32 {
        let mut lanes = [0f32; LANES];
        let (chunks, rest) = row.as_chunks_mut::<LANES>();
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *x = exp2_nonpositive(*x - max);
                *lane += *x;
            }
        }
        let mut sum = 0f32;
        for x in rest {
            *x = exp2_nonpositive(*x - max);
            sum += *x;
        }
        sum + lanes.iter().sum::<f32>()
    }

    /// Multiplies a row by a number.
    #[inline(always)]
    pub fn scale(row: &mut [f32], factor: f32) {
        for x in row.iter_mut() {
            *x *= factor;
        }
    }

    /// Sum of products.
    #[inline(always)]
    pub fn dot(a: &[f32], b: &[f32]) -> f32 {
        let mut lanes = [0f32; LANES];
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        for (a, b) in a.iter().zip(b) {
            for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                *lane = a.mul_add(*b, *lane);
            }
        }
        let rest = a_rest.iter().zip(b_rest);
        lanes.iter().sum::<f32>() + rest.map(|(a, b)| a * b).sum::<f32>()
    }

    /// `out += factor * row`.
    #[inline(always)]
    pub fn add_scaled(out: &mut [f32], factor: f32, row: &[f32]) {
        for (out, x) in out.iter_mut().zip(row) {
            *out = x.mul_add(factor, *out);
        }
    }
}

#[inline(always)]
fn unpack<const BITS: usize, const VALUES: usize>(words: &[i32], out: &mut [f32]) {
    for (word, out) in words.iter().zip(out.as_chunks_mut::<VALUES>().0) {
        for (k, out) in out.iter_mut().enumerate() {
            *out = ((*word as u32 >> (BITS * k)) & ((1 << BITS) - 1)) as f32;
        }
    }
}

vectorised! {
    /// Largest value of a row; minus infinity for an empty one.
    fn max<'a>(row: &'a [f32]) -> f32 {
        inlined::max(row)
    }

    /// Replaces the row by `exp(x - max)` and returns its sum; `max` is at least every value.
    fn exp_sum<'a>(row: &'a mut [f32], max: f32) -> f32 {
        for x in row.iter_mut() {
            *x = exp_nonpositive(*x - max);
        }
        inlined::sum(row)
    }

    /// Multiplies a row by a number.
    fn scale<'a>(row: &'a mut [f32], factor: f32) -> () {
        inlined::scale(row, factor);
    }

    /// `out = x / rms(x) * weight`.
    fn rms_norm<'a>(x: &'a [f32], weight: &'a [f32], epsilon: f32, out: &'a mut [f32]) -> () {
        for (out, x) in out.iter_mut().zip(x) {
            *out = x * x;
        }
        let mean = inlined::sum(out) / x.len() as f32;
        let factor = 1.0 / (mean + epsilon).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * factor * weight;
        }
    }

    /// `out = up * gate * sigmoid(gate)`.
    fn swiglu<'a>(up: &'a [f32], gate: &'a [f32], out: &'a mut [MaybeUninit<f32>]) -> () {
        for ((out, up), gate) in out.iter_mut().zip(up).zip(gate) {
            // exp of minus the magnitude never overflows; the two forms of the sigmoid are equal.
            let e = exp_nonpositive(-gate.abs());
            let sigmoid = if *gate >= 0.0 { 1.0 } else { e } / (1.0 + e);
            out.write(up * gate * sigmoid);
        }
    }

    /// Adds one row's part to `d_weight` and writes its `d_x`.
    fn rms_norm_backward<'a>(
        x: &'a [f32],
        weight: &'a [f32],
        epsilon: f32,
        d_output: &'a [f32],
        d_x: &'a mut [f32],
        d_weight: &'a mut [f32]
    ) -> () {
        for (d_x, x) in d_x.iter_mut().zip(x) {
            *d_x = x * x;
        }
        let factor = 1.0 / (inlined::sum(d_x) / x.len() as f32 + epsilon).sqrt();
        for (((d_x, x), weight), d_output) in d_x.iter_mut().zip(x).zip(weight).zip(d_output) {
            *d_x = d_output * weight * x;
        }
        let along = inlined::sum(d_x) / x.len() as f32 * factor * factor * factor;
        let rows = d_x.iter_mut().zip(x).zip(weight).zip(d_output);
        for ((((d_x, x), weight), d_output), d_weight) in rows.zip(d_weight) {
            *d_x = d_output * weight * factor - x * along;
            *d_weight += d_output * x * factor;
        }
    }

    /// Gradients of both factors.
    fn swiglu_backward<'a>(
        up: &'a [f32],
        gate: &'a [f32],
        d_output: &'a [f32],
        d_up: &'a mut [f32],
        d_gate: &'a mut [f32]
    ) -> () {
        let inputs = up.iter().zip(gate).zip(d_output);
        for (((up, gate), d_output), (d_up, d_gate)) in inputs.zip(d_up.iter_mut().zip(d_gate)) {
            let e = exp_nonpositive(-gate.abs());
            let sigmoid = if *gate >= 0.0 { 1.0 } else { e } / (1.0 + e);
            let silu = gate * sigmoid;
            *d_up = d_output * silu;
            *d_gate = d_output * up * (sigmoid + silu * (1.0 - sigmoid));
        }
    }

    /// Replaces products of queries and keys by softmax weights, and the gradients of the weights
    /// by those of the products.
    fn softmax_backward<'a>(
        weights: &'a mut [f32],
        d_weights: &'a mut [f32],
        lse: f32,
        along: f32,
        scale: f32
    ) -> () {
        for (weight, d_weight) in weights.iter_mut().zip(d_weights) {
            *weight = exp_nonpositive(*weight * scale - lse);
            *d_weight = *weight * (*d_weight - along) * scale;
        }
    }

    /// Half-split rotation of one row of `d` by `cos`, `sin` of `d/2`.
    fn rotate<'a>(x: &'a [f32], cos: &'a [f32], sin: &'a [f32], out: &'a mut [f32]) -> () {
        let half = cos.len();
        let (x_low, x_high) = x.split_at(half);
        let (out_low, out_high) = out.split_at_mut(half);
        let (x_high, sin) = (&x_high[..half], &sin[..half]);
        let out_high = &mut out_high[..half];
        for c in 0..half {
            out_low[c] = x_low[c] * cos[c] - x_high[c] * sin[c];
            out_high[c] = x_high[c] * cos[c] + x_low[c] * sin[c];
        }
    }

    /// [`rotate`] of a row into itself.
    fn rotate_in_place<'a>(x: &'a mut [f32], cos: &'a [f32], sin: &'a [f32]) -> () {
        let half = cos.len();
        let (low, high) = x.split_at_mut(half);
        let (high, sin) = (&mut high[..half], &sin[..half]);
        for c in 0..half {
            let (a, b) = (low[c], high[c]);
            low[c] = a * cos[c] - b * sin[c];
            high[c] = b * cos[c] + a * sin[c];
        }
    }

    /// `slope * q + offset` of 8-bit numbers, four in a word.
    fn from_8bit<'a>(words: &'a [i32], slope: f32, offset: f32, out: &'a mut [f32]) -> () {
        unpack::<8, 4>(words, out);
        for x in out.iter_mut() {
            *x = x.mul_add(slope, offset);
        }
    }

    /// 4-bit numbers, eight in a word, the first in the lowest bits.
    fn unpack_4<'a>(words: &'a [i32], out: &'a mut [f32]) -> () {
        unpack::<4, 8>(words, out);
    }

    /// 8-bit numbers, four in a word.
    fn unpack_8<'a>(words: &'a [i32], out: &'a mut [f32]) -> () {
        unpack::<8, 4>(words, out);
    }

    /// `(x - zero) * scale`.
    fn shift_scale<'a>(row: &'a mut [f32], zero: f32, scale: f32) -> () {
        for x in row.iter_mut() {
            *x = (*x - zero) * scale;
        }
    }

    /// bfloat16 to f32.
    fn bf16_to_f32<'a>(values: &'a [bf16], out: &'a mut [f32]) -> () {
        for (out, value) in out.iter_mut().zip(values) {
            *out = f32::from_bits((value.to_bits() as u32) << 16);
        }
    }
}

/// IEEE half precision to f32.
pub fn f16_to_f32(values: &[f16], out: &mut [f32]) {
    values.convert_to_f32_slice(out);
}

/// Widens into the front of `buffer`.
pub fn widen_bf16<'b>(values: &[bf16], buffer: &'b mut Vec<f32>) -> &'b [f32] {
    buffer.resize(values.len().max(buffer.len()), 0.0);
    let out = &mut buffer[..values.len()];
    bf16_to_f32(Arch::new(), values, out);
    out
}

/// Widens into the front of `buffer`.
pub fn widen_f16<'b>(values: &[f16], buffer: &'b mut Vec<f32>) -> &'b [f32] {
    buffer.resize(values.len().max(buffer.len()), 0.0);
    let out = &mut buffer[..values.len()];
    f16_to_f32(values, out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reductions_take_any_length() {
        for n in [0, 1, 15, 16, 17, 129] {
            let mut row: Vec<f32> = (0..n).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
            let expected = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(max(Arch::new(), &row), expected);
            let sum: f64 = row.iter().map(|&x| (x as f64 - 51.0).exp()).sum();
            let got = exp_sum(Arch::new(), &mut row, 51.0) as f64;
            assert!((got - sum).abs() <= 1e-6 * sum + 1e-38, "{n}: {got} {sum}");
        }
    }
}
