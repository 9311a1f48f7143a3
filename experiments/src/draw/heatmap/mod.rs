//! Heat maps of scores by length and depth: a panel for each method, with the mean over the depths
//! as a curve above its map.

mod figure;
mod layout;
mod page;
mod panel;

pub use figure::{HeatFigure, HeatPanel};

/// Dash pattern of the line at the trained length.
const TRAINED: &[f64] = &[16.0, 10.0];
/// Dash pattern of the line at the threshold.
const THRESHOLD: &[f64] = &[5.0, 8.0];
