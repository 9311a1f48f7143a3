//! Curves of a training over the tokens seen: panels one below the other over one horizontal axis.

use anyhow::Result;

use super::GREY;
use super::axes::{Axis, LABEL_EM, Plot, Tick, even_ticks, log_ticks};
use super::canvas::Align::End;
use super::canvas::{Canvas, PAGE, Point};
use super::legend::Legend;
use super::pens::{Style, pale, style};

/// Panels over one axis of tokens.
pub struct LossFigure {
    /// First line above the panels.
    pub title: String,
    /// Second line above the panels.
    pub subtitle: String,
    /// Ends of phases, in millions of tokens.
    pub phase_ends: Vec<f64>,
    /// From top to bottom; those without points are left out.
    pub panels: Vec<LossPanel>,
}

/// Curves over one vertical axis.
pub struct LossPanel {
    /// Title of the vertical axis, with the unit.
    pub title: String,
    /// Kind of the vertical axis.
    pub scale: Scale,
    /// Points on each side in a moving average, which is drawn over the pale points; 0 draws the
    /// points alone.
    pub smoothing: usize,
    /// In the order of the legend.
    pub series: Vec<Series>,
}

/// Kind of a vertical axis.
pub enum Scale {
    /// Linear, from the lowest to the highest point.
    Linear,
    /// 0 to 100.
    Percent,
    /// Logarithmic, from the lowest point above 0 to the highest.
    Log,
}

/// One curve.
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Index of the pen.
    pub pen: usize,
    /// (millions of tokens, value), tokens ascending; values that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// Height of the first panel, and of the others.
const HEIGHTS: (f64, f64) = (560.0, 360.0);
/// Space above and below a legend.
const SPACE: (f64, f64) = (36.0, 16.0);
/// Height of what stands below the last panel.
const FOOT: f64 = 124.0;
/// About the most markers on a stretch of a curve.
const MARKERS: usize = 12;
/// A curve breaks where the next point is further away than this share of the axis (and than four
/// times the mean distance of its points): a phase did not use its source.
const GAP: f64 = 0.05;

impl LossPanel {
    /// All points that the axis can show.
    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        let points = self.series.iter().flat_map(|series| &series.points);
        points.copied().filter(|point| self.shows(point))
    }

    /// True if the axis can show the point.
    fn shows(&self, &(_, y): &(f64, f64)) -> bool {
        let positive = y > 0.0 || !matches!(self.scale, Scale::Log);
        y.abs() < 1e12 && positive
    }

    /// The vertical axis and its ticks.
    fn axis(&self) -> (Axis, Vec<Tick>) {
        let values = || self.points().map(|point| point.1);
        let low = values().fold(f64::MAX, f64::min);
        let high = values().fold(f64::MIN, f64::max);
        let axis = |from, to, log| Axis { from, to, log };
        match self.scale {
            Scale::Linear => {
                let pad = 0.05 * (high - low) + if low == high { 0.5 } else { 0.0 };
                let (from, to) = (low - pad, high + pad);
                (axis(from, to, false), even_ticks(from, to))
            }
            Scale::Percent => (axis(-5.0, 105.0, false), even_ticks(-5.0, 105.0)),
            Scale::Log => {
                let pad = (0.06 * (high / low).ln() + 0.05).exp();
                let (from, to) = (low / pad, high * pad);
                (axis(from, to, true), log_ticks(from, to))
            }
        }
    }

    fn styles(&self) -> Vec<Style> {
        let count = self.series.len();
        let pens = self.series.iter().map(|series| Style {
            width: 4.0,
            radius: 10.0,
            ..style(series.pen, count)
        });
        pens.collect()
    }

    fn legend(&self, measure: &Canvas) -> Legend<'_> {
        let names = self.series.iter().map(|series| series.name.as_str());
        Legend::new(measure, names.collect())
    }

    /// The stretches of a curve without gaps, on a horizontal axis of this width.
    fn runs(&self, series: &Series, width: f64) -> Vec<Vec<(f64, f64)>> {
        let points: Vec<_> = series
            .points
            .iter()
            .copied()
            .filter(|point| self.shows(point))
            .collect();
        let gap = width * GAP.max(4.0 / points.len() as f64);
        let runs = points.chunk_by(|a, b| b.0 - a.0 <= gap);
        runs.map(<[_]>::to_vec).collect()
    }
}

