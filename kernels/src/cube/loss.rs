//! The LM head's loss without the `n` by `v` logits: a block of rows goes through the head, and its
//! logits are reduced to a log-sum-exp and the target's logit before the next block is made.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::kernel::{into_contiguous, slice};
use burn_cubecl::ops::permute;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{LOWEST, address_type, empty, float_type};
use super::reduce::{cube_max, cube_sum, row_cubes, row_units};
use crate::error::KernelError;

/// Bytes of a block of logits: a buffer that WebGPU lets a kernel bind.
const BLOCK_BYTES: usize = 128 << 20;

/// One cube a row. Each unit keeps the largest of its logits and their sum of exponentials below
/// it, in one pass; then the units meet.
#[cube(launch_unchecked, address_type = "dynamic")]
fn row_loss_kernel(
    logits: &Tensor<f32>,
    targets: &Tensor<i32>,
    losses: &mut Tensor<f32>,
    first_row: usize,
    #[comptime] units: usize,
) {
    let row = CUBE_POS;
    if row >= logits.shape(0) {
        terminate!();
    }
    let mut shared = Shared::<[f32]>::new_slice(units);
    let start = row * logits.stride(0);
    let mut largest = f32::new(LOWEST);
    let mut sum = f32::new(0.0);
    for c in range_stepped(UNIT_POS as usize, logits.shape(1), units) {
        let logit = logits[start + c * logits.stride(1)];
        let new = max(largest, logit);
        sum = sum * (largest - new).exp() + (logit - new).exp();
        largest = new;
    }
    let of_all = cube_max(largest, &mut shared, units);
    let sum = cube_sum(sum * (largest - of_all).exp(), &mut shared, units);
    if UNIT_POS == 0 {
        let target = usize::cast_from(targets[first_row + row]);
        let logit = logits[start + target * logits.stride(1)];
        losses[first_row + row] = of_all + sum.ln() - logit;
    }
}

/// Negative log likelihood `[n]`, f32, of `targets` `[n]` (i32, below `v`) under `hidden` `[n, c]`
/// times `head` `[v, c]` transposed, both of one type.
///
/// # Errors
/// A type that is not a float, that the device does not have, or that differs; a matrix product
/// that burn refuses.
pub fn token_loss(
    hidden: CubeTensor,
    head: CubeTensor,
    targets: CubeTensor,
) -> Result<CubeTensor, KernelError> {
    float_type("token_loss", &hidden)?;
    if hidden.dtype != head.dtype {
        return Err(KernelError::Types {
            kernel: "token_loss",
            types: [hidden.dtype, head.dtype],
        });
    }
    let [n, width] = hidden.shape().dims::<2>();
    let v = head.shape().dims::<2>()[0];
    let losses = empty(&hidden, [n], DType::F32);
    let targets = into_contiguous(targets);
    let head = permute(head, &[1, 0]);
    let rows = (BLOCK_BYTES / (4 * v)).clamp(16, 4096);
    for start in (0..n).step_by(rows) {
        let end = (start + rows).min(n);
        let block = slice(hidden.clone(), &[start..end, 0..width]);
        let logits = matmul(
            block,
            head.clone(),
            None,
            MatmulStrategy::default(),
            DType::F32,
        )
        .map_err(|error| KernelError::Matmul("token_loss", format!("{error:?}")))?;
        let units = row_units(&logits.client, v);
        // SAFETY: every index is below the shapes, and targets are below `v` by the op's contract.
        unsafe {
            row_loss_kernel::launch_unchecked(
                &losses.client,
                row_cubes(end - start),
                CubeDim::new_1d(units as u32),
                address_type(&[&logits, &losses]),
                logits.clone().into_tensor_arg(),
                targets.clone().into_tensor_arg(),
                losses.clone().into_tensor_arg(),
                start,
                units,
            );
        }
    }
    Ok(losses)
}
