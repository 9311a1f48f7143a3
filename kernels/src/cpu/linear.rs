//! Products with weights: linear layers and the LM-head loss.
//!
//! Weights are `[outputs, inputs]` in the type they are held in. A block of their rows is widened to
//! f32 and packed just before it meets the activations, which have enough rows to make that cheap; where there are only a
//! few, `few.rs` multiplies.

use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use super::few::{self, Rows};
use super::gemm::{self, Left, Panels, Product, Start, TILE_ROWS};
use super::{Output, Weight, vector, with_scratch};

/// Most rows of activations of a task.
const ROWS: usize = 192;
/// Outputs of a task; whole panels for every instruction set.
const COLUMNS: usize = 128;

/// A matrix with its row stride, read.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub values: &'a [f32],
    pub stride: usize,
}

/// `out = factor * a bᵀ`: `a` `[n, k]`, `b` `[m, k]`, `out` `[n, m]` with its own row stride.
///
/// # Safety
/// `out` must be valid for `n` rows of `m` values, and nobody else may touch them meanwhile.
pub unsafe fn product_transposed(
    [n, m, k]: [usize; 3],
    a: Matrix,
    b: Matrix,
    factor: f32,
    out: *mut f32,
    out_stride: usize,
) {
    if n == 0 || m == 0 {
        return;
    }
    assert!(a.values.len() >= (n - 1) * a.stride + k && b.values.len() >= (m - 1) * b.stride + k);
    // SAFETY: the operands cover their shapes as just asserted; the caller answers for `out`.
    unsafe {
        ::gemm::gemm(
            n,
            m,
            k,
            out,
            1,
            out_stride as isize,
            false,
            a.values.as_ptr(),
            1,
            a.stride as isize,
            b.values.as_ptr(),
            b.stride as isize,
            1,
            0.0,
            factor,
            false,
            false,
            false,
            ::gemm::Parallelism::None,
        );
    }
}

/// `out += a b`: `a` `[n, k]`, `b` `[k, m]`.
///
/// # Safety
/// `out` must be valid for `n` rows of `m` values, and nobody else may touch them meanwhile.
pub unsafe fn add_product(
    [n, m, k]: [usize; 3],
    a: Matrix,
    b: Matrix,
    out: *mut f32,
    out_stride: usize,
) {
    assert!(a.values.len() >= (n - 1) * a.stride + k && b.values.len() >= (k - 1) * b.stride + m);
    // SAFETY: the operands cover their shapes as just asserted; the caller answers for `out`.
    unsafe { add([n, m, k], a.values, [1, a.stride], b, out, out_stride) }
}

/// `out += aᵀ b`: `a` `[k, n]`, `b` `[k, m]`.
///
/// # Safety
/// `out` must be valid for `n` rows of `m` values, and nobody else may touch them meanwhile.
pub unsafe fn add_transposed(
    [n, m, k]: [usize; 3],
    a: Matrix,
    b: Matrix,
    out: *mut f32,
    out_stride: usize,
) {
    assert!(a.values.len() >= (k - 1) * a.stride + n && b.values.len() >= (k - 1) * b.stride + m);
    // SAFETY: the operands cover their shapes as just asserted; the caller answers for `out`.
    unsafe { add([n, m, k], a.values, [a.stride, 1], b, out, out_stride) }
}

/// `a` is given with its column and row strides.
unsafe fn add(
    [n, m, k]: [usize; 3],
    a: &[f32],
    [a_column, a_row]: [usize; 2],
    b: Matrix,
    out: *mut f32,
    out_stride: usize,
) {
    // SAFETY: the callers' contract.
    unsafe {
        ::gemm::gemm(
            n,
            m,
            k,
            out,
            1,
            out_stride as isize,
            true,
            a.as_ptr(),
            a_column as isize,
            a_row as isize,
            b.values.as_ptr(),
            1,
            b.stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            ::gemm::Parallelism::None,
        );
    }
}

fn blocks(len: usize, size: usize) -> Vec<Range<usize>> {
    (0..len)
        .step_by(size)
        .map(|start| start..(start + size).min(len))
        .collect()
}

