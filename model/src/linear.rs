//! A linear layer: its matrix as a tensor, or packed.

use std::sync::Arc;

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

/// A packed matrix; no parameter, since it cannot be trained.
#[derive(Module, Debug)]
pub(crate) struct PackedLinear {
    #[module(skip)]
    parts: Arc<Packed>,
}

/// A packed matrix and what is added to its products.
#[derive(Debug)]
pub(crate) struct Packed {
    pub weight: PackedWeight,
    /// `[outputs]`; `None` where it is zero.
    pub bias: Option<Tensor<1>>,
}

impl Linear {
    pub fn packed(parts: Packed) -> Self {
        let parts = Arc::new(parts);
        Linear::Packed(PackedLinear { parts })
    }

    /// `x` `[n, inputs]` to `[n, outputs]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Linear::Dense(weight) => ops::linear(x, weight.val()),
            Linear::Packed(packed) => {
                let product = ops::packed_linear(x, &packed.parts.weight);
                match &packed.parts.bias {
                    Some(bias) => product + bias.clone().unsqueeze(),
                    None => product,
                }
            }
        }
    }
}
