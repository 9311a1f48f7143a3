//! Operands of matrix products: `a` where it stands, `b` in panels.
//!
//! A panel is `[k, width]`: `width` neighbouring columns of `b` `[k, m]`, row by row, which is the
//! order in which the innermost loop of `gemm.rs` reads them.

use std::mem::MaybeUninit;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::output::Unwritten;

/// `a` `[n, k]`: its values from the first one on, and the distance between rows and between
/// columns.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    pub values: &'a [f32],
    pub row: usize,
    pub column: usize,
}

/// `b`: its values from the first one of a panel on, and the distance between panels.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    pub values: &'a [f32],
    pub stride: usize,
}

/// Columns of a panel.
pub fn panel_width(arch: Arch) -> usize {
    struct Width;
    impl WithSimd for Width {
        type Output = usize;
        fn with_simd<S: Simd>(self, _: S) -> usize {
            let vectors = match (S::REGISTER_COUNT, S::F32_LANES) {
                (32.., ..16) => 4,
                _ => 2,
            };
            vectors * S::F32_LANES
        }
    }
    arch.dispatch(Width)
}

/// A row-major matrix: its values from the first row on, and the distance between rows.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub values: &'a [f32],
    pub stride: usize,
}

impl<'a> Matrix<'a> {
    /// As `a`, from a row on.
    pub fn left(self, row: usize) -> Left<'a> {
        Left {
            values: &self.values[row * self.stride..],
            row: self.stride,
            column: 1,
        }
    }

    /// As `a`, transposed, from a column on.
    pub fn left_transposed(self, column: usize) -> Left<'a> {
        Left {
            values: &self.values[column..],
            row: 1,
            column: self.stride,
        }
    }
}

/// Writes a panel of `bᵀ`: its columns are the first `count` rows of `columns`; columns from
/// `count` on are zero.
pub fn pack_columns(columns: Matrix, count: usize, width: usize, panel: &mut [MaybeUninit<f32>]) {
    let k = panel.len() / width;
    if count < width {
        panel.fill(MaybeUninit::new(0.0));
    }
    // A few values of each column at a time: reads and writes both stay in the first cache.
    const TOGETHER: usize = 16;
    for start in (0..k).step_by(TOGETHER) {
        let end = (start + TOGETHER).min(k);
        for column in 0..count {
            let first = column * columns.stride;
            let values = &columns.values[first + start..first + end];
            let panel = &mut panel[start * width + column..];
            for (i, value) in values.iter().enumerate() {
                panel[i * width].write(*value);
            }
        }
    }
}

/// Writes a panel of `b`: its columns `columns`, at most `width`; the rest of each row is zero.
pub fn pack_rows(
    rows: Matrix,
    columns: Range<usize>,
    width: usize,
    panel: &mut [MaybeUninit<f32>],
) {
    let count = columns.len();
    for (row, panel) in panel.chunks_exact_mut(width).enumerate() {
        let first = row * rows.stride + columns.start;
        panel[..count].write_copy_of_slice(&rows.values[first..first + count]);
        panel[count..].fill(MaybeUninit::new(0.0));
    }
}

/// All of `b` `[k, m]` in panels.
pub struct PanelMatrix {
    values: Vec<f32>,
    width: usize,
    k: usize,
}

impl PanelMatrix {
    /// Packs panel by panel.
    ///
    /// # Safety
    /// `pack` must write every value of the panel that it is given, with its columns and its width.
    pub unsafe fn new(
        arch: Arch,
        [k, m]: [usize; 2],
        pack: impl Fn(Range<usize>, usize, &mut [MaybeUninit<f32>]) + Sync,
    ) -> Self {
        let width = panel_width(arch);
        let mut values = Unwritten::new(m.next_multiple_of(width) * k);
        let panels = values.values().par_chunks_mut((k * width).max(1));
        panels.enumerate().for_each(|(index, panel)| {
            let columns = index * width..m.min((index + 1) * width);
            pack(columns, width, panel);
        });
        // SAFETY: the panels are all values, and `pack` has written them.
        let values = unsafe { values.assume_written() };
        PanelMatrix { values, width, k }
    }

    /// From the rows of `b`.
    pub fn rows(arch: Arch, shape: [usize; 2], b: Matrix) -> Self {
        // SAFETY: `pack_rows` writes whole rows of the panel, of which it has `k`.
        unsafe {
            PanelMatrix::new(arch, shape, |columns, width, panel| {
                pack_rows(b, columns, width, panel);
            })
        }
    }

    /// From the rows of `bᵀ`.
    pub fn columns(arch: Arch, shape: [usize; 2], b: Matrix) -> Self {
        let pack = |columns: Range<usize>, width, panel: &mut [MaybeUninit<f32>]| {
            let first = Matrix {
                values: &b.values[columns.start * b.stride..],
                ..b
            };
            pack_columns(first, columns.len(), width, panel);
        };
        // SAFETY: `pack_columns` writes `k` values of each column, or zeros.
        unsafe { PanelMatrix::new(arch, shape, pack) }
    }

    /// The panels from a column on, the first one of a panel.
    pub fn at_column(&self, column: usize) -> Panels<'_> {
        debug_assert!(column.is_multiple_of(self.width), "the middle of a panel");
        Panels {
            values: &self.values[column * self.k..],
            stride: self.width * self.k,
        }
    }

    /// All panels, from a row on.
    pub fn at_row(&self, row: usize) -> Panels<'_> {
        Panels {
            values: &self.values[row * self.width..],
            stride: self.width * self.k,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_rows_or_columns_gives_the_same_panels() {
        let arch = Arch::new();
        for [m, k] in [[1, 1], [16, 8], [17, 600], [129, 33]] {
            let b: Vec<f32> = (0..m * k).map(|i| (i * 5 % 23) as f32).collect();
            let transposed: Vec<f32> = (0..k * m).map(|i| b[i % m * k + i / m]).collect();
            let matrix = |values, stride| Matrix { values, stride };
            let columns = PanelMatrix::columns(arch, [k, m], matrix(&b, k));
            let rows = PanelMatrix::rows(arch, [k, m], matrix(&transposed, m));
            assert_eq!(columns.values, rows.values);
        }
    }
}
