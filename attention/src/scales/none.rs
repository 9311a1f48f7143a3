//! Queries as they are. Source: RoFormer, arXiv 2104.09864, which scales logits by `1/sqrt(d)`
//! alone.

use longspan_rope::{OptionError, Options, Variant, parse};
use serde::Deserialize;

use super::QueryScale;
use crate::Layer;

/// Registry entry of `none`.
pub struct Scale;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {}

impl Variant for Scale {
    fn name(&self) -> &'static str {
        "none"
    }

    fn summary(&self) -> &'static str {
        "queries as they are"
    }

    fn source(&self) -> &'static str {
        "RoFormer, arXiv 2104.09864"
    }
}

impl QueryScale for Scale {
    fn factors(
        &self,
        layer: &Layer,
        _seen: &[usize],
        options: &Options,
    ) -> Result<Vec<f64>, OptionError> {
        let Params {} = parse(self, options)?;
        Ok(vec![1.0; layer.queries.len()])
    }
}
