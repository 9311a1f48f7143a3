//! The first `n` tokens of each document; all scored. Source: YaRN's repository, eval.sh.

use longspan_rope::{OptionError, Options, Variant, parse};
use serde::Deserialize;

use super::{Budget, Description, PerplexityProtocol, TokenStream, Window};

/// Registry entry of `truncate`.
pub struct Protocol;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {}

impl Variant for Protocol {
    fn name(&self) -> &'static str {
        "truncate"
    }

    fn summary(&self) -> &'static str {
        "the first n tokens of each document; all scored"
    }

    fn source(&self) -> &'static str {
        "jquesnelle/yarn, eval.sh"
    }
}

impl PerplexityProtocol for Protocol {
    fn by_document(&self) -> bool {
        true
    }

    fn complete(&self, _: &Budget, options: &Options) -> Result<Options, OptionError> {
        let Params {} = parse(self, options)?;
        Ok(options.clone())
    }

    fn describe(&self, budget: &Budget, _: &Options) -> Result<Description, OptionError> {
        Ok(Description::of_documents(
            budget,
            "the first n tokens of each".to_owned(),
            "all but the first token".to_owned(),
        ))
    }

    fn windows(
        &self,
        stream: &TokenStream,
        budget: &Budget,
        _: &Options,
        n: usize,
    ) -> Result<Vec<Window>, OptionError> {
        let documents = stream.long_documents(budget);
        Ok(documents
            .map(|(group, document)| Window::whole(document.start, n, group))
            .collect())
    }
}
