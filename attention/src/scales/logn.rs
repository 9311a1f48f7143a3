//! LogN scaling: query `i` (1-based) times `max(1, ln m / ln L)`, `L` the trained length and `m`
//! the query's position, or the number of keys it sees. Source: arXiv 2202.12172; kexue.fm 8823 and
//! 9706; Qwen's modeling_qwen.py.

use longspan_rope::{OptionDoc, OptionError, Options, Variant, parse};
use serde::{Deserialize, Serialize};

use super::QueryScale;
use crate::Layer;

/// Registry entry of `logn`.
pub struct Scale;

/// The options of `logn`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    #[serde(default)]
    pub length: LogNLength,
}

/// The `m` of `ln m / ln L`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogNLength {
    /// The query's 1-based position (Qwen's code).
    #[default]
    Position,
    /// The number of keys that the query sees in its layer.
    Visible,
}

impl Variant for Scale {
    fn name(&self) -> &'static str {
        "logn"
    }

    fn summary(&self) -> &'static str {
        "queries times max(1, ln m / ln L), L the trained length"
    }

    fn source(&self) -> &'static str {
        "arXiv 2202.12172; kexue.fm 8823; Qwen's modeling_qwen.py"
    }

    fn options(&self) -> &'static [OptionDoc] {
        &[OptionDoc {
            name: "length",
            default: "\"position\"",
            meaning: "what m is: \"position\": the query's position, from 1; \"visible\": the number of \
                      keys it sees in its layer",
        }]
    }
}

impl QueryScale for Scale {
    fn factors(
        &self,
        layer: &Layer,
        seen: &[usize],
        options: &Options,
    ) -> Result<Vec<f64>, OptionError> {
        let params: Params = parse(self, options)?;
        let log_trained = (layer.model.rope.trained as f64).ln();
        let factor = |(row, i): (usize, usize)| {
            let m = match params.length {
                LogNLength::Position => i + 1,
                LogNLength::Visible => seen[row],
            };
            ((m as f64).ln() / log_trained).max(1.0)
        };
        Ok(layer.queries.clone().enumerate().map(factor).collect())
    }
}
