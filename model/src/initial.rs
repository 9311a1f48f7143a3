//! Parameters before the first step.

use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::qwen::Source;
use crate::{ModelError, Architecture};

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
    /// Fading heads, layer by layer: by how many nats the logits of a head fall with distance, from the query's
    /// own position to the trained length, before anything is learned. ALiBi (arXiv 2108.12409) said in rotary
    /// biases: in [`fade_plane`](Initial::fade_plane), a quarter of a wave.
    pub fades: Vec<Vec<f64>>,
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
            fades: Vec::new(),
        }
    }
}

impl Initial {
    /// The plane in which heads fade: the fastest one that turns by a quarter at most within the trained
    /// length, so that what falls there never rises again. `None` where all turn further.
    pub fn fade_plane(rope_base: f64, head_dim: usize, trained: usize) -> Option<usize> {
        let quarter = std::f64::consts::FRAC_PI_2 / trained as f64;
        (0..head_dim / 2).find(|&plane| theta(rope_base, head_dim, plane) <= quarter)
    }
}

/// Angle by which a plane turns from one position to the next.
fn theta(rope_base: f64, head_dim: usize, plane: usize) -> f64 {
    rope_base.powf(-2.0 * plane as f64 / head_dim as f64)
}

/// Parameters drawn one by one.
pub(crate) struct Drawn<'a> {
    rng: Xoshiro256PlusPlus,
    config: Architecture,
    initial: &'a Initial,
    embedding: Option<Vec<f32>>,
    device: &'a Device,
}

