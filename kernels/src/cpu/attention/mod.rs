//! Attention over one band of keys: keys and values as a pass has made them, or as a cache holds
//! them.
//!
//! A query keeps a running maximum of its logits, the sum of their exponentials, and an output that
//! is rescaled when the maximum grows (online softmax, arXiv 2205.14135, section 3). Logits are in
//! units of `ln 2`, so that weights are powers of two. Keys that no query sees are not read, so a
//! window of `w` costs `n * w`.
//!
//! Many queries ([`tiles`]) meet keys and values that were packed into panels for matrix products.
//! For a few queries, as in decoding, packing costs more than it saves: [`direct`] loads keys row
//! by row.

mod backward;
mod direct;
mod key_panels;
mod keys;
mod queries;
mod tiles;

use pulp::Arch;
use rayon::prelude::*;

pub use backward::{Saved, attention_backward};
pub use keys::{KeyValues, StoredRows, Tables};
pub use queries::{Queries, key_ranges};

use super::output::{OutputBlock, OutputGrid, Unwritten};
use key_panels::KeyPanels;
use queries::Results;

/// `keys` are the first and the past-the-last key of each query; returns the output as
/// `[b, n, h, d]` and the log-sum-exp `[b, h, n]`.
pub fn attention(q: &Queries, kv: &KeyValues, keys: &[[usize; 2]]) -> (Vec<f32>, Vec<f32>) {
    let [b, h, n, d] = q.rows.shape;
    assert_eq!(keys.len(), n, "a range of keys for each query");
    if b * h * n == 0 {
        return (Vec::new(), Vec::new());
    }
    let arch = Arch::new();
    let direct = n <= direct::MAX_QUERIES;
    let task_queries = if direct { n } else { tiles::TASK_QUERIES };
    let mut output = Unwritten::new(b * n * h * d);
    let mut lse = Unwritten::new(b * h * n);
    let outputs: Vec<OutputGrid<_>> = (output.values().chunks_exact_mut(n * h * d))
        .map(|batch| OutputBlock::new(batch, h * d).grid([task_queries, d]))
        .collect();
    let lse_grid = OutputBlock::new(lse.values(), n).grid([1, task_queries]);
    let results = |[batch, head]: [usize; 2], block: usize| Results {
        output: outputs[batch].take([block, head]),
        lse: lse_grid.take([batch * h + head, block]),
    };
    if direct {
        (0..b * h).into_par_iter().for_each(|task| {
            let head = [task / h, task % h];
            direct::few_queries(arch, q, kv, keys, head, results(head, 0));
        });
    } else {
        let seen = keys[0][0]..keys[n - 1][1].max(keys[0][0]);
        let panels = KeyPanels::new(arch, kv, [b, h, d], seen);
        let blocks = n.div_ceil(task_queries);
        (0..b * h * blocks).into_par_iter().for_each(|task| {
            // Under a causal mask late blocks see most; starting with them balances the threads.
            let block = blocks - 1 - task % blocks;
            let head = [task / blocks / h, task / blocks % h];
            let queries = block * task_queries..((block + 1) * task_queries).min(n);
            tiles::block_of_queries(arch, q, &panels, keys, head, queries, results(head, block));
        });
    }
    // SAFETY: the tasks took the blocks of every head and query, and stored each of their rows.
    unsafe { (output.assume_written(), lse.assume_written()) }
}
