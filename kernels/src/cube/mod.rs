//! The ops on GPUs, written once in cubecl for CUDA, ROCm, Metal and, through wgpu, Vulkan and
//! WebGPU.
//!
//! One file for each family of kernels: the `#[cube]` kernel, and the launcher that checks,
//! allocates and launches. `linear` is burn's own matrix product and has none; backward passes are
//! the slow twins.
//!
//! # Errors
//! A launcher that cannot do what it is asked for returns a [`KernelError`], never a slower path.
//! [`Ops`] has no errors, so there a refusal is a panic; a head size and types that
//! [`supported`](crate::supported) accepts are not refused. A launch that fails later (a kernel
//! that the driver does not compile, memory that runs out) leaves its outputs marked as unwritten,
//! and so are the outputs of every kernel that reads those: [`read`](crate::read) returns the first
//! cause.
//!
//! # Words, for readers who know CUDA
//! A *unit* is a thread, a *cube* a thread block, a *plane* a warp; `UNIT_POS` is the index of the
//! unit in its cube, `CUBE_POS` that of the cube in the launch; `sync_cube()` is `__syncthreads()`,
//! `Shared` is shared memory, an `Array` of a constant length lives in registers when its loops are
//! unrolled. What is `#[comptime]` is known when the kernel is compiled, which is on its first
//! launch.

pub mod attention;
pub mod bits8;
pub(crate) mod launch;
pub mod loss;
pub mod merge;
pub mod packed_linear;
mod reduce;
pub mod rotary;
pub mod rows;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use crate::backend::Ops;
use crate::error::KernelError;
use crate::reference;

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
        done(packed_linear::packed_linear(
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

/// The results of a launcher.
///
/// # Panics
/// If it refused.
fn done<T>(result: Result<T, KernelError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
