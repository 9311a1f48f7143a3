//! Products with matrices packed in 4 or 8 bits (GPTQ).
//!
//! Products of a few rows, as in decoding, are bound by the rate at which the matrix is read:
//! [`few_rows_kernel`] unpacks each word in registers, where its values meet all rows, and reads
//! packed words only. Products of many rows are bound by arithmetic: [`unpack_kernel`] writes a
//! block of the matrix once, in the type of the rows, and burn's matrix product, which knows the
//! device's matrix instructions, reads it. Unpacking `o i` values costs little next to `2 n o i`
//! operations. A block is at most [`BLOCK_BYTES`], so a whole matrix is never unpacked at once.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::ops::permute;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{address_type, elem, elementwise, empty, float_type};
use super::reduce::{cube_sum, row_cubes, row_units};
use crate::error::KernelError;

/// Rows of `x` up to which words are unpacked in registers.
const REGISTER_ROWS: usize = 4;
/// Bytes of a block of the matrix: a buffer that WebGPU lets a kernel bind.
const BLOCK_BYTES: usize = 64 << 20;

/// The value of `bits` at `index` of packed words that begin at `start`.
#[cube]
fn packed_value(words: &Tensor<u32>, start: usize, index: usize, #[comptime] bits: usize) -> f32 {
    let per_word = comptime!(32 / bits);
    let word = words[start + index / per_word];
    let shift = u32::cast_from(index % per_word) * comptime!(bits as u32);
    f32::cast_from((word >> shift) & comptime!((1u32 << bits) - 1))
}

/// The values of one word, as they are in the matrix: `(q - zero) * scale`.
#[cube]
fn unpack_word<S: Float>(
    words: &Tensor<u32>, // [o, i * bits / 32]
    zeros: &Tensor<u32>, // [o, groups * bits / 32], rounded up
    scales: &Tensor<S>,  // [o, groups]
    row: usize,
    at: usize,
    group: usize,
    #[comptime] bits: usize,
) -> Array<f32> {
    let per_word = comptime!(32 / bits);
    let mut values = Array::<f32>::new(per_word);
    let word = words[row * words.shape(1) + at];
    #[unroll]
    for j in 0..per_word {
        let of = (at * per_word + j) / group;
        let zero = packed_value(zeros, row * zeros.shape(1), of, bits);
        let scale = f32::cast_from(scales[row * scales.shape(1) + of]);
        let q = (word >> comptime!((j * bits) as u32)) & comptime!((1u32 << bits) - 1);
        values[j] = (f32::cast_from(q) - zero) * scale;
    }
    values
}

/// One unit a word: rows `first..` of the matrix, as many as `output` has.
#[cube(launch_unchecked, address_type = "dynamic")]
fn unpack_kernel<E: Float, S: Float>(
    words: &Tensor<u32>,
    zeros: &Tensor<u32>,
    scales: &Tensor<S>,
    output: &mut Tensor<E>, // [rows, i]
    first: usize,
    group: usize,
    #[comptime] bits: usize,
    #[define(E, S)] _types: [ElemType; 2],
) {
    let per_word = comptime!(32 / bits);
    let in_row = words.shape(1);
    let row = ABSOLUTE_POS / in_row;
    let at = ABSOLUTE_POS % in_row;
    if row >= output.shape(0) {
        terminate!();
    }
    let to = row * output.shape(1) + at * per_word;
    let values = unpack_word::<S>(words, zeros, scales, first + row, at, group, bits);
    #[unroll]
    for j in 0..per_word {
        output[to + j] = E::cast_from(values[j]);
    }
}

