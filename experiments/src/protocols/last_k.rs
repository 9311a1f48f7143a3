//! The last `n` tokens of each document; the same last `k` scored at every length. With several
//! windows a document, each ends `k` tokens before the one after it. Source: bojone/rerope,
//! eval_loss.py.

use longspan_rope::{OptionDoc, OptionError, Options, Variant, parse};
use serde::Deserialize;
use serde_json::json;

use super::{Budget, Description, PerplexityProtocol, TokenStream, Window};

/// Registry entry of `last_k`.
pub struct Protocol;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    last: Option<usize>,
    windows: Option<usize>,
}

impl Params {
    /// `last` and `windows`, or their defaults.
    fn or_default(&self, budget: &Budget) -> (usize, usize) {
        let last = self.last.unwrap_or((budget.shortest / 2).min(4096));
        (last, self.windows.unwrap_or(1))
    }
}

impl Variant for Protocol {
    fn name(&self) -> &'static str {
        "last_k"
    }

    fn summary(&self) -> &'static str {
        "the last n tokens of each document; the same last k scored at every length"
    }

    fn source(&self) -> &'static str {
        "bojone/rerope, eval_loss.py"
    }

    fn options(&self) -> &'static [OptionDoc] {
        &[
            OptionDoc {
                name: "last",
                default: "optional",
                meaning: "tokens scored at the end of each window; half the shortest length, at most \
                          4096, unless given",
            },
            OptionDoc {
                name: "windows",
                default: "1",
                meaning: "windows of each document, each ending last tokens before the next",
            },
        ]
    }
}

impl PerplexityProtocol for Protocol {
    fn by_document(&self) -> bool {
        true
    }

    fn complete(&self, budget: &Budget, options: &Options) -> Result<Options, OptionError> {
        let params: Params = parse(self, options)?;
        let (last, windows) = params.or_default(budget);
        let wrong = |key: &str, value: usize, rule: String| {
            Err(OptionError::Value {
                variant: "last_k",
                key: key.to_owned(),
                value: value.to_string(),
                rule,
            })
        };
        if windows == 0 {
            return wrong("windows", windows, "1 or more".to_owned());
        }
        if !(1..budget.shortest).contains(&last) {
            let (shortest, most) = (budget.shortest, budget.shortest - 1);
            let rule = format!("1 to {most}: the shortest length {shortest} scores {most} tokens");
            return wrong("last", last, rule);
        }
        let complete = [("last", json!(last)), ("windows", json!(windows))];
        Ok((complete.into_iter())
            .map(|(key, value)| (key.to_owned(), value))
            .collect())
    }

    fn describe(&self, budget: &Budget, options: &Options) -> Result<Description, OptionError> {
        let params: Params = parse(self, options)?;
        let (last, windows) = params.or_default(budget);
        Ok(Description::of_documents(
            budget,
            match windows {
                1 => "the last n tokens of each".to_owned(),
                _ => format!("n tokens up to each of the last {windows} ends in it, {last} apart"),
            },
            format!("the last {last}, the same at every length"),
        ))
    }

    fn windows(
        &self,
        stream: &TokenStream,
        budget: &Budget,
        options: &Options,
        n: usize,
    ) -> Result<Vec<Window>, OptionError> {
        let params: Params = parse(self, options)?;
        let (last, windows) = params.or_default(budget);
        let documents = stream.long_documents(budget);
        let all = documents.flat_map(|(group, document)| {
            let ends = (document.start + budget.longest..=document.end).rev();
            ends.step_by(last).take(windows).map(move |end| Window {
                start: end - n,
                scored: n - last..n,
                group,
            })
        });
        Ok(all.take(budget.max_tokens / budget.longest).collect())
    }
}
