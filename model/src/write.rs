//! Writes checkpoints: of given values, and of any shape with random weights, for tests and for measuring
//! speed and memory, which do not depend on the values.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use safetensors::{Dtype, View};
use serde_json::json;

use crate::{ModelError, Architecture, WeightType};

/// A tensor of given values, stored in `dtype`.
struct Values {
    shape: Vec<usize>,
    dtype: WeightType,
    values: Vec<f32>,
}

impl View for Values {
    fn dtype(&self) -> Dtype {
        stored(self.dtype)
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let size = self.dtype.size();
        let mut bytes = vec![0u8; self.data_len()];
        for (bytes, &x) in bytes.chunks_exact_mut(size).zip(&self.values) {
            store(x, self.dtype, bytes);
        }
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.values.len() * self.dtype.size()
    }
}

fn stored(dtype: WeightType) -> Dtype {
    match dtype {
        WeightType::F32 => Dtype::F32,
        WeightType::Bf16 => Dtype::BF16,
        WeightType::F16 => Dtype::F16,
    }
}

fn store(x: f32, dtype: WeightType, bytes: &mut [u8]) {
    match dtype {
        WeightType::F32 => bytes.copy_from_slice(&x.to_le_bytes()),
        WeightType::Bf16 => bytes.copy_from_slice(&bf16::from_f32(x).to_le_bytes()),
        WeightType::F16 => bytes.copy_from_slice(&f16::from_f32(x).to_le_bytes()),
    }
}

/// Writes `config.json` and `model.safetensors` with the given values of every tensor, in the order of
/// the forward pass; matrices in `dtype`, vectors in f32.
///
/// # Errors
/// When a file cannot be written.
pub fn write_checkpoint(
    folder: &Path,
    config: &Architecture,
    values: Vec<Vec<f32>>,
    dtype: WeightType,
) -> Result<(), ModelError> {
    fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
    let names = config.tensors();
    assert_eq!(names.len(), values.len(), "values of every tensor");
    let tensors = names
        .into_iter()
        .zip(values)
        .map(|((name, shape), values)| {
            assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
            let dtype = if shape.len() == 2 {
                dtype
            } else {
                WeightType::F32
            };
            let tensor = Values {
                shape,
                dtype,
                values,
            };
            (name, tensor)
        });
    write_safetensors(tensors, folder.join("model.safetensors"))?;
    write_json(&folder.join("config.json"), &config.to_json())
}

fn write_safetensors<V: View>(
    tensors: impl IntoIterator<Item = (String, V)>,
    path: PathBuf,
) -> Result<(), ModelError> {
    safetensors::serialize_to_file(tensors, None, &path).map_err(|e| ModelError::Safetensors {
        path,
        message: e.to_string(),
    })
}

/// A tensor whose values are made when it is written, so that only one is in memory at a time.
struct RandomTensor {
    shape: Vec<usize>,
    values: Drawn,
    seed: u64,
}

/// What a tensor holds.
#[derive(Clone, Copy)]
enum Drawn {
    /// Uniform around a mean.
    Uniform {
        mean: f32,
        spread: f32,
        dtype: WeightType,
    },
    /// Packed numbers, uniform.
    Words,
    /// One word all over.
    Repeated(u32),
    /// The group of each input.
    GroupsOf(usize),
}

impl View for RandomTensor {
    fn dtype(&self) -> Dtype {
        match self.values {
            Drawn::Uniform { dtype, .. } => stored(dtype),
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
                    Drawn::Uniform {
                        mean,
                        spread,
                        dtype,
                    } => {
                        let x = mean + spread * (2.0 * rng.random::<f32>() - 1.0);
                        store(x, dtype, value);
                        continue;
                    }
                    Drawn::Words => rng.random(),
                    Drawn::Repeated(word) => word,
                    Drawn::GroupsOf(group) => ((task * TASK + i) / group) as u32,
                };
                value.copy_from_slice(&word.to_le_bytes());
            }
        });
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        let size = match self.values {
            Drawn::Uniform { dtype, .. } => dtype.size(),
            _ => 4,
        };
        self.shape.iter().product::<usize>() * size
    }
}

/// What a tensor of a random checkpoint holds: of the scale that keeps activations at about 1.
fn drawn(config: &Architecture, name: &str, shape: &[usize], dtype: WeightType) -> Drawn {
    let uniform = |mean, spread| Drawn::Uniform {
        mean,
        spread,
        dtype,
    };
    let part = name.rsplit('.').next().unwrap_or(name);
    match (part, config.quantization) {
        ("qweight", _) => Drawn::Words,
        // Zeros in the middle, as symmetric quantisation has them, less one.
        ("qzeros", Some(quantization)) if quantization.bits == 4 => Drawn::Repeated(0x7777_7777),
        ("qzeros", _) => Drawn::Repeated(0x7f7f_7f7f),
        ("g_idx", Some(quantization)) => Drawn::GroupsOf(quantization.group(shape[0])),
        ("scales", Some(quantization)) => {
            // Whole numbers of so many bits have a variance of 4^bits / 12.
            let layer = name.trim_end_matches(".scales");
            let inputs = if layer.ends_with("mlp.c_proj") {
                config.ffn
            } else {
                config.hidden_size
            };
            let deviation = (1 << quantization.bits) as f32 / 12f32.sqrt();
            let scale = 1.0 / (deviation * (inputs as f32).sqrt());
            Drawn::Uniform {
                mean: scale,
                spread: 0.2 * scale,
                dtype: WeightType::F16,
            }
        }
        ("bias", Some(_)) if !name.ends_with("c_attn.bias") => uniform(0.0, 0.0),
        ("bias", _) => uniform(0.0, 0.1),
        _ if shape.len() == 1 => uniform(1.0, 0.2),
        _ if name.contains("wte") => uniform(0.0, 1.0),
        // Uniform on ±sqrt(3 / inputs) has variance 1 / inputs.
        _ => uniform(0.0, (3.0 / shape[1] as f32).sqrt()),
    }
}

/// Writes `config.json` and safetensors with uniformly drawn weights of the scale that keeps a
/// random network's activations at about 1, packed where the config says so; those that are not are stored in `dtype`. Shards
/// hold at most `shard_bytes`; with one shard there is no index.
///
/// # Errors
/// When a file cannot be written.
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
    for (index, (name, tensor)) in config.stored_tensors().into_iter().enumerate() {
        let tensor = RandomTensor {
            values: drawn(config, &name, &tensor.shape, dtype),
            shape: tensor.shape,
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
        write_safetensors(shard, folder.join(file))?;
    }
    if count > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        write_json(&folder.join("model.safetensors.index.json"), &index)?;
    }
    write_json(&folder.join("config.json"), &config.to_json())
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), ModelError> {
    let text = serde_json::to_string_pretty(value).expect("JSON values serialise");
    fs::write(path, text + "\n").map_err(ModelError::io(path))
}
