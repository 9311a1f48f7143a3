//! Times every kernel on the first GPU of this build, as the tables of `docs/gpu.md`:
//!
//! ```text
//! cargo bench -p longspan-kernels --bench kernels --features cuda            # the large problems
//! cargo bench -p longspan-kernels --bench kernels --features wgpu -- small   # those of the tests
//! ```
//!
//! Each line: the problem; its time, the median of several runs after one that compiles, each ended
//! by a wait for the device; its rate; the share of the rate measured on the device just before (of
//! a copy where memory bounds, of a matrix product for attention); the time of the slow twin,
//! burn's own operations on the same device; and for attention that of cubek's where it supports
//! the problem.

#[path = "../tests/problems/mod.rs"]
mod problems;

#[cfg(not(feature = "cube"))]
fn main() {
    println!("no GPU in this build: give --features cuda, rocm, metal or wgpu");
}

#[cfg(feature = "cube")]
fn main() {
    gpu::main();
}

#[cfg(feature = "cube")]
mod gpu {
    use std::time::Instant;

    use burn::backend::tensor::{FloatTensor, IntTensor};
    use burn::tensor::ops::AttentionModuleOptions;
    use burn::tensor::{DType, Device, DeviceType, Int, Tensor, TensorData};
    use burn_cubecl::CubeBackend;
    use burn_cubecl::kernel::attention::flash_attention;
    use cubek::attention::forward::launch::{BlueprintStrategy::Inferred, Strategy};
    use cubek::attention::forward::routines::blackbox_accelerated::BlackboxAcceleratedStrategy;
    use longspan_kernels::{PackedWeight, device_kind, ops, reference, supported};

    use crate::problems::{self, random};

    /// Timed runs of a problem.
    const RUNS: usize = 5;
    /// Bytes of logits above which the slow twin of attention is not run.
    const TWIN_BYTES: usize = 8 << 30;

    fn devices() -> Vec<Device> {
        let kinds: &[DeviceType] = &[
            #[cfg(feature = "cuda")]
            DeviceType::Cuda,
            #[cfg(feature = "rocm")]
            DeviceType::Rocm,
            #[cfg(feature = "metal")]
            DeviceType::Metal,
            #[cfg(feature = "wgpu")]
            DeviceType::Wgpu,
        ];
        (kinds.iter().cloned())
            .flat_map(|kind| Device::enumerate(kind).into_vec())
            .collect()
    }

    struct Bench {
        device: Device,
        dtype: DType,
        /// Bytes a second of a copy.
        bandwidth: f64,
        /// Operations a second of a matrix product.
        compute: f64,
    }

    pub fn main() {
        let small = std::env::args().any(|arg| arg == "small");
        let Some(device) = devices().into_iter().next() else {
            println!("no GPU on this machine");
            return;
        };
        let types = [DType::BF16, DType::F16, DType::F32];
        for dtype in types {
            if let Err(error) = supported(&device, 128, &[DType::F32, dtype]) {
                println!("{dtype:?}: {error}\n");
                continue;
            }
            let mut bench = Bench {
                device: device.clone(),
                dtype,
                bandwidth: 0.0,
                compute: 0.0,
            };
            bench.measure_device(if small { 256 } else { 8192 });
            bench.run(small);
        }
    }

    impl Bench {
        fn tensor<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
            let len = shape.iter().product();
            let data = TensorData::new(random(1, len, 1.0), shape).convert_dtype(self.dtype);
            Tensor::from_data(data, (&self.device, self.dtype))
        }

        fn ints<const D: usize>(&self, values: Vec<i32>, shape: [usize; D]) -> Tensor<D, Int> {
            Tensor::from_data(TensorData::new(values, shape), (&self.device, DType::I32))
        }

        /// Median seconds of `work`.
        fn seconds<T>(&self, work: impl Fn() -> T) -> f64 {
            let once = || {
                let start = Instant::now();
                drop(work());
                self.device.sync().expect("the device works");
                start.elapsed().as_secs_f64()
            };
            once();
            let mut runs: Vec<f64> = (0..RUNS).map(|_| once()).collect();
            runs.sort_by(f64::total_cmp);
            runs[RUNS / 2]
        }

        fn measure_device(&mut self, side: usize) {
            let x = self.tensor([side, side]);
            let bytes = 2.0 * (side * side * self.dtype.size()) as f64;
            self.bandwidth = bytes / self.seconds(|| x.clone().mul_scalar(1.5));
            let flops = 2.0 * (side as f64).powi(3);
            self.compute = flops / self.seconds(|| x.clone().matmul(x.clone()));
            println!(
                "{} in {:?}: copy {:.1} GB/s, matrix product {:.2} TFLOP/s ({side} x {side})\n",
                device_kind(&self.device),
                self.dtype,
                self.bandwidth / 1e9,
                self.compute / 1e12,
            );
            println!("| problem | ms | rate | of the device | slow twin, ms | cubek, ms |");
            println!("|---|---:|---:|---:|---:|---:|");
        }

