//! A linear layer with a dense or a quantised matrix.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use longspan_kernels::{PackedWeight, ops};

/// A matrix `[outputs, inputs]`.
#[derive(Module, Debug)]
pub(crate) enum Linear {
    /// A tensor, which can be trained.
    Dense(Param<Tensor<2>>),
    /// Packed by GPTQ.
    Quantized(QuantizedLinear),
}

/// Holds no parameter, since packed values cannot be trained.
#[derive(Module, Debug)]
pub(crate) struct QuantizedLinear {
    #[module(skip)]
    matrix: Arc<QuantizedMatrix>,
}

/// A packed matrix with the bias that GPTQ gives it.
#[derive(Debug)]
pub(crate) struct QuantizedMatrix {
    pub weight: PackedWeight,
    /// `[outputs]`; `None` if it is zero.
    pub bias: Option<Tensor<1>>,
}

impl Linear {
    pub fn quantized(matrix: QuantizedMatrix) -> Self {
        let matrix = Arc::new(matrix);
        Linear::Quantized(QuantizedLinear { matrix })
    }

    /// `to + x matrixᵀ`, with `x` `[n, inputs]` and `to` `[n, outputs]` or `[1, outputs]`.
    pub fn add(&self, x: Tensor<2>, to: Tensor<2>) -> Tensor<2> {
        match self {
            Linear::Dense(weight) => ops::linear_add(x, weight.val(), to),
            Linear::Quantized(quantized) => plus(quantized.forward(x), to),
        }
    }

    /// SwiGLU: `up(x) * silu(gate(x))`, from `[n, inputs]` to `[n, outputs]`.
    pub fn gated(up: &Linear, gate: &Linear, x: Tensor<2>) -> Tensor<2> {
        match (up, gate) {
            (Linear::Dense(up), Linear::Dense(gate)) => ops::gated_linear(x, up.val(), gate.val()),
            _ => ops::swiglu(up.forward(x.clone()), gate.forward(x)),
        }
    }

    /// `x matrixᵀ`: `[n, inputs]` to `[n, outputs]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Linear::Dense(weight) => ops::linear(x, weight.val()),
            Linear::Quantized(quantized) => quantized.forward(x),
        }
    }
}

impl QuantizedLinear {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let product = ops::packed_linear(x, &self.matrix.weight);
        match &self.matrix.bias {
            Some(bias) => plus(product, bias.clone().unsqueeze()),
            None => product,
        }
    }
}

/// The sum, in the type of `x`.
fn plus(x: Tensor<2>, other: Tensor<2>) -> Tensor<2> {
    let dtype = x.dtype();
    x + other.cast(dtype)
}
