//! The ops that a back end provides.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, backend_extension};

use crate::reference;

/// The ops of a RoPE transformer whose attention is given as bands; shapes are in the crate's docs.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub trait Ops: Backend {
    /// Rotates `x` `[b, h, n, d]` by the tables `cos`, `sin` `[n, d/2]`.
    fn rotary(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        reference::rotary::<Self>(x, cos, sin)
    }

    /// Softmax attention of `q` `[b, h, n, d]` over the keys that `keys` `[n, 2]` names for each
    /// query: first and past-the-last index, neither of which decreases from one query to the next.
    /// `k` and `v` are `[b, h, m, d]`, logits are `q k / sqrt(d)`.
    ///
    /// Returns the output `[b, h, n, d]` and the log-sum-exp of the logits `[b, h, n]`; a query
    /// without keys gives zeros and minus infinity.
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        keys: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        reference::attention::<Self>(q, k, v, keys)
    }

    /// [`attention`](Ops::attention) after rotating `q` `[b, h, n, d]` by `q_cos`, `q_sin`
    /// `[n, d/2]` and `k` `[b, h, m, d]` by `k_cos`, `k_sin` `[m, d/2]`. Keys and values may be of
    /// a narrower type than the queries.
    #[allow(clippy::too_many_arguments)]
    fn rotary_attention(
        q: FloatTensor<Self>,
        q_cos: FloatTensor<Self>,
        q_sin: FloatTensor<Self>,
        k: FloatTensor<Self>,
        k_cos: FloatTensor<Self>,
        k_sin: FloatTensor<Self>,
        v: FloatTensor<Self>,
        keys: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let k = reference::like::<Self>(k, q.dtype());
        let v = reference::like::<Self>(v, q.dtype());
        let q = Self::rotary(q, q_cos, q_sin);
        <Self as Ops>::attention(q, Self::rotary(k, k_cos, k_sin), v, keys)
    }

    /// [`rotary_attention`](Ops::rotary_attention) over 8-bit keys and values: whole numbers from 0
    /// to 255, as i32 `[b, h, m, d/4]`, four in a word, the first in the lowest bits; and a slope
    /// and an offset for each row, `k_line` and `v_line` `[b, h, m, 2]`. No gradients.
    #[allow(clippy::too_many_arguments)]
    fn rotary_attention_8bit(
        q: FloatTensor<Self>,
        q_cos: FloatTensor<Self>,
        q_sin: FloatTensor<Self>,
        k: IntTensor<Self>,
        k_line: FloatTensor<Self>,
        k_cos: FloatTensor<Self>,
        k_sin: FloatTensor<Self>,
        v: IntTensor<Self>,
        v_line: FloatTensor<Self>,
        keys: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let k = reference::from_8bit::<Self>(k, k_line);
        let v = reference::from_8bit::<Self>(v, v_line);
        Self::rotary_attention(q, q_cos, q_sin, k, k_cos, k_sin, v, keys)
    }

    /// Gradients of [`attention`](Ops::attention) with respect to `q`, `k` and `v`, from its
    /// results and the gradients of both: `d_output` `[b, h, n, d]`, `d_lse` `[b, h, n]` (arXiv
    /// 2205.14135, appendix B).
    #[allow(clippy::too_many_arguments)]
    fn attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        keys: IntTensor<Self>,
        lse: FloatTensor<Self>,
        output: FloatTensor<Self>,
        d_output: FloatTensor<Self>,
        d_lse: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        reference::attention_backward::<Self>(q, k, v, keys, lse, output, d_output, d_lse)
    }

    /// Attention over the union of two disjoint sets of keys, from the outputs `[b, h, n, d]` and
    /// log-sum-exps `[b, h, n]` over each.
    fn merge(
        a: FloatTensor<Self>,
        a_lse: FloatTensor<Self>,
        b: FloatTensor<Self>,
        b_lse: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        reference::merge::<Self>(a, a_lse, b, b_lse)
    }

    /// Rows of `x` `[n, c]` divided by their root mean square, times `weight` `[c]` (arXiv
    /// 1910.07467).
    fn rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        reference::rms_norm::<Self>(x, weight, epsilon)
    }

    /// Gradients of [`rms_norm`](Ops::rms_norm) with respect to `x` and `weight`.
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f64,
        d_output: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        reference::rms_norm_backward::<Self>(x, weight, epsilon, d_output)
    }

    /// `up * gate * sigmoid(gate)`, all `[n, c]` (arXiv 2002.05202).
    fn swiglu(up: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        reference::swiglu::<Self>(up, gate)
    }

    /// Gradients of [`swiglu`](Ops::swiglu) with respect to `up` and `gate`.
    fn swiglu_backward(
        up: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        d_output: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        reference::swiglu_backward::<Self>(up, gate, d_output)
    }

    /// `x weightᵀ`: `[n, i]`, `[o, i]` to `[n, o]`. The weight may be of a narrower type than `x`;
    /// arithmetic is in the type of `x`.
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        reference::linear::<Self>(x, weight)
    }

    /// `to + x weightᵀ`, with `to` `[n, o]`, or `[1, o]` for all rows; in the type of `x`.
    fn linear_add(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        to: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let to = reference::like::<Self>(to, x.dtype());
        Self::float_add(<Self as Ops>::linear(x, weight), to)
    }

    /// [`swiglu`](Ops::swiglu) of the products of `x` with two weights `[o, i]`.
    fn gated_linear(
        x: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gate: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let up = <Self as Ops>::linear(x.clone(), up);
        Self::swiglu(up, <Self as Ops>::linear(x, gate))
    }

    /// Gradients of [`linear`](Ops::linear) with respect to `x` and `weight`.
    fn linear_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        d_output: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        reference::linear_backward::<Self>(x, weight, d_output)
    }

    /// [`linear`](Ops::linear) with the matrix of a [`PackedWeight`]: `x` `[n, i]` in the order of
    /// its columns, `words` `[o, i * bits / 32]`, `zeros` `[o, groups * bits / 32]`, `scales`
    /// `[o, groups]`; returns `[n, o]`.
    fn packed_linear(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        zeros: IntTensor<Self>,
        scales: FloatTensor<Self>,
        bits: usize,
        group: usize,
    ) -> FloatTensor<Self> {
        reference::packed_linear::<Self>(x, words, zeros, scales, bits, group)
    }

    /// Negative log likelihood in nats `[n]` of `targets` `[n]` under the logits `hidden headᵀ`,
    /// with `hidden` `[n, c]` and `head` `[v, c]`; the `n` by `v` logits are never held at once.
    fn token_loss(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        reference::token_loss::<Self>(hidden, head, targets)
    }

    /// Gradients of [`token_loss`](Ops::token_loss) with respect to `hidden` and `head`, from that
    /// of the losses `[n]`; the logits are computed again, in blocks.
    fn token_loss_backward(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        d_loss: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        reference::token_loss_backward::<Self>(hidden, head, targets, d_loss)
    }
}
