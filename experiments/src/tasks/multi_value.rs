//! Four numbers of one thing, all asked for: RULER's multi-value. Source: arXiv 2404.06654.

use longspan_rope::Variant;

use super::{Draw, EvaluationTask, Template};

/// Registry entry of `multi-value`.
pub struct Task;

impl Variant for Task {
    fn name(&self) -> &'static str {
        "multi-value"
    }

    fn summary(&self) -> &'static str {
        "four numbers of one thing, all asked for"
    }

    fn source(&self) -> &'static str {
        "RULER's multi-value, arXiv 2404.06654"
    }
}

impl EvaluationTask for Task {
    fn template(&self) -> Option<Template> {
        Some(Template {
            key: Some(Draw::Words(1)),
            needles: 4,
            asked: 4,
            ..Template::new(
                self.name(),
                " One magic number of {key} is {value}.",
                "What are all the magic numbers of {key}? The magic numbers of {key} are",
            )
        })
    }
}
