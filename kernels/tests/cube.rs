//! Every GPU kernel against loops in float64, on the first GPU of this build's kinds. With wgpu, on a machine without a GPU,
//! that is Mesa's software Vulkan.
//!
//! A kernel may be off by twice what the slow twin is off in the same type, plus what adding and
//! subtracting 0.3 costs twice in that type. In attention it may also be off by what f32 logits of their size
//! leave open, since the twin adds up their products in another order. A device or a type that is missing is a skip, printed with the
//! number of checks; with `LONGSPAN_GPU_TESTS=strict` a missing device fails.
#![cfg(feature = "cube")]

mod device;
mod host;
mod problems;

use burn::backend::Flex;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use device::{Pair, check, device, in_every_type, ints, read, read_flex, swapped, values, wide};
use longspan_attention::{Band, LayerPlan, Plans, oracle};
use longspan_kernels::{KernelError, PackedWeight, PlanTensors, ops, reference, supported};
use longspan_rope::Spectrum;
use problems::random;

#[test]
fn rotary() {
    in_every_type("rotary", problems::ROTARY.len(), |device, dtype| {
        for p in problems::ROTARY {
            let (b, h, n, d) = (p.b, p.h, p.n, p.d);
            let x = values(1, b * n * h * d, 1.0, dtype);
            let (cos, sin) = (random(2, n * d / 2, 1.0), random(3, n * d / 2, 1.0));
            let mut exact = vec![0f64; b * h * n * d];
            for row in 0..b * h * n {
                let (batch, head, i) = (row / (h * n), row / n % h, row % n);
                let from = ((batch * n + i) * h + head) * d;
                for c in 0..d / 2 {
                    let (low, high) = (x[from + c] as f64, x[from + c + d / 2] as f64);
                    let at = i * d / 2 + c;
                    let (o, s) = (cos[at] as f64, sin[at] as f64);
                    exact[row * d + c] = low * o - high * s;
                    exact[row * d + c + d / 2] = high * o + low * s;
                }
            }
            let x = Pair::new(&x, [b, n, h, d], device, dtype).map(|x| x.swap_dims(1, 2));
            let cos = Pair::new(&cos, [n, d / 2], device, DType::F32);
            let sin = Pair::new(&sin, [n, d / 2], device, DType::F32);
            let plain = reference::rotary::<Flex>(x.flex(), cos.flex(), sin.flex());
            let got = ops::rotary(x.fast, cos.fast, sin.fast);
            let what = format!("{p:?}");
            check(
                &what,
                dtype,
                &read(got),
                &read_flex::<4>(plain),
                &exact,
                0.0,
            );
        }
    });
}

#[test]
fn attention() {
    in_every_type("attention", problems::ATTENTION.len(), |device, dtype| {
        for p in problems::ATTENTION {
            check_attention(p, device, dtype);
        }
    });
}