impl<'a> Drawn<'a> {
    /// Draws for a model; the same from the same seed.
    pub fn new(config: Architecture, initial: &'a Initial, seed: u64, device: &'a Device) -> Self {
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

    /// Biases of q, k and v, side by side. To the product of a query at `i` and a key at `j` they add, for
    /// an offset `o`, the sum over planes of `bias^2 cos((i - j - o) theta)`, largest at `j = i - o`; for a fade, the
    /// same in one plane with `o` three quarters of a turn: `-bias^2 sin((i - j) theta)`.
    fn attention_bias(&self, layer: usize) -> Vec<f32> {
        let (width, d) = (self.config.hidden_size, self.config.head_dim);
        let mut bias = vec![0f32; 3 * width];
        let offsets = self.initial.offsets.get(layer).into_iter().flatten();
        for (head, &offset) in offsets.enumerate().take(self.config.heads) {
            let (q, k) = (head * d, width + head * d);
            for plane in 0..self.initial.offset_planes.min(d / 2) {
                let theta = theta(self.config.rope_base, d, plane);
                let (sin, cos) = (offset as f64 * theta).sin_cos();
                bias[q + plane] = (self.initial.offset_bias * cos) as f32;
                bias[q + d / 2 + plane] = (-self.initial.offset_bias * sin) as f32;
                bias[k + plane] = self.initial.offset_bias as f32;
            }
        }
        let plane = Initial::fade_plane(self.config.rope_base, d, self.config.trained);
        let fades = self.initial.fades.get(layer).into_iter().flatten();
        for (head, &nats) in fades.enumerate().take(self.config.heads) {
            let plane = plane.expect("checked where the config is read");
            let turned = self.config.trained as f64 * theta(self.config.rope_base, d, plane);
            let length = (nats * (d as f64).sqrt() / turned.sin()).sqrt() as f32;
            bias[head * d + d / 2 + plane] = length;
            bias[width + head * d + plane] = length;
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
    use longspan_rope::{FrequencyMethod, Length, Rope, find};

    use super::*;

    const TRAINED: usize = 256;
    const HEAD: usize = 32;

    fn config() -> Architecture {
        Architecture {
            layers: 2,
            hidden_size: 4 * HEAD,
            heads: 4,
            head_dim: HEAD,
            trained: TRAINED,
            rope_base: 30_000.0,
            ..crate::Shape::Micro.config()
        }
    }

    /// What the biases of a layer add to the logit of the key `back` positions before the query.
    struct Logits(Vec<f64>);

    impl Logits {
        fn new(initial: &Initial, layer: usize) -> Self {
            let device = Device::flex();
            let bias = Drawn::new(config(), initial, 1, &device).attention_bias(layer);
            Logits(bias.into_iter().map(f64::from).collect())
        }

        fn at(&self, head: usize, back: usize, inv_freq: &[f64]) -> f64 {
            let planes = inv_freq.iter().enumerate().map(|(plane, theta)| {
                let at = |first: usize| {
                    let q = first + head * HEAD + plane;
                    [self.0[q], self.0[q + HEAD / 2]]
                };
                let (sin, cos) = (back as f64 * theta).sin_cos();
                let (q, k) = (at(0), at(config().hidden_size));
                k[0] * (q[0] * cos - q[1] * sin) + k[1] * (q[1] * cos + q[0] * sin)
            });
            planes.sum::<f64>() / (HEAD as f64).sqrt()
        }

        /// Share of the key `offset` tokens back in the softmax over `n` keys.
        fn share(&self, head: usize, offset: usize, n: usize, inv_freq: &[f64]) -> f64 {
            let weights: Vec<f64> = (0..n)
                .map(|back| self.at(head, back, inv_freq).exp())
                .collect();
            weights[offset] / weights.iter().sum::<f64>()
        }
    }

    fn inv_freq(name: &str, n: usize) -> Vec<f64> {
        let rope = Rope {
            dim: HEAD,
            base: config().rope_base,
            trained: TRAINED,
        };
        let length = Length {
            total: n,
            prefill: n,
        };
        let method = find::<dyn FrequencyMethod>(name).unwrap();
        let spectrum = method.spectrum(&rope, length, &Default::default());
        spectrum.unwrap().inv_freq
    }

    /// The biases of a positional head are largest `offset` tokens back.
    #[test]
    fn positional_heads_look_back() {
        let initial = Initial {
            offsets: vec![vec![], vec![0, 1, 3]],
            ..Initial::default()
        };
        let plain = inv_freq("none", TRAINED);
        assert!(Logits::new(&initial, 0).0.iter().all(|&x| x == 0.0));
        let logits = Logits::new(&initial, 1);
        let most = 25.0 * 6.0 / (HEAD as f64).sqrt();
        for (head, offset) in [(0, 0), (1, 1), (2, 3)] {
            assert!((logits.at(head, offset, &plain) - most).abs() < 1e-4);
            for back in (0..TRAINED).filter(|&back| back != offset) {
                assert!(logits.at(head, back, &plain) < most - 1.0, "{back}");
            }
        }
        assert_eq!(logits.at(3, 2, &plain), 0.0);
    }

    /// The biases of a fading head fall by the given nats, all the way to the trained length.
    #[test]
    fn fading_heads_fall_to_the_trained_length() {
        let initial = Initial {
            fades: vec![vec![0.0, 6.0]],
            ..Initial::default()
        };
        let (plain, logits) = (inv_freq("none", TRAINED), Logits::new(&initial, 0));
        assert!((0..TRAINED).all(|back| logits.at(0, back, &plain) == 0.0));
        assert_eq!(logits.at(1, 0, &plain), 0.0);
        assert!(
            (0..TRAINED).all(|back| logits.at(1, back + 1, &plain) < logits.at(1, back, &plain))
        );
        assert!((logits.at(1, TRAINED, &plain) + 6.0).abs() < 1e-5);
    }

    #[test]
    fn past_the_trained_length_a_fading_head_loses_its_token() {
        let initial = Initial {
            offsets: vec![vec![1]],
            fades: vec![vec![16.0]],
            ..Initial::default()
        };
        let logits = Logits::new(&initial, 0);
        for (times, plain, ntk) in [
            (1, 0.90, 0.90),
            (2, 0.90, 0.88),
            (4, 0.29, 0.87),
            (8, 0.0, 0.86),
        ] {
            let n = times * TRAINED;
            // As a mean over the second half of the queries.
            let share = |name: &str| {
                let inv_freq = inv_freq(name, n);
                let shares = (n / 2..n)
                    .step_by(n / 64)
                    .map(|i| logits.share(0, 1, i + 1, &inv_freq));
                shares.sum::<f64>() / 32.0
            };
            let found = (share("none"), share("dynamic_ntk"));
            assert!((found.0 - plain).abs() < 0.006, "{times}x plain: {found:?}");
            assert!((found.1 - ntk).abs() < 0.006, "{times}x ntk: {found:?}");
        }
    }
}
