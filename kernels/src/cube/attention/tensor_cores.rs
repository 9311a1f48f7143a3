//! Attention on tensor cores: prefill in f16 and bf16, where the device multiplies 16 x 16 x 16
//! matrices of that type into f32 and its planes have 32 units.
//!
//! Read `units.rs` first; the algorithm is the same. What differs:
//!
//! - A cube is up to [`MAX_PLANES`] planes, and a plane owns [`EDGE`] queries, one edge of a matrix
//!   instruction. A tile is [`KEYS`] keys.
//! - Both products are matrix instructions: `q k` with float inputs from shared memory, and
//!   `weights v`, for which weights are rounded to the type of the values.
//! - Which unit holds which number of a matrix instruction's result is not documented. So a result
//!   goes to shared memory, and each unit takes from there what it owns: unit `lane` of a plane
//!   owns query `lane / 2`, and of each 16 components of its output the 8 of half `lane % 2`, in
//!   registers, f32. Its query's largest logit is known to both units of a pair; of the sum each
//!   holds its half until the end.
//!
//! | what | shape | memory |
//! |---|---|---|
//! | query block | `16 planes x d` | shared, in the tensors' type |
//! | key tile, then value tile | `KEYS x d` | shared, one buffer |
//! | logits | `16 planes x KEYS` | shared, f32 |
//! | weights | `16 planes x KEYS` | shared, in the tensors' type |
//! | a piece of `weights v` | `16 x 16` a plane | shared, f32 |
//! | largest logit, half of the sum, half of the output | 1, 1, `d / 2` a unit | registers, f32 |
//!
//! Rows in shared memory are 16 bytes longer than their values, against bank conflicts. So each
//! begins at a multiple of 16 bytes, which CUDA asks of the distance between rows, and every matrix
//! at a multiple of 32.
//!
//! **Not run yet** on a device with such instructions. With both products written as loops instead,
//! the kernel gave the oracle's results on software Vulkan; the matrix instructions themselves are
//! untested. The tests in `tests/cube/` reach them in f16 and bf16 on a device that has them.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::cmma::{self, MatrixIdent, MatrixLayout};
use cubecl::ir::features::{MmaConfig, Plane};
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;

use super::load::load_rows;
use super::tile::SHARED_BYTES;
use crate::cube::launch::{LOWEST, address_type, elem, empty, empty_output};

/// Edge of a matrix instruction.
const EDGE: usize = 16;
/// Keys of a tile.
const KEYS: usize = 32;
/// Units of a plane: two for each of its queries.
const LANES: usize = 2 * EDGE;
/// Planes of a cube.
const MAX_PLANES: usize = 4;

/// Bytes of shared memory of a cube.
fn bytes(planes: usize, d: usize) -> usize {
    let queries = EDGE * planes;
    let two_byte = (queries + KEYS) * (d + 8) + queries * (KEYS + 8);
    let four_byte = queries * (KEYS + 4) + queries * (EDGE + 4);
    2 * two_byte + 4 * four_byte
}

/// Planes of a cube on a device; `None` where the kernel does not run.
pub fn planes(client: &Client, d: usize, dtype: DType) -> Option<usize> {
    let properties = client.properties();
    let hardware = &properties.hardware;
    let instruction = MmaConfig {
        a_type: elem(dtype),
        b_type: elem(dtype),
        cd_type: ElemType::Float(FloatKind::F32),
        m: EDGE as u32,
        n: EDGE as u32,
        k: EDGE as u32,
    };
    let runs = dtype.size() == 2
        && properties.features.matmul.cmma.contains(&instruction)
        && properties.features.plane.contains(Plane::Sync)
        && [hardware.plane_size_min, hardware.plane_size_max] == [LANES as u32; 2];
    let available = hardware.max_shared_memory_size.min(SHARED_BYTES);
    let fits = |&planes: &usize| {
        bytes(planes, d) <= available && planes * LANES <= hardware.max_units_per_cube as usize
    };
    (1..=MAX_PLANES).rev().find(|planes| runs && fits(planes))
}

