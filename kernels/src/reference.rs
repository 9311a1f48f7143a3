//! The slow twin of every op, written with burn's own operations for any back end.
//!
//! Written to be read: attention builds all `n` by `m` logits. Arithmetic is f32, except in
//! `linear`, which multiplies in the type of `x`. Losses and log-sum-exps are f32; other results
//! have the type of the first argument.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_device_settings};
use burn::tensor::{DType, FloatDType, IndexingUpdateOp, IntDType, Shape, Slice};

/// Rows of the loss per block of logits.
const LOSS_ROWS: usize = 256;

fn f32<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    match x.dtype() {
        DType::F32 => x,
        _ => B::float_cast(x, FloatDType::F32),
    }
}

pub(crate) fn like<B: Backend>(x: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if x.dtype() == dtype {
        return x;
    }
    B::float_cast(x, dtype.into())
}

/// `range` of dimension `dim`, all of the others.
fn narrow<B: Backend>(
    x: FloatTensor<B>,
    dim: usize,
    range: std::ops::Range<usize>,
) -> FloatTensor<B> {
    let mut slices: Vec<Slice> = vec![Slice::full(); x.rank()];
    slices[dim] = Slice::from(range);
    B::float_slice(x, &slices)
}

/// See [`Ops::rotary`](crate::Ops::rotary).
pub fn rotary<B: Backend>(
    x: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let [_, _, n, d] = x.shape().dims::<4>();
    let table = Shape::new([1, 1, n, d / 2]);
    let cos = B::float_reshape(cos, table.clone());
    let sin = B::float_reshape(sin, table);
    let x = f32::<B>(x);
    let low = narrow::<B>(x.clone(), 3, 0..d / 2);
    let high = narrow::<B>(x, 3, d / 2..d);
    let turned_low = B::float_sub(
        B::float_mul(low.clone(), cos.clone()),
        B::float_mul(high.clone(), sin.clone()),
    );
    let turned_high = B::float_add(B::float_mul(high, cos), B::float_mul(low, sin));
    like::<B>(B::float_cat(vec![turned_low, turned_high], 3), dtype)
}

/// See [`Ops::attention`](crate::Ops::attention).
pub fn attention<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    keys: IntTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dtype = q.dtype();
    let [b, h, n, _] = q.shape().dims::<4>();
    let logits = masked_logits::<B>(q, k, keys);

    // The clamps keep rows that see no key free of NaN: their weights and sum are all zero.
    let max = B::float_clamp_min(B::float_max_dim(logits.clone(), 3), f32::MIN.into());
    let weights = B::float_exp(B::float_sub(logits, max.clone()));
    let sum = B::float_sum_dim(weights.clone(), 3);
    let output = B::float_div(
        B::float_matmul(weights, f32::<B>(v)),
        B::float_clamp_min(sum.clone(), f32::MIN_POSITIVE.into()),
    );
    let lse = B::float_reshape(B::float_add(max, B::float_log(sum)), Shape::new([b, h, n]));
    (like::<B>(output, dtype), lse)
}

/// See [`Ops::rotary_attention`](crate::Ops::rotary_attention); tables are `(cos, sin)`.
pub fn rotary_attention<B: Backend>(
    q: FloatTensor<B>,
    q_table: (FloatTensor<B>, FloatTensor<B>),
    k: FloatTensor<B>,
    k_table: (FloatTensor<B>, FloatTensor<B>),
    v: FloatTensor<B>,
    keys: IntTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let q = rotary::<B>(q, q_table.0, q_table.1);
    let k = rotary::<B>(f32::<B>(k), k_table.0, k_table.1);
    attention::<B>(q, k, f32::<B>(v), keys)
}

/// `[b, h, m, d]` of `slope * q + offset`: words of four numbers `q` `[b, h, m, d/4]`, `line`
/// `[b, h, m, 2]`.
pub fn from_8bit<B: Backend>(words: IntTensor<B>, line: FloatTensor<B>) -> FloatTensor<B> {
    let [b, h, m, width] = words.shape().dims::<4>();
    let rows = B::int_reshape(words, Shape::new([b * h * m, width]));
    let q = B::int_reshape(unpack::<B>(rows, 8), Shape::new([b, h, m, 4 * width]));
    let q = B::int_into_float(q, FloatDType::F32);
    let slope = narrow::<B>(line.clone(), 3, 0..1);
    B::float_add(B::float_mul(q, slope), narrow::<B>(line, 3, 1..2))
}

