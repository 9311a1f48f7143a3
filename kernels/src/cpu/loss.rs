//! The LM head's loss, without holding all logits.

use pulp::Arch;
use rayon::prelude::*;

use super::gemm::Product;
use super::linear::{
    TASK_COLUMNS, TASK_ROWS, add_product, blocks, outputs_of_chunk, pack, rows_of_task,
};
use super::output::OutputBlock;
use super::panels::{Matrix, PanelMatrix};
use super::scratch::with_scratch;
use super::vector;
use super::weight::Weight;

/// Largest logit of a row so far, the sum of exponentials relative to it, and the target's logit.
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
    let hidden = Matrix {
        values: hidden,
        stride: c,
    };
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
            for columns in blocks(chunk.len(), TASK_COLUMNS) {
                with_scratch(partials.len() * columns.len(), |logits| {
                    let out = OutputBlock::new(&mut *logits, columns.len());
                    let (a, b) = (hidden.left(task * rows), packed.at_column(columns.start));
                    Product::new(c, a, b, None, out).run(arch);
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
    /// Adds some logits; `target` is the index of the target's, if it is not before them.
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

/// Logits per chunk of rows in the loss's backward pass.
const BACKWARD_LOGITS: usize = 1 << 23;

/// `hidden` `[n, c]`, `head` `[v, c]`, `targets` and `d_loss` `[n]`; returns the gradients of
/// `hidden` and `head`.
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
    let by_component = |values| Matrix { values, stride: c };
    // Logits are sums over components, the gradient of `hidden` over the vocabulary: a panel of one
    // is not a panel of the other, and every chunk of rows meets both.
    let to_logits = PanelMatrix::columns(arch, [c, vocabulary], by_component(head));
    let from_logits = PanelMatrix::rows(arch, [vocabulary, c], by_component(head));
    let rows = (BACKWARD_LOGITS / vocabulary).next_multiple_of(TASK_ROWS);
    for chunk in blocks(n, rows) {
        let hidden = by_component(&hidden[chunk.start * c..chunk.end * c]);
        let mut d_logits = vec![0f32; chunk.len() * vocabulary];
        let out = OutputBlock::new(&mut d_logits, vocabulary);
        add_product(arch, c, |row| hidden.left(row), &to_logits, out);
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
        let d_logits = Matrix {
            values: &d_logits,
            stride: vocabulary,
        };
        let out = OutputBlock::new(&mut d_hidden[chunk.start * c..chunk.end * c], c);
        add_product(
            arch,
            vocabulary,
            |row| d_logits.left(row),
            &from_logits,
            out,
        );
        let panels = PanelMatrix::rows(arch, [chunk.len(), c], hidden);
        let out = OutputBlock::new(&mut d_head, c);
        let a = |row| d_logits.left_transposed(row);
        add_product(arch, chunk.len(), a, &panels, out);
    }
    (d_hidden, d_head)
}
