//! A few rows of activations, arranged for the words of a weight.

use super::words::{Bf16, F16, F32, PackedBits, WordFormat};
use crate::cpu::weight::{PackedRows, Weight, WeightValues};

/// Words of a chunk: the most that a register holds.
pub const LANES: usize = 16;
/// Bytes of a chunk.
pub const CHUNK: usize = 4 * LANES;
/// Rows that meet a value of the weight together, where there is more than one row.
pub const TOGETHER: usize = 4;

// The first of two halves of a word is the lower one.
const _: () = assert!(
    cfg!(target_endian = "little"),
    "words are read as they lie in memory"
);

/// A value of each word of a chunk.
pub type Lanes = [f32; LANES];

/// A few rows, arranged for the words of a weight. Rows of zeros fill them up to a multiple of
/// [`TOGETHER`], unless there is one.
pub struct FewRows {
    /// For each row, chunk and place in a word a vector, divided by [`WordFormat::factor`].
    pub x: Vec<Lanes>,
    /// For each row and chunk the sum of its vectors, before that division.
    pub sums: Vec<Lanes>,
    /// Rows, without those of zeros.
    pub n: usize,
    /// Chunks of a row.
    pub chunks: usize,
}

impl FewRows {
    /// Rows `x` `[n, i]` for a weight of `i` inputs.
    pub fn new(x: &[f32], weight: &Weight) -> Self {
        match &weight.values {
            WeightValues::F32(_) => Self::of::<F32>(x, weight),
            WeightValues::Bf16(_) => Self::of::<Bf16>(x, weight),
            WeightValues::F16(_) => Self::of::<F16>(x, weight),
            WeightValues::Packed(packed) if widened(packed) => Self::of::<F32>(x, weight),
            WeightValues::Packed(packed) if packed.bits == 4 => {
                Self::of::<PackedBits<4>>(x, weight)
            }
            WeightValues::Packed(_) => Self::of::<PackedBits<8>>(x, weight),
        }
    }

    fn of<F: WordFormat>(x: &[f32], weight: &Weight) -> Self {
        let values = F::VALUES;
        let n = x.len() / weight.inputs;
        let chunks = weight.inputs.div_ceil(values * LANES);
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
                let share = 1.0 / F::factor(k);
                for (sum, x) in sum.iter_mut().zip(vector) {
                    *sum += *x;
                    *x *= share;
                }
            }
            sum
        });
        FewRows {
            sums: sums.collect(),
            x: arranged,
            n,
            chunks,
        }
    }
}

/// True if a packed weight has groups that begin or end within a word; its rows are widened to a
/// buffer then.
pub fn widened(packed: &PackedRows) -> bool {
    packed.group < packed.inputs && !packed.group.is_multiple_of(32 / packed.bits)
}
