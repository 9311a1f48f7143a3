//! Gradients of attention over one band of keys, in tiles.
//!
//! A task is one head, whose keys and values it packs first. It walks blocks of queries, and for each the tiles of keys that
//! any of its queries sees; a tile's weights are computed again from the saved log-sum-exp (arXiv 2205.14135,
//! appendix B). Additions into the gradients of keys and values come in the order of the blocks,
//! whatever the number of threads.

use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use super::attention::key_ranges;
use super::gemm::{Left, Matrix, Packed, Panels, Product, Start, panel_width};
use super::{Output, Strided, vector};

/// Queries of a block.
const QUERIES: usize = 64;
/// Keys of a tile: the two tiles of a block take 128 KiB.
const KEYS: usize = 256;

/// What the forward pass was given and gave, and the gradients of its results.
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
    let mut gradients = [n, m, m].map(|rows| vec![0f32; b * rows * h * d]);
    let [d_q, d_k, d_v] = gradients.each_mut().map(|x| Output(x.as_mut_ptr()));
    (0..b * h).into_par_iter().for_each(|task| {
        let (batch, head) = (task / h, task % h);
        let at = |target: &Output, rows: usize| target.at((batch * rows * h + head) * d);
        let head = Head {
            saved,
            batch,
            head,
            stride: h * d,
            d_q: at(&d_q, n),
            d_k: at(&d_k, m),
            d_v: at(&d_v, m),
        };
        head.run(&keys);
    });
    gradients
}

/// One head; its gradients start at the pointers, with rows `stride` apart.
struct Head<'a> {
    saved: &'a Saved<'a>,
    batch: usize,
    head: usize,
    stride: usize,
    d_q: *mut f32,
    d_k: *mut f32,
    d_v: *mut f32,
}

/// Keys and values of a head `[m, d]` in panels.
struct PackedHead {
    /// Transposed.
    k: Packed,
    /// Transposed.
    v: Packed,
    k_rows: Packed,
}

/// A block of queries.
struct Block<'a> {
    /// The first one.
    row: usize,
    /// What each sees.
    keys: &'a [[usize; 2]],
    lse: &'a [f32],
    /// What every weight's gradient is measured against: the mean gradient of the row.
    along: &'a [f32],
    /// `[n, d]` in panels.
    q: Packed,
    d_output: Packed,
}

impl Head<'_> {
    fn run(&self, keys: &[[usize; 2]]) {
        let Saved {
            output, d_output, ..
        } = self.saved;
        let arch = Arch::new();
        let n = keys.len();
        let [_, heads, m, d] = self.saved.k.shape;
        let (k, v) = (self.matrix(&self.saved.k, 0), self.matrix(&self.saved.v, 0));
        let packed = PackedHead {
            k: Packed::columns(arch, [d, m], k),
            v: Packed::columns(arch, [d, m], v),
            k_rows: Packed::rows(arch, [m, d], k),
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
            let in_panels = |x| Packed::rows(arch, [rows.len(), d], self.matrix(x, start));
            let block = Block {
                row: start,
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
                self.tile(&packed, &block, tile, [&mut weights, &mut d_logits]);
            }
        }
    }

    /// Adds what one tile contributes to all three gradients.
    fn tile(
        &self,
        packed: &PackedHead,
        block: &Block,
        tile: Range<usize>,
        [weights, d_logits]: [&mut Vec<f32>; 2],
    ) {
        let arch = Arch::new();
        let (n, width, d) = (block.keys.len(), tile.len(), self.saved.q.shape[3]);
        let scale = (1.0 / (d as f64).sqrt()) as f32;
        let product = |shape, a: Left, b: Panels, start, out: *mut f32, out_stride| {
            let product = Product {
                shape,
                a,
                b,
                start,
                out,
                out_stride,
            };
            // SAFETY: the tiles hold QUERIES rows of KEYS; the gradients of this head are this task's alone, and the rows lie
            // inside them.
            unsafe { product.run(arch) };
        };
        let rows = |x| self.matrix(x, block.row).left(0);
        for (a, b, out) in [
            (&self.saved.q, &packed.k, &mut *weights),
            (&self.saved.d_output, &packed.v, &mut *d_logits),
        ] {
            let (b, out) = (b.at_column(tile.start), out.as_mut_ptr());
            product([n, width, d], rows(a), b, Start::Zero, out, width);
        }
        let weight_rows = weights.chunks_exact_mut(width);
        let d_logit_rows = d_logits.chunks_exact_mut(width);
        for (r, (weights, d_logits)) in weight_rows.zip(d_logit_rows).take(n).enumerate() {
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
        let stride = self.stride;
        let matrix = |values| Matrix {
            values,
            stride: width,
        };
        for (a, b, out) in [
            (&*weights, &block.d_output, self.d_v),
            (&*d_logits, &block.q, self.d_k),
        ] {
            let (a, b) = (matrix(a).left_transposed(0), b.at_row(0));
            let out = out.wrapping_add(tile.start * stride);
            product([width, d, n], a, b, Start::Output, out, stride);
        }
        let (a, b) = (matrix(d_logits).left(0), packed.k_rows.at_row(tile.start));
        let out = self.d_q.wrapping_add(block.row * stride);
        product([n, d, width], a, b, Start::Output, out, stride);
    }

    fn matrix<'b>(&self, x: &Strided<'b>, row: usize) -> Matrix<'b> {
        Matrix {
            values: &x.head(self.batch, self.head)[row * x.row_stride()..],
            stride: x.row_stride(),
        }
    }
}
