//! Attention over one band of keys, in tiles: keys and values as a pass has just made them, or as a cache holds them.
//!
//! Keys and values of each head are put into panels for the products first, keys rotated on the way. A task is then a block of
//! queries of one head. It walks the tiles of keys that any of its queries sees, and no others, so a window of `w` costs `n * w`.
//! A few queries at a time meet a tile: two small products, and between them the online softmax (arXiv 2205.14135, section 3), a
//! running maximum and sum, and an output that is rescaled when the maximum grows. Logits are in units of `ln 2`, so that weights
//! are powers of two.
//!
//! For very few queries, as decoding has them, panels would cost more than they bring: there a tile of keys is loaded
//! row by row and meets the queries as it is.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::gemm::{self, Left, Matrix, Panels, Product, Start, TILE_ROWS};
use super::vector::{self, inlined};
use super::{Output, Strided, with_scratch};

/// Queries that meet a tile together: with a tile's width of logits they stay in the first cache.
const TOGETHER: usize = 2 * TILE_ROWS;
/// Queries of a task.
const QUERIES: usize = 8 * TOGETHER;
/// Keys of a tile; whole panels for every instruction set. With 128 values a head, keys and values of a tile take half of a
/// second-level cache of 512 KiB.
const KEYS: usize = 256;
/// Queries for which panels do not pay.
const FEW: usize = 4;

/// Rows of cos and sin `[rows, d/2]` that turn queries or keys.
#[derive(Clone, Copy)]
pub struct Tables<'a> {
    pub cos: &'a [f32],
    pub sin: &'a [f32],
}

impl Tables<'_> {
    /// Turns row `i`.
    pub fn rotate(&self, arch: Arch, i: usize, row: &mut [f32]) {
        let half = row.len() / 2;
        let table = i * half..(i + 1) * half;
        vector::rotate_in_place(arch, row, &self.cos[table.clone()], &self.sin[table]);
    }
}

/// Queries `[b, h, n, d]`, turned by the tables where there are some.
pub struct Queries<'a> {
    pub rows: Strided<'a>,
    pub tables: Option<Tables<'a>>,
}

/// Keys and values of all heads.
pub trait KeyRows: Sync {
    /// Writes some rows of a batch and head, keys already turned: `[keys.len(), d]` each.
    fn load(&self, arch: Arch, head: [usize; 2], keys: Range<usize>, k: &mut [f32], v: &mut [f32]);
}

/// `keys` are the first and the past-the-last of `m` keys for each query; returns the output as `[b, n, h, d]` and the
/// log-sum-exp `[b, h, n]`.
pub fn attention(
    q: &Queries,
    rows: &impl KeyRows,
    keys: &[[usize; 2]],
    m: usize,
) -> (Vec<f32>, Vec<f32>) {
    let [b, h, n, d] = q.rows.shape;
    assert_eq!(keys.len(), n, "a range of keys for each query");
    if n == 0 {
        return (Vec::new(), Vec::new());
    }
    let arch = Arch::new();
    let mut output = Vec::with_capacity(b * n * h * d);
    let mut lse = Vec::with_capacity(b * h * n);
    let target = Results {
        output: Output(output.as_mut_ptr()),
        lse: Output(lse.as_mut_ptr()),
        shape: q.rows.shape,
    };
    if n <= FEW {
        (0..b * h).into_par_iter().for_each(|task| {
            let head = [task / h, task % h];
            few_queries(arch, q, rows, keys, head, &target);
        });
    } else {
        let panels = KeyPanels::new(
            arch,
            rows,
            [b, h, m, d],
            keys[0][0]..keys[n - 1][1].max(keys[0][0]),
        );
        let blocks = n.div_ceil(QUERIES);
        (0..b * h * blocks).into_par_iter().for_each(|task| {
            // Late blocks see most under causality: starting with them balances the threads.
            let block = blocks - 1 - task % blocks;
            let head = [task / blocks / h, task / blocks % h];
            let queries = block * QUERIES..((block + 1) * QUERIES).min(n);
            block_of_queries(arch, q, &panels, keys, head, queries, &target);
        });
    }
    // SAFETY: the tasks have written the rows of every head and query.
    unsafe {
        output.set_len(b * n * h * d);
        lse.set_len(b * h * n);
    }
    (output, lse)
}

