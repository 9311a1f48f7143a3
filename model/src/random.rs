//! Writes checkpoints of any shape with random weights, for tests and for measuring speed and
//! memory, which do not depend on the values.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use safetensors::{Dtype, View};
use serde_json::json;

use crate::tensors::{Content, Role, StoredTensor};
use crate::write::{file_type, store, write_json, write_safetensors};
use crate::{Architecture, ModelError, Quantization, WeightType};

/// A tensor whose values are drawn when it is written, so that one is in memory at a time.
struct RandomTensor {
    shape: Vec<usize>,
    values: RandomValues,
    seed: u64,
}

/// Distribution of the values of a tensor.
#[derive(Clone, Copy)]
enum RandomValues {
    /// Uniform on `mean ± spread`.
    Uniform {
        mean: f32,
        spread: f32,
        dtype: WeightType,
    },
    /// Words of uniform bits.
    Words,
    /// The same word everywhere.
    Repeated(u32),
    /// The group of each input, for groups of this size.
    GroupsOf(usize),
}

impl View for RandomTensor {
    fn dtype(&self) -> Dtype {
        match self.values {
            RandomValues::Uniform { dtype, .. } => file_type(dtype),
            _ => Dtype::I32,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        const TASK: usize = 1 << 16;
        let len: usize = self.shape.iter().product();
        let size = self.data_len() / len.max(1);
        let mut bytes = vec![0u8; len * size];
        let tasks = bytes.par_chunks_mut(TASK * size).enumerate();
        tasks.for_each(|(task, bytes)| {
            let mut rng = StdRng::seed_from_u64(self.seed ^ ((task as u64) << 32));
            for (i, value) in bytes.chunks_exact_mut(size).enumerate() {
                let word = match self.values {
                    RandomValues::Uniform {
                        mean,
                        spread,
                        dtype,
                    } => {
                        let x = mean + spread * (2.0 * rng.random::<f32>() - 1.0);
                        store(x, dtype, value);
                        continue;
                    }
                    RandomValues::Words => rng.random(),
                    RandomValues::Repeated(word) => word,
                    RandomValues::GroupsOf(group) => ((task * TASK + i) / group) as u32,
                };
                value.copy_from_slice(&word.to_le_bytes());
            }
        });
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        let size = match self.values {
            RandomValues::Uniform { dtype, .. } => dtype.size(),
            _ => 4,
        };
        self.shape.iter().product::<usize>() * size
    }
}

impl RandomValues {
    /// Values of the scale that keeps the activations of a random network at about 1.
    fn new(tensor: &StoredTensor, packing: Option<Quantization>, dtype: WeightType) -> Self {
        let uniform = |mean, spread, dtype| RandomValues::Uniform {
            mean,
            spread,
            dtype,
        };
        let bits = packing.map_or(0, |packing| packing.bits);
        match tensor.content {
            Content::PackedValues => RandomValues::Words,
            // The middle of the range, as symmetric quantisation has it; files store it minus 1.
            Content::PackedZeros if bits == 4 => RandomValues::Repeated(0x7777_7777),
            Content::PackedZeros => RandomValues::Repeated(0x7f7f_7f7f),
            Content::InputGroups => {
                let inputs = tensor.shape[0];
                RandomValues::GroupsOf(packing.map_or(inputs, |packing| packing.group(inputs)))
            }
            Content::Scales { inputs } => {
                // Uniform integers of `bits` bits have a variance of 4^bits / 12.
                let deviation = (1 << bits) as f32 / 12f32.sqrt();
                let scale = 1.0 / (deviation * (inputs as f32).sqrt());
                uniform(scale, 0.2 * scale, WeightType::F16)
            }
            Content::PackingBias => uniform(0.0, 0.0, dtype),
            Content::Values(role) => match role {
                Role::QkvBias => uniform(0.0, 0.1, dtype),
                Role::AttentionNorm | Role::MlpNorm | Role::FinalNorm => uniform(1.0, 0.2, dtype),
                Role::Embedding => uniform(0.0, 1.0, dtype),
                // Uniform on ±sqrt(3 / inputs) has a variance of 1 / inputs.
                _ => uniform(0.0, (3.0 / tensor.shape[1] as f32).sqrt(), dtype),
            },
        }
    }
}

/// Writes `config.json` and safetensors with uniformly drawn weights of the scale that keeps a
/// random network's activations at about 1. Matrices are packed if the config says so; everything
/// else is stored in `dtype`. A shard holds at most `shard_bytes`, or one larger tensor; a single
/// shard has no index.
///
/// # Errors
/// A file cannot be written.
pub fn write_random_checkpoint(
    folder: &Path,
    config: &Architecture,
    dtype: WeightType,
    seed: u64,
    shard_bytes: usize,
) -> Result<(), ModelError> {
    fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
    let mut shards: Vec<Vec<(String, RandomTensor)>> = vec![Vec::new()];
    let (mut filled, mut total) = (0, 0);
    for (index, stored) in config.stored_tensors().into_iter().enumerate() {
        let name = stored.name.clone();
        let tensor = RandomTensor {
            values: RandomValues::new(&stored, config.quantization, dtype),
            shape: stored.shape,
            seed: seed.wrapping_mul(0x9E37_79B9).wrapping_add(index as u64),
        };
        let bytes = tensor.data_len();
        if filled > 0 && filled + bytes > shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        total += bytes;
        shards.last_mut().expect("one shard").push((name, tensor));
    }
    let count = shards.len();
    let mut weight_map = BTreeMap::new();
    for (i, shard) in shards.into_iter().enumerate() {
        let file = match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        for (name, _) in &shard {
            weight_map.insert(name.clone(), file.clone());
        }
        write_safetensors(&folder.join(file), shard)?;
    }
    if count > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        write_json(&folder.join("model.safetensors.index.json"), &index)?;
    }
    write_json(&folder.join("config.json"), &config.to_json())
}
