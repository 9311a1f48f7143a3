//! Tensors of a checkpoint, to be changed and written back.

use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

/// A tensor as stored.
#[derive(Clone)]
pub struct Stored {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Stored {
    /// A tensor of zeros, in a type of 4 bytes.
    pub fn zeros(name: &str, dtype: Dtype, shape: &[usize]) -> Self {
        Self {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
            bytes: vec![0; 4 * shape.iter().product::<usize>()],
        }
    }

    pub fn f32(name: &str, shape: &[usize], values: &[f32]) -> Self {
        Self {
            bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ..Self::zeros(name, Dtype::F32, shape)
        }
    }

    pub fn i32(name: &str, shape: &[usize], values: &[u32]) -> Self {
        Self {
            bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ..Self::zeros(name, Dtype::I32, shape)
        }
    }

    /// Replaces the bytes of one value.
    pub fn set(&mut self, index: usize, value: &[u8]) {
        let at = index * value.len();
        self.bytes[at..at + value.len()].copy_from_slice(value);
    }
}

/// The tensors of a safetensors file, sorted by name.
pub fn read_tensors(path: &Path) -> Vec<Stored> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().map(|(name, view)| Stored {
        name: name.to_owned(),
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    });
    let mut tensors: Vec<Stored> = tensors.collect();
    // The reader keeps them in a hash map.
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    tensors
}

/// Writes a safetensors file.
pub fn write_tensors(path: &Path, tensors: &[Stored]) {
    let views = tensors.iter().map(|tensor| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
        (tensor.name.clone(), view.unwrap())
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The tensor of this name.
#[track_caller]
pub fn find<'a>(tensors: &'a mut [Stored], name: &str) -> &'a mut Stored {
    tensors
        .iter_mut()
        .find(|tensor| tensor.name == name)
        .unwrap()
}
