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

/// An axis: the values at its ends, and whether it is logarithmic.
#[derive(Clone, Copy)]
pub struct Axis {
    /// Value at the left or lower end.
    pub from: f64,
    /// Value at the right or upper end.
    pub to: f64,
    /// Logarithmic; both ends are above 0.
    pub log: bool,
}

impl Axis {
    /// Where a value stands: 0 at the beginning, 1 at the end.
    fn share(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.log { value.ln() } else { value };
        (scale(value) - scale(self.from)) / (scale(self.to) - scale(self.from))
    }
}

/// A labelled place on an axis. Where labels would touch, those of low rank are shown.
pub struct Tick {
    /// Where.
    pub value: f64,
    /// What is written there.
    pub label: String,
    /// Rank of the label.
    pub rank: u8,
}

/// The rectangle of the plot on the page, and its axes.
pub struct Plot {
    /// Left edge.
    pub left: f64,
    /// Right edge.
    pub right: f64,
    /// Upper edge.
    pub top: f64,
    /// Lower edge.
    pub bottom: f64,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
}

impl Plot {
    /// Where a value of the horizontal axis stands.
    pub fn x(&self, value: f64) -> f64 {
        self.left + self.x.share(value) * (self.right - self.left)
    }

    /// Where a value of the vertical axis stands; outside the plot, at its edge.
    pub fn y(&self, value: f64) -> f64 {
        self.bottom - self.y.share(value).clamp(0.0, 1.0) * (self.bottom - self.top)
    }

    /// Draws frame, grid, ticks, labels and the title of the vertical axis.
    pub fn paint(&self, canvas: &mut Canvas, x_ticks: &[Tick], y_ticks: &[Tick], y_title: &str) {
        let Plot {
            left,
            right,
            top,
            bottom,
            ..
        } = *self;
        for tick in y_ticks {
            let y = self.y(tick.value);
            canvas.line(&[(left, y), (right, y)], GRID, 2.0);
            canvas.text(&tick.label, (left - 18.0, y + 13.0), LABEL_EM, INK, End);
        }
        // Small ticks show that the axis is logarithmic where it spans enough for that.
        let (from, to) = (self.y.from, self.y.to);
        if self.y.log && (2.0..25.0).contains(&(to.ln() - from.ln())) {
            for value in decades(from, to, &[1, 2, 3, 4, 5, 6, 7, 8, 9]) {
                let y = self.y(value);
                canvas.line(&[(left - 8.0, y), (left, y)], INK, 2.0);
            }
        }
        let labels = x_ticks.iter().map(|tick| {
            let width = canvas.width(&tick.label, LABEL_EM);
            (self.x(tick.value), width, tick.rank)
        });
        let shown = spread(&labels.collect::<Vec<_>>(), 16.0);
        for (tick, shown) in x_ticks.iter().zip(shown) {
            let x = self.x(tick.value);
            canvas.line(&[(x, bottom), (x, bottom + 10.0)], INK, 2.0);
            if shown {
                canvas.line(&[(x, top), (x, bottom)], GRID, 2.0);
                canvas.text(&tick.label, (x, bottom + 48.0), LABEL_EM, INK, Middle);
            }
        }
        canvas.frame((left, top), (right, bottom), INK, 3.0);
        let up = (top + bottom) / 2.0;
        canvas.text(y_title, (54.0, up), AXIS_EM, INK, MiddleUpwards);
    }

    /// Writes the title of the horizontal axis, below the labels.
    pub fn paint_x_title(&self, canvas: &mut Canvas, title: &str) {
        let across = (self.left + self.right) / 2.0;
        canvas.text(title, (across, self.bottom + 96.0), AXIS_EM, INK, Middle);
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

/// Ticks of a logarithmic axis: powers of ten if they are enough, else 1-2-5 steps, else even steps.
pub fn log_ticks(low: f64, high: f64) -> Vec<Tick> {
    for digits in [&[1][..], &[1, 2, 5]] {
        let values = decades(low, high, digits);
        if values.len() >= 4 {
            let every = values.len().div_ceil(10);
            let label = |v: f64| match (-(v.log10() + 1e-9).floor()).max(0.0) as usize {
                0 if v > 99_999.0 => format!("{v:.0e}"),
                digits => format!("{v:.digits$}"),
            };
            let values = values.into_iter().step_by(every);
            return values.map(|v| tick(v, label(v))).collect();
        }
    }
    even_ticks(low, high)
}

/// Ticks of a linear axis: four or more, a round number apart.
pub fn even_ticks(low: f64, high: f64) -> Vec<Tick> {
    let exponents = (-12..=(high - low).log10().ceil() as i32).rev();
    for (e, digit) in exponents.flat_map(|e| [5.0, 2.0, 1.0].map(|digit| (e, digit))) {
        let (step, digits) = (digit * 10f64.powi(e), -e.min(0) as usize);
        let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
        if last - first >= 3 {
            let values = (first..=last).map(|i| i as f64 * step);
            return values.map(|v| tick(v, format!("{v:.digits$}"))).collect();
        }
    }
    Vec::new()
}

fn tick(value: f64, label: String) -> Tick {
    let rank = 0;
    Tick { value, label, rank }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64) -> String {
        let labels: Vec<String> = log_ticks(low, high).into_iter().map(|t| t.label).collect();
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
            assert!(log_ticks(low, high).len() <= 12);
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
