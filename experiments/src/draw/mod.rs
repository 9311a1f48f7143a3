//! The figures: perplexity and time against context length (here), needles by length and depth (`heatmap`), and a
//! training's losses (`loss`).

mod axes;
mod canvas;
mod heatmap;
mod legend;
mod loss;
mod palette;
mod pens;

use std::path::Path;

use anyhow::{Result, ensure};
use plotters::style::RGBColor;

pub use axes::length_label;
use axes::{Axis, LABEL_EM, Plot, Tick, log_ticks};
use canvas::Align::{End, Middle, Start};
use canvas::{Canvas, PAGE, Point};
pub use heatmap::{HeatFigure, Panel, draw_heatmaps};
use legend::Legend;
pub use loss::{LossFigure, LossPanel, Scale, Series, draw_losses};
use pens::{Style, style};

/// One method's curve.
pub struct Curve {
    /// The method's name, for the legend.
    pub name: String,
    /// (length in tokens, value, standard error of its logarithm), lengths ascending. For a perplexity the last is that
    /// of the mean NLL in nats.
    pub points: Vec<(usize, f64, f64)>,
    /// Whose numbers these are.
    pub kind: CurveKind,
}

/// Whose numbers a curve shows. Methods come first among a figure's curves.
#[derive(Clone, Copy, PartialEq)]
pub enum CurveKind {
    /// A method of the run.
    Method,
    /// Others, for comparison, maybe with the method of this index.
    Published { method: Option<usize> },
    /// What no model can be expected to go below.
    Floor,
}

/// All that the figure shows.
pub struct LengthFigure {
    /// First line above the plot; may be empty.
    pub title: String,
    /// Second line above the plot; may be empty.
    pub subtitle: String,
    /// What the curves show; title of the vertical axis.
    pub quantity: &'static str,
    /// Trained length in tokens; 0 is not marked.
    pub trained: usize,
    /// In the legend's order.
    pub curves: Vec<Curve>,
}

/// Height that a legend takes of the usual page.
const TALL_LEGEND: f64 = 160.0;
/// Ink of texts and axes.
const INK: RGBColor = RGBColor(30, 30, 30);
/// Ink of what stands back.
const GREY: RGBColor = RGBColor(110, 110, 110);

impl Canvas {
    /// Draws a figure's title and subtitle, each unless empty, from `top` on; returns where they end.
    fn heading(&mut self, texts: [&str; 2], (left, right): (f64, f64), mut top: f64) -> f64 {
        for (text, em, ink) in [(texts[0], 46.0, INK), (texts[1], 36.0, GREY)] {
            if !text.is_empty() {
                let em = (em * (right - left) / self.width(text, em)).clamp(em * 0.75, em);
                let text = self.fit(text, em, right - left);
                top += em * 1.3;
                self.text(&text, (left, top - 0.3 * em), em, ink, Start);
            }
        }
        top
    }
}

/// Whether a point has a place on logarithmic axes.
fn drawable(&&(length, value, _): &&(usize, f64, f64)) -> bool {
    length > 0 && value.is_finite() && value > 0.0
}

/// Stretches of a curve without gaps.
type Runs = Vec<Vec<(usize, f64, f64)>>;

/// The ends of a point's error bar.
fn bar(&(_, value, error): &(usize, f64, f64)) -> (f64, f64) {
    let error = if error > 0.0 { error.min(2.0) } else { 0.0 };
    (value * (-error).exp(), value * error.exp())
}

fn is_published(curve: &&Curve) -> bool {
    matches!(curve.kind, CurveKind::Published { .. })
}