fn check_attention(p: problems::Attention, device: &Device, dtype: DType) {
    let (b, h, n, m, d) = (p.b, p.h, p.n, p.m, p.d);
    let q = values(4, b * h * n * d, p.scale, dtype);
    let k = values(5, b * h * m * d, p.scale, dtype);
    let v = values(6, b * h * m * d, 1.0, dtype);
    let ranges = p.ranges();
    // At position 0 nothing is turned, which makes the oracle one of plain attention.
    let plan = LayerPlan {
        bands: vec![Band {
            keys: ranges.chunks(2).map(|r| r[0] as u32..r[1] as u32).collect(),
            q_position: vec![0.0; n],
            k_position: vec![0.0; m],
            spectrum: Spectrum {
                inv_freq: vec![1.0; d / 2],
                mscale: 1.0,
            },
        }],
        query_scale: vec![1.0; n],
    };
    let rows = |values: &[f32], head: usize, len: usize| -> Vec<Vec<f64>> {
        wide(&values[head * len * d..(head + 1) * len * d])
            .chunks(d)
            .map(<[f64]>::to_vec)
            .collect()
    };
    let (mut exact, mut exact_lse) = (Vec::new(), Vec::new());
    for head in 0..b * h {
        let (output, lse) = oracle::attention(
            &plan,
            &rows(&q, head, n),
            &rows(&k, head, m),
            &rows(&v, head, m),
        );
        exact.extend(output.concat());
        exact_lse.extend(lse);
    }

    // A logit is a sum of d products, a quarter of scale^2 on average; an error of the logits is twice that
    // of an output, of values up to 1.
    let logit = d as f32 * p.scale * p.scale / 4.0 / (d as f32).sqrt();
    let slack = (2.0 * f32::EPSILON * logit) as f64;

    // As the model passes them: values lie as [b, n, h, d].
    let strided = |x: &[f32], len| {
        let x = swapped(x, [b, h, len, d]);
        Pair::new(&x, [b, len, h, d], device, dtype).map(|x| x.swap_dims(1, 2))
    };
    let q = Pair::new(&q, [b, h, n, d], device, dtype);
    let (k, v) = (strided(&k, m), strided(&v, m));
    let keys = ints(&ranges, [n, 2], &Device::flex());
    let keys = keys.try_into_primitive::<Flex>().unwrap();
    let plain = reference::attention::<Flex>(q.flex(), k.flex(), v.flex(), keys);
    let keys = ints(&ranges, [n, 2], device);
    let (output, lse) = ops::attention(q.fast, k.fast, v.fast, keys);
    let what = format!("{p:?}");
    check(
        &what,
        dtype,
        &read(output),
        &read_flex::<4>(plain.0),
        &exact,
        slack,
    );
    let what = format!("{what}: log-sum-exp");
    check(
        &what,
        DType::F32,
        &read(lse),
        &read_flex::<3>(plain.1),
        &exact_lse,
        slack,
    );
}

/// Queries, keys and heads' sizes.
const ROTARY_ATTENTION: [(usize, usize, usize); 4] =
    [(1, 1, 16), (17, 129, 32), (129, 129, 64), (1, 1000, 128)];

/// Queries and keys turned by tables of their own, and attention over them.
#[test]
fn rotary_attention() {
    in_every_type(
        "rotary_attention",
        ROTARY_ATTENTION.len(),
        |device, dtype| {
            for sizes @ (_, m, d) in ROTARY_ATTENTION {
                // As the model passes them: of one buffer [m, h, d] of each.
                let strided = |seed| {
                    let x = values(seed, m * HEADS * d, 1.0, dtype);
                    let pair = |held| Pair::new(&x, [1, m, HEADS, d], device, held);
                    [pair(dtype), pair(DType::F32)].map(|x| x.map(|x| x.swap_dims(1, 2)))
                };
                let (k, v) = (strided(21), strided(22));
                let held = [k[0].fast.clone(), v[0].fast.clone()];
                check_rotary_attention(
                    sizes,
                    device,
                    dtype,
                    [k, v],
                    |q, q_table, k_table, keys| {
                        let [k, v] = held;
                        ops::rotary_attention(q, q_table, k, k_table, v, keys)
                    },
                );
            }
        },
    );
}

/// The same over a cache of 8 bits, against the values that it stands for.
#[test]
fn rotary_attention_8bit() {
    let checks = ROTARY_ATTENTION.len();
    in_every_type("rotary_attention_8bit", checks, |device, dtype| {
        for sizes @ (_, m, d) in ROTARY_ATTENTION {
            let cached = |seed| {
                let (words, lines, values) = host::cached_8bit(seed, [HEADS, m, d]);
                let pair = |held| Pair::new(&values, [1, HEADS, m, d], device, held);
                let held = (words.to_device(device), lines.to_device(device));
                (held, [pair(dtype), pair(DType::F32)])
            };
            let ((k, k_values), (v, v_values)) = (cached(21), cached(23));
            let values = [k_values, v_values];
            check_rotary_attention(sizes, device, dtype, values, |q, q_table, k_table, keys| {
                ops::rotary_attention_8bit(q, q_table, k, k_table, v, keys)
            });
        }
    });
}

