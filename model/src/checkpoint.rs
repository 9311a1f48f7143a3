//! A checkpoint folder: which tensor is in which file, and their values, checked one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use burn::tensor::{Bytes, DType, Device, Tensor, TensorData};
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::{ModelError, QwenConfig};

/// The type in which matrices are held in memory; arithmetic on the CPU is f32 all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// 32 bits.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl WeightType {
    /// Name in configs and records.
    pub fn name(self) -> &'static str {
        match self {
            WeightType::F32 => "f32",
            WeightType::Bf16 => "bf16",
            WeightType::F16 => "f16",
        }
    }

    /// Bytes of a value.
    pub fn size(self) -> usize {
        match self {
            WeightType::F32 => 4,
            WeightType::Bf16 | WeightType::F16 => 2,
        }
    }
}

impl From<WeightType> for DType {
    fn from(dtype: WeightType) -> Self {
        match dtype {
            WeightType::F32 => DType::F32,
            WeightType::Bf16 => DType::BF16,
            WeightType::F16 => DType::F16,
        }
    }
}

impl std::str::FromStr for WeightType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let types = [WeightType::F32, WeightType::Bf16, WeightType::F16];
        let found = types.into_iter().find(|dtype| dtype.name() == name);
        found.ok_or_else(|| "the types are f32, bf16 and f16".to_owned())
    }
}

/// An opened folder: its configuration and its mapped files. Values are read when the model is made.
pub struct Checkpoint {
    /// The model's shape.
    pub config: QwenConfig,
    /// Fields of `config.json` that are not known and were ignored.
    pub unknown_fields: Vec<String>,
    folder: PathBuf,
    files: Vec<ShardFile>,
    /// File of each tensor.
    place: BTreeMap<String, usize>,
    digest: blake3::Hasher,
}

struct ShardFile {
    path: PathBuf,
    map: Mmap,
}

impl ShardFile {
    fn open(path: PathBuf) -> Result<Self, ModelError> {
        let file = File::open(&path).map_err(ModelError::io(&path))?;
        // SAFETY: the map is read only; as with every mapped file, nobody may truncate it meanwhile.
        let map = unsafe { Mmap::map(&file) }.map_err(ModelError::io(&path))?;
        Ok(ShardFile { path, map })
    }

