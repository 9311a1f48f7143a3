//! Tensors on the CPU, made and compared.
// Each test target uses a part of this.
#![allow(dead_code)]

use burn::backend::Flex;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use longspan_kernels::PackedWeight;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Same formula in f32, other order of additions (`rel`, `abs`).
pub const TOLERANCE: (f64, f64) = (1e-5, 2e-6);

pub fn device() -> Device {
    Device::flex()
}

pub fn random(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..len)
        .map(|_| scale * (rng.random::<f32>() * 2.0 - 1.0))
        .collect()
}

pub fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), (&device(), DType::F32))
}

pub fn ints<const D: usize>(values: Vec<i32>, shape: [usize; D]) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values, shape), (&device(), DType::I32))
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// The `Flex` primitive of a tensor, for calling the twins.
pub fn flex<const D: usize>(tensor: &Tensor<D>) -> burn::backend::tensor::FloatTensor<Flex> {
    tensor.clone().try_into_primitive::<Flex>().unwrap()
}

pub fn flex_int<const D: usize>(tensor: &Tensor<D, Int>) -> burn::backend::tensor::IntTensor<Flex> {
    tensor.clone().try_into_primitive::<Flex>().unwrap()
}

pub fn primitive_values(primitive: burn::backend::tensor::FloatTensor<Flex>) -> Vec<f32> {
    primitive.into_data().try_to_vec().unwrap()
}

#[track_caller]
pub fn assert_close(what: &str, got: &[f32], expected: &[f32], scale: f64) {
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

/// Key ranges of a causal window, bottom-right aligned when there are more keys than queries.
pub fn windows(n: usize, m: usize, window: usize) -> Vec<i32> {
    (0..n)
        .flat_map(|i| {
            let end = (m + i + 1).saturating_sub(n);
            [end.saturating_sub(window) as i32, end as i32]
        })
        .collect()
}

/// A weight of random words, whose scales keep its values at about 1.
pub fn packed_weight(o: usize, i: usize, bits: usize, group: usize) -> PackedWeight {
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
pub fn packed_product(x: &[f32], weight: &PackedWeight) -> Vec<f64> {
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

/// Keys or values `[1, h, m, d]` of a cache of 8 bits: random words and lines, and the values they
/// stand for.
pub fn cached_8bit(seed: u64, [h, m, d]: [usize; 3]) -> (Tensor<4, Int>, Tensor<4>, Vec<f32>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let words: Vec<i32> = (0..h * m * d / 4).map(|_| rng.random()).collect();
    let lines = random(seed + 1, h * m * 2, 0.01);
    let rows = words.chunks(d / 4).zip(lines.chunks(2));
    let values = rows.flat_map(|(words, line)| {
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        bytes.map(move |q| f32::from(q) * line[0] + line[1])
    });
    let values = values.collect();
    (
        ints(words, [1, h, m, d / 4]),
        tensor(lines, [1, h, m, 2]),
        values,
    )
}
