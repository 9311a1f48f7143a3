//! Matrix products in f32, `out = start + a b`: the loops that every product of blocks goes through.
//!
//! `b` comes in panels, a few vectors wide, in the order in which the innermost loop takes it; `a` is read where it stands, one
//! value after the other, each multiplied with a row of a panel. The innermost loop ([`tile`]) keeps a block of the output in
//! registers: 6 rows of 2 vectors with 16 registers, 12 of 2 or 6 of 4 with 32. Around it, [`DEPTH`] rows of a panel stay in the
//! first two caches while [`ROWS`] rows of `a` pass (the order of loops of BLIS, Van Zee and van de Geijn 2015).
//!
//! A value of the output is a sum over `k` in one order, whatever block it is computed in.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Rows of a panel that are taken together: 32 KiB of AVX2's panels. More of them save passes over the output.
const DEPTH: usize = 512;
/// Rows of `a` that meet a panel: with `DEPTH` values each they take 192 KiB of the second-level cache.
const ROWS: usize = 96;
/// Rows that are whole tiles for every instruction set.
pub const TILE_ROWS: usize = 12;

/// `a`: where its first value is, and how far apart rows and columns are.
#[derive(Clone, Copy)]
pub struct Left {
    pub values: *const f32,
    pub row: usize,
    pub column: usize,
}

/// `b`: where its first panel is, and how far apart panels are. A panel holds its rows one after the other.
#[derive(Clone, Copy)]
pub struct Panels {
    pub values: *const f32,
    pub stride: usize,
}

/// What a product is added to.
#[derive(Clone, Copy)]
pub enum Start {
    /// Nothing; the output need not hold values before.
    Zero,
    /// One row `[m]`, the same for all.
    Bias(*const f32),
    /// What the output holds.
    Output,
}

/// `out = start + a b` for `[n, m, k]`: `a` `[n, k]`, `b` `[k, m]`, `out` `[n, m]`.
pub struct Product {
    pub shape: [usize; 3],
    pub a: Left,
    pub b: Panels,
    pub start: Start,
    pub out: *mut f32,
    pub out_stride: usize,
}

impl Product {
    /// # Safety
    /// `a`, `b` and a bias must hold their shapes, `out` must be valid for `n` rows of `m` values, and nobody else may touch
    /// those meanwhile.
    pub unsafe fn run(self, arch: Arch) {
        struct Run(Product);
        impl WithSimd for Run {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                // SAFETY: the contract of `run`.
                unsafe { self.0.run_with(simd) }
            }
        }
        arch.dispatch(Run(self));
    }

    /// [`run`](Product::run) inside code that is compiled for an instruction set already.
    ///
    /// # Safety
    /// As for `run`.
    #[inline(always)]
    pub unsafe fn run_with<S: Simd>(&self, simd: S) {
        // SAFETY: the caller's contract.
        unsafe {
            match (S::REGISTER_COUNT, S::F32_LANES) {
                (32.., 16..) => self.blocks::<S, 12, 2>(simd),
                (32.., _) => self.blocks::<S, 6, 4>(simd),
                _ => self.blocks::<S, 6, 2>(simd),
            }
        }
    }

    #[inline(always)]
    unsafe fn blocks<S: Simd, const R: usize, const V: usize>(&self, simd: S) {
        let ([n, m, k], width) = (self.shape, V * S::F32_LANES);
        if k == 0 {
            // SAFETY: the caller's contract.
            unsafe { self.without_products() };
        }
        for depth in (0..k).step_by(DEPTH) {
            let start = if depth == 0 {
                self.start
            } else {
                Start::Output
            };
            for top in (0..n).step_by(ROWS) {
                let bottom = (top + ROWS).min(n);
                for column in (0..m).step_by(width) {
                    for row in (top..bottom).step_by(R) {
                        // SAFETY: the caller's contract, for a part of the shapes.
                        unsafe {
                            let panel = self.b.values.add(column / width * self.b.stride);
                            let a = (self.a.values)
                                .add(row * self.a.row)
                                .add(depth * self.a.column);
                            let block = Block {
                                rows: (bottom - row).min(R),
                                columns: (m - column).min(width),
                                k: (k - depth).min(DEPTH),
                                a: Left {
                                    values: a,
                                    ..self.a
                                },
                                b: panel.add(depth * width),
                                start: match start {
                                    Start::Bias(bias) => Start::Bias(bias.add(column)),
                                    other => other,
                                },
                                out: self.out.add(row * self.out_stride + column),
                                out_stride: self.out_stride,
                            };
                            block.tile::<S, R, V>(simd);
                        }
                    }
                }
            }
        }
    }

    /// What is left of a product over nothing.
    unsafe fn without_products(&self) {
        for (row, column) in
            (0..self.shape[0]).flat_map(|r| (0..self.shape[1]).map(move |c| (r, c)))
        {
            // SAFETY: the contract of `run`.
            unsafe {
                let out = self.out.add(row * self.out_stride + column);
                match self.start {
                    Start::Zero => *out = 0.0,
                    Start::Bias(bias) => *out = *bias.add(column),
                    Start::Output => {}
                }
            }
        }
    }
}

