//! The loops of a product of a few rows: blocks of outputs and rows whose sums stay in registers.

// Loops walk over the indices of a block, in several arrays at once.
#![allow(clippy::needless_range_loop)]

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};

use super::arranged::{CHUNK, FewRows, LANES};
use super::words::WordFormat;
use crate::cpu::gemm::prefetch;

/// Rows, and rows of a weight in whole chunks.
pub struct Task<'a> {
    pub rows: &'a FewRows,
    pub weight: &'a [u8],
    /// For each row of a packed weight and each group, the scale and the zero: one of each, or a
    /// vector of each where groups are shorter than a chunk. Empty for float weights.
    pub factors: &'a [f32],
    /// Chunks of a group; the last may have fewer.
    pub of_group: usize,
    /// `[n, o]`.
    pub out: &'a mut [f32],
}

/// A task in blocks of `O` outputs and `R` rows, with `EACH` scales a group, over words of format
/// `F`.
pub struct Blocked<'a, F, const EACH: usize, const O: usize, const R: usize>(
    pub Task<'a>,
    pub PhantomData<F>,
);

impl<F: WordFormat, const EACH: usize, const O: usize, const R: usize> WithSimd
    for Blocked<'_, F, EACH, O, R>
{
    type Output = ();

    // Loops and no closures: these would not be compiled for the instruction set.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let n = self.0.rows.n;
        let outputs = self.0.out.len() / n;
        self.check(outputs);
        for first in (0..outputs).step_by(O) {
            let mut which = [first; O];
            for o in 0..O {
                // Where fewer than O are left, the last one is computed several times.
                which[o] = (first + o).min(outputs - 1);
            }
            for row in (0..n).step_by(R) {
                let total = self.products(simd, which, row);
                for o in 0..O {
                    for r in 0..R.min(n - row) {
                        let product = simd.reduce_sum_f32s(total[o][r]);
                        self.0.out[(row + r) * outputs + which[o]] = product;
                    }
                }
            }
        }
    }
}

impl<F: WordFormat, const EACH: usize, const O: usize, const R: usize> Blocked<'_, F, EACH, O, R> {
    /// Checks the lengths that the pointers in the loops below rely on.
    #[inline(always)]
    fn check(&self, outputs: usize) {
        let Task {
            rows,
            weight,
            factors,
            of_group,
            ..
        } = self.0;
        let padded = rows.n.next_multiple_of(R);
        let groups = rows.chunks.div_ceil(of_group);
        assert!(
            rows.x.len() >= padded * rows.chunks * F::VALUES
                && rows.sums.len() >= padded * rows.chunks
                && weight.len() == outputs * rows.chunks * CHUNK
                && (!F::PACKED || factors.len() == outputs * groups * 2 * EACH),
            "rows, weight and factors of {outputs} outputs in {} chunks",
            rows.chunks
        );
    }

    /// Outputs `which` of rows `row..row + R`, spread over a register.
    #[inline(always)]
    fn products<S: Simd>(&self, simd: S, which: [usize; O], row: usize) -> [[S::f32s; R]; O] {
        let Task { rows, of_group, .. } = self.0;
        let groups = rows.chunks.div_ceil(of_group);
        let mut weight = [self.0.weight.as_ptr(); O];
        let mut factors = [self.0.factors.as_ptr(); O];
        for o in 0..O {
            weight[o] = weight[o].wrapping_add(which[o] * rows.chunks * CHUNK);
            factors[o] = factors[o].wrapping_add(which[o] * groups * 2 * EACH);
        }
        // Registers of a chunk: all of them have one scale, or each has its own.
        let parts = LANES / S::F32_LANES;
        let (apart, together) = if EACH == 1 { (1, parts) } else { (parts, 1) };
        let none = simd.splat_f32s(0.0);
        let mut total = [[none; R]; O];
        for group in 0..groups {
            for first in 0..apart {
                let mut products = [[none; R]; O];
                let mut sums = [none; R];
                for chunk in group * of_group..rows.chunks.min((group + 1) * of_group) {
                    for o in 0..O {
                        // The same place of the next outputs: short rows end before the processor
                        // notices that they are read in order.
                        prefetch(weight[o].wrapping_add((chunk + O * rows.chunks) * CHUNK));
                    }
                    for part in first..first + together {
                        // SAFETY: `weight` points at rows of `rows.chunks` chunks, and `row` and
                        // `chunk` are below those of the task (`check`).
                        unsafe {
                            self.add(simd, (row, chunk, part), weight, &mut products, &mut sums);
                        }
                    }
                }
                if !F::PACKED {
                    total = products;
                    continue;
                }
                for o in 0..O {
                    let own = factors[o].wrapping_add(group * 2 * EACH);
                    // SAFETY: every output has factors for every group (`check`).
                    let (scale, zero) = unsafe {
                        match EACH {
                            1 => (simd.splat_f32s(*own), simd.splat_f32s(*own.add(1))),
                            _ => (load::<S>(own, first), load::<S>(own.add(EACH), first)),
                        }
                    };
                    for r in 0..R {
                        let steps = simd.negate_mul_add_f32s(zero, sums[r], products[o][r]);
                        total[o][r] = simd.mul_add_f32s(scale, steps, total[o][r]);
                    }
                }
            }
        }
        total
    }

    /// Adds the products of a part of a chunk, and the sums of the rows over it.
    ///
    /// # Safety
    /// Each of `weight` must point at a row of `chunks` chunks. `chunk` and `row + R` must be
    /// inside the arranged rows, `part` inside a chunk.
    #[inline(always)]
    unsafe fn add<S: Simd>(
        &self,
        simd: S,
        (row, chunk, part): (usize, usize, usize),
        weight: [*const u8; O],
        products: &mut [[S::f32s; R]; O],
        sums: &mut [S::f32s; R],
    ) {
        let FewRows {
            x,
            sums: of_x,
            chunks,
            ..
        } = self.0.rows;
        for o in 0..O {
            // SAFETY: a part of a chunk of the row; the read needs no alignment.
            let words = unsafe {
                let chunk = weight[o].add(chunk * CHUNK);
                chunk.cast::<S::u32s>().add(part).read_unaligned()
            };
            for k in 0..F::VALUES {
                let values = F::value(simd, words, k);
                for r in 0..R {
                    let at = ((row + r) * chunks + chunk) * F::VALUES + k;
                    // SAFETY: every row has vectors for every chunk (the caller's contract).
                    let x = unsafe { load::<S>(x.as_ptr().add(at).cast(), part) };
                    products[o][r] = simd.mul_add_f32s(values, x, products[o][r]);
                }
            }
        }
        if F::PACKED {
            for r in 0..R {
                let at = (row + r) * chunks + chunk;
                // SAFETY: as above.
                let sum = unsafe { load::<S>(of_x.as_ptr().add(at).cast(), part) };
                sums[r] = simd.add_f32s(sums[r], sum);
            }
        }
    }
}

