//! Every op's backward pass on the CPU, and its slow twin, against burn's own differentiation of
//! the slow forward.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Flex};
use burn::tensor::{DType, Device, Gradients, Int, Tensor, TensorData};
use longspan_kernels::{ops, reference};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

type Diff = Autodiff<Flex>;

fn values(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..len)
        .map(|_| scale * (rng.random::<f32>() * 2.0 - 1.0))
        .collect()
}

/// A leaf whose gradient is wanted.
fn leaf<const D: usize>(seed: u64, shape: [usize; D], scale: f32) -> Tensor<D> {
    constant(seed, shape, scale).require_grad()
}

fn constant<const D: usize>(seed: u64, shape: [usize; D], scale: f32) -> Tensor<D> {
    let data = TensorData::new(values(seed, shape.iter().product(), scale), shape);
    Tensor::from_data(data, (&Device::flex().autodiff(), DType::F32))
}

fn ints<const D: usize>(values: Vec<i32>, shape: [usize; D]) -> Tensor<D, Int> {
    let data = TensorData::new(values, shape);
    Tensor::from_data(data, (&Device::flex().autodiff(), DType::I32))
}

fn diff<const D: usize>(tensor: &Tensor<D>) -> FloatTensor<Diff> {
    tensor.clone().try_into_primitive::<Diff>().unwrap()
}

fn int<const D: usize>(tensor: &Tensor<D, Int>) -> IntTensor<Diff> {
    tensor.clone().try_into_primitive::<Diff>().unwrap()
}

fn back<const D: usize>(primitive: FloatTensor<Diff>) -> Tensor<D> {
    Tensor::from_primitive::<Diff>(primitive)
}

/// The gradient of a scalar with respect to a leaf, once [`Tensor::backward`] went through its
/// graph.
fn gradient<const D: usize>(gradients: &Gradients, leaf: &Tensor<D>) -> Vec<f32> {
    let gradient = leaf.grad(gradients).expect("the leaf is part of it");
    gradient.into_data().try_to_vec().unwrap()
}

/// A scalar that depends on every value of an output, each in its own way.
fn weighted<const D: usize>(output: Tensor<D>) -> Tensor<1> {
    let weights = constant(99, output.dims(), 1.0);
    (output * weights).sum()
}

#[track_caller]
fn assert_close(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    let scale = expected.iter().fold(0f32, |max, x| max.max(x.abs())) as f64;
    assert!(scale > 0.0, "{what}: the twin's gradient is zero");
    for (i, (&a, &b)) in got.iter().zip(expected).enumerate() {
        let (a, b) = (a as f64, b as f64);
        let bound = 1e-4 * b.abs() + 1e-5 * scale;
        assert!((a - b).abs() <= bound, "{what}[{i}]: {a} against {b}");
    }
}

/// Causal ranges; a window; sequences packed side by side; queries without keys.
fn key_ranges(n: usize, m: usize) -> Vec<(&'static str, Vec<i32>)> {
    let offset = m.saturating_sub(n);
    let rows = |range: &dyn Fn(usize) -> [usize; 2]| {
        (0..n)
            .flat_map(range)
            .map(|x| x.min(m) as i32)
            .collect::<Vec<_>>()
    };
    vec![
        ("causal", rows(&|i| [0, i + offset + 1])),
        (
            "window",
            rows(&|i| [(i + offset).saturating_sub(5), i + offset + 1]),
        ),
        ("packed", rows(&|i| [(i + offset) / 7 * 7, i + offset + 1])),
        ("late", rows(&|i| [0, (i + offset).saturating_sub(2)])),
    ]
}

