//! Banded flash attention (arXiv 2205.14135, 2307.08691): on plain units ([`units`]), and for
//! prefill in f16 or bf16 on tensor cores ([`tensor_cores`]) where the device has them.

mod load;
mod tensor_cores;
pub(crate) mod tile;
mod units;

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::slice;
use burn_cubecl::tensor::CubeTensor;

use self::tile::{SPLIT_QUERIES, Tile};
use super::launch::{empty, empty_output, float_type};
use crate::error::KernelError;

/// Softmax attention of `q` `[b, h, n, d]` over the keys that `ranges` `[n, 2]` (i32) names for
/// each query; `k` and `v` are `[b, h, m, d]`; any strides, one type. Returns the output
/// `[b, h, n, d]`, in the memory order `[b, n, h, d]`, and the log-sum-exp `[b, h, n]` in f32.
///
/// # Errors
/// A head size without a kernel, a type that the device does not have or that differs, too little
/// shared memory.
pub fn attention(
    q: CubeTensor,
    k: CubeTensor,
    v: CubeTensor,
    ranges: CubeTensor,
) -> Result<(CubeTensor, CubeTensor), KernelError> {
    float_type("attention", &q)?;
    for other in [k.dtype, v.dtype] {
        if other != q.dtype {
            return Err(KernelError::Types {
                kernel: "attention",
                types: [q.dtype, other],
            });
        }
    }
    let [b, h, n, d] = q.shape().dims::<4>();
    let tile = Tile::choose(&q.client, n, d, q.dtype)?;
    if b * h * n == 0 {
        let lse = empty(&q, [b, h, n], DType::F32);
        return Ok((empty_output(&q, [b, h, n, d], q.dtype), lse));
    }
    // A head is a row of the grid.
    let limit = q.client.properties().hardware.max_cube_count.1 as usize;
    if b > 1 && b * h > limit {
        return in_batches([q, k, v], &ranges, (limit / h).max(1));
    }
    if n > SPLIT_QUERIES
        && let Some(planes) = tensor_cores::planes(&q.client, d, q.dtype)
    {
        return Ok(tensor_cores::launch([q, k, v], ranges, planes));
    }
    Ok(units::launch([q, k, v], ranges, tile))
}

/// [`attention`] of a few batches at a time.
fn in_batches(
    qkv: [CubeTensor; 3],
    ranges: &CubeTensor,
    batches: usize,
) -> Result<(CubeTensor, CubeTensor), KernelError> {
    let all = qkv[0].shape().dims::<4>()[0];
    let (mut outputs, mut lses) = (Vec::new(), Vec::new());
    for start in (0..all).step_by(batches) {
        let [q, k, v] = qkv.clone().map(|x| {
            let [_, h, len, d] = x.shape().dims::<4>();
            slice(x, &[start..all.min(start + batches), 0..h, 0..len, 0..d])
        });
        let (output, lse) = attention(q, k, v, ranges.clone())?;
        outputs.push(output);
        lses.push(lse);
    }
    Ok((
        CubeBackend::float_cat(outputs, 0),
        CubeBackend::float_cat(lses, 0),
    ))
}
