//! Products with weights: linear layers and the LM-head loss.
//!
//! Weights are `[outputs, inputs]` in the type they are held in. A block of their rows is widened to
//! f32 and packed just before it meets the activations, which have enough rows to make that cheap; where there are only a
//! few, `few` multiplies.

use std::cell::RefCell;
use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use super::few::{self, Rows};
use super::gemm::{self, Left, Matrix, Packed, Product, Start, TILE_ROWS};
use super::{Output, Weight, WeightValues, vector, with_scratch};

/// Most rows of activations of a task.
const ROWS: usize = 192;
/// Outputs of a task; whole panels for every instruction set.
const COLUMNS: usize = 128;

fn blocks(len: usize, size: usize) -> Vec<Range<usize>> {
    (0..len)
        .step_by(size)
        .map(|start| start..(start + size).min(len))
        .collect()
}

thread_local! {
    /// Rows of a weight in f32, before they are packed.
    static WIDENED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
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
    match &to {
        To::Zero => {}
        To::Bias(bias) => assert_eq!(bias.len(), outputs, "a bias for each output"),
        To::Rows(rows) => assert_eq!(rows.len(), n * outputs, "rows to add to"),
    }
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
                a: matrix(x, inputs).left(rows.start),
                b: packed.at_column(columns.start),
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
                        a: matrix(x, inputs).left(rows.start),
                        b: packed.at_column(columns.start),
                        start: Start::Zero,
                        out: scratch.as_mut_ptr(),
                        out_stride: columns.len(),
                    };
                    // SAFETY: the scratch is this task's own and has room.
                    unsafe { product.run(arch) };
                }
                let (up, gate) = scratch.split_at(size);
                let products = up
                    .chunks_exact(columns.len())
                    .zip(gate.chunks_exact(columns.len()));
                for (row, (up, gate)) in rows.clone().zip(products) {
                    let first = row * outputs + chunk.start + columns.start;
                    // SAFETY: this task alone writes these rows and columns of `out`, which has room for all.
                    let out =
                        unsafe { std::slice::from_raw_parts_mut(target.at(first), columns.len()) };
                    vector::swiglu(arch, up, gate, out);
                }
            });
        });
    }
    // SAFETY: the tasks have written every row and column.
    unsafe { out.set_len(n * outputs) };
    out
}

/// Packs outputs of a weight. Beside the products this is little: a value is packed in the time of some 40 of its
/// products, and meets every row.
fn pack(arch: Arch, weight: &Weight, outputs: Range<usize>) -> Packed {
    let inputs = weight.inputs;
    Packed::new(arch, [inputs, outputs.len()], |columns, width, panel| {
        let count = columns.len();
        let rows = outputs.start + columns.start..outputs.start + columns.end;
        if let WeightValues::F32(values) = &weight.values {
            let values = &values[rows.start * inputs..rows.end * inputs];
            return gemm::pack_columns(matrix(values, inputs), count, width, panel);
        }
        WIDENED.with_borrow_mut(|buffer| {
            let values = weight.rows(rows, buffer);
            gemm::pack_columns(matrix(values, inputs), count, width, panel);
        });
    })
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
    (0..rows.len() * columns.len())
        .into_par_iter()
        .for_each(|at| {
            task(
                rows[at % rows.len()].clone(),
                columns[at / rows.len()].clone(),
            );
        });
}

fn matrix(values: &[f32], stride: usize) -> Matrix<'_> {
    Matrix { values, stride }
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
                        a: matrix(hidden, c).left(task * rows),
                        b: packed.at_column(columns.start),
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

/// `x` `[n, i]`, `weight` `[o, i]`, `d_output` `[n, o]`; returns the gradients of `x` and `weight`.
pub fn linear_backward(
    x: &[f32],
    weight: &[f32],
    d_output: &[f32],
    inputs: usize,
) -> (Vec<f32>, Vec<f32>) {
    let (n, outputs) = (x.len() / inputs, weight.len() / inputs);
    let arch = Arch::new();
    let (x, weight) = (matrix(x, inputs), matrix(weight, inputs));
    let d_output = matrix(d_output, outputs);
    let mut d_x = vec![0f32; n * inputs];
    let packed = Packed::rows(arch, [outputs, inputs], weight);
    multiply(
        arch,
        [n, inputs, outputs],
        |row| d_output.left(row),
        &packed,
        &mut d_x,
    );
    let mut d_weight = vec![0f32; outputs * inputs];
    let packed = Packed::rows(arch, [n, inputs], x);
    let columns = |column| d_output.left_transposed(column);
    multiply(arch, [outputs, inputs, n], columns, &packed, &mut d_weight);
    (d_x, d_weight)
}

/// `out += a b` for `[n, m, k]`, with `a` from a row on.
fn multiply(
    arch: Arch,
    [n, m, k]: [usize; 3],
    a: impl Fn(usize) -> Left + Sync,
    b: &Packed,
    out: &mut [f32],
) {
    assert_eq!(out.len(), n * m);
    let target = Output(out.as_mut_ptr());
    for_blocks(n, m, |rows, columns| {
        let product = Product {
            shape: [rows.len(), columns.len(), k],
            a: a(rows.start),
            b: b.at_column(columns.start),
            start: Start::Output,
            out: target.at(rows.start * m + columns.start),
            out_stride: m,
        };
        // SAFETY: this task alone writes these rows and columns.
        unsafe { product.run(arch) };
    });
}

/// Logits held at once by the loss's backward pass.
const BACKWARD_LOGITS: usize = 1 << 23;

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
    let to_logits = Packed::columns(arch, [c, vocabulary], matrix(head, c));
    let from_logits = Packed::rows(arch, [vocabulary, c], matrix(head, c));
    let held = (BACKWARD_LOGITS / vocabulary).next_multiple_of(ROWS);
    for chunk in blocks(n, held) {
        let rows = chunk.len();
        let hidden = matrix(&hidden[chunk.start * c..chunk.end * c], c);
        let mut d_logits = vec![0f32; rows * vocabulary];
        let shape = [rows, vocabulary, c];
        multiply(
            arch,
            shape,
            |row| hidden.left(row),
            &to_logits,
            &mut d_logits,
        );
        // The probabilities, less one at the target.
        d_logits
            .par_chunks_mut(vocabulary)
            .zip(&targets[chunk.clone()])
            .zip(&d_loss[chunk.clone()])
            .for_each(|((row, &target), &d_loss)| {
                let max = vector::max(arch, row);
                let sum = vector::exp_sum(arch, row, max);
                vector::scale(arch, row, d_loss / sum);
                row[target as usize] -= d_loss;
            });
        let d_logits = matrix(&d_logits, vocabulary);
        let d_hidden = &mut d_hidden[chunk.start * c..chunk.end * c];
        let shape = [rows, c, vocabulary];
        multiply(
            arch,
            shape,
            |row| d_logits.left(row),
            &from_logits,
            d_hidden,
        );
        let packed = Packed::rows(arch, [rows, c], hidden);
        let columns = |column| d_logits.left_transposed(column);
        multiply(arch, [vocabulary, c, rows], columns, &packed, &mut d_head);
    }
    (d_hidden, d_head)
}
