//! The figure of needles: for each method scores by length and depth as a heat map, and their mean over the
//! depths as a curve above it.

use std::path::Path;

use anyhow::{Result, ensure};
use plotters::style::{RGBColor, WHITE};

use super::axes::{LABEL_EM, length_label, spread};
use super::canvas::Align::{End, Middle, MiddleUpwards, Start};
use super::canvas::{Canvas, PAGE};
use super::palette::{colour, pen_on};
use super::pens::{Marker, Style};
use super::{GREY, INK};

/// One method's scores.
pub struct Panel {
    /// The method's name.
    pub name: String,
    /// For each length a score for each depth, 0 to 1; none where there is no cell yet.
    pub scores: Vec<Vec<Option<f64>>>,
}

/// All that the figure shows.
pub struct HeatFigure {
    /// First line above the panels.
    pub title: String,
    /// Second line above the panels.
    pub subtitle: String,
    /// Trained length in tokens; 0 is not marked.
    pub trained: usize,
    /// Mean score from which on a length counts as mastered.
    pub threshold: f64,
    /// Lengths in tokens, ascending: the columns.
    pub lengths: Vec<usize>,
    /// Depths from 0 to 1, ascending: the rows, the first on top.
    pub depths: Vec<f64>,
    /// The methods.
    pub panels: Vec<Panel>,
}

/// Ink of what is not there.
const MISSING: RGBColor = RGBColor(226, 226, 226);
const GRID: RGBColor = RGBColor(226, 226, 226);
/// Space left of the panels for labels, and right of them.
const MARGIN: (f64, f64) = (176.0, 44.0);
/// Space between panels, and between a curve and its heat map.
const GAP: (f64, f64) = (44.0, 18.0);
/// Height of a panel's name, of its lengths' labels, and of all below the panels.
const NAME: f64 = 62.0;
const LENGTHS: f64 = 58.0;
const FOOT: f64 = 196.0;
/// Space within a curve's frame above 100 and below 0 %.
const INSET: f64 = 16.0;
/// The smallest text that is still read in print.
const SMALLEST_EM: f64 = 24.0;

/// The curve's pen.
const MEAN: Style = Style {
    colour: INK,
    dash: &[],
    marker: &Marker::Filled(32, 0.0),
    width: 4.0,
    radius: 9.0,
};
/// Strokes of the line at the trained length, and at the threshold.
const TRAINED: &[f64] = &[16.0, 10.0];
const THRESHOLD: &[f64] = &[5.0, 8.0];

/// Where everything of the figure stands.
struct Layout {
    columns: usize,
    /// Width of a panel, heights of its curve and of its heat map.
    width: f64,
    curve: f64,
    heat: f64,
    /// Where the panels begin.
    top: f64,
}

impl Layout {
    fn new(panels: usize) -> Self {
        let (columns, curve, heat) = match panels {
            1 => (1, 220.0, 480.0),
            2 | 4 => (2, 160.0, 330.0),
            _ => (3, 150.0, 290.0),
        };
        let between = GAP.0 * (columns - 1) as f64;
        Self {
            columns,
            width: (f64::from(PAGE.0) - MARGIN.0 - MARGIN.1 - between) / columns as f64,
            curve,
            heat,
            top: 136.0,
        }
    }

    fn row(&self) -> f64 {
        NAME + self.curve + GAP.1 + self.heat + LENGTHS
    }

    fn page(&self, panels: usize) -> (u32, u32) {
        let rows = panels.div_ceil(self.columns) as f64;
        (PAGE.0, (self.top + rows * self.row() + FOOT) as u32)
    }
}

/// Writes `svg` and `png`.
pub fn draw_heatmaps(figure: &HeatFigure, svg: &Path, png: &Path) -> Result<()> {
    let title = &figure.title;
    ensure!(
        !figure.panels.is_empty() && !figure.lengths.is_empty() && !figure.depths.is_empty(),
        "no cells to draw in {title:?}"
    );
    let canvas = paint(figure)?;
    canvas.save_svg(svg)?;
    canvas.save_png(png)
}

