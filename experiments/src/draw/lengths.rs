//! Curves over context length, both axes logarithmic.

use anyhow::{Result, ensure};

use super::GREY;
use super::axes::{Axis, LABEL_EM, Plot, Tick, length_label, log_ticks};
use super::canvas::Align::{End, Middle};
use super::canvas::{Canvas, PAGE, Point};
use super::legend::Legend;
use super::pens::{self, Style};

/// Curves over context length.
pub struct LengthFigure {
    /// First line above the plot; may be empty.
    pub title: String,
    /// Second line above the plot; may be empty.
    pub subtitle: String,
    /// Title of the vertical axis.
    pub quantity: &'static str,
    /// Trained length in tokens; 0 draws no mark.
    pub trained: usize,
    /// In the order of the legend; those of kind [`CurveKind::Method`] first.
    pub curves: Vec<Curve>,
}

/// One curve of a [`LengthFigure`].
pub struct Curve {
    /// Name in the legend.
    pub name: String,
    /// (length in tokens, value, standard error of the value's logarithm), lengths ascending. For a
    /// perplexity that error is the standard error of the mean NLL in nats.
    pub points: Vec<LengthPoint>,
    /// Origin of the values.
    pub kind: CurveKind,
}

/// Length in tokens, value, and standard error of the value's logarithm.
type LengthPoint = (usize, f64, f64);

/// Origin of a curve's values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CurveKind {
    /// Measured in this run.
    Method,
    /// Published elsewhere. `method` is the index of the curve to compare with, which gives the
    /// colour.
    Published {
        /// Index into [`LengthFigure::curves`].
        method: Option<usize>,
    },
    /// Lower bound for every model.
    Floor,
}

/// Height of the legend for which [`PAGE`] has room.
const TALL_LEGEND: f64 = 160.0;
/// Distance from the axis, in doublings of the length, up to which the axis is extended to the
/// trained length.
const NEAR: f64 = 2.1;

impl LengthFigure {
    /// Draws the figure.
    ///
    /// # Errors
    /// No curve has a finite value above 0, or the font cannot be read.
    pub fn paint(&self) -> Result<Canvas> {
        ensure!(
            self.points().next().is_some(),
            "no finite {} to draw in {:?}",
            self.quantity,
            self.title
        );
        let lengths = lengths(self.curves.iter());
        let names = self.curves.iter().map(|curve| curve.name.as_str());
        let legend = Legend::new(&Canvas::new()?, names.collect());
        // A tall legend makes the page taller.
        let height = f64::from(PAGE.1) + (legend.height() - TALL_LEGEND).max(0.0);
        let mut canvas = Canvas::of_size((PAGE.0, height as u32))?;

        // From the edges of the page inwards.
        let y = self.y_axis();
        let y_ticks = log_ticks(y.from, y.to);
        let labels = y_ticks
            .iter()
            .map(|tick| canvas.width(&tick.label, LABEL_EM))
            .fold(0.0, f64::max);
        let (left, right) = (labels + 110.0, f64::from(PAGE.0) - 50.0);
        let top = canvas.heading([&self.title, &self.subtitle], (left, right), 20.0);
        let foot = height - 14.0 - legend.height();
        let plot = Plot {
            left,
            right,
            top: top + if self.trained > 0 { 54.0 } else { 20.0 },
            bottom: foot - 124.0,
            x: self.x_axis(&lengths),
            y,
        };

        plot.paint(&mut canvas, &x_ticks(&lengths), &y_ticks, self.quantity);
        plot.paint_x_title(&mut canvas, "context length (tokens)");
        self.paint_trained(&mut canvas, &plot);
        let styles = self.styles();
        self.paint_curves(&mut canvas, &plot, &styles);
        legend.paint(&mut canvas, &styles, foot);
        Ok(canvas)
    }

    /// The points that logarithmic axes can show.
    fn points(&self) -> impl Iterator<Item = &LengthPoint> {
        let points = self.curves.iter().flat_map(|curve| &curve.points);
        points.filter(|point| drawable(point))
    }

    /// The vertical axis, with room for all error bars.
    fn y_axis(&self) -> Axis {
        let ends = self.points().map(bar);
        let (low, high) = ends.fold((1e250, 0.0f64), |(low, high): (f64, f64), end| {
            (low.min(end.0), high.max(end.1))
        });
        let low = low.max(1e-6);
        let high = high.max(low).min(1e250);
        let pad = (0.06 * (high / low).ln() + 0.01).exp();
        Axis {
            from: low / pad,
            to: high * pad,
            log: true,
        }
    }

