//! A checkpoint folder: which tensor is in which file, and their values, checked one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use burn::tensor::{Bytes, DType, Device, Tensor, TensorData};
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::Deserialize;

use crate::quantization::StoredTensor;
use crate::{ModelError, Architecture, WeightType};

/// An opened folder: its configuration and its mapped files. Values are read when the model is made.
pub struct Checkpoint {
    /// The model's shape.
    pub config: Architecture,
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

/// Lets go of bytes of a mapped file that were copied.
pub(crate) type Release<'a> = dyn Fn(&[u8]) + 'a;

/// Bytes of a tensor that are read together, so that few pages of the file are resident beside the copy: the embedding
/// of a large vocabulary alone is half a gigabyte.
const PIECE: usize = 32 << 20;

impl ShardFile {
    /// The pages under `bytes` need not stay resident.
    fn release(&self, bytes: &[u8]) {
        #[cfg(unix)]
        {
            let offset = bytes.as_ptr() as usize - self.map.as_ptr() as usize;
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the map is file-backed and read only, so dropped pages are read again if needed.
            let _ = unsafe { self.map.unchecked_advise_range(advice, offset, bytes.len()) };
        }
        #[cfg(not(unix))]
        let _ = bytes;
    }

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
        SafeTensors::deserialize(&self.map).map_err(self.invalid())
    }

