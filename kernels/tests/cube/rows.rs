//! Kernels that work row by row.

use burn::backend::Flex;
use burn::tensor::DType;
use longspan_kernels::{ops, reference};

use crate::device::{Pair, check, in_every_type, read, read_flex, swapped, values, wide};
use crate::problems::{self, random};

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