const HEADS: usize = 2;

/// Against the twin in the same type, and in f32, given keys and values in both.
fn check_rotary_attention(
    (n, m, d): (usize, usize, usize),
    device: &Device,
    dtype: DType,
    [k, v]: [[Pair<4>; 2]; 2],
    attend: impl FnOnce(Tensor<4>, Table, Table, Tensor<2, Int>) -> (Tensor<4>, Tensor<3>),
) {
    let x = values(20, n * HEADS * d, 1.0, dtype);
    let q = [dtype, DType::F32].map(|held| {
        let q = Pair::new(&x, [1, n, HEADS, d], device, held);
        q.map(|q| q.swap_dims(1, 2))
    });
    let table = |seed, len: usize| {
        let values = random(seed, len * d / 2, 1.0);
        Pair::new(&values, [len, d / 2], device, DType::F32)
    };
    let [q_cos, q_sin] = [25, 26].map(|seed| table(seed, n));
    let [k_cos, k_sin] = [27, 28].map(|seed| table(seed, m));
    let ranges: Vec<i32> = (0..n).flat_map(|i| [0, (m - n + i + 1) as i32]).collect();
    let [plain, exact] = [0, 1].map(|i| {
        let keys = ints(&ranges, [n, 2], &Device::flex());
        reference::rotary_attention::<Flex>(
            q[i].flex(),
            (q_cos.flex(), q_sin.flex()),
            k[i].flex(),
            (k_cos.flex(), k_sin.flex()),
            v[i].flex(),
            keys.try_into_primitive::<Flex>().unwrap(),
        )
    });
    let [q, _] = q.map(|q| q.fast);
    let (q_table, k_table) = ((q_cos.fast, q_sin.fast), (k_cos.fast, k_sin.fast));
    let (output, lse) = attend(q, q_table, k_table, ints(&ranges, [n, 2], device));
    let what = format!("n {n} m {m} d {d}");
    // The twin turns keys in f32; here they are rounded once more, which a logit of this size shows.
    let logit = (d as f64).sqrt() / 4.0;
    let slack = 1e-6 + logit * dtype.finfo().unwrap().epsilon / 2.0;
    let exact_output = wide(&read_flex::<4>(exact.0));
    let (output, plain_output) = (read(output), read_flex::<4>(plain.0));
    check(&what, dtype, &output, &plain_output, &exact_output, slack);
    let exact_lse = wide(&read_flex::<3>(exact.1));
    let (lse, plain_lse) = (read(lse), read_flex::<3>(plain.1));
    check(&what, dtype, &lse, &plain_lse, &exact_lse, slack);
}

type Table = (Tensor<2>, Tensor<2>);

