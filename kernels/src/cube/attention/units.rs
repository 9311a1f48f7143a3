//! Attention on plain units: for prefill where there are no tensor cores, and for decoding.
//!
//! # What a cube does
//!
//! A cube takes a block of queries of one head and walks over the keys that any of them sees, a
//! tile at a time; keys outside the block's range are never visited, so a window of `w` keys costs
//! `n w`. Because ranges never go back from one query to the next, the block's range begins where
//! that of its first query begins and ends where that of its last query ends.
//!
//! With logits `s = q k / sqrt(d)`, each query keeps in registers the largest logit so far `m`, the
//! sum `l = Σ exp(s - m)` and the output `Σ exp(s - m) v`. A tile that raises `m` first shrinks the
//! other two by `exp(old m - new m)`. At the end the output is divided by `l`, and the log-sum-exp
//! is `m + ln l`.
//!
//! # Where things are
//!
//! | what | shape | memory | why |
//! |---|---|---|---|
//! | query block | `queries x d` | shared, in the tensors' type | read for every tile of keys |
//! | key tile, then value tile | `keys x d` | shared, one buffer, same type | all queries read it |
//! | logits, then weights | `queries x keys` | shared, f32 | units exchange them |
//! | `m`, `l`, output | `rows`, `rows`, `rows x d / units_x` | registers, f32 | a unit's own |
//!
//! Keys are done with before values are needed, so the two share a buffer.
//!
//! Units form a grid of `units_y` by `units_x`. Unit `(x, y)` owns the `rows` queries from
//! `y * rows` on; of their logits the keys `x, x + units_x, ...` and of their output the components
//! `x, x + units_x, ...`, so that neighbouring units read neighbouring values. All units of a row
//! hold the same `m` and `l`.
//!
//! A row of shared memory is one 4-byte word longer than its values: otherwise units that read the
//! same component of different keys would all meet in one memory bank.
//!
//! # How large
//!
//! [`Tile::choose`] takes the first tile of a list that fits into the device's shared memory, and
//! never more than 48 KiB, so that a multiprocessor holds several cubes and one computes while
//! another waits for memory. Large tiles come first: each value loaded from shared memory is used
//! for `rows` or for `keys / units_x` products. WebGPU guarantees 256 units a cube and 16 KiB.
//!
//! # Decoding
//!
//! With at most [`SPLIT_QUERIES`] queries there are too few blocks to fill a device. Then blocks
//! are low and wide, the keys are split over several cubes, each writes its part of the output and
//! its log-sum-exp in f32, and [`merge_splits`] merges them.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::load::load_rows;
use super::tile::{SPLIT_QUERIES, Tile};
use crate::cube::launch::{LOWEST, address_type, elem, empty, empty_output};
use crate::cube::merge::merge_splits;

/// Fewest keys worth a cube of their own.
const SPLIT_KEYS: usize = 128;

