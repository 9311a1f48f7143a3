//! The colour scale of scores.

use plotters::style::{RGBColor, WHITE};

use super::INK;

/// Colours of the scores 0, 0.5 and 1: red, yellow, green. Each is lighter than the one before, so
/// the order shows in greyscale too.
const COLOURS: [(u8, u8, u8); 3] = [(0xc8, 0x28, 0x46), (0xf2, 0xb1, 0x3c), (0x86, 0xf0, 0xae)];

/// The colour of a score from 0 to 1; others are clamped.
pub fn colour(score: f64) -> RGBColor {
    let place = score.clamp(0.0, 1.0) * 2.0;
    let (low, high, share) = if place < 1.0 {
        (COLOURS[0], COLOURS[1], place)
    } else {
        (COLOURS[1], COLOURS[2], place - 1.0)
    };
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * share).round() as u8;
    RGBColor(mix(low.0, high.0), mix(low.1, high.1), mix(low.2, high.2))
}

/// Relative luminance, 0 to 1 (WCAG 2).
fn luminance(RGBColor(r, g, b): RGBColor) -> f64 {
    let linear = |x: u8| (f64::from(x) / 255.0).powf(2.2);
    0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
}

/// Contrast of two colours, 1 to 21 (WCAG 2).
fn contrast(a: RGBColor, b: RGBColor) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

/// Ink or white, whichever has the higher contrast on a ground.
pub fn pen_on(ground: RGBColor) -> RGBColor {
    if contrast(WHITE, ground) > contrast(INK, ground) {
        WHITE
    } else {
        INK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_score_is_lighter_and_its_number_is_read() {
        // Steps large enough that rounding of the channels cannot reverse the order.
        let colours: Vec<RGBColor> = (0..=25).map(|i| colour(f64::from(i) / 25.0)).collect();
        for pair in colours.windows(2) {
            assert!(luminance(pair[0]) < luminance(pair[1]), "{pair:?}");
        }
        // WCAG 2 requires 3 for text of this size.
        for ground in colours {
            let contrast = contrast(pen_on(ground), ground);
            assert!(contrast > 3.8, "{ground:?}: {contrast}");
        }
    }
}