#[test]
fn merge() {
    in_every_type("merge", problems::MERGE.len(), |device, dtype| {
        for p in problems::MERGE {
            let (b, h, n, d) = (p.b, p.h, p.n, p.d);
            let a = values(7, b * n * h * d, 1.0, dtype);
            let c = values(8, b * n * h * d, 1.0, dtype);
            let (mut a_lse, mut c_lse) = (random(9, b * h * n, 30.0), random(10, b * h * n, 30.0));
            if a_lse.len() > 3 {
                a_lse[0] = f32::NEG_INFINITY;
                c_lse[1] = f32::NEG_INFINITY;
                // Neither side sees a key.
                (a_lse[2], c_lse[2]) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
            }
            let mut exact = vec![0f64; b * h * n * d];
            let mut exact_lse = vec![f64::NEG_INFINITY; b * h * n];
            for row in 0..b * h * n {
                let (batch, head, i) = (row / (h * n), row / n % h, row % n);
                let from = ((batch * n + i) * h + head) * d;
                let (x, y) = (a_lse[row] as f64, c_lse[row] as f64);
                let max = x.max(y);
                if max == f64::NEG_INFINITY {
                    continue;
                }
                let (x, y) = ((x - max).exp(), (y - max).exp());
                exact_lse[row] = max + (x + y).ln();
                for e in 0..d {
                    exact[row * d + e] =
                        (x * a[from + e] as f64 + y * c[from + e] as f64) / (x + y);
                }
            }
            let output =
                |x: &[f32]| Pair::new(x, [b, n, h, d], device, dtype).map(|x| x.swap_dims(1, 2));
            let lse = |x: &[f32]| Pair::new(x, [b, h, n], device, DType::F32);
            let (a, c, a_lse, c_lse) = (output(&a), output(&c), lse(&a_lse), lse(&c_lse));
            let plain = reference::merge::<Flex>(a.flex(), a_lse.flex(), c.flex(), c_lse.flex());
            let got = ops::merge((a.fast, a_lse.fast), (c.fast, c_lse.fast));
            let what = format!("{p:?}");
            check(
                &what,
                dtype,
                &read(got.0),
                &read_flex::<4>(plain.0),
                &exact,
                0.0,
            );
            let what = format!("{what}: log-sum-exp");
            check(
                &what,
                DType::F32,
                &read(got.1),
                &read_flex::<3>(plain.1),
                &exact_lse,
                0.0,
            );
        }
    });
}

#[test]
fn rms_norm() {
    in_every_type("rms_norm", problems::ROWS.len(), |device, dtype| {
        for p in problems::ROWS {
            let x = values(11, p.n * p.c, p.scale, dtype);
            // Norm weights are f32 whatever the activations are.
            let weight = random(12, p.c, 2.0);
            let epsilon = 1e-6;
            let mut exact = Vec::new();
            for row in wide(&x).chunks(p.c) {
                let mean = row.iter().map(|x| x * x).sum::<f64>() / p.c as f64;
                let rms = (mean + epsilon).sqrt();
                exact.extend(row.iter().zip(&weight).map(|(x, &w)| x / rms * w as f64));
            }
            // Rows are read in place also where they lie as columns.
            let x = swapped(&x, [1, p.n, p.c, 1]);
            let x = Pair::new(&x, [p.c, p.n], device, dtype).map(|x| x.swap_dims(0, 1));
            let weight = Pair::new(&weight, [p.c], device, DType::F32);
            let plain = reference::rms_norm::<Flex>(x.flex(), weight.flex(), epsilon);
            let got = ops::rms_norm(x.fast, weight.fast, epsilon);
            let what = format!("{p:?}");
            check(
                &what,
                dtype,
                &read(got),
                &read_flex::<2>(plain),
                &exact,
                0.0,
            );
        }
    });
}

#[test]
fn swiglu() {
    in_every_type("swiglu", problems::ROWS.len(), |device, dtype| {
        for p in problems::ROWS {
            let up = values(13, p.n * p.c, 1.0, dtype);
            let gate = values(14, p.n * p.c, p.scale, dtype);
            let exact: Vec<f64> = up
                .iter()
                .zip(&gate)
                .map(|(&up, &gate)| up as f64 * gate as f64 / (1.0 + (-gate as f64).exp()))
                .collect();
            let up = Pair::new(&up, [p.n, p.c], device, dtype);
            let as_columns = swapped(&gate, [1, p.n, p.c, 1]);
            let as_columns = Pair::new(&as_columns, [p.c, p.n], device, dtype);
            let gate = Pair::new(&gate, [p.n, p.c], device, dtype);
            let plain = reference::swiglu::<Flex>(up.flex(), gate.flex());
            let plain = read_flex::<2>(plain);
            let got = ops::swiglu(up.fast.clone(), gate.fast);
            check(&format!("{p:?}"), dtype, &read(got), &plain, &exact, 0.0);
            let got = ops::swiglu(up.fast, as_columns.fast.swap_dims(0, 1));
            check(
                &format!("{p:?}, columns"),
                dtype,
                &read(got),
                &plain,
                &exact,
                0.0,
            );
        }
    });
}

