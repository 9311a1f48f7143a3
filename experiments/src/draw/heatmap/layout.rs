//! Where the parts of a figure of heat maps stand on the page.

use super::figure::{HeatFigure, TrainedSide};
use crate::draw::canvas::PAGE;

/// Space left of the panels, for labels, and right of them.
const MARGIN: (f64, f64) = (176.0, 44.0);
/// Space between panels, and between a curve and its heat map.
const GAP: (f64, f64) = (44.0, 18.0);
/// Height of title and subtitle.
const HEAD: f64 = 136.0;
/// Height of the name of a panel.
const NAME: f64 = 62.0;
/// Height of the labels of the lengths.
const LENGTHS: f64 = 58.0;
/// Height of everything below the panels.
const FOOT: f64 = 196.0;

/// The grid of panels on the page.
pub struct Layout {
    /// Columns of panels.
    columns: usize,
    /// Rows of panels.
    rows: usize,
    /// Width of a panel.
    width: f64,
    /// Height of a curve.
    curve: f64,
    /// Height of a heat map.
    heat: f64,
}

impl Layout {
    /// The layout for a number of panels, at least one.
    pub fn new(panels: usize) -> Self {
        let (columns, curve, heat) = match panels {
            1 => (1, 220.0, 480.0),
            2 | 4 => (2, 160.0, 330.0),
            _ => (3, 150.0, 290.0),
        };
        let (left, right) = sides();
        Self {
            columns,
            rows: panels.div_ceil(columns),
            width: (right - left - GAP.0 * (columns - 1) as f64) / columns as f64,
            curve,
            heat,
        }
    }

    /// Width and height of the page.
    pub fn page(&self) -> (u32, u32) {
        (PAGE.0, (HEAD + self.rows as f64 * self.row() + FOOT) as u32)
    }

    /// Upper edge of what stands below the panels.
    pub fn foot(&self) -> f64 {
        f64::from(self.page().1) - FOOT
    }

    /// The place of panel `index` of a figure.
    pub fn place<'a>(&self, figure: &'a HeatFigure, index: usize) -> Place<'a> {
        let (row, column) = (index / self.columns, index % self.columns);
        Place {
            figure,
            outermost: column == 0,
            left: sides().0 + column as f64 * (self.width + GAP.0),
            width: self.width,
            top: HEAD + row as f64 * self.row() + NAME,
            curve: self.curve,
            heat: self.heat,
        }
    }

    /// Height of a row of panels.
    fn row(&self) -> f64 {
        NAME + self.curve + GAP.1 + self.heat + LENGTHS
    }
}

/// Left edge of the first column of panels, and right edge of the last.
pub fn sides() -> (f64, f64) {
    (MARGIN.0, f64::from(PAGE.0) - MARGIN.1)
}

/// The place of one panel, without its name and the labels of its lengths.
pub struct Place<'a> {
    /// The figure, whose lengths and depths divide the panel.
    pub figure: &'a HeatFigure,
    /// True in the first column, which has the labels of the vertical axes.
    pub outermost: bool,
    /// Left edge.
    pub left: f64,
    /// Width.
    pub width: f64,
    /// Upper edge of the curve.
    pub top: f64,
    /// Height of the curve.
    pub curve: f64,
    /// Height of the heat map.
    pub heat: f64,
}

impl Place<'_> {
    /// Right edge.
    pub fn right(&self) -> f64 {
        self.left + self.width
    }

    /// Upper edge of the heat map.
    pub fn heat_top(&self) -> f64 {
        self.top + self.curve + GAP.1
    }

    /// Width of a column.
    pub fn column(&self) -> f64 {
        self.width / self.figure.lengths.len() as f64
    }

    /// Height of a row of the heat map.
    pub fn row(&self) -> f64 {
        self.heat / self.figure.depths.len() as f64
    }

    /// Centre of a column.
    pub fn column_centre(&self, index: usize) -> f64 {
        self.left + (index as f64 + 0.5) * self.column()
    }

    /// Centre of a row of the heat map.
    pub fn row_centre(&self, index: usize) -> f64 {
        self.heat_top() + (index as f64 + 0.5) * self.row()
    }

    /// Where the trained length ends: an edge of a column; `None` if it lies beyond them.
    pub fn trained(&self) -> Option<f64> {
        match self.figure.trained_side() {
            TrainedSide::After(columns) => Some(self.left + columns as f64 * self.column()),
            _ => None,
        }
    }
}
