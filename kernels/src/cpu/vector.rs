//! Loops over rows, compiled for each instruction set and chosen at run time.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use pulp::Arch;

/// Independent partial results of a reduction, so that it can be vectorised; fixed, so that the order
/// of additions is the same on every machine.
const LANES: usize = 16;

/// `exp(x)` for `x <= 0` to about one unit in the last place of f32; exactly 0 below the normal range.
///
/// Cody and Waite: `x = k ln 2 + r`, a polynomial for `exp(r)`, `2^k` through the exponent bits.
#[inline(always)]
pub fn exp_nonpositive(x: f32) -> f32 {
    const SMALLEST: f32 = -87.336_54;
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Written so that NaN stays NaN.
    let clamped = if x < SMALLEST { SMALLEST } else { x };
    let rounded = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let k = rounded - ROUND;
    let r = k.mul_add(-LN2_LOW, k.mul_add(-LN2_HIGH, clamped));
    // Taylor coefficients 1/2! .. 1/7!; |r| <= ln 2 / 2, so the next term is below 1e-8.
    let mut p = 1.0 / 5040.0;
    p = r.mul_add(p, 1.0 / 720.0);
    p = r.mul_add(p, 1.0 / 120.0);
    p = r.mul_add(p, 1.0 / 24.0);
    p = r.mul_add(p, 1.0 / 6.0);
    p = r.mul_add(p, 0.5);
    p = r.mul_add(p, 1.0);
    p = r.mul_add(p, 1.0);
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    if x < SMALLEST { 0.0 } else { p * power }
}

/// Largest value of a row; minus infinity for an empty one.
#[inline(always)]
fn max_lanes(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    let max = |a: f32, &b: &f32| if b > a { b } else { a };
    rest.iter()
        .fold(lanes.iter().fold(f32::NEG_INFINITY, max), max)
}

/// Adds up lane by lane, then the lanes, then the rest: the same order everywhere.
#[inline(always)]
fn sum_lanes(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += term(x);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|&x| term(x)).sum::<f32>()
}

/// Largest value of a row.
pub fn max(arch: Arch, row: &[f32]) -> f32 {
    arch.dispatch(|| max_lanes(row))
}

/// Replaces the row by `exp(x - max)` and returns its sum; `max` is at least every value.
pub fn exp_sum(arch: Arch, row: &mut [f32], max: f32) -> f32 {
    arch.dispatch(|| {
        for x in row.iter_mut() {
            *x = exp_nonpositive(*x - max);
        }
        sum_lanes(row, |x| x)
    })
}

/// Sum of `exp(x - max)` over a row.
pub fn sum_of_exp(arch: Arch, row: &[f32], max: f32) -> f32 {
    arch.dispatch(|| sum_lanes(row, |x| exp_nonpositive(x - max)))
}

/// Multiplies a row by a number.
pub fn scale(arch: Arch, row: &mut [f32], factor: f32) {
    arch.dispatch(|| {
        for x in row.iter_mut() {
            *x *= factor;
        }
    });
}

/// `out = x / rms(x) * weight`.
pub fn rms_norm(arch: Arch, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    arch.dispatch(|| {
        let mean = sum_lanes(x, |x| x * x) / x.len() as f32;
        let factor = 1.0 / (mean + epsilon).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * factor * weight;
        }
    });
}

/// `out = up * gate * sigmoid(gate)`.
pub fn swiglu(arch: Arch, up: &[f32], gate: &[f32], out: &mut [f32]) {
    arch.dispatch(|| {
        for ((out, up), gate) in out.iter_mut().zip(up).zip(gate) {
            // exp of minus the magnitude never overflows; the two forms of the sigmoid are equal.
            let e = exp_nonpositive(-gate.abs());
            let sigmoid = if *gate >= 0.0 { 1.0 } else { e } / (1.0 + e);
            *out = up * gate * sigmoid;
        }
    });
}

/// Half-split rotation of one row of `d` by `cos`, `sin` of `d/2`.
pub fn rotate(arch: Arch, x: &[f32], cos: &[f32], sin: &[f32], out: &mut [f32]) {
    arch.dispatch(|| {
        let half = cos.len();
        let (x_low, x_high) = x.split_at(half);
        let (out_low, out_high) = out.split_at_mut(half);
        for c in 0..half {
            out_low[c] = x_low[c] * cos[c] - x_high[c] * sin[c];
            out_high[c] = x_high[c] * cos[c] + x_low[c] * sin[c];
        }
    });
}

/// Widens into the front of `buffer`.
pub fn widen_bf16<'b>(values: &[bf16], buffer: &'b mut Vec<f32>) -> &'b [f32] {
    buffer.resize(values.len().max(buffer.len()), 0.0);
    let out = &mut buffer[..values.len()];
    Arch::new().dispatch(|| {
        for (out, value) in out.iter_mut().zip(values) {
            *out = f32::from_bits((value.to_bits() as u32) << 16);
        }
    });
    out
}

/// Widens into the front of `buffer`.
pub fn widen_f16<'b>(values: &[f16], buffer: &'b mut Vec<f32>) -> &'b [f32] {
    buffer.resize(values.len().max(buffer.len()), 0.0);
    let out = &mut buffer[..values.len()];
    values.convert_to_f32_slice(out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_over_its_range() {
        let mut worst = 0f64;
        for step in 0..=870_000 {
            let x = -(step as f32) * 1e-4;
            let exact = (x as f64).exp();
            worst = worst.max((exp_nonpositive(x) as f64 - exact).abs() / exact);
        }
        assert!(worst < 1.5e-7, "relative error {worst:e}");
        assert_eq!(exp_nonpositive(0.0), 1.0);
        assert_eq!(exp_nonpositive(-100.0), 0.0);
        assert_eq!(exp_nonpositive(f32::NEG_INFINITY), 0.0);
        assert!(exp_nonpositive(-87.3) > 0.0);
    }

    #[test]
    fn reductions_take_any_length() {
        for n in [0, 1, 15, 16, 17, 129] {
            let row: Vec<f32> = (0..n).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
            let expected = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(max(Arch::new(), &row), expected);
            let sum: f64 = row.iter().map(|&x| (x as f64 - 51.0).exp()).sum();
            let got = sum_of_exp(Arch::new(), &row, 51.0) as f64;
            assert!((got - sum).abs() <= 1e-6 * sum + 1e-38, "{n}: {got} {sum}");
        }
    }
}
