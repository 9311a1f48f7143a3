//! Products with weights: linear layers and the LM-head loss.
//!
//! Weights are `[outputs, inputs]` in the type they are held in. A block of their rows is widened to
//! f32 just before it meets a block of activations, which has enough rows to make that cheap; where there are only a
//! few, `few.rs` multiplies.

use std::ops::Range;

use gemm::{Parallelism, gemm};
use pulp::Arch;
use rayon::prelude::*;

use super::few::{self, Rows};
use super::{Output, Weight, vector};

/// Rows of activations that meet one block of weights.
const ROWS: usize = 1024;
/// Rows of a weight that are widened together: with 2,048 inputs they fill 2 MiB, a second-level cache.
const OUTPUTS: usize = 256;
/// Rows whose loss is computed together; bounds what is kept for each block of the vocabulary.
const LOSS_ROWS: usize = 4096;

/// A matrix with its row stride, read.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub values: &'a [f32],
    pub stride: usize,
}

impl<'a> Matrix<'a> {
    /// The rows from `row` on.
    pub fn rows_from(self, row: usize) -> Self {
        Matrix {
            values: &self.values[row * self.stride..],
            ..self
        }
    }
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
        gemm(
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
            Parallelism::None,
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
        gemm(
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
            Parallelism::None,
        );
    }
}

fn blocks(len: usize, size: usize) -> Vec<Range<usize>> {
    (0..len)
        .step_by(size)
        .map(|start| start..(start + size).min(len))
        .collect()
}

/// `x` `[n, i]`, `weight` `[o, i]`; returns `[n, o]`.
pub fn linear(x: &[f32], weight: &Weight) -> Vec<f32> {
    let (inputs, outputs) = (weight.inputs, weight.outputs());
    let n = x.len() / inputs;
    if n <= few::FEW {
        return Rows::new(x, weight).product(weight);
    }
    let mut out = vec![0f32; n * outputs];
    let target = Output(out.as_mut_ptr());
    let (row_blocks, output_blocks) = (blocks(n, ROWS), blocks(outputs, OUTPUTS));
    let per_block = row_blocks.len();
    (0..per_block * output_blocks.len())
        .into_par_iter()
        .for_each_init(Vec::new, |buffer, task| {
            let rows = row_blocks[task % per_block].clone();
            let columns = output_blocks[task / per_block].clone();
            let weight = weight.rows(columns.clone(), buffer);
            let shape = [rows.len(), columns.len(), inputs];
            let out = target.at(rows.start * outputs + columns.start);
            // SAFETY: this task alone writes these rows and columns of `out`.
            unsafe {
                product_transposed(
                    shape,
                    Matrix {
                        values: &x[rows.start * inputs..],
                        stride: inputs,
                    },
                    Matrix {
                        values: weight,
                        stride: inputs,
                    },
                    1.0,
                    out,
                    outputs,
                );
            }
        });
    out
}

/// Largest logit of a block of the vocabulary and the sum of exponentials relative to it.
#[derive(Clone, Copy)]
struct Partial {
    max: f32,
    sum: f32,
}

/// Partials of every row, and (row, logit) of the targets that lie in the block.
type BlockLoss = (Vec<Partial>, Vec<(usize, f32)>);

/// `hidden` `[n, c]`, `head` `[v, c]`, `targets` `[n]`; returns nats `[n]`.
pub fn token_loss(hidden: &[f32], head: &Weight, targets: &[i32]) -> Vec<f32> {
    let (c, vocabulary) = (head.inputs, head.outputs());
    let outside = targets.iter().find(|&&t| t < 0 || t as usize >= vocabulary);
    assert!(
        outside.is_none(),
        "token_loss: target {outside:?} of a vocabulary of {vocabulary}"
    );
    let arch = Arch::new();
    let vocabulary_blocks = blocks(vocabulary, OUTPUTS);
    let mut loss = Vec::with_capacity(targets.len());
    for (hidden, targets) in hidden.chunks(LOSS_ROWS * c).zip(targets.chunks(LOSS_ROWS)) {
        let few = (targets.len() <= few::FEW).then(|| Rows::new(hidden, head));
        let partials: Vec<BlockLoss> = vocabulary_blocks
            .par_iter()
            .map_init(
                || (Vec::new(), Vec::new()),
                |(buffer, logits), block| {
                    if let Some(few) = &few {
                        let product = |_, logits: &mut [f32]| {
                            few.product_of(head, block.clone(), logits);
                        };
                        return loss_of_block(arch, product, block, targets, logits);
                    }
                    let weight = head.rows(block.clone(), buffer);
                    let product = |rows: Range<usize>, logits: &mut [f32]| {
                        let matrix = |values| Matrix { values, stride: c };
                        let (a, b) = (matrix(&hidden[rows.start * c..]), matrix(weight));
                        let shape = [rows.len(), block.len(), c];
                        // SAFETY: `logits` is this task's own and has room for the rows.
                        unsafe {
                            product_transposed(shape, a, b, 1.0, logits.as_mut_ptr(), block.len());
                        }
                    };
                    loss_of_block(arch, product, block, targets, logits)
                },
            )
            .collect();
        let mut target_logit = vec![0f32; targets.len()];
        for (row, logit) in partials.iter().flat_map(|partial| &partial.1) {
            target_logit[*row] = *logit;
        }
        loss.extend(target_logit.iter().enumerate().map(|(row, &target)| {
            let rows = partials.iter().map(|partial| partial.0[row]);
            let max = rows.clone().fold(f32::NEG_INFINITY, |m, p| m.max(p.max));
            let sum: f64 = rows
                .map(|p| p.sum as f64 * ((p.max - max) as f64).exp())
                .sum();
            (max as f64 + sum.ln() - target as f64) as f32
        }));
    }
    loss
}

/// The loss of every row over one block of the vocabulary, whose logits for some rows `product` writes.
fn loss_of_block(
    arch: Arch,
    product: impl Fn(Range<usize>, &mut [f32]),
    block: &Range<usize>,
    targets: &[i32],
    logits: &mut Vec<f32>,
) -> BlockLoss {
    let n = targets.len();
    let mut partials = Vec::with_capacity(n);
    let mut found = Vec::new();
    for rows in blocks(n, ROWS) {
        logits.resize(rows.len() * block.len(), 0.0);
        product(rows.clone(), logits);
        for (row, logits) in rows.zip(logits.chunks_exact_mut(block.len())) {
            let target = targets[row] as usize;
            if block.contains(&target) {
                found.push((row, logits[target - block.start]));
            }
            let max = vector::max(arch, logits);
            let sum = vector::exp_sum(arch, logits, max);
            partials.push(Partial { max, sum });
        }
    }
    (partials, found)
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
        let tasks = d_head.par_chunks_mut(OUTPUTS * c).enumerate();
        tasks.for_each(|(block, d_head)| {
            let columns = Matrix {
                values: &d_logits[block * OUTPUTS..],
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
