//! The legend below the plot.

use super::INK;
use super::canvas::Align::Start;
use super::canvas::{Canvas, PAGE};
use super::pens::Style;

/// Width of a legend entry besides its name: the sample of the line, and space.
const SAMPLE: f64 = 190.0;
/// Largest height of a legend whose names are not cut.
const TALLEST: f64 = 300.0;

/// The names of curves in columns, read downwards.
pub struct Legend<'a> {
    names: Vec<&'a str>,
    /// Size of the text, em.
    em: f64,
    rows: usize,
    /// Widths of the columns.
    columns: Vec<f64>,
}

impl<'a> Legend<'a> {
    /// Chooses the largest text with which all names fit, then the fewest rows; cuts the names if
    /// none fits. `canvas` measures them.
    pub fn new(canvas: &Canvas, names: Vec<&'a str>) -> Self {
        let room = f64::from(PAGE.0) - 60.0;
        let rows = |columns: usize| names.len().div_ceil(columns).max(1);
        for em in [40.0, 36.0, 32.0] {
            let width = |name: &&str| canvas.width(name, em) + SAMPLE;
            for rows in [4, 3, 2, 1].map(rows) {
                let columns = names.chunks(rows);
                let widths = columns.map(|names| names.iter().map(width).fold(0.0, f64::max));
                let widths: Vec<f64> = widths.collect();
                if rows as f64 * em * 1.3 <= TALLEST && widths.iter().sum::<f64>() <= room {
                    return Self {
                        names,
                        em,
                        rows,
                        columns: widths,
                    };
                }
            }
        }
        let em = 30.0;
        let wanted = (names.len() as f64 * em * 1.3 / TALLEST).ceil();
        let rows = rows(wanted.clamp(2.0, 4.0) as usize);
        let columns = names.len().div_ceil(rows);
        let columns = vec![room / columns as f64; columns];
        Self {
            names,
            em,
            rows,
            columns,
        }
    }

    /// Height in pixels.
    pub fn height(&self) -> f64 {
        self.rows as f64 * self.em * 1.3
    }

    /// Draws the legend, centred on the page, with its upper edge at `top`. `styles` are in the
    /// order of the names.
    pub fn paint(&self, canvas: &mut Canvas, styles: &[Style], top: f64) {
        let (em, rows, columns) = (self.em, self.rows, &self.columns);
        let mut left = (f64::from(PAGE.0) - columns.iter().sum::<f64>()) / 2.0;
        for (column, width) in columns.iter().enumerate() {
            let entries = self.names.iter().zip(styles).skip(column * rows).take(rows);
            for (row, (name, style)) in entries.enumerate() {
                let y = top + (row as f64 + 0.55) * em * 1.3;
                canvas.curve(&[(left, y), (left + 140.0, y)], style);
                canvas.marker((left + 70.0, y), style);
                let name = canvas.fit(name, em, width - SAMPLE + 1.0);
                canvas.text(&name, (left + 156.0, y + 0.34 * em), em, INK, Start);
            }
            left += width;
        }
    }
}
