//! Ops that work row by row: rotary, merge, RMSNorm, SwiGLU.

use pulp::Arch;
use rayon::prelude::*;

use super::output::Unwritten;
use super::vector;
use super::views::Strided;

/// Values of a task: enough to outweigh the cost of starting it.
const TASK_VALUES: usize = 1 << 15;

fn rows_per_task(row: usize) -> usize {
    (TASK_VALUES / row.max(1)).max(1)
}

/// `x` `[b, h, n, d]` with tables `[n, d/2]`; returns `[b, h, n, d]`.
pub fn rotary(x: &Strided, cos: &[f32], sin: &[f32]) -> Vec<f32> {
    let [b, h, n, d] = x.shape;
    let half = d / 2;
    let arch = Arch::new();
    let mut out = vec![0f32; b * h * n * d];
    let rows = rows_per_task(d);
    out.par_chunks_mut(rows * d)
        .enumerate()
        .for_each(|(task, out)| {
            for (r, out) in out.chunks_exact_mut(d).enumerate() {
                let row = task * rows + r;
                let (head, i) = (row / n, row % n);
                let x = x.row(head / h, head % h, i);
                let table = i * half..(i + 1) * half;
                vector::rotate(arch, x, &cos[table.clone()], &sin[table], out);
            }
        });
    out
}

/// Outputs `[b, h, n, d]` and log-sum-exps `[b, h, n]`; returns the output as `[b, n, h, d]`.
pub fn merge(a: &Strided, a_lse: &[f32], b: &Strided, b_lse: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let [batch, h, n, d] = a.shape;
    let weights = |row: usize| {
        let (a, b) = (a_lse[row], b_lse[row]);
        if a == f32::NEG_INFINITY && b == f32::NEG_INFINITY {
            return (0.0, 0.0, a);
        }
        let max = a.max(b);
        let (wa, wb) = ((a - max).exp(), (b - max).exp());
        (wa / (wa + wb), wb / (wa + wb), max + (wa + wb).ln())
    };
    let mut out = vec![0f32; batch * n * h * d];
    let rows = rows_per_task(h * d);
    out.par_chunks_mut(rows * h * d)
        .enumerate()
        .for_each(|(task, out)| {
            for (r, out) in out.chunks_exact_mut(d).enumerate() {
                let (row, head) = (task * rows + r / h, r % h);
                let (batch, i) = (row / n, row % n);
                let (wa, wb, _) = weights((batch * h + head) * n + i);
                let (a, b) = (a.row(batch, head, i), b.row(batch, head, i));
                for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                    *out = wa * a + wb * b;
                }
            }
        });
    let lse = (0..batch * h * n).map(|row| weights(row).2).collect();
    (out, lse)
}

/// `x` `[n, c]`, `weight` `[c]`.
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let c = weight.len();
    let arch = Arch::new();
    let mut out = vec![0f32; x.len()];
    let task = rows_per_task(c) * c;
    out.par_chunks_mut(task)
        .zip(x.par_chunks(task))
        .for_each(|(out, x)| {
            for (out, x) in out.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                vector::rms_norm(arch, x, weight, epsilon, out);
            }
        });
    out
}

/// Both of one shape.
pub fn swiglu(up: &[f32], gate: &[f32]) -> Vec<f32> {
    let arch = Arch::new();
    assert_eq!(up.len(), gate.len(), "swiglu: up against gate");
    let mut out = Unwritten::new(up.len());
    out.values()
        .par_chunks_mut(TASK_VALUES)
        .zip(up.par_chunks(TASK_VALUES))
        .zip(gate.par_chunks(TASK_VALUES))
        .for_each(|((out, up), gate)| vector::swiglu(arch, up, gate, out));
    // SAFETY: chunks of the output have the length of those of `up` and `gate`, and `swiglu` writes
    // a value for each of theirs.
    unsafe { out.assume_written() }
}

/// Gradients of `x` `[n, c]` and `weight` `[c]`.
pub fn rms_norm_backward(
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
    d_output: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let c = weight.len();
    let arch = Arch::new();
    let mut d_x = vec![0f32; x.len()];
    let task = rows_per_task(c) * c;
    let partial: Vec<Vec<f32>> = d_x
        .par_chunks_mut(task)
        .zip(x.par_chunks(task))
        .zip(d_output.par_chunks(task))
        .map(|((d_x, x), d_output)| {
            let mut d_weight = vec![0f32; c];
            let rows = d_x.chunks_exact_mut(c).zip(x.chunks_exact(c));
            for ((d_x, x), d_output) in rows.zip(d_output.chunks_exact(c)) {
                vector::rms_norm_backward(arch, x, weight, epsilon, d_output, d_x, &mut d_weight);
            }
            d_weight
        })
        .collect();
    // In the order of the rows, for any number of threads.
    let mut d_weight = vec![0f32; c];
    for partial in partial {
        for (sum, part) in d_weight.iter_mut().zip(partial) {
            *sum += part;
        }
    }
    (d_x, d_weight)
}

/// Gradients of `up` and `gate`; all of one shape.
pub fn swiglu_backward(up: &[f32], gate: &[f32], d_output: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let arch = Arch::new();
    let (mut d_up, mut d_gate) = (vec![0f32; up.len()], vec![0f32; up.len()]);
    d_up.par_chunks_mut(TASK_VALUES)
        .zip(d_gate.par_chunks_mut(TASK_VALUES))
        .zip(up.par_chunks(TASK_VALUES))
        .zip(gate.par_chunks(TASK_VALUES))
        .zip(d_output.par_chunks(TASK_VALUES))
        .for_each(|((((d_up, d_gate), up), gate), d_output)| {
            vector::swiglu_backward(arch, up, gate, d_output, d_up, d_gate);
        });
    (d_up, d_gate)
}
