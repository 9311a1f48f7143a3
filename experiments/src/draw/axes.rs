//! The frame of a plot, its axes and their ticks.

use plotters::style::RGBColor;

use super::INK;
use super::canvas::Align::{End, Middle, MiddleUpwards};
use super::canvas::Canvas;

/// Colour of the grid.
const GRID: RGBColor = RGBColor(226, 226, 226);
/// Size of axis titles, em.
const AXIS_EM: f64 = 42.0;
/// Size of tick labels, em.
pub const LABEL_EM: f64 = 38.0;

/// An axis.
#[derive(Clone, Copy)]
pub struct Axis {
    /// Value at the left or lower end.
    pub from: f64,
    /// Value at the right or upper end.
    pub to: f64,
    /// True if logarithmic; both ends are then above 0.
    pub log: bool,
}

impl Axis {
    /// Position of a value: 0 at `from`, 1 at `to`.
    fn share(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.log { value.ln() } else { value };
        (scale(value) - scale(self.from)) / (scale(self.to) - scale(self.from))
    }
}

/// A labelled place on an axis. Of labels that touch, the one of lower rank is shown.
pub struct Tick {
    /// Value on the axis.
    pub value: f64,
    /// Text.
    pub label: String,
    /// Rank of the label; low ranks win.
    pub rank: u8,
}

/// A plot: its rectangle on the page, and its axes.
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
    /// Page coordinate of a value of the horizontal axis.
    pub fn x(&self, value: f64) -> f64 {
        self.left + self.x.share(value) * (self.right - self.left)
    }

    /// Page coordinate of a value of the vertical axis, clamped to the plot.
    pub fn y(&self, value: f64) -> f64 {
        self.bottom - self.y.share(value).clamp(0.0, 1.0) * (self.bottom - self.top)
    }

    /// Draws the frame, the grid, ticks with labels, and the title of the vertical axis.
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
        // Small ticks show that the axis is logarithmic, if it spans enough to tell.
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

/// A length in tokens: `2K` for 2048, `1M` for 1024 K, digits if not a multiple of 1024.
pub fn length_label(length: usize) -> String {
    match length {
        n if n > 0 && n % (1 << 20) == 0 => format!("{}M", n >> 20),
        n if n > 0 && n % (1 << 10) == 0 => format!("{}K", n >> 10),
        n => n.to_string(),
    }
}

/// Selects labels, given as (centre, width, rank), so that none come closer than `gap`. Low ranks
/// are placed first, equal ones in order. True for a label to show.
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

/// The numbers in `low..=high` that are a power of ten times one of the digits, ascending.
fn decades(low: f64, high: f64, digits: &[u8]) -> Vec<f64> {
    let exponents = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let all = exponents.flat_map(|e| digits.iter().map(move |&d| f64::from(d) * 10f64.powi(e)));
    all.filter(|value| (low..=high).contains(value)).collect()
}

/// Ticks of a logarithmic axis: powers of ten, 1-2-5 steps or even steps, whichever first gives
/// four or more.
pub fn log_ticks(low: f64, high: f64) -> Vec<Tick> {
    for digits in [&[1][..], &[1, 2, 5]] {
        let values = decades(low, high, digits);
        if values.len() >= 4 {
            let every = values.len().div_ceil(10);
            let label = |v: f64| match (-(v.log10() + 1e-9).floor()).max(0.0) as usize {
                0 if v > 99_999.0 => format!("{v:.0e}"),
                7.. => format!("{v:.0e}"),
                digits => format!("{v:.digits$}"),
            };
            let labelled = values.into_iter().step_by(every);
            return labelled.map(|v| tick(v, label(v))).collect();
        }
    }
    even_ticks(low, high)
}

/// Ticks of a linear axis: four or more, with a step of 1, 2 or 5 times a power of ten. None for a
/// range below about 1e-12.
pub fn even_ticks(low: f64, high: f64) -> Vec<Tick> {
    let exponents = (-12..=(high - low).log10().ceil() as i32).rev();
    for (e, digit) in exponents.flat_map(|e| [5.0, 2.0, 1.0].map(|digit| (e, digit))) {
        let (step, digits) = (digit * 10f64.powi(e), -e.min(0) as usize);
        let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
        if last - first >= 3 {
            let values = (first..=last).map(|i| i as f64 * step);
            // In exponent notation, the digits down to the step.
            let mantissa = (high.abs().log10().floor() as i32 - e).max(0) as usize;
            let label = |v: f64| {
                if high.abs() < 1e12 {
                    format!("{v:.digits$}")
                } else {
                    format!("{v:.mantissa$e}")
                }
            };
            return values.map(|v| tick(v, label(v))).collect();
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
        for (low, high, count) in [
            (1e-290, 1e290, 10),
            (1e-290, 2e-290, 0),
            (5.0, 5.0, 0),
            (9e15, 9.000001e15, 6),
            (1e-7, 1e7, 8),
            (9.89e249, 1.011e250, 5),
        ] {
            let ticks = log_ticks(low, high);
            assert_eq!(ticks.len(), count, "{low:e} to {high:e}");
            for tick in &ticks {
                assert!((low..=high).contains(&tick.value), "{}", tick.value);
                let said: f64 = tick.label.parse().unwrap();
                assert!((said / tick.value - 1.0).abs() < 1e-9, "{}", tick.label);
                assert!(tick.label.len() <= 12, "{}", tick.label);
            }
            let ascending = |pair: &[Tick]| pair[0].value < pair[1].value;
            assert!(ticks.windows(2).all(ascending), "{low:e} to {high:e}");
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
