//! The types in which weights are held.

use burn::tensor::DType;
use serde::{Deserialize, Serialize};

use crate::Quantization;

/// The type in which matrices are held in memory, where arithmetic on the CPU is f32 all the same, and that of
/// activations on a GPU.
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

/// What a model's layers hold their matrices in, by name: the type, but for those that are packed.
pub(crate) fn held(dtype: WeightType, quantization: Option<Quantization>) -> &'static str {
    match quantization.map(|quantization| quantization.bits) {
        None => dtype.name(),
        Some(4) => "int4",
        Some(_) => "int8",
    }
}