/// What a linear layer's products are added to.
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
    if n <= few::FEW {
        return few_rows(x, weight, to);
    }
    let arch = Arch::new();
    let (mut out, bias) = match to {
        To::Zero => (Vec::with_capacity(n * outputs), None),
        To::Bias(bias) => (Vec::with_capacity(n * outputs), Some(bias)),
        To::Rows(rows) => (rows, None),
    };
    let held = !out.is_empty();
    let target = Output(out.as_mut_ptr());
    for chunk in blocks(outputs, outputs_of_chunk(inputs)) {
        let packed = pack(arch, weight, chunk.clone());
        for_blocks(n, chunk.len(), |rows, columns| {
            let first = chunk.start + columns.start;
            let start = match bias {
                _ if held => Start::Output,
                Some(bias) => Start::Bias(bias[first..].as_ptr()),
                None => Start::Zero,
            };
            let product = Product {
                shape: [rows.len(), columns.len(), inputs],
                a: left(x, inputs, rows.start),
                b: packed.from(columns.start),
                start,
                out: target.at(rows.start * outputs + first),
                out_stride: outputs,
            };
            // SAFETY: this task alone writes these rows and columns of `out`, which has room for all.
            unsafe { product.run(arch) };
        });
    }
    // SAFETY: the tasks have written every row and column.
    unsafe { out.set_len(n * outputs) };
    out
}