    fn invalid(&self) -> impl Fn(SafeTensorError) -> ModelError {
        |error| ModelError::Safetensors {
            path: self.path.clone(),
            message: error.to_string(),
        }
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
        let (config, unknown_fields) = Architecture::from_file(&folder.join("config.json"))?;
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
        let expected: BTreeMap<String, StoredTensor> =
            self.config.stored_tensors().into_iter().collect();
        for (index, file) in self.files.iter().enumerate() {
            let tensors = file.parse()?;
            // In the order of names, so that the same fault is always reported first.
            let mut views: Vec<_> = tensors.iter().collect();
            views.sort_by_key(|(name, _)| *name);
            for (tensor, view) in views {
                let path = file.path.clone();
                let tensor = tensor.to_owned();
                let Some(StoredTensor { shape, integer, .. }) = expected.get(&tensor) else {
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
                let float = matches!(view.dtype(), Dtype::F32 | Dtype::F16 | Dtype::BF16);
                if !(float && !integer || view.dtype() == Dtype::I32 && *integer) {
                    return Err(ModelError::TensorType {
                        path,
                        tensor,
                        found: format!("{:?}", view.dtype()),
                        expected: match integer {
                            true => "I32 is what GPTQ packs in",
                            false => "F32, F16 and BF16 are supported",
                        },
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
        let mut required = expected.into_iter().filter(|tensor| !tensor.1.optional);
        match required.find(|(name, _)| !self.place.contains_key(name)) {
            None => Ok(()),
            Some((tensor, _)) => Err(ModelError::MissingTensor {
                place: match self.files.as_slice() {
                    [file] => file.path.clone(),
                    _ => self.folder.clone(),
                },
                tensor,
            }),
        }
    }

    /// The type in which the files hold the matrices that are not packed; f32 when they hold several.
    ///
    /// # Errors
    /// A broken file.
    pub fn stored_type(&self) -> Result<WeightType, ModelError> {
        let mut types = BTreeSet::new();
        for file in &self.files {
            let tensors = file.parse()?;
            let matrices = tensors
                .iter()
                .filter(|(name, view)| name.ends_with(".weight") && view.shape().len() == 2);
            types.extend(matrices.map(|(_, view)| view.dtype()));
        }
        Ok(match types.iter().collect::<Vec<_>>().as_slice() {
            [Dtype::BF16] => WeightType::Bf16,
            [Dtype::F16] => WeightType::F16,
            _ => WeightType::F32,
        })
    }

    /// The type in which a model holds the matrices that are not packed, from the one asked for.
    ///
    /// # Errors
    /// A type for a model whose matrices are packed; a broken file.
    pub fn matrix_type(&self, asked: Option<WeightType>) -> Result<WeightType, ModelError> {
        match (asked, self.config.quantization) {
            (Some(dtype), None) => Ok(dtype),
            (Some(dtype), Some(_)) => Err(ModelError::PackedType {
                folder: self.folder.clone(),
                dtype: dtype.name(),
            }),
            (None, _) => self.stored_type(),
        }
    }

    /// The type, or f32, which has all its values, where the device does not compute in it.
    pub(crate) fn known_type(&self, dtype: WeightType, device: &Device) -> WeightType {
        let types = [DType::F32, dtype.into()];
        match longspan_kernels::supported(device, self.config.head_dim, &types) {
            Ok(()) => dtype,
            Err(_) => WeightType::F32,
        }
    }

    /// Whether a file holds a tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.place.contains_key(name)
    }

    /// The file of a tensor.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.files[self.place[name]].path.clone()
    }

    /// The type in which a file holds a tensor.
    pub(crate) fn type_of(&self, name: &str) -> Result<Dtype, ModelError> {
        let file = &self.files[self.place[name]];
        let tensors = file.parse()?;
        let view = tensors.tensor(name).map_err(file.invalid())?;
        Ok(view.dtype())
    }

    /// Hands a tensor of the files to `take`, and adds it to the digest.
    pub(crate) fn read<T>(
        &mut self,
        name: &str,
        take: impl FnOnce(&Path, &TensorView, &Release) -> Result<T, ModelError>,
    ) -> Result<T, ModelError> {
        let file = &self.files[self.place[name]];
        let tensors = file.parse()?;
        let view = tensors.tensor(name).map_err(file.invalid())?;
        let release = |bytes: &[u8]| file.release(bytes);
        self.digest.update(name.as_bytes());
        self.digest.update(format!("{:?}", view.dtype()).as_bytes());
        for bytes in view.data().chunks(PIECE) {
            self.digest.update_rayon(bytes);
            release(bytes);
        }
        let taken = take(&file.path, &view, &release)?;
        release(view.data());
        Ok(taken)
    }

    /// Reads a tensor onto a device, in the type asked for.
    ///
    /// # Errors
    /// [`ModelError::NonFinite`] or [`ModelError::Overflow`] on a bad value.
    pub(crate) fn tensor<const D: usize>(
        &mut self,
        name: &str,
        dtype: WeightType,
        device: &Device,
    ) -> Result<Tensor<D>, ModelError> {
        let data = self.read(name, |path, view, release| {
            let from = view.dtype();
            let values = match dtype {
                WeightType::F32 => convert::<f32>(view.data(), from, release),
                WeightType::Bf16 => convert::<bf16>(view.data(), from, release),
                WeightType::F16 => convert::<f16>(view.data(), from, release),
            };
            let values = values.map_err(|(index, value)| {
                let (path, tensor) = (path.to_owned(), name.to_owned());
                if value.is_finite() {
                    ModelError::Overflow {
                        path,
                        tensor,
                        index,
                        value,
                        dtype: dtype.name(),
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
            Ok(TensorData::from_bytes(
                values,
                view.shape().to_vec(),
                DType::from(dtype),
            ))
        })?;
        Ok(Tensor::from_data(data, (device, dtype.into())))
    }

    /// Reads a tensor of whole numbers: its shape and its values.
    pub(crate) fn integers(&mut self, name: &str) -> Result<(Vec<usize>, Vec<i32>), ModelError> {
        self.read(name, |_, view, _| {
            let bytes = view.data().as_chunks::<4>().0;
            let values = bytes.par_iter().map(|&bytes| i32::from_le_bytes(bytes));
            Ok((view.shape().to_vec(), values.collect()))
        })
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
fn convert<T: Held>(bytes: &[u8], from: Dtype, release: &Release) -> Result<Bytes, (usize, f32)> {
    let read: fn(&[u8]) -> f32 = match from {
        Dtype::F32 => |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        Dtype::BF16 => |b| bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        _ => |b| f16::from_le_bytes([b[0], b[1]]).to_f32(),
    };
    let size = if from == Dtype::F32 { 4 } else { 2 };
    let mut values = vec![T::default(); bytes.len() / size];
    const TASK: usize = 1 << 16;
    let pieces = values.chunks_mut(PIECE / size).zip(bytes.chunks(PIECE));
    for (piece, (values, bytes)) in pieces.enumerate() {
        let first = piece * (PIECE / size);
        values
            .par_chunks_mut(TASK)
            .zip(bytes.par_chunks(TASK * size))
            .enumerate()
            .try_for_each(|(task, (values, bytes))| {
                let values = values.iter_mut().zip(bytes.chunks_exact(size));
                for (i, (value, bytes)) in values.enumerate() {
                    let x = read(bytes);
                    *value = T::from_f32(x);
                    if !value.to_f32().is_finite() {
                        return Err((first + task * TASK + i, x));
                    }
                }
                Ok(())
            })?;
        release(bytes);
    }
    Ok(Bytes::from_elems(values))
}
