//! The number of a named thing: RULER's single needle. Source: arXiv 2404.06654.

use longspan_rope::Variant;

use super::{Draw, EvaluationTask, Template};

/// Registry entry of `fact`.
pub struct Task;

impl Variant for Task {
    fn name(&self) -> &'static str {
        "fact"
    }

    fn summary(&self) -> &'static str {
        "the number of a named thing"
    }

    fn source(&self) -> &'static str {
        "RULER's single needle, arXiv 2404.06654"
    }
}

impl EvaluationTask for Task {
    fn template(&self) -> Option<Template> {
        Some(Template {
            key: Some(Draw::Words(1)),
            ..Template::new(
                self.name(),
                " The magic number of {key} is {value}.",
                "What is the magic number of {key}? The magic number of {key} is",
            )
        })
    }
}