/// Centred moving averages over `half` points on each side. Near the start, where a loss falls
/// steeply, the window shrinks on both sides; near the end it is cut.
fn smoothed(points: &[(f64, f64)], half: usize) -> Vec<(f64, f64)> {
    let mean = |i: usize| {
        let around = half.min(i);
        let near = &points[i - around..(i + around + 1).min(points.len())];
        near.iter().map(|point| point.1).sum::<f64>() / near.len() as f64
    };
    let smoothed = points.iter().enumerate();
    smoothed.map(|(i, point)| (point.0, mean(i))).collect()
}

/// A panel with what is known before its place on the page is.
struct Prepared<'a> {
    panel: &'a LossPanel,
    y: Axis,
    y_ticks: Vec<Tick>,
    legend: Legend<'a>,
    height: f64,
}

impl LossFigure {
    /// Draws the figure.
    ///
    /// # Errors
    /// The font cannot be read.
    pub fn paint(&self) -> Result<Canvas> {
        // Text is measured before the size of the real page is known.
        let measure = Canvas::new()?;
        let panels = self.prepared(&measure);
        let labels = panels.iter().flat_map(|panel| &panel.y_ticks);
        let labels = labels.map(|tick| measure.width(&tick.label, LABEL_EM));
        let left = labels.fold(0.0, f64::max) + 110.0;
        let right = f64::from(PAGE.0) - 50.0;
        let head = 20.0 + 1.3 * (46.0 + 36.0);
        let bodies = panels
            .iter()
            .map(|panel| SPACE.0 + panel.legend.height() + SPACE.1 + panel.height);
        let page = head + bodies.sum::<f64>() + FOOT;
        let mut canvas = Canvas::of_size((PAGE.0, page as u32))?;
        let mut top = canvas.heading([&self.title, &self.subtitle], (left, right), 20.0);

        let x = self.x_axis();
        let mut x_ticks = even_ticks(x.from, x.to);
        let mut labels: Vec<String> = Vec::new();
        for tick in &mut x_ticks {
            labels.push(std::mem::take(&mut tick.label));
        }
        for (i, prepared) in panels.iter().enumerate() {
            let lowest = i + 1 == panels.len();
            if lowest {
                // Only this panel has labels on its horizontal axis.
                for (tick, label) in x_ticks.iter_mut().zip(&labels) {
                    tick.label.clone_from(label);
                }
            }
            let styles = prepared.panel.styles();
            prepared.legend.paint(&mut canvas, &styles, top + SPACE.0);
            top += SPACE.0 + prepared.legend.height() + SPACE.1;
            let plot = Plot {
                left,
                right,
                top,
                bottom: top + prepared.height,
                x,
                y: prepared.y,
            };
            top = plot.bottom;
            let title = &prepared.panel.title;
            plot.paint(&mut canvas, &x_ticks, &prepared.y_ticks, title);
            self.paint_phases(&mut canvas, &plot);
            paint_series(&mut canvas, &plot, prepared.panel, &styles);
            if lowest {
                plot.paint_x_title(&mut canvas, "tokens seen (millions)");
                if !self.phase_ends.is_empty() {
                    let at = (right, plot.bottom + 96.0);
                    canvas.text("dashed: a phase ends", at, 34.0, GREY, End);
                }
            }
        }
        Ok(canvas)
    }

    /// The panels that have points.
    fn prepared(&self, measure: &Canvas) -> Vec<Prepared<'_>> {
        let shown = self
            .panels
            .iter()
            .filter(|panel| panel.points().next().is_some());
        let prepared = shown.enumerate().map(|(i, panel)| {
            let (y, y_ticks) = panel.axis();
            Prepared {
                panel,
                y,
                y_ticks,
                legend: panel.legend(measure),
                height: if i == 0 { HEIGHTS.0 } else { HEIGHTS.1 },
            }
        });
        prepared.collect()
    }

    fn x_axis(&self) -> Axis {
        let points = self.panels.iter().flat_map(LossPanel::points);
        let last = points.map(|point| point.0).fold(1e-9, f64::max);
        Axis {
            from: 0.0,
            to: 1.02 * last,
            log: false,
        }
    }

    /// A dashed line at the end of each phase.
    fn paint_phases(&self, canvas: &mut Canvas, plot: &Plot) {
        for &end in self.phase_ends.iter().filter(|&&end| end < plot.x.to) {
            let at = plot.x(end);
            let line = [(at, plot.bottom), (at, plot.top)];
            canvas.dashed(&line, &[16.0, 10.0], GREY, 4.0);
        }
    }
}