/// Grid: x blocks of queries, y heads of all batches, z pieces of the keys.
#[cube(launch_unchecked, address_type = "dynamic")]
fn attention_kernel<E: Float, O: Float>(
    q: &Tensor<E>,          // [b, h, n, d]
    k: &Tensor<E>,          // [b, h, m, d]
    v: &Tensor<E>,          // [b, h, m, d]
    ranges: &Tensor<i32>,   // [n, 2]
    output: &mut Tensor<O>, // [splits, b, h, n, d]
    lse: &mut Tensor<f32>,  // [splits, b, h, n]
    scale: f32,
    minus_infinity: f32,
    #[comptime] tile: Tile,
    #[comptime] d: usize,
    #[comptime] row_len: usize,
    #[define(E, O)] _types: [ElemType; 2],
) {
    let queries = comptime!(tile.queries());
    let keys = comptime!(tile.keys());
    let rows = comptime!(tile.rows);
    let columns = comptime!(tile.columns);
    let units_x = comptime!(tile.units_x);
    let units = comptime!(tile.units_x * tile.units_y);
    let components = comptime!(d / tile.units_x);
    let weight_len = comptime!(tile.keys() + 1);

    let (h, n) = (q.shape(1), q.shape(2));
    let x = UNIT_POS_X as usize;
    let y = UNIT_POS_Y as usize;
    let head = CUBE_POS_Y as usize % h;
    let batch = CUBE_POS_Y as usize / h;
    // Under a causal mask the last queries see most keys, so they start first.
    let first = (n.div_ceil(queries) - 1 - CUBE_POS_X as usize) * queries;

    // This cube's keys: those of its block of queries, or its piece of them.
    let last = min(first + queries, n) - 1;
    let block_start = usize::cast_from(ranges[first * ranges.stride(0)]);
    let block_end = usize::cast_from(ranges[last * ranges.stride(0) + ranges.stride(1)]);
    let block_end = max(block_start, block_end);
    let splits = CUBE_COUNT_Z as usize;
    let piece = (block_end - block_start).div_ceil(splits);
    let start = min(block_start + CUBE_POS_Z as usize * piece, block_end);
    let end = min(start + piece, block_end);

    let mut q_tile = Shared::<[E]>::new_slice(queries * row_len);
    let mut kv_tile = Shared::<[E]>::new_slice(keys * row_len);
    let mut weights = Shared::<[f32]>::new_slice(queries * weight_len);

    let mut row_start = Array::<usize>::new(rows);
    let mut row_end = Array::<usize>::new(rows);
    let mut largest = Array::<f32>::new(rows);
    let mut sum = Array::<f32>::new(rows);
    let mut total = Array::<f32>::new(rows * components);
    #[unroll]
    for r in 0..rows {
        // Rows past the last query repeat it and are not written.
        let i = min(first + y * rows + r, n - 1);
        row_start[r] = usize::cast_from(ranges[i * ranges.stride(0)]);
        row_end[r] = usize::cast_from(ranges[i * ranges.stride(0) + ranges.stride(1)]);
        largest[r] = f32::new(LOWEST);
        sum[r] = f32::new(0.0);
        #[unroll]
        for c in 0..components {
            total[r * components + c] = f32::new(0.0);
        }
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

    for tile_start in range_stepped(start, end, keys) {
        load_rows::<E>(
            k,
            k_start,
            tile_start,
            end,
            &mut kv_tile,
            keys,
            d,
            row_len,
            units,
        );
        sync_cube();

        // Logits of this unit's queries and keys.
        let mut logits = Array::<f32>::new(rows * columns);
        let mut q_values = Array::<f32>::new(rows);
        #[unroll]
        for e in 0..rows * columns {
            logits[e] = f32::new(0.0);
        }
        for c in 0..d {
            #[unroll]
            for r in 0..rows {
                q_values[r] = f32::cast_from(q_tile[(y * rows + r) * row_len + c]);
            }
            #[unroll]
            for j in 0..columns {
                let key = f32::cast_from(kv_tile[(x + j * units_x) * row_len + c]);
                #[unroll]
                for r in 0..rows {
                    logits[r * columns + j] += q_values[r] * key;
                }
            }
        }
        #[unroll]
        for r in 0..rows {
            #[unroll]
            for j in 0..columns {
                let key = tile_start + x + j * units_x;
                let seen = key >= row_start[r] && key < row_end[r] && key < end;
                let logit = select(seen, logits[r * columns + j] * scale, f32::new(LOWEST));
                logits[r * columns + j] = logit;
                weights[(y * rows + r) * weight_len + x + j * units_x] = logit;
            }
        }
        sync_cube();

        // Keys are done with, so values may come while the row's largest logit is searched for.
        load_rows::<E>(
            v,
            v_start,
            tile_start,
            end,
            &mut kv_tile,
            keys,
            d,
            row_len,
            units,
        );
        #[unroll]
        for r in 0..rows {
            let mut new = largest[r];
            for j in 0..keys {
                new = max(new, weights[(y * rows + r) * weight_len + j]);
            }
            let shrink = (largest[r] - new).exp();
            largest[r] = new;
            sum[r] *= shrink;
            #[unroll]
            for c in 0..components {
                total[r * components + c] *= shrink;
            }
        }
        sync_cube();

        // Logits have been read by all units of their row: weights take their place.
        #[unroll]
        for r in 0..rows {
            #[unroll]
            for j in 0..columns {
                let logit = logits[r * columns + j];
                let weight = select(
                    logit == f32::new(LOWEST),
                    f32::new(0.0),
                    (logit - largest[r]).exp(),
                );
                weights[(y * rows + r) * weight_len + x + j * units_x] = weight;
            }
        }
        sync_cube();

        for j in 0..keys {
            #[unroll]
            for r in 0..rows {
                q_values[r] = weights[(y * rows + r) * weight_len + j];
                sum[r] += q_values[r];
            }
            #[unroll]
            for c in 0..components {
                let value = f32::cast_from(kv_tile[j * row_len + x + c * units_x]);
                #[unroll]
                for r in 0..rows {
                    total[r * components + c] += q_values[r] * value;
                }
            }
        }
        // The next tile overwrites what was read here.
        sync_cube();
    }

    #[unroll]
    for r in 0..rows {
        let i = first + y * rows + r;
        if i < n {
            let split = CUBE_POS_Z as usize;
            // Not `sum > 0`: NaN must stay NaN.
            let none = sum[r] == 0.0;
            let share = select(none, f32::new(0.0), 1.0 / sum[r]);
            let to = split * output.stride(0)
                + batch * output.stride(1)
                + head * output.stride(2)
                + i * output.stride(3);
            #[unroll]
            for c in 0..components {
                let value = total[r * components + c] * share;
                output[to + x + c * units_x] = O::cast_from(value);
            }
            if x == 0 {
                let row = (split * q.shape(0) + batch) * h + head;
                lse[row * n + i] = select(none, minus_infinity, largest[r] + sum[r].ln());
            }
        }
    }
}

/// Launches the kernel; arguments and results are those of [`attention`](super::attention).
pub fn launch(
    [q, k, v]: [CubeTensor; 3],
    ranges: CubeTensor,
    tile: Tile,
) -> (CubeTensor, CubeTensor) {
    let [b, h, n, d] = q.shape().dims::<4>();
    let m = k.shape().dims::<4>()[2];
    let blocks = n.div_ceil(tile.queries());
    // Decoding: enough pieces to give each multiprocessor a few cubes.
    let splits = if n <= SPLIT_QUERIES {
        let hardware = &q.client.properties().hardware;
        let cubes = 4 * hardware.num_streaming_multiprocessors.unwrap_or(32) as usize;
        let wanted = cubes / (b * h * blocks);
        wanted.min(m.div_ceil(SPLIT_KEYS)).max(1)
    } else {
        1
    };
    let (output, lse) = if splits > 1 {
        let output = empty(&q, [splits, b, h, n, d], DType::F32);
        (output, empty(&q, [splits, b, h, n], DType::F32))
    } else {
        let output = empty_output(&q, [b, h, n, d], q.dtype);
        (output, empty(&q, [b, h, n], DType::F32))
    };
    let mut five = output.clone();
    if splits == 1 {
        five.meta.insert(0, 1, 0);
    }
    // SAFETY: rows are below `n` or replaced, keys below the ends of the ranges, which are at most
    // `m` by the op's contract.
    unsafe {
        attention_kernel::launch_unchecked(
            &output.client,
            CubeCount::Static(blocks as u32, (b * h) as u32, splits as u32),
            CubeDim::new_2d(tile.units_x as u32, tile.units_y as u32),
            address_type(&[&q, &k, &v, &output]),
            q.clone().into_tensor_arg(),
            k.into_tensor_arg(),
            v.into_tensor_arg(),
            ranges.into_tensor_arg(),
            five.into_tensor_arg(),
            lse.clone().into_tensor_arg(),
            (1.0 / (d as f64).sqrt()) as f32,
            f32::NEG_INFINITY,
            tile,
            d,
            d + 4 / q.dtype.size(),
            [elem(q.dtype), elem(output.dtype)],
        );
    }
    if splits > 1 {
        return merge_splits(output, lse, q.dtype);
    }
    (output, lse)
}