/// First and past-the-last of `m` keys that each query sees, from `[n, 2]`.
///
/// # Panics
/// If they go back from one query to the next: only what lies between the first and the last is read.
pub fn key_ranges(keys: &[i32], m: usize) -> Vec<[usize; 2]> {
    let pairs = keys.as_chunks::<2>().0.iter();
    let ranges: Vec<[usize; 2]> = pairs
        .map(|&[start, end]| [(start as usize).min(m), (end as usize).min(m)])
        .collect();
    let ahead = |pair: &[[usize; 2]]| pair[0][0] <= pair[1][0] && pair[0][1] <= pair[1][1];
    assert!(ranges.windows(2).all(ahead), "ranges of keys go back");
    ranges
}

/// Where results go.
struct Results {
    output: Output,
    lse: Output,
    shape: [usize; 4],
}

impl Results {
    /// Normalises and stores the output of query `i` of a head, whose logits are relative to `max`, in units of `ln 2`.
    fn store(&self, [batch, head]: [usize; 2], i: usize, row: &[f32], max: f32, sum: f32) {
        let [_, h, n, d] = self.shape;
        let inverse = if sum > 0.0 { 1.0 / sum } else { 0.0 };
        // A sum that is not a number must reach the output, not become zero.
        let inverse = if sum.is_nan() { sum } else { inverse };
        // SAFETY: the row of this query and head belongs to its task alone.
        unsafe {
            let out = self.output.at(((batch * n + i) * h + head) * d);
            for (c, x) in row.iter().enumerate() {
                *out.add(c) = x * inverse;
            }
            let lse = f64::from(max) * std::f64::consts::LN_2 + f64::from(sum).ln();
            *self.lse.at((batch * h + head) * n + i) = lse as f32;
        }
    }
}

/// Keys, turned, and values of all heads as panels: of keys `[m, d]` transposed, of values `[m, d]` as they are. Rows and columns
/// are filled up with zeros to whole panels.
struct KeyPanels {
    k: Vec<f32>,
    v: Vec<f32>,
    width: usize,
    heads: usize,
    /// Filled up.
    m: usize,
    d: usize,
    /// Columns of values, filled up.
    columns: usize,
}

impl KeyPanels {
    /// Only the keys in `seen` are written.
    fn new(arch: Arch, rows: &impl KeyRows, [b, h, m, d]: [usize; 4], seen: Range<usize>) -> Self {
        let width = gemm::panel_width(arch);
        let (padded, columns) = (m.next_multiple_of(width), d.next_multiple_of(width));
        let (k_len, v_len) = (b * h * padded * d, b * h * padded * columns);
        let (mut k, mut v) = (Vec::with_capacity(k_len), Vec::with_capacity(v_len));
        let (k_target, v_target) = (Output(k.as_mut_ptr()), Output(v.as_mut_ptr()));
        let blocks = seen.start / KEYS..seen.end.div_ceil(KEYS);
        (0..b * h * blocks.len()).into_par_iter().for_each(|task| {
            let head = task / blocks.len();
            let first = (blocks.start + task % blocks.len()) * KEYS;
            let keys = first..(first + KEYS).min(m);
            with_scratch(2 * KEYS * d, |scratch| {
                let (k, v) = scratch.split_at_mut(KEYS * d);
                let (k, v) = (&mut k[..keys.len() * d], &mut v[..keys.len() * d]);
                rows.load(arch, [head / h, head % h], keys.clone(), k, v);
                for start in keys.clone().step_by(width) {
                    let count = (keys.end - start).min(width);
                    // SAFETY: a panel of the keys of this task.
                    let panel = unsafe {
                        let panel = k_target.at((head * padded + start) * d);
                        std::slice::from_raw_parts_mut(panel, width * d)
                    };
                    let columns = Matrix {
                        values: &k[(start - first) * d..],
                        stride: d,
                    };
                    gemm::pack_columns(columns, count, width, panel);
                }
                let rows = keys.len().next_multiple_of(width);
                for column in (0..columns).step_by(width) {
                    let start = (head * columns + column) * padded + first * width;
                    // SAFETY: rows of a panel, of the keys of this task.
                    let panel =
                        unsafe { std::slice::from_raw_parts_mut(v_target.at(start), rows * width) };
                    let (panel, rest) = panel.split_at_mut(keys.len() * width);
                    let v = Matrix {
                        values: &*v,
                        stride: d,
                    };
                    gemm::pack_rows(v, column..d.min(column + width), width, panel);
                    rest.fill(0.0);
                }
            });
        });
        // Never read as a whole: what no query sees stays unwritten, and so the vectors keep their length of zero.
        KeyPanels {
            k,
            v,
            width,
            heads: h,
            m: padded,
            d,
            columns,
        }
    }

