//! Every op of the CPU against its slow twin, and banded attention against the float64 oracle, on
//! awkward sizes.

use std::sync::Arc;

use burn::backend::Flex;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use longspan_attention::{Band, LayerPlan, Method, Model, oracle};
use longspan_kernels::{PackedWeight, PlanTensors, ops, reference};
use longspan_rope::{Length, Rope, Spectrum};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Same formula in f32, other order of additions (`rel`, `abs`).
const TOLERANCE: (f64, f64) = (1e-5, 2e-6);

fn device() -> Device {
    Device::flex()
}

fn random(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..len)
        .map(|_| scale * (rng.random::<f32>() * 2.0 - 1.0))
        .collect()
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), (&device(), DType::F32))
}

fn ints<const D: usize>(values: Vec<i32>, shape: [usize; D]) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values, shape), (&device(), DType::I32))
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// The `Flex` primitive of a tensor, for calling the twins.
fn flex<const D: usize>(tensor: &Tensor<D>) -> burn::backend::tensor::FloatTensor<Flex> {
    tensor.clone().try_into_primitive::<Flex>().unwrap()
}

fn flex_int<const D: usize>(tensor: &Tensor<D, Int>) -> burn::backend::tensor::IntTensor<Flex> {
    tensor.clone().try_into_primitive::<Flex>().unwrap()
}

fn primitive_values(primitive: burn::backend::tensor::FloatTensor<Flex>) -> Vec<f32> {
    primitive.into_data().try_to_vec().unwrap()
}

#[track_caller]
fn assert_close(what: &str, got: &[f32], expected: &[f32], scale: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    for (i, (&a, &b)) in got.iter().zip(expected).enumerate() {
        if a == b {
            continue; // both minus infinity included
        }
        let (a, b) = (a as f64, b as f64);
        assert!(
            a.is_finite() && b.is_finite(),
            "{what}[{i}]: {a} against {b}"
        );
        let bound = TOLERANCE.0 * b.abs() + TOLERANCE.1 * scale;
        assert!((a - b).abs() <= bound, "{what}[{i}]: {a} against {b}");
    }
}

#[test]
fn rotary_equals_its_twin_on_strided_input() {
    for (b, h, n, d) in [
        (1, 1, 1, 2),
        (2, 3, 17, 16),
        (1, 2, 129, 128),
        (1, 5, 1500, 64),
    ] {
        let x = tensor(random(1, b * n * h * d, 1.0), [b, n, h, d]).swap_dims(1, 2);
        let cos = tensor(random(2, n * d / 2, 1.0), [n, d / 2]);
        let sin = tensor(random(3, n * d / 2, 1.0), [n, d / 2]);
        let expected = reference::rotary::<Flex>(flex(&x), flex(&cos), flex(&sin));
        let got = ops::rotary(x, cos, sin);
        assert_close("rotary", &values(got), &primitive_values(expected), 1.0);
    }
}

#[test]
fn rms_norm_and_swiglu_equal_their_twins() {
    for (n, c) in [(1, 1), (17, 17), (129, 64), (3, 1500)] {
        let x = tensor(random(4, n * c, 30.0), [n, c]);
        let weight = tensor(random(5, c, 2.0), [c]);
        let expected = reference::rms_norm::<Flex>(flex(&x), flex(&weight), 1e-6);
        let got = ops::rms_norm(x.clone(), weight, 1e-6);
        assert_close("rms_norm", &values(got), &primitive_values(expected), 1.0);

        let gate = tensor(random(6, n * c, 60.0), [n, c]);
        let expected = reference::swiglu::<Flex>(flex(&x), flex(&gate));
        let got = ops::swiglu(x, gate);
        assert_close("swiglu", &values(got), &primitive_values(expected), 30.0);
    }
}

#[test]
fn linear_equals_its_twin_in_every_weight_type() {
    let few = [
        (1, 129, 300),
        (3, 64, 1),
        (1, 2048, 33),
        (8, 31, 67),
        (5, 1500, 17),
    ];
    let many = [(1, 1, 1), (17, 129, 300), (1025, 64, 257), (129, 1500, 17)];
    for (n, i, o) in few.into_iter().chain(many) {
        let x = tensor(random(7, n * i, 1.0), [n, i]);
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let weight = tensor(random(9, o * i, 1.0), [o, i]).cast(dtype);
            let expected = reference::linear::<Flex>(flex(&x), flex(&weight));
            let got = ops::linear(x.clone(), weight);
            let expected = primitive_values(expected);
            assert_close(&format!("{dtype:?}"), &values(got), &expected, i as f64);
        }
    }
}

