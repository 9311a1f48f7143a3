//! Model families: what a `config.json` means, and which tensors hold the parameters.
//!
//! A family is one file that exports `Family` and one word in the registry below;
//! `tests/families.rs` then asks for a checkpoint with reference values. The forward pass is in
//! `transformer.rs` and knows no family: it is assembled from the [`Layout`] that a family gives.

use std::fmt;

use longspan_attention::Model;
use longspan_rope::{Axis, Rope, Variant, registry};
use serde_json::Value;

use crate::{ConfigFields, ModelError, Quantization};

registry! {
    /// Every model family, in the order in which help texts list them.
    pub static FAMILIES: [dyn ModelFamily] = Family;
    qwen
}

/// A family of checkpoints with one meaning of `config.json` and one set of tensor names. Its name
/// is the `model_type` of `config.json`.
pub trait ModelFamily: Variant {
    /// Reads the fields that shape the model, and marks those that have no effect as ignored.
    /// `model_type` and `quantization_config` are read by the caller.
    ///
    /// # Errors
    /// A field is missing, is out of range, contradicts another, or asks for arithmetic that is
    /// not implemented.
    fn read(&self, fields: &mut ConfigFields) -> Result<Architecture, ModelError>;

    /// The fields as `config.json` has them, without `quantization_config`. The text is part of a
    /// checkpoint's digest, and so of the key of every record.
    fn to_json(&self, architecture: &Architecture) -> Value;

    /// Which parameters the model has, and the names of their tensors.
    fn layout(&self, architecture: &Architecture) -> Layout;

    /// Sizes of published models, by name.
    fn shapes(&self) -> &'static [(&'static str, Architecture)];
}

impl Axis for dyn ModelFamily {
    const DEFAULT: &'static str = "qwen";

    fn registry() -> &'static [&'static Self] {
        FAMILIES
    }
}

impl PartialEq for dyn ModelFamily {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl fmt::Debug for dyn ModelFamily {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The sizes of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// What the fields of its `config.json` and its tensors are called.
    pub family: &'static dyn ModelFamily,
    /// Rows of the embedding and of the LM head.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; each has keys and values of its own.
    pub heads: usize,
    /// Size of a head.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Trained length in tokens.
    pub trained: usize,
    /// Base of the rotary frequencies.
    pub rope_base: f64,
    /// Added to the mean square in RMSNorm.
    pub epsilon: f64,
    /// How the matrices of the layers are packed; `None`: they are not.
    pub quantization: Option<Quantization>,
}

impl Architecture {
    /// The geometry from which a method plans attention.
    pub fn geometry(&self) -> Model {
        Model {
            rope: Rope {
                dim: self.head_dim,
                base: self.rope_base,
                trained: self.trained,
            },
            layers: self.layers,
        }
    }
}

/// The tensors of a model, by their names without `.weight` and `.bias`. Names within a layer `l`
/// follow `{layers}.{l}.`. Matrices are `[outputs, inputs]`.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Embedding `[vocab_size, hidden_size]`.
    pub embedding: &'static str,
    /// Prefix of the layers.
    pub layers: &'static str,
    /// RMSNorm before attention.
    pub attention_norm: &'static str,
    /// Projections to queries, keys and values.
    pub qkv: QkvNames,
    /// Whether these projections have a bias.
    pub qkv_bias: bool,
    /// Projection of the heads' outputs into the residual stream.
    pub output: &'static str,
    /// RMSNorm before the feed-forward layer.
    pub mlp_norm: &'static str,
    /// First matrix of the feed-forward layer: `down(up(x) * silu(gate(x)))`.
    pub up: &'static str,
    /// Its gate.
    pub gate: &'static str,
    /// Its projection into the residual stream.
    pub down: &'static str,
    /// RMSNorm after the last layer.
    pub norm: &'static str,
    /// LM head `[vocab_size, hidden_size]`; `None` if the embedding serves as the head.
    pub head: Option<&'static str>,
}

/// How a checkpoint stores the projections to queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub enum QkvNames {
    /// One matrix: the rows of q, then of k, then of v.
    Fused(&'static str),
    /// Three matrices, q, k and v; a model holds them as one.
    Separate([&'static str; 3]),
}

/// The sizes of a published model, such as `qwen-1.8b`.
pub fn shape(name: &str) -> Option<Architecture> {
    let mut shapes = FAMILIES.iter().flat_map(|family| family.shapes());
    let found = shapes.find(|shape| shape.0 == name);
    found.map(|shape| shape.1.clone())
}

/// The names that [`shape`] knows, family by family.
pub fn shape_names() -> Vec<&'static str> {
    let shapes = FAMILIES.iter().flat_map(|family| family.shapes());
    shapes.map(|shape| shape.0).collect()
}
