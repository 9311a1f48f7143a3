//! A layer of the transformer: attention and a gated feed-forward layer, each after an RMSNorm.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use longspan_kernels::ops;

use crate::linear::Linear;
use crate::source::{Parameters, Source};
use crate::tensors::Role;
use crate::{Architecture, ModelError};

/// Rows that go through the feed-forward layer together. Its intermediate values are several times
/// as wide as the residual stream; for a whole context they would dominate memory.
pub(crate) const MLP_ROWS: usize = 2048;

#[derive(Module, Debug)]
pub(crate) struct Block {
    attention_norm: Param<Tensor<1>>,
    /// Rows of q, then k, then v.
    qkv: Linear,
    qkv_bias: Option<Param<Tensor<1>>>,
    output: Linear,
    mlp_norm: Param<Tensor<1>>,
    up: Linear,
    gate: Linear,
    down: Linear,
}

impl Block {
    pub fn assemble<S: Source>(from: &mut Parameters<S>) -> Result<Self, ModelError> {
        Ok(Block {
            attention_norm: from.next(Role::AttentionNorm)?,
            qkv: from.linear(Role::Qkv)?,
            qkv_bias: from.optional(Role::QkvBias)?,
            output: from.linear(Role::Output)?,
            mlp_norm: from.next(Role::MlpNorm)?,
            up: from.linear(Role::Up)?,
            gate: from.linear(Role::Gate)?,
            down: from.linear(Role::Down)?,
        })
    }

    /// Hidden states `[b * n, hidden_size]` after the layer; `attend` is given un-rotated `q`, `k`
    /// and `v` `[b, h, n, d]`.
    pub fn forward(
        &self,
        hidden: Tensor<2>,
        n: usize,
        config: &Architecture,
        attend: impl FnOnce(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>,
    ) -> Tensor<2> {
        let hidden = self.attention(hidden, n, config, attend);
        self.mlp(hidden, config)
    }

    /// Adds attention to `[b * n, hidden_size]`.
    fn attention(
        &self,
        hidden: Tensor<2>,
        n: usize,
        config: &Architecture,
        attend: impl FnOnce(Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>,
    ) -> Tensor<2> {
        let [rows, width] = hidden.dims();
        let (b, h, d) = (rows / n, config.heads, config.head_dim);
        let x = ops::rms_norm(hidden.clone(), self.attention_norm.val(), config.epsilon);
        let qkv = match &self.qkv_bias {
            Some(bias) => self.qkv.add(x, bias.val().unsqueeze()),
            None => self.qkv.forward(x),
        };
        // Views of one buffer: each row holds q, k and v, one after the other.
        let qkv = qkv.reshape([b, n, 3 * h, d]);
        let part = |i: usize| qkv.clone().narrow(2, i * h, h).swap_dims(1, 2);
        let output = attend(part(0), part(1), part(2));
        drop(qkv);
        let output = output.swap_dims(1, 2).reshape([rows, width]);
        self.output.add(output, hidden)
    }

    /// Adds the feed-forward layer to `[n, hidden_size]`, in blocks of rows.
    fn mlp(&self, hidden: Tensor<2>, config: &Architecture) -> Tensor<2> {
        let [n, width] = hidden.dims();
        if n <= MLP_ROWS {
            return self.mlp_rows(hidden, config);
        }
        let blocks = (0..n).step_by(MLP_ROWS).map(|start| {
            let rows = start..(start + MLP_ROWS).min(n);
            self.mlp_rows(hidden.clone().slice([rows, 0..width]), config)
        });
        Tensor::cat(blocks.collect(), 0)
    }

    fn mlp_rows(&self, hidden: Tensor<2>, config: &Architecture) -> Tensor<2> {
        let x = ops::rms_norm(hidden.clone(), self.mlp_norm.val(), config.epsilon);
        let gated = Linear::gated(&self.up, &self.gate, x);
        self.down.add(gated, hidden)
    }
}