    /// Panels of the keys from one on, the first of a panel.
    fn keys(&self, [batch, head]: [usize; 2], key: usize) -> Panels {
        let head = batch * self.heads + head;
        Panels {
            values: self.k.as_ptr().wrapping_add((head * self.m + key) * self.d),
            stride: self.width * self.d,
        }
    }

    /// Panels of the values from one on.
    fn values(&self, [batch, head]: [usize; 2], key: usize) -> Panels {
        let head = batch * self.heads + head;
        let offset = head * self.m * self.columns + key * self.width;
        Panels {
            values: self.v.as_ptr().wrapping_add(offset),
            stride: self.m * self.width,
        }
    }
}

/// What turns the product of a query and a key into a logit in units of `ln 2`.
fn logit_scale(d: usize) -> f32 {
    (std::f64::consts::LOG2_E / (d as f64).sqrt()) as f32
}

/// Queries of a head, turned and scaled.
fn load_queries(arch: Arch, q: &Queries, [batch, head]: [usize; 2], i: usize, out: &mut [f32]) {
    let scale = logit_scale(out.len());
    out.copy_from_slice(q.rows.row(batch, head, i));
    if let Some(tables) = q.tables {
        tables.rotate(arch, i, out);
    }
    vector::scale(arch, out, scale);
}

fn block_of_queries(
    arch: Arch,
    q: &Queries,
    panels: &KeyPanels,
    keys: &[[usize; 2]],
    head: [usize; 2],
    queries: Range<usize>,
    target: &Results,
) {
    let (n, d, columns) = (queries.len(), panels.d, panels.columns);
    with_scratch(n * (d + columns + 2) + TOGETHER * KEYS, |scratch| {
        let (q_rows, rest) = scratch.split_at_mut(n * d);
        let (output, rest) = rest.split_at_mut(n * columns);
        let (max, rest) = rest.split_at_mut(n);
        let (sum, logits) = rest.split_at_mut(n);
        output.fill(0.0);
        max.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        for (i, row) in queries.clone().zip(q_rows.chunks_exact_mut(d)) {
            load_queries(arch, q, head, i, row);
        }
        let keys = &keys[queries.clone()];
        let first = keys[0][0] / panels.width * panels.width;
        for start in (first..keys[n - 1][1]).step_by(KEYS) {
            for row in (0..n).step_by(TOGETHER) {
                let rows = row..(row + TOGETHER).min(n);
                // Keys of this tile that any of these queries sees, and the panels they are in.
                let seen = keys[rows.start][0].max(start)..keys[rows.end - 1][1].min(start + KEYS);
                if seen.is_empty() {
                    continue;
                }
                let from = seen.start / panels.width * panels.width;
                let to = seen.end.next_multiple_of(panels.width);
                arch.dispatch(Tile {
                    q: &q_rows[rows.start * d..rows.end * d],
                    k: panels.keys(head, from),
                    v: panels.values(head, from),
                    d,
                    tile: from..to,
                    keys: &keys[rows.clone()],
                    logits: &mut logits[..rows.len() * (to - from)],
                    output: &mut output[rows.start * columns..rows.end * columns],
                    max: &mut max[rows.clone()],
                    sum: &mut sum[rows.clone()],
                });
            }
        }
        for (r, i) in queries.enumerate() {
            let row = &output[r * columns..r * columns + d];
            target.store(head, i, row, max[r], sum[r]);
        }
    });
}

/// A few queries and a tile of keys.
struct Tile<'a> {
    /// `[n, d]`.
    q: &'a [f32],
    k: Panels,
    v: Panels,
    d: usize,
    /// The keys of the tile, in whole panels.
    tile: Range<usize>,
    /// What each query sees.
    keys: &'a [[usize; 2]],
    logits: &'a mut [f32],
    /// `[n, columns]`: sums of values, not yet divided by the sums of their weights.
    output: &'a mut [f32],
    max: &'a mut [f32],
    sum: &'a mut [f32],
}

