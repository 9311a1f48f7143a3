//! The plot's frame, its axes, and their ticks.

use plotters::style::RGBColor;

use super::INK;
use super::canvas::Align::{End, Middle, MiddleUpwards};
use super::canvas::Canvas;

/// Colour of the grid.
const GRID: RGBColor = RGBColor(226, 226, 226);
/// Size of the axes' titles.
const AXIS_EM: f64 = 42.0;
/// Size of tick labels and remarks.
pub const LABEL_EM: f64 = 38.0;

/// The rectangle of the plot on the page, and the logarithms at its edges.
pub struct Plot {
    /// Left edge.
    pub left: f64,
    /// Right edge.
    pub right: f64,
    /// Upper edge.
    pub top: f64,
    /// Lower edge.
    pub bottom: f64,
    /// Logarithms to base 2 of the lengths at the left and the right edge.
    pub x: (f64, f64),
    /// Natural logarithms of the perplexities at the lower and the upper edge.
    pub y: (f64, f64),
}

impl Plot {
    /// Where a length stands.
    pub fn x(&self, length: usize) -> f64 {
        let share = ((length.max(1) as f64).log2() - self.x.0) / (self.x.1 - self.x.0);
        self.left + share * (self.right - self.left)
    }

    /// Where a perplexity stands; outside the plot, at its edge.
    pub fn y(&self, perplexity: f64) -> f64 {
        let share = (perplexity.ln() - self.y.0) / (self.y.1 - self.y.0);
        self.bottom - share.clamp(0.0, 1.0) * (self.bottom - self.top)
    }

    /// Draws frame, grid, ticks, labels and titles.
    pub fn paint(&self, canvas: &mut Canvas, ticks: &[(f64, String)], lengths: &[usize]) {
        let Plot {
            left,
            right,
            top,
            bottom,
            ..
        } = *self;
        for (value, label) in ticks {
            let y = self.y(*value);
            canvas.line(&[(left, y), (right, y)], GRID, 2.0);
            canvas.text(label, (left - 18.0, y + 13.0), LABEL_EM, INK, End);
        }
        // Small ticks show that the axis is logarithmic where it spans enough for that.
        if (2.0..25.0).contains(&(self.y.1 - self.y.0)) {
            for value in decades(self.y.0.exp(), self.y.1.exp(), &[1, 2, 3, 4, 5, 6, 7, 8, 9]) {
                canvas.line(
                    &[(left - 8.0, self.y(value)), (left, self.y(value))],
                    INK,
                    2.0,
                );
            }
        }
        let labels = lengths.iter().map(|&length| {
            let plain = length != lengths[0] && !length.is_power_of_two();
            (
                self.x(length),
                canvas.width(&length_label(length), LABEL_EM),
                u8::from(plain),
            )
        });
        for (&length, shown) in lengths
            .iter()
            .zip(spread(&labels.collect::<Vec<_>>(), 16.0))
        {
            let x = self.x(length);
            canvas.line(&[(x, bottom), (x, bottom + 10.0)], INK, 2.0);
            if shown {
                canvas.line(&[(x, top), (x, bottom)], GRID, 2.0);
                canvas.text(
                    &length_label(length),
                    (x, bottom + 48.0),
                    LABEL_EM,
                    INK,
                    Middle,
                );
            }
        }
        let corners = [(left, top), (right, top), (right, bottom), (left, bottom)];
        for side in 0..4 {
            canvas.line(&[corners[side], corners[(side + 1) % 4]], INK, 3.0);
        }
        let (across, up) = ((left + right) / 2.0, (top + bottom) / 2.0);
        canvas.text(
            "context length (tokens)",
            (across, bottom + 96.0),
            AXIS_EM,
            INK,
            Middle,
        );
        canvas.text("perplexity", (54.0, up), AXIS_EM, INK, MiddleUpwards);
    }
}

/// A length in tokens, with K for 1024 and M for 1024 K.
pub fn length_label(length: usize) -> String {
    match length {
        n if n > 0 && n % (1 << 20) == 0 => format!("{}M", n >> 20),
        n if n > 0 && n % (1 << 10) == 0 => format!("{}K", n >> 10),
        n => n.to_string(),
    }
}

