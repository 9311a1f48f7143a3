//! What a pass costs, known before it runs.

use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use longspan_attention::Plans;
use longspan_kernels::ops;

use crate::qwen::MLP_ROWS;
use crate::{Architecture, WeightType};

/// Bytes of a value that is not a matrix of the model: activations, vectors and tables are f32, key ranges i32.
const VALUE: u64 = 4;
/// What the CPU kernels hold besides: some outputs of a matrix in panels (at most 16 MiB), and 1 to 2 MiB a thread, reckoned for
/// a few threads.
const WORKSPACE: u64 = 32 << 20;
/// Values that the rows of a head are filled up to a multiple of, at most, where values are put into panels.
const PANEL: u64 = 32;

/// Arithmetic and memory of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassCost {
    /// Floating-point operations of one sequence: two for each multiplication of a matrix product, with only those keys that
    /// a query sees, and the LM head at every position.
    pub operations: u64,
    /// Largest memory that is held at once besides the weights, bytes; an estimate from above.
    pub bytes: u64,
}

impl Architecture {
    /// Bytes of the model with its matrices in `dtype`, but for those that are packed.
    pub fn weight_bytes(&self, dtype: WeightType) -> u64 {
        let tensors = self.stored_tensors().into_iter();
        let bytes = tensors.map(|(name, tensor)| {
            let len: u64 = tensor.shape.iter().map(|&size| size as u64).product();
            match tensor.shape.len() {
                // Scales are f16, as AutoGPTQ stores them.
                2 if name.ends_with(".scales") => len * WeightType::F16.size() as u64,
                2 if !tensor.integer => len * dtype.size() as u64,
                _ => len * VALUE,
            }
        });
        bytes.sum()
    }

    /// The cost of scoring sequences under the plans of their layers: operations of each, and memory of so many together.
    pub fn pass_cost(&self, plans: &Plans, sequences: usize) -> PassCost {
        let n = plans
            .distinct()
            .first()
            .map_or(0, |plan| plan.query_scale.len()) as u64;
        let (width, ffn) = (self.hidden_size as u64, self.ffn as u64);
        let seen: u64 = plans.iter().map(|plan| plan.seen()).sum();
        let weights = self.layers as u64 * (4 * width * width + 3 * width * ffn)
            + self.vocab_size as u64 * width;

        // In rows of the residual stream. Attention: the stream, q, k and v, keys and values in panels, the output; for
        // each further band its own output and the merged one.
        let bands = plans.iter().map(|plan| plan.bands.len()).max().unwrap_or(1) as u64;
        let d = self.head_dim as u64;
        let rows = sequences as u64 * n;
        let filled = rows * self.heads as u64 * (d.next_multiple_of(PANEL) - d);
        let attention = rows * width * (7 + 2 * (bands - 1)) + filled;
        // The feed-forward layer: the stream, the blocks of the output and the output, and what one block needs: packed
        // matrices are not multiplied with and gated at once, and may want their inputs in another order.
        let block = match self.quantization.is_some() {
            true => 3 * ffn + width.max(ffn),
            false => ffn,
        };
        let mlp = 3 * rows * width + rows.min(MLP_ROWS as u64) * (2 * width + block);
        // Every layer's tables are kept: cos and sin for the queries and the keys of each band, and its ranges.
        let bands = plans.distinct().iter().map(|plan| plan.bands.len() as u64);
        let tables = bands.sum::<u64>() * n * (2 * self.head_dim as u64 + 2);
        PassCost {
            operations: 2 * n * weights + 4 * width * seen,
            bytes: VALUE * (attention.max(mlp) + tables) + WORKSPACE,
        }
    }
}

/// Floating-point operations a second that matrix products in f32 reach on a device, measured over a third of a
/// second: a pass cannot be faster for long.
pub fn operations_per_second(device: &Device) -> f64 {
    let [n, inputs, outputs] = [512usize, 1024, 1024];
    let x = Tensor::<2>::ones([n, inputs], device);
    let weight = Tensor::<2>::ones([outputs, inputs], device);
    // Read back, so that a device that works in the background has finished.
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
    use crate::Shape;

    /// 1.8 billion parameters, as its name says; `seen` of a causal pass is `n (n + 1) / 2` in each layer.
    #[test]
    fn costs_of_a_published_shape() {
        let config = Shape::Qwen1_8B.config();
        let parameters = config.weight_bytes(WeightType::F32) / 4;
        assert_eq!(parameters, 1_836_828_672);
        let halves = config.weight_bytes(WeightType::Bf16);
        assert!(halves > 2 * parameters && halves < 2 * parameters + (4 << 20));

        let method = longspan_attention::Method::named("plain");
        let length = longspan_rope::Length {
            total: 1000,
            prefill: 1000,
        };
        let plans = method.plan(&config.geometry(), length).unwrap();
        let cost = config.pass_cost(&plans, 1);
        let (w, f, v) = (2048, 5504, 151_936);
        let products = 24 * (4 * w * w + 3 * w * f) + v * w;
        let attention = 24 * w * (1000 * 1001 / 2);
        assert_eq!(cost.operations, 2 * 1000 * products + 4 * attention);
    }
}