/// The lengths of curves, ascending.
fn lengths<'a>(curves: impl Iterator<Item = &'a Curve>) -> Vec<usize> {
    let points = curves.flat_map(|curve| &curve.points);
    let mut lengths: Vec<usize> = points.map(|point| point.0).filter(|&n| n > 0).collect();
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

/// The stretches of a curve that have a point at each of some lengths.
fn runs(curve: &Curve, lengths: &[usize]) -> Runs {
    let at = |&length: &usize| {
        let mut points = curve.points.iter().filter(drawable);
        points.find(|point| point.0 == length).copied()
    };
    let found: Vec<_> = lengths.iter().map(at).collect();
    let stretches = found
        .split(|point| point.is_none())
        .filter(|run| !run.is_empty());
    stretches
        .map(|run| run.iter().flatten().copied().collect())
        .collect()
}

/// Draws the whole figure, given its lengths (at least one).
fn paint(figure: &LengthFigure, lengths: &[usize]) -> Result<Canvas> {
    let names = figure.curves.iter().map(|curve| curve.name.as_str());
    let legend = Legend::new(&Canvas::new()?, names.collect());
    // What a tall legend takes is added to the page.
    let height = f64::from(PAGE.1) + (legend.height() - TALL_LEGEND).max(0.0);
    let mut page = Canvas::of_size((PAGE.0, height as u32))?;
    let canvas = &mut page;
    let bars = || {
        figure
            .curves
            .iter()
            .flat_map(|c| &c.points)
            .filter(drawable)
            .map(bar)
    };
    let low = bars().map(|bar| bar.0).fold(1e250, f64::min).max(1e-6);
    let high = bars().map(|bar| bar.1).fold(low, f64::max).min(1e250);
    let pad = (0.06 * (high / low).ln() + 0.01).exp();
    let y = Axis {
        from: low / pad,
        to: high * pad,
        log: true,
    };
    // Base 2: 1 is a doubling of the length.
    let x = lengths.iter().map(|&length| (length as f64).log2());
    let mut x = x.fold((f64::MAX, f64::MIN), |x, l| (x.0.min(l), x.1.max(l)));
    let trained = (figure.trained.max(1) as f64).log2();
    let near = figure.trained > 0 && trained > x.0 - 2.1 && trained < x.1 + 2.1;
    let pad = if x.0 == x.1 { 0.4 } else { 0.04 * (x.1 - x.0) };
    if near {
        x = (x.0.min(trained), x.1.max(trained));
    }
    let side = if trained < x.0 { "left" } else { "right" };
    let x = Axis {
        from: (x.0 - pad).exp2(),
        to: (x.1 + pad).exp2(),
        log: true,
    };

    // The page, from its ends inwards.
    let ticks = log_ticks(y.from, y.to);
    let labels = ticks
        .iter()
        .map(|tick| canvas.width(&tick.label, LABEL_EM))
        .fold(0.0, f64::max);
    let (left, right, mut top) = (labels + 110.0, f64::from(PAGE.0) - 50.0, 20.0);
    top = canvas.heading([&figure.title, &figure.subtitle], (left, right), top);
    top += if figure.trained > 0 { 54.0 } else { 20.0 };
    let is_method = |curve: &&Curve| curve.kind == CurveKind::Method;
    let methods = figure.curves.iter().filter(is_method).count();
    let published = figure.curves.iter().filter(is_published).count();
    let styles = figure
        .curves
        .iter()
        .enumerate()
        .map(|(index, curve)| match curve.kind {
            CurveKind::Method => style(index, methods),
            CurveKind::Published { method } => pens::published(index, methods + published, method),
            CurveKind::Floor => pens::floor(),
        });
    let styles: Vec<Style> = styles.collect();
    let foot = height - 14.0 - legend.height();
    let plot = Plot {
        left,
        right,
        top,
        bottom: foot - 124.0,
        x,
        y,
    };

    let x_ticks: Vec<Tick> = (lengths.iter())
        .map(|&length| Tick {
            value: length as f64,
            label: length_label(length),
            rank: u8::from(length != lengths[0] && !length.is_power_of_two()),
        })
        .collect();
    plot.paint(canvas, &x_ticks, &ticks, figure.quantity);
    plot.paint_x_title(canvas, "context length (tokens)");
    if figure.trained > 0 {
        let mut label = format!("trained length {}", length_label(figure.trained));
        let at = plot.x(figure.trained as f64);
        if near {
            canvas.dashed(&[(at, plot.bottom), (at, top)], &[16.0, 10.0], GREY, 4.0);
        } else {
            label += &format!(" ({side} of this axis)");
        }
        let half = canvas.width(&label, 36.0) / 2.0;
        let at = at.min(right - half).max(left + half);
        canvas.text(&label, (at, top - 14.0), 36.0, GREY, Middle);
    }
    paint_curves(canvas, &plot, figure, &styles);
    legend.paint(canvas, &styles, foot);
    Ok(page)
}

/// Draws the published curves, then all others over them.
fn paint_curves(canvas: &mut Canvas, plot: &Plot, figure: &LengthFigure, styles: &[Style]) {
    let curves = || figure.curves.iter().zip(styles);
    let behind = curves().filter(|curve| is_published(&curve.0));
    let behind =
        behind.map(|(curve, style)| (runs(curve, &lengths(std::iter::once(curve))), style));
    paint_runs(canvas, plot, &behind.collect::<Vec<_>>());
    let curves = || curves().filter(|curve| !is_published(&curve.0));
    let measured = lengths(curves().map(|curve| curve.0));
    let before = curves().map(|(curve, style)| (runs(curve, &measured), style));
    if paint_runs(canvas, plot, &before.collect::<Vec<_>>()) {
        let at = (plot.right, plot.bottom + 96.0);
        canvas.text("bars: ±1 s.e.", at, 34.0, GREY, End);
    }
}

/// Draws all lines, and over them all error bars and markers; says whether there are bars.
fn paint_runs(canvas: &mut Canvas, plot: &Plot, curves: &[(Runs, &Style)]) -> bool {
    let x = |point: &(usize, f64, f64)| plot.x(point.0 as f64);
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

/// Writes `svg` and `png`.
pub fn draw(figure: &LengthFigure, svg: &Path, png: &Path) -> Result<()> {
    let points = || figure.curves.iter().flat_map(|curve| &curve.points);
    ensure!(
        points().any(|point| drawable(&point)),
        "no finite {} to draw in {:?}",
        figure.quantity,
        figure.title
    );
    let lengths = lengths(figure.curves.iter());
    let canvas = paint(figure, &lengths)?;
    canvas.save_svg(svg)?;
    canvas.save_png(png)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_break_at_missing_lengths() {
        let points = vec![
            (1, 3.0, 0.0),
            (2, f64::NAN, 0.0),
            (4, 5.0, 0.0),
            (16, 6.0, 0.0),
        ];
        let curve = Curve {
            name: String::new(),
            points,
            kind: CurveKind::Method,
        };
        let runs = runs(&curve, &[1, 2, 4, 8, 16]);
        assert_eq!(runs, [[(1, 3.0, 0.0)], [(4, 5.0, 0.0)], [(16, 6.0, 0.0)]]);
    }

    #[test]
    fn bars_stay_finite() {
        assert_eq!(bar(&(1, 4.0, f64::NAN)), (4.0, 4.0));
        assert!(bar(&(1, 4.0, f64::INFINITY)).1.is_finite());
    }

    #[test]
    fn an_empty_figure_is_refused() {
        let curve = Curve {
            name: "a".into(),
            points: vec![(8, f64::INFINITY, 0.0)],
            kind: CurveKind::Method,
        };
        let (title, subtitle) = (String::new(), String::new());
        let figure = LengthFigure {
            title,
            subtitle,
            quantity: "perplexity",
            trained: 8,
            curves: vec![curve],
        };
        assert!(draw(&figure, Path::new("no.svg"), Path::new("no.png")).is_err());
    }

    #[test]
    fn extremes_are_drawn() {
        for (trained, values) in [
            (0, [1e-300, 1e308]),
            (1, [1e308; 2]),
            (usize::MAX, [1.0; 2]),
        ] {
            let points = vec![(1, values[0], f64::INFINITY), (usize::MAX, values[1], -1.0)];
            let name = "a long name ".repeat(20);
            let curves = (0..40).map(|i| Curve {
                name: name.clone(),
                points: points.clone(),
                kind: match i {
                    0..30 => CurveKind::Method,
                    30..39 => CurveKind::Published {
                        method: (i < 33).then_some(i),
                    },
                    _ => CurveKind::Floor,
                },
            });
            let (title, subtitle, curves) = (name.clone(), "\n".into(), curves.collect());
            let figure = LengthFigure {
                title,
                subtitle,
                quantity: "perplexity",
                trained,
                curves,
            };
            paint(&figure, &[1, usize::MAX]).unwrap();
        }
    }
}
