//! Attention patterns: which keys a query sees, at which positions, and what a cache may drop.
//!
//! A pattern is one file that exports `Pattern` and its name in the registry below;
//! `tests/registry.rs` then requires its goldens.

use std::ops::Range;

use longspan_rope::{Axis, Length, OptionError, Options, Variant, registry};

use crate::{Layer, Model};

registry! {
    /// Every attention pattern, in the order in which help texts list them.
    pub static PATTERNS: [dyn AttentionPattern] = Pattern;
    full, window
}

/// Which keys the queries of a layer see, and at which rotary positions.
///
/// A pattern is a pure function of the model's geometry, the length of the pass and the layer.
pub trait AttentionPattern: Variant {
    /// The bands of keys of `layer.queries`, disjoint for each query.
    ///
    /// # Errors
    /// An option is unknown, missing or out of range, or does not fit the model.
    fn bands(&self, layer: &Layer, options: &Options) -> Result<Vec<BandKeys>, OptionError>;

    /// The length from which the frequency method computes this layer's spectrum; default: that of
    /// the pass.
    ///
    /// # Errors
    /// As [`bands`](AttentionPattern::bands).
    fn rope_length(&self, layer: &Layer, _options: &Options) -> Result<Length, OptionError> {
        Ok(layer.length)
    }

    /// The keys of a layer that later queries may still see; a cache drops the others. Default:
    /// all.
    ///
    /// # Errors
    /// As [`bands`](AttentionPattern::bands).
    fn kept(&self, _model: &Model, _layer: usize, _options: &Options) -> Result<Kept, OptionError> {
        Ok(Kept::ALL)
    }
}

impl Axis for dyn AttentionPattern {
    const DEFAULT: &'static str = "full";

    fn registry() -> &'static [&'static Self] {
        PATTERNS
    }
}

/// A [`Band`](crate::Band) before the frequency method gives it a spectrum.
#[derive(Clone, Debug, PartialEq)]
pub struct BandKeys {
    /// The keys of each query; neither end ever decreases from one query to the next.
    pub keys: Vec<Range<u32>>,
    /// Rotary position of each query.
    pub q_position: Vec<f64>,
    /// Rotary position of each key of the pass.
    pub k_position: Vec<f64>,
}

impl BandKeys {
    /// A band of `keys(i)` for each query `i` of the layer, with queries and keys at their true
    /// positions.
    pub fn in_place(layer: &Layer, keys: impl Fn(u32) -> Range<u32>) -> Self {
        let positions = |tokens: Range<usize>| tokens.map(|i| i as f64).collect();
        let queries = layer.queries.start as u32..layer.queries.end as u32;
        BandKeys {
            keys: queries.map(keys).collect(),
            q_position: positions(layer.queries.clone()),
            k_position: positions(0..layer.length.total),
        }
    }
}

/// The keys that a cache must keep: the last ones up to the newest query, and the first ones of the
/// sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Tokens up to the newest query, itself included; `None`: all.
    pub last: Option<usize>,
    /// First tokens of the sequence.
    pub first: usize,
}

impl Kept {
    /// Nothing is dropped.
    pub const ALL: Kept = Kept {
        last: None,
        first: 0,
    };
}