#[test]
fn attention() {
    for (b, h, n, m, d) in [
        (1, 1, 1, 2, 2),
        (1, 2, 17, 17, 16),
        (2, 3, 129, 129, 32),
        (1, 2, 65, 300, 8),
    ] {
        let q = leaf(1, [b, h, n, d], 2.0);
        let k = leaf(2, [b, h, m, d], 2.0);
        // Laid out as the model's, whose heads lie side by side in a row.
        let v = leaf(3, [b, m, h, d], 1.0);
        for (name, keys) in key_ranges(n, m) {
            if n == 1 && name != "causal" {
                continue; // one key or none: q and k have no gradient
            }
            let keys = ints(keys, [n, 2]);
            // A query without keys has no finite log-sum-exp to differentiate.
            let backward = |(output, lse): (Tensor<4>, Tensor<3>)| match name {
                "late" => weighted(output).backward(),
                _ => (weighted(output) + weighted(lse)).backward(),
            };
            let values = || v.clone().permute([0, 2, 1, 3]);
            let fast = backward(ops::attention(q.clone(), k.clone(), values(), keys.clone()));
            let (output, lse) =
                reference::attention::<Diff>(diff(&q), diff(&k), diff(&values()), int(&keys));
            let slow = backward((back(output), back(lse)));
            let check = |what: &str, fast: &[f32], slow: &[f32]| {
                assert_close(&format!("{name} {n} {m}: {what}"), fast, slow);
            };
            check("q", &gradient(&fast, &q), &gradient(&slow, &q));
            check("k", &gradient(&fast, &k), &gradient(&slow, &k));
            check("v", &gradient(&fast, &v), &gradient(&slow, &v));
        }
    }
}

#[test]
fn attention_backward_twin() {
    let (b, h, n, d) = (1, 2, 33, 8);
    let [q, k, v] = [1, 2, 3].map(|seed| leaf(seed, [b, h, n, d], 1.0));
    let keys = ints(key_ranges(n, n)[0].1.clone(), [n, 2]);
    let (output, lse) = ops::attention(q.clone(), k.clone(), v.clone(), keys.clone());
    let d_output = constant(99, [b, h, n, d], 1.0);
    let d_lse = constant(98, [b, h, n], 1.0);
    let (slow_q, slow_k, slow_v) = reference::attention_backward::<Diff>(
        diff(&q),
        diff(&k),
        diff(&v),
        int(&keys),
        diff(&lse),
        diff(&output),
        diff(&d_output),
        diff(&d_lse),
    );
    let fast = ((output * d_output).sum() + (lse * d_lse).sum()).backward();
    for (what, leaf, slow) in [("q", &q, slow_q), ("k", &k, slow_k), ("v", &v, slow_v)] {
        let slow: Vec<f32> = back::<4>(slow).into_data().try_to_vec().unwrap();
        assert_close(what, &gradient(&fast, leaf), &slow);
    }
}

#[test]
fn rotary() {
    for (b, h, n, d) in [(1, 1, 1, 2), (2, 3, 17, 16), (1, 2, 129, 32)] {
        let x = leaf(1, [b, h, n, d], 1.0);
        let (cos, sin) = (constant(2, [n, d / 2], 1.0), constant(3, [n, d / 2], 1.0));
        let slow = reference::rotary::<Diff>(diff(&x), diff(&cos), diff(&sin));
        let fast = ops::rotary(x.clone(), cos, sin);
        let (fast, slow) = (
            weighted(fast).backward(),
            weighted(back::<4>(slow)).backward(),
        );
        assert_close("x", &gradient(&fast, &x), &gradient(&slow, &x));
    }
}

#[test]
fn merge() {
    let (b, h, n, d) = (1, 2, 17, 8);
    let [a, c] = [1, 2].map(|seed| leaf(seed, [b, h, n, d], 1.0));
    let [a_lse, c_lse] = [3, 4].map(|seed| leaf(seed, [b, h, n], 2.0));
    let (output, lse) = ops::merge((a.clone(), a_lse.clone()), (c.clone(), c_lse.clone()));
    let gradients = (weighted(output) + weighted(lse)).backward();
    // Moving one log-sum-exp up and the other down by the same small step.
    let step = 1e-2;
    let moved = |sign: f32| {
        let (output, lse) = ops::merge(
            (a.clone(), a_lse.clone() + sign * step),
            (c.clone(), c_lse.clone()),
        );
        let sum: f32 = (weighted(output) + weighted(lse)).into_scalar();
        sum
    };
    let difference = (moved(1.0) - moved(-1.0)) / (2.0 * step);
    let total: f32 = gradient(&gradients, &a_lse).iter().sum();
    assert!(
        (difference - total).abs() < 2e-3 * total.abs().max(1.0),
        "{difference} against {total}"
    );
}

