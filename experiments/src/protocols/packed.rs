//! Documents concatenated and cut into windows of `n` tokens; all scored. Source: Qwen's table;
//! QwenLM/Qwen issue 206.

use longspan_rope::{OptionDoc, OptionError, Options, Variant, parse};
use serde::{Deserialize, Serialize};

use super::{Budget, Description, PerplexityProtocol, TokenStream, Window};

/// Registry entry of `packed`.
pub struct Protocol;

/// The options of `packed` and `half`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    #[serde(default)]
    pub nested: bool,
}

pub(super) const NESTED: OptionDoc = OptionDoc {
    name: "nested",
    default: "false",
    meaning: "windows of every length start where those of the longest do",
};

impl Params {
    /// Disjoint windows of `n` tokens, scored from the position `first` on.
    pub fn windows(
        &self,
        stream: &TokenStream,
        budget: &Budget,
        n: usize,
        first: usize,
    ) -> Vec<Window> {
        let step = if self.nested { budget.longest } else { n };
        let windows = 0..stream.ids.len().min(budget.max_tokens) / step;
        windows
            .map(|k| Window {
                start: k * step,
                scored: first..n,
                group: k,
            })
            .collect()
    }

    pub fn describe(&self, budget: &Budget, scored: &str) -> Description {
        let nested = if self.nested {
            format!(
                ", one window every {} tokens at every length",
                budget.longest
            )
        } else {
            String::new()
        };
        Description {
            text: "documents concatenated".to_owned(),
            fed: format!("disjoint windows of n tokens{nested}"),
            scored: scored.to_owned(),
        }
    }
}

impl Variant for Protocol {
    fn name(&self) -> &'static str {
        "packed"
    }

    fn summary(&self) -> &'static str {
        "documents concatenated and cut into windows of n tokens; all scored"
    }

    fn source(&self) -> &'static str {
        "Qwen's table; QwenLM/Qwen issue 206"
    }

    fn options(&self) -> &'static [OptionDoc] {
        &[NESTED]
    }
}

impl PerplexityProtocol for Protocol {
    fn complete(&self, _: &Budget, options: &Options) -> Result<Options, OptionError> {
        let Params { .. } = parse(self, options)?;
        Ok(options.clone())
    }

    fn describe(&self, budget: &Budget, options: &Options) -> Result<Description, OptionError> {
        let params: Params = parse(self, options)?;
        Ok(params.describe(budget, "all but the first token of a window"))
    }

    fn windows(
        &self,
        stream: &TokenStream,
        budget: &Budget,
        options: &Options,
        n: usize,
    ) -> Result<Vec<Window>, OptionError> {
        let params: Params = parse(self, options)?;
        Ok(params.windows(stream, budget, n, 1))
    }
}
