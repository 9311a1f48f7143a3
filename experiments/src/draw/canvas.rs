//! A page of lines, polygons and text that is saved as SVG and as PNG.
//!
//! Coordinates are pixels of the PNG. Both files are drawn on a grid three times finer: the SVG
//! keeps it as its view box; the PNG averages it down, because plotters does not smooth the edges
//! of thick lines. Letters of the PNG are placed here, because plotters (0.3.7) ignores the left
//! side bearing of letters, which makes their spacing uneven.

use std::path::Path;

use ab_glyph::{Font, FontRef, Glyph, PxScale, ScaleFont, point};
use anyhow::{Context, Result};
use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontTransform, IntoFont, IntoTextStyle, RGBColor, WHITE};

/// (x, y) on the page, from its top left corner; y grows downwards.
pub type Point = (f64, f64);

/// Width and height of the page of a figure with one plot.
pub const PAGE: (u32, u32) = (1600, 1000);
/// Grid cells per pixel of the page, each way.
const FINE: u32 = 3;

/// How a text lies relative to its point.
#[derive(Clone, Copy, Debug)]
pub enum Align {
    /// The text starts at the point.
    Start,
    /// The text is centred on the point.
    Middle,
    /// The text ends at the point.
    End,
    /// The text is centred on the point and runs upwards.
    MiddleUpwards,
}

/// A mark on the page. Numbers are the stroke width of a line and the size (em) of a text.
#[derive(Debug)]
enum Mark {
    Line(Vec<Point>, RGBColor, f64),
    Polygon(Vec<Point>, RGBColor),
    Text(String, Point, f64, RGBColor, Align),
}

/// A page with its marks.
pub struct Canvas {
    /// Width and height.
    page: (u32, u32),
    /// Measures text, and draws that of the PNG.
    font: FontRef<'static>,
    /// From back to front.
    marks: Vec<Mark>,
}

impl Canvas {
    /// An empty white page of the size of a figure with one plot.
    ///
    /// # Errors
    /// The font cannot be read.
    pub fn new() -> Result<Self> {
        Self::of_size(PAGE)
    }

    /// An empty white page.
    ///
    /// # Errors
    /// The font cannot be read.
    pub fn of_size(page: (u32, u32)) -> Result<Self> {
        let font = FontRef::try_from_slice(epaint_default_fonts::UBUNTU_LIGHT);
        let font = font.context("reading the figure's font")?;
        let (right, bottom) = (f64::from(page.0), f64::from(page.1));
        let corners = vec![(0.0, 0.0), (right, 0.0), (right, bottom), (0.0, bottom)];
        Ok(Self {
            page,
            font,
            marks: vec![Mark::Polygon(corners, WHITE)],
        })
    }

    /// A solid line through points.
    pub fn line(&mut self, path: &[Point], colour: RGBColor, width: f64) {
        self.marks.push(Mark::Line(path.to_vec(), colour, width));
    }

    /// A filled polygon.
    pub fn polygon(&mut self, corners: Vec<Point>, colour: RGBColor) {
        self.marks.push(Mark::Polygon(corners, colour));
    }

    /// A filled rectangle between two opposite corners.
    pub fn rectangle(&mut self, a: Point, b: Point, colour: RGBColor) {
        self.polygon(vec![a, (b.0, a.1), b, (a.0, b.1)], colour);
    }

    /// The outline of a rectangle, its corners filled.
    pub fn frame(&mut self, a: Point, b: Point, colour: RGBColor, width: f64) {
        let corners = [a, (b.0, a.1), b, (a.0, b.1)];
        for side in 0..4 {
            self.line(&[corners[side], corners[(side + 1) % 4]], colour, width);
        }
    }

    /// Text of size `em` with its baseline through `at`.
    pub fn text(&mut self, text: &str, at: Point, em: f64, colour: RGBColor, align: Align) {
        self.marks
            .push(Mark::Text(text.to_owned(), at, em, colour, align));
    }

    /// The width of a text of size `em`.
    pub fn width(&self, text: &str, em: f64) -> f64 {
        self.glyphs(text, em).1
    }

    /// The text on one line, with an ellipsis for its middle if it is wider than `room`.
    pub fn fit(&self, text: &str, em: f64, room: f64) -> String {
        let letters: Vec<char> = text.replace(char::is_control, " ").chars().collect();
        let keep = |kept: usize| -> String {
            let head = &letters[..kept.div_ceil(2)];
            let tail = &letters[letters.len() - kept / 2..];
            let dots = if kept < letters.len() { "…" } else { "" };
            head.iter()
                .copied()
                .chain(dots.chars())
                .chain(tail.iter().copied())
                .collect()
        };
        (0..=letters.len())
            .rev()
            .map(keep)
            .find(|text| self.width(text, em) <= room)
            .unwrap_or_default()
    }

