//! Kernels that work row by row: RMSNorm and the gate of the feed-forward part. Both are bound by
//! memory: each value is read once. Arithmetic is f32.

use burn::backend::TensorMetadata;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubecl::std::tensor::layout::linear::{LinearView, LinearViewMut};

use super::launch::{address_type, elem, elementwise, empty, float_type};
use super::reduce::{cube_sum, row_cubes, row_units};
use crate::error::KernelError;

/// One cube (thread block) a row: its units add the squares of every `units`-th value, meet in
/// shared memory, and write the row scaled.
#[cube(launch_unchecked, address_type = "dynamic")]
fn rms_norm_kernel<E: Float, W: Float>(
    x: &Tensor<E>,
    weight: &Tensor<W>,
    output: &mut Tensor<E>,
    epsilon: f32,
    #[comptime] units: usize,
    #[define(E, W)] _types: [ElemType; 2],
) {
    let (n, width) = (x.shape(0), x.shape(1));
    let row = CUBE_POS;
    if row >= n {
        terminate!();
    }
    let mut shared = Shared::<[f32]>::new_slice(units);
    let from = row * x.stride(0);
    let mut squares = f32::new(0.0);
    for c in range_stepped(UNIT_POS as usize, width, units) {
        let value = f32::cast_from(x[from + c * x.stride(1)]);
        squares += value * value;
    }
    let mean = cube_sum(squares, &mut shared, units) / f32::cast_from(width);
    let scale = f32::new(1.0) / (mean + epsilon).sqrt();
    for c in range_stepped(UNIT_POS as usize, width, units) {
        let value = f32::cast_from(x[from + c * x.stride(1)]);
        let weight = f32::cast_from(weight[c * weight.stride(0)]);
        output[row * width + c] = E::cast_from(value * scale * weight);
    }
}

/// Rows of `x` `[n, c]` over their root mean square, times `weight` `[c]` (arXiv 1910.07467).
///
/// # Errors
/// A type that is not a float, or that the device does not have.
pub fn rms_norm(
    x: CubeTensor,
    weight: CubeTensor,
    epsilon: f64,
) -> Result<CubeTensor, KernelError> {
    float_type("rms_norm", &x)?;
    float_type("rms_norm", &weight)?;
    let [n, width] = x.shape().dims::<2>();
    let output = empty(&x, [n, width], x.dtype);
    if n * width == 0 {
        return Ok(output);
    }
    let units = row_units(&x.client, width);
    // SAFETY: every index is below the shapes.
    unsafe {
        rms_norm_kernel::launch_unchecked(
            &output.client,
            row_cubes(n),
            CubeDim::new_1d(units as u32),
            address_type(&[&x, &output]),
            x.clone().into_tensor_arg(),
            weight.clone().into_tensor_arg(),
            output.clone().into_tensor_arg(),
            epsilon as f32,
            units,
            [elem(x.dtype), elem(weight.dtype)],
        );
    }
    Ok(output)
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn swiglu_kernel<E: Float, N: Size>(
    up: LinearView<'_, Vector<E, N>>,
    gate: LinearView<'_, Vector<E, N>>,
    mut output: LinearViewMut<'_, Vector<E, N>>,
    #[define(E)] _dtype: ElemType,
) {
    if !output.is_in_bounds(ABSOLUTE_POS) {
        terminate!();
    }
    let up = Vector::<f32, N>::cast_from(up.read(ABSOLUTE_POS));
    let gate = Vector::<f32, N>::cast_from(gate.read(ABSOLUTE_POS));
    let one = Vector::<f32, N>::new(f32::new(1.0));
    let silu = gate / (one + (-gate).exp());
    output.write(ABSOLUTE_POS, Vector::cast_from(up * silu));
}

/// `up * gate * sigmoid(gate)`, both `[n, c]` and of one type (arXiv 2002.05202).
///
/// # Errors
/// A type that is not a float, or that the device does not have.
pub fn swiglu(up: CubeTensor, gate: CubeTensor) -> Result<CubeTensor, KernelError> {
    float_type("swiglu", &up)?;
    if up.dtype != gate.dtype {
        return Err(KernelError::Types {
            kernel: "swiglu",
            types: [up.dtype, gate.dtype],
        });
    }
    let shape = up.shape().dims::<2>();
    let output = empty(&up, shape, up.dtype);
    let values = shape[0] * shape[1];
    if values == 0 {
        return Ok(output);
    }
    // Vectors, where nothing lies between the rows.
    let whole = up.is_contiguous() && gate.is_contiguous();
    let vector = up
        .client
        .io_optimized_vector_sizes(up.dtype.size())
        .filter(|&size| whole && values.is_multiple_of(size))
        .max()
        .unwrap_or(1);
    let (count, dim) = elementwise(&up.client, values / vector);
    // SAFETY: the views check their bounds.
    unsafe {
        swiglu_kernel::launch_unchecked(
            &output.client,
            count,
            dim,
            address_type(&[&up, &gate, &output]),
            vector,
            up.clone().into_linear_view_like(&output),
            gate.into_linear_view_like(&output),
            output.clone().into_linear_view(),
            elem(up.dtype),
        );
    }
    Ok(output)
}
