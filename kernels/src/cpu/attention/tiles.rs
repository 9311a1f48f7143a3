//! Many queries: a block of them walks over tiles of keys in panels.
//!
//! A few queries at a time meet a tile, in two small matrix products with the online softmax
//! between.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::key_panels::{KeyPanels, TILE_KEYS};
use super::queries::{Queries, Results};
use crate::cpu::gemm::{Product, TILE_ROWS};
use crate::cpu::output::OutputBlock;
use crate::cpu::panels::{Matrix, Panels};
use crate::cpu::scratch::with_scratch;
use crate::cpu::vector::inlined;

/// Queries that meet a tile together; their logits stay in the first cache.
const TOGETHER: usize = 2 * TILE_ROWS;
/// Queries of a task.
pub const TASK_QUERIES: usize = 8 * TOGETHER;

/// Attention of the queries `queries` of a head; no tile that none of them sees is visited.
pub fn block_of_queries(
    arch: Arch,
    q: &Queries,
    panels: &KeyPanels,
    keys: &[[usize; 2]],
    head: [usize; 2],
    queries: Range<usize>,
    mut results: Results,
) {
    let (n, d, columns) = (queries.len(), panels.d, panels.columns);
    with_scratch(n * (d + columns + 2) + TOGETHER * TILE_KEYS, |scratch| {
        let (q_rows, rest) = scratch.split_at_mut(n * d);
        let (output, rest) = rest.split_at_mut(n * columns);
        let (max, rest) = rest.split_at_mut(n);
        let (sum, logits) = rest.split_at_mut(n);
        output.fill(0.0);
        max.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        for (i, row) in queries.clone().zip(q_rows.chunks_exact_mut(d)) {
            q.load(arch, head, i, row);
        }
        let keys = &keys[queries];
        let first = keys[0][0] / panels.width * panels.width;
        for start in (first..keys[n - 1][1]).step_by(TILE_KEYS) {
            let end = start + TILE_KEYS;
            for row in (0..n).step_by(TOGETHER) {
                let rows = row..(row + TOGETHER).min(n);
                // Keys of this tile that any of these queries sees, and the panels they are in.
                let seen = keys[rows.start][0].max(start)..keys[rows.end - 1][1].min(end);
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
        for (i, row) in output.chunks_exact(columns).enumerate() {
            results.store(i, &row[..d], max[i], sum[i]);
        }
    });
}

/// A few queries and a tile of keys.
struct Tile<'a> {
    /// `[n, d]`.
    q: &'a [f32],
    k: Panels<'a>,
    v: Panels<'a>,
    d: usize,
    /// The keys of the tile, in whole panels.
    tile: Range<usize>,
    /// First and past-the-last key of each query.
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
        let q = Matrix {
            values: self.q,
            stride: self.d,
        };
        let logits = OutputBlock::new(&mut *self.logits, width);
        Product::new(self.d, q.left(0), self.k, None, logits).run_with(simd);
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
        let weights = Matrix {
            values: self.logits,
            stride: width,
        };
        let output = OutputBlock::new(self.output, columns);
        Product::adding(width, weights.left(0), self.v, output).run_with(simd);
    }
}
