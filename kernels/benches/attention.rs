//! Times attention on the CPU against the machine's own rate of matrix products, and by length
//! under a window:
//!
//! ```text
//! cargo bench -p longspan-kernels --bench attention
//! ```
//!
//! Times are the fastest of several runs, which alternate with those of the matrix product that
//! they are compared with: other load on the machine only slows runs down.

use std::time::Instant;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use longspan_kernels::ops;

/// Runs of each.
const RUNS: usize = 20;
/// Width of a model: heads times components.
const WIDTH: usize = 256;
/// Rows, columns and depth of the matrix product.
const PRODUCT: [usize; 3] = [2048, 1024, 1024];

struct Bench {
    device: Device,
}

impl Bench {
    fn floats<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        let len = shape.iter().product();
        let values = (0..len).map(|i: usize| (i * 7919 % 1009) as f32 / 1009.0 - 0.5);
        let data = TensorData::new(values.collect::<Vec<f32>>(), shape);
        Tensor::from_data(data, (&self.device, DType::F32))
    }

    /// Causal attention over the last `window` keys, with rotation, and the operations that it
    /// cannot do without.
    fn attention(&self, n: usize, d: usize, window: usize) -> (Box<dyn Fn()>, f64) {
        let h = WIDTH / d;
        // As in a layer: side by side in the rows of one buffer.
        let qkv = self.floats([1, n, 3 * h, d]);
        let part = |i| qkv.clone().narrow(2, i * h, h).swap_dims(1, 2);
        let [q, k, v] = [part(0), part(1), part(2)];
        let table = (self.floats([n, d / 2]), self.floats([n, d / 2]));
        let ranges = (0..n).flat_map(|i| [(i + 1).saturating_sub(window), i + 1]);
        let ranges: Vec<i32> = ranges.map(|key| key as i32).collect();
        let pairs: i64 = ranges
            .chunks(2)
            .map(|keys| i64::from(keys[1] - keys[0]))
            .sum();
        let keys: Tensor<2, Int> =
            Tensor::from_data(TensorData::new(ranges, [n, 2]), (&self.device, DType::I32));
        let run = move || {
            let (q, k, v) = (q.clone(), k.clone(), v.clone());
            let output = ops::rotary_attention(q, table.clone(), k, table.clone(), v, keys.clone());
            std::hint::black_box(output);
        };
        (Box::new(run), 4.0 * (h * d) as f64 * pairs as f64)
    }
}

fn seconds(run: &dyn Fn()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

fn main() {
    let bench = Bench {
        device: Device::flex(),
    };
    let [n, o, i] = PRODUCT;
    let (x, weight) = (bench.floats([n, i]), bench.floats([o, i]));
    let product = move || {
        std::hint::black_box(ops::linear(x.clone(), weight.clone()));
    };
    let operations = (2 * n * o * i) as f64;

    println!("| causal | GFLOP/s | matrix product, GFLOP/s | share |");
    println!("|---|---:|---:|---:|");
    for d in [32, 64, 128] {
        for n in [1024, 4096] {
            let (attention, needed) = bench.attention(n, d, n);
            let mut fastest = [f64::INFINITY; 2];
            for _ in 0..RUNS {
                fastest[0] = fastest[0].min(seconds(&attention));
                fastest[1] = fastest[1].min(seconds(&product));
            }
            let rates = [needed / fastest[0] / 1e9, operations / fastest[1] / 1e9];
            println!(
                "| n {n}, d {d} | {:.1} | {:.1} | {:.0} % |",
                rates[0],
                rates[1],
                100.0 * rates[0] / rates[1]
            );
        }
    }

    println!("\n| d 64, window | n 2,048 | 4,096 | 8,192 | 16,384 | 32,768 |");
    println!("|---|---:|---:|---:|---:|---:|");
    for window in [256, 1024, 4096, usize::MAX] {
        let mut cells = Vec::new();
        for n in [2048, 4096, 8192, 16_384, 32_768] {
            let (attention, _) = bench.attention(n, 64, window);
            let runs = if window > n { 2 } else { 5 };
            let times = (0..runs).map(|_| seconds(&attention));
            let fastest = times.fold(f64::INFINITY, f64::min);
            cells.push(format!("{:.2}", fastest * 1e6 / n as f64));
        }
        let name = if window == usize::MAX {
            "all".to_owned()
        } else {
            window.to_string()
        };
        println!("| {name} | {} |", cells.join(" | "));
    }
    println!("\n(microseconds a token)");
}
