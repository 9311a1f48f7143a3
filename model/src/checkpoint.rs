//! A checkpoint folder: which file holds which tensor, and the values, each checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;

use crate::convert::{PIECE, Release, convert};
use crate::shard::ShardFile;
use crate::tensors::StoredTensor;
use crate::{Architecture, ModelError, WeightType};

/// An opened folder: its configuration and its mapped files. Values are read by
/// [`Transformer::from_checkpoint`](crate::Transformer::from_checkpoint).
pub struct Checkpoint {
    /// The model's sizes.
    pub config: Architecture,
    /// Fields of `config.json` that are not known and were ignored.
    pub unknown_fields: Vec<String>,
    folder: PathBuf,
    files: Vec<ShardFile>,
    /// File of each tensor.
    place: BTreeMap<String, usize>,
    digest: blake3::Hasher,
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
    /// A missing, broken or contradictory file; a tensor that is missing, unused, or of a wrong
    /// shape or type. Values are checked when they are read.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let (config, unknown_fields) = Architecture::from_file(&folder.join("config.json"))?;
        let mut checkpoint = Self::with_config(folder, config)?;
        checkpoint.unknown_fields = unknown_fields;
        Ok(checkpoint)
    }

    /// [`Checkpoint::open`] with another configuration than that of the folder's `config.json`.
    pub(crate) fn with_config(folder: &Path, config: Architecture) -> Result<Self, ModelError> {
        let mut checkpoint = Checkpoint {
            digest: digest_of(&config),
            config,
            unknown_fields: Vec::new(),
            folder: folder.to_owned(),
            files: shards(folder)?,
            place: BTreeMap::new(),
        };
        checkpoint.check_tensors()?;
        Ok(checkpoint)
    }

    /// Replaces the trained length of `config.json`, before any weights are read. The digest is
    /// that of a folder with this length.
    pub fn set_trained(&mut self, trained: usize) {
        self.config.trained = trained;
        self.digest = digest_of(&self.config);
    }

    /// Checks names, shapes and types against the config, before any value is read.
    fn check_tensors(&mut self) -> Result<(), ModelError> {
        let stored = self.config.stored_tensors().into_iter();
        let expected: BTreeMap<String, StoredTensor> =
            stored.map(|tensor| (tensor.name.clone(), tensor)).collect();
        for (index, file) in self.files.iter().enumerate() {
            let tensors = file.parse()?;
            // Sorted, so that the same fault is always reported first.
            let mut views: Vec<_> = tensors.iter().collect();
            views.sort_by_key(|(name, _)| *name);
            for (tensor, view) in views {
                let path = file.path.clone();
                let tensor = tensor.to_owned();
                let Some(StoredTensor { shape, content, .. }) = expected.get(&tensor) else {
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
                let (supported, expected): (&[Dtype], _) = if content.is_integer() {
                    (&[Dtype::I32], "GPTQ packs into I32")
                } else {
                    let floats = &[Dtype::F32, Dtype::F16, Dtype::BF16];
                    (floats, "F32, F16 and BF16 are supported")
                };
                if !supported.contains(&view.dtype()) {
                    return Err(ModelError::TensorType {
                        path,
                        tensor,
                        found: format!("{:?}", view.dtype()),
                        expected,
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

    /// The type of the matrices in the files, packed ones aside; f32 if they have several.
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

    /// The type of the matrices in memory, packed ones aside: the one requested, or else that of
    /// the files.
    ///
    /// # Errors
    /// A type was requested, but the matrices are packed; a broken file.
    pub fn matrix_type(&self, requested: Option<WeightType>) -> Result<WeightType, ModelError> {
        match (requested, self.config.quantization) {
            (Some(dtype), None) => Ok(dtype),
            (Some(dtype), Some(_)) => Err(ModelError::PackedType {
                folder: self.folder.clone(),
                dtype: dtype.name(),
            }),
            (None, _) => self.stored_type(),
        }
    }

    /// `dtype`, or f32 if the device does not compute in it; f32 holds all its values.
    pub(crate) fn type_on(&self, dtype: WeightType, device: &Device) -> WeightType {
        let types = [DType::F32, dtype.into()];
        match longspan_kernels::supported(device, self.config.head_dim, &types) {
            Ok(()) => dtype,
            Err(_) => WeightType::F32,
        }
    }

    /// True if a file holds a tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.place.contains_key(name)
    }

    /// The file of a tensor.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.files[self.place[name]].path.clone()
    }

    /// The type of a tensor in its file.
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

    /// Reads a tensor onto a device, in the given type.
    ///
    /// # Errors
    /// [`ModelError::NonFinite`] or [`ModelError::Overflow`] for a bad value.
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

    /// Digest of the configuration and of every tensor read so far, in reading order. It does not
    /// depend on how the tensors are spread over shards.
    pub(crate) fn digest(&self) -> String {
        self.digest.finalize().to_hex().to_string()
    }
}

/// A digest of the configuration and no tensors.
fn digest_of(config: &Architecture) -> blake3::Hasher {
    let mut digest = blake3::Hasher::new();
    digest.update(config.to_json().to_string().as_bytes());
    digest
}

/// Opens the safetensors files of a folder.
fn shards(folder: &Path) -> Result<Vec<ShardFile>, ModelError> {
    let index_path = folder.join("model.safetensors.index.json");
    let single = folder.join("model.safetensors");
    match (index_path.exists(), single.exists()) {
        (true, true) => Err(ModelError::TwoCheckpoints {
            index: index_path,
            single,
        }),
        (false, true) => Ok(vec![ShardFile::open(single)?]),
        (false, false) => Err(ModelError::NoWeights {
            folder: folder.to_owned(),
        }),
        (true, false) => indexed_shards(folder, index_path),
    }
}

fn indexed_shards(folder: &Path, index_path: PathBuf) -> Result<Vec<ShardFile>, ModelError> {
    let text = std::fs::read_to_string(&index_path).map_err(ModelError::io(&index_path))?;
    let index: Index = serde_json::from_str(&text).map_err(|e| ModelError::Json {
        path: index_path.clone(),
        message: e.to_string(),
    })?;
    let names: BTreeSet<&String> = index.weight_map.values().collect();
    let mut files = Vec::new();
    for name in names {
        let path = folder.join(name);
        if !path.exists() {
            let mut tensors = index.weight_map.iter();
            let tensor = tensors.find(|(_, file)| *file == name);
            return Err(ModelError::MissingShard {
                path,
                index: index_path,
                tensor: tensor.map(|(tensor, _)| tensor.clone()).unwrap_or_default(),
            });
        }
        files.push(ShardFile::open(path)?);
    }
    Ok(files)
}