    fn parse(&self) -> Result<SafeTensors<'_>, ModelError> {
        if self.map.starts_with(b"version https://git-lfs") {
            let path = self.path.clone();
            return Err(ModelError::LfsPointer { path });
        }
        SafeTensors::deserialize(&self.map).map_err(|e| ModelError::Safetensors {
            path: self.path.clone(),
            message: e.to_string(),
        })
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens a Hugging Face folder: `config.json` with `model.safetensors`, or with
    /// `model.safetensors.index.json` and its shards.
    ///
    /// # Errors
    /// A missing, broken or contradictory file; a tensor that is missing, unused, or of a wrong shape or
    /// type. Values are checked when they are read.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let (config, unknown_fields) = QwenConfig::from_file(&folder.join("config.json"))?;
        let index_path = folder.join("model.safetensors.index.json");
        let single = folder.join("model.safetensors");
        let mut files = Vec::new();
        if index_path.exists() && single.exists() {
            return Err(ModelError::TwoCheckpoints {
                index: index_path,
                single,
            });
        }
        if index_path.exists() {
            let text = std::fs::read_to_string(&index_path).map_err(ModelError::io(&index_path))?;
            let index: Index = serde_json::from_str(&text).map_err(|e| ModelError::Json {
                path: index_path.clone(),
                message: e.to_string(),
            })?;
            let shards: BTreeSet<&String> = index.weight_map.values().collect();
            for shard in shards {
                let path = folder.join(shard);
                if !path.exists() {
                    let names = index.weight_map.iter();
                    let tensor = names.filter(|entry| entry.1 == shard).map(|entry| entry.0);
                    return Err(ModelError::MissingShard {
                        path,
                        index: index_path,
                        tensor: tensor.min().cloned().unwrap_or_default(),
                    });
                }
                files.push(ShardFile::open(path)?);
            }
        } else if single.exists() {
            files.push(ShardFile::open(single)?);
        } else {
            return Err(ModelError::NoWeights {
                folder: folder.to_owned(),
            });
        }
        let mut checkpoint = Checkpoint {
            digest: blake3::Hasher::new(),
            config,
            unknown_fields,
            folder: folder.to_owned(),
            files,
            place: BTreeMap::new(),
        };
        checkpoint.check_tensors()?;
        let config = checkpoint.config.to_json().to_string();
        checkpoint.digest.update(config.as_bytes());
        Ok(checkpoint)
    }

    /// Takes another trained length than `config.json` has, before any weights are read. The digest is then that of
    /// a folder which says so itself.
    pub fn set_trained(&mut self, trained: usize) {
        self.config.trained = trained;
        self.digest = blake3::Hasher::new();
        let config = self.config.to_json().to_string();
        self.digest.update(config.as_bytes());
    }

    /// Checks names, shapes and types against the config, before any value is read.
    fn check_tensors(&mut self) -> Result<(), ModelError> {
        let expected: BTreeMap<String, Vec<usize>> = self.config.tensors().into_iter().collect();
        for (index, file) in self.files.iter().enumerate() {
            let tensors = file.parse()?;
            // In the order of names, so that the same fault is always reported first.
            let mut views: Vec<_> = tensors.iter().collect();
            views.sort_by_key(|(name, _)| *name);
            for (tensor, view) in views {
                let path = file.path.clone();
                let tensor = tensor.to_owned();
                let Some(shape) = expected.get(&tensor) else {
                    return Err(ModelError::UnusedTensor { path, tensor });
                };
                if view.shape() != shape {
                    return Err(ModelError::TensorShape {
                        path,
                        tensor,
                        found: view.shape().to_vec(),
                        expected: shape.clone(),
                    });
                }
                if !matches!(view.dtype(), Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                    return Err(ModelError::TensorType {
                        path,
                        tensor,
                        found: format!("{:?}", view.dtype()),
                    });
                }
                if let Some(first) = self.place.insert(tensor.clone(), index) {
                    return Err(ModelError::DuplicateTensor {
                        tensor,
                        first: self.files[first].path.clone(),
                        second: path,
                    });
                }
            }
        }
        match expected
            .into_keys()
            .find(|name| !self.place.contains_key(name))
        {
            None => Ok(()),
            Some(tensor) => Err(ModelError::MissingTensor {
                place: match self.files.as_slice() {
                    [file] => file.path.clone(),
                    _ => self.folder.clone(),
                },
                tensor,
            }),
        }
    }

    /// The type in which the files hold the matrices; f32 when they hold several.
    ///
    /// # Errors
    /// A broken file.
    pub fn stored_type(&self) -> Result<WeightType, ModelError> {
        let mut types = BTreeSet::new();
        for file in &self.files {
            for (_, view) in file.parse()?.iter().filter(|t| t.1.shape().len() == 2) {
                types.insert(view.dtype());
            }
        }
        Ok(match types.iter().collect::<Vec<_>>().as_slice() {
            [Dtype::BF16] => WeightType::Bf16,
            [Dtype::F16] => WeightType::F16,
            _ => WeightType::F32,
        })
    }

    /// Reads a tensor onto a device, in the type asked for, and adds it to the digest.
    ///
    /// # Errors
    /// [`ModelError::NonFinite`] or [`ModelError::Overflow`] on a bad value.
    pub(crate) fn tensor<const D: usize>(
        &mut self,
        name: &str,
        dtype: WeightType,
        device: &Device,
    ) -> Result<Tensor<D>, ModelError> {
        let file = &self.files[self.place[name]];
        let tensors = file.parse()?;
        let view = tensors.tensor(name).map_err(|e| ModelError::Safetensors {
            path: file.path.clone(),
            message: e.to_string(),
        })?;
        self.digest.update(name.as_bytes());
        self.digest.update(format!("{:?}", view.dtype()).as_bytes());
        self.digest.update_rayon(view.data());
        let bytes = view.data();
        let held = dtype.name();
        let (values, dtype) = match dtype {
            WeightType::F32 => (convert::<f32>(bytes, view.dtype()), DType::F32),
            WeightType::Bf16 => (convert::<bf16>(bytes, view.dtype()), DType::BF16),
            WeightType::F16 => (convert::<f16>(bytes, view.dtype()), DType::F16),
        };
        let values = values.map_err(|(index, value)| {
            let (path, tensor) = (file.path.clone(), name.to_owned());
            if value.is_finite() {
                ModelError::Overflow {
                    path,
                    tensor,
                    index,
                    value,
                    dtype: held,
                }
            } else {
                ModelError::NonFinite {
                    path,
                    tensor,
                    index,
                    value,
                }
            }
        })?;
        let shape = view.shape().to_vec();
        // The pages that were just copied need not stay resident beside the copy.
        #[cfg(unix)]
        {
            let offset = bytes.as_ptr() as usize - file.map.as_ptr() as usize;
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the map is file-backed and read only, so dropped pages are read again if needed.
            let _ = unsafe { file.map.unchecked_advise_range(advice, offset, bytes.len()) };
        }
        let data = TensorData::from_bytes(values, shape, dtype);
        Ok(Tensor::from_data(data, (device, dtype)))
    }

    /// Digest of the configuration and of every tensor read so far, in reading order; the same for the
    /// same weights in other shards.
    pub(crate) fn digest(&self) -> String {
        self.digest.finalize().to_hex().to_string()
    }
}

/// A type that weights can be held in.
trait Held: Copy + Send + Sync + Default + burn::tensor::Element {
    fn from_f32(x: f32) -> Self;
    fn to_f32(self) -> f32;
}

macro_rules! held {
    ($type:ty, $from:expr, $to:expr) => {
        impl Held for $type {
            fn from_f32(x: f32) -> Self {
                $from(x)
            }
            fn to_f32(self) -> f32 {
                $to(self)
            }
        }
    };
}
held!(f32, |x| x, |x| x);
held!(bf16, bf16::from_f32, bf16::to_f32);
held!(f16, f16::from_f32, f16::to_f32);

/// Converts little-endian values; on a value that is not finite, before or after, its index and what
/// the file holds.
fn convert<T: Held>(bytes: &[u8], from: Dtype) -> Result<Bytes, (usize, f32)> {
    let read: fn(&[u8]) -> f32 = match from {
        Dtype::F32 => |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        Dtype::BF16 => |b| bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        _ => |b| f16::from_le_bytes([b[0], b[1]]).to_f32(),
    };
    let size = if from == Dtype::F32 { 4 } else { 2 };
    let mut values = vec![T::default(); bytes.len() / size];
    const TASK: usize = 1 << 16;
    values
        .par_chunks_mut(TASK)
        .zip(bytes.par_chunks(TASK * size))
        .enumerate()
        .try_for_each(|(task, (values, bytes))| {
            for (i, (value, bytes)) in values.iter_mut().zip(bytes.chunks_exact(size)).enumerate() {
                let x = read(bytes);
                *value = T::from_f32(x);
                if !value.to_f32().is_finite() {
                    return Err((task * TASK + i, x));
                }
            }
            Ok(())
        })?;
    Ok(Bytes::from_elems(values))
}