/// Which labels to show, given their centre, width and rank, so that none touch; low ranks first.
pub fn spread(labels: &[(f64, f64, u8)], gap: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by_key(|&i| labels[i].2);
    let mut shown = vec![false; labels.len()];
    for i in order {
        let (at, width, _) = labels[i];
        let touches = |l: &(f64, f64, u8)| (at - l.0).abs() < (width + l.1) / 2.0 + gap;
        shown[i] = !labels
            .iter()
            .zip(&shown)
            .any(|(other, &shown)| shown && touches(other));
    }
    shown
}

/// The numbers between two that are a power of ten times one of the digits.
fn decades(low: f64, high: f64, digits: &[u8]) -> Vec<f64> {
    let exponents = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let all = exponents.flat_map(|e| digits.iter().map(move |&d| f64::from(d) * 10f64.powi(e)));
    all.filter(|value| (low..=high).contains(value)).collect()
}

/// Perplexities to label between two: powers of ten if they are enough, else 1-2-5 steps, else
/// even steps.
pub fn y_ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    for digits in [&[1][..], &[1, 2, 5]] {
        let values = decades(low, high, digits);
        if values.len() >= 4 {
            let every = values.len().div_ceil(10);
            let label = |v: f64| match (-(v.log10() + 1e-9).floor()).max(0.0) as usize {
                0 if v > 99_999.0 => format!("{v:.0e}"),
                digits => format!("{v:.digits$}"),
            };
            return values
                .into_iter()
                .step_by(every)
                .map(|v| (v, label(v)))
                .collect();
        }
    }
    let exponents = (-12..=(high - low).log10().ceil() as i32).rev();
    for (e, digit) in exponents.flat_map(|e| [5.0, 2.0, 1.0].map(|digit| (e, digit))) {
        let (step, digits) = (digit * 10f64.powi(e), -e.min(0) as usize);
        let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
        if last - first >= 3 {
            let values = (first..=last).map(|i| i as f64 * step);
            return values.map(|v| (v, format!("{v:.digits$}"))).collect();
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64) -> String {
        let labels: Vec<String> = y_ticks(low, high).into_iter().map(|tick| tick.1).collect();
        labels.join(" ")
    }

    #[test]
    fn lengths_have_units() {
        let labels = [0, 512, 1024, 3000, 3072, 131_072, 1 << 20].map(length_label);
        assert_eq!(labels, ["0", "512", "1K", "3000", "3K", "128K", "1M"]);
    }

    #[test]
    fn ticks_suit_the_range() {
        assert_eq!(labels(3.0, 3000.0), "5 10 20 50 100 200 500 1000 2000");
        assert_eq!(labels(2.0, 3e5), "10 100 1000 10000 1e5");
        assert_eq!(
            labels(1.0, 9e19),
            "1 100 10000 1e6 1e8 1e10 1e12 1e14 1e16 1e18"
        );
        assert_eq!(labels(0.04, 0.6), "0.05 0.1 0.2 0.5");
        assert_eq!(labels(45.0, 47.0), "45.0 45.5 46.0 46.5 47.0");
        assert_eq!(labels(12.21, 12.29), "12.22 12.24 12.26 12.28");
        assert_eq!(labels(4.0, 26.0), "5 10 15 20 25");
    }

    #[test]
    fn ticks_survive_extremes() {
        for (low, high) in [
            (1e-290, 1e290),
            (1e-290, 2e-290),
            (5.0, 5.0),
            (9e15, 9.000001e15),
        ] {
            assert!(y_ticks(low, high).len() <= 12);
        }
    }

    #[test]
    fn labels_keep_apart_by_rank() {
        let labels = [
            (0.0, 10.0, 0),
            (8.0, 10.0, 1),
            (15.0, 10.0, 0),
            (40.0, 10.0, 1),
        ];
        assert_eq!(spread(&labels, 2.0), [true, false, true, true]);
    }
}