fn paint(figure: &HeatFigure) -> Result<Canvas> {
    let layout = Layout::new(figure.panels.len());
    let page = layout.page(figure.panels.len());
    let mut canvas = Canvas::of_size(page)?;
    let (left, right) = (MARGIN.0, f64::from(PAGE.0) - MARGIN.1);
    canvas.heading([&figure.title, &figure.subtitle], (left, right), 14.0);
    for (i, panel) in figure.panels.iter().enumerate() {
        let (row, column) = ((i / layout.columns) as f64, i % layout.columns);
        let place = Place {
            left: left + column as f64 * (layout.width + GAP.0),
            width: layout.width,
            top: layout.top + row * layout.row() + NAME,
            curve: layout.curve,
            heat: layout.heat,
        };
        place.paint(&mut canvas, figure, panel, column == 0);
    }
    let foot = f64::from(page.1) - FOOT;
    paint_foot(&mut canvas, figure, foot, (left, right));
    Ok(canvas)
}

/// Where one panel stands, without its name and its lengths' labels.
struct Place {
    left: f64,
    width: f64,
    top: f64,
    curve: f64,
    heat: f64,
}

impl Place {
    fn paint(&self, canvas: &mut Canvas, figure: &HeatFigure, panel: &Panel, outermost: bool) {
        let em = LABEL_EM * self.width / canvas.width(&panel.name, LABEL_EM).max(1.0);
        let em = em.clamp(28.0, LABEL_EM);
        let name = canvas.fit(&panel.name, em, self.width);
        canvas.text(&name, (self.left, self.top - 19.0), em, INK, Start);
        self.paint_curve(canvas, figure, panel, outermost);
        self.paint_cells(canvas, figure, panel);
        self.paint_labels(canvas, figure, outermost);
        if let Some(at) = self.trained(figure) {
            let top = self.cells_top();
            let line = [(at, top), (at, top + self.heat)];
            canvas.line(&line, WHITE, 8.0);
            canvas.dashed(&line, TRAINED, INK, 4.0);
        }
    }

    fn cells_top(&self) -> f64 {
        self.top + self.curve + GAP.1
    }

    fn column(&self, figure: &HeatFigure) -> f64 {
        self.width / figure.lengths.len() as f64
    }

    fn row(&self, figure: &HeatFigure) -> f64 {
        self.heat / figure.depths.len() as f64
    }

    /// Where the trained length ends: between columns; none when it lies beyond them.
    fn trained(&self, figure: &HeatFigure) -> Option<f64> {
        let within = match side(figure) {
            Side::Within(columns) => columns,
            _ => return None,
        };
        Some(self.left + within as f64 * self.column(figure))
    }

    fn paint_curve(
        &self,
        canvas: &mut Canvas,
        figure: &HeatFigure,
        panel: &Panel,
        outermost: bool,
    ) {
        let (left, right) = (self.left, self.left + self.width);
        // Markers at 0 and at 100 % stay inside the frame.
        let room = self.curve - 2.0 * INSET;
        let y = |score: f64| self.top + INSET + (1.0 - score.clamp(0.0, 1.0)) * room;
        for percent in [0, 50, 100] {
            let at = y(f64::from(percent) / 100.0);
            canvas.line(&[(left, at), (right, at)], GRID, 2.0);
            if outermost {
                let label = percent.to_string();
                canvas.text(&label, (left - 16.0, at + 11.0), 32.0, INK, End);
            }
        }
        let threshold = y(figure.threshold);
        canvas.dashed(
            &[(left, threshold), (right, threshold)],
            THRESHOLD,
            GREY,
            3.0,
        );
        if outermost {
            let at = (left - 104.0, self.top + self.curve / 2.0);
            canvas.text("mean (%)", at, 34.0, INK, MiddleUpwards);
        }
        if let Some(at) = self.trained(figure) {
            let line = [(at, self.top), (at, self.top + self.curve)];
            canvas.dashed(&line, TRAINED, INK, 4.0);
        }
        canvas.frame((left, self.top), (right, self.top + self.curve), INK, 3.0);
        let point = |(i, scores): (usize, &Vec<Option<f64>>)| {
            let known: Option<Vec<f64>> = scores.iter().copied().collect();
            let mean = known.map(|known| known.iter().sum::<f64>() / known.len() as f64)?;
            Some((left + (i as f64 + 0.5) * self.column(figure), y(mean)))
        };
        let points: Vec<_> = panel.scores.iter().enumerate().map(point).collect();
        for stretch in points.split(Option::is_none) {
            let stretch: Vec<_> = stretch.iter().flatten().copied().collect();
            canvas.curve(&stretch, &MEAN);
        }
        let radius = MEAN.radius.min(0.3 * self.column(figure));
        for at in points.into_iter().flatten() {
            canvas.marker(at, &Style { radius, ..MEAN });
        }
    }

