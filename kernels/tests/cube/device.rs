//! The device under test, its inputs, and how far off its results may be.

use std::io::Write;
use std::sync::OnceLock;

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, Device, DeviceType, Int, Tensor, TensorData};
use half::{bf16, f16};
use longspan_kernels::supported;

use crate::problems::random;

const TYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// The first GPU of the kinds in this build; without one, `checks` checks are skipped.
pub fn device(test: &str, checks: usize) -> Option<Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    let kinds = [
        #[cfg(feature = "cuda")]
        DeviceType::Cuda,
        #[cfg(feature = "rocm")]
        DeviceType::Rocm,
        #[cfg(feature = "metal")]
        DeviceType::Metal,
        #[cfg(feature = "wgpu")]
        DeviceType::Wgpu,
    ];
    let first = || {
        (kinds.iter().cloned())
            .flat_map(|kind| Device::enumerate(kind).into_vec())
            .next()
    };
    let device = DEVICE.get_or_init(first).clone();
    if device.is_none() {
        let strict = std::env::var("LONGSPAN_GPU_TESTS").is_ok_and(|value| value == "strict");
        assert!(!strict, "{test}: no GPU was found");
        skip(format_args!("{test}: no GPU was found ({checks} checks)"));
    }
    device
}

/// Runs the checks of a test in every type that the device computes in.
pub fn in_every_type(test: &str, checks: usize, check: impl Fn(&Device, DType)) {
    let Some(device) = device(test, checks * TYPES.len()) else {
        return;
    };
    for dtype in TYPES {
        match supported(&device, 16, &[dtype]) {
            Ok(()) => check(&device, dtype),
            Err(error) => skip(format_args!("{test}: {error} ({checks} checks)")),
        }
    }
}

/// Writes to stderr directly: the test runner hides what `println` prints in a test that passes.
fn skip(what: std::fmt::Arguments) {
    let line = format!("skipped: {what}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// `x` as stored in a type.
fn rounded(x: f32, dtype: DType) -> f32 {
    match dtype {
        DType::F16 => f16::from_f32(x).to_f32(),
        DType::BF16 => bf16::from_f32(x).to_f32(),
        _ => x,
    }
}

/// Random values that the type holds exactly.
pub fn values(seed: u64, len: usize, scale: f32, dtype: DType) -> Vec<f32> {
    let exact = random(seed, len, scale);
    exact.into_iter().map(|x| rounded(x, dtype)).collect()
}

/// `[a, b, c, d]` values as `[a, c, b, d]`.
pub fn swapped(values: &[f32], [a, b, c, d]: [usize; 4]) -> Vec<f32> {
    let rows = (0..a * c * b).map(|row| (row / (c * b) * b + row % b) * c + row / b % c);
    rows.flat_map(|row| values[row * d..(row + 1) * d].to_vec())
        .collect()
}

pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| x as f64).collect()
}

/// The same tensor on the CPU, for the slow twin, and on the device.
#[derive(Clone)]
pub struct Pair<const D: usize> {
    pub plain: Tensor<D>,
    pub fast: Tensor<D>,
}

impl<const D: usize> Pair<D> {
    pub fn new(values: &[f32], shape: [usize; D], device: &Device, dtype: DType) -> Self {
        let on = |device: &Device| {
            let data = TensorData::new(values.to_vec(), shape).convert_dtype(dtype);
            Tensor::from_data(data, (device, dtype))
        };
        Pair {
            plain: on(&Device::flex()),
            fast: on(device),
        }
    }

    pub fn map<const E: usize>(self, f: impl Fn(Tensor<D>) -> Tensor<E>) -> Pair<E> {
        Pair {
            plain: f(self.plain),
            fast: f(self.fast),
        }
    }

    pub fn flex(&self) -> FloatTensor<Flex> {
        self.plain.clone().try_into_primitive::<Flex>().unwrap()
    }
}

pub fn ints<const D: usize>(values: &[i32], shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    let data = TensorData::new(values.to_vec(), shape);
    Tensor::from_data(data, (device, DType::I32))
}

pub fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.cast(DType::F32).into_data().try_to_vec().unwrap()
}

pub fn read_flex<const D: usize>(primitive: FloatTensor<Flex>) -> Vec<f32> {
    read(Tensor::<D>::from_primitive::<Flex>(primitive))
}

/// Checks a result against the float64 one by the rule at the top of `main.rs`; `slack` allows for
/// the order of additions.
#[track_caller]
pub fn check(what: &str, dtype: DType, got: &[f32], plain: &[f32], exact: &[f64], slack: f64) {
    assert_eq!(got.len(), exact.len(), "{what}: length");
    assert_eq!(plain.len(), exact.len(), "{what}: length of the twin");
    let (mut error, mut allowed, mut change) = (0f64, 0f64, 0f64);
    for (i, &exact) in exact.iter().enumerate() {
        let got = got[i] as f64;
        if exact == f64::NEG_INFINITY {
            assert_eq!(got, exact, "{what}[{i}]");
            continue;
        }
        assert!(got.is_finite(), "{what}[{i}]: {got} against {exact}");
        error = error.max((got - exact).abs());
        allowed = allowed.max((plain[i] as f64 - exact).abs());
        let stored = rounded(exact as f32, dtype);
        let there = rounded(stored + 0.3, dtype);
        change = change.max((rounded(there - 0.3, dtype) - stored).abs() as f64);
    }
    let bound = 2.0 * allowed + 2.0 * change + slack;
    assert!(
        error <= bound,
        "{what} in {dtype:?}: error {error:e} above {bound:e}; the twin's is {allowed:e}"
    );
}
