//! Writes checkpoints.
//!
//! A file is written next to its place and renamed, so that it is whole or absent, and gets the
//! permissions of the user's umask.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, View};
use serde_json::{Map, Value, json};

use crate::{Architecture, ModelError, WeightType};

/// Writes `config.json` and `model.safetensors` with the given values of every parameter, in the
/// order of the forward pass; matrices in `dtype`, vectors in f32.
///
/// # Errors
/// A file cannot be written.
///
/// # Panics
/// If the values are not those of the parameters.
pub fn write_checkpoint(
    folder: &Path,
    config: &Architecture,
    values: Vec<Vec<f32>>,
    dtype: WeightType,
) -> Result<(), ModelError> {
    fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
    let parameters = config.parameters();
    assert_eq!(parameters.len(), values.len(), "values of every parameter");
    let mut tensors = Vec::new();
    for (parameter, mut values) in parameters.into_iter().zip(values) {
        for (name, shape) in parameter.tensors {
            let len: usize = shape.iter().product();
            assert!(
                len <= values.len(),
                "{name}: {} values for {shape:?}",
                values.len()
            );
            let rest = values.split_off(len);
            let tensor = GivenTensor {
                dtype: if shape.len() == 2 {
                    dtype
                } else {
                    WeightType::F32
                },
                shape,
                values: std::mem::replace(&mut values, rest),
            };
            tensors.push((name, tensor));
        }
        assert!(values.is_empty(), "{} values too many", values.len());
    }
    write_safetensors(&folder.join("model.safetensors"), tensors)?;
    write_json(&folder.join("config.json"), &config.to_json())
}

/// A tensor of given values, stored in `dtype`.
struct GivenTensor {
    shape: Vec<usize>,
    dtype: WeightType,
    values: Vec<f32>,
}

impl View for GivenTensor {
    fn dtype(&self) -> Dtype {
        file_type(self.dtype)
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

/// The type in safetensors files.
pub(crate) fn file_type(dtype: WeightType) -> Dtype {
    match dtype {
        WeightType::F32 => Dtype::F32,
        WeightType::Bf16 => Dtype::BF16,
        WeightType::F16 => Dtype::F16,
    }
}

/// Stores a value in `dtype`, little-endian.
pub(crate) fn store(x: f32, dtype: WeightType, bytes: &mut [u8]) {
    match dtype {
        WeightType::F32 => bytes.copy_from_slice(&x.to_le_bytes()),
        WeightType::Bf16 => bytes.copy_from_slice(&bf16::from_f32(x).to_le_bytes()),
        WeightType::F16 => bytes.copy_from_slice(&f16::from_f32(x).to_le_bytes()),
    }
}

/// Writes a safetensors file, with one tensor in memory at a time. `safetensors::serialize_to_file`
/// does the same, but its files can be read by their owner only.
pub(crate) fn write_safetensors<V: View>(
    path: &Path,
    mut tensors: Vec<(String, V)>,
) -> Result<(), ModelError> {
    // The order in which the crate writes: by alignment, then by name.
    tensors.sort_by(|(a, left), (b, right)| right.dtype().cmp(&left.dtype()).then(a.cmp(b)));
    let (mut header, mut offset) = (Map::new(), 0);
    for (name, tensor) in &tensors {
        let end = offset + tensor.data_len();
        let info = json!({
            "dtype": tensor.dtype(),
            "shape": tensor.shape(),
            "data_offsets": [offset, end],
        });
        header.insert(name.clone(), info);
        offset = end;
    }
    let mut header = Value::from(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    write_whole(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for (_, tensor) in &tensors {
            file.write_all(&tensor.data())?;
        }
        Ok(())
    })
}

pub(crate) fn write_json(path: &Path, value: &Value) -> Result<(), ModelError> {
    let text = serde_json::to_string_pretty(value).expect("JSON values serialise");
    write_whole(path, |file| writeln!(file, "{text}"))
}

/// Writes a file next to `path` and renames it, so that `path` is never half written.
pub(crate) fn write_whole(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), ModelError> {
    let mut name = OsString::from(path);
    name.push(format!(".{}.partial", std::process::id()));
    let partial = Path::new(&name);
    let write = || {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(partial)?);
        content(&mut file)?;
        file.flush()?;
        fs::rename(partial, path)
    };
    write().map_err(|reason| {
        let _ = fs::remove_file(partial);
        ModelError::io(path)(reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The crate's own writer gives the same bytes.
    #[test]
    fn files_are_as_the_safetensors_crate_writes_them() {
        let tensors = || {
            let tensor = |dtype, shape: &[usize], first: f32| {
                let len = shape.iter().product::<usize>();
                let (shape, values) =
                    (shape.to_vec(), (0..len).map(|i| first + i as f32).collect());
                GivenTensor {
                    shape,
                    dtype,
                    values,
                }
            };
            vec![
                (
                    "b.weight".to_owned(),
                    tensor(WeightType::Bf16, &[2, 3], 1.0),
                ),
                ("a.bias".to_owned(), tensor(WeightType::F32, &[5], -1.5)),
                (
                    "a.weight".to_owned(),
                    tensor(WeightType::F16, &[1, 2], 0.25),
                ),
                ("\"c\"".to_owned(), tensor(WeightType::F32, &[1], 7.0)),
            ]
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        write_safetensors(&path, tensors()).unwrap();
        let expected = safetensors::serialize(tensors(), None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), expected);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        write_json(&path, &json!(1)).unwrap();
        let fail = |file: &mut BufWriter<File>| {
            file.write_all(b"2")?;
            Err(io::Error::other("disk full"))
        };
        let error = write_whole(&path, fail).unwrap_err().to_string();
        assert!(
            error.contains("config.json") && error.contains("disk full"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
