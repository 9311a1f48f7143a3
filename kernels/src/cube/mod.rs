//! The ops on GPUs, written once in cubecl for CUDA, ROCm, Metal, and by wgpu for Vulkan and WebGPU.
//!
//! One file a family of kernels: the `#[cube]` kernel, and the launcher that checks, allocates and
//! launches. `linear` is burn's own matrix product and has none. A launcher that cannot do what it is asked for returns a
//! [`KernelError`], never a slower path; inside [`Ops`], which has no errors, that is a panic, and
//! [`supported`](crate::supported) tells beforehand. Backward passes are the slow twins.
//!
//! Words, for those who know CUDA: a *unit* is a thread, a *cube* a thread block, a *plane* a warp;
//! `UNIT_POS` is the index of the unit in its cube, `CUBE_POS` that of the cube in the launch;
//! `sync_cube()` is `__syncthreads()`, `Shared` is shared memory, an `Array` of a constant length lives
//! in registers when its loops are unrolled. What is `#[comptime]` is known when the kernel is compiled,
//! which is on its first launch.

pub mod attention;
pub mod bits8;
pub mod loss;
pub mod merge;
pub mod packed;
mod reduce;
pub mod rotary;
pub mod rows;
mod tensor_cores;
pub(crate) mod tile;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{DType, Shape};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, ops::permute};
use cubecl::calculate_cube_count_elemwise;
use cubecl::client::Client;
use cubecl::ir::{AddressType, ElemType, FloatKind};
use cubecl::prelude::{CubeCount, CubeDim};

use crate::{KernelError, Ops, reference};

/// Below every logit and log-sum-exp but minus infinity; finite, so that a difference of two is a number.
const LOWEST: f32 = -3.0e38;

impl Ops for CubeBackend {
    fn rotary(x: CubeTensor, cos: CubeTensor, sin: CubeTensor) -> CubeTensor {
        done(rotary::rotary(x, cos, sin))
    }

    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        keys: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        done(attention::attention(q, k, v, keys))
    }

    fn rotary_attention(
        q: CubeTensor,
        q_cos: CubeTensor,
        q_sin: CubeTensor,
        k: CubeTensor,
        k_cos: CubeTensor,
        k_sin: CubeTensor,
        v: CubeTensor,
        keys: CubeTensor,
    ) -> (CubeTensor, CubeTensor) {
        let k = reference::like::<Self>(k, q.dtype);
        let v = reference::like::<Self>(v, q.dtype);
        let (q, k) = done(rotary::rotary_pair(q, (q_cos, q_sin), k, (k_cos, k_sin)));
        done(attention::attention(q, k, v, keys))
    }

    fn rotary_attention_8bit(
        q: CubeTensor,
        q_cos: CubeTensor,
        q_sin: CubeTensor,
        k: CubeTensor,
        k_line: CubeTensor,
        k_cos: CubeTensor,
        k_sin: CubeTensor,
        v: CubeTensor,
        v_line: CubeTensor,
        keys: CubeTensor,
    ) -> (CubeTensor, CubeTensor) {
        let k = done(bits8::from_8bit(k, k_line, q.dtype));
        let v = done(bits8::from_8bit(v, v_line, q.dtype));
        Self::rotary_attention(q, q_cos, q_sin, k, k_cos, k_sin, v, keys)
    }

    fn merge(
        a: CubeTensor,
        a_lse: CubeTensor,
        b: CubeTensor,
        b_lse: CubeTensor,
    ) -> (CubeTensor, CubeTensor) {
        done(merge::merge(a, a_lse, b, b_lse))
    }

    fn rms_norm(x: CubeTensor, weight: CubeTensor, epsilon: f64) -> CubeTensor {
        done(rows::rms_norm(x, weight, epsilon))
    }

    fn swiglu(up: CubeTensor, gate: CubeTensor) -> CubeTensor {
        done(rows::swiglu(up, gate))
    }

    fn packed_linear(
        x: CubeTensor,
        words: CubeTensor,
        zeros: CubeTensor,
        scales: CubeTensor,
        bits: usize,
        group: usize,
    ) -> CubeTensor {
        done(packed::packed_linear(
            x,
            [words, zeros, scales],
            bits,
            group,
        ))
    }

    fn token_loss(hidden: CubeTensor, head: CubeTensor, targets: CubeTensor) -> CubeTensor {
        let head = reference::like::<Self>(head, hidden.dtype);
        done(loss::token_loss(hidden, head, targets))
    }
}

fn done<T>(result: Result<T, KernelError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// That the device computes in the type of a tensor.
fn float_type(kernel: &'static str, x: &CubeTensor) -> Result<(), KernelError> {
    check_type(kernel, &x.client, x.dtype)
}

/// That the device of `client` computes in a float type.
pub(crate) fn check_type(
    kernel: &'static str,
    client: &Client,
    dtype: DType,
) -> Result<(), KernelError> {
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
fn elem(dtype: DType) -> ElemType {
    ElemType::Float(match dtype {
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        _ => FloatKind::F32,
    })
}

/// Wide enough to index every tensor.
fn address_type(tensors: &[&CubeTensor]) -> AddressType {
    let types = tensors.iter().map(|x| x.required_address_type());
    types.max().unwrap_or_default()
}

/// One unit for each of `units` pieces of work.
fn elementwise(client: &Client, units: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new(client, units);
    (calculate_cube_count_elemwise(client, units, dim), dim)
}

/// Room for a contiguous tensor on the device of `like`.
fn empty<const D: usize>(like: &CubeTensor, shape: [usize; D], dtype: DType) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    empty_device_contiguous_dtype(client, device, Shape::from(shape), dtype)
}

/// Room for attention's output `[b, h, n, d]` in the memory order `[b, n, h, d]`, which is what the layer's
/// output projection reads in place.
fn empty_output(like: &CubeTensor, [b, h, n, d]: [usize; 4], dtype: DType) -> CubeTensor {
    permute(empty(like, [b, n, h, d], dtype), &[0, 2, 1, 3])
}
