//! The geometry of a model, and one of its layers in a pass.

use std::ops::Range;

use longspan_rope::{Length, Rope};

/// The geometry of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Rotary geometry and trained length.
    pub rope: Rope,
    /// Number of layers.
    pub layers: usize,
}

/// A layer in a pass, and which of the pass's queries are planned.
#[derive(Clone, Debug)]
pub struct Layer<'a> {
    /// The model.
    pub model: &'a Model,
    /// Index of the layer; the first is 0.
    pub index: usize,
    /// Length of the pass, tokens. Keys are `0..length.total`.
    pub length: Length,
    /// The queries to plan: all of the pass, or the new ones while decoding.
    pub queries: Range<usize>,
}
