//! Greg Kamradt's sentence about San Francisco. Source: gkamradt/LLMTest_NeedleInAHaystack.

use longspan_rope::Variant;

use super::{Draw, EvaluationTask, Template};

/// Registry entry of `san-francisco`.
pub struct Task;

impl Variant for Task {
    fn name(&self) -> &'static str {
        "san-francisco"
    }

    fn summary(&self) -> &'static str {
        "Greg Kamradt's sentence about San Francisco"
    }

    fn source(&self) -> &'static str {
        "gkamradt/LLMTest_NeedleInAHaystack"
    }
}

impl EvaluationTask for Task {
    fn template(&self) -> Option<Template> {
        let value = "eat a sandwich and sit in Dolores Park on a sunny day";
        Some(Template {
            value: Draw::List(vec![value.to_owned()]),
            ..Template::new(
                self.name(),
                " The best thing to do in San Francisco is {value}.",
                "What is the best thing to do in San Francisco? The best thing to do in San Francisco is",
            )
        })
    }
}