        /// `others` are the slow twin's time and cubek's.
        fn line(&self, what: String, seconds: f64, work: Work, others: [Option<f64>; 2]) {
            let (rate, share) = match work {
                Work::Bytes(bytes) => {
                    let rate = bytes as f64 / seconds;
                    (format!("{:.1} GB/s", rate / 1e9), rate / self.bandwidth)
                }
                Work::Flops(flops) => {
                    let rate = flops as f64 / seconds;
                    (format!("{:.2} TFLOP/s", rate / 1e12), rate / self.compute)
                }
            };
            println!(
                "| {what} | {:.3} | {rate} | {:.0} % | {} |",
                seconds * 1e3,
                share * 100.0,
                others.map(milliseconds).join(" | "),
            );
        }

        fn run(&self, small: bool) {
            if small {
                problems::ATTENTION
                    .into_iter()
                    .for_each(|p| self.attention(p));
                problems::ROTARY.into_iter().for_each(|p| self.rotary(p));
                problems::ROWS.into_iter().for_each(|p| self.rows(p));
                problems::PACKED.into_iter().for_each(|p| self.packed(p));
                problems::LOSS.into_iter().for_each(|p| self.loss(p));
            } else {
                problems::TIMED_ATTENTION
                    .into_iter()
                    .for_each(|p| self.attention(p));
                problems::TIMED_ROTARY
                    .into_iter()
                    .for_each(|p| self.rotary(p));
                problems::TIMED_ROWS.into_iter().for_each(|p| self.rows(p));
                problems::TIMED_PACKED
                    .into_iter()
                    .for_each(|p| self.packed(p));
                problems::TIMED_LOSS.into_iter().for_each(|p| self.loss(p));
            }
            println!();
        }

        fn attention(&self, p: problems::Attention) {
            let q = self.tensor([p.b, p.h, p.n, p.d]);
            let k = self.tensor([p.b, p.h, p.m, p.d]);
            let v = self.tensor([p.b, p.h, p.m, p.d]);
            let keys = self.ints(p.ranges(), [p.n, 2]);
            let seconds =
                self.seconds(|| ops::attention(q.clone(), k.clone(), v.clone(), keys.clone()));
            let logits = 4 * p.b * p.h * p.n * p.m;
            let twin = (logits <= TWIN_BYTES).then(|| {
                let (q, k, v) = (cube(&q), cube(&k), cube(&v));
                let keys: IntTensor<CubeBackend> =
                    keys.try_into_primitive::<CubeBackend>().unwrap();
                self.seconds(|| {
                    let (q, k, v) = (q.clone(), k.clone(), v.clone());
                    reference::attention::<CubeBackend>(q, k, v, keys.clone())
                })
            });
            let what = format!(
                "attention b {} h {} n {} m {} d {} window {}",
                p.b, p.h, p.n, p.m, p.d, p.window
            );
            // A few queries are bound by reading the keys and values, many by arithmetic.
            let work = if p.n <= 4 {
                Work::Bytes(2 * p.b * p.h * p.window.min(p.m) * p.d * self.dtype.size())
            } else {
                Work::Flops(4 * p.pairs() * p.d)
            };
            let cubek = self.cubek(p, [&q, &k, &v].map(cube));
            self.line(what, seconds, work, [twin, cubek]);
        }

        /// The time of cubek's fastest attention, which is causal and has no windows: on tensor
        /// cores for f16 and whole tiles of queries, on plain units for all types.
        fn cubek(
            &self,
            p: problems::Attention,
            [q, k, v]: [FloatTensor<CubeBackend>; 3],
        ) -> Option<f64> {
            if p.window < p.m {
                return None;
            }
            let options = AttentionModuleOptions {
                is_causal: true,
                ..Default::default()
            };
            let mut strategies = vec![Strategy::Unit(Inferred(()))];
            if self.dtype == DType::F16 {
                let accelerated = |num_planes| BlackboxAcceleratedStrategy {
                    num_planes,
                    seq_q: 1,
                    seq_kv: 1,
                };
                strategies.extend(
                    [2, 4, 8]
                        .into_iter()
                        .filter(|&planes| p.n.is_multiple_of(16 * planes as usize))
                        .map(|planes| Strategy::BlackboxAccelerated(Inferred(accelerated(planes)))),
                );
            }
            let times = strategies.into_iter().filter_map(|strategy| {
                let run = || {
                    let (q, k, v) = (q.clone(), k.clone(), v.clone());
                    flash_attention(q, k, v, None, None, options, strategy.clone())
                };
                run().is_ok().then(|| self.seconds(run))
            });
            times.min_by(f64::total_cmp)
        }

