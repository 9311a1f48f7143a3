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

    /// `to + x matrixᵀ`: `x` `[n, inputs]`, `to` `[n, outputs]`, or `[1, outputs]` for all rows.
    pub fn add(&self, x: Tensor<2>, to: Tensor<2>) -> Tensor<2> {
        match self {
            Linear::Dense(weight) => ops::linear_add(x, weight.val(), to),
            Linear::Packed(packed) => plus(packed.forward(x), to),
        }
    }

    /// SwiGLU of the products with two matrices: `[n, inputs]` to `[n, outputs]`.
    pub fn gated(up: &Linear, gate: &Linear, x: Tensor<2>) -> Tensor<2> {
        match (up, gate) {
            (Linear::Dense(up), Linear::Dense(gate)) => ops::gated_linear(x, up.val(), gate.val()),
            _ => ops::swiglu(up.forward(x.clone()), gate.forward(x)),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Linear::Dense(weight) => ops::linear(x, weight.val()),
            Linear::Packed(packed) => packed.forward(x),
        }
    }
}

impl PackedLinear {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let product = ops::packed_linear(x, &self.parts.weight);
        match &self.parts.bias {
            Some(bias) => plus(product, bias.clone().unsqueeze()),
            None => product,
        }
    }
}

/// A sum in the type of `x`.
fn plus(x: Tensor<2>, other: Tensor<2>) -> Tensor<2> {
    let dtype = x.dtype();
    x + other.cast(dtype)
}
