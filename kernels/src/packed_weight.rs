//! Matrices packed in 4 or 8 bits a value.

use burn::tensor::{Int, Tensor};

/// A matrix `[o, i]` of whole numbers of 4 or 8 bits, `group` of which along the inputs share a
/// scale and a zero, as in GPTQ (arXiv 2210.17323): its values are `(q - zero) * scale`.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    /// `q` as i32 `[o, i * bits / 32]`: a row's values side by side, the first in the lowest bits.
    pub words: Tensor<2, Int>,
    /// Zeros as i32 `[o, groups * bits / 32]`, rounded up to whole words and packed in the same
    /// way.
    pub zeros: Tensor<2, Int>,
    /// Scales `[o, groups]`, finite; f32 or f16.
    pub scales: Tensor<2>,
    /// Bits of a value: 4 or 8.
    pub bits: usize,
    /// Inputs of a group; the last one may have fewer.
    pub group: usize,
    /// The input that each column belongs to, as i32 `[i]`; `None` where they are in order.
    pub order: Option<Tensor<1, Int>>,
}

impl PackedWeight {
    /// Outputs and inputs.
    pub fn dims(&self) -> [usize; 2] {
        let [outputs, words] = self.words.dims();
        [outputs, words * 32 / self.bits]
    }
}