#[test]
fn packed_linear() {
    in_every_type("packed_linear", problems::PACKED.len(), |device, dtype| {
        for p in problems::PACKED {
            let x = values(27, p.n * p.i, 1.0, dtype);
            let weight = host::packed_weight(p.o, p.i, p.bits, p.group);
            let exact = host::packed_product(&x, &weight);
            let x = Pair::new(&x, [p.n, p.i], device, dtype);
            let plain = reference::packed_linear::<Flex>(
                x.flex(),
                host::flex_int(&weight.words),
                host::flex_int(&weight.zeros),
                host::flex(&weight.scales),
                p.bits,
                p.group,
            );
            // The same numbers where the device has no f16.
            let scales = match supported(device, 16, &[DType::F32, DType::F16]) {
                Ok(()) => weight.scales,
                Err(_) => weight.scales.cast(DType::F32),
            };
            let weight = PackedWeight {
                words: weight.words.to_device(device),
                zeros: weight.zeros.to_device(device),
                scales: scales.to_device(device),
                ..weight
            };
            let got = read(ops::packed_linear(x.fast, &weight));
            let what = format!("{p:?}");
            // Products of values up to 1, added up in another order.
            let slack = f64::from(f32::EPSILON) * (p.i as f64).sqrt();
            check(&what, dtype, &got, &read_flex::<2>(plain), &exact, slack);
        }
    });
}

#[test]
fn token_loss() {
    in_every_type("token_loss", problems::LOSS.len(), |device, dtype| {
        for p in problems::LOSS {
            let hidden = values(15, p.n * p.c, p.scale, dtype);
            let head = values(16, p.v * p.c, 1.0, dtype);
            let targets: Vec<i32> = (0..p.n).map(|i| (i * 7919 % p.v) as i32).collect();
            let (wide_hidden, wide_head) = (wide(&hidden), wide(&head));
            let exact: Vec<f64> = wide_hidden
                .chunks(p.c)
                .zip(&targets)
                .map(|(row, &target)| {
                    let logit =
                        |word: &[f64]| -> f64 { row.iter().zip(word).map(|(a, b)| a * b).sum() };
                    let logits: Vec<f64> = wide_head.chunks(p.c).map(logit).collect();
                    let max = logits.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(x));
                    let sum: f64 = logits.iter().map(|x| (x - max).exp()).sum();
                    max + sum.ln() - logits[target as usize]
                })
                .collect();
            let hidden = Pair::new(&hidden, [p.n, p.c], device, dtype);
            let head = Pair::new(&head, [p.v, p.c], device, dtype);
            let on_cpu = ints(&targets, [p.n], &Device::flex());
            let on_cpu = on_cpu.try_into_primitive::<Flex>().unwrap();
            let plain = reference::token_loss::<Flex>(hidden.flex(), head.flex(), on_cpu);
            let got = ops::token_loss(hidden.fast, head.fast, ints(&targets, [p.n], device));
            let what = format!("{p:?}");
            check(
                &what,
                DType::F32,
                &read(got),
                &read_flex::<1>(plain),
                &exact,
                0.0,
            );
        }
    });
}

