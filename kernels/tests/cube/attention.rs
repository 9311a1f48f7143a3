//! Attention over one band.

use burn::backend::Flex;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use longspan_attention::{Band, LayerPlan, oracle};
use longspan_kernels::{ops, reference};
use longspan_rope::Spectrum;

use crate::device::{
    Pair, check, device, in_every_type, ints, read, read_flex, swapped, values, wide,
};
use crate::host;
use crate::problems::{self, random};

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
    // At position 0 nothing is rotated: this is plain attention.
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

    // A logit is a sum of d products, a quarter of scale^2 on average; an error of the logits is
    // twice that of an output, of values up to 1.
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

/// Attention over rotated keys, with a table each for queries and keys.
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

/// The same over an 8-bit cache, against the values that it stands for.
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
    // The twin keeps rotated keys in f32; the kernel rounds them, which changes a logit of this
    // size.
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

/// More heads than a grid has rows: WebGPU promises 65,535.
#[test]
fn attention_of_many_heads() {
    let Some(device) = device("attention of many heads", 1) else {
        return;
    };
    let (b, d) = (65_540, 16);
    let x = Tensor::<4>::from_data(
        TensorData::new(random(31, b * d, 1.0), [b, 1, 1, d]),
        (&device, DType::F32),
    );
    // Of one key the output is its value.
    let (output, lse) = ops::attention(
        x.clone(),
        x.clone(),
        x.clone(),
        ints(&[0, 1], [1, 2], &device),
    );
    assert_eq!(lse.dims(), [b, 1, 1]);
    let (output, x) = (read(output), read(x));
    let wrong = output
        .iter()
        .zip(&x)
        .position(|(a, b)| (a - b).abs() > 1e-6);
    assert_eq!((output.len(), wrong), (x.len(), None));
}
