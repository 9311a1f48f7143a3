//! Rotary embedding (arXiv 2104.09864) from tables, in the half-split form.
//!
//! One unit turns component `c` with `c + d/2` of one token, in every head: the two table entries and the
//! integer divisions that find its place are paid for once and used `h` times. Neighbouring units take
//! neighbouring components, so that each head's row is read and written in whole cache lines. LogN's
//! scale and a method's `mscale` are already in the tables.

use burn::backend::TensorMetadata;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{KernelError, address_type, elem, elementwise, empty, float_type};

#[cube(launch_unchecked, address_type = "dynamic")]
fn rotary_kernel<E: Float>(
    x: &Tensor<E>,
    cos: &Tensor<f32>,
    sin: &Tensor<f32>,
    output: &mut Tensor<E>,
    #[comptime] half: usize,
    #[define(E)] _dtype: ElemType,
) {
    let (b, h, n) = (x.shape(0), x.shape(1), x.shape(2));
    let c = ABSOLUTE_POS % half;
    let token = ABSOLUTE_POS / half;
    if token >= b * n {
        terminate!();
    }
    let (batch, i) = (token / n, token % n);

    let o = cos[i * cos.stride(0) + c * cos.stride(1)];
    let s = sin[i * sin.stride(0) + c * sin.stride(1)];
    let from = batch * x.stride(0) + i * x.stride(2) + c * x.stride(3);
    let to = batch * output.stride(0) + i * output.stride(2) + c;
    for head in 0..h {
        let from = from + head * x.stride(1);
        let to = to + head * output.stride(1);
        let low = f32::cast_from(x[from]);
        let high = f32::cast_from(x[from + half * x.stride(3)]);
        output[to] = E::cast_from(low * o - high * s);
        output[to + half] = E::cast_from(high * o + low * s);
    }
}

/// Rotates `x` `[b, h, n, d]`, any strides, by f32 tables `[n, d/2]`; returns `[b, h, n, d]`, contiguous.
///
/// # Errors
/// A type that is no float, or that the device does not have.
pub fn rotary(x: CubeTensor, cos: CubeTensor, sin: CubeTensor) -> Result<CubeTensor, KernelError> {
    float_type("rotary", &x)?;
    let [b, h, n, d] = x.shape().dims::<4>();
    let output = empty(&x, [b, h, n, d], x.dtype);
    let units = b * n * (d / 2);
    if units * h == 0 {
        return Ok(output);
    }
    let (count, dim) = elementwise(&x.client, units);
    // SAFETY: every index is below the shapes, which the tables share by the op's contract.
    unsafe {
        rotary_kernel::launch_unchecked(
            &output.client,
            count,
            dim,
            address_type(&[&x, &output]),
            x.clone().into_tensor_arg(),
            cos.into_tensor_arg(),
            sin.into_tensor_arg(),
            output.clone().into_tensor_arg(),
            d / 2,
            elem(x.dtype),
        );
    }
    Ok(output)
}