        fn rotary(&self, p: problems::Rotary) {
            let x = self.tensor([p.b, p.n, p.h, p.d]).swap_dims(1, 2);
            let table = self.tensor([p.n, p.d / 2]).cast(DType::F32);
            let seconds = self.seconds(|| ops::rotary(x.clone(), table.clone(), table.clone()));
            let (raw, raw_table) = (cube(&x), cube(&table));
            let twin = self.seconds(|| {
                let table = raw_table.clone();
                reference::rotary::<CubeBackend>(raw.clone(), table.clone(), table)
            });
            let bytes = 2 * p.b * p.h * p.n * p.d * self.dtype.size() + 4 * p.n * p.d;
            self.line(
                format!("{p:?}"),
                seconds,
                Work::Bytes(bytes),
                [Some(twin), None],
            );
        }

        fn rows(&self, p: problems::Rows) {
            let bytes = p.n * p.c * self.dtype.size();
            let x = self.tensor([p.n, p.c]);
            let weight = self.tensor([p.c]).cast(DType::F32);
            let seconds = self.seconds(|| ops::rms_norm(x.clone(), weight.clone(), 1e-6));
            let (raw, raw_weight) = (cube(&x), cube(&weight));
            let twin = self.seconds(|| {
                reference::rms_norm::<CubeBackend>(raw.clone(), raw_weight.clone(), 1e-6)
            });
            let what = format!("RMSNorm n {} c {}", p.n, p.c);
            self.line(what, seconds, Work::Bytes(2 * bytes), [Some(twin), None]);
            let seconds = self.seconds(|| ops::swiglu(x.clone(), x.clone()));
            let twin = self.seconds(|| reference::swiglu::<CubeBackend>(raw.clone(), raw.clone()));
            let what = format!("SwiGLU n {} c {}", p.n, p.c);
            self.line(what, seconds, Work::Bytes(3 * bytes), [Some(twin), None]);
        }

        fn packed(&self, p: problems::PackedProduct) {
            let x = self.tensor([p.n, p.i]);
            let groups = p.i.div_ceil(p.group);
            let words = |columns: usize| {
                let words = 0..(p.o * columns) as u32;
                let words = words.map(|i| i.wrapping_mul(2_654_435_761) as i32);
                self.ints(words.collect(), [p.o, columns])
            };
            let scales = DType::F16;
            let scales = match supported(&self.device, 128, &[DType::F32, scales]) {
                Ok(()) => scales,
                Err(_) => DType::F32,
            };
            let weight = PackedWeight {
                words: words(p.i * p.bits / 32),
                zeros: words((groups * p.bits).div_ceil(32)),
                scales: Tensor::full([p.o, groups], 0.01, (&self.device, scales)),
                bits: p.bits,
                group: p.group,
                order: None,
            };
            let seconds = self.seconds(|| ops::packed_linear(x.clone(), &weight));
            let integers = |x: &Tensor<2, Int>| -> IntTensor<CubeBackend> {
                x.clone().try_into_primitive::<CubeBackend>().unwrap()
            };
            let (raw, words, zeros) = (cube(&x), integers(&weight.words), integers(&weight.zeros));
            let scales = cube(&weight.scales);
            let twin = self.seconds(|| {
                let (words, zeros, scales) = (words.clone(), zeros.clone(), scales.clone());
                reference::packed_linear::<CubeBackend>(
                    raw.clone(),
                    words,
                    zeros,
                    scales,
                    p.bits,
                    p.group,
                )
            });
            let work = if p.n <= 4 {
                Work::Bytes(p.o * p.i * p.bits / 8)
            } else {
                Work::Flops(2 * p.n * p.i * p.o)
            };
            self.line(format!("{p:?}"), seconds, work, [Some(twin), None]);
        }

        fn loss(&self, p: problems::Loss) {
            let (hidden, head) = (self.tensor([p.n, p.c]), self.tensor([p.v, p.c]));
            let targets = self.ints(vec![0; p.n], [p.n]);
            let seconds =
                self.seconds(|| ops::token_loss(hidden.clone(), head.clone(), targets.clone()));
            let (hidden, head) = (cube(&hidden), cube(&head));
            let targets: IntTensor<CubeBackend> =
                targets.try_into_primitive::<CubeBackend>().unwrap();
            let twin = self.seconds(|| {
                let (hidden, head) = (hidden.clone(), head.clone());
                reference::token_loss::<CubeBackend>(hidden, head, targets.clone())
            });
            let what = format!("loss n {} c {} v {}", p.n, p.c, p.v);
            let flops = 2 * p.n * p.c * p.v;
            self.line(what, seconds, Work::Flops(flops), [Some(twin), None]);
        }
    }

    /// What bounds a problem.
    enum Work {
        Bytes(usize),
        Flops(usize),
    }

    fn milliseconds(seconds: Option<f64>) -> String {
        seconds.map_or("-".to_owned(), |seconds| format!("{:.3}", seconds * 1e3))
    }

    fn cube<const D: usize>(x: &Tensor<D>) -> FloatTensor<CubeBackend> {
        x.clone().try_into_primitive::<CubeBackend>().unwrap()
    }
}
