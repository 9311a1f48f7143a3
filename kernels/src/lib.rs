//! The ops that execute an attention plan on burn tensors.
//!
//! [`Ops`] is the one trait: rotary embedding from given tables, attention over one band of keys,
//! the two in one op, merging of bands, RMSNorm, SwiGLU, linear layers (packed ones too) and the
//! LM-head loss. Its default bodies are the slow twins of [`reference`](mod@reference), written
//! with burn's own operations, so a back end starts with an empty `impl` and is made fast one op at
//! a time. The CPU implementation (`cpu/`, on burn's `Flex`) overrides all of them, the GPU
//! implementation (`cube/`) those that a forward pass uses. The functions of [`ops`] are the same
//! ops on burn's `Tensor`. Ops that training uses are followed by their backward passes, which
//! `autodiff` connects.
//!
//! Conventions: `b` batch, `h` heads, `n` queries, `m` keys, `d` head dimension, `v` vocabulary;
//! attention tensors are `[b, h, n, d]`; rotation is the half-split form (component `c` turns with
//! `c + d/2`); tables, softmax and accumulation are f32. A kernel sees bands and tables, never the
//! name of a method. Wrong shapes are programming errors and panic; what a device cannot do is a
//! [`KernelError`], from [`supported`] before a pass and from [`read`] after it.

mod autodiff;
mod backend;
mod cache;
mod cpu;
#[cfg(feature = "cube")]
pub mod cube;
mod device;
mod error;
pub mod ops;
mod packed_weight;
mod plan;
pub mod reference;

pub use backend::Ops;
pub use cache::{CacheType, KeyTables, LayerCache};
pub use cpu::FEW_ROWS;
pub use device::{device_kind, read, supported};
pub use error::KernelError;
pub use packed_weight::PackedWeight;
pub use plan::PlanTensors;