    /// The horizontal axis, extended to the trained length if that is near.
    fn x_axis(&self, lengths: &[usize]) -> Axis {
        // In units of log2: 1 is a doubling of the length.
        let (mut from, mut to) = lengths
            .iter()
            .map(|&length| (length as f64).log2())
            .fold((f64::MAX, f64::MIN), |(from, to), length| {
                (from.min(length), to.max(length))
            });
        let pad = if from == to { 0.4 } else { 0.04 * (to - from) };
        let trained = (self.trained.max(1) as f64).log2();
        if self.trained > 0 && trained > from - NEAR && trained < to + NEAR {
            (from, to) = (from.min(trained), to.max(trained));
        }
        Axis {
            from: (from - pad).exp2(),
            to: (to + pad).exp2(),
            log: true,
        }
    }

    fn styles(&self) -> Vec<Style> {
        let methods = self.count(|kind| kind == CurveKind::Method);
        let published = self.count(|kind| matches!(kind, CurveKind::Published { .. }));
        let style = |(index, curve): (usize, &Curve)| match curve.kind {
            CurveKind::Method => pens::style(index, methods),
            CurveKind::Published { method } => pens::published(index, methods + published, method),
            CurveKind::Floor => pens::floor(),
        };
        self.curves.iter().enumerate().map(style).collect()
    }

    fn count(&self, is: impl Fn(CurveKind) -> bool) -> usize {
        self.curves.iter().filter(|curve| is(curve.kind)).count()
    }

    /// Marks the trained length, or says on which side of the axis it lies.
    fn paint_trained(&self, canvas: &mut Canvas, plot: &Plot) {
        if self.trained == 0 {
            return;
        }
        let trained = self.trained as f64;
        let at = plot.x(trained);
        let mut label = format!("trained length {}", length_label(self.trained));
        if trained < plot.x.from {
            label += " (left of this axis)";
        } else if trained > plot.x.to {
            label += " (right of this axis)";
        } else {
            let line = [(at, plot.bottom), (at, plot.top)];
            canvas.dashed(&line, &[16.0, 10.0], GREY, 4.0);
        }
        let half = canvas.width(&label, 36.0) / 2.0;
        let at = at.min(plot.right - half).max(plot.left + half);
        canvas.text(&label, (at, plot.top - 14.0), 36.0, GREY, Middle);
    }

    /// Draws the published curves, then all others over them.
    fn paint_curves(&self, canvas: &mut Canvas, plot: &Plot, styles: &[Style]) {
        let (published, measured): (Vec<_>, Vec<_>) = self
            .curves
            .iter()
            .zip(styles)
            .partition(|(curve, _)| matches!(curve.kind, CurveKind::Published { .. }));
        // A published curve has gaps of its own; the others break at any length that one of them
        // has.
        let published: Vec<_> = published
            .into_iter()
            .map(|(curve, style)| (runs(curve, &lengths(std::iter::once(curve))), style))
            .collect();
        paint_runs(canvas, plot, &published);
        let common = lengths(measured.iter().map(|(curve, _)| *curve));
        let measured: Vec<_> = measured
            .into_iter()
            .map(|(curve, style)| (runs(curve, &common), style))
            .collect();
        if paint_runs(canvas, plot, &measured) {
            let at = (plot.right, plot.bottom + 96.0);
            canvas.text("bars: ±1 s.e.", at, 34.0, GREY, End);
        }
    }
}

/// True if logarithmic axes can show the point.
fn drawable(&(length, value, _): &LengthPoint) -> bool {
    length > 0 && value.is_finite() && value > 0.0
}

/// The ends of a point's error bar.
fn bar(&(_, value, error): &LengthPoint) -> (f64, f64) {
    let error = if error > 0.0 { error.min(2.0) } else { 0.0 };
    (value * (-error).exp(), value * error.exp())
}