/// The `part`-th register of a vector.
///
/// # Safety
/// There must be such a vector.
#[inline(always)]
unsafe fn load<S: Simd>(vector: *const f32, part: usize) -> S::f32s {
    // SAFETY: the caller's contract.
    unsafe { vector.cast::<S::f32s>().add(part).read_unaligned() }
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, bytemuck};

    use super::super::words::PackedBits;
    use super::*;
    use crate::cpu::weight::{PackedRows, Weight, WeightValues};

    /// `[n, o]` with the instruction set at hand, and with narrower ones.
    fn of_every_width<F: WordFormat, const EACH: usize>(
        rows: &FewRows,
        weight: &[u8],
        factors: &[f32],
        outputs: usize,
    ) -> Vec<Vec<f32>> {
        let run = |work: &dyn Fn(Task)| {
            let mut out = vec![0f32; rows.n * outputs];
            work(Task {
                rows,
                weight,
                factors,
                of_group: 1,
                out: &mut out,
            });
            out
        };
        vec![
            run(&|task| Arch::new().dispatch(Blocked::<F, EACH, 2, 4>(task, PhantomData))),
            run(&|task| Blocked::<F, EACH, 2, 4>(task, PhantomData).with_simd(pulp::Scalar::new())),
            run(&|task| {
                let task = Blocked::<F, EACH, 2, 4>(task, PhantomData);
                #[cfg(target_arch = "x86_64")]
                if let Some(simd) = pulp::x86::V3::try_new() {
                    return Simd::vectorize(simd, task);
                }
                Arch::new().dispatch(task);
            }),
        ]
    }

    #[test]
    fn registers_of_every_width_give_the_same() {
        const CHUNKS: usize = 3;
        let (n, outputs) = (3, 5);
        let words: Vec<u32> = (0..outputs * CHUNKS * LANES)
            .map(|i| (i as u32).wrapping_mul(0x9E37_79B9))
            .collect();
        let factors: Vec<f32> = (0..outputs * CHUNKS * 2 * LANES)
            .map(|i| (i % 13) as f32 / 13.0)
            .collect();
        let x: Vec<f32> = (0..n * CHUNKS * LANES * 8)
            .map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0)
            .collect();
        let zeros = vec![0i32; outputs * CHUNKS];
        let scales = vec![0f32; outputs * CHUNKS];
        let scales = Weight {
            values: WeightValues::F32(&scales),
            inputs: CHUNKS,
        };
        let inputs = CHUNKS * LANES * 8;
        let weight = Weight {
            values: WeightValues::Packed(PackedRows {
                words: bytemuck::cast_slice(&words),
                zeros: &zeros,
                scales: &scales,
                bits: 4,
                group: LANES * 8,
                inputs,
            }),
            inputs,
        };
        let rows = FewRows::new(&x, &weight);
        let bytes = bytemuck::cast_slice(&words);
        let whole = &factors[..outputs * CHUNKS * 2];
        for products in [
            of_every_width::<PackedBits<4>, 1>(&rows, bytes, whole, outputs),
            of_every_width::<PackedBits<4>, LANES>(&rows, bytes, &factors, outputs),
        ] {
            for (wide, narrow) in products.iter().zip(&products[1..]) {
                for (a, b) in wide.iter().zip(narrow) {
                    assert!((a - b).abs() <= 1e-5 * a.abs() + 1e-3, "{a} {b}");
                }
            }
        }
    }
}