/// A weight of random words, whose scales keep its values at about 1.
fn packed_weight(o: usize, i: usize, bits: usize, group: usize) -> PackedWeight {
    let mut rng = StdRng::seed_from_u64(21);
    let mut words = |rows: usize, columns: usize| {
        let words = (0..rows * columns).map(|_| rng.random::<i32>()).collect();
        ints(words, [rows, columns])
    };
    let groups = i.div_ceil(group);
    let scale = 1.0 / (1 << (bits - 1)) as f32;
    let scales = random(22, o * groups, scale);
    PackedWeight {
        words: words(o, i * bits / 32),
        zeros: words(o, (groups * bits).div_ceil(32)),
        scales: tensor(scales, [o, groups]).cast(DType::F16),
        bits,
        group,
        order: None,
    }
}

/// Products with a packed weight in float64, from its words.
fn packed_product(x: &[f32], weight: &PackedWeight) -> Vec<f64> {
    let [o, i] = weight.dims();
    let bits = weight.bits;
    let words = |tensor: &Tensor<2, Int>| -> Vec<i32> { tensor.to_data().try_to_vec().unwrap() };
    let (values, zeros) = (words(&weight.words), words(&weight.zeros));
    let scales: Vec<f32> = weight.scales.to_data().iter::<f32>().collect();
    let (groups, per_row) = (scales.len() / o, zeros.len() / o);
    let order: Option<Vec<i32>> = weight
        .order
        .as_ref()
        .map(|order| order.to_data().try_to_vec().unwrap());
    let at = |words: &[i32], index: usize| {
        let word = words[index * bits / 32] as u32 >> (index * bits % 32);
        f64::from(word & ((1 << bits) - 1))
    };
    let weight_at = |o: usize, j: usize| {
        let group = j / weight.group;
        let zero = at(&zeros[o * per_row..], group);
        (at(&values[o * i * bits / 32..], j) - zero) * f64::from(scales[o * groups + group])
    };
    let rows = x.chunks(i);
    let products = rows.flat_map(|x| {
        (0..o)
            .map(|o| {
                let terms = (0..i).map(|j| {
                    let input = order.as_ref().map_or(j, |order| order[j] as usize);
                    f64::from(x[input]) * weight_at(o, j)
                });
                terms.sum()
            })
            .collect::<Vec<f64>>()
    });
    products.collect()
}

#[test]
fn packed_linear_equals_its_twin_and_float64() {
    for bits in [4, 8] {
        for (i, group) in [
            (8, 8),
            (64, 64),
            (136, 32),
            (176, 32),
            (160, 64),
            (512, 128),
            (1000, 128),
            (520, 256),
            (200, 20),
            (72, 24),
            (136, 1000),
            (264, 264),
        ] {
            for (n, o) in [
                (1, 1),
                (1, 129),
                (2, 17),
                (5, 66),
                (8, 31),
                (17, 40),
                (129, 7),
            ] {
                let mut weight = packed_weight(o, i, bits, group);
                if o == 17 {
                    let order = (0..i).map(|j| ((j * 7 + 3) % i) as i32).collect();
                    weight.order = Some(ints(order, [i])).filter(|_| i % 7 != 0);
                }
                let x = random(20, n * i, 1.0);
                let expected = packed_product(&x, &weight);
                let x = tensor(x, [n, i]);
                let got = values(ops::packed_linear(x.clone(), &weight));
                let ordered = match &weight.order {
                    Some(order) => x.select(1, order.clone()),
                    None => x,
                };
                let twin = primitive_values(reference::packed_linear::<Flex>(
                    flex(&ordered),
                    flex_int(&weight.words),
                    flex_int(&weight.zeros),
                    flex(&weight.scales),
                    bits,
                    group,
                ));
                let what = format!("bits {bits} i {i} group {group} n {n} o {o}");
                let expected: Vec<f32> = expected.iter().map(|&x| x as f32).collect();
                assert_close(&format!("{what}, twin"), &twin, &expected, i as f64);
                assert_close(&what, &got, &expected, (i as f64).sqrt());
            }
        }
    }
}

#[test]
fn token_loss_equals_its_twin_and_survives_large_logits() {
    for (n, c, v) in [
        (1, 16, 1),
        (1, 33, 1000),
        (8, 64, 320),
        (17, 64, 320),
        (129, 17, 1000),
        (4097, 8, 257),
    ] {
        for scale in [0.3, 40.0] {
            let hidden = tensor(random(10, n * c, scale), [n, c]);
            let head = tensor(random(11, v * c, 1.0), [v, c]);
            let targets = ints((0..n).map(|i| (i * 7919 % v) as i32).collect(), [n]);
            let expected =
                reference::token_loss::<Flex>(flex(&hidden), flex(&head), flex_int(&targets));
            let got = ops::token_loss(hidden, head, targets);
            let size = 1.0 + scale as f64 * c as f64;
            assert_close(
                "token_loss",
                &values(got),
                &primitive_values(expected),
                size,
            );
        }
    }
}

