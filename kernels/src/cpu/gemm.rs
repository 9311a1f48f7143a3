//! Matrix products in f32, `out = start + a b`: the loops that every product of blocks goes
//! through.
//!
//! `b` comes in panels (`panels.rs`); `a` is read where it stands, one value after the other, each
//! multiplied with a row of a panel. The innermost loop ([`Tile::run`]) keeps a tile of the output
//! in registers: 6 rows of 2 vectors with 16 registers, 12 of 2 or 6 of 4 with 32. Around it,
//! [`DEPTH`] rows of a panel stay in the first two caches while [`ROWS`] rows of `a` pass (the loop
//! order of BLIS, Van Zee and van de Geijn 2015).
//!
//! A value of the output is a sum over `k` in one order, whatever block it is computed in.

use std::marker::PhantomData;

use pulp::{Arch, Simd, WithSimd};

use super::output::{OutputBlock, Slot};
use super::panels::{Left, Panels};

/// Rows of a panel per pass over the output: 32 KiB of AVX2's panels. Larger values save passes.
const DEPTH: usize = 512;
/// Rows of `a` that meet a panel: with `DEPTH` values each they take 192 KiB of the second-level
/// cache.
const ROWS: usize = 96;
/// Rows that are whole tiles for every instruction set.
pub const TILE_ROWS: usize = 12;

/// The start of a product's sums.
#[derive(Clone, Copy)]
enum Start {
    /// Nothing; the output need not be initialised.
    Zero,
    /// One row `[m]`, the same for all.
    Bias(*const f32),
    /// The values of the output.
    Output,
}

/// `out = start + a b` for `shape` `[n, m, k]`: `a` `[n, k]`, `b` `[k, m]`, `out` `[n, m]`.
///
/// Invariants, checked by the constructors: `a` holds `n` rows of `k` values and a bias `m` values,
/// both for `'a`; `out` and `out_stride` are those of an [`OutputBlock`] that was given up for
/// `'a`, which is initialised where the product adds to it. [`blocks`](Product::blocks) checks `b`,
/// whose panels are as wide as the instruction set asks.
pub struct Product<'a> {
    shape: [usize; 3],
    a: Left<'a>,
    b: Panels<'a>,
    start: Start,
    out: *mut f32,
    out_stride: usize,
    memory: PhantomData<&'a mut f32>,
}

impl<'a> Product<'a> {
    /// `out = a b`, or `out = bias + a b` with the same `bias` `[m]` in every row.
    pub fn new<T: Slot>(
        k: usize,
        a: Left<'a>,
        b: Panels<'a>,
        bias: Option<&'a [f32]>,
        out: OutputBlock<'a, T>,
    ) -> Self {
        let start = match bias {
            Some(bias) => {
                assert_eq!(bias.len(), out.shape()[1], "a bias for each column");
                Start::Bias(bias.as_ptr())
            }
            None => Start::Zero,
        };
        Product::checked(k, a, b, start, out)
    }

    /// `out += a b`.
    pub fn adding(k: usize, a: Left<'a>, b: Panels<'a>, out: OutputBlock<'a, f32>) -> Self {
        Product::checked(k, a, b, Start::Output, out)
    }

    fn checked<T: Slot>(
        k: usize,
        a: Left<'a>,
        b: Panels<'a>,
        start: Start,
        mut out: OutputBlock<'a, T>,
    ) -> Self {
        let [n, m] = out.shape();
        let last = n.saturating_sub(1) * a.row + k.saturating_sub(1) * a.column;
        let inside = n * k == 0 || last < a.values.len();
        assert!(inside, "{n} rows of {k} of {} values", a.values.len());
        Product {
            shape: [n, m, k],
            a,
            b,
            start,
            out_stride: out.stride(),
            out: out.as_mut_ptr(),
            memory: PhantomData,
        }
    }

