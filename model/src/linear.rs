//! A linear layer: its matrix as a tensor, or packed.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use longspan_kernels::{PackedWeight, ops};

/// A matrix `[outputs, inputs]`.
#[derive(Module, Debug)]
pub(crate) enum Linear {
    /// As a tensor; can be trained.
    Dense(Param<Tensor<2>>),
    /// As GPTQ packs it.
    Packed(PackedLinear),
}

/// A packed matrix and what is added to its products.
#[derive(Module, Debug)]
pub(crate) struct PackedLinear {
    #[module(skip)]
    pub weight: PackedWeight,
    /// `[outputs]`; `None` where it is zero.
    #[module(skip)]
    pub bias: Option<Tensor<1>>,
}

impl Linear {
    /// `x` `[n, inputs]` to `[n, outputs]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Linear::Dense(weight) => ops::linear(x, weight.val()),
            Linear::Packed(PackedLinear { weight, bias }) => {
                let product = ops::packed_linear(x, weight);
                match bias {
                    Some(bias) => product + bias.clone().unsqueeze(),
                    None => product,
                }
            }
        }
    }
}