    fn paint_cells(&self, canvas: &mut Canvas, figure: &HeatFigure, panel: &Panel) {
        let (width, height) = (self.column(figure), self.row(figure));
        // The score in the cell, where it fits: the order of the colours need not be seen.
        let em = (36.0 * 0.76 * width / canvas.width("100", 36.0))
            .min(0.7 * height)
            .min(36.0);
        // White lines between cells that are not tiny.
        let rim = if width.min(height) > 20.0 { 1.5 } else { 0.0 };
        for (i, scores) in panel.scores.iter().enumerate() {
            for (j, score) in scores.iter().enumerate() {
                let left = self.left + i as f64 * width;
                let top = self.cells_top() + j as f64 * height;
                let ink = score.map_or(MISSING, colour);
                canvas.rectangle(
                    (left + rim, top + rim),
                    (left + width - rim, top + height - rim),
                    ink,
                );
                if em >= SMALLEST_EM {
                    let text = score.map_or("–".to_owned(), |s| format!("{:.0}", s * 100.0));
                    let pen = pen_on(ink);
                    let at = (left + width / 2.0, top + height / 2.0 + 0.35 * em);
                    canvas.text(&text, at, em, pen, Middle);
                }
            }
        }
        let top = self.cells_top();
        canvas.frame(
            (self.left, top),
            (self.left + self.width, top + self.heat),
            INK,
            3.0,
        );
    }

    fn paint_labels(&self, canvas: &mut Canvas, figure: &HeatFigure, outermost: bool) {
        let bottom = self.cells_top() + self.heat;
        let centre = |i: usize| self.left + (i as f64 + 0.5) * self.column(figure);
        let labels: Vec<String> = figure.lengths.iter().map(|&n| length_label(n)).collect();
        // The largest text with which every length has its label; else the smallest, and some have none.
        let shown_at = |canvas: &Canvas, em: f64| {
            let places = labels.iter().enumerate().map(|(i, label)| {
                let plain = i > 0 && !figure.lengths[i].is_power_of_two();
                (centre(i), canvas.width(label, em), u8::from(plain))
            });
            spread(&places.collect::<Vec<_>>(), 0.4 * em)
        };
        let sizes = [34.0, 30.0, 27.0];
        let whole = |em: &f64| shown_at(canvas, *em).into_iter().all(|shown| shown);
        let em = sizes.into_iter().find(whole).unwrap_or(sizes[2]);
        let shown = shown_at(canvas, em);
        for (i, label) in labels.iter().enumerate().filter(|(i, _)| shown[*i]) {
            canvas.line(&[(centre(i), bottom), (centre(i), bottom + 9.0)], INK, 2.0);
            canvas.text(label, (centre(i), bottom + 43.0), em, INK, Middle);
        }
        if !outermost {
            return;
        }
        let middle = |j: usize| self.cells_top() + (j as f64 + 0.5) * self.row(figure);
        let last = figure.depths.len() - 1;
        let places = (0..=last).map(|j| (middle(j), 32.0, u8::from(j > 0 && j < last)));
        let shown = spread(&places.collect::<Vec<_>>(), 4.0);
        for (j, depth) in figure.depths.iter().enumerate().filter(|(j, _)| shown[*j]) {
            let label = ((depth * 1000.0).round() / 10.0).to_string();
            canvas.text(&label, (self.left - 16.0, middle(j) + 11.0), 32.0, INK, End);
        }
        let at = (self.left - 104.0, self.cells_top() + self.heat / 2.0);
        canvas.text("needle depth (%)", at, 34.0, INK, MiddleUpwards);
    }
}

/// Where the trained length lies.
enum Side {
    Unknown,
    Left,
    /// After so many columns.
    Within(usize),
    Right,
}