    pub fn run(self, arch: Arch) {
        struct Run<'a>(Product<'a>);
        impl WithSimd for Run<'_> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                self.0.run_with(simd);
            }
        }
        arch.dispatch(Run(self));
    }

    /// [`run`](Product::run) inside code that is already compiled for an instruction set.
    #[inline(always)]
    pub fn run_with<S: Simd>(self, simd: S) {
        match (S::REGISTER_COUNT, S::F32_LANES) {
            (32.., 16..) => self.blocks::<S, 12, 2>(simd),
            (32.., _) => self.blocks::<S, 6, 4>(simd),
            _ => self.blocks::<S, 6, 2>(simd),
        }
    }

    #[inline(always)]
    fn blocks<S: Simd, const R: usize, const V: usize>(self, simd: S) {
        let Product {
            shape: [n, m, k],
            a,
            b,
            out,
            out_stride,
            ..
        } = self;
        let width = V * S::F32_LANES;
        let needed = m.div_ceil(width).saturating_sub(1) * b.stride + k * width;
        let inside = m == 0 || needed <= b.values.len();
        assert!(inside, "{k} by {m} in panels of {} values", b.values.len());
        // Over nothing there is still the start to write.
        for depth in (0..k.max(1)).step_by(DEPTH) {
            let start = if depth == 0 {
                self.start
            } else {
                Start::Output
            };
            for top in (0..n).step_by(ROWS) {
                let bottom = (top + ROWS).min(n);
                for column in (0..m).step_by(width) {
                    for row in (top..bottom).step_by(R) {
                        // SAFETY: row, column and depth are below the shape, so the offsets stay
                        // inside `a`, `b`, the bias and `out` by the invariants and the check
                        // above; the tile's sizes are cut to what is left of the shape. From the
                        // second `depth` on the output is initialised. Where `k` is 0, `a` and `b`
                        // are not read.
                        unsafe {
                            let a_start = row * a.row + depth * a.column;
                            let b_start = column / width * b.stride + depth * width;
                            let out = out.add(row * out_stride + column);
                            let (start, start_stride) = match start {
                                Start::Zero => (std::ptr::null(), 0),
                                Start::Bias(bias) => (bias.add(column), 0),
                                Start::Output => (out.cast_const(), out_stride),
                            };
                            let tile = Tile {
                                rows: (bottom - row).min(R),
                                columns: (m - column).min(width),
                                k: (k - depth).min(DEPTH),
                                a: a.values.as_ptr().wrapping_add(a_start),
                                a_row: a.row,
                                a_column: a.column,
                                b: b.values.as_ptr().wrapping_add(b_start),
                                start,
                                start_stride,
                                out,
                                out_stride,
                            };
                            tile.run::<S, R, V>(simd);
                        }
                    }
                }
            }
        }
    }
}

/// A part of a product that fits into registers.
struct Tile {
    rows: usize,
    columns: usize,
    k: usize,
    a: *const f32,
    /// Distance between rows of `a`.
    a_row: usize,
    /// Distance between columns of `a`.
    a_column: usize,
    b: *const f32,
    /// The values that the sums are added to; null: zeros.
    start: *const f32,
    start_stride: usize,
    out: *mut f32,
    out_stride: usize,
}

