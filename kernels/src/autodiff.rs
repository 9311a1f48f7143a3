//! The ops under automatic differentiation: forward on the inner back end, with a backward pass of
//! each op's own, so that no `n` by `m` logits are kept.
//!
//! [`Ops::merge`] has none: burn differentiates its slow twin. Tables, key ranges and targets are
//! constants. Training is f32.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops as Step, OpsKind, unary};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, TensorMetadata};

use crate::backend::Ops;

impl<B: Backend + Ops, C: CheckpointStrategy> Ops for Autodiff<B, C> {
    fn rotary(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        let (x, node) = x.into_parts();
        let output = <B as Ops>::rotary(x, cos.clone(), sin.clone());
        match Rotary.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(step) => step.finish((cos, sin), output),
            OpsKind::UnTracked(step) => step.finish(output),
        }
    }

    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        keys: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = || [q.node(), k.node(), v.node()];
        let (for_output, for_lse) = (nodes(), nodes());
        let (q, k, v) = (q.into_primitive(), k.into_primitive(), v.into_primitive());
        let (output, lse) = <B as Ops>::attention(q.clone(), k.clone(), v.clone(), keys.clone());
        let saved = SavedAttention::<B> {
            q,
            k,
            v,
            keys,
            output: output.clone(),
            lse: lse.clone(),
        };
        // Two nodes, since a node has one output. The one of the log-sum-exp costs nothing unless
        // bands are merged.
        let prepared = AttentionOutput.prepare::<C>(for_output).compute_bound();
        let output = match prepared.stateful() {
            OpsKind::Tracked(step) => step.finish(saved.clone(), output),
            OpsKind::UnTracked(step) => step.finish(output),
        };
        let prepared = AttentionLse.prepare::<C>(for_lse).compute_bound();
        let lse = match prepared.stateful() {
            OpsKind::Tracked(step) => step.finish(saved, lse),
            OpsKind::UnTracked(step) => step.finish(lse),
        };
        (output, lse)
    }

    fn rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let output = <B as Ops>::rms_norm(x.clone(), weight.clone(), epsilon);
        let prepared = RmsNorm.prepare::<C>([x_node, weight_node]).compute_bound();
        match prepared.stateful() {
            OpsKind::Tracked(step) => step.finish((x, weight, epsilon), output),
            OpsKind::UnTracked(step) => step.finish(output),
        }
    }

    fn swiglu(up: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        let (up, up_node) = up.into_parts();
        let (gate, gate_node) = gate.into_parts();
        let output = <B as Ops>::swiglu(up.clone(), gate.clone());
        let prepared = SwiGlu.prepare::<C>([up_node, gate_node]).compute_bound();
        match prepared.stateful() {
            OpsKind::Tracked(step) => step.finish((up, gate), output),
            OpsKind::UnTracked(step) => step.finish(output),
        }
    }

    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (weight, weight_node) = weight.into_parts();
        let output = <B as Ops>::linear(x.clone(), weight.clone());
        let prepared = Linear.prepare::<C>([x_node, weight_node]).compute_bound();
        match prepared.stateful() {
            OpsKind::Tracked(step) => step.finish((x, weight), output),
            OpsKind::UnTracked(step) => step.finish(output),
        }
    }

    fn token_loss(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let (hidden, hidden_node) = hidden.into_parts();
        let (head, head_node) = head.into_parts();
        let loss = <B as Ops>::token_loss(hidden.clone(), head.clone(), targets.clone());
        let prepared = TokenLoss
            .prepare::<C>([hidden_node, head_node])
            .compute_bound();
        match prepared.stateful() {
            OpsKind::Tracked(step) => step.finish((hidden, head, targets), loss),
            OpsKind::UnTracked(step) => step.finish(loss),
        }
    }
}

#[derive(Debug)]
struct Rotary;

impl<B: Ops> Backward<B, 1> for Rotary {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, step: Step<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (cos, sin) = step.state;
        // The transpose of a rotation is the rotation back; a scale in the tables stays.
        unary::<B, _>(step.parents, step.node, grads, |grad| {
            <B as Ops>::rotary(grad, cos, B::float_neg(sin))
        });
    }
}

#[derive(Clone, Debug)]
struct SavedAttention<B: Backend> {
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    keys: IntTensor<B>,
    output: FloatTensor<B>,
    lse: FloatTensor<B>,
}

impl<B: Ops> SavedAttention<B> {
    fn backward(self, d_output: FloatTensor<B>, d_lse: FloatTensor<B>) -> [FloatTensor<B>; 3] {
        <B as Ops>::attention_backward(
            self.q,
            self.k,
            self.v,
            self.keys,
            self.lse,
            self.output,
            d_output,
            d_lse,
        )
        .into()
    }
}

fn zeros_like<B: Backend>(x: &FloatTensor<B>) -> FloatTensor<B> {
    B::float_zeros(x.shape(), &x.device(), x.dtype().into())
}

#[derive(Debug)]
struct AttentionOutput;

impl<B: Ops> Backward<B, 3> for AttentionOutput {
    type State = SavedAttention<B>;

    fn backward(self, step: Step<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        propagate::<B, _, 3>(step, grads, |saved, grad| {
            let d_lse = zeros_like::<B>(&saved.lse);
            saved.backward(grad, d_lse)
        });
    }
}

#[derive(Debug)]
struct AttentionLse;

impl<B: Ops> Backward<B, 3> for AttentionLse {
    type State = SavedAttention<B>;

    fn backward(self, step: Step<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        propagate::<B, _, 3>(step, grads, |saved, grad| {
            let d_output = zeros_like::<B>(&saved.output);
            saved.backward(d_output, grad)
        });
    }
}

#[derive(Debug)]
struct RmsNorm;

impl<B: Ops> Backward<B, 2> for RmsNorm {
    type State = (FloatTensor<B>, FloatTensor<B>, f64);

    fn backward(self, step: Step<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        propagate::<B, _, 2>(step, grads, |(x, weight, epsilon), grad| {
            <B as Ops>::rms_norm_backward(x, weight, epsilon, grad).into()
        });
    }
}

#[derive(Debug)]
struct SwiGlu;

impl<B: Ops> Backward<B, 2> for SwiGlu {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, step: Step<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        propagate::<B, _, 2>(step, grads, |(up, gate), grad| {
            <B as Ops>::swiglu_backward(up, gate, grad).into()
        });
    }
}

#[derive(Debug)]
struct Linear;

impl<B: Ops> Backward<B, 2> for Linear {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, step: Step<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        propagate::<B, _, 2>(step, grads, |(x, weight), grad| {
            <B as Ops>::linear_backward(x, weight, grad).into()
        });
    }
}

#[derive(Debug)]
struct TokenLoss;

impl<B: Ops> Backward<B, 2> for TokenLoss {
    type State = (FloatTensor<B>, FloatTensor<B>, IntTensor<B>);

    fn backward(self, step: Step<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        propagate::<B, _, 2>(step, grads, |(hidden, head, targets), grad| {
            <B as Ops>::token_loss_backward(hidden, head, targets, grad).into()
        });
    }
}

/// Gives each tracked parent its gradient, which `backward` computes from that of the step.
fn propagate<B: Backend, S, const N: usize>(
    step: Step<S, N>,
    grads: &mut Gradients,
    backward: impl FnOnce(S, FloatTensor<B>) -> [FloatTensor<B>; N],
) {
    let grad = grads.consume::<B>(&step.node);
    let gradients = backward(step.state, grad);
    for (parent, gradient) in step.parents.into_iter().zip(gradients) {
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, gradient);
        }
    }
}