/// Grid: x blocks of queries, y heads of all batches.
#[cube(launch_unchecked, address_type = "dynamic")]
fn tensor_core_kernel<E: Float>(
    q: &Tensor<E>,          // [b, h, n, d]
    k: &Tensor<E>,          // [b, h, m, d]
    v: &Tensor<E>,          // [b, h, m, d]
    ranges: &Tensor<i32>,   // [n, 2]
    output: &mut Tensor<E>, // [b, h, n, d]
    lse: &mut Tensor<f32>,  // [b, h, n]
    scale: f32,
    minus_infinity: f32,
    #[comptime] planes: usize,
    #[comptime] d: usize,
    #[define(E)] _dtype: ElemType,
) {
    let queries = comptime!(EDGE * planes);
    let units = comptime!(LANES * planes);
    let row_len = comptime!(d + 8);
    let weight_len = comptime!(KEYS + 8);
    let logit_len = comptime!(KEYS + 4);
    let part_len = comptime!(EDGE + 4);

    let (h, n) = (q.shape(1), q.shape(2));
    let plane = UNIT_POS_Y as usize;
    let lane = UNIT_POS_X as usize;
    let head = CUBE_POS_Y as usize % h;
    let batch = CUBE_POS_Y as usize / h;
    // Under a causal mask the last queries see most keys, so they start first.
    let first = (n.div_ceil(queries) - 1 - CUBE_POS_X as usize) * queries;

    let last = min(first + queries, n) - 1;
    let start = usize::cast_from(ranges[first * ranges.stride(0)]);
    let end = usize::cast_from(ranges[last * ranges.stride(0) + ranges.stride(1)]);

    let mut q_tile = Shared::<[E]>::new_aligned_slice(queries * row_len, 32usize);
    let mut kv_tile = Shared::<[E]>::new_aligned_slice(KEYS * row_len, 32usize);
    let mut weights = Shared::<[E]>::new_aligned_slice(queries * weight_len, 32usize);
    let mut logits = Shared::<[f32]>::new_aligned_slice(queries * logit_len, 32usize);
    let mut parts = Shared::<[f32]>::new_aligned_slice(queries * part_len, 32usize);

    // What this unit owns.
    let row = plane * EDGE + lane / 2;
    let half = lane % 2;
    let i = min(first + row, n - 1);
    let row_start = usize::cast_from(ranges[i * ranges.stride(0)]);
    let row_end = usize::cast_from(ranges[i * ranges.stride(0) + ranges.stride(1)]);
    let mut largest = f32::new(LOWEST);
    let mut sum = f32::new(0.0);
    let mut total = Array::<f32>::new(d / 2);
    #[unroll]
    for c in 0..d / 2 {
        total[c] = f32::new(0.0);
    }

    let q_start = batch * q.stride(0) + head * q.stride(1);
    let k_start = batch * k.stride(0) + head * k.stride(1);
    let v_start = batch * v.stride(0) + head * v.stride(1);
    load_rows::<E>(
        q,
        q_start,
        first,
        n,
        &mut q_tile,
        queries,
        d,
        row_len,
        units,
    );

    for tile_start in range_stepped(start, end, KEYS) {
        load_rows::<E>(
            k,
            k_start,
            tile_start,
            end,
            &mut kv_tile,
            KEYS,
            d,
            row_len,
            units,
        );
        sync_cube();

        // Logits of the plane's queries: q times k transposed, which lies as a column-major matrix.
        #[unroll]
        for j in 0..KEYS / EDGE {
            let sums = cmma::Matrix::<f32>::from_value(
                MatrixIdent::Accumulator,
                EDGE,
                EDGE,
                EDGE,
                MatrixLayout::Undefined,
                0.0,
            );
            #[unroll]
            for c in 0..d / EDGE {
                let q_at = plane * EDGE * row_len + c * EDGE;
                let k_at = j * EDGE * row_len + c * EDGE;
                let a = cmma::Matrix::<E>::from_slice(
                    MatrixIdent::A,
                    EDGE,
                    EDGE,
                    EDGE,
                    MatrixLayout::RowMajor,
                    &q_tile[q_at..queries * row_len],
                    row_len as u32,
                );
                let b = cmma::Matrix::<E>::from_slice(
                    MatrixIdent::B,
                    EDGE,
                    EDGE,
                    EDGE,
                    MatrixLayout::ColMajor,
                    &kv_tile[k_at..KEYS * row_len],
                    row_len as u32,
                );
                cmma::execute(&a, &b, &sums, &sums);
            }
            let at = plane * EDGE * logit_len + j * EDGE;
            cmma::store(
                &mut logits[at..queries * logit_len],
                &sums,
                logit_len as u32,
                MatrixLayout::RowMajor,
            );
        }
        sync_cube();

        // Keys are done with. Values come while each unit turns logits into weights.
        load_rows::<E>(
            v,
            v_start,
            tile_start,
            end,
            &mut kv_tile,
            KEYS,
            d,
            row_len,
            units,
        );
        let mut new = largest;
        for j in 0..KEYS {
            let key = tile_start + j;
            let seen = key >= row_start && key < row_end;
            let logit = logits[row * logit_len + j] * scale;
            new = max(new, select(seen, logit, f32::new(LOWEST)));
        }
        let shrink = (largest - new).exp();
        largest = new;
        sum *= shrink;
        for j in 0..KEYS / 2 {
            let column = half * (KEYS / 2) + j;
            let key = tile_start + column;
            let seen = key >= row_start && key < row_end;
            let logit = logits[row * logit_len + column] * scale;
            let weight = select(seen, (logit - largest).exp(), f32::new(0.0));
            sum += weight;
            weights[row * weight_len + column] = E::cast_from(weight);
        }
        sync_cube();

        // The plane's weights times the values, 16 components at a time.
        #[unroll]
        for c in 0..d / EDGE {
            let sums = cmma::Matrix::<f32>::from_value(
                MatrixIdent::Accumulator,
                EDGE,
                EDGE,
                EDGE,
                MatrixLayout::Undefined,
                0.0,
            );
            #[unroll]
            for j in 0..KEYS / EDGE {
                let weight_at = plane * EDGE * weight_len + j * EDGE;
                let v_at = j * EDGE * row_len + c * EDGE;
                let a = cmma::Matrix::<E>::from_slice(
                    MatrixIdent::A,
                    EDGE,
                    EDGE,
                    EDGE,
                    MatrixLayout::RowMajor,
                    &weights[weight_at..queries * weight_len],
                    weight_len as u32,
                );
                let b = cmma::Matrix::<E>::from_slice(
                    MatrixIdent::B,
                    EDGE,
                    EDGE,
                    EDGE,
                    MatrixLayout::RowMajor,
                    &kv_tile[v_at..KEYS * row_len],
                    row_len as u32,
                );
                cmma::execute(&a, &b, &sums, &sums);
            }
            let at = plane * EDGE * part_len;
            cmma::store(
                &mut parts[at..queries * part_len],
                &sums,
                part_len as u32,
                MatrixLayout::RowMajor,
            );
            sync_plane();
            #[unroll]
            for e in 0..EDGE / 2 {
                let part = parts[row * part_len + half * (EDGE / 2) + e];
                total[c * (EDGE / 2) + e] = total[c * (EDGE / 2) + e] * shrink + part;
            }
            // The next piece takes the place of this one.
            sync_plane();
        }
        // The next keys take the place of these values.
        sync_cube();
    }

    // The two halves of the sum.
    logits[row * logit_len + half] = sum;
    sync_plane();
    let sum = logits[row * logit_len] + logits[row * logit_len + 1];
    let i = first + row;
    if i < n {
        // Not `sum > 0`: NaN must stay NaN.
        let none = sum == f32::new(0.0);
        let share = select(none, f32::new(0.0), 1.0 / sum);
        let to = batch * output.stride(0) + head * output.stride(1) + i * output.stride(2);
        #[unroll]
        for c in 0..d / EDGE {
            #[unroll]
            for e in 0..EDGE / 2 {
                let to = to + c * EDGE + half * (EDGE / 2) + e;
                let value = total[c * (EDGE / 2) + e] * share;
                output[to] = E::cast_from(value);
            }
        }
        if half == 0 {
            let row = (batch * h + head) * n + i;
            lse[row] = select(none, minus_infinity, largest + sum.ln());
        }
    }
}