fn few_rows(x: &[f32], weight: &Weight, to: To) -> Vec<f32> {
    let mut out = Rows::new(x, weight).product(weight);
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

/// `up * gate * sigmoid(gate)` of the products of `x` `[n, i]` with two weights `[o, i]`; returns `[n, o]`. The products
/// of a block are used while they are in the cache.
pub fn gated_linear(x: &[f32], up: &Weight, gate: &Weight) -> Vec<f32> {
    let (inputs, outputs) = (up.inputs, up.outputs());
    let n = x.len() / inputs;
    if n <= few::FEW {
        let products = [up, gate].map(|weight| Rows::new(x, weight).product(weight));
        return super::rows::swiglu(&products[0], &products[1]);
    }
    let arch = Arch::new();
    let mut out = Vec::with_capacity(n * outputs);
    let target = Output(out.as_mut_ptr());
    for chunk in blocks(outputs, outputs_of_chunk(2 * inputs)) {
        let packed = [up, gate].map(|weight| pack(arch, weight, chunk.clone()));
        for_blocks(n, chunk.len(), |rows, columns| {
            let size = rows.len() * columns.len();
            with_scratch(2 * size, |scratch| {
                for (packed, scratch) in packed.iter().zip(scratch.chunks_exact_mut(size)) {
                    let product = Product {
                        shape: [rows.len(), columns.len(), inputs],
                        a: left(x, inputs, rows.start),
                        b: packed.from(columns.start),
                        start: Start::Zero,
                        out: scratch.as_mut_ptr(),
                        out_stride: columns.len(),
                    };
                    // SAFETY: the scratch is this task's own and has room.
                    unsafe { product.run(arch) };
                }
                let (up, gate) = scratch.split_at(size);
                let products = up.chunks_exact(columns.len()).zip(gate.chunks_exact(columns.len()));
                for (row, (up, gate)) in rows.clone().zip(products) {
                    let first = row * outputs + chunk.start + columns.start;
                    // SAFETY: this task alone writes these rows and columns of `out`, which has room for all.
                    let out = unsafe {
                        std::slice::from_raw_parts_mut(target.at(first), columns.len())
                    };
                    vector::swiglu(arch, up, gate, out);
                }
            });
        });
    }
    // SAFETY: the tasks have written every row and column.
    unsafe { out.set_len(n * outputs) };
    out
}

/// Some outputs of a weight in panels.
struct Packed {
    values: Vec<f32>,
    width: usize,
    inputs: usize,
}

impl Packed {
    /// The panels from a column on, the first one of a panel.
    fn from(&self, column: usize) -> Panels {
        Panels {
            values: self.values[column * self.inputs..].as_ptr(),
            stride: self.width * self.inputs,
        }
    }
}

/// Packs outputs of a weight. Beside the products this is little: a value is packed in the time of some 40 of its
/// products, and meets every row.
fn pack(arch: Arch, weight: &Weight, outputs: Range<usize>) -> Packed {
    let (width, inputs) = (gemm::panel_width(arch), weight.inputs);
    let len = outputs.len().next_multiple_of(width) * inputs;
    let mut values = Vec::with_capacity(len);
    let target = Output(values.as_mut_ptr());
    (0..outputs.len().div_ceil(width))
        .into_par_iter()
        .for_each_init(Vec::new, |buffer, panel| {
            let first = outputs.start + panel * width;
            let columns = first..(first + width).min(outputs.end);
            let count = columns.len();
            // SAFETY: this task alone writes the panel, for which there is room.
            let panel = unsafe {
                let start = target.at(panel * width * inputs);
                std::slice::from_raw_parts_mut(start, width * inputs)
            };
            gemm::pack_columns(weight.rows(columns, buffer), inputs, count, width, panel);
        });
    // SAFETY: the tasks have written every panel.
    unsafe { values.set_len(len) };
    Packed {
        values,
        width,
        inputs,
    }
}

/// Outputs of a weight that are packed together: 16 MiB of them.
fn outputs_of_chunk(inputs: usize) -> usize {
    ((1 << 22) / inputs).next_multiple_of(COLUMNS)
}

/// Rows of a task: as many as the cache likes, and few enough to keep some processors busy.
fn rows_of_task(n: usize) -> usize {
    let rows = n.div_ceil(16).next_multiple_of(2 * TILE_ROWS);
    rows.clamp(2 * TILE_ROWS, ROWS)
}

/// Calls `task` with blocks of `n` rows and `outputs` columns.
fn for_blocks(n: usize, outputs: usize, task: impl Fn(Range<usize>, Range<usize>) + Sync) {
    let (rows, columns) = (blocks(n, rows_of_task(n)), blocks(outputs, COLUMNS));
    (0..rows.len() * columns.len()).into_par_iter().for_each(|at| {
        task(rows[at % rows.len()].clone(), columns[at / rows.len()].clone());
    });
}

fn left(x: &[f32], inputs: usize, row: usize) -> Left {
    Left {
        values: x[row * inputs..].as_ptr(),
        row: inputs,
        column: 1,
    }
}

/// Largest logit of a row so far and the sum of exponentials relative to it.
#[derive(Clone, Copy)]
struct Partial {
    max: f32,
    sum: f64,
    target: f32,
}

/// `hidden` `[n, c]`, `head` `[v, c]`, `targets` `[n]`; returns nats `[n]`.
pub fn token_loss(hidden: &[f32], head: &Weight, targets: &[i32]) -> Vec<f32> {
    let (c, vocabulary) = (head.inputs, head.outputs());
    let outside = targets.iter().find(|&&t| t < 0 || t as usize >= vocabulary);
    assert!(
        outside.is_none(),
        "token_loss: target {outside:?} of a vocabulary of {vocabulary}"
    );
    let arch = Arch::new();
    let n = targets.len();
    let nothing = Partial {
        max: f32::NEG_INFINITY,
        sum: 0.0,
        target: 0.0,
    };
    let mut partials = vec![nothing; n];
    let rows = rows_of_task(n);
    for chunk in blocks(vocabulary, outputs_of_chunk(c)) {
        let packed = pack(arch, head, chunk.clone());
        let tasks = partials
            .par_chunks_mut(rows)
            .zip(targets.par_chunks(rows))
            .enumerate();
        tasks.for_each(|(task, (partials, targets))| {
            for columns in blocks(chunk.len(), COLUMNS) {
                with_scratch(partials.len() * columns.len(), |logits| {
                    let product = Product {
                        shape: [partials.len(), columns.len(), c],
                        a: left(hidden, c, task * rows),
                        b: packed.from(columns.start),
                        start: Start::Zero,
                        out: logits.as_mut_ptr(),
                        out_stride: columns.len(),
                    };
                    // SAFETY: the scratch is this task's own and has room.
                    unsafe { product.run(arch) };
                    let first = chunk.start + columns.start;
                    let logits = logits.chunks_exact_mut(columns.len());
                    for ((partial, &target), logits) in partials.iter_mut().zip(targets).zip(logits)
                    {
                        partial.add(arch, logits, (target as usize).checked_sub(first));
                    }
                });
            }
        });
    }
    let loss = partials
        .iter()
        .map(|row| (f64::from(row.max) + row.sum.ln() - f64::from(row.target)) as f32);
    loss.collect()
}

impl Partial {
    /// Takes some logits in, among which that of the target may be.
    fn add(&mut self, arch: Arch, logits: &mut [f32], target: Option<usize>) {
        if let Some(logit) = target.and_then(|target| logits.get(target)) {
            self.target = *logit;
        }
        let max = vector::max(arch, logits).max(self.max);
        let sum = f64::from(vector::exp_sum(arch, logits, max));
        self.sum = sum + self.sum * f64::from(self.max - max).exp();
        self.max = max;
    }
}

/// Rows of a task of the gradient of a linear layer's input.
const GRADIENT_ROWS: usize = 256;
/// Rows of a task of the gradient of a linear layer's weight.
const GRADIENT_OUTPUTS: usize = 64;

/// `x` `[n, i]`, `weight` `[o, i]`, `d_output` `[n, o]`; returns the gradients of `x` and `weight`.
pub fn linear_backward(
    x: &[f32],
    weight: &[f32],
    d_output: &[f32],
    inputs: usize,
) -> (Vec<f32>, Vec<f32>) {
    let (n, outputs) = (x.len() / inputs, weight.len() / inputs);
    let (mut d_x, mut d_weight) = (vec![0f32; x.len()], vec![0f32; weight.len()]);
    let matrix = |values, stride| Matrix { values, stride };
    d_x.par_chunks_mut(GRADIENT_ROWS * inputs)
        .zip(d_output.par_chunks(GRADIENT_ROWS * outputs))
        .for_each(|(d_x, d_output)| {
            let shape = [d_x.len() / inputs, inputs, outputs];
            let (a, b) = (matrix(d_output, outputs), matrix(weight, inputs));
            // SAFETY: this task's own rows.
            unsafe { add_product(shape, a, b, d_x.as_mut_ptr(), inputs) };
        });
    d_weight
        .par_chunks_mut(GRADIENT_OUTPUTS * inputs)
        .enumerate()
        .for_each(|(block, d_weight)| {
            let shape = [d_weight.len() / inputs, inputs, n];
            let columns = matrix(&d_output[block * GRADIENT_OUTPUTS..], outputs);
            // SAFETY: this task's own rows.
            unsafe {
                add_transposed(
                    shape,
                    columns,
                    matrix(x, inputs),
                    d_weight.as_mut_ptr(),
                    inputs,
                );
            }
        });
    (d_x, d_weight)
}

/// Logits held at once by the loss's backward pass.
const BACKWARD_LOGITS: usize = 1 << 23;
/// Rows of a task of the loss's backward pass.
const BACKWARD_ROWS: usize = 128;

/// `hidden` `[n, c]`, `head` `[v, c]`, `targets` and `d_loss` `[n]`; returns the gradients of `hidden` and
/// `head`.
pub fn token_loss_backward(
    hidden: &[f32],
    head: &[f32],
    targets: &[i32],
    d_loss: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let n = targets.len();
    let c = hidden.len() / n.max(1);
    let vocabulary = head.len() / c.max(1);
    let arch = Arch::new();
    let (mut d_hidden, mut d_head) = (vec![0f32; hidden.len()], vec![0f32; head.len()]);
    let held = (BACKWARD_LOGITS / vocabulary).next_multiple_of(BACKWARD_ROWS);
    let mut d_logits = vec![0f32; held.min(n) * vocabulary];
    for chunk in blocks(n, held) {
        let hidden = &hidden[chunk.start * c..chunk.end * c];
        // Row by row: the probabilities, less one at the target; and back through the head.
        let tasks = d_logits
            .par_chunks_mut(BACKWARD_ROWS * vocabulary)
            .zip(hidden.par_chunks(BACKWARD_ROWS * c))
            .zip(d_hidden[chunk.start * c..chunk.end * c].par_chunks_mut(BACKWARD_ROWS * c))
            .zip(targets[chunk.clone()].par_chunks(BACKWARD_ROWS))
            .zip(d_loss[chunk.clone()].par_chunks(BACKWARD_ROWS));
        tasks.for_each(|((((d_logits, hidden), d_hidden), targets), d_loss)| {
            let rows = targets.len();
            let matrix = |values, stride| Matrix { values, stride };
            let shape = [rows, vocabulary, c];
            // SAFETY: this task's own rows.
            unsafe {
                let out = d_logits.as_mut_ptr();
                product_transposed(
                    shape,
                    matrix(hidden, c),
                    matrix(head, c),
                    1.0,
                    out,
                    vocabulary,
                );
            }
            for ((row, &target), &d_loss) in d_logits
                .chunks_exact_mut(vocabulary)
                .zip(targets)
                .zip(d_loss)
            {
                let max = vector::max(arch, row);
                let sum = vector::exp_sum(arch, row, max);
                vector::scale(arch, row, d_loss / sum);
                row[target as usize] -= d_loss;
            }
            // SAFETY: this task's own rows.
            unsafe {
                let (a, b) = (matrix(d_logits, vocabulary), matrix(head, c));
                add_product([rows, c, vocabulary], a, b, d_hidden.as_mut_ptr(), c);
            }
        });
        let tasks = d_head.par_chunks_mut(GRADIENT_OUTPUTS * c).enumerate();
        tasks.for_each(|(block, d_head)| {
            let columns = Matrix {
                values: &d_logits[block * GRADIENT_OUTPUTS..],
                stride: vocabulary,
            };
            let rows = Matrix {
                values: hidden,
                stride: c,
            };
            let shape = [d_head.len() / c, c, chunk.len()];
            // SAFETY: this task's own rows of the head's gradient.
            unsafe { add_transposed(shape, columns, rows, d_head.as_mut_ptr(), c) };
        });
    }
    (d_hidden, d_head)
}