/// A window, a far band with positions of its own and sinks, merged: the whole path of a plan.
#[test]
fn bands_are_merged_as_the_oracle_does() {
    let Some(device) = device("bands", 3) else {
        return;
    };
    let spectrum = |d: usize, base: f64, mscale| Spectrum {
        inv_freq: (0..d / 2)
            .map(|i| base.powf(-2.0 * i as f64 / d as f64))
            .collect(),
        mscale,
    };
    for (n, m, d) in [(17usize, 129usize, 16usize), (129, 129, 64), (1, 1000, 32)] {
        let end = |i: usize| (m - n + i + 1) as u32;
        let (sinks, near) = (4u32, 20u32);
        let near_start = |i: usize| end(i).saturating_sub(near).max(sinks.min(end(i)));
        let band = |keys: Vec<std::ops::Range<u32>>, base, mscale, far: bool| Band {
            keys,
            q_position: (0..n)
                .map(|i| if far { near as f64 } else { (m - n + i) as f64 })
                .collect(),
            k_position: (0..m)
                .map(|j| if far { j as f64 * 0.125 } else { j as f64 })
                .collect(),
            spectrum: spectrum(d, base, mscale),
        };
        let plan = (LayerPlan {
            bands: vec![
                band(
                    (0..n).map(|i| near_start(i)..end(i)).collect(),
                    1e4,
                    1.0,
                    false,
                ),
                band(
                    (0..n).map(|i| sinks.min(end(i))..near_start(i)).collect(),
                    500.0,
                    1.1,
                    true,
                ),
                band(
                    (0..n).map(|i| 0..sinks.min(end(i))).collect(),
                    1e4,
                    1.0,
                    false,
                ),
            ],
            query_scale: (0..n).map(|i| 1.0 + i as f64 / 100.0).collect(),
        });
        let tensor = |values: &[f32], len| {
            let data = TensorData::new(values.to_vec(), [1, 1, len, d]);
            Tensor::<4>::from_data(data, (&device, DType::F32))
        };
        let (q, k, v) = (
            random(17, n * d, 2.0),
            random(18, m * d, 2.0),
            random(19, m * d, 1.0),
        );
        let got = read(ops::banded_attention(
            tensor(&q, n),
            tensor(&k, m),
            tensor(&v, m),
            &PlanTensors::for_layers(&Plans::from_iter([plan.clone()]), &device)[0],
        ));
        let rows = |values: &[f32]| -> Vec<Vec<f64>> {
            wide(values).chunks(d).map(<[f64]>::to_vec).collect()
        };
        let (exact, _) = oracle::attention(&plan, &rows(&q), &rows(&k), &rows(&v));
        for (i, (got, exact)) in got.iter().zip(exact.concat()).enumerate() {
            assert!(
                (*got as f64 - exact).abs() < 2e-5,
                "n {n} m {m} value {i}: {got} against {exact}"
            );
        }
    }
}

#[test]
fn what_is_not_a_number_stays_so() {
    let Some(device) = device("not a number", 2) else {
        return;
    };
    let q = Tensor::<4>::full([1, 1, 2, 16], f32::NAN, (&device, DType::F32));
    let k = Tensor::<4>::ones([1, 1, 2, 16], (&device, DType::F32));
    let (output, lse) = ops::attention(q, k.clone(), k, ints(&[0, 1, 0, 2], [2, 2], &device));
    assert!(read(output.clone()).iter().all(|x| x.is_nan()));
    assert!(read(lse.clone()).iter().all(|x| x.is_nan()));
    let empty = (
        Tensor::zeros([1, 1, 2, 16], (&device, DType::F32)),
        Tensor::full([1, 1, 2], f32::NEG_INFINITY, (&device, DType::F32)),
    );
    let merged = ops::merge((output, lse), empty);
    assert!(read(merged.0).iter().all(|x| x.is_nan()));
    assert!(read(merged.1).iter().all(|x| x.is_nan()));
}

#[test]
fn what_no_kernel_does_is_an_error() {
    let Some(device) = device("errors", 2) else {
        return;
    };
    let error = supported(&device, 40, &[DType::F32]).unwrap_err();
    assert!(
        matches!(error, KernelError::HeadSize { d: 40, .. }),
        "{error}"
    );
    let error = supported(&device, 64, &[DType::F32, DType::F64]).unwrap_err();
    assert!(error.to_string().contains("F64"), "{error}");
}
