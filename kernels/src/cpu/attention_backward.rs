//! Gradients of attention over one band of keys, in tiles.
//!
//! A task is one head. It walks blocks of queries, and for each the tiles of keys that any of its
//! queries sees; a tile's weights are computed again from the saved log-sum-exp (arXiv 2205.14135,
//! appendix B). Additions into the gradients of keys and values come in the order of the blocks,
//! whatever the number of threads.

use pulp::Arch;
use rayon::prelude::*;

use super::attention::key_ranges;
use super::linear::{Matrix, add_product, add_transposed, product_transposed};
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

impl Head<'_> {
    fn run(&self, keys: &[[usize; 2]]) {
        let Saved {
            output, d_output, ..
        } = self.saved;
        let n = keys.len();
        let first_row = (self.batch * self.saved.q.shape[1] + self.head) * n;
        let (mut weights, mut d_logits) = (vec![0f32; QUERIES * KEYS], vec![0f32; QUERIES * KEYS]);
        for start in (0..n).step_by(QUERIES) {
            let rows = start..(start + QUERIES).min(n);
            let keys = &keys[rows.clone()];
            // What every weight's gradient is measured against: the mean gradient of the row.
            let along: Vec<f32> = rows
                .clone()
                .map(|i| {
                    let output = output.row(self.batch, self.head, i);
                    let d_output = d_output.row(self.batch, self.head, i);
                    let dot: f32 = output.iter().zip(d_output).map(|(a, b)| a * b).sum();
                    dot - self.saved.d_lse[first_row + i]
                })
                .collect();
            let lse = &self.saved.lse[first_row + rows.start..first_row + rows.end];
            let (first, last) = (keys[0][0], keys[keys.len() - 1][1]);
            for tile in (first..last).step_by(KEYS) {
                let tile = tile..(tile + KEYS).min(last);
                self.tile(
                    rows.start,
                    tile,
                    keys,
                    lse,
                    &along,
                    [&mut weights, &mut d_logits],
                );
            }
        }
    }

    /// Adds what one tile contributes to all three gradients.
    fn tile(
        &self,
        row: usize,
        tile: std::ops::Range<usize>,
        keys: &[[usize; 2]],
        lse: &[f32],
        along: &[f32],
        [weights, d_logits]: [&mut Vec<f32>; 2],
    ) {
        let arch = Arch::new();
        let (n, width, d) = (keys.len(), tile.len(), self.saved.q.shape[3]);
        let q = self.matrix(&self.saved.q, row);
        let k = self.matrix(&self.saved.k, tile.start);
        let v = self.matrix(&self.saved.v, tile.start);
        let d_output = self.matrix(&self.saved.d_output, row);
        let scale = (1.0 / (d as f64).sqrt()) as f32;
        let shape = [n, width, d];
        // SAFETY: both buffers hold QUERIES rows of KEYS.
        unsafe {
            product_transposed(shape, q, k, scale, weights.as_mut_ptr(), width);
            product_transposed(shape, d_output, v, 1.0, d_logits.as_mut_ptr(), width);
        }
        let weight_rows = weights.chunks_exact_mut(width);
        let d_logit_rows = d_logits.chunks_exact_mut(width);
        for (r, (weights, d_logits)) in weight_rows.zip(d_logit_rows).take(n).enumerate() {
            let visible = |bound: usize| bound.clamp(tile.start, tile.end) - tile.start;
            let (start, end) = (
                visible(keys[r][0]),
                visible(keys[r][1]).max(visible(keys[r][0])),
            );
            for hidden in [0..start, end..width] {
                weights[hidden.clone()].fill(0.0);
                d_logits[hidden].fill(0.0);
            }
            let (weights, d_logits) = (&mut weights[start..end], &mut d_logits[start..end]);
            vector::softmax_backward(arch, weights, d_logits, lse[r], along[r], scale);
        }
        let stride = self.stride;
        // SAFETY: the gradients of this head are this task's alone, and the rows lie inside them.
        unsafe {
            let rows = Matrix {
                values: weights,
                stride: width,
            };
            add_transposed(
                [width, d, n],
                rows,
                d_output,
                self.d_v.add(tile.start * stride),
                stride,
            );
            let rows = Matrix {
                values: d_logits,
                stride: width,
            };
            add_transposed(
                [width, d, n],
                rows,
                q,
                self.d_k.add(tile.start * stride),
                stride,
            );
            add_product([n, d, width], rows, k, self.d_q.add(row * stride), stride);
        }
    }

    fn matrix<'b>(&self, x: &Strided<'b>, row: usize) -> Matrix<'b> {
        Matrix {
            values: &x.head(self.batch, self.head)[row * x.row_stride()..],
            stride: x.row_stride(),
        }
    }
}
