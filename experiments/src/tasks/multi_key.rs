//! Four facts about four things, one of which is asked for: RULER's multi-key. Source: arXiv
//! 2404.06654.

use longspan_rope::Variant;

use super::{Draw, EvaluationTask, Template};

/// Registry entry of `multi-key`.
pub struct Task;

impl Variant for Task {
    fn name(&self) -> &'static str {
        "multi-key"
    }

    fn summary(&self) -> &'static str {
        "four numbers of four things, one of them asked for"
    }

    fn source(&self) -> &'static str {
        "RULER's multi-key, arXiv 2404.06654"
    }
}

impl EvaluationTask for Task {
    fn template(&self) -> Option<Template> {
        Some(Template {
            key: Some(Draw::Words(1)),
            needles: 4,
            ..Template::new(
                self.name(),
                " The magic number of {key} is {value}.",
                "What is the magic number of {key}? The magic number of {key} is",
            )
        })
    }
}
