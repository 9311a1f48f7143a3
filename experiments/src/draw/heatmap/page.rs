//! Painting of the whole page: title, panels, and the legend below them.

use anyhow::{Result, ensure};

use super::figure::{HeatFigure, TrainedSide};
use super::layout::{Layout, sides};
use super::{THRESHOLD, TRAINED, panel};
use crate::draw::axes::{LABEL_EM, length_label};
use crate::draw::canvas::Align::{End, Middle, Start};
use crate::draw::canvas::Canvas;
use crate::draw::palette::colour;
use crate::draw::{GREY, INK};

/// Size of the texts of the legend, em.
const EM: f64 = 34.0;
/// Steps of the colour bar.
const STEPS: u32 = 120;

impl HeatFigure {
    /// Draws the figure.
    ///
    /// # Errors
    /// There are no panels, lengths or depths, or the font cannot be read.
    pub fn paint(&self) -> Result<Canvas> {
        ensure!(
            !self.panels.is_empty() && !self.lengths.is_empty() && !self.depths.is_empty(),
            "no cells to draw in {:?}",
            self.title
        );
        let layout = Layout::new(self.panels.len());
        let mut canvas = Canvas::of_size(layout.page())?;
        canvas.heading([&self.title, &self.subtitle], sides(), 14.0);
        for (index, scores) in self.panels.iter().enumerate() {
            panel::paint(&mut canvas, &layout.place(self, index), scores);
        }
        let (left, right) = sides();
        let (middle, top) = ((left + right) / 2.0, layout.foot());
        let at = (middle, top + 36.0);
        canvas.text("context length (tokens)", at, LABEL_EM, INK, Middle);
        self.paint_lines_legend(&mut canvas, middle, top + 94.0);
        paint_colour_bar(&mut canvas, middle, top + 132.0);
        Ok(canvas)
    }

    /// Says what the dashed lines mark; `y` is the baseline.
    fn paint_lines_legend(&self, canvas: &mut Canvas, middle: f64, y: f64) {
        let length = length_label(self.trained);
        let trained = match self.trained_side() {
            TrainedSide::Unknown => None,
            TrainedSide::Left => Some(format!("trained length {length} (left of these axes)")),
            TrainedSide::After(_) => Some(format!("trained length {length}")),
            TrainedSide::Right => Some(format!("trained length {length} (right of these axes)")),
        };
        let threshold = format!("threshold {} %", (self.threshold * 1000.0).round() / 10.0);
        let mut entries = Vec::new();
        entries.extend(trained.map(|trained| (trained, TRAINED, INK)));
        entries.push((threshold, THRESHOLD, GREY));

        let (sample, gap) = (110.0, 60.0);
        let width = |canvas: &Canvas, text: &str| sample + canvas.width(text, EM) + gap;
        let total: f64 = entries.iter().map(|entry| width(canvas, &entry.0)).sum();
        let mut at = middle - (total - gap) / 2.0;
        for (text, dash, ink) in entries {
            canvas.dashed(&[(at, y - 11.0), (at + 90.0, y - 11.0)], dash, ink, 4.0);
            canvas.text(&text, (at + sample, y), EM, INK, Start);
            at += width(canvas, &text);
        }
    }
}

/// Draws the colours of the scores from 0 to 100 %.
fn paint_colour_bar(canvas: &mut Canvas, middle: f64, top: f64) {
    let (width, height) = (600.0, 30.0);
    let start = middle - width / 2.0;
    let x = |step: u32| start + width * f64::from(step) / f64::from(STEPS);
    for step in 0..STEPS {
        let score = (f64::from(step) + 0.5) / f64::from(STEPS);
        canvas.rectangle((x(step), top), (x(step + 1), top + height), colour(score));
    }
    canvas.frame((start, top), (start + width, top + height), INK, 3.0);
    canvas.text("score (%)  0", (start - 18.0, top + 26.0), EM, INK, End);
    canvas.text("100", (start + width + 18.0, top + 26.0), EM, INK, Start);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::HeatPanel;

    fn figure(panels: usize, lengths: usize, depths: usize) -> HeatFigure {
        let score = |i: usize, j: usize| Some(((i * j) % 7) as f64 / 6.0);
        let column = |i: usize| (0..depths).map(|j| score(i, j)).collect();
        let panel = |p: usize| HeatPanel {
            name: format!("method {p} with a name that is longer than any panel is wide"),
            scores: (0..lengths).map(column).collect(),
        };
        HeatFigure {
            title: "title".into(),
            subtitle: String::new(),
            trained: 2048,
            threshold: 0.85,
            depth_title: "needle depth (%)".into(),
            lengths: (0..lengths).map(|i| 512 << i).collect(),
            depths: (0..depths).map(|j| j as f64 / depths as f64).collect(),
            panels: (0..panels).map(panel).collect(),
        }
    }

    #[test]
    fn any_grid_is_drawn() {
        for (panels, lengths, depths, numbered) in [
            (1, 1, 1, true),
            (2, 3, 5, true),
            (4, 20, 35, false),
            (7, 6, 11, false),
        ] {
            let mut figure = figure(panels, lengths, depths);
            figure.panels[0].scores[0][0] = None;
            let page = figure.paint().unwrap();
            assert!(page.beyond().is_empty(), "{:?}", page.beyond());
            // A rectangle for each cell and step of the colour bar, and two polygons for the marker
            // of each length; the first length of the first panel is incomplete.
            let cells = panels * lengths * depths;
            let markers = panels * lengths - 1;
            assert_eq!(page.polygons(), cells + STEPS as usize + 2 * markers);
            let texts = page.texts();
            let count = |is: &dyn Fn(&str) -> bool| texts.iter().filter(|text| is(text)).count();
            assert_eq!(count(&|text| text.starts_with("method ")), panels);
            assert_eq!(count(&|text| text == "–"), usize::from(numbered));
            let rows = panels.div_ceil(if panels > 4 { 3 } else { panels.min(2) });
            assert_eq!(count(&|text| text == "needle depth (%)"), rows);
            assert_eq!(count(&|text| text == "512"), panels);
            let side = if lengths == 1 {
                " (right of these axes)"
            } else {
                ""
            };
            assert_eq!(count(&|text| text == format!("trained length 2K{side}")), 1);
        }
    }

    #[test]
    fn a_figure_without_cells_is_refused() {
        for (panels, lengths, depths) in [(0, 1, 1), (1, 0, 1), (1, 1, 0)] {
            let error = figure(panels, lengths, depths).paint().err().unwrap();
            assert_eq!(error.to_string(), "no cells to draw in \"title\"");
        }
    }
}
