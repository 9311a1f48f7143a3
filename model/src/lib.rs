//! RoPE language models: checkpoints as published on the Hugging Face hub, forward pass, decoding
//! and training.
//!
//! [`Transformer::load`] opens a folder with `config.json` and safetensors; [`Transformer::plan`]
//! plans passes of one length under a context-scaling method, and [`Transformer::nll`] scores
//! tokens. No state is kept between passes. [`Decoder`] reads a sequence piece by piece with a
//! cache, [`Sampler`] draws the next token, and [`Trainer`] trains a model.
//!
//! What differs between model families is in [`families`]: one file each, and one word in a
//! registry.

mod block;
mod checkpoint;
mod config;
mod convert;
mod cost;
mod decode;
mod dtype;
mod error;
pub mod families;
mod fields;
mod gptq;
mod initial;
mod linear;
mod quantization;
mod random;
mod sample;
mod shard;
mod source;
mod tensors;
mod train;
mod transformer;
mod write;

pub use checkpoint::Checkpoint;
pub use cost::{PassCost, operations_per_second};
pub use decode::{DecodeError, DecodeOptions, Decoder, Stale};
pub use dtype::WeightType;
pub use error::ModelError;
pub use families::{Architecture, FAMILIES, Layout, ModelFamily, QkvNames, shape, shape_names};
pub use fields::ConfigFields;
pub use initial::Initial;
pub use longspan_kernels::{CacheType, device_kind};
pub use quantization::Quantization;
pub use random::write_random_checkpoint;
pub use sample::Sampler;
pub use train::{Optimizer, Sequence, StepLoss, Trainer};
pub use transformer::{PassPlan, Transformer, sequences_together};
pub use write::write_checkpoint;
