//! Queries of attention: what they see, how they are loaded, and where their results go.

use std::mem::MaybeUninit;

use pulp::Arch;

use super::keys::Tables;
use crate::cpu::output::OutputBlock;
use crate::cpu::vector;
use crate::cpu::views::Strided;

/// Queries `[b, h, n, d]`, and the tables that rotate them as they are loaded, if any.
pub struct Queries<'a> {
    pub rows: Strided<'a>,
    pub tables: Option<Tables<'a>>,
}

impl Queries<'_> {
    /// Query `i` of a head, rotated and scaled: its products with keys are logits in units of
    /// `ln 2`.
    pub fn load(&self, arch: Arch, [batch, head]: [usize; 2], i: usize, out: &mut [f32]) {
        let scale = std::f64::consts::LOG2_E / (out.len() as f64).sqrt();
        out.copy_from_slice(self.rows.row(batch, head, i));
        if let Some(tables) = self.tables {
            tables.rotate(arch, i, out);
        }
        vector::scale(arch, out, scale as f32);
    }
}

/// The results of some neighbouring queries of one head.
pub struct Results<'a> {
    /// `[queries, d]`.
    pub output: OutputBlock<'a, MaybeUninit<f32>>,
    /// `[1, queries]`.
    pub lse: OutputBlock<'a, MaybeUninit<f32>>,
}

impl Results<'_> {
    /// Normalises and stores the output of query `i` of these, whose weights are relative to
    /// `2^max` and add up to `sum`.
    pub fn store(&mut self, i: usize, row: &[f32], max: f32, sum: f32) {
        let inverse = if sum > 0.0 { 1.0 / sum } else { 0.0 };
        // A sum that is NaN must reach the output, not become zero.
        let inverse = if sum.is_nan() { sum } else { inverse };
        for (out, x) in self.output.row(i).iter_mut().zip(row) {
            out.write(x * inverse);
        }
        let lse = f64::from(max) * std::f64::consts::LN_2 + f64::from(sum).ln();
        self.lse.row(0)[i].write(lse as f32);
    }
}

/// First and past-the-last of `m` keys that each query sees, from `[n, 2]`.
///
/// # Panics
/// If a range begins or ends before that of the query before it: the loops read only what lies
/// between the first key of a block's first query and the last key of its last.
pub fn key_ranges(keys: &[i32], m: usize) -> Vec<[usize; 2]> {
    let pairs = keys.as_chunks::<2>().0.iter();
    let ranges: Vec<[usize; 2]> = pairs
        .map(|&[start, end]| [(start as usize).min(m), (end as usize).min(m)])
        .collect();
    let ahead = |pair: &[[usize; 2]]| pair[0][0] <= pair[1][0] && pair[0][1] <= pair[1][1];
    assert!(ranges.windows(2).all(ahead), "ranges of keys go back");
    ranges
}