fn paint_series(canvas: &mut Canvas, plot: &Plot, panel: &LossPanel, styles: &[Style]) {
    let place = |points: &[(f64, f64)]| -> Vec<Point> {
        let place = |&(x, y): &(f64, f64)| (plot.x(x), plot.y(y));
        points.iter().map(place).collect()
    };
    let width = plot.x.to - plot.x.from;
    let mut curves: Vec<Vec<Vec<(f64, f64)>>> = Vec::new();
    for series in &panel.series {
        curves.push(panel.runs(series, width));
    }
    if panel.smoothing > 0 {
        for (runs, style) in curves.iter_mut().zip(styles) {
            for run in runs {
                canvas.line(&place(run), pale(style.colour, 0.3), 2.0);
                *run = smoothed(run, panel.smoothing);
            }
        }
    }
    for (runs, style) in curves.iter().zip(styles) {
        for run in runs {
            canvas.curve(&place(run), style);
        }
    }
    for (i, (runs, style)) in curves.iter().zip(styles).enumerate() {
        let share = i as f64 / curves.len() as f64;
        for at in runs.iter().flat_map(|run| marked(run, width, share)) {
            canvas.marker((plot.x(at.0), plot.y(at.1)), style);
        }
    }
}

/// The points of a stretch that get a marker, about [`MARKERS`] over the whole axis. On a dense
/// stretch the first stands `share` of their spacing after the start, so that markers of different
/// curves stand at different places.
fn marked(run: &[(f64, f64)], width: f64, share: f64) -> Vec<(f64, f64)> {
    let spacing = width / MARKERS as f64;
    let (from, to) = (run[0].0, run[run.len() - 1].0);
    let mut next = if run.len() > MARKERS {
        from + (spacing * share).min((to - from) / 2.0)
    } else {
        from
    };
    let mut marked = Vec::new();
    for &point in run {
        if point.0 >= next {
            marked.push(point);
            next = point.0 + 0.99 * spacing;
        }
    }
    marked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even(count: usize) -> Vec<(f64, f64)> {
        (0..count).map(|i| (i as f64, (i % 2) as f64)).collect()
    }

    #[test]
    fn averages_are_centred_and_start_at_the_first_point() {
        let points = [(0.0, 9.0), (1.0, 3.0), (2.0, 3.0), (3.0, 6.0), (4.0, 0.0)];
        let values: Vec<f64> = smoothed(&points, 2).iter().map(|point| point.1).collect();
        assert_eq!(values, [9.0, 5.0, 4.2, 3.0, 3.0]);
    }

    #[test]
    fn curves_break_where_a_source_is_absent_and_not_where_points_are_few() {
        let panel = LossPanel {
            title: String::new(),
            scale: Scale::Linear,
            smoothing: 0,
            series: Vec::new(),
        };
        let runs = |points: Vec<(f64, f64)>| {
            let (name, pen) = (String::new(), 0);
            let runs = panel.runs(&Series { name, pen, points }, 100.0);
            runs.iter().map(Vec::len).collect::<Vec<_>>()
        };
        let apart = |from: f64, to: f64| {
            even(101)
                .into_iter()
                .filter(move |p| p.0 < from || p.0 > to)
        };
        assert_eq!(runs(apart(30.0, 50.0).collect()), [30, 50]);
        assert_eq!(runs(apart(30.0, 33.0).collect()), [97]);
        assert_eq!(runs(vec![(10.0, 1.0), (50.0, f64::NAN), (90.0, 1.0)]), [2]);
    }

    #[test]
    fn every_stretch_has_a_marker_and_dense_ones_not_too_many() {
        for share in [0.0, 0.9] {
            assert_eq!(marked(&even(1), 100.0, share).len(), 1);
            assert_eq!(marked(&even(3), 12.0, share).len(), 3);
            assert_eq!(marked(&even(30), 1000.0, share).len(), 1);
            let all = marked(&even(1001), 1000.0, share).len();
            assert!((10..=13).contains(&all), "{all}");
        }
    }
}
