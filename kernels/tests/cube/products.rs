//! Products with packed matrices, and the loss.

use burn::backend::Flex;
use burn::tensor::{DType, Device};
use longspan_kernels::{PackedWeight, ops, reference, supported};

use crate::device::{Pair, check, in_every_type, ints, read, read_flex, values, wide};
use crate::host;
use crate::problems;

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