impl WithSimd for Tile<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (n, width) = (self.keys.len(), self.tile.len());
        let columns = self.output.len() / n;
        let product = Product {
            shape: [n, width, self.d],
            a: Left {
                values: self.q.as_ptr(),
                row: self.d,
                column: 1,
            },
            b: self.k,
            start: Start::Zero,
            out: self.logits.as_mut_ptr(),
            out_stride: width,
        };
        // SAFETY: `logits` holds n rows of `width`, and so many keys lie in the panels.
        unsafe { product.run_with(simd) };
        for r in 0..n {
            let row = &mut self.logits[r * width..(r + 1) * width];
            let [first, last] = self.keys[r];
            let start = first.clamp(self.tile.start, self.tile.end) - self.tile.start;
            let end = last.clamp(self.tile.start, self.tile.end) - self.tile.start;
            if start >= end {
                row.fill(0.0);
                continue;
            }
            row[..start].fill(0.0);
            row[end..].fill(0.0);
            let row = &mut row[start..end];
            let max = inlined::max(row).max(self.max[r]);
            if max > self.max[r] {
                let rescale = (self.max[r] - max).exp2();
                self.sum[r] *= rescale;
                inlined::scale(&mut self.output[r * columns..(r + 1) * columns], rescale);
                self.max[r] = max;
            }
            self.sum[r] += inlined::exp2_sum(row, max);
        }
        let product = Product {
            shape: [n, columns, width],
            a: Left {
                values: self.logits.as_ptr(),
                row: width,
                column: 1,
            },
            b: self.v,
            start: Start::Output,
            out: self.output.as_mut_ptr(),
            out_stride: columns,
        };
        // SAFETY: the output holds n rows of `columns`, and so many values lie in the panels.
        unsafe { product.run_with(simd) };
    }
}

fn few_queries(
    arch: Arch,
    q: &Queries,
    rows: &impl KeyRows,
    keys: &[[usize; 2]],
    head: [usize; 2],
    target: &Results,
) {
    let (n, d) = (keys.len(), q.rows.shape[3]);
    with_scratch(2 * n * d + (2 * d + 1) * KEYS, |scratch| {
        let (q_rows, rest) = scratch.split_at_mut(n * d);
        let (output, rest) = rest.split_at_mut(n * d);
        let (k, rest) = rest.split_at_mut(KEYS * d);
        let (v, logits) = rest.split_at_mut(KEYS * d);
        let (mut max, mut sum) = ([f32::NEG_INFINITY; FEW], [0f32; FEW]);
        output.fill(0.0);
        for (i, row) in q_rows.chunks_exact_mut(d).enumerate() {
            load_queries(arch, q, head, i, row);
        }
        for start in (keys[0][0]..keys[n - 1][1]).step_by(KEYS) {
            let tile = start..(start + KEYS).min(keys[n - 1][1]);
            let len = tile.len() * d;
            rows.load(arch, head, tile.clone(), &mut k[..len], &mut v[..len]);
            for r in 0..n {
                let seen = keys[r][0].max(tile.start)..keys[r][1].min(tile.end);
                if seen.is_empty() {
                    continue;
                }
                let in_tile = (seen.start - start) * d..(seen.end - start) * d;
                arch.dispatch(OneQuery {
                    q: &q_rows[r * d..(r + 1) * d],
                    k: &k[in_tile.clone()],
                    v: &v[in_tile],
                    logits: &mut logits[..seen.len()],
                    output: &mut output[r * d..(r + 1) * d],
                    max: &mut max[r],
                    sum: &mut sum[r],
                });
            }
        }
        for (r, row) in output.chunks_exact(d).enumerate() {
            target.store(head, r, row, max[r], sum[r]);
        }
    });
}

/// One query and some keys, all of which it sees.
struct OneQuery<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    logits: &'a mut [f32],
    output: &'a mut [f32],
    max: &'a mut f32,
    sum: &'a mut f32,
}

impl WithSimd for OneQuery<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let d = self.q.len();
        for (logit, k) in self.logits.iter_mut().zip(self.k.chunks_exact(d)) {
            *logit = inlined::dot(self.q, k);
        }
        let max = inlined::max(self.logits).max(*self.max);
        if max > *self.max {
            let rescale = (*self.max - max).exp2();
            *self.sum *= rescale;
            inlined::scale(self.output, rescale);
            *self.max = max;
        }
        *self.sum += inlined::exp2_sum(self.logits, max);
        for (weight, v) in self.logits.iter().zip(self.v.chunks_exact(d)) {
            inlined::add_scaled(self.output, *weight, v);
        }
    }
}