#[test]
fn rms_norm_and_swiglu() {
    for (n, c) in [(1, 2), (17, 17), (129, 64), (700, 192)] {
        let x = leaf(1, [n, c], 3.0);
        let weight = leaf(2, [c], 2.0);
        let slow = weighted(back::<2>(reference::rms_norm::<Diff>(
            diff(&x),
            diff(&weight),
            1e-6,
        )))
        .backward();
        let fast = weighted(ops::rms_norm(x.clone(), weight.clone(), 1e-6)).backward();
        assert_close("x", &gradient(&fast, &x), &gradient(&slow, &x));
        assert_close(
            "weight",
            &gradient(&fast, &weight),
            &gradient(&slow, &weight),
        );
        let d = constant(99, [n, c], 1.0);
        let twin = reference::rms_norm_backward::<Diff>(diff(&x), diff(&weight), 1e-6, diff(&d));
        let twin: [Vec<f32>; 2] = [
            back::<2>(twin.0).into_data().try_to_vec().unwrap(),
            back::<1>(twin.1).into_data().try_to_vec().unwrap(),
        ];
        assert_close("x by the twin", &twin[0], &gradient(&slow, &x));
        assert_close("weight by the twin", &twin[1], &gradient(&slow, &weight));

        let gate = leaf(3, [n, c], 6.0);
        let slow = weighted(back::<2>(reference::swiglu::<Diff>(diff(&x), diff(&gate)))).backward();
        let fast = weighted(ops::swiglu(x.clone(), gate.clone())).backward();
        assert_close("up", &gradient(&fast, &x), &gradient(&slow, &x));
        assert_close("gate", &gradient(&fast, &gate), &gradient(&slow, &gate));
        let twin = reference::swiglu_backward::<Diff>(diff(&x), diff(&gate), diff(&d));
        let twin = [twin.0, twin.1].map(|x| back::<2>(x).into_data().try_to_vec().unwrap());
        assert_close("up by the twin", &twin[0], &gradient(&slow, &x));
        assert_close("gate by the twin", &twin[1], &gradient(&slow, &gate));
    }
}

#[test]
fn linear() {
    for (n, i, o) in [(1, 1, 1), (17, 129, 30), (129, 64, 257)] {
        let (x, weight) = (leaf(1, [n, i], 1.0), leaf(2, [o, i], 1.0));
        let slow = weighted(back::<2>(reference::linear::<Diff>(
            diff(&x),
            diff(&weight),
        )))
        .backward();
        let fast = weighted(ops::linear(x.clone(), weight.clone())).backward();
        assert_close("x", &gradient(&fast, &x), &gradient(&slow, &x));
        assert_close(
            "weight",
            &gradient(&fast, &weight),
            &gradient(&slow, &weight),
        );
    }
}

#[test]
fn token_loss() {
    for (n, c, v) in [(1, 16, 3), (17, 64, 320), (300, 17, 1000)] {
        let (hidden, head) = (leaf(1, [n, c], 1.0), leaf(2, [v, c], 1.0));
        let targets = ints((0..n).map(|i| (i * 37 % v) as i32).collect(), [n]);
        let slow = reference::token_loss::<Diff>(diff(&hidden), diff(&head), int(&targets));
        let slow = weighted(back::<1>(slow)).backward();
        let fast = weighted(ops::token_loss(
            hidden.clone(),
            head.clone(),
            targets.clone(),
        ))
        .backward();
        let d_loss = constant(99, [n], 1.0);
        let twin = reference::token_loss_backward::<Diff>(
            diff(&hidden),
            diff(&head),
            int(&targets),
            diff(&d_loss),
        );
        let twin = [twin.0, twin.1].map(|x| back::<2>(x).into_data().try_to_vec().unwrap());
        for (what, leaf, twin) in [("hidden", &hidden, &twin[0]), ("head", &head, &twin[1])] {
            let slow = gradient(&slow, leaf);
            assert_close(what, &gradient(&fast, leaf), &slow);
            assert_close(&format!("{what} by the twin"), twin, &slow);
        }
    }
}
