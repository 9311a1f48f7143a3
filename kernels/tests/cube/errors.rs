//! NaN, and what a device cannot do.

use burn::tensor::{DType, Tensor};
use longspan_kernels::{KernelError, ops, supported};

use crate::device::{device, ints, read};

#[test]
fn nan_stays_nan() {
    let Some(device) = device("NaN", 4) else {
        return;
    };
    let q = Tensor::<4>::full([1, 1, 2, 16], f32::NAN, (&device, DType::F32));
    let k = Tensor::<4>::ones([1, 1, 2, 16], (&device, DType::F32));
    let (output, lse) = ops::attention(q, k.clone(), k, ints(&[0, 1, 0, 2], [2, 2], &device));
    assert!(read(output.clone()).iter().all(|x| x.is_nan()));
    assert!(read(lse.clone()).iter().all(|x| x.is_nan()));
    let empty = (
        Tensor::zeros([1, 1, 2, 16], (&device, DType::F32)),
        Tensor::full([1, 1, 2], f32::NEG_INFINITY, (&device, DType::F32)),
    );
    let merged = ops::merge((output, lse), empty);
    assert!(read(merged.0).iter().all(|x| x.is_nan()));
    assert!(read(merged.1).iter().all(|x| x.is_nan()));
}

#[test]
fn unsupported_sizes_and_types_are_errors() {
    let Some(device) = device("errors", 2) else {
        return;
    };
    let error = supported(&device, 40, &[DType::F32]).unwrap_err();
    assert!(
        matches!(error, KernelError::HeadSize { d: 40, .. }),
        "{error}"
    );
    let error = supported(&device, 64, &[DType::F32, DType::F64]).unwrap_err();
    assert!(error.to_string().contains("F64"), "{error}");
}

/// A launch that fails after its op has returned: no device has room for this tensor.
#[test]
fn a_launch_that_fails_is_an_error_when_its_result_is_read() {
    let Some(device) = device("failed launch", 1) else {
        return;
    };
    let huge = Tensor::<2>::zeros([1 << 22, 1 << 20], (&device, DType::F32));
    let weight = Tensor::<1>::ones([1 << 20], (&device, DType::F32));
    let norm = ops::rms_norm(huge, weight, 1e-6).slice([0..1, 0..1]);
    let error = longspan_kernels::read::<f32, 2, _>(norm).unwrap_err();
    assert!(matches!(error, KernelError::Execution(_)), "{error}");
}
