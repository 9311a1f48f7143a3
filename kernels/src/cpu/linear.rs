//! Linear layers.
//!
//! Weights are `[outputs, inputs]` in the type in which they are stored. A block of their rows is
//! widened to f32 and packed just before it meets the activations, which have enough rows to make
//! that cheap; `few` multiplies where there are only a few.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use super::few::{self, FewRows};
use super::gemm::{Product, TILE_ROWS};
use super::output::{OutputBlock, Slot, Unwritten};
use super::panels::{self, Left, Matrix, PanelMatrix, Panels};
use super::rows;
use super::scratch::with_scratch;
use super::vector;
use super::weight::{Weight, WeightValues};

/// Most rows of activations of a task.
pub const TASK_ROWS: usize = 192;
/// Outputs of a task; whole panels for every instruction set.
pub const TASK_COLUMNS: usize = 128;

/// The blocks of `size` that `len` is cut into; the last may be smaller.
pub fn blocks(len: usize, size: usize) -> Vec<Range<usize>> {
    (0..len)
        .step_by(size)
        .map(|start| start..(start + size).min(len))
        .collect()
}

thread_local! {
    /// Rows of a weight in f32, before they are packed.
    static WIDENED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// The start of a linear layer's sums.
pub enum To<'a> {
    /// Nothing.
    Zero,
    /// `[o]`, to every row.
    Bias(&'a [f32]),
    /// `[n, o]`; becomes the result.
    Rows(Vec<f32>),
}

/// `to + x weightᵀ`: `x` `[n, i]`, `weight` `[o, i]`; returns `[n, o]`.
pub fn linear(x: &[f32], weight: &Weight, to: To) -> Vec<f32> {
    let (inputs, outputs) = (weight.inputs, weight.outputs());
    let n = x.len() / inputs;
    match &to {
        To::Zero => {}
        To::Bias(bias) => assert_eq!(bias.len(), outputs, "a bias for each output"),
        To::Rows(rows) => assert_eq!(rows.len(), n * outputs, "rows to add to"),
    }
    if n <= few::FEW_ROWS {
        return few_rows(x, weight, to);
    }
    let arch = Arch::new();
    let x = Matrix {
        values: x,
        stride: inputs,
    };
    let bias = match to {
        To::Rows(mut rows) => {
            let out = OutputBlock::new(&mut rows, outputs);
            for_products(arch, x, [weight], out, |a, [b], _, out| {
                Product::adding(inputs, a, b, out).run(arch);
            });
            return rows;
        }
        To::Bias(bias) => Some(bias),
        To::Zero => None,
    };
    let mut out = Unwritten::new(n * outputs);
    let block = OutputBlock::new(out.values(), outputs);
    for_products(arch, x, [weight], block, |a, [b], columns, out| {
        let bias = bias.map(|bias| &bias[columns]);
        Product::new(inputs, a, b, bias, out).run(arch);
    });
    // SAFETY: the products are of blocks that cover the output, and each writes its whole block.
    unsafe { out.assume_written() }
}

fn few_rows(x: &[f32], weight: &Weight, to: To) -> Vec<f32> {
    let mut out = FewRows::new(x, weight).product(weight);
    let outputs = weight.outputs();
    let add = |out: &mut [f32], to: &[f32]| {
        for (out, to) in out.iter_mut().zip(to) {
            *out += to;
        }
    };
    match to {
        To::Zero => {}
        To::Bias(bias) => out.chunks_exact_mut(outputs).for_each(|row| add(row, bias)),
        To::Rows(rows) => add(&mut out, &rows),
    }
    out
}

/// `up * gate * sigmoid(gate)` of the products of `x` `[n, i]` with two weights `[o, i]`; returns
/// `[n, o]`. The products of a block are used while they are in the cache.
pub fn gated_linear(x: &[f32], up: &Weight, gate: &Weight) -> Vec<f32> {
    let (inputs, outputs) = (up.inputs, up.outputs());
    let n = x.len() / inputs;
    if n <= few::FEW_ROWS {
        let products = [up, gate].map(|weight| FewRows::new(x, weight).product(weight));
        return rows::swiglu(&products[0], &products[1]);
    }
    let arch = Arch::new();
    let x = Matrix {
        values: x,
        stride: inputs,
    };
    let mut out = Unwritten::new(n * outputs);
    let block = OutputBlock::new(out.values(), outputs);
    for_products(arch, x, [up, gate], block, |a, panels, _, mut out| {
        let [rows, columns] = out.shape();
        let size = rows * columns;
        with_scratch(2 * size, |scratch| {
            for (b, products) in panels.into_iter().zip(scratch.chunks_exact_mut(size)) {
                let products = OutputBlock::new(products, columns);
                Product::new(inputs, a, b, None, products).run(arch);
            }
            let (up, gate) = scratch.split_at(size);
            let products = up.chunks_exact(columns).zip(gate.chunks_exact(columns));
            for (row, (up, gate)) in products.enumerate() {
                vector::swiglu(arch, up, gate, out.row(row));
            }
        });
    });
    // SAFETY: the blocks cover the output, and `swiglu` writes each row of a block.
    unsafe { out.assume_written() }
}

/// Calls `task` for blocks of the products of `x` with weights of one shape: with the rows of `x`,
/// the panels of each weight, the outputs that these are, and the block of `out` `[n, o]` at both.
fn for_products<T: Slot, const N: usize>(
    arch: Arch,
    x: Matrix,
    weights: [&Weight; N],
    mut out: OutputBlock<T>,
    task: impl Fn(Left, [Panels; N], Range<usize>, OutputBlock<T>) + Sync,
) {
    let [n, outputs] = out.shape();
    for chunk in blocks(outputs, outputs_of_chunk(N * x.stride)) {
        let packed = weights.map(|weight| pack(arch, weight, chunk.clone()));
        for_blocks(out.part(0..n, chunk.clone()), |rows, columns, out| {
            let panels = packed.each_ref().map(|b| b.at_column(columns.start));
            let outputs = chunk.start + columns.start..chunk.start + columns.end;
            task(x.left(rows.start), panels, outputs, out);
        });
    }
}

/// Packs outputs of a weight. This costs little next to the products: a value is packed in the time
/// of some 40 of its products, and meets every row.
pub fn pack(arch: Arch, weight: &Weight, outputs: Range<usize>) -> PanelMatrix {
    let inputs = weight.inputs;
    let pack = |columns: Range<usize>, width, panel: &mut [MaybeUninit<f32>]| {
        let count = columns.len();
        let rows = outputs.start + columns.start..outputs.start + columns.end;
        let pack_rows = |values: &[f32], panel: &mut [MaybeUninit<f32>]| {
            let columns = Matrix {
                values,
                stride: inputs,
            };
            panels::pack_columns(columns, count, width, panel);
        };
        if let WeightValues::F32(values) = &weight.values {
            return pack_rows(&values[rows.start * inputs..rows.end * inputs], panel);
        }
        WIDENED.with_borrow_mut(|buffer| pack_rows(weight.rows(rows, buffer), panel));
    };
    // SAFETY: `pack_columns` writes all of its panel.
    unsafe { PanelMatrix::new(arch, [inputs, outputs.len()], pack) }
}

/// Outputs of a weight that are packed together: 16 MiB of them.
pub fn outputs_of_chunk(inputs: usize) -> usize {
    ((1 << 22) / inputs).next_multiple_of(TASK_COLUMNS)
}

/// Rows of a task: as many as the cache likes, and few enough to keep some processors busy.
pub fn rows_of_task(n: usize) -> usize {
    let rows = n.div_ceil(16).next_multiple_of(2 * TILE_ROWS);
    rows.clamp(2 * TILE_ROWS, TASK_ROWS)
}

/// Calls `task` with blocks of an output, and the rows and columns that they are.
fn for_blocks<T: Slot>(
    out: OutputBlock<T>,
    task: impl Fn(Range<usize>, Range<usize>, OutputBlock<T>) + Sync,
) {
    let rows = rows_of_task(out.shape()[0]);
    let grid = out.grid([rows, TASK_COLUMNS]);
    let [down, across] = grid.blocks();
    (0..down * across).into_par_iter().for_each(|at| {
        let position = [at % down, at / down];
        let [rows, columns] = grid.ranges(position);
        task(rows, columns, grid.take(position));
    });
}

/// `x` `[n, i]`, `weight` `[o, i]`, `d_output` `[n, o]`; returns the gradients of `x` and `weight`.
pub fn linear_backward(
    x: &[f32],
    weight: &[f32],
    d_output: &[f32],
    inputs: usize,
) -> (Vec<f32>, Vec<f32>) {
    let (n, outputs) = (x.len() / inputs, weight.len() / inputs);
    let arch = Arch::new();
    let by_input = |values| Matrix {
        values,
        stride: inputs,
    };
    let d_output = Matrix {
        values: d_output,
        stride: outputs,
    };
    let mut d_x = vec![0f32; n * inputs];
    let panels = PanelMatrix::rows(arch, [outputs, inputs], by_input(weight));
    let out = OutputBlock::new(&mut d_x, inputs);
    add_product(arch, outputs, |row| d_output.left(row), &panels, out);
    let mut d_weight = vec![0f32; outputs * inputs];
    let panels = PanelMatrix::rows(arch, [n, inputs], by_input(x));
    let out = OutputBlock::new(&mut d_weight, inputs);
    add_product(arch, n, |row| d_output.left_transposed(row), &panels, out);
    (d_x, d_weight)
}

/// `out += a b` for `a` `[n, k]`, given from a row on.
pub fn add_product<'a>(
    arch: Arch,
    k: usize,
    a: impl Fn(usize) -> Left<'a> + Sync,
    b: &PanelMatrix,
    out: OutputBlock<f32>,
) {
    for_blocks(out, |rows, columns, out| {
        let b = b.at_column(columns.start);
        Product::adding(k, a(rows.start), b, out).run(arch);
    });
}
