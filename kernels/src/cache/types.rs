//! Types of a cache.

use burn::tensor::{DType, Device};

use crate::device::supported;
use crate::error::KernelError;

/// The type in which a cache stores keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheType {
    /// 32 bits.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
    /// 8 bits, with a slope and an offset for each token and head (Qwen's
    /// `use_cache_quantization`).
    Int8,
}

impl CacheType {
    /// All of them.
    pub const ALL: [CacheType; 4] = [
        CacheType::F32,
        CacheType::Bf16,
        CacheType::F16,
        CacheType::Int8,
    ];

    /// Name in commands and tables.
    pub fn name(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::Bf16 => "bf16",
            CacheType::F16 => "f16",
            CacheType::Int8 => "int8",
        }
    }

    /// Checks that a device supports such a cache, for heads of `d` components.
    ///
    /// # Errors
    /// The first thing that is missing.
    pub fn supported(self, device: &Device, d: usize) -> Result<(), KernelError> {
        let dtype = match self {
            CacheType::F32 => DType::F32,
            CacheType::Bf16 => DType::BF16,
            CacheType::F16 => DType::F16,
            CacheType::Int8 if d.is_multiple_of(4) => DType::F32,
            CacheType::Int8 => return Err(KernelError::Words { d }),
        };
        supported(device, d, &[DType::F32, dtype])
    }

    /// Bytes of a row of `d` values.
    pub fn row_bytes(self, d: usize) -> usize {
        match self {
            CacheType::F32 => 4 * d,
            CacheType::Bf16 | CacheType::F16 => 2 * d,
            CacheType::Int8 => d + 8,
        }
    }
}

impl std::str::FromStr for CacheType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| "the types are f32, bf16, f16 and int8".to_owned())
    }
}