/// The distinct lengths of some curves, ascending.
fn lengths<'a>(curves: impl Iterator<Item = &'a Curve>) -> Vec<usize> {
    let points = curves.flat_map(|curve| &curve.points);
    let mut lengths: Vec<usize> = points.map(|point| point.0).filter(|&n| n > 0).collect();
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

/// A tick at every length; labels of powers of two and of the shortest length come first.
fn x_ticks(lengths: &[usize]) -> Vec<Tick> {
    let tick = |&length: &usize| Tick {
        value: length as f64,
        label: length_label(length),
        rank: u8::from(length != lengths[0] && !length.is_power_of_two()),
    };
    lengths.iter().map(tick).collect()
}

/// The stretches of a curve without gaps: runs of consecutive `lengths` at which it has a point.
fn runs(curve: &Curve, lengths: &[usize]) -> Vec<Vec<LengthPoint>> {
    let at = |&length: &usize| {
        let mut points = curve.points.iter().filter(|point| drawable(point));
        points.find(|point| point.0 == length).copied()
    };
    let found: Vec<Option<LengthPoint>> = lengths.iter().map(at).collect();
    found
        .split(Option::is_none)
        .filter(|run| !run.is_empty())
        .map(|run| run.iter().flatten().copied().collect())
        .collect()
}

/// Draws all lines, then all error bars and markers over them. Returns true if a bar was drawn.
fn paint_runs(
    canvas: &mut Canvas,
    plot: &Plot,
    curves: &[(Vec<Vec<LengthPoint>>, &Style)],
) -> bool {
    let x = |point: &LengthPoint| plot.x(point.0 as f64);
    for (runs, style) in curves {
        for run in runs {
            let path: Vec<Point> = run.iter().map(|p| (x(p), plot.y(p.1))).collect();
            canvas.curve(&path, style);
        }
    }
    let mut barred = false;
    for (runs, style) in curves {
        for point in runs.iter().flatten() {
            let (x, (low, high)) = (x(point), bar(point));
            let (low, high) = (plot.y(low), plot.y(high));
            if low - high > 2.0 * style.radius {
                barred = true;
                canvas.line(&[(x, low), (x, high)], style.colour, 3.0);
                for end in [low, high] {
                    canvas.line(&[(x - 12.0, end), (x + 12.0, end)], style.colour, 3.0);
                }
            }
            canvas.marker((x, plot.y(point.1)), style);
        }
    }
    barred
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_break_at_missing_lengths() {
        let kinds = [CurveKind::Method];
        let points = [
            (1, 3.0, 0.0),
            (2, f64::NAN, 0.0),
            (4, 5.0, 0.0),
            (16, 6.0, 0.0),
        ];
        let figure = figure("a", 0, &points, &kinds);
        let runs = runs(&figure.curves[0], &[1, 2, 4, 8, 16]);
        assert_eq!(runs, [[(1, 3.0, 0.0)], [(4, 5.0, 0.0)], [(16, 6.0, 0.0)]]);
    }

    #[test]
    fn bars_stay_finite() {
        assert_eq!(bar(&(1, 4.0, f64::NAN)), (4.0, 4.0));
        assert!(bar(&(1, 4.0, f64::INFINITY)).1.is_finite());
    }

    fn figure(
        name: &str,
        trained: usize,
        points: &[LengthPoint],
        kinds: &[CurveKind],
    ) -> LengthFigure {
        let curve = |&kind: &CurveKind| Curve {
            name: name.to_owned(),
            points: points.to_vec(),
            kind,
        };
        LengthFigure {
            title: name.to_owned(),
            subtitle: "\n".to_owned(),
            quantity: "perplexity",
            trained,
            curves: kinds.iter().map(curve).collect(),
        }
    }

    #[test]
    fn an_empty_figure_is_refused() {
        let figure = figure("a", 8, &[(8, f64::INFINITY, 0.0)], &[CurveKind::Method]);
        let error = figure.paint().err().unwrap().to_string();
        assert_eq!(error, "no finite perplexity to draw in \"a\"");
    }

    #[test]
    fn a_trained_length_beyond_the_axis_is_said() {
        for (trained, label) in [
            (1, "trained length 1 (left of this axis)"),
            (300, "trained length 300"),
            (1 << 20, "trained length 1M (right of this axis)"),
        ] {
            let points = [(1024, 2.0, 0.0), (2048, 3.0, 0.0)];
            let page = figure("a", trained, &points, &[CurveKind::Method]).paint();
            let page = page.unwrap();
            let texts = page.texts();
            assert!(texts.contains(&label), "{texts:?}");
            assert!(page.beyond().is_empty(), "{:?}", page.beyond());
            assert!(!texts.contains(&"bars: ±1 s.e."));
        }
    }

    #[test]
    fn extremes_are_drawn() {
        let kinds: Vec<CurveKind> = (0..40)
            .map(|i| match i {
                0..30 => CurveKind::Method,
                30..39 => CurveKind::Published {
                    method: (i < 33).then_some(i),
                },
                _ => CurveKind::Floor,
            })
            .collect();
        let name = "a long name ".repeat(20);
        for (trained, values, bars) in [
            (0, [1e-300, 1e308], false),
            (1, [1e308; 2], false),
            (usize::MAX, [1.0; 2], true),
        ] {
            let points = [(1, values[0], f64::INFINITY), (usize::MAX, values[1], -1.0)];
            let figure = figure(&name, trained, &points, &kinds);
            let page = figure.paint().unwrap();
            // The label of the longest length is wider than the margin.
            let mut beyond = page.beyond();
            beyond.retain(|mark| !mark.contains(&usize::MAX.to_string()));
            assert!(beyond.is_empty(), "{beyond:?}");
            // Every curve has its two points, and a sample in the legend.
            let markers = figure
                .styles()
                .iter()
                .map(|style| 3 * style.polygons())
                .sum::<usize>();
            assert_eq!(page.polygons(), markers);
            let texts = page.texts();
            let named = |text: &&&str| text.starts_with("a long") && text.contains('…');
            assert_eq!(texts.iter().filter(named).count(), kinds.len() + 1);
            let trained_at = texts
                .iter()
                .filter(|text| text.starts_with("trained"))
                .count();
            assert_eq!(trained_at, usize::from(trained > 0));
            assert_eq!(texts.contains(&"bars: ±1 s.e."), bars, "{values:?}");
        }
    }
}
