//! Merging of bands, and whole plans.

use burn::backend::Flex;
use burn::tensor::{DType, Tensor, TensorData};
use longspan_attention::{Band, LayerPlan, Plans, oracle};
use longspan_kernels::{PlanTensors, ops, reference};
use longspan_rope::Spectrum;

use crate::device::{Pair, check, device, in_every_type, read, read_flex, values, wide};
use crate::problems::{self, random};

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
        let plan = LayerPlan {
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
        };
        let plans = Plans::from_iter([plan]);
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
            &PlanTensors::for_layers(&plans, &device)[0],
        ));
        let rows = |values: &[f32]| -> Vec<Vec<f64>> {
            wide(values).chunks(d).map(<[f64]>::to_vec).collect()
        };
        let (exact, _) = oracle::attention(&plans[0], &rows(&q), &rows(&k), &rows(&v));
        for (i, (got, exact)) in got.iter().zip(exact.concat()).enumerate() {
            assert!(
                (*got as f64 - exact).abs() < 2e-5,
                "n {n} m {m} value {i}: {got} against {exact}"
            );
        }
    }
}
