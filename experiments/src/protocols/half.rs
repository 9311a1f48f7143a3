//! As `packed`, with the second half of each window scored. Source: llama.cpp, tools/perplexity.

use longspan_rope::{OptionDoc, OptionError, Options, Variant, parse};

use super::packed::{NESTED, Params};
use super::{Budget, Description, PerplexityProtocol, TokenStream, Window};

/// Registry entry of `half`.
pub struct Protocol;

impl Variant for Protocol {
    fn name(&self) -> &'static str {
        "half"
    }

    fn summary(&self) -> &'static str {
        "as packed, with the second half of each window scored"
    }

    fn source(&self) -> &'static str {
        "llama.cpp, tools/perplexity"
    }

    fn options(&self) -> &'static [OptionDoc] {
        &[NESTED]
    }
}

impl PerplexityProtocol for Protocol {
    fn complete(&self, budget: &Budget, options: &Options) -> Result<Options, OptionError> {
        let Params { .. } = parse(self, options)?;
        if budget.shortest < 3 {
            return Err(OptionError::Misfit {
                variant: "half",
                reason: format!(
                    "length {} has no token after the middle, which is what it scores; give lengths \
                     of 3 or more",
                    budget.shortest
                ),
            });
        }
        Ok(options.clone())
    }

    fn describe(&self, budget: &Budget, options: &Options) -> Result<Description, OptionError> {
        let params: Params = parse(self, options)?;
        Ok(params.describe(budget, "tokens after the middle of a window"))
    }

    fn windows(
        &self,
        stream: &TokenStream,
        budget: &Budget,
        options: &Options,
        n: usize,
    ) -> Result<Vec<Window>, OptionError> {
        let params: Params = parse(self, options)?;
        Ok(params.windows(stream, budget, n, n / 2 + 1))
    }
}
