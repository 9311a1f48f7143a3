//! Attention over a union of disjoint sets of keys, from the outputs and log-sum-exps over each: of
//! two bands of a plan, or of the pieces into which decoding splits a long row of keys.
//!
//! The weight of a part is its share of the sum of exponentials, `exp(lse - max)`; one unit makes
//! one component of the output, and the unit of component 0 the log-sum-exp too. A part without
//! keys has a log-sum-exp of minus infinity and weighs nothing. WGSL has no literal for it, so it
//! comes as an argument.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{LOWEST, address_type, elem, elementwise, empty, empty_output, float_type};
use crate::error::KernelError;

/// `exp(lse - max)`, and nothing for a part without keys. NaN stays NaN.
#[cube]
fn weight_of(lse: f32, largest: f32) -> f32 {
    select(lse < f32::new(LOWEST), f32::new(0.0), (lse - largest).exp())
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn merge_kernel<E: Float>(
    a: &Tensor<E>,
    a_lse: &Tensor<f32>,
    b: &Tensor<E>,
    b_lse: &Tensor<f32>,
    output: &mut Tensor<E>,
    lse: &mut Tensor<f32>,
    minus_infinity: f32,
    #[define(E)] _dtype: ElemType,
) {
    let (h, n, d) = (output.shape(1), output.shape(2), output.shape(3));
    // In the memory order of the output: [b, n, h, d].
    let c = ABSOLUTE_POS % d;
    let head = ABSOLUTE_POS / d % h;
    let i = ABSOLUTE_POS / (d * h) % n;
    let batch = ABSOLUTE_POS / (d * h * n);
    if batch >= output.shape(0) {
        terminate!();
    }
    let row = (batch * h + head) * n + i;
    let (a_lse, b_lse) = (a_lse[row], b_lse[row]);
    let largest = max(max(a_lse, b_lse), f32::new(LOWEST));
    let a_weight = weight_of(a_lse, largest);
    let b_weight = weight_of(b_lse, largest);
    let sum = a_weight + b_weight;
    let none = sum == 0.0;

    let a_at = batch * a.stride(0) + head * a.stride(1) + i * a.stride(2) + c * a.stride(3);
    let b_at = batch * b.stride(0) + head * b.stride(1) + i * b.stride(2) + c * b.stride(3);
    let mixed = f32::cast_from(a[a_at]) * a_weight + f32::cast_from(b[b_at]) * b_weight;
    let to = batch * output.stride(0) + head * output.stride(1) + i * output.stride(2) + c;
    output[to] = E::cast_from(select(none, f32::new(0.0), mixed / sum));
    if c == 0 {
        lse[row] = select(none, minus_infinity, largest + sum.ln());
    }
}

/// Merges outputs `[b, h, n, d]`, any strides, with f32 log-sum-exps `[b, h, n]`.
///
/// # Errors
/// A type that is not a float, that the device does not have, or that differs between the two.
pub fn merge(
    a: CubeTensor,
    a_lse: CubeTensor,
    b: CubeTensor,
    b_lse: CubeTensor,
) -> Result<(CubeTensor, CubeTensor), KernelError> {
    float_type("merge", &a)?;
    if a.dtype != b.dtype {
        return Err(KernelError::Types {
            kernel: "merge",
            types: [a.dtype, b.dtype],
        });
    }
    let shape = a.shape().dims::<4>();
    let output = empty_output(&a, shape, a.dtype);
    let lse = empty(&a, [shape[0], shape[1], shape[2]], DType::F32);
    let values = shape.iter().product();
    if values == 0 {
        return Ok((output, lse));
    }
    let (count, dim) = elementwise(&a.client, values);
    // SAFETY: every index is below the shapes, which both sides share by the op's contract.
    unsafe {
        merge_kernel::launch_unchecked(
            &output.client,
            count,
            dim,
            address_type(&[&a, &b, &output]),
            a.clone().into_tensor_arg(),
            into_contiguous(a_lse).into_tensor_arg(),
            b.into_tensor_arg(),
            into_contiguous(b_lse).into_tensor_arg(),
            output.clone().into_tensor_arg(),
            lse.clone().into_tensor_arg(),
            f32::NEG_INFINITY,
            elem(a.dtype),
        );
    }
    Ok((output, lse))
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn merge_splits_kernel<E: Float>(
    parts: &Tensor<f32>,
    part_lse: &Tensor<f32>,
    output: &mut Tensor<E>,
    lse: &mut Tensor<f32>,
    minus_infinity: f32,
    #[define(E)] _dtype: ElemType,
) {
    let splits = parts.shape(0);
    let (h, n, d) = (output.shape(1), output.shape(2), output.shape(3));
    let rows = output.shape(0) * h * n;
    let c = ABSOLUTE_POS % d;
    let row = ABSOLUTE_POS / d;
    if row >= rows {
        terminate!();
    }
    let mut largest = f32::new(LOWEST);
    for split in 0..splits {
        largest = max(largest, part_lse[split * rows + row]);
    }
    let mut sum = f32::new(0.0);
    let mut mixed = f32::new(0.0);
    for split in 0..splits {
        let weight = weight_of(part_lse[split * rows + row], largest);
        sum += weight;
        mixed += weight * parts[(split * rows + row) * d + c];
    }
    let none = sum == 0.0;
    let to = row / (h * n) * output.stride(0)
        + row / n % h * output.stride(1)
        + row % n * output.stride(2)
        + c;
    output[to] = E::cast_from(select(none, f32::new(0.0), mixed / sum));
    if c == 0 {
        lse[row] = select(none, minus_infinity, largest + sum.ln());
    }
}

/// Merges contiguous f32 `parts` `[splits, b, h, n, d]` with log-sum-exps `[splits, b, h, n]` into
/// an output `[b, h, n, d]` of type `dtype`.
pub(super) fn merge_splits(
    parts: CubeTensor,
    part_lse: CubeTensor,
    dtype: DType,
) -> (CubeTensor, CubeTensor) {
    let [_, b, h, n, d] = parts.shape().dims::<5>();
    let output = empty_output(&parts, [b, h, n, d], dtype);
    let lse = empty(&parts, [b, h, n], DType::F32);
    let (count, dim) = elementwise(&parts.client, b * h * n * d);
    // SAFETY: every index is below the shapes.
    unsafe {
        merge_splits_kernel::launch_unchecked(
            &output.client,
            count,
            dim,
            address_type(&[&parts, &output]),
            parts.into_tensor_arg(),
            part_lse.into_tensor_arg(),
            output.clone().into_tensor_arg(),
            lse.clone().into_tensor_arg(),
            f32::NEG_INFINITY,
            elem(dtype),
        );
    }
    (output, lse)
}
