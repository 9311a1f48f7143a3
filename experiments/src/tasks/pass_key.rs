//! One number, stated twice in the haystack. Source: Landmark Attention, arXiv 2305.16300.

use longspan_rope::Variant;

use super::{EvaluationTask, Template};

/// Registry entry of `pass-key`.
pub struct Task;

impl Variant for Task {
    fn name(&self) -> &'static str {
        "pass-key"
    }

    fn summary(&self) -> &'static str {
        "one number, stated twice"
    }

    fn source(&self) -> &'static str {
        "Landmark Attention, arXiv 2305.16300"
    }
}

impl EvaluationTask for Task {
    fn template(&self) -> Option<Template> {
        Some(Template::new(
            self.name(),
            " The pass key is {value}. Remember it. {value} is the pass key.",
            "What is the pass key? The pass key is",
        ))
    }
}