/// Launches the kernel with [`planes`] planes; arguments and results are those of
/// [`attention`](super::attention).
pub fn launch(
    [q, k, v]: [CubeTensor; 3],
    ranges: CubeTensor,
    planes: usize,
) -> (CubeTensor, CubeTensor) {
    let [b, h, n, d] = q.shape().dims::<4>();
    let output = empty_output(&q, [b, h, n, d], q.dtype);
    let lse = empty(&q, [b, h, n], DType::F32);
    // SAFETY: rows are below `n` or replaced, keys below the ends of the ranges, which are at most
    // `m` by the op's contract.
    unsafe {
        tensor_core_kernel::launch_unchecked(
            &output.client,
            CubeCount::Static(n.div_ceil(EDGE * planes) as u32, (b * h) as u32, 1),
            CubeDim::new_2d(LANES as u32, planes as u32),
            address_type(&[&q, &k, &v, &output]),
            q.clone().into_tensor_arg(),
            k.into_tensor_arg(),
            v.into_tensor_arg(),
            ranges.into_tensor_arg(),
            output.clone().into_tensor_arg(),
            lse.clone().into_tensor_arg(),
            (1.0 / (d as f64).sqrt()) as f32,
            f32::NEG_INFINITY,
            planes,
            d,
            elem(q.dtype),
        );
    }
    (output, lse)
}
