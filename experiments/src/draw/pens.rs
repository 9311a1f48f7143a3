//! The pens that draw the curves: colours, dash patterns and markers.

use plotters::style::{RGBColor, WHITE};

use super::canvas::{Canvas, Point};
use Marker::{Filled, Hollow, Spokes};

/// The palette of Okabe and Ito without its yellow, which has too little contrast on white.
const COLOURS: [u32; 7] = [
    0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7, 0x000000, 0xe69f00, 0x56b4e9,
];
/// Pairs of dash pattern and marker, all distinct, for print without colours.
const STYLES: [(&[f64], Marker); 12] = [
    (&[], Hollow(32, 0.0)),
    (&[28.0, 12.0], Hollow(4, 45.0)),
    (&[8.0, 9.0], Hollow(3, 0.0)),
    (&[28.0, 9.0, 8.0, 9.0], Hollow(4, 0.0)),
    (&[50.0, 14.0], Filled(32, 0.0)),
    (&[15.0, 9.0], Spokes(4, 45.0)),
    (&[28.0, 9.0, 8.0, 9.0, 8.0, 9.0], Filled(4, 45.0)),
    (&[50.0, 10.0, 15.0, 10.0], Hollow(3, 180.0)),
    (&[15.0, 20.0], Filled(4, 0.0)),
    (&[50.0, 9.0, 8.0, 9.0], Spokes(4, 0.0)),
    (&[28.0, 8.0, 28.0, 8.0, 8.0, 8.0], Filled(3, 0.0)),
    (&[8.0, 20.0], Spokes(6, 0.0)),
];

/// The shape of a marker: sides or strokes, and clockwise rotation in degrees.
#[derive(Debug)]
pub enum Marker {
    /// Outline of a regular polygon, white inside.
    Hollow(u32, f64),
    /// A regular polygon.
    Filled(u32, f64),
    /// Strokes from the centre.
    Spokes(u32, f64),
}

/// How a curve is drawn.
pub struct Style {
    /// Colour of line and marker.
    pub colour: RGBColor,
    /// Lengths of strokes and gaps in turn; empty for a solid line.
    pub dash: &'static [f64],
    /// Shape of the marker.
    pub marker: &'static Marker,
    /// Width of the line.
    pub width: f64,
    /// Radius of the marker.
    pub radius: f64,
}

/// Style of curve `index` of `count`. Each curve is smaller than the one before, so that an earlier
/// curve shows around a later one where they coincide.
pub fn style(index: usize, count: usize) -> Style {
    let late = index as f64 / count.saturating_sub(1).max(3) as f64;
    let [_, r, g, b] = COLOURS[index % COLOURS.len()].to_be_bytes();
    let (dash, marker) = &STYLES[index % STYLES.len()];
    let largest = if count > 5 { 18.0 } else { 23.0 };
    let (width, radius) = (7.0 - 3.0 * late, largest + (9.0 - largest) * late);
    Style {
        colour: RGBColor(r, g, b),
        dash,
        marker,
        width,
        radius,
    }
}

/// Style of the floor: dotted, dark grey.
pub fn floor() -> Style {
    Style {
        colour: RGBColor(70, 70, 70),
        dash: &[5.0, 9.0],
        marker: &Filled(32, 0.0),
        width: 5.0,
        radius: 6.0,
    }
}

/// Style of a published curve: thin and dashed, in a pale colour of the method that it is compared
/// with, or grey. Each marker is smaller than the one before; `index` and `count` include methods.
pub fn published(index: usize, count: usize, method: Option<usize>) -> Style {
    let late = index as f64 / count.saturating_sub(1).max(3) as f64;
    let colour = match method {
        Some(method) => pale(style(method, 1).colour, 0.65),
        None => RGBColor(140, 140, 140),
    };
    Style {
        colour,
        dash: &[14.0, 10.0],
        marker: &STYLES[method.unwrap_or(index) % STYLES.len()].1,
        width: 3.0,
        radius: 19.0 - 12.0 * late,
    }
}

