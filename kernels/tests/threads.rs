//! Results are the same bits for any number of threads.

mod host;

use burn::tensor::{DType, Tensor};
use host::{ints, packed_weight, random, tensor, values, windows};
use longspan_kernels::ops;
use rayon::ThreadPoolBuilder;

/// Runs `work` with 1, 2, 3 and 7 threads.
#[track_caller]
fn same_bits(what: &str, work: impl Fn() -> Vec<f32> + Sync) {
    let with = |threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build();
        let results = pool.unwrap().install(&work);
        results.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
    };
    let one = with(1);
    assert!(!one.is_empty(), "{what}");
    for threads in [2, 3, 7] {
        assert!(with(threads) == one, "{what}: {threads} threads");
    }
}

#[test]
fn products() {
    for n in [1, 3, 16, 17, 129, 700] {
        let (i, o) = (1056, 301);
        let x = tensor(random(1, n * i, 1.0), [n, i]);
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let weight = |seed| tensor(random(seed, o * i, 1.0), [o, i]).cast(dtype);
            let (up, gate) = (weight(2), weight(3));
            let to = tensor(random(4, n * o, 1.0), [n, o]);
            let what = format!("{n} rows, {dtype:?}");
            same_bits(&what, || values(ops::linear(x.clone(), up.clone())));
            same_bits(&what, || {
                values(ops::linear_add(x.clone(), up.clone(), to.clone()))
            });
            same_bits(&what, || {
                values(ops::gated_linear(x.clone(), up.clone(), gate.clone()))
            });
            let targets = ints((0..n as i32).map(|i| i * 37 % 301).collect(), [n]);
            same_bits(&what, || {
                values(ops::token_loss(x.clone(), up.clone(), targets.clone()))
            });
        }
        for bits in [4, 8] {
            let weight = packed_weight(o, i, bits, 128);
            same_bits(&format!("{n} rows, {bits} bits"), || {
                values(ops::packed_linear(x.clone(), &weight))
            });
        }
        let norm = tensor(random(5, i, 1.0), [i]);
        same_bits(&format!("norm of {n} rows"), || {
            values(ops::rms_norm(x.clone(), norm.clone(), 1e-6))
        });
    }
}

#[test]
fn attention() {
    for (n, m, d, window) in [
        (1usize, 1500usize, 64usize, 1500usize),
        (4, 1000, 32, 700),
        (129, 300, 80, 300),
        (700, 700, 64, 100),
    ] {
        let h = 3;
        let heads = |seed, rows: usize| tensor(random(seed, h * rows * d, 1.0), [1, h, rows, d]);
        let (q, k, v) = (heads(6, n), heads(7, m), heads(8, m));
        let table = |seed, rows: usize| -> (Tensor<2>, Tensor<2>) {
            let table = |seed| tensor(random(seed, rows * d / 2, 1.0), [rows, d / 2]);
            (table(seed), table(seed + 1))
        };
        let (q_table, k_table) = (table(9, n), table(11, m));
        let keys = ints(windows(n, m, window), [n, 2]);
        for dtype in [DType::F32, DType::BF16] {
            let (k, v) = (k.clone().cast(dtype), v.clone().cast(dtype));
            same_bits(&format!("n {n} m {m} d {d} {dtype:?}"), || {
                let (q_table, k_table) = (q_table.clone(), k_table.clone());
                let (k, v, keys) = (k.clone(), v.clone(), keys.clone());
                let (output, lse) = ops::rotary_attention(q.clone(), q_table, k, k_table, v, keys);
                [values(output), values(lse)].concat()
            });
        }
    }
}