/// Key ranges of a causal window, bottom-right aligned when there are more keys than queries.
fn windows(n: usize, m: usize, window: usize) -> Vec<i32> {
    (0..n)
        .flat_map(|i| {
            let end = (m + i + 1).saturating_sub(n);
            [end.saturating_sub(window) as i32, end as i32]
        })
        .collect()
}

#[test]
fn attention_equals_its_twin() {
    for (b, h, n, m, d, window) in [
        (1, 1, 1, 1, 16, 1),
        (2, 3, 17, 17, 16, 5),
        (1, 2, 129, 129, 64, 1000),
        (1, 1, 1, 1500, 128, 1500),
        (1, 2, 17, 129, 32, 40),
        (1, 1, 129, 17, 16, 17), // the first queries see no key
        (1, 2, 1500, 1500, 8, 700),
    ] {
        for scale in [1.0, 20.0] {
            // As the model passes them: q contiguous, k and v strided views.
            let q = tensor(random(12, b * h * n * d, scale), [b, h, n, d]);
            let k = tensor(random(13, b * m * h * d, scale), [b, m, h, d]).swap_dims(1, 2);
            let v = tensor(random(14, b * m * h * d, 1.0), [b, m, h, d]).swap_dims(1, 2);
            let keys = ints(windows(n, m, window), [n, 2]);
            let expected =
                reference::attention::<Flex>(flex(&q), flex(&k), flex(&v), flex_int(&keys));
            let (output, lse) = ops::attention(q, k, v, keys);
            // Logits grow with the square of the magnitudes, and so does their rounding.
            let size = 1.0 + (scale * scale) as f64 * (d as f64).sqrt();
            let what = format!("n {n} m {m} d {d} window {window} scale {scale}");
            assert_close(&what, &values(output), &primitive_values(expected.0), size);
            assert_close(&what, &values(lse), &primitive_values(expected.1), size);
        }
    }
}

#[test]
fn merge_equals_its_twin_with_empty_sides() {
    let (b, h, n, d) = (2, 3, 17, 16);
    let output = |seed| tensor(random(seed, b * h * n * d, 1.0), [b, n, h, d]).swap_dims(1, 2);
    let lse = |seed: u64| {
        let mut lse = random(seed, b * h * n, 30.0);
        lse[seed as usize] = f32::NEG_INFINITY;
        lse[20] = f32::NEG_INFINITY; // neither side sees a key
        tensor(lse, [b, h, n])
    };
    let (a, a_lse, c, c_lse) = (output(15), lse(16), output(17), lse(18));
    let expected = reference::merge::<Flex>(flex(&a), flex(&a_lse), flex(&c), flex(&c_lse));
    let got = ops::merge((a, a_lse), (c, c_lse));
    assert_close("output", &values(got.0), &primitive_values(expected.0), 1.0);
    assert_close("lse", &values(got.1), &primitive_values(expected.1), 1.0);

    // What is not a number stays so, even beside an empty side.
    let one = |x: f32| (tensor(vec![x], [1, 1, 1, 1]), tensor(vec![x], [1, 1, 1]));
    let empty = (
        tensor(vec![0.0], [1, 1, 1, 1]),
        tensor(vec![f32::NEG_INFINITY], [1, 1, 1]),
    );
    let got = ops::merge(one(f32::NAN), empty);
    assert!(values(got.0)[0].is_nan() && values(got.1)[0].is_nan());
}

/// Runs a plan through the tensors and through the oracle.
fn check_plan(plan: &Arc<LayerPlan>, n: usize, m: usize, d: usize) {
    let h = 2;
    let rows = |values: &[f32], head: usize, len: usize| -> Vec<Vec<f64>> {
        values[head * len * d..(head + 1) * len * d]
            .chunks(d)
            .map(|row| row.iter().map(|&x| x as f64).collect())
            .collect()
    };
    let (q, k, v) = (
        random(19, h * n * d, 2.0),
        random(20, h * m * d, 2.0),
        random(21, h * m * d, 1.0),
    );
    let got = ops::banded_attention(
        tensor(q.clone(), [1, h, n, d]),
        tensor(k.clone(), [1, h, m, d]),
        tensor(v.clone(), [1, h, m, d]),
        &PlanTensors::for_layers(std::slice::from_ref(plan), &device())[0],
    );
    let got = values(got);
    for head in 0..h {
        let (expected, _) = oracle::attention(
            plan,
            &rows(&q, head, n),
            &rows(&k, head, m),
            &rows(&v, head, m),
        );
        for (i, row) in expected.iter().enumerate() {
            for (c, &expected) in row.iter().enumerate() {
                let got = got[(head * n + i) * d + c] as f64;
                assert!(
                    (got - expected).abs() < 2e-5,
                    "n {n} m {m} query {i}: {got} against {expected}"
                );
            }
        }
    }
}

