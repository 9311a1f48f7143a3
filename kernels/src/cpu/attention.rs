//! Attention over one band of keys, in tiles: keys and values as a pass has just made them, or as a cache holds
//! them.
//!
//! A task is a block of queries of one head. It walks the tiles of keys that any of its queries sees,
//! and no others, so a window of `w` costs `n * w`. A tile's logits are one small matrix product; the
//! softmax is the online one (arXiv 2205.14135, section 3): a running maximum and sum, and an output
//! that is rescaled when the maximum grows.

use pulp::Arch;
use rayon::prelude::*;

use super::linear::{Matrix, add_product, product_transposed};
use super::{Cached, Strided, vector};

/// Queries of a task.
const QUERIES: usize = 128;
/// Keys of a tile: with 128 queries its logits take 256 KiB, which stay in the second-level cache.
const KEYS: usize = 512;

/// `q` `[b, h, n, d]`, `k` and `v` `[b, h, m, d]`, `keys` `[n, 2]`; returns the output as
/// `[b, n, h, d]` and the log-sum-exp `[b, h, n]`.
pub fn attention(q: &Strided, k: &Strided, v: &Strided, keys: &[i32]) -> (Vec<f32>, Vec<f32>) {
    let of_head = |batch, head| Keys::Ready(k.matrix(batch, head), v.matrix(batch, head));
    over_heads(q, &key_ranges(keys, k.shape[2]), of_head)
}

/// [`attention`] over the keys and values of a cache. A tile of them is widened and rotated when it is needed: beside
/// the products this is little for many queries, and for few it is the memory that takes the time.
pub fn cached_attention(q: &Strided, cached: &Cached, keys: &[i32]) -> (Vec<f32>, Vec<f32>) {
    let of_head = |batch, head| Keys::Cached {
        cached,
        batch,
        head,
    };
    over_heads(q, &key_ranges(keys, cached.len()), of_head)
}

fn over_heads<'a>(
    q: &Strided,
    keys: &[[usize; 2]],
    of_head: impl Fn(usize, usize) -> Keys<'a> + Sync,
) -> (Vec<f32>, Vec<f32>) {
    let [b, h, n, d] = q.shape;
    let mut output = vec![0f32; b * n * h * d];
    let mut lse = vec![0f32; b * h * n];
    let query_blocks = n.div_ceil(QUERIES);
    let target = Output {
        output: output.as_mut_ptr(),
        lse: lse.as_mut_ptr(),
    };
    (0..b * h * query_blocks).into_par_iter().for_each_init(
        || Workspace::new(d),
        |workspace, task| {
            // Late blocks see most under causality: starting with them balances the threads.
            let block = query_blocks - 1 - task % query_blocks;
            let (batch, head) = (task / query_blocks / h, task / query_blocks % h);
            let rows = block * QUERIES..((block + 1) * QUERIES).min(n);
            let problem = Block {
                q: q.matrix(batch, head).rows_from(rows.start),
                of_head: of_head(batch, head),
                keys: &keys[rows.clone()],
                d,
            };
            workspace.run(&problem);
            for (r, i) in rows.enumerate() {
                let sum = workspace.sum[r];
                let inverse = if sum > 0.0 { 1.0 / sum } else { 0.0 };
                // A sum that is not a number must reach the output, not become zero.
                let inverse = if sum.is_nan() { sum } else { inverse };
                let row = &workspace.output[r * d..(r + 1) * d];
                // SAFETY: row `i` of this head belongs to this task alone.
                unsafe {
                    let out = target.row(((batch * n + i) * h + head) * d, d);
                    for (out, x) in out.iter_mut().zip(row) {
                        *out = x * inverse;
                    }
                    *target.lse((batch * h + head) * n + i) = workspace.max[r] + sum.ln();
                }
            }
        },
    );
    (output, lse)
}

/// First and past-the-last of `m` keys that each query sees, from `[n, 2]`.
pub fn key_ranges(keys: &[i32], m: usize) -> Vec<[usize; 2]> {
    let pairs = keys.as_chunks::<2>().0.iter();
    pairs
        .map(|&[start, end]| [start as usize, (end as usize).min(m)])
        .collect()
}

