//! A window every `stride` tokens inside a document; only newly exposed tokens are scored, and
//! windows count alike. A rest shorter than the stride is left out. Source: YaRN's
//! eval/perplexity.py, arXiv 2309.00071.

use longspan_rope::{OptionDoc, OptionError, Options, Variant, parse};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Average, Budget, Description, PerplexityProtocol, TokenStream, Window};

/// Registry entry of `sliding`.
pub struct Protocol;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    #[serde(default = "stride")]
    stride: usize,
}

fn stride() -> usize {
    256
}

impl Variant for Protocol {
    fn name(&self) -> &'static str {
        "sliding"
    }

    fn summary(&self) -> &'static str {
        "a window every stride tokens of a document; newly exposed tokens scored"
    }

    fn source(&self) -> &'static str {
        "YaRN, arXiv 2309.00071; its eval/perplexity.py"
    }

    fn options(&self) -> &'static [OptionDoc] {
        &[OptionDoc {
            name: "stride",
            default: "256",
            meaning: "tokens from one window to the next",
        }]
    }
}

impl PerplexityProtocol for Protocol {
    fn by_document(&self) -> bool {
        true
    }

    fn average(&self) -> Average {
        Average::Windows
    }

    fn complete(&self, _: &Budget, options: &Options) -> Result<Options, OptionError> {
        let Params { stride } = parse(self, options)?;
        if stride == 0 {
            return Err(OptionError::Value {
                variant: "sliding",
                key: "stride".to_owned(),
                value: "0".to_owned(),
                rule: "1 or more".to_owned(),
            });
        }
        Ok([("stride".to_owned(), json!(stride))].into_iter().collect())
    }

    fn describe(&self, budget: &Budget, options: &Options) -> Result<Description, OptionError> {
        let Params { stride } = parse(self, options)?;
        Ok(Description::of_documents(
            budget,
            format!("a window of n tokens every {stride}, as many of each"),
            "the first window whole, then the newly exposed tokens".to_owned(),
        ))
    }

    fn windows(
        &self,
        stream: &TokenStream,
        budget: &Budget,
        options: &Options,
        n: usize,
    ) -> Result<Vec<Window>, OptionError> {
        let Params { stride } = parse(self, options)?;
        let documents = stream.long_documents(budget);
        let share = (budget.max_tokens / n / documents.clone().count().max(1)).max(1);
        let windows = documents.flat_map(|(group, document)| {
            let starts = (document.start..=document.end - n).step_by(stride);
            let windows = starts.take(share).enumerate();
            windows.map(move |(k, start)| match k {
                0 => Window::whole(start, n, group),
                _ => Window {
                    start,
                    scored: n - stride.min(n - 1)..n,
                    group,
                },
            })
        });
        Ok(windows.collect())
    }
}
