//! A few queries, as in decoding: a tile of keys is loaded row by row and meets the queries as it
//! is.

use pulp::{Arch, Simd, WithSimd};

use super::key_panels::TILE_KEYS;
use super::keys::KeyValues;
use super::queries::{Queries, Results};
use crate::cpu::scratch::with_scratch;
use crate::cpu::vector::inlined;

/// Queries up to which this is faster than packing the keys.
pub const MAX_QUERIES: usize = 4;

/// Attention of all queries of a head, at most [`MAX_QUERIES`].
pub fn few_queries(
    arch: Arch,
    q: &Queries,
    kv: &KeyValues,
    keys: &[[usize; 2]],
    head: [usize; 2],
    mut results: Results,
) {
    let (n, d) = (keys.len(), q.rows.shape[3]);
    with_scratch(2 * n * d + (2 * d + 1) * TILE_KEYS, |scratch| {
        let (q_rows, rest) = scratch.split_at_mut(n * d);
        let (output, rest) = rest.split_at_mut(n * d);
        let (k, rest) = rest.split_at_mut(TILE_KEYS * d);
        let (v, logits) = rest.split_at_mut(TILE_KEYS * d);
        let (mut max, mut sum) = ([f32::NEG_INFINITY; MAX_QUERIES], [0f32; MAX_QUERIES]);
        output.fill(0.0);
        for (i, row) in q_rows.chunks_exact_mut(d).enumerate() {
            q.load(arch, head, i, row);
        }
        for start in (keys[0][0]..keys[n - 1][1]).step_by(TILE_KEYS) {
            let tile = start..(start + TILE_KEYS).min(keys[n - 1][1]);
            let len = tile.len() * d;
            kv.load(arch, head, tile.clone(), &mut k[..len], &mut v[..len]);
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
        for (i, row) in output.chunks_exact(d).enumerate() {
            results.store(i, row, max[i], sum[i]);
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
