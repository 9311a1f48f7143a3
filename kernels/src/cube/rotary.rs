//! Rotary embedding (arXiv 2104.09864) from tables, in the half-split form.
//!
//! One unit rotates component `c` with `c + d/2` of one token, in every head: the two table entries
//! and the integer divisions that find its place are computed once and used `h` times. Neighbouring
//! units take neighbouring components, so that each head's row is read and written in whole cache
//! lines. The query scale and `mscale` are already in the tables.

use burn::backend::TensorMetadata;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{address_type, elem, elementwise, empty, float_type};
use crate::error::KernelError;

/// Rotates the pair of components at `place`, of `[b, n, d/2]`, in every head.
#[cube]
fn turn<E: Float>(
    x: &Tensor<E>,
    cos: &Tensor<f32>,
    sin: &Tensor<f32>,
    output: &mut Tensor<E>,
    place: usize,
    #[comptime] half: usize,
) {
    let (b, h, n) = (x.shape(0), x.shape(1), x.shape(2));
    let c = place % half;
    let token = place / half;
    let (batch, i) = (token / n, token % n);
    if batch < b {
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
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn rotary_kernel<E: Float>(
    x: &Tensor<E>,
    cos: &Tensor<f32>,
    sin: &Tensor<f32>,
    output: &mut Tensor<E>,
    #[comptime] half: usize,
    #[define(E)] _dtype: ElemType,
) {
    turn::<E>(x, cos, sin, output, ABSOLUTE_POS, half);
}

/// The first units rotate queries, those after them keys.
#[cube(launch_unchecked, address_type = "dynamic")]
fn rotary_pair_kernel<E: Float>(
    q: &Tensor<E>,
    q_cos: &Tensor<f32>,
    q_sin: &Tensor<f32>,
    q_output: &mut Tensor<E>,
    k: &Tensor<E>,
    k_cos: &Tensor<f32>,
    k_sin: &Tensor<f32>,
    k_output: &mut Tensor<E>,
    #[comptime] half: usize,
    #[define(E)] _dtype: ElemType,
) {
    let of_q = q.shape(0) * q.shape(2) * half;
    if ABSOLUTE_POS < of_q {
        turn::<E>(q, q_cos, q_sin, q_output, ABSOLUTE_POS, half);
    } else {
        turn::<E>(k, k_cos, k_sin, k_output, ABSOLUTE_POS - of_q, half);
    }
}

/// Rotates `x` `[b, h, n, d]`, any strides, by f32 tables `[n, d/2]`; returns `[b, h, n, d]`,
/// contiguous.
///
/// # Errors
/// A type that is not a float, or that the device does not have.
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

/// [`rotary`] of queries `[b, h, n, d]` and keys `[b, h, m, d]`, each by its own tables
/// `(cos, sin)`, in one launch.
///
/// # Errors
/// A type that is not a float, that the device does not have, or that differs between the two.
pub fn rotary_pair(
    q: CubeTensor,
    q_table: (CubeTensor, CubeTensor),
    k: CubeTensor,
    k_table: (CubeTensor, CubeTensor),
) -> Result<(CubeTensor, CubeTensor), KernelError> {
    float_type("rotary", &q)?;
    if q.dtype != k.dtype {
        return Err(KernelError::Types {
            kernel: "rotary",
            types: [q.dtype, k.dtype],
        });
    }
    // WebGPU promises 8 buffers to a kernel, of which cubecl takes one; this kernel takes 8.
    if q.client.properties().hardware.max_bindings < 8 {
        return Ok((
            rotary(q, q_table.0, q_table.1)?,
            rotary(k, k_table.0, k_table.1)?,
        ));
    }
    let ([b, h, n, d], [_, _, m, _]) = (q.shape().dims::<4>(), k.shape().dims::<4>());
    let q_output = empty(&q, [b, h, n, d], q.dtype);
    let k_output = empty(&k, [b, h, m, d], k.dtype);
    let units = b * (n + m) * (d / 2);
    if units * h == 0 {
        return Ok((q_output, k_output));
    }
    let (count, dim) = elementwise(&q.client, units);
    // SAFETY: every index is below the shapes, which the tables share by the op's contract.
    unsafe {
        rotary_pair_kernel::launch_unchecked(
            &q_output.client,
            count,
            dim,
            address_type(&[&q, &k, &q_output, &k_output]),
            q.clone().into_tensor_arg(),
            q_table.0.into_tensor_arg(),
            q_table.1.into_tensor_arg(),
            q_output.clone().into_tensor_arg(),
            k.into_tensor_arg(),
            k_table.0.into_tensor_arg(),
            k_table.1.into_tensor_arg(),
            k_output.clone().into_tensor_arg(),
            d / 2,
            elem(q.dtype),
        );
    }
    Ok((q_output, k_output))
}