/// `q k / sqrt(d)` `[b, h, n, m]`, minus infinity where a query does not see a key.
fn masked_logits<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    keys: IntTensor<B>,
) -> FloatTensor<B> {
    let device = q.device();
    let [b, h, n, d] = q.shape().dims::<4>();
    let m = k.shape().dims::<4>()[2];

    let logits = B::float_matmul(f32::<B>(q), B::float_transpose(f32::<B>(k)));
    let logits = B::float_mul_scalar(logits, (1.0 / (d as f64).sqrt()).into());
    let bool_dtype = get_device_settings::<B>(&device).bool_dtype;
    let all = Shape::new([1, 1, n, m]);
    let bound = |column: usize| {
        let bound = B::int_slice(
            keys.clone(),
            &[Slice::full(), Slice::from(column..column + 1)],
        );
        B::int_expand(B::int_reshape(bound, Shape::new([1, 1, n, 1])), all.clone())
    };
    let index = B::int_arange(0..m as i64, &device, IntDType::I32);
    let index = B::int_expand(B::int_reshape(index, Shape::new([1, 1, 1, m])), all.clone());
    let hidden = B::bool_or(
        B::int_lower(index.clone(), bound(0), bool_dtype),
        B::int_greater_equal(index, bound(1), bool_dtype),
    );
    let hidden = B::bool_expand(hidden, Shape::new([b, h, n, m]));
    B::float_mask_fill(logits, hidden, f32::NEG_INFINITY.into())
}

/// See [`Ops::attention_backward`](crate::Ops::attention_backward).
#[allow(clippy::too_many_arguments)]
pub fn attention_backward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    keys: IntTensor<B>,
    lse: FloatTensor<B>,
    output: FloatTensor<B>,
    d_output: FloatTensor<B>,
    d_lse: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let [b, h, n, d] = q.shape().dims::<4>();
    let column = Shape::new([b, h, n, 1]);
    let logits = masked_logits::<B>(q.clone(), k.clone(), keys);
    // A query without keys has a log-sum-exp of minus infinity; the clamp keeps its weights at
    // zero.
    let lse = B::float_clamp_min(B::float_reshape(lse, column.clone()), f32::MIN.into());
    let weights = B::float_exp(B::float_sub(logits, lse));
    let d_v = B::float_matmul(B::float_transpose(weights.clone()), d_output.clone());
    let d_weights = B::float_matmul(d_output.clone(), B::float_transpose(v));
    let along = B::float_sum_dim(B::float_mul(d_output, output), 3);
    let along = B::float_sub(along, B::float_reshape(d_lse, column));
    let d_logits = B::float_mul(weights, B::float_sub(d_weights, along));
    let d_logits = B::float_mul_scalar(d_logits, (1.0 / (d as f64).sqrt()).into());
    let d_q = B::float_matmul(d_logits.clone(), k);
    let d_k = B::float_matmul(B::float_transpose(d_logits), q);
    (d_q, d_k, d_v)
}

/// See [`Ops::merge`](crate::Ops::merge).
pub fn merge<B: Backend>(
    a: FloatTensor<B>,
    a_lse: FloatTensor<B>,
    b: FloatTensor<B>,
    b_lse: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dtype = a.dtype();
    let [batch, h, n, _] = a.shape().dims::<4>();
    let column = Shape::new([batch, h, n, 1]);
    let a_lse = B::float_reshape(a_lse, column.clone());
    let b_lse = B::float_reshape(b_lse, column);
    let max = B::float_cat(vec![a_lse.clone(), b_lse.clone()], 3);
    let max = B::float_clamp_min(B::float_max_dim(max, 3), f32::MIN.into());
    let a_weight = B::float_exp(B::float_sub(a_lse, max.clone()));
    let b_weight = B::float_exp(B::float_sub(b_lse, max.clone()));
    let sum = B::float_add(a_weight.clone(), b_weight.clone());
    let mixed = B::float_add(
        B::float_mul(f32::<B>(a), a_weight),
        B::float_mul(f32::<B>(b), b_weight),
    );
    let output = B::float_div(
        mixed,
        B::float_clamp_min(sum.clone(), f32::MIN_POSITIVE.into()),
    );
    let lse = B::float_add(max, B::float_log(sum));
    (
        like::<B>(output, dtype),
        B::float_reshape(lse, Shape::new([batch, h, n])),
    )
}