/// A part of a product that fits into registers.
struct Block {
    rows: usize,
    columns: usize,
    k: usize,
    a: Left,
    b: *const f32,
    start: Start,
    out: *mut f32,
    out_stride: usize,
}

impl Block {
    // Loops over constant ranges and no closures: those are unrolled and stay in registers.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const V: usize>(&self, simd: S) {
        let width = V * S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        // Where fewer rows are left, the last one is computed several times.
        let mut row = [self.a.values; R];
        for r in 0..R {
            row[r] = row[r].wrapping_add(r.min(self.rows - 1) * self.a.row);
            // The output is needed at the end: without asking for it now, every tile would wait for it there.
            let out = self.out.wrapping_add(r * self.out_stride);
            prefetch(out);
            prefetch(out.wrapping_add(width - 1));
        }
        let mut panel = self.b;
        for k in 0..self.k {
            // SAFETY: `a` and `b` have `k` columns and rows.
            unsafe {
                let mut b = [simd.splat_f32s(0.0); V];
                for v in 0..V {
                    b[v] = panel.cast::<S::f32s>().add(v).read_unaligned();
                }
                for r in 0..R {
                    let a = simd.splat_f32s(*row[r].add(k * self.a.column));
                    for v in 0..V {
                        sums[r][v] = simd.mul_add_f32s(a, b[v], sums[r][v]);
                    }
                }
                panel = panel.add(width);
            }
        }
        for r in 0..R {
            if r >= self.rows {
                continue;
            }
            for v in 0..V {
                let first = v * S::F32_LANES;
                if first >= self.columns {
                    continue;
                }
                // SAFETY: the tile's rows and columns are inside the output.
                unsafe {
                    let out = self.out.add(r * self.out_stride + first);
                    let bias = match self.start {
                        Start::Zero => None,
                        Start::Bias(bias) => Some(bias.add(first)),
                        Start::Output => Some(out.cast_const()),
                    };
                    if first + S::F32_LANES <= self.columns {
                        let sum = match bias {
                            Some(bias) => {
                                let bias = bias.cast::<S::f32s>().read_unaligned();
                                simd.add_f32s(bias, sums[r][v])
                            }
                            None => sums[r][v],
                        };
                        out.cast::<S::f32s>().write_unaligned(sum);
                    } else {
                        // The end of the last panel, which may be wider than the output.
                        let len = self.columns - first;
                        let sum = match bias {
                            Some(bias) => {
                                let bias = std::slice::from_raw_parts(bias, len);
                                simd.add_f32s(simd.partial_load_f32s(bias), sums[r][v])
                            }
                            None => sums[r][v],
                        };
                        simd.partial_store_f32s(std::slice::from_raw_parts_mut(out, len), sum);
                    }
                }
            }
        }
    }
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

/// A matrix by its rows: where the first one is, and how far apart they are.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub values: &'a [f32],
    pub stride: usize,
}

impl Matrix<'_> {
    /// As `a`, from a row on.
    pub fn left(self, row: usize) -> Left {
        Left {
            values: self.values[row * self.stride..].as_ptr(),
            row: self.stride,
            column: 1,
        }
    }

    /// As `a`, transposed, from a column on.
    pub fn left_transposed(self, column: usize) -> Left {
        Left {
            values: self.values[column..].as_ptr(),
            row: 1,
            column: self.stride,
        }
    }
}

/// A panel `[k, width]` of `bᵀ`, whose first rows, `count` of `k` values, are the columns of the panel; where they are fewer
/// than it is wide, the rest is zero.
pub fn pack_columns(columns: Matrix, count: usize, width: usize, panel: &mut [f32]) {
    let k = panel.len() / width;
    if count < width {
        panel.fill(0.0);
    }
    // A few values of each column at a time: what is read and what is written both stay in the first cache.
    const TOGETHER: usize = 16;
    for start in (0..k).step_by(TOGETHER) {
        let end = (start + TOGETHER).min(k);
        for column in 0..count {
            let first = column * columns.stride;
            let values = &columns.values[first + start..first + end];
            let panel = &mut panel[start * width + column..];
            for (i, value) in values.iter().enumerate() {
                panel[i * width] = *value;
            }
        }
    }
}

/// A panel `[k, width]` of `b` itself, of the columns in `columns`, at most `width`; the rest is zero.
pub fn pack_rows(rows: Matrix, columns: Range<usize>, width: usize, panel: &mut [f32]) {
    let count = columns.len();
    for (row, panel) in panel.chunks_exact_mut(width).enumerate() {
        let first = row * rows.stride + columns.start;
        panel[..count].copy_from_slice(&rows.values[first..first + count]);
        panel[count..].fill(0.0);
    }
}