struct Output {
    output: *mut f32,
    lse: *mut f32,
}
// SAFETY: tasks write disjoint rows.
unsafe impl Sync for Output {}
unsafe impl Send for Output {}

impl Output {
    /// # Safety
    /// The row must be inside the output and no other task's.
    #[allow(clippy::mut_from_ref)]
    unsafe fn row(&self, offset: usize, d: usize) -> &mut [f32] {
        unsafe { std::slice::from_raw_parts_mut(self.output.add(offset), d) }
    }

    fn lse(&self, offset: usize) -> *mut f32 {
        self.lse.wrapping_add(offset)
    }
}

/// The keys and values of a head.
enum Keys<'a> {
    /// Rotated keys, and values.
    Ready(Matrix<'a>, Matrix<'a>),
    /// To be loaded tile by tile.
    Cached {
        cached: &'a Cached<'a>,
        batch: usize,
        head: usize,
    },
}

/// One block of queries against all keys of its head.
struct Block<'a> {
    q: Matrix<'a>,
    of_head: Keys<'a>,
    /// First and past-the-last key of each query.
    keys: &'a [[usize; 2]],
    d: usize,
}

/// What a thread reuses from block to block.
struct Workspace {
    arch: Arch,
    logits: Vec<f32>,
    /// Keys and values of a tile that come from a cache.
    loaded: [Vec<f32>; 2],
    output: Vec<f32>,
    max: Vec<f32>,
    sum: Vec<f32>,
}

impl Workspace {
    fn new(d: usize) -> Self {
        Workspace {
            arch: Arch::new(),
            logits: vec![0.0; QUERIES * KEYS],
            loaded: [Vec::new(), Vec::new()],
            output: vec![0.0; QUERIES * d],
            max: vec![0.0; QUERIES],
            sum: vec![0.0; QUERIES],
        }
    }

    /// Leaves the unnormalised output, the maximum and the sum of each query.
    fn run(&mut self, block: &Block) {
        self.output.fill(0.0);
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
        let (Some(first), Some(last)) = (block.keys.first(), block.keys.last()) else {
            return;
        };
        for start in (first[0]..last[1]).step_by(KEYS) {
            self.tile(block, start, (start + KEYS).min(last[1]));
        }
    }

    fn tile(&mut self, block: &Block, start: usize, end: usize) {
        let (n, width, d) = (block.keys.len(), end - start, block.d);
        let (k, v) = match &block.of_head {
            Keys::Ready(k, v) => (k.rows_from(start), v.rows_from(start)),
            Keys::Cached {
                cached,
                batch,
                head,
            } => {
                let [k, v] = &mut self.loaded;
                cached.load(self.arch, [*batch, *head], start..end, k, v);
                let matrix = |values| Matrix { values, stride: d };
                (matrix(k.as_slice()), matrix(v.as_slice()))
            }
        };
        let scale = (1.0 / (d as f64).sqrt()) as f32;
        let logits = &mut self.logits[..n * width];
        // SAFETY: `logits` holds n rows of `width`.
        unsafe {
            product_transposed([n, width, d], block.q, k, scale, logits.as_mut_ptr(), width);
        }
        for (r, (row, keys)) in logits.chunks_exact_mut(width).zip(block.keys).enumerate() {
            let visible = keys[0].clamp(start, end) - start..keys[1].clamp(start, end) - start;
            if visible.is_empty() {
                row.fill(0.0);
                continue;
            }
            row[..visible.start].fill(0.0);
            row[visible.end..].fill(0.0);
            let row = &mut row[visible];
            let max = vector::max(self.arch, row).max(self.max[r]);
            let sum = vector::exp_sum(self.arch, row, max);
            if max > self.max[r] {
                let rescale = (self.max[r] - max).exp();
                self.sum[r] *= rescale;
                vector::scale(self.arch, &mut self.output[r * d..(r + 1) * d], rescale);
                self.max[r] = max;
            }
            self.sum[r] += sum;
        }
        let weights = Matrix {
            values: &self.logits,
            stride: width,
        };
        // SAFETY: the output holds n rows of d.
        unsafe { add_product([n, d, width], weights, v, self.output.as_mut_ptr(), d) };
    }
}