    /// The glyphs of a text that starts at the origin, and the width of the text.
    fn glyphs(&self, text: &str, em: f64) -> (Vec<Glyph>, f64) {
        let units = self.font.units_per_em().unwrap_or(1000.0);
        let scale = PxScale::from(em as f32 * self.font.height_unscaled() / units);
        let font = self.font.as_scaled(scale);
        let (mut x, mut last, mut glyphs) = (0.0, None, Vec::new());
        for letter in text.chars() {
            let mut glyph = font.scaled_glyph(letter);
            x += last.map_or(0.0, |last| font.kern(last, glyph.id));
            glyph.position = point(x, 0.0);
            x += font.h_advance(glyph.id);
            last = Some(glyph.id);
            glyphs.push(glyph);
        }
        (glyphs, f64::from(x))
    }

    /// Draws all marks on the fine grid; `set` draws texts.
    fn play<B: DrawingBackend>(
        &self,
        backend: &mut B,
        set: impl Fn(&mut B, &str, Point, f64, RGBColor, Align) -> Result<()>,
    ) -> Result<()>
    where
        B::ErrorType: 'static,
    {
        let fine = f64::from(FINE);
        let cells =
            |path: &[Point]| -> Vec<(i32, i32)> { path.iter().map(|&at| cell(at)).collect() };
        for mark in &self.marks {
            match mark {
                Mark::Line(path, colour, width) => {
                    let stroke = colour.stroke_width((width * fine).round() as u32);
                    backend.draw_path(cells(path), &stroke)?;
                }
                Mark::Polygon(corners, colour) => backend.fill_polygon(cells(corners), colour)?,
                Mark::Text(text, at, em, colour, align) => {
                    set(backend, text, *at, *em * fine, *colour, *align)?;
                }
            }
        }
        Ok(())
    }

