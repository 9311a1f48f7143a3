//! Keys and values of an 8-bit cache, widened for attention. Those of one layer at a time take
//! memory next to its cache.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{address_type, elem, elementwise, empty, float_type};
use crate::error::KernelError;

/// One unit a word: four neighbouring values of a row.
#[cube(launch_unchecked, address_type = "dynamic")]
fn from_8bit_kernel<E: Float>(
    words: &Tensor<u32>,    // [b, h, m, d/4]
    lines: &Tensor<f32>,    // [b, h, m, 2]
    output: &mut Tensor<E>, // [b, h, m, d]
    #[define(E)] _dtype: ElemType,
) {
    let (h, m, width) = (words.shape(1), words.shape(2), words.shape(3));
    let (row, c) = (ABSOLUTE_POS / width, ABSOLUTE_POS % width);
    let (batch, head, i) = (row / m / h, row / m % h, row % m);
    if batch >= words.shape(0) {
        terminate!();
    }
    let word = words[batch * words.stride(0)
        + head * words.stride(1)
        + i * words.stride(2)
        + c * words.stride(3)];
    let line = batch * lines.stride(0) + head * lines.stride(1) + i * lines.stride(2);
    let (slope, offset) = (lines[line], lines[line + lines.stride(3)]);
    #[unroll]
    for j in 0..4usize {
        let q = (word >> comptime!(8 * j as u32)) & 255u32;
        output[ABSOLUTE_POS * 4 + j] = E::cast_from(f32::cast_from(q) * slope + offset);
    }
}

/// `slope * q + offset` `[b, h, m, d]` in a float type: `words` `[b, h, m, d/4]` (i32) of four
/// numbers `q` from 0 to 255, the first in the lowest bits, and `lines` `[b, h, m, 2]` (f32) of
/// slopes and offsets; any strides.
///
/// # Errors
/// A type that is not a float, or that the device does not have.
pub fn from_8bit(
    words: CubeTensor,
    lines: CubeTensor,
    dtype: DType,
) -> Result<CubeTensor, KernelError> {
    let [b, h, m, width] = words.shape().dims::<4>();
    let output = empty(&lines, [b, h, m, 4 * width], dtype);
    float_type("from_8bit", &output)?;
    if b * h * m * width == 0 {
        return Ok(output);
    }
    let (count, dim) = elementwise(&output.client, b * h * m * width);
    // SAFETY: every index is below the shapes, which words and lines share by the op's contract.
    unsafe {
        from_8bit_kernel::launch_unchecked(
            &output.client,
            count,
            dim,
            address_type(&[&words, &lines, &output]),
            words.into_tensor_arg(),
            lines.into_tensor_arg(),
            output.clone().into_tensor_arg(),
            elem(dtype),
        );
    }
    Ok(output)
}