/// A colour mixed with white; `share` of it remains.
pub fn pale(RGBColor(r, g, b): RGBColor, share: f64) -> RGBColor {
    let mix = |channel: u8| 255 - (f64::from(255 - channel) * share) as u8;
    RGBColor(mix(r), mix(g), mix(b))
}

impl Canvas {
    /// A line with a dash pattern: lengths of strokes and gaps in turn.
    pub fn dashed(&mut self, path: &[Point], pattern: &[f64], colour: RGBColor, width: f64) {
        for stroke in dashes(path, pattern) {
            self.line(&stroke, colour, width);
        }
    }

    /// The line of a curve.
    pub fn curve(&mut self, path: &[Point], style: &Style) {
        self.dashed(path, style.dash, style.colour, style.width);
    }

    /// A marker with a thin white rim that separates it from what lies behind.
    pub fn marker(&mut self, at: Point, style: &Style) {
        let around = |count: u32, turn: f64, radius: f64| -> Vec<Point> {
            let angles = (0..count).map(|i| f64::from(360 * i) / f64::from(count) + turn);
            let ends = angles.map(|angle| angle.to_radians().sin_cos());
            ends.map(|(sin, cos)| (at.0 + radius * sin, at.1 - radius * cos))
                .collect()
        };
        let (sides, turn, hollow) = match *style.marker {
            Hollow(sides, turn) => (sides, turn, true),
            Filled(sides, turn) => (sides, turn, false),
            Spokes(count, turn) => {
                for (colour, rim) in [(WHITE, 2.0), (style.colour, 0.0)] {
                    for end in around(count, turn, style.radius * 1.15 + rim) {
                        self.line(&[at, end], colour, style.width + 2.0 * rim);
                    }
                }
                return;
            }
        };
        // At equal radius a polygon with few sides looks smaller than a circle.
        let radius = style.radius * (1.0 + 0.9 / f64::from(sides));
        let slant = (std::f64::consts::PI / f64::from(sides)).cos();
        let mut polygon = |grow: f64, colour| {
            let corners = around(sides, turn, (radius + grow / slant).max(0.0));
            self.polygon(corners, colour);
        };
        polygon(2.0, WHITE);
        polygon(0.0, style.colour);
        if hollow {
            polygon(-0.75 * style.width, WHITE);
        }
    }
}

/// The strokes of a path under a dash pattern.
fn dashes(path: &[Point], pattern: &[f64]) -> Vec<Vec<Point>> {
    if pattern.is_empty() || path.is_empty() {
        return vec![path.to_vec()];
    }
    let (mut strokes, mut stroke, mut part, mut left) = (vec![], vec![path[0]], 0, pattern[0]);
    for (from, to) in path.iter().zip(&path[1..]) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let (length, mut done) = (dx.hypot(dy), 0.0);
        while length - done > left {
            done += left;
            // This point ends a stroke, or a gap and so starts one.
            stroke.push((from.0 + dx * done / length, from.1 + dy * done / length));
            if part % 2 == 0 {
                strokes.push(std::mem::take(&mut stroke));
            }
            part += 1;
            left = pattern[part % pattern.len()];
        }
        left -= length - done;
        if part % 2 == 0 {
            stroke.push(*to);
        }
    }
    strokes.push(stroke);
    strokes.retain(|stroke| stroke.len() > 1);
    strokes
}

#[cfg(test)]
impl Style {
    /// The number of polygons of a marker.
    pub fn polygons(&self) -> usize {
        match self.marker {
            Hollow(..) => 3,
            Filled(..) => 2,
            Spokes(..) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_turn_corners() {
        let strokes = dashes(&[(0.0, 0.0), (10.0, 0.0), (10.0, 10.0)], &[8.0, 1.0]);
        let turned = vec![(9.0, 0.0), (10.0, 0.0), (10.0, 7.0)];
        let ends = [
            vec![(0.0, 0.0), (8.0, 0.0)],
            turned,
            vec![(10.0, 8.0), (10.0, 10.0)],
        ];
        assert_eq!(strokes, ends);
        assert_eq!(dashes(&[(1.0, 2.0)], &[]), [[(1.0, 2.0)]]);
    }
}
