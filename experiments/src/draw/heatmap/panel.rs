//! Painting of one panel: name, curve of the means, heat map, labels.

use plotters::style::{RGBColor, WHITE};

use super::figure::HeatPanel;
use super::layout::Place;
use super::{THRESHOLD, TRAINED};
use crate::draw::axes::{LABEL_EM, length_label, spread};
use crate::draw::canvas::Align::{End, Middle, MiddleUpwards, Start};
use crate::draw::canvas::Canvas;
use crate::draw::palette::{colour, pen_on};
use crate::draw::pens::{Marker, Style};
use crate::draw::{GREY, INK};

/// Colour of cells without a score.
const MISSING: RGBColor = RGBColor(226, 226, 226);
/// Colour of the grid.
const GRID: RGBColor = RGBColor(226, 226, 226);
/// Space within the frame of a curve above 100 % and below 0 %, for markers.
const INSET: f64 = 16.0;
/// Smallest text that is legible in print, em.
const SMALLEST_EM: f64 = 24.0;

/// Style of the curve of means.
const MEAN: Style = Style {
    colour: INK,
    dash: &[],
    marker: &Marker::Filled(32, 0.0),
    width: 4.0,
    radius: 9.0,
};

/// Draws a panel.
pub fn paint(canvas: &mut Canvas, place: &Place, panel: &HeatPanel) {
    let em = LABEL_EM * place.width / canvas.width(&panel.name, LABEL_EM).max(1.0);
    let em = em.clamp(28.0, LABEL_EM);
    let name = canvas.fit(&panel.name, em, place.width);
    canvas.text(&name, (place.left, place.top - 19.0), em, INK, Start);
    paint_curve_axes(canvas, place);
    paint_curve(canvas, place, panel);
    paint_cells(canvas, place, panel);
    paint_lengths(canvas, place);
    if place.outermost {
        paint_depths(canvas, place);
    }
    if let Some(at) = place.trained() {
        let top = place.heat_top();
        let line = [(at, top), (at, top + place.heat)];
        canvas.line(&line, WHITE, 8.0);
        canvas.dashed(&line, TRAINED, INK, 4.0);
    }
}

/// Page coordinate of a mean score.
fn mean_y(place: &Place, score: f64) -> f64 {
    let room = place.curve - 2.0 * INSET;
    place.top + INSET + (1.0 - score.clamp(0.0, 1.0)) * room
}

fn paint_curve_axes(canvas: &mut Canvas, place: &Place) {
    let (left, right) = (place.left, place.right());
    let (top, bottom) = (place.top, place.top + place.curve);
    for percent in [0, 50, 100] {
        let at = mean_y(place, f64::from(percent) / 100.0);
        canvas.line(&[(left, at), (right, at)], GRID, 2.0);
        if place.outermost {
            let label = percent.to_string();
            canvas.text(&label, (left - 16.0, at + 11.0), 32.0, INK, End);
        }
    }
    let threshold = mean_y(place, place.figure.threshold);
    let line = [(left, threshold), (right, threshold)];
    canvas.dashed(&line, THRESHOLD, GREY, 3.0);
    if place.outermost {
        let at = (left - 104.0, place.top + place.curve / 2.0);
        canvas.text("mean (%)", at, 34.0, INK, MiddleUpwards);
    }
    if let Some(at) = place.trained() {
        canvas.dashed(&[(at, top), (at, bottom)], TRAINED, INK, 4.0);
    }
    canvas.frame((left, top), (right, bottom), INK, 3.0);
}

/// Draws the mean score of every length whose cells are complete.
fn paint_curve(canvas: &mut Canvas, place: &Place, panel: &HeatPanel) {
    let point = |(i, scores): (usize, &Vec<Option<f64>>)| {
        let known: Vec<f64> = scores.iter().copied().collect::<Option<_>>()?;
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        Some((place.column_centre(i), mean_y(place, mean)))
    };
    let points: Vec<_> = panel.scores.iter().enumerate().map(point).collect();
    for stretch in points.split(Option::is_none) {
        let stretch: Vec<_> = stretch.iter().flatten().copied().collect();
        canvas.curve(&stretch, &MEAN);
    }
    let radius = MEAN.radius.min(0.3 * place.column());
    for at in points.into_iter().flatten() {
        canvas.marker(at, &Style { radius, ..MEAN });
    }
}

