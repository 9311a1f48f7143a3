//! Full causal attention: every query sees all keys up to itself, at their true positions.
//! Source: Attention Is All You Need, arXiv 1706.03762, section 3.2.3.

use longspan_rope::{OptionError, Options, Variant, parse};
use serde::Deserialize;

use super::{AttentionPattern, BandKeys};
use crate::Layer;

/// Registry entry of `full`.
pub struct Pattern;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {}

impl Variant for Pattern {
    fn name(&self) -> &'static str {
        "full"
    }

    fn summary(&self) -> &'static str {
        "every query sees all keys up to itself"
    }

    fn source(&self) -> &'static str {
        "Attention Is All You Need, arXiv 1706.03762, section 3.2.3"
    }
}

impl AttentionPattern for Pattern {
    fn bands(&self, layer: &Layer, options: &Options) -> Result<Vec<BandKeys>, OptionError> {
        let Params {} = parse(self, options)?;
        Ok(vec![BandKeys::in_place(layer, |i| 0..i + 1)])
    }
}