    /// Writes the page to `dir` as `STEM.svg` and `STEM.png`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, dir: &Path, stem: &str) -> Result<()> {
        self.save_svg(&dir.join(format!("{stem}.svg")))?;
        self.save_png(&dir.join(format!("{stem}.png")))
    }

    /// Writes the page as SVG. The viewer's sans-serif font shows its texts.
    fn save_svg(&self, path: &Path) -> Result<()> {
        let (grid, mut svg) = ((self.page.0 * FINE, self.page.1 * FINE), String::new());
        let mut backend = SVGBackend::with_string(&mut svg, grid);
        self.play(&mut backend, |backend, text, (x, y), em, colour, align| {
            let (anchor, turn) = match align {
                Align::Start => (HPos::Left, FontTransform::None),
                Align::Middle => (HPos::Center, FontTransform::None),
                Align::End => (HPos::Right, FontTransform::None),
                Align::MiddleUpwards => (HPos::Center, FontTransform::Rotate270),
            };
            // Common sans-serif fonts are up to 1.14 times as wide as the one that measures.
            let em = em * 0.88;
            // Plotters divides the size by 1.24 and puts the baseline 0.76 em below the top.
            let rise = 0.76 * em / f64::from(FINE);
            let top = if matches!(align, Align::MiddleUpwards) {
                (x - rise, y)
            } else {
                (x, y - rise)
            };
            let font = ("sans-serif", em * 1.24)
                .into_font()
                .transform(turn)
                .color(&colour);
            let style = font
                .into_text_style(&self.page)
                .pos(Pos::new(anchor, VPos::Top));
            Ok(backend.draw_text(text, &style, cell(top))?)
        })?;
        backend.present()?;
        drop(backend);
        let size = |(width, height): (u32, u32)| format!(r#"width="{width}" height="{height}""#);
        let svg = svg.replacen(&size(grid), &size(self.page), 1);
        std::fs::write(path, svg).with_context(|| format!("writing {}", path.display()))
    }

    /// Writes the page as PNG.
    fn save_png(&self, path: &Path) -> Result<()> {
        let grid = (self.page.0 * FINE, self.page.1 * FINE);
        let mut cells = vec![255u8; grid.0 as usize * grid.1 as usize * 3];
        let mut backend = BitMapBackend::with_buffer(&mut cells, grid);
        self.play(&mut backend, |backend, text, at, em, colour, align| {
            self.draw_letters(backend, text, at, em, colour, align)
        })?;
        drop(backend);
        let pixels = averaged(&cells, self.page);
        let mut backend = BitMapBackend::new(path, self.page);
        backend.blit_bitmap((0, 0), self.page, &pixels)?;
        backend
            .present()
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Draws a text of size `em`, in cells, letter by letter.
    fn draw_letters<B: DrawingBackend>(
        &self,
        backend: &mut B,
        text: &str,
        at: Point,
        em: f64,
        colour: RGBColor,
        align: Align,
    ) -> Result<()>
    where
        B::ErrorType: 'static,
    {
        let (glyphs, width) = self.glyphs(text, em);
        let start = match align {
            Align::Start => 0.0,
            Align::Middle | Align::MiddleUpwards => -width / 2.0,
            Align::End => -width,
        };
        let (x, y) = cell(at);
        for glyph in glyphs
            .into_iter()
            .filter_map(|glyph| self.font.outline_glyph(glyph))
        {
            let corner = glyph.px_bounds().min;
            let left = (start + f64::from(corner.x)).round() as i32;
            let top = corner.y as i32;
            let mut drawn = Ok(());
            glyph.draw(|column, row, cover| {
                let (right, down) = (left + column as i32, top + row as i32);
                let pixel = match align {
                    Align::MiddleUpwards => (x + down, y - right),
                    _ => (x + right, y + down),
                };
                let ink = colour.mix(f64::from(cover).min(1.0)).to_backend_color();
                if drawn.is_ok() {
                    drawn = backend.draw_pixel(pixel, ink);
                }
            });
            drawn?;
        }
        Ok(())
    }
}

/// The cell of the fine grid at a point.
fn cell((x, y): Point) -> (i32, i32) {
    let fine = |v: f64| (v * f64::from(FINE)).round() as i32;
    (fine(x), fine(y))
}

/// The RGB pixels of a page, each the mean of its cells.
fn averaged(cells: &[u8], page: (u32, u32)) -> Vec<u8> {
    let width = page.0 as usize * 3;
    let mut sums = vec![0u32; width * page.1 as usize];
    for (row, line) in cells.chunks(width * FINE as usize).enumerate() {
        let start = row / FINE as usize * width;
        for (column, cell) in line.chunks(3).enumerate() {
            let pixel = start + column / FINE as usize * 3;
            (0..3).for_each(|channel| sums[pixel + channel] += u32::from(cell[channel]));
        }
    }
    sums.iter().map(|sum| (sum / (FINE * FINE)) as u8).collect()
}

/// What tests ask about a page.
#[cfg(test)]
impl Canvas {
    /// All texts, in the order in which they were drawn.
    pub fn texts(&self) -> Vec<&str> {
        let mut texts = Vec::new();
        for mark in &self.marks {
            if let Mark::Text(text, ..) = mark {
                texts.push(text.as_str());
            }
        }
        texts
    }

    /// The number of polygons besides the page itself.
    pub fn polygons(&self) -> usize {
        let polygon = |mark: &&Mark| matches!(mark, Mark::Polygon(..));
        self.marks.iter().filter(polygon).count() - 1
    }

    /// Marks that reach beyond the page or have coordinates that are not finite.
    pub fn beyond(&self) -> Vec<String> {
        let (right, bottom) = (f64::from(self.page.0), f64::from(self.page.1));
        let inside = |&(x, y): &Point| (0.0..=right).contains(&x) && (0.0..=bottom).contains(&y);
        let whole = |mark: &&Mark| match *mark {
            Mark::Line(path, _, width) => *width > 0.0 && path.iter().all(inside),
            Mark::Polygon(corners, _) => corners.iter().all(inside),
            Mark::Text(text, at, em, _, align) => {
                let (before, after) = match (self.width(text, *em), align) {
                    (width, Align::Start) => (0.0, width),
                    (width, Align::Middle | Align::MiddleUpwards) => (width / 2.0, width / 2.0),
                    (width, Align::End) => (width, 0.0),
                };
                let ends = match align {
                    Align::MiddleUpwards => [(at.0 - em, at.1 - after), (at.0, at.1 + before)],
                    _ => [(at.0 - before, at.1 - em), (at.0 + after, at.1)],
                };
                ends.iter().all(inside)
            }
        };
        let beyond = self.marks.iter().filter(|mark| !whole(mark));
        beyond.map(|mark| format!("{mark:?}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_loses_its_middle() {
        let canvas = Canvas::new().unwrap();
        assert_eq!(canvas.fit("a\nb", 40.0, 500.0), "a b");
        let cut = canvas.fit("dynamic NTK with log n and window 8", 40.0, 300.0);
        assert!(cut.starts_with("dynam") && cut.contains('…') && cut.ends_with("dow 8"));
        assert!(canvas.width(&cut, 40.0) <= 300.0);
        assert_eq!(canvas.fit("name", 40.0, -1.0), "");
    }
}
