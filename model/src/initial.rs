//! Parameters before the first step.

use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::qwen::Source;
use crate::{ModelError, QwenConfig};

/// What the parameters are before the first step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Initial {
    /// Standard deviation of the matrices. Those that write into the residual stream have
    /// `1 / sqrt(2 layers)` of it (GPT-2).
    pub matrices: f64,
    /// Standard deviation of the embedding.
    pub embedding: f64,
    /// Standard deviation of the head, which starts as a copy of the embedding scaled to it, so that
    /// what a head copies is read out from the start.
    pub head: f64,
    /// Offsets of positional heads, layer by layer: heads whose query and key biases make them attend
    /// `offset` tokens back before anything is learned. A head that sees the previous token is the first half of
    /// an induction circuit (arXiv 2209.11895), and the one that takes long to form.
    pub offsets: Vec<Vec<usize>>,
    /// Length of the biases of a positional head in each of its planes.
    pub offset_bias: f64,
    /// Planes of a positional head that have a bias: the fastest ones.
    pub offset_planes: usize,
}

impl Default for Initial {
    fn default() -> Self {
        Initial {
            matrices: 0.02,
            embedding: 0.02,
            head: 0.02,
            offsets: Vec::new(),
            offset_bias: 5.0,
            offset_planes: 6,
        }
    }
}

/// Parameters drawn one by one.
pub(crate) struct Drawn<'a> {
    rng: Xoshiro256PlusPlus,
    config: QwenConfig,
    initial: &'a Initial,
    embedding: Option<Vec<f32>>,
    device: &'a Device,
}

impl<'a> Drawn<'a> {
    /// Draws for a model; the same from the same seed.
    pub fn new(config: QwenConfig, initial: &'a Initial, seed: u64, device: &'a Device) -> Self {
        Drawn {
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            config,
            initial,
            embedding: None,
            device,
        }
    }

    /// Normally distributed, by Box and Muller.
    fn normal(&mut self, len: usize, deviation: f64) -> Vec<f32> {
        let mut values = Vec::with_capacity(len + 1);
        while values.len() < len {
            let radius = (-2.0 * (1.0 - self.rng.random::<f64>()).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * self.rng.random::<f64>()).sin_cos();
            values.extend([cos, sin].map(|x| (deviation * radius * x) as f32));
        }
        values.truncate(len);
        values
    }

    /// Biases of q, k and v, side by side. A query at `i` and a key at `j` of a head with offset `o` get
    /// the logit `sum over planes of bias^2 cos((i - j - o) theta)`, largest at `j = i - o`.
    fn attention_bias(&self, layer: usize) -> Vec<f32> {
        let (width, d) = (self.config.hidden_size, self.config.head_dim);
        let mut bias = vec![0f32; 3 * width];
        let offsets = self.initial.offsets.get(layer).into_iter().flatten();
        for (head, &offset) in offsets.enumerate().take(self.config.heads) {
            let (q, k) = (head * d, width + head * d);
            for plane in 0..self.initial.offset_planes.min(d / 2) {
                let theta = self.config.rope_base.powf(-2.0 * plane as f64 / d as f64);
                let (sin, cos) = (offset as f64 * theta).sin_cos();
                bias[q + plane] = (self.initial.offset_bias * cos) as f32;
                bias[q + d / 2 + plane] = (-self.initial.offset_bias * sin) as f32;
                bias[k + plane] = self.initial.offset_bias as f32;
            }
        }
        bias
    }
}

impl Source for Drawn<'_> {
    fn tensor<const D: usize>(&mut self, name: &str) -> Result<Tensor<D>, ModelError> {
        let (_, shape) = (self.config.tensors().into_iter())
            .find(|tensor| tensor.0 == name)
            .expect("a model asks for its own tensors");
        let len = shape.iter().product();
        let layer = || name.split('.').nth(2).and_then(|layer| layer.parse().ok());
        let values = match name {
            _ if name.ends_with("wte.weight") => {
                let values = self.normal(len, self.initial.embedding);
                self.embedding = Some(values.clone());
                values
            }
            "lm_head.weight" => {
                let scale = (self.initial.head / self.initial.embedding) as f32;
                let embedding = self.embedding.take().expect("the embedding comes first");
                embedding.into_iter().map(|x| scale * x).collect()
            }
            _ if name.ends_with("bias") => self.attention_bias(layer().expect("h.LAYER")),
            _ if D == 1 => vec![1.0; len],
            _ if name.ends_with("c_proj.weight") => {
                let residual = (2.0 * self.config.layers as f64).sqrt();
                self.normal(len, self.initial.matrices / residual)
            }
            _ => self.normal(len, self.initial.matrices),
        };
        let data = TensorData::new(values, shape);
        Ok(Tensor::from_data(data, (self.device, DType::F32)).require_grad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rotated by their positions, the biases of a positional head have the largest product `offset` tokens back.
    #[test]
    fn positional_heads_look_back() {
        let config = QwenConfig {
            layers: 2,
            ..crate::Shape::Micro.config()
        };
        let initial = Initial {
            offsets: vec![vec![], vec![0, 1, 3]],
            ..Initial::default()
        };
        let device = Device::flex();
        let drawn = Drawn::new(config.clone(), &initial, 1, &device);
        let (width, d) = (config.hidden_size, config.head_dim);
        assert!(drawn.attention_bias(0).iter().all(|&x| x == 0.0));
        let bias = drawn.attention_bias(1);
        // The product of a head's planes `back` positions apart.
        let product = |head: usize, back: f64| -> f64 {
            let planes = (0..d / 2).map(|plane| {
                let theta = config.rope_base.powf(-2.0 * plane as f64 / d as f64);
                let at = |i: usize| f64::from(bias[i + head * d + plane]);
                let (sin, cos) = (back * theta).sin_cos();
                let (q, k) = ([at(0), at(d / 2)], [at(width), at(width + d / 2)]);
                let q = [q[0] * cos - q[1] * sin, q[1] * cos + q[0] * sin];
                q[0] * k[0] + q[1] * k[1]
            });
            planes.sum()
        };
        for (head, offset) in [(0, 0), (1, 1), (2, 3)] {
            let most = 25.0 * 6.0;
            assert!((product(head, f64::from(offset)) - most).abs() < 1e-3);
            for back in (0..256).filter(|&back| back != offset) {
                assert!(product(head, f64::from(back)) < most - 5.0, "{back}");
            }
        }
        assert_eq!(product(3, 2.0), 0.0);
    }
}