fn side(figure: &HeatFigure) -> Side {
    let (lengths, trained) = (&figure.lengths, figure.trained);
    let within = lengths.iter().filter(|&&length| length <= trained).count();
    match within {
        _ if trained == 0 => Side::Unknown,
        0 => Side::Left,
        n if n == lengths.len() && lengths[n - 1] < trained => Side::Right,
        n => Side::Within(n),
    }
}

/// The axis' title, what the lines are, and the colours.
fn paint_foot(canvas: &mut Canvas, figure: &HeatFigure, top: f64, (left, right): (f64, f64)) {
    let middle = (left + right) / 2.0;
    canvas.text(
        "context length (tokens)",
        (middle, top + 36.0),
        LABEL_EM,
        INK,
        Middle,
    );
    let length = length_label(figure.trained);
    let trained = match side(figure) {
        Side::Unknown => None,
        Side::Left => Some(format!("trained length {length} (left of these axes)")),
        Side::Within(_) => Some(format!("trained length {length}")),
        Side::Right => Some(format!("trained length {length} (right of these axes)")),
    };
    let threshold = format!("threshold {} %", (figure.threshold * 1000.0).round() / 10.0);
    let mut entries = vec![(threshold, THRESHOLD, GREY)];
    if let Some(trained) = trained {
        entries.insert(0, (trained, TRAINED, INK));
    }
    let (sample, em) = (110.0, 34.0);
    let width = |canvas: &Canvas, text: &str| sample + canvas.width(text, em) + 60.0;
    let total: f64 = entries.iter().map(|entry| width(canvas, &entry.0)).sum();
    let (mut at, y) = (middle - (total - 60.0) / 2.0, top + 94.0);
    for (text, dash, ink) in entries {
        canvas.dashed(&[(at, y - 11.0), (at + 90.0, y - 11.0)], dash, ink, 4.0);
        canvas.text(&text, (at + sample, y), em, INK, Start);
        at += width(canvas, &text);
    }
    let (steps, bar, y) = (120, 600.0, top + 132.0);
    let start = middle - bar / 2.0;
    for step in 0..steps {
        let x = |step: i32| start + bar * f64::from(step) / f64::from(steps);
        let score = (f64::from(step) + 0.5) / f64::from(steps);
        canvas.rectangle((x(step), y), (x(step + 1), y + 30.0), colour(score));
    }
    canvas.frame((start, y), (start + bar, y + 30.0), INK, 3.0);
    canvas.text("score (%)  0", (start - 18.0, y + 26.0), em, INK, End);
    canvas.text("100", (start + bar + 18.0, y + 26.0), em, INK, Start);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(panels: usize, lengths: usize, depths: usize) -> HeatFigure {
        let panel = |p: usize| Panel {
            name: format!("method {p} with a name that goes on and on and on"),
            scores: (0..lengths)
                .map(|i| {
                    (0..depths)
                        .map(|j| Some(((i * j) % 7) as f64 / 6.0))
                        .collect()
                })
                .collect(),
        };
        HeatFigure {
            title: "t".into(),
            subtitle: String::new(),
            trained: 2048,
            threshold: 0.85,
            lengths: (0..lengths).map(|i| 512 << i).collect(),
            depths: (0..depths).map(|j| j as f64 / depths as f64).collect(),
            panels: (0..panels).map(panel).collect(),
        }
    }

    #[test]
    fn the_trained_length_is_marked_between_columns() {
        let mut figure = figure(1, 4, 2); // 512 to 4096
        assert!(matches!(side(&figure), Side::Within(3)));
        figure.trained = 4096;
        assert!(matches!(side(&figure), Side::Within(4)));
        figure.trained = 4097;
        assert!(matches!(side(&figure), Side::Right));
        figure.trained = 511;
        assert!(matches!(side(&figure), Side::Left));
        figure.trained = 0;
        assert!(matches!(side(&figure), Side::Unknown));
    }

    #[test]
    fn any_grid_is_drawn() {
        for (panels, lengths, depths) in [(1, 1, 1), (2, 3, 5), (4, 20, 35), (7, 6, 11)] {
            let mut figure = figure(panels, lengths, depths);
            figure.panels[0].scores[0][0] = None;
            paint(&figure).unwrap();
        }
    }
}