impl Tile {
    /// # Safety
    /// `a` must point at `rows` rows of `k` values, `b` at `k` rows of `V` registers, `out` at `rows`
    /// rows of `columns` values that nobody else uses, and `start`, if it is not null, at as many
    /// initialised values. Where `k` is 0, `a` and `b` may point anywhere.
    // Loops over constant ranges and no closures: those are unrolled and stay in registers.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize, const V: usize>(&self, simd: S) {
        let width = V * S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        // Where fewer than R rows are left, the last one is computed several times.
        let mut row = [self.a; R];
        for r in 0..R {
            row[r] = row[r].wrapping_add(r.min(self.rows - 1) * self.a_row);
            // The output is needed at the end, and not fetched now it would stall every tile there.
            let out = self.out.wrapping_add(r * self.out_stride);
            prefetch(out);
            prefetch(out.wrapping_add(width - 1));
        }
        let mut panel = self.b;
        for k in 0..self.k {
            // SAFETY: `k` is below the columns of `a` and the rows of `b`.
            unsafe {
                let mut b = [simd.splat_f32s(0.0); V];
                for v in 0..V {
                    b[v] = panel.cast::<S::f32s>().add(v).read_unaligned();
                }
                for r in 0..R {
                    let a = simd.splat_f32s(*row[r].add(k * self.a_column));
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
                // SAFETY: row `r` and the columns from `first` on are inside the output and the
                // start; where fewer than a register's are left, the mask names those.
                unsafe {
                    let out = self.out.add(r * self.out_stride + first);
                    let start = self.start.wrapping_add(r * self.start_stride + first);
                    let mut sum = sums[r][v];
                    if first + S::F32_LANES <= self.columns {
                        if !self.start.is_null() {
                            let start = start.cast::<S::f32s>().read_unaligned();
                            sum = simd.add_f32s(start, sum);
                        }
                        out.cast::<S::f32s>().write_unaligned(sum);
                    } else {
                        // The end of the last panel, which may be wider than the output.
                        let rest = simd.mask_between_m32s(0, (self.columns - first) as u32);
                        if !self.start.is_null() {
                            sum = simd.add_f32s(simd.mask_load_ptr_f32s(rest, start), sum);
                        }
                        simd.mask_store_ptr_f32s(rest, out, sum);
                    }
                }
            }
        }
    }
}

/// Starts to load what will be needed soon.
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
    use super::super::panels::{Matrix, PanelMatrix};
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
            [3, 5, 0],
        ] {
            let (a, b, bias) = (values(n * k, 7), values(m * k, 5), values(m, 3));
            let by_column: Vec<f32> = (0..k * n).map(|i| a[i % n * k + i / n]).collect();
            let left = Matrix {
                values: &a,
                stride: k,
            };
            let left_by_column = Matrix {
                values: &by_column,
                stride: n,
            };
            let panels = PanelMatrix::columns(
                arch,
                [k, m],
                Matrix {
                    values: &b,
                    stride: k,
                },
            );
            let before = values(n * m, 11);
            let (mut plain, mut biased, mut added) =
                (before.clone(), before.clone(), before.clone());
            let b_panels = panels.at_column(0);
            let out = OutputBlock::new(&mut plain, m);
            Product::new(k, left.left(0), b_panels, None, out).run(arch);
            let out = OutputBlock::new(&mut biased, m);
            let transposed = left_by_column.left_transposed(0);
            Product::new(k, transposed, b_panels, Some(&bias), out).run(arch);
            let out = OutputBlock::new(&mut added, m);
            Product::adding(k, left.left(0), b_panels, out).run(arch);
            for at in 0..n * m {
                let (r, c) = (at / m, at % m);
                let products = (0..k).map(|i| f64::from(a[r * k + i] * b[c * k + i]));
                let product = products.sum::<f64>();
                for (start, got) in [
                    (0.0, plain[at]),
                    (bias[c], biased[at]),
                    (before[at], added[at]),
                ] {
                    let expected = f64::from(start) + product;
                    let error = (f64::from(got) - expected).abs();
                    assert!(
                        error <= 1e-5 * k as f64,
                        "{n} {m} {k} at {r} {c}: {got} {expected}"
                    );
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "rows of")]
    fn a_left_side_that_is_too_short_is_refused() {
        let (a, b, mut out) = ([0f32; 5], [0f32; 256], [0f32; 2]);
        let a = Left {
            values: &a,
            row: 3,
            column: 1,
        };
        let b = Panels {
            values: &b,
            stride: 0,
        };
        Product::new(3, a, b, None, OutputBlock::new(&mut out, 1)).run(Arch::new());
    }
}
