//! Every op of the CPU against its slow twin, on awkward sizes.

mod host;

use burn::backend::Flex;
use burn::tensor::{DType, Tensor};
use host::{
    assert_close, cached_8bit, flex, flex_int, ints, packed_product, packed_weight,
    primitive_values, random, tensor, values, windows,
};
use longspan_kernels::{ops, reference};

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

#[test]
fn linear_layers_that_add_or_gate_equal_their_parts() {
    for (n, i, o) in [
        (1, 64, 33),
        (16, 129, 300),
        (17, 129, 300),
        (1025, 64, 257),
        (129, 1500, 17),
    ] {
        let x = tensor(random(51, n * i, 1.0), [n, i]);
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let weight = |seed| tensor(random(seed, o * i, 0.1), [o, i]).cast(dtype);
            let (up, gate) = (weight(52), weight(53));
            let products = reference::linear::<Flex>(flex(&x), flex(&up));
            let products = primitive_values(products);
            for rows in [n, 1] {
                let to = random(54, rows * o, 3.0);
                let expected = products.iter().zip(to.iter().cycle()).map(|(a, b)| a + b);
                let expected: Vec<f32> = expected.collect();
                let to = tensor(to, [rows, o]);
                // While another tensor shares its memory, `to` must not change.
                let (shared, before) = (to.clone(), values(to.clone()));
                let got = values(ops::linear_add(x.clone(), up.clone(), to));
                assert_close("shared", &got, &expected, i as f64 * 0.1);
                assert_eq!(values(shared.clone()), before);
                let got = values(ops::linear_add(x.clone(), up.clone(), shared));
                assert_close("owned", &got, &expected, i as f64 * 0.1);
            }
            let gates = reference::linear::<Flex>(flex(&x), flex(&gate));
            let products = tensor(products, [n, o]);
            let expected = reference::swiglu::<Flex>(flex(&products), gates);
            let got = values(ops::gated_linear(x.clone(), up, gate));
            let size = i as f64;
            assert_close("gated", &got, &primitive_values(expected), size);
        }
    }
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

/// Queries, keys and values as a layer has them, side by side in the rows of one buffer, and keys
/// and values as a cache has them, longer and of another type; `n` of every way of computing
/// attention.
#[test]
fn rotary_attention_equals_its_twin() {
    for (b, h, n, m, d, window) in [
        (1, 1, 1, 1, 16, 1),
        (2, 3, 17, 17, 16, 5),
        (1, 2, 129, 129, 64, 1000),
        (1, 3, 700, 700, 32, 300),
        (1, 2, 1, 1500, 128, 1500),
        (2, 2, 3, 129, 80, 40),
        (1, 2, 5, 300, 96, 270),
        (1, 1, 129, 17, 16, 17), // the first queries see no key
        (1, 2, 40, 1001, 256, 900),
    ] {
        let qkv = |seed, rows: usize| {
            let qkv = tensor(random(seed, b * rows * 3 * h * d, 1.0), [b, rows, 3 * h, d]);
            let part = |i| qkv.clone().narrow(2, i * h, h).swap_dims(1, 2);
            [part(0), part(1), part(2)]
        };
        let [q, ..] = qkv(31, n);
        let [_, k, v] = qkv(32, m);
        let table = |seed, rows| {
            let table = |seed| tensor(random(seed, rows * d / 2, 1.0), [rows, d / 2]);
            (table(seed), table(seed + 1))
        };
        let (q_table, k_table) = (table(33, n), table(35, m));
        let keys = ints(windows(n, m, window), [n, 2]);
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let (k, v) = (k.clone().cast(dtype), v.clone().cast(dtype));
            let pair = |(cos, sin): &(Tensor<2>, Tensor<2>)| (flex(cos), flex(sin));
            let expected = reference::rotary_attention::<Flex>(
                flex(&q),
                pair(&q_table),
                flex(&k),
                pair(&k_table),
                flex(&v),
                flex_int(&keys),
            );
            let (q, q_table, k_table) = (q.clone(), q_table.clone(), k_table.clone());
            let (output, lse) = ops::rotary_attention(q, q_table, k, k_table, v, keys.clone());
            let what = format!("n {n} m {m} d {d} window {window} {dtype:?}");
            let size = 1.0 + (d as f64).sqrt();
            assert_close(&what, &values(output), &primitive_values(expected.0), size);
            assert_close(&what, &values(lse), &primitive_values(expected.1), size);
        }
    }
}

/// Keys and values of 8 bits, against those they stand for.
#[test]
fn rotary_attention_over_8_bits_equals_that_over_their_values() {
    for (n, m) in [(1, 300), (4, 17), (40, 129)] {
        let (h, d) = (2, 32);
        let (k, k_line, k_values) = cached_8bit(41, [h, m, d]);
        let (v, v_line, v_values) = cached_8bit(43, [h, m, d]);
        let q = tensor(random(45, h * n * d, 1.0), [1, h, n, d]);
        let table = |seed, rows| {
            let table = |seed| tensor(random(seed, rows * d / 2, 1.0), [rows, d / 2]);
            (table(seed), table(seed + 1))
        };
        let (q_table, k_table) = (table(46, n), table(48, m));
        let keys = ints(windows(n, m, m), [n, 2]);
        let (expected, expected_lse) = ops::rotary_attention(
            q.clone(),
            q_table.clone(),
            tensor(k_values, [1, h, m, d]),
            k_table.clone(),
            tensor(v_values, [1, h, m, d]),
            keys.clone(),
        );
        let (k, v) = ((k, k_line), (v, v_line));
        let (output, lse) = ops::rotary_attention_8bit(q, q_table, k, k_table, v, keys);
        let what = format!("n {n} m {m}");
        assert_close(&what, &values(output), &values(expected), 4.0);
        assert_close(&what, &values(lse), &values(expected_lse), 4.0);
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

    // NaN stays NaN, also next to an empty side.
    let one = |x: f32| (tensor(vec![x], [1, 1, 1, 1]), tensor(vec![x], [1, 1, 1]));
    let empty = (
        tensor(vec![0.0], [1, 1, 1, 1]),
        tensor(vec![f32::NEG_INFINITY], [1, 1, 1]),
    );
    let got = ops::merge(one(f32::NAN), empty);
    assert!(values(got.0)[0].is_nan() && values(got.1)[0].is_nan());
}