/// See [`Ops::rms_norm`](crate::Ops::rms_norm).
pub fn rms_norm<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    epsilon: f64,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let c = x.shape().dims::<2>()[1];
    let x = f32::<B>(x);
    let mean = B::float_mean_dim(B::float_mul(x.clone(), x.clone()), 1);
    let rms = B::float_sqrt(B::float_add_scalar(mean, epsilon.into()));
    let weight = B::float_reshape(f32::<B>(weight), Shape::new([1, c]));
    like::<B>(B::float_mul(B::float_div(x, rms), weight), dtype)
}

/// See [`Ops::rms_norm_backward`](crate::Ops::rms_norm_backward).
pub fn rms_norm_backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    epsilon: f64,
    d_output: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let c = x.shape().dims::<2>()[1];
    let mean = B::float_mean_dim(B::float_mul(x.clone(), x.clone()), 1);
    let rms = B::float_sqrt(B::float_add_scalar(mean, epsilon.into()));
    let unit = B::float_div(x, rms.clone());
    let d_weight = B::float_sum_dim(B::float_mul(d_output.clone(), unit.clone()), 0);
    let d_unit = B::float_mul(d_output, B::float_reshape(weight, Shape::new([1, c])));
    let along = B::float_mean_dim(B::float_mul(d_unit.clone(), unit.clone()), 1);
    let d_x = B::float_div(B::float_sub(d_unit, B::float_mul(unit, along)), rms);
    (d_x, B::float_reshape(d_weight, Shape::new([c])))
}

/// See [`Ops::swiglu`](crate::Ops::swiglu).
pub fn swiglu<B: Backend>(up: FloatTensor<B>, gate: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = up.dtype();
    let gate = f32::<B>(gate);
    let one_plus = B::float_add_scalar(B::float_exp(B::float_neg(gate.clone())), 1f32.into());
    let silu = B::float_div(gate, one_plus);
    like::<B>(B::float_mul(f32::<B>(up), silu), dtype)
}

/// See [`Ops::swiglu_backward`](crate::Ops::swiglu_backward).
pub fn swiglu_backward<B: Backend>(
    up: FloatTensor<B>,
    gate: FloatTensor<B>,
    d_output: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let one_plus = B::float_add_scalar(B::float_exp(B::float_neg(gate.clone())), 1f32.into());
    let sigmoid = B::float_recip(one_plus);
    let silu = B::float_mul(gate.clone(), sigmoid.clone());
    // silu' = sigmoid (1 + gate (1 - sigmoid)) = sigmoid + silu - silu sigmoid
    let slope = B::float_sub(
        B::float_add(sigmoid.clone(), silu.clone()),
        B::float_mul(silu.clone(), sigmoid),
    );
    let d_gate = B::float_mul(B::float_mul(d_output.clone(), up), slope);
    (B::float_mul(d_output, silu), d_gate)
}

/// See [`Ops::linear`](crate::Ops::linear).
pub fn linear<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let weight = like::<B>(weight, x.dtype());
    B::float_matmul(x, B::float_transpose(weight))
}

/// See [`Ops::linear_backward`](crate::Ops::linear_backward).
pub fn linear_backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    d_output: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let d_x = B::float_matmul(d_output.clone(), weight);
    (d_x, B::float_matmul(B::float_transpose(d_output), x))
}

