//! The ops of [`Ops`] on burn's tensors, on any device.

use burn::backend::Dispatch;
use burn::tensor::{Int, Tensor};

use crate::backend::Ops;
use crate::packed_weight::PackedWeight;
use crate::plan::PlanTensors;

/// [`Ops::rotary`]: `x` `[b, h, n, d]`, tables `[n, d/2]`.
pub fn rotary(x: Tensor<4>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<4> {
    let [_, _, n, d] = x.dims();
    assert_eq!(cos.dims(), [n, d / 2], "rotary: cos for x {:?}", x.dims());
    assert_eq!(sin.dims(), [n, d / 2], "rotary: sin for x {:?}", x.dims());
    Tensor::from_dispatch(<Dispatch as Ops>::rotary(
        x.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
    ))
}

/// [`Ops::attention`]: `q` `[b, h, n, d]`, `k`, `v` `[b, h, m, d]`, `keys` `[n, 2]` as i32; returns
/// the output and its log-sum-exp `[b, h, n]`.
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    keys: Tensor<2, Int>,
) -> (Tensor<4>, Tensor<3>) {
    let [b, h, n, d] = q.dims();
    let m = k.dims()[2];
    assert_eq!(k.dims(), [b, h, m, d], "attention: k for q {:?}", q.dims());
    assert_eq!(v.dims(), k.dims(), "attention: v against k");
    assert_eq!(keys.dims(), [n, 2], "attention: keys for q {:?}", q.dims());
    let (output, lse) = <Dispatch as Ops>::attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        keys.into_dispatch(),
    );
    (Tensor::from_dispatch(output), Tensor::from_dispatch(lse))
}

/// [`Ops::rotary_attention`]: `q` `[b, h, n, d]`, `k` and `v` `[b, h, m, d]`, tables `[n, d/2]` and
/// `[m, d/2]`, `keys` `[n, 2]` as i32; returns the output and its log-sum-exp `[b, h, n]`.
pub fn rotary_attention(
    q: Tensor<4>,
    q_table: (Tensor<2>, Tensor<2>),
    k: Tensor<4>,
    k_table: (Tensor<2>, Tensor<2>),
    v: Tensor<4>,
    keys: Tensor<2, Int>,
) -> (Tensor<4>, Tensor<3>) {
    check_attention(q.dims(), &q_table, [k.dims(), v.dims()], &k_table, &keys);
    let (output, lse) = <Dispatch as Ops>::rotary_attention(
        q.into_dispatch(),
        q_table.0.into_dispatch(),
        q_table.1.into_dispatch(),
        k.into_dispatch(),
        k_table.0.into_dispatch(),
        k_table.1.into_dispatch(),
        v.into_dispatch(),
        keys.into_dispatch(),
    );
    (Tensor::from_dispatch(output), Tensor::from_dispatch(lse))
}

/// [`Ops::rotary_attention_8bit`]: as [`rotary_attention`], with `k` and `v` each as words
/// `[b, h, m, d/4]` of four numbers and the lines `[b, h, m, 2]` of their rows.
pub fn rotary_attention_8bit(
    q: Tensor<4>,
    q_table: (Tensor<2>, Tensor<2>),
    (k, k_line): (Tensor<4, Int>, Tensor<4>),
    k_table: (Tensor<2>, Tensor<2>),
    (v, v_line): (Tensor<4, Int>, Tensor<4>),
    keys: Tensor<2, Int>,
) -> (Tensor<4>, Tensor<3>) {
    let values = |[b, h, m, width]: [usize; 4]| [b, h, m, 4 * width];
    let shapes = [values(k.dims()), values(v.dims())];
    check_attention(q.dims(), &q_table, shapes, &k_table, &keys);
    let [b, h, m, _] = k.dims();
    assert_eq!(k_line.dims(), [b, h, m, 2], "rotary_attention: lines of k");
    assert_eq!(v_line.dims(), [b, h, m, 2], "rotary_attention: lines of v");
    let (output, lse) = <Dispatch as Ops>::rotary_attention_8bit(
        q.into_dispatch(),
        q_table.0.into_dispatch(),
        q_table.1.into_dispatch(),
        k.into_dispatch(),
        k_line.into_dispatch(),
        k_table.0.into_dispatch(),
        k_table.1.into_dispatch(),
        v.into_dispatch(),
        v_line.into_dispatch(),
        keys.into_dispatch(),
    );
    (Tensor::from_dispatch(output), Tensor::from_dispatch(lse))
}

fn check_attention(
    q: [usize; 4],
    q_table: &(Tensor<2>, Tensor<2>),
    [k, v]: [[usize; 4]; 2],
    k_table: &(Tensor<2>, Tensor<2>),
    keys: &Tensor<2, Int>,
) {
    let [b, h, n, d] = q;
    let m = k[2];
    assert_eq!(k, [b, h, m, d], "rotary_attention: k for q {q:?}");
    assert_eq!(v, k, "rotary_attention: v against k");
    for (what, (cos, sin), rows) in [("q", q_table, n), ("k", k_table, m)] {
        assert_eq!(cos.dims(), [rows, d / 2], "rotary_attention: cos of {what}");
        assert_eq!(sin.dims(), [rows, d / 2], "rotary_attention: sin of {what}");
    }
    assert_eq!(keys.dims(), [n, 2], "rotary_attention: keys for q {q:?}");
}

