//! The types in which weights are held.

use burn::tensor::DType;
use serde::{Deserialize, Serialize, Serializer};

use crate::Quantization;

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

/// What a model's layers hold their matrices in, which is what a record names as its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldType {
    /// Numbers.
    Float(WeightType),
    /// Packed, 4 bits a value.
    Int4,
    /// Packed, 8 bits a value.
    Int8,
}

impl HeldType {
    /// Of a model whose matrices are in `dtype`, but for those that are packed.
    pub(crate) fn new(dtype: WeightType, quantization: Option<Quantization>) -> Self {
        match quantization.map(|quantization| quantization.bits) {
            None => HeldType::Float(dtype),
            Some(4) => HeldType::Int4,
            Some(_) => HeldType::Int8,
        }
    }

    /// Name in records.
    pub fn name(self) -> &'static str {
        match self {
            HeldType::Float(dtype) => dtype.name(),
            HeldType::Int4 => "int4",
            HeldType::Int8 => "int8",
        }
    }
}

impl Serialize for HeldType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
