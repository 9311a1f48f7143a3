//! Exponentials in loops that the compiler vectorises.

/// `exp(x)` for `x <= 0` to about one unit in the last place of f32; exactly 0 below the normal
/// range.
///
/// Cody and Waite: `x = k ln 2 + r`, a polynomial for `exp(r)`, `2^k` through the exponent bits.
#[inline(always)]
pub fn exp_nonpositive(x: f32) -> f32 {
    const SMALLEST: f32 = -87.336_54;
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // In this form NaN stays NaN.
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

/// `2^x` for `x <= 0` to about one unit in the last place of f32; exactly 0 below the normal range.
#[inline(always)]
pub fn exp2_nonpositive(x: f32) -> f32 {
    // As in `exp_nonpositive`; half a unit below the normal range the exponent's bits are those of
    // zero.
    const ROUND: f32 = 12_582_912.0;
    const SMALLEST: f32 = -127.0;
    // In this form NaN stays NaN.
    let clamped = if x < SMALLEST { SMALLEST } else { x };
    let rounded = clamped + ROUND;
    let r = clamped - (rounded - ROUND);
    // The best relative fit of degree 6 on [-1/2, 1/2], which is off by 2e-9.
    let mut p = 1.534_581_2e-4;
    p = r.mul_add(p, 1.339_993_1e-3);
    p = r.mul_add(p, 9.618_489e-3);
    p = r.mul_add(p, 5.550_328_6e-2);
    p = r.mul_add(p, 2.402_264_6e-1);
    p = r.mul_add(p, 6.931_472e-1);
    p = r.mul_add(p, 1.0);
    p * f32::from_bits(rounded.to_bits().wrapping_add(127) << 23)
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
    fn powers_of_two_are_accurate_over_their_range() {
        let mut worst = 0f64;
        for step in 0..=1_260_000 {
            let x = -(step as f32) * 1e-4;
            let exact = (x as f64).exp2();
            worst = worst.max((exp2_nonpositive(x) as f64 - exact).abs() / exact);
        }
        assert!(worst < 1.5e-7, "relative error {worst:e}");
        assert_eq!(exp2_nonpositive(0.0), 1.0);
        assert_eq!(exp2_nonpositive(-127.0), 0.0);
        assert_eq!(exp2_nonpositive(f32::NEG_INFINITY), 0.0);
        assert!(exp2_nonpositive(f32::NAN).is_nan());
    }
}
