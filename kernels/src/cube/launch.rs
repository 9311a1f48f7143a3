//! Checks of types, grids, and room for outputs, for all launchers.

use burn::tensor::{DType, Shape};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::ops::permute;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::client::Client;
use cubecl::ir::{AddressType, ElemType, FloatKind};
use cubecl::prelude::{CubeCount, CubeDim};

use crate::error::KernelError;

/// Below every logit and log-sum-exp except minus infinity; finite, so a difference of two is a
/// number.
pub const LOWEST: f32 = -3.0e38;

/// Checks that the device computes in the type of a tensor.
pub fn float_type(kernel: &'static str, x: &CubeTensor) -> Result<(), KernelError> {
    check_type(kernel, &x.client, x.dtype)
}

/// Checks that the type is a float type in which the device of `client` computes.
pub fn check_type(kernel: &'static str, client: &Client, dtype: DType) -> Result<(), KernelError> {
    let float = matches!(dtype, DType::F32 | DType::F16 | DType::BF16);
    if float && client.properties().supports_type(elem(dtype)) {
        return Ok(());
    }
    Err(KernelError::Type {
        kernel,
        dtype,
        runtime: client.name(),
    })
}

/// The cubecl name of a float type.
pub fn elem(dtype: DType) -> ElemType {
    ElemType::Float(match dtype {
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        _ => FloatKind::F32,
    })
}

/// Wide enough to index every tensor.
pub fn address_type(tensors: &[&CubeTensor]) -> AddressType {
    let types = tensors.iter().map(|x| x.required_address_type());
    types.max().unwrap_or_default()
}

/// The grid that gives a unit to each of `units` pieces of work.
pub fn elementwise(client: &Client, units: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new(client, units);
    (calculate_cube_count_elemwise(client, units, dim), dim)
}

/// Room for a contiguous tensor on the device of `like`.
pub fn empty<const D: usize>(like: &CubeTensor, shape: [usize; D], dtype: DType) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    empty_device_contiguous_dtype(client, device, Shape::from(shape), dtype)
}

/// Room for attention's output `[b, h, n, d]` in the memory order `[b, n, h, d]`, which the layer's
/// output projection reads without a copy.
pub fn empty_output(like: &CubeTensor, [b, h, n, d]: [usize; 4], dtype: DType) -> CubeTensor {
    permute(empty(like, [b, n, h, d], dtype), &[0, 2, 1, 3])
}
