//! Qwen, first family: checkpoints as published on the Hugging Face hub, and the forward pass.
//!
//! [`Transformer::load`] opens a folder with `config.json` and safetensors; [`Transformer::plan`] lays a
//! context-scaling method over it for one length; [`Transformer::nll`] scores tokens. Nothing is kept between passes.
//! [`Decoder`] reads a sequence piece by piece and keeps keys and values; [`Sampler`] chooses what comes next.
//! [`Trainer`] makes such a model.

mod checkpoint;
mod config;
mod cost;
mod decode;
mod dtype;
mod error;
mod gptq;
mod initial;
mod linear;
mod quantization;
mod qwen;
mod sample;
mod train;
mod write;

pub use checkpoint::Checkpoint;
pub use config::{Architecture, Shape};
pub use cost::{PassCost, operations_per_second};
pub use decode::{DecodeError, DecodeOptions, Decoder, Stale};
pub use dtype::WeightType;
pub use error::ModelError;
pub use initial::Initial;
pub use longspan_kernels::{CacheType, device_kind};
pub use quantization::Quantization;
pub use qwen::{PassPlan, Transformer, sequences_together};
pub use sample::Sampler;
pub use train::{Optimizer, Sequence, StepLoss, Trainer};
pub use write::{write_checkpoint, write_random_checkpoint};