/// All of `b` `[k, m]` in panels, from its rows or from those of `bᵀ`.
pub struct Packed {
    values: Vec<f32>,
    width: usize,
    k: usize,
}

impl Packed {
    /// Packs panel by panel: `pack` writes the one of some columns.
    pub fn new(
        arch: Arch,
        [k, m]: [usize; 2],
        pack: impl Fn(Range<usize>, usize, &mut [f32]) + Sync,
    ) -> Self {
        let width = panel_width(arch);
        let len = m.next_multiple_of(width) * k;
        let mut values: Vec<f32> = Vec::with_capacity(len);
        let panels = &mut values.spare_capacity_mut()[..len];
        let panels = panels.par_chunks_mut((k * width).max(1)).enumerate();
        panels.for_each(|(index, panel)| {
            let columns = index * width..m.min((index + 1) * width);
            // SAFETY: floats have no invalid values, and `pack` only writes.
            let panel = unsafe {
                std::slice::from_raw_parts_mut(panel.as_mut_ptr().cast::<f32>(), panel.len())
            };
            pack(columns, width, panel);
        });
        // SAFETY: every panel was written.
        unsafe { values.set_len(len) };
        Packed { values, width, k }
    }

    /// `b` from its rows.
    pub fn rows(arch: Arch, shape: [usize; 2], b: Matrix) -> Self {
        Packed::new(arch, shape, |columns, width, panel| {
            pack_rows(b, columns, width, panel);
        })
    }

    /// `b` from the rows of `bᵀ`.
    pub fn columns(arch: Arch, shape: [usize; 2], b: Matrix) -> Self {
        Packed::new(arch, shape, |columns, width, panel| {
            let first = Matrix {
                values: &b.values[columns.start * b.stride..],
                ..b
            };
            pack_columns(first, columns.len(), width, panel);
        })
    }

    /// The panels from a column on, the first one of a panel.
    pub fn at_column(&self, column: usize) -> Panels {
        Panels {
            values: self.values[column * self.k..].as_ptr(),
            stride: self.width * self.k,
        }
    }

    /// All panels, from a row on.
    pub fn at_row(&self, row: usize) -> Panels {
        Panels {
            values: self.values[row * self.width..].as_ptr(),
            stride: self.width * self.k,
        }
    }
}

/// Asks for what will be needed soon.
#[inline(always)]
pub fn prefetch<T>(_address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which may name any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(_address.cast());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_every_size_and_start_equal_plain_sums() {
        let values = |len: usize, step: usize| -> Vec<f32> {
            (0..len)
                .map(|i| ((i * step) % 23) as f32 / 8.0 - 1.0)
                .collect()
        };
        let arch = Arch::new();
        for [n, m, k] in [
            [1, 1, 1],
            [6, 16, 8],
            [17, 129, 33],
            [129, 17, 600],
            [97, 40, 1500],
        ] {
            let (a, b, bias) = (values(n * k, 7), values(m * k, 5), values(m, 3));
            let matrix = |values, stride| Matrix { values, stride };
            let packed = Packed::columns(arch, [k, m], matrix(&b, k));
            let transposed: Vec<f32> = (0..k * m).map(|i| b[i % m * k + i / m]).collect();
            let from_rows = Packed::rows(arch, [k, m], matrix(&transposed, m));
            assert_eq!(packed.values, from_rows.values);
            let by_column: Vec<f32> = (0..k * n).map(|i| a[i % n * k + i / n]).collect();
            let before = values(n * m, 11);
            for (start, a) in [
                (Start::Zero, matrix(&a, k).left(0)),
                (
                    Start::Bias(bias.as_ptr()),
                    matrix(&by_column, n).left_transposed(0),
                ),
                (Start::Output, matrix(&a, k).left(0)),
            ] {
                let mut out = before.clone();
                let product = Product {
                    shape: [n, m, k],
                    a,
                    b: packed.at_column(0),
                    start,
                    out: out.as_mut_ptr(),
                    out_stride: m,
                };
                // SAFETY: all of these hold their shapes.
                unsafe { product.run(arch) };
                for (at, got) in out.iter().enumerate() {
                    let (r, c) = (at / m, at % m);
                    let products = (0..k).map(|i| f64::from(by_column[i * n + r] * b[c * k + i]));
                    let start = match start {
                        Start::Zero => 0.0,
                        Start::Bias(_) => bias[c],
                        Start::Output => before[at],
                    };
                    let expected = f64::from(start) + products.sum::<f64>();
                    let error = (f64::from(*got) - expected).abs();
                    assert!(
                        error < 1e-5 * k as f64,
                        "{n} {m} {k} at {r} {c}: {got} {expected}"
                    );
                }
            }
        }
    }
}
