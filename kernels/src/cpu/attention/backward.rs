//! Gradients of attention over one band of keys, in tiles.
//!
//! A task is one head; it packs the head's keys and values first. It walks over blocks of queries,
//! and for each over the tiles of keys that any of its queries sees. A tile's weights are computed
//! again from the saved log-sum-exp (arXiv 2205.14135, appendix B). Additions into the gradients of
//! keys and values come in the order of the blocks, for any number of threads.

use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use super::queries::key_ranges;
use crate::cpu::gemm::Product;
use crate::cpu::output::{OutputBlock, OutputGrid};
use crate::cpu::panels::{Matrix, PanelMatrix, panel_width};
use crate::cpu::vector;
use crate::cpu::views::Strided;

/// Queries of a block.
const QUERIES: usize = 64;
/// Keys of a tile: the two tiles of a block take 128 KiB.
const KEYS: usize = 256;

/// The forward pass's arguments and results, and the gradients of the results.
pub struct Saved<'a> {
    /// `[b, h, n, d]`.
    pub q: Strided<'a>,
    /// `[b, h, m, d]`.
    pub k: Strided<'a>,
    /// `[b, h, m, d]`.
    pub v: Strided<'a>,
    /// `[n, 2]`.
    pub keys: &'a [i32],
    /// `[b, h, n]`.
    pub lse: &'a [f32],
    /// `[b, h, n, d]`.
    pub output: Strided<'a>,
    /// `[b, h, n, d]`.
    pub d_output: Strided<'a>,
    /// `[b, h, n]`.
    pub d_lse: &'a [f32],
}

/// Gradients of `q` as `[b, n, h, d]`, of `k` and `v` as `[b, m, h, d]`.
pub fn attention_backward(saved: &Saved) -> [Vec<f32>; 3] {
    let [b, h, n, d] = saved.q.shape;
    let m = saved.k.shape[2];
    let keys = key_ranges(saved.keys, m);
    let rows = [n, m, m];
    let mut gradients = rows.map(|rows| vec![0f32; b * rows * h * d]);
    if n * m == 0 {
        return gradients;
    }
    let [q_grids, k_grids, v_grids] = {
        let mut rows_of = rows.into_iter();
        gradients.each_mut().map(|gradient| {
            let rows = rows_of.next().expect("one for each gradient");
            heads_of_batches(gradient, [rows, h, d])
        })
    };
    (0..b * h).into_par_iter().for_each(|task| {
        let (batch, head) = (task / h, task % h);
        let mut head = Head {
            saved,
            batch,
            head,
            d_q: q_grids[batch].take([0, head]),
            d_k: k_grids[batch].take([0, head]),
            d_v: v_grids[batch].take([0, head]),
        };
        head.run(&keys);
    });
    gradients
}

/// A gradient `[b, rows, h, d]` by batch and head.
fn heads_of_batches(gradient: &mut [f32], [rows, h, d]: [usize; 3]) -> Vec<OutputGrid<'_, f32>> {
    let batches = gradient.chunks_exact_mut(rows * h * d);
    batches
        .map(|batch| OutputBlock::new(batch, h * d).grid([rows, d]))
        .collect()
}

/// One head, and the rows of its gradients.
struct Head<'a> {
    saved: &'a Saved<'a>,
    batch: usize,
    head: usize,
    /// `[n, d]`.
    d_q: OutputBlock<'a, f32>,
    /// `[m, d]`.
    d_k: OutputBlock<'a, f32>,
    /// `[m, d]`.
    d_v: OutputBlock<'a, f32>,
}

/// Keys and values of a head `[m, d]` in panels.
struct HeadPanels {
    /// Transposed.
    k: PanelMatrix,
    /// Transposed.
    v: PanelMatrix,
    k_rows: PanelMatrix,
}

/// A block of queries.
struct Block<'a> {
    rows: Range<usize>,
    /// First and past-the-last key of each.
    keys: &'a [[usize; 2]],
    lse: &'a [f32],
    /// The mean gradient of each row, against which the gradients of its weights are measured.
    along: &'a [f32],
    /// `[n, d]` in panels.
    q: PanelMatrix,
    d_output: PanelMatrix,
}