fn paint_cells(canvas: &mut Canvas, place: &Place, panel: &HeatPanel) {
    let (width, height) = (place.column(), place.row());
    // Scores are written into the cells if they fit: the map is then legible without colours.
    let em = (36.0 * 0.76 * width / canvas.width("100", 36.0))
        .min(0.7 * height)
        .min(36.0);
    // White lines between cells, unless the cells are tiny.
    let rim = if width.min(height) > 20.0 { 1.5 } else { 0.0 };
    let top = place.heat_top();
    for (i, scores) in panel.scores.iter().enumerate() {
        for (j, score) in scores.iter().enumerate() {
            let left = place.left + i as f64 * width;
            let top = top + j as f64 * height;
            let ground = score.map_or(MISSING, colour);
            canvas.rectangle(
                (left + rim, top + rim),
                (left + width - rim, top + height - rim),
                ground,
            );
            if em >= SMALLEST_EM {
                let text = score.map_or("–".to_owned(), |s| format!("{:.0}", s * 100.0));
                let at = (left + width / 2.0, top + height / 2.0 + 0.35 * em);
                canvas.text(&text, at, em, pen_on(ground), Middle);
            }
        }
    }
    let corners = ((place.left, top), (place.right(), top + place.heat));
    canvas.frame(corners.0, corners.1, INK, 3.0);
}

/// Labels the columns in the largest text in which every length has its label; in the smallest,
/// labels that would touch are left out.
fn paint_lengths(canvas: &mut Canvas, place: &Place) {
    let lengths = &place.figure.lengths;
    let labels: Vec<String> = lengths.iter().map(|&n| length_label(n)).collect();
    let shown_at = |canvas: &Canvas, em: f64| {
        let places = labels.iter().enumerate().map(|(i, label)| {
            let plain = i > 0 && !lengths[i].is_power_of_two();
            let width = canvas.width(label, em);
            (place.column_centre(i), width, u8::from(plain))
        });
        spread(&places.collect::<Vec<_>>(), 0.4 * em)
    };
    let sizes = [34.0, 30.0, 27.0];
    let all_shown = |em: &f64| shown_at(canvas, *em).into_iter().all(|shown| shown);
    let em = sizes.into_iter().find(all_shown).unwrap_or(sizes[2]);
    let shown = shown_at(canvas, em);
    let bottom = place.heat_top() + place.heat;
    for (i, label) in labels.iter().enumerate().filter(|(i, _)| shown[*i]) {
        let x = place.column_centre(i);
        canvas.line(&[(x, bottom), (x, bottom + 9.0)], INK, 2.0);
        canvas.text(label, (x, bottom + 43.0), em, INK, Middle);
    }
}

/// Labels the rows, the first and the last before others, and writes the title of their axis.
fn paint_depths(canvas: &mut Canvas, place: &Place) {
    let depths = &place.figure.depths;
    let last = depths.len() - 1;
    let places = (0..=last).map(|j| (place.row_centre(j), 32.0, u8::from(j > 0 && j < last)));
    let shown = spread(&places.collect::<Vec<_>>(), 4.0);
    for (j, depth) in depths.iter().enumerate().filter(|(j, _)| shown[*j]) {
        let label = ((depth * 1000.0).round() / 10.0).to_string();
        let at = (place.left - 16.0, place.row_centre(j) + 11.0);
        canvas.text(&label, at, 32.0, INK, End);
    }
    let at = (place.left - 104.0, place.heat_top() + place.heat / 2.0);
    canvas.text(&place.figure.depth_title, at, 34.0, INK, MiddleUpwards);
}