#[test]
fn attention_and_its_log_sum_exp_equal_the_oracle() {
    let (n, m, d) = (17, 40, 8);
    let ranges = windows(n, m, 12);
    // At position 0 nothing is turned.
    let band = Band {
        keys: ranges
            .chunks(2)
            .map(|pair| pair[0] as u32..pair[1] as u32)
            .collect(),
        q_position: vec![0.0; n],
        k_position: vec![0.0; m],
        spectrum: Spectrum {
            inv_freq: vec![1.0; d / 2],
            mscale: 1.0,
        },
    };
    let plan = LayerPlan {
        bands: vec![band],
        query_scale: vec![1.0; n],
    };
    let (q, k, v) = (
        random(22, n * d, 3.0),
        random(23, m * d, 3.0),
        random(24, m * d, 1.0),
    );
    let rows = |values: &[f32]| -> Vec<Vec<f64>> {
        values
            .chunks(d)
            .map(|row| row.iter().map(|&x| x as f64).collect())
            .collect()
    };
    let (output, lse) = oracle::attention(&plan, &rows(&q), &rows(&k), &rows(&v));
    let got = ops::attention(
        tensor(q, [1, 1, n, d]),
        tensor(k, [1, 1, m, d]),
        tensor(v, [1, 1, m, d]),
        ints(ranges, [n, 2]),
    );
    let narrow = |values: Vec<f64>| values.into_iter().map(|x| x as f32).collect::<Vec<_>>();
    assert_close("output", &values(got.0), &narrow(output.concat()), 4.0);
    assert_close("lse", &values(got.1), &narrow(lse), 4.0);
}

#[test]
fn plans_of_methods_equal_the_oracle() {
    let method = |toml: serde_json::Value| -> Method { serde_json::from_value(toml).unwrap() };
    let methods = [
        method(serde_json::json!({"name": "plain"})),
        method(
            serde_json::json!({"name": "all", "rope": {"kind": "dynamic_ntk"}, "logn": true,
            "window": {"layers": [5, 40, 200, "full"], "alpha": "per_layer"}, "sinks": 3}),
        ),
        method(
            serde_json::json!({"name": "yarn", "rope": {"kind": "yarn", "factor": 4.0},
            "logn": {"length": "visible"}, "window": 33, "sinks": 40}),
        ),
    ];
    for method in &methods {
        for n in [1, 17, 129, 700] {
            let rope = Rope {
                dim: 16,
                base: 1e4,
                trained: 64,
            };
            let model = Model { rope, layers: 4 };
            let length = Length {
                total: n,
                prefill: n,
            };
            for plan in method.plan(&model, length).unwrap() {
                check_plan(&plan, n, n, 16);
            }
        }
    }
}

/// Bands with positions and frequencies of their own, as ReRoPE or chunked methods have them, and more
/// keys than queries.
#[test]
fn bands_with_their_own_rotations_equal_the_oracle() {
    let (n, m, d, near) = (17usize, 129usize, 8usize, 20u32);
    let spectrum = |base: f64, mscale| Spectrum {
        inv_freq: (0..d / 2)
            .map(|i| base.powf(-2.0 * i as f64 / d as f64))
            .collect(),
        mscale,
    };
    let end = |i: usize| (m - n + i + 1) as u32;
    let near_band = Band {
        keys: (0..n).map(|i| end(i) - near..end(i)).collect(),
        q_position: (0..n).map(|i| (m - n + i) as f64).collect(),
        k_position: (0..m).map(|j| j as f64).collect(),
        spectrum: spectrum(1e4, 1.0),
    };
    let far_band = Band {
        keys: (0..n).map(|i| 0..end(i) - near).collect(),
        q_position: vec![near as f64; n],
        k_position: (0..m).map(|j| (j / 4) as f64 * 0.5).collect(),
        spectrum: spectrum(500.0, 1.1),
    };
    let plan = Arc::new(LayerPlan {
        bands: vec![near_band, far_band],
        query_scale: (0..n).map(|i| 1.0 + i as f64 / 10.0).collect(),
    });
    check_plan(&plan, n, m, d);
}