impl Head<'_> {
    fn run(&mut self, keys: &[[usize; 2]]) {
        let Saved {
            output, d_output, ..
        } = self.saved;
        let arch = Arch::new();
        let n = keys.len();
        let [_, heads, m, d] = self.saved.k.shape;
        let (k, v) = (self.matrix(&self.saved.k, 0), self.matrix(&self.saved.v, 0));
        let panels = HeadPanels {
            k: PanelMatrix::columns(arch, [d, m], k),
            v: PanelMatrix::columns(arch, [d, m], v),
            k_rows: PanelMatrix::rows(arch, [m, d], k),
        };
        let first_row = (self.batch * heads + self.head) * n;
        let (mut weights, mut d_logits) = (vec![0f32; QUERIES * KEYS], vec![0f32; QUERIES * KEYS]);
        for start in (0..n).step_by(QUERIES) {
            let rows = start..(start + QUERIES).min(n);
            let keys = &keys[rows.clone()];
            let along: Vec<f32> = rows
                .clone()
                .map(|i| {
                    let output = output.row(self.batch, self.head, i);
                    let d_output = d_output.row(self.batch, self.head, i);
                    let dot: f32 = output.iter().zip(d_output).map(|(a, b)| a * b).sum();
                    dot - self.saved.d_lse[first_row + i]
                })
                .collect();
            let in_panels = |x| PanelMatrix::rows(arch, [rows.len(), d], self.matrix(x, start));
            let block = Block {
                rows: rows.clone(),
                keys,
                lse: &self.saved.lse[first_row + rows.start..first_row + rows.end],
                along: &along,
                q: in_panels(&self.saved.q),
                d_output: in_panels(d_output),
            };
            // Tiles begin with a panel.
            let width = panel_width(arch);
            let (first, last) = (keys[0][0] / width * width, keys[keys.len() - 1][1]);
            for tile in (first..last).step_by(KEYS) {
                let tile = tile..(tile + KEYS).min(last);
                self.tile(&panels, &block, tile, [&mut weights, &mut d_logits]);
            }
        }
    }

    /// Adds one tile's part to all three gradients.
    fn tile(
        &mut self,
        panels: &HeadPanels,
        block: &Block,
        tile: Range<usize>,
        [weights, d_logits]: [&mut [f32]; 2],
    ) {
        let arch = Arch::new();
        let (n, width, d) = (block.keys.len(), tile.len(), self.saved.q.shape[3]);
        let scale = (1.0 / (d as f64).sqrt()) as f32;
        let [weights, d_logits] = [weights, d_logits].map(|tile| &mut tile[..n * width]);
        for (a, b, out) in [
            (&self.saved.q, &panels.k, &mut *weights),
            (&self.saved.d_output, &panels.v, &mut *d_logits),
        ] {
            let (a, b) = (self.matrix(a, block.rows.start), b.at_column(tile.start));
            Product::new(d, a.left(0), b, None, OutputBlock::new(out, width)).run(arch);
        }
        let weight_rows = weights.chunks_exact_mut(width);
        let d_logit_rows = d_logits.chunks_exact_mut(width);
        for (r, (weights, d_logits)) in weight_rows.zip(d_logit_rows).enumerate() {
            let visible = |bound: usize| bound.clamp(tile.start, tile.end) - tile.start;
            let [start, end] = block.keys[r].map(visible);
            let end = end.max(start);
            for hidden in [0..start, end..width] {
                weights[hidden.clone()].fill(0.0);
                d_logits[hidden].fill(0.0);
            }
            let (weights, d_logits) = (&mut weights[start..end], &mut d_logits[start..end]);
            let (lse, along) = (block.lse[r], block.along[r]);
            vector::softmax_backward(arch, weights, d_logits, lse, along, scale);
        }
        let [weights, d_logits] = [weights, d_logits].map(|values| Matrix {
            values,
            stride: width,
        });
        for (a, b, gradient) in [
            (weights, &block.d_output, &mut self.d_v),
            (d_logits, &block.q, &mut self.d_k),
        ] {
            let out = gradient.part(tile.clone(), 0..d);
            Product::adding(n, a.left_transposed(0), b.at_row(0), out).run(arch);
        }
        let out = self.d_q.part(block.rows.clone(), 0..d);
        let b = panels.k_rows.at_row(tile.start);
        Product::adding(width, d_logits.left(0), b, out).run(arch);
    }

    fn matrix<'b>(&self, x: &Strided<'b>, row: usize) -> Matrix<'b> {
        Matrix {
            values: &x.head(self.batch, self.head)[row * x.row_stride()..],
            stride: x.row_stride(),
        }
    }
}
