//! Arithmetic and memory of a pass, computed before it runs.

use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use longspan_attention::Plans;
use longspan_kernels::ops;

use crate::block::MLP_ROWS;
use crate::tensors::Content;
use crate::{Architecture, WeightType};

/// Bytes of a value outside the model's matrices: activations, vectors and tables are f32, key
/// ranges i32.
const VALUE: u64 = 4;
/// Workspace of the CPU kernels, bytes: part of a matrix in panels (at most 16 MiB), and 1 to 2 MiB
/// for each of a few threads.
const WORKSPACE: u64 = 32 << 20;
/// Largest multiple to which the CPU kernels pad the rows of a head in panels.
const PANEL: u64 = 32;

/// Arithmetic and memory of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassCost {
    /// Floating-point operations of one sequence: two for each multiplication of a matrix product.
    /// Counts only keys that a query sees, and the LM head at every position.
    pub operations: u64,
    /// Upper estimate of the peak memory besides the weights, bytes.
    pub bytes: u64,
}

impl Architecture {
    /// Bytes of the model with its matrices in `dtype`, or packed if the model is.
    pub fn weight_bytes(&self, dtype: WeightType) -> u64 {
        let tensors = self.stored_tensors().into_iter();
        let bytes = tensors.map(|tensor| {
            let len: u64 = tensor.shape.iter().map(|&size| size as u64).product();
            match tensor.content {
                // AutoGPTQ stores scales as f16.
                Content::Scales { .. } => len * WeightType::F16.size() as u64,
                Content::Values(_) if tensor.shape.len() == 2 => len * dtype.size() as u64,
                _ => len * VALUE,
            }
        });
        bytes.sum()
    }

    /// The cost of scoring sequences under the plans of the layers: the operations of one, and the
    /// memory of `sequences` that go through the model together.
    pub fn pass_cost(&self, plans: &Plans, sequences: usize) -> PassCost {
        let n = plans
            .distinct()
            .first()
            .map_or(0, |plan| plan.query_scale.len()) as u64;
        let (width, ffn) = (self.hidden_size as u64, self.ffn as u64);
        let seen: u64 = plans.iter().map(|plan| plan.seen()).sum();
        let weights = self.layers as u64 * (4 * width * width + 3 * width * ffn)
            + self.vocab_size as u64 * width;

        // Attention, in rows of the residual stream: the stream, q, k, v, keys and values in
        // panels, and the output; for each further band its own output and the merged one.
        let bands = plans.distinct().iter().map(|plan| plan.bands.len() as u64);
        let bands = bands.max().unwrap_or(1);
        let d = self.head_dim as u64;
        let rows = sequences as u64 * n;
        let filled = rows * self.heads as u64 * (d.next_multiple_of(PANEL) - d);
        let attention = rows * width * (7 + 2 * (bands - 1)) + filled;
        // The feed-forward layer: the stream, the blocks of the output, the output, and the
        // intermediate values of one block. Packed matrices are multiplied and gated in separate
        // steps, and may need their inputs in another order.
        let block = if self.quantization.is_some() {
            3 * ffn + width.max(ffn)
        } else {
            ffn
        };
        let mlp = 3 * rows * width + rows.min(MLP_ROWS as u64) * (2 * width + block);
        // Tables of all distinct plans: for each band cos and sin of queries and keys, and the key
        // ranges.
        let bands = plans.distinct().iter().map(|plan| plan.bands.len() as u64);
        let tables = bands.sum::<u64>() * n * (2 * self.head_dim as u64 + 2);
        PassCost {
            operations: 2 * n * weights + 4 * width * seen,
            bytes: VALUE * (attention.max(mlp) + tables) + WORKSPACE,
        }
    }
}

/// Floating-point operations per second of f32 matrix products on a device, measured for 0.3 s; an
/// upper bound for passes.
pub fn operations_per_second(device: &Device) -> f64 {
    let [n, inputs, outputs] = [512usize, 1024, 1024];
    let x = Tensor::<2>::ones([n, inputs], device);
    let weight = Tensor::<2>::ones([outputs, inputs], device);
    // Reading back waits for a device that works asynchronously.
    let product = || ops::linear(x.clone(), weight.clone()).into_data();
    product();
    let (start, mut products) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_millis(300) {
        product();
        products += 1;
    }
    (2 * n * inputs * outputs) as f64 * f64::from(products) / start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape;

    /// 1.8 billion parameters; `seen` of a causal pass is `n (n + 1) / 2` in each layer.
    #[test]
    fn costs_of_a_published_shape() {
        let config = shape("qwen-1.8b").unwrap();
        let parameters = config.weight_bytes(WeightType::F32) / 4;
        assert_eq!(parameters, 1_836_828_672);
        let halves = config.weight_bytes(WeightType::Bf16);
        assert!(halves > 2 * parameters && halves < 2 * parameters + (4 << 20));

        let method = longspan_attention::Method::named("plain");
        let length = longspan_rope::Length::whole(1000);
        let plans = method.plan(&config.geometry(), length).unwrap();
        let cost = config.pass_cost(&plans, 1);
        let (w, f, v) = (2048, 5504, 151_936);
        let products = 24 * (4 * w * w + 3 * w * f) + v * w;
        let attention = 24 * w * (1000 * 1001 / 2);
        assert_eq!(cost.operations, 2 * 1000 * products + 4 * attention);
    }
}
