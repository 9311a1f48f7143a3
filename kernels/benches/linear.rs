//! Times linear layers of a few rows on the CPU, as decoding has them, against reading memory:
//!
//! ```text
//! cargo bench -p longspan-kernels --bench linear
//! cargo bench -p longspan-kernels --bench linear -- 1 bf16 int4    # these rows, these types
//! ```
//!
//! Each line: rows of `x`, the type of the weight, the weight's bytes over the time of a product
//! (the fastest of several, each with another weight, so that none is in a nearby cache), and that
//! rate as a share of the rate at which the same bytes are summed.

use std::time::Instant;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use longspan_kernels::{PackedWeight, ops};
use rayon::prelude::*;

/// Outputs and inputs of the widest matrices of Qwen-1.8B and Qwen-7B.
const SHAPES: [[usize; 2]; 3] = [[5504, 2048], [2048, 5504], [4096, 11008]];
/// Types of weights; packed ones with the size of a group, -1 for all inputs.
const TYPES: [&str; 8] = [
    "f32",
    "bf16",
    "f16",
    "int8 g128",
    "int4 g128",
    "int4 g-1",
    "int4 g32",
    "int4 g20",
];
/// Rows of `x`; the last is more than few.
const ROWS: [usize; 5] = [1, 2, 4, 16, 17];
/// Bytes of the weights of a run.
const BYTES: usize = 1 << 29;
/// Timed runs.
const RUNS: usize = 4;

/// A product with a weight.
type Layer = Box<dyn Fn(Tensor<2>) -> Tensor<2>>;

/// Seconds of the fastest run: other load on the machine only slows runs down.
fn fastest<T, R>(pieces: &[T], work: impl Fn(&T) -> R) -> f64 {
    let runs = std::iter::repeat_n(pieces, RUNS).flatten();
    let times = runs.map(|piece| {
        let start = Instant::now();
        std::hint::black_box(work(piece));
        start.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}

/// Bytes a second at which all threads together sum up memory, `bytes` at a time.
fn read_rate(memory: &[u64], bytes: usize) -> f64 {
    let pieces: Vec<&[u64]> = memory.chunks_exact(bytes / 8).collect();
    let sum = |piece: &&[u64]| -> u64 {
        let tasks = piece.par_chunks(1 << 13);
        let sums = tasks.map(|task| task.iter().fold(0u64, |sum, x| sum.wrapping_add(*x)));
        sums.reduce(|| 0, u64::wrapping_add)
    };
    bytes as f64 / fastest(&pieces, sum)
}

fn floats(shape: [usize; 2], dtype: DType, device: &Device) -> Tensor<2> {
    let values = (0..shape[0] * shape[1]).map(|i| (i * 7919 % 1009) as f32 / 1009.0 - 0.5);
    let data = TensorData::new(values.collect::<Vec<f32>>(), shape).convert_dtype(dtype);
    Tensor::from_data(data, (device, dtype))
}

fn ints(shape: [usize; 2], device: &Device) -> Tensor<2, Int> {
    let values = (0..shape[0] * shape[1]).map(|i| (i as i32).wrapping_mul(0x9E37_79B9u32 as i32));
    let data = TensorData::new(values.collect::<Vec<i32>>(), shape);
    Tensor::from_data(data, (device, DType::I32))
}

/// The product with a weight of type `name`, and the weight's bytes.
fn layer(name: &str, [o, i]: [usize; 2], device: &Device) -> (Layer, usize) {
    let dense = |dtype: DType| -> (Layer, usize) {
        let weight = floats([o, i], dtype, device);
        let layer = move |x| ops::linear(x, weight.clone());
        (Box::new(layer), o * i * dtype.size())
    };
    let packed = |bits: usize, group: usize| -> (Layer, usize) {
        let groups = i.div_ceil(group);
        let zeros = (groups * bits).div_ceil(32);
        let weight = PackedWeight {
            words: ints([o, i * bits / 32], device),
            zeros: ints([o, zeros], device),
            scales: floats([o, groups], DType::F16, device),
            bits,
            group,
            order: None,
        };
        (
            Box::new(move |x| ops::packed_linear(x, &weight)),
            o * (i * bits / 8 + 4 * zeros + 2 * groups),
        )
    };
    match name {
        "f32" => dense(DType::F32),
        "bf16" => dense(DType::BF16),
        "f16" => dense(DType::F16),
        "int8 g128" => packed(8, 128),
        "int4 g128" => packed(4, 128),
        "int4 g32" => packed(4, 32),
        "int4 g-1" => packed(4, i),
        "int4 g20" => packed(4, 20),
        _ => unreachable!("{name}"),
    }
}

fn main() {
    let device = Device::flex();
    let given: Vec<String> = std::env::args().skip(1).collect();
    let given: Vec<String> = given
        .into_iter()
        .filter(|word| !word.starts_with('-'))
        .collect();
    let (rows, types): (Vec<&String>, Vec<&String>) =
        (given.iter()).partition(|word| word.parse::<usize>().is_ok());
    let row_wanted = |n: usize| rows.is_empty() || rows.iter().any(|row| **row == n.to_string());
    let type_wanted =
        |name: &str| types.is_empty() || types.iter().any(|word| name.contains(word.as_str()));
    let memory: Vec<u64> = (0..BYTES as u64 / 8).collect();
    println!("{} threads\n", rayon::current_num_threads());
    println!("| o x i | type | rows | GB/s | of reading | ms |");
    println!("|---|---|---:|---:|---:|---:|");
    for [o, i] in SHAPES {
        for name in TYPES.into_iter().filter(|name| type_wanted(name)) {
            let (first, bytes) = layer(name, [o, i], &device);
            let others = (bytes..BYTES).step_by(bytes);
            let others = others.map(|_| layer(name, [o, i], &device).0);
            let layers: Vec<Layer> = std::iter::once(first).chain(others).collect();
            for n in ROWS.into_iter().filter(|n| row_wanted(*n)) {
                let x = floats([n, i], DType::F32, &device);
                let read = read_rate(&memory, bytes);
                let seconds = fastest(&layers, |layer| layer(x.clone()));
                let rate = bytes as f64 / seconds;
                println!(
                    "| {o} x {i} | {name} | {n} | {:.1} | {:.0} % | {:.3} |",
                    rate / 1e9,
                    100.0 * rate / read,
                    seconds * 1e3,
                );
            }
        }
    }
}
