//! Products of a few rows with a weight, as in decoding: bound by the rate at which the weight is
//! read.
//!
//! Every value of the weight is read once and widened in registers, where it meets all rows. A
//! weight of any type is read as words of 32 bits, [`LANES`] at a time: one number, two halves, or
//! four or eight packed numbers each. The rows are arranged beforehand ([`arranged`]) so that the
//! inputs of one place in neighbouring words lie side by side.

mod arranged;
mod blocked;
mod words;

use std::marker::PhantomData;
use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use pulp::Arch;
use pulp::bytemuck::{self, Pod};
use rayon::prelude::*;

pub use arranged::FewRows;

use self::arranged::{CHUNK, LANES, TOGETHER, widened};
use self::blocked::{Blocked, Task};
use self::words::{Bf16, F16, F32, PackedBits, WordFormat};
use super::output::OutputBlock;
use super::weight::{PackedRows, Weight, WeightValues};

/// Rows of activations up to which the CPU multiplies them as decoding does; their products are
/// summed in another order than those of more rows.
pub const FEW_ROWS: usize = 16;
/// Outputs of a task.
const OUTPUTS: usize = 32;

impl FewRows {
    /// Products `[n, o]`.
    pub fn product(&self, weight: &Weight) -> Vec<f32> {
        let outputs = weight.outputs();
        let mut out = vec![0f32; self.n * outputs];
        if self.n == 0 {
            return out;
        }
        let grid = OutputBlock::new(&mut out, outputs).grid([self.n, OUTPUTS]);
        (0..grid.blocks()[1]).into_par_iter().for_each(|task| {
            let [_, block] = grid.ranges([0, task]);
            let len = block.len();
            let mut products = [0f32; FEW_ROWS * OUTPUTS];
            let products = &mut products[..self.n * len];
            self.product_of(weight, block, products);
            let mut out = grid.take([0, task]);
            for (row, products) in products.chunks_exact(len).enumerate() {
                out.row(row).copy_from_slice(products);
            }
        });
        out
    }

    /// Products with a block of outputs, `[n, block]`.
    fn product_of(&self, weight: &Weight, block: Range<usize>, out: &mut [f32]) {
        let range = block.start * weight.inputs..block.end * weight.inputs;
        match &weight.values {
            WeightValues::F32(values) => self.dense::<F32, _>(&values[range], out),
            WeightValues::Bf16(values) => {
                self.dense::<Bf16, _>(values[range].reinterpret_cast(), out);
            }
            WeightValues::F16(values) => {
                self.dense::<F16, _>(values[range].reinterpret_cast(), out);
            }
            WeightValues::Packed(packed) if widened(packed) => {
                self.dense::<F32, _>(packed.rows(block, &mut Vec::new()), out);
            }
            WeightValues::Packed(packed) if packed.bits == 4 => {
                self.packed::<PackedBits<4>>(packed, block, out);
            }
            WeightValues::Packed(packed) => self.packed::<PackedBits<8>>(packed, block, out),
        }
    }

    fn dense<F: WordFormat, T: Pod>(&self, values: &[T], out: &mut [f32]) {
        self.dispatch::<F, 1>(bytemuck::cast_slice(values), &[], self.chunks, out);
    }

    fn packed<F: WordFormat>(&self, packed: &PackedRows, block: Range<usize>, out: &mut [f32]) {
        let width = packed.width();
        let words = &packed.words[block.start * width..block.end * width];
        let words = bytemuck::cast_slice(words);
        let (mut scales, mut zeros) = (Vec::new(), Vec::new());
        let scales = packed.scales.rows(block.clone(), &mut scales);
        let zeros = packed.zeros(block.clone(), &mut zeros);
        let scales = scales.chunks_exact(scales.len() / block.len());
        let of_rows = scales.zip(zeros.chunks_exact(zeros.len() / block.len()));

        let group = packed.group.min(packed.inputs) / F::VALUES;
        if group.is_multiple_of(LANES) || packed.group >= packed.inputs {
            let of_group = group.div_ceil(LANES);
            let width = packed.scales.inputs;
            let mut factors = vec![[0f32; 2]; block.len() * width];
            for (row, (scales, zeros)) in factors.chunks_exact_mut(width).zip(of_rows) {
                for (factors, (&s, &z)) in row.iter_mut().zip(scales.iter().zip(zeros)) {
                    *factors = [s, z];
                }
            }
            let factors = factors.as_flattened();
            return self.dispatch::<F, 1>(words, factors, of_group, out);
        }
        let width = 2 * LANES * self.chunks;
        let mut factors = vec![0f32; block.len() * width];
        for (row, (scales, zeros)) in factors.chunks_exact_mut(width).zip(of_rows) {
            for (g, (&s, &z)) in scales.iter().zip(zeros).enumerate() {
                for word in g * group..((g + 1) * group).min(packed.width()) {
                    let lane = word / LANES * 2 * LANES + word % LANES;
                    (row[lane], row[lane + LANES]) = (s, z);
                }
            }
        }
        self.dispatch::<F, LANES>(words, &factors, 1, out);
    }

    /// Products with the rows of a weight, whose groups have `of_group` chunks (the last may have
    /// fewer), with factors as in [`Task`].
    fn dispatch<F: WordFormat, const EACH: usize>(
        &self,
        weight: &[u8],
        factors: &[f32],
        of_group: usize,
        out: &mut [f32],
    ) {
        let outputs = out.len() / self.n;
        let width = self.chunks * CHUNK;
        let found = weight.len() / outputs;
        let mut padded = Vec::new();
        if found != width {
            assert!(
                found < width && found + CHUNK > width,
                "rows of {found} bytes, not {width}"
            );
            padded.resize(outputs * width, 0);
            for (padded, row) in padded
                .chunks_exact_mut(width)
                .zip(weight.chunks_exact(found))
            {
                padded[..found].copy_from_slice(row);
            }
        }
        let task = Task {
            rows: self,
            weight: if padded.is_empty() { weight } else { &padded },
            factors,
            of_group,
            out,
        };
        match self.n {
            1 => Arch::new().dispatch(Blocked::<F, EACH, 4, 1>(task, PhantomData)),
            _ => Arch::new().dispatch(Blocked::<F, EACH, 2, TOGETHER>(task, PhantomData)),
        }
    }
}