/// [`Ops::merge`]: outputs `[b, h, n, d]` with log-sum-exps `[b, h, n]`.
pub fn merge(a: (Tensor<4>, Tensor<3>), b: (Tensor<4>, Tensor<3>)) -> (Tensor<4>, Tensor<3>) {
    assert_eq!(a.0.dims(), b.0.dims(), "merge: outputs");
    assert_eq!(a.1.dims(), b.1.dims(), "merge: log-sum-exps");
    let (output, lse) = <Dispatch as Ops>::merge(
        a.0.into_dispatch(),
        a.1.into_dispatch(),
        b.0.into_dispatch(),
        b.1.into_dispatch(),
    );
    (Tensor::from_dispatch(output), Tensor::from_dispatch(lse))
}

/// Attention of un-rotated `q` `[b, h, n, d]` over un-rotated `k` and `v` `[b, h, m, d]` as the
/// plan says: each band rotates with its tables, attends to its keys, and the bands are merged.
/// Returns `[b, h, n, d]`.
pub fn banded_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, plan: &PlanTensors) -> Tensor<4> {
    let mut merged: Option<(Tensor<4>, Tensor<3>)> = None;
    for band in &plan.bands {
        let part = rotary_attention(
            q.clone(),
            plan.tables[band.q_table].clone(),
            k.clone(),
            plan.tables[band.k_table].clone(),
            v.clone(),
            band.keys.clone(),
        );
        merged = Some(match merged {
            Some(sum) => merge(sum, part),
            None => part,
        });
    }
    merged.expect("a plan has at least one band").0
}

/// [`Ops::rms_norm`]: `x` `[n, c]`, `weight` `[c]`.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    assert_eq!(x.dims()[1], weight.dims()[0], "rms_norm: weight");
    Tensor::from_dispatch(<Dispatch as Ops>::rms_norm(
        x.into_dispatch(),
        weight.into_dispatch(),
        epsilon,
    ))
}

/// [`Ops::swiglu`]: both `[n, c]`.
pub fn swiglu(up: Tensor<2>, gate: Tensor<2>) -> Tensor<2> {
    assert_eq!(up.dims(), gate.dims(), "swiglu: up against gate");
    Tensor::from_dispatch(<Dispatch as Ops>::swiglu(
        up.into_dispatch(),
        gate.into_dispatch(),
    ))
}

/// [`Ops::linear`]: `x` `[n, i]`, `weight` `[o, i]`; returns `[n, o]`.
pub fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    assert_eq!(x.dims()[1], weight.dims()[1], "linear: x against weight");
    Tensor::from_dispatch(<Dispatch as Ops>::linear(
        x.into_dispatch(),
        weight.into_dispatch(),
    ))
}

/// [`Ops::linear_add`]: `x` `[n, i]`, `weight` `[o, i]`, `to` `[n, o]` or `[1, o]`; returns
/// `[n, o]`. On the CPU `to` becomes the result if nothing else holds it.
pub fn linear_add(x: Tensor<2>, weight: Tensor<2>, to: Tensor<2>) -> Tensor<2> {
    let [n, i] = x.dims();
    let o = weight.dims()[0];
    assert_eq!(i, weight.dims()[1], "linear_add: x against weight");
    assert!(
        to.dims() == [n, o] || to.dims() == [1, o],
        "linear_add: {:?} for [{n}, {o}]",
        to.dims()
    );
    Tensor::from_dispatch(<Dispatch as Ops>::linear_add(
        x.into_dispatch(),
        weight.into_dispatch(),
        to.into_dispatch(),
    ))
}

/// [`Ops::gated_linear`]: `x` `[n, i]`, `up` and `gate` `[o, i]`; returns `[n, o]`.
pub fn gated_linear(x: Tensor<2>, up: Tensor<2>, gate: Tensor<2>) -> Tensor<2> {
    assert_eq!(x.dims()[1], up.dims()[1], "gated_linear: x against up");
    assert_eq!(up.dims(), gate.dims(), "gated_linear: up against gate");
    Tensor::from_dispatch(<Dispatch as Ops>::gated_linear(
        x.into_dispatch(),
        up.into_dispatch(),
        gate.into_dispatch(),
    ))
}

/// [`Ops::packed_linear`]: `x` `[n, i]`, `weight` `[o, i]`; returns `[n, o]`.
pub fn packed_linear(x: Tensor<2>, weight: &PackedWeight) -> Tensor<2> {
    let [outputs, inputs] = weight.dims();
    let groups = inputs.div_ceil(weight.group);
    assert_eq!(x.dims()[1], inputs, "packed_linear: x against weight");
    let zeros = [outputs, (groups * weight.bits).div_ceil(32)];
    assert_eq!(weight.zeros.dims(), zeros, "packed_linear: zeros");
    assert_eq!(
        weight.scales.dims(),
        [outputs, groups],
        "packed_linear: scales"
    );
    let x = match &weight.order {
        Some(order) => x.select(1, order.clone()),
        None => x,
    };
    Tensor::from_dispatch(<Dispatch as Ops>::packed_linear(
        x.into_dispatch(),
        weight.words.clone().into_dispatch(),
        weight.zeros.clone().into_dispatch(),
        weight.scales.clone().into_dispatch(),
        weight.bits,
        weight.group,
    ))
}

/// [`Ops::token_loss`]: `hidden` `[n, c]`, `head` `[v, c]`, `targets` `[n]` as i32 below `v`;
/// returns `[n]` in nats.
pub fn token_loss(hidden: Tensor<2>, head: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    assert_eq!(hidden.dims()[0], targets.dims()[0], "token_loss: targets");
    assert_eq!(hidden.dims()[1], head.dims()[1], "token_loss: head");
    Tensor::from_dispatch(<Dispatch as Ops>::token_loss(
        hidden.into_dispatch(),
        head.into_dispatch(),
        targets.into_dispatch(),
    ))
}