/// One cube an output: its units share the words of the matrix's row, and meet for each row of `x`.
#[cube(launch_unchecked, address_type = "dynamic")]
fn few_rows_kernel<E: Float, S: Float>(
    x: &Tensor<E>, // [n, i]
    words: &Tensor<u32>,
    zeros: &Tensor<u32>,
    scales: &Tensor<S>,
    output: &mut Tensor<E>, // [n, o]
    group: usize,
    #[comptime] rows: usize,
    #[comptime] bits: usize,
    #[comptime] units: usize,
    #[define(E, S)] _types: [ElemType; 2],
) {
    let per_word = comptime!(32 / bits);
    let o = CUBE_POS;
    if o >= output.shape(1) {
        terminate!();
    }
    let mut shared = Shared::<[f32]>::new_slice(units);
    let mut sums = Array::<f32>::new(rows);
    #[unroll]
    for r in 0..rows {
        sums[r] = f32::new(0.0);
    }
    for at in range_stepped(UNIT_POS as usize, words.shape(1), units) {
        let values = unpack_word::<S>(words, zeros, scales, o, at, group, bits);
        #[unroll]
        for r in 0..rows {
            let from = r * x.shape(1) + at * per_word;
            #[unroll]
            for j in 0..per_word {
                sums[r] += f32::cast_from(x[from + j]) * values[j];
            }
        }
    }
    #[unroll]
    for r in 0..rows {
        let sum = cube_sum(sums[r], &mut shared, units);
        if UNIT_POS == 0 {
            let to = r * output.shape(1) + o;
            output[to] = E::cast_from(sum);
        }
    }
}

/// `x` `[n, i]` times a packed matrix transposed: `words` `[o, i * bits / 32]` and `zeros`
/// `[o, groups * bits / 32]` as i32, `scales` `[o, groups]`; returns `[n, o]` in the type of `x`.
///
/// # Errors
/// A type that is not a float, or that the device does not have; a matrix product that burn
/// refuses.
pub fn packed_linear(
    x: CubeTensor,
    [words, zeros, scales]: [CubeTensor; 3],
    bits: usize,
    group: usize,
) -> Result<CubeTensor, KernelError> {
    float_type("packed_linear", &x)?;
    float_type("packed_linear", &scales)?;
    let [n, i] = x.shape().dims::<2>();
    let [o, in_row] = words.shape().dims::<2>();
    let [words, zeros, scales] = [words, zeros, scales].map(into_contiguous);
    if n * o == 0 {
        return Ok(empty(&x, [n, o], x.dtype));
    }
    if n <= REGISTER_ROWS {
        let x = into_contiguous(x);
        let output = empty(&x, [n, o], x.dtype);
        let units = row_units(&x.client, in_row);
        let types = [elem(x.dtype), elem(scales.dtype)];
        // SAFETY: every index is below the shapes.
        unsafe {
            few_rows_kernel::launch_unchecked(
                &output.client,
                row_cubes(o),
                CubeDim::new_1d(units as u32),
                address_type(&[&x, &words, &output]),
                x.into_tensor_arg(),
                words.into_tensor_arg(),
                zeros.into_tensor_arg(),
                scales.into_tensor_arg(),
                output.clone().into_tensor_arg(),
                group,
                n,
                bits,
                units,
                types,
            );
        }
        return Ok(output);
    }
    let rows = (BLOCK_BYTES / (i * x.dtype.size())).clamp(1, o);
    let mut blocks = Vec::new();
    for first in (0..o).step_by(rows) {
        let rows = rows.min(o - first);
        let block = empty(&x, [rows, i], x.dtype);
        let (count, dim) = elementwise(&x.client, rows * in_row);
        // SAFETY: every index is below the shapes, `first + rows` at most `o`.
        unsafe {
            unpack_kernel::launch_unchecked(
                &block.client,
                count,
                dim,
                address_type(&[&words, &block]),
                words.clone().into_tensor_arg(),
                zeros.clone().into_tensor_arg(),
                scales.clone().into_tensor_arg(),
                block.clone().into_tensor_arg(),
                first,
                group,
                bits,
                [elem(x.dtype), elem(scales.dtype)],
            );
        }
        let block = permute(block, &[1, 0]);
        let dtype: DType = x.dtype;
        let product = matmul(x.clone(), block, None, MatmulStrategy::default(), dtype);
        blocks.push(
            product.map_err(|error| KernelError::Matmul("packed_linear", format!("{error:?}")))?,
        );
    }
    Ok(match blocks.len() {
        1 => blocks.remove(0),
        _ => CubeBackend::float_cat(blocks, 1),
    })
}
