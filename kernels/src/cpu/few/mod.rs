//! Products of a few rows with a weight, as decoding has them: bound by how fast the weight can be read.
//!
//! Every value of the weight is read once and widened in registers, where it meets all rows; nothing is widened to a
//! buffer. Whatever its type, a weight is read as words of 32 bits, [`LANES`] at a time: a number, two halves, or four or
//! eight packed ones. The rows are arranged beforehand so that values from one place of neighbouring words find their
//! inputs side by side.

mod blocked;
mod held;

use std::marker::PhantomData;
use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use pulp::Arch;
use pulp::bytemuck::{self, Pod};
use rayon::prelude::*;

use self::blocked::{Blocked, Task};
use self::held::{Bf16, F16, F32, Held, Packing};
use super::packed::Packed;
use super::{Output, Weight, WeightValues};

/// Rows of activations that are few: the CPU adds their products up in another order than those of more.
pub const FEW: usize = 16;
/// Rows that meet a value of the weight together, where there is more than one.
const TOGETHER: usize = 4;
/// Outputs of a task.
const OUTPUTS: usize = 32;
/// Words of a chunk: the most that a register holds.
const LANES: usize = 16;

/// Bytes of a chunk.
const CHUNK: usize = 4 * LANES;

// Of two halves in a word the first is the lower one.
const _: () = assert!(cfg!(target_endian = "little"), "words are read as they lie");

/// A value of each word of a chunk.
type Lanes = [f32; LANES];

/// A few rows, arranged for the words of a weight.
pub struct Rows {
    /// Of each row the chunks, and of each chunk a vector for every place in a word, divided by [`Held::times`].
    x: Vec<Lanes>,
    /// Of each row and chunk the sum of its vectors, before that division.
    sums: Vec<Lanes>,
    n: usize,
    chunks: usize,
}

impl Rows {
    /// Rows `x` `[n, i]` for a weight of as many inputs.
    pub fn new(x: &[f32], weight: &Weight) -> Self {
        match &weight.values {
            WeightValues::F32(_) => Self::of::<F32>(x, weight),
            WeightValues::Bf16(_) => Self::of::<Bf16>(x, weight),
            WeightValues::F16(_) => Self::of::<F16>(x, weight),
            WeightValues::Packed(packed) if widened(packed) => Self::of::<F32>(x, weight),
            WeightValues::Packed(packed) if packed.bits == 4 => Self::of::<Packing<4>>(x, weight),
            WeightValues::Packed(_) => Self::of::<Packing<8>>(x, weight),
        }
    }

    fn of<H: Held>(x: &[f32], weight: &Weight) -> Self {
        let values = H::VALUES;
        let n = x.len() / weight.inputs;
        let chunks = weight.inputs.div_ceil(values * LANES);
        // Rows of zeros fill up the last ones that are taken together.
        let padded = if n == 1 {
            1
        } else {
            n.next_multiple_of(TOGETHER)
        };
        let mut arranged = vec![[0f32; LANES]; padded * chunks * values];
        let rows = arranged.chunks_exact_mut(chunks * values);
        for (row, x) in rows.zip(x.chunks_exact(weight.inputs)) {
            for (chunk, x) in row.chunks_exact_mut(values).zip(x.chunks(values * LANES)) {
                for (lane, word) in x.chunks(values).enumerate() {
                    for (vector, &x) in chunk.iter_mut().zip(word) {
                        vector[lane] = x;
                    }
                }
            }
        }
        let sums = arranged.chunks_exact_mut(values).map(|vectors| {
            let mut sum = [0f32; LANES];
            for (k, vector) in vectors.iter_mut().enumerate() {
                let share = 1.0 / H::times(k);
                for (sum, x) in sum.iter_mut().zip(vector) {
                    *sum += *x;
                    *x *= share;
                }
            }
            sum
        });
        Rows {
            sums: sums.collect(),
            x: arranged,
            n,
            chunks,
        }
    }

    /// Products `[n, o]`.
    pub fn product(&self, weight: &Weight) -> Vec<f32> {
        let outputs = weight.outputs();
        let mut out = vec![0f32; self.n * outputs];
        if self.n == 0 {
            return out;
        }
        let target = Output(out.as_mut_ptr());
        let tasks = (0..outputs.div_ceil(OUTPUTS)).into_par_iter();
        tasks.for_each(|task| {
            let start = task * OUTPUTS;
            let block = start..(start + OUTPUTS).min(outputs);
            let len = block.len();
            let mut products = [0f32; FEW * OUTPUTS];
            let products = &mut products[..self.n * len];
            self.product_of(weight, block, products);
            for (row, products) in products.chunks_exact(len).enumerate() {
                let out = target.at(row * outputs + start);
                // SAFETY: this task alone writes these columns of `out`.
                unsafe { std::ptr::copy_nonoverlapping(products.as_ptr(), out, len) };
            }
        });
        out
    }

    /// Products with a block of outputs, `[n, block]`.
    pub fn product_of(&self, weight: &Weight, block: Range<usize>, out: &mut [f32]) {
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
                self.packed::<Packing<4>>(packed, block, out);
            }
            WeightValues::Packed(packed) => self.packed::<Packing<8>>(packed, block, out),
        }
    }

    fn dense<H: Held, T: Pod>(&self, values: &[T], out: &mut [f32]) {
        self.dispatch::<H, 1>(bytemuck::cast_slice(values), &[], self.chunks, out);
    }

    fn packed<H: Held>(&self, packed: &Packed, block: Range<usize>, out: &mut [f32]) {
        let width = packed.width();
        let words = &packed.words[block.start * width..block.end * width];
        let words = bytemuck::cast_slice(words);
        let (mut scales, mut zeros) = (Vec::new(), Vec::new());
        let scales = packed.scales.rows(block.clone(), &mut scales);
        let zeros = packed.zeros(block.clone(), &mut zeros);
        let scales = scales.chunks_exact(scales.len() / block.len());
        let of_rows = scales.zip(zeros.chunks_exact(zeros.len() / block.len()));

        let group = packed.group.min(packed.inputs) / H::VALUES;
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
            return self.dispatch::<H, 1>(words, factors, of_group, out);
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
        self.dispatch::<H, LANES>(words, &factors, 1, out);
    }

    /// Products with the rows of a weight, whose groups have `of_group` chunks, but for the last, and factors as
    /// [`Task`] says.
    fn dispatch<H: Held, const EACH: usize>(
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
            assert!(found < width && found + CHUNK > width, "other rows");
            padded.resize(outputs * width, 0);
            for (padded, row) in padded
                .chunks_exact_mut(width)
                .zip(weight.chunks_exact(found))
            {
                padded[..found].copy_from_slice(row);
            }
        }
        let groups = self.chunks.div_ceil(of_group);
        let wanted = outputs * groups * 2 * EACH;
        assert_eq!(factors.len(), if H::PACKED { wanted } else { 0 }, "factors");
        let task = Task {
            rows: self,
            weight: if padded.is_empty() { weight } else { &padded },
            factors,
            of_group,
            out,
        };
        match self.n {
            1 => Arch::new().dispatch(Blocked::<H, EACH, 4, 1>(task, PhantomData)),
            _ => Arch::new().dispatch(Blocked::<H, EACH, 2, TOGETHER>(task, PhantomData)),
        }
    }
}

/// Whether a packed weight has groups that begin or end within a word; its rows are widened to a buffer then.
fn widened(packed: &Packed) -> bool {
    packed.group < packed.inputs && !packed.group.is_multiple_of(32 / packed.bits)
}
