//! Banded attention, and the plans of methods, against the float64 oracle.

mod host;

use host::{assert_close, device, ints, random, tensor, values, windows};
use longspan_attention::{Band, LayerPlan, Method, Model, Plans, oracle};
use longspan_kernels::{PlanTensors, ops};
use longspan_rope::{Length, Rope, Spectrum};

/// Runs a plan through the tensors and through the oracle.
fn check_plan(plan: &LayerPlan, n: usize, m: usize, d: usize) {
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
        &PlanTensors::for_layers(&Plans::from_iter([plan.clone()]), &device())[0],
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
    // At position 0 nothing is rotated.
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
            let plans = method.plan(&model, Length::whole(n)).unwrap();
            for plan in plans.distinct() {
                check_plan(plan, n, n, 16);
            }
        }
    }
}

/// Bands with positions and frequencies of their own, as ReRoPE or chunked methods have them, and
/// more keys than queries.
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
    let plan = LayerPlan {
        bands: vec![near_band, far_band],
        query_scale: (0..n).map(|i| 1.0 + i as f64 / 10.0).collect(),
    };
    check_plan(&plan, n, m, d);
}
