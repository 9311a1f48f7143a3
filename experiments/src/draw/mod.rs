//! The drawing kit (canvas, axes, legend, pens, palette) and the kinds of figures that it draws:
//! curves over context length, heat maps over length and depth, and panels of training losses.
//!
//! Nothing here knows records or configs. A figure is plain data with a `paint` method that returns
//! a [`Canvas`], which [`Canvas::save`] writes as SVG and PNG. Lengths on the page are pixels of
//! the PNG.

mod axes;
mod canvas;
mod heatmap;
mod legend;
mod lengths;
mod palette;
mod panels;
mod pens;

use plotters::style::RGBColor;

pub use axes::length_label;
use canvas::Align::Start;
pub use canvas::Canvas;
pub use heatmap::{HeatFigure, HeatPanel};
pub use lengths::{Curve, CurveKind, LengthFigure};
pub use panels::{LossFigure, LossPanel, Scale, Series};

/// Colour of text and axes.
const INK: RGBColor = RGBColor(30, 30, 30);
/// Colour of secondary text and lines.
const GREY: RGBColor = RGBColor(110, 110, 110);

impl Canvas {
    /// Draws title and subtitle below `top` and returns their lower edge. An empty text takes no
    /// space; a long one is set smaller, then cut.
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