/// See [`Ops::packed_linear`](crate::Ops::packed_linear).
pub fn packed_linear<B: Backend>(
    x: FloatTensor<B>,
    words: IntTensor<B>,
    zeros: IntTensor<B>,
    scales: FloatTensor<B>,
    bits: usize,
    group: usize,
) -> FloatTensor<B> {
    let inputs = x.shape().dims::<2>()[1];
    let device = words.device();
    let column = B::int_arange(0..inputs as i64, &device, IntDType::I32);
    let group = B::int_div_scalar(column, (group as i64).into());
    let zeros = B::int_select(unpack::<B>(zeros, bits), 1, group.clone());
    let scales = B::float_select(f32::<B>(scales), 1, group);
    let steps = B::int_sub(unpack::<B>(words, bits), zeros);
    let weight = B::float_mul(B::int_into_float(steps, FloatDType::F32), scales);
    linear::<B>(x, weight)
}

/// Values `[o, w * 32 / bits]` of words `[o, w]`.
fn unpack<B: Backend>(words: IntTensor<B>, bits: usize) -> IntTensor<B> {
    let [o, w] = words.shape().dims::<2>();
    let values = (0..32).step_by(bits).map(|shift| {
        // The shift may copy the sign down; the mask removes the copies.
        let shifted = B::bitwise_right_shift_scalar(words.clone(), (shift as i64).into());
        let value = B::bitwise_and_scalar(shifted, ((1i64 << bits) - 1).into());
        B::int_reshape(value, Shape::new([o, w, 1]))
    });
    let values = B::int_cat(values.collect(), 2);
    B::int_reshape(values, Shape::new([o, w * 32 / bits]))
}

/// See [`Ops::token_loss`](crate::Ops::token_loss).
pub fn token_loss<B: Backend>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    targets: IntTensor<B>,
) -> FloatTensor<B> {
    let n = hidden.shape().dims::<2>()[0];
    let head = B::float_transpose(f32::<B>(head));
    let blocks = (0..n)
        .step_by(LOSS_ROWS)
        .map(|start| {
            let end = (start + LOSS_ROWS).min(n);
            let rows = f32::<B>(narrow::<B>(hidden.clone(), 0, start..end));
            let logits = B::float_matmul(rows, head.clone());
            let target = B::int_slice(targets.clone(), &[Slice::from(start..end)]);
            let target = B::int_reshape(target, Shape::new([end - start, 1]));
            let target = B::float_gather(1, logits.clone(), target);
            let max = B::float_max_dim(logits.clone(), 1);
            let weights = B::float_exp(B::float_sub(logits, max.clone()));
            let lse = B::float_add(max, B::float_log(B::float_sum_dim(weights, 1)));
            B::float_sub(lse, target)
        })
        .collect();
    B::float_reshape(B::float_cat(blocks, 0), Shape::new([n]))
}

/// See [`Ops::token_loss_backward`](crate::Ops::token_loss_backward).
pub fn token_loss_backward<B: Backend>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    targets: IntTensor<B>,
    d_loss: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let n = hidden.shape().dims::<2>()[0];
    let mut d_head = B::float_zeros(head.shape(), &head.device(), head.dtype().into());
    let mut blocks = Vec::new();
    for start in (0..n).step_by(LOSS_ROWS) {
        let end = (start + LOSS_ROWS).min(n);
        let column = Shape::new([end - start, 1]);
        let rows = narrow::<B>(hidden.clone(), 0, start..end);
        let logits = B::float_matmul(rows.clone(), B::float_transpose(head.clone()));
        let max = B::float_max_dim(logits.clone(), 1);
        let weights = B::float_exp(B::float_sub(logits, max));
        let sum = B::float_sum_dim(weights.clone(), 1);
        let d_loss = B::float_reshape(narrow::<B>(d_loss.clone(), 0, start..end), column.clone());
        // The gradient of the logits: the probabilities, less one at the target.
        let d_logits = B::float_mul(B::float_div(weights, sum), d_loss.clone());
        let target = B::int_slice(targets.clone(), &[Slice::from(start..end)]);
        let target = B::int_reshape(target, column);
        let d_logits = B::float_scatter(
            1,
            d_logits,
            target,
            B::float_neg(d_loss),
            IndexingUpdateOp::Add,
        );
        blocks.push(B::float_matmul(d_logits.clone(), head.clone()));
        d_head = B::float_add(d_head, B::float_matmul(B::float_transpose(d_logits), rows));
    }
    (B::float_cat(blocks, 0), d_head)
}
