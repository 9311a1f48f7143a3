//! A task as a table of texts: needles to hide in a haystack, a question about them, its answer.

use longspan_data::{Place, PromptTexts, Tokenizer, hide};
use longspan_rope::Variant;
use serde::{Deserialize, Serialize};

use super::{Draw, EvaluationTask, Filled, Question, TaskError, TaskRng};

/// The texts of a task: what [`EvaluationTask::template`] returns, and `[[needle.task]]` in a run
/// config.
///
/// `{key}` and `{value}` are replaced by a drawn key and value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// The name in configs, tables and file names.
    pub name: String,
    /// One needle, with `{value}` and, if needles differ in their keys, `{key}`.
    pub needle: String,
    /// The question. For a base model it should end with the beginning of the answer's sentence.
    pub question: String,
    /// The answer, with `{value}`: the value asked for, or all of them joined by `separator`.
    pub answer: String,
    /// Joins the values of an answer; default `", "`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub separator: Option<String>,
    /// The set from which keys are drawn; default `words`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Draw>,
    /// The set from which values are drawn; default `digits:5`.
    #[serde(default = "five_digits")]
    pub value: Draw,
    /// Number of needles in the haystack.
    #[serde(default = "one")]
    pub needles: usize,
    /// Number of needles asked for. They share one key; each other needle has its own.
    #[serde(default = "one")]
    pub asked: usize,
    /// The whole prompt, with `{haystack}` and `{question}`. The name of a special token stands for
    /// that token.
    #[serde(default = "plain_prompt")]
    pub prompt: String,
}

fn five_digits() -> Draw {
    Draw::Digits(5)
}

fn one() -> usize {
    1
}

fn plain_prompt() -> String {
    "{haystack}\n{question}".to_owned()
}

impl Template {
    /// One needle without a key, whose value is five digits and the whole answer.
    pub fn new(name: &str, needle: &str, question: &str) -> Self {
        Template {
            name: name.to_owned(),
            needle: needle.to_owned(),
            question: question.to_owned(),
            answer: " {value}".to_owned(),
            separator: None,
            key: None,
            value: five_digits(),
            needles: 1,
            asked: 1,
            prompt: plain_prompt(),
        }
    }

    /// The set from which keys are drawn.
    pub(super) fn keys(&self) -> &Draw {
        const WORD: Draw = Draw::Words(1);
        self.key.as_ref().unwrap_or(&WORD)
    }

    /// Fills in the template, which must have passed [`Template::check`].
    pub fn draw(&self, rng: &mut TaskRng) -> Filled {
        // One key for all needles asked for, one for each other needle.
        let keys = if self.needle.contains("{key}") {
            (self.keys()).draw_different(self.needles - self.asked + 1, rng)
        } else {
            Vec::new()
        };
        let values = self.value.draw_different(self.needles, rng);
        let key = |i: usize| keys.get(i).map_or("", String::as_str);
        let key_of = |i: usize| key((i + 1).saturating_sub(self.asked));
        let fill = |(i, value): (usize, &String)| {
            let text = self.needle.replace("{key}", key_of(i));
            text.replace("{value}", value)
        };
        let needles = values.iter().enumerate().map(fill).collect();
        let asked = values[..self.asked].to_vec();
        let answer = self.answer.replace("{key}", key(0));
        let (before, after) = (answer.split_once("{value}")).expect("`check` passed");
        let mut answer = before.to_owned();
        let mut value_ends = Vec::new();
        for (i, value) in asked.iter().enumerate() {
            if i > 0 {
                answer += self.separator.as_deref().unwrap_or(", ");
            }
            answer += value;
            value_ends.push(answer.len());
        }
        answer += after;
        Filled {
            needles,
            question: self.question.replace("{key}", key(0)),
            keys,
            answer,
            values: asked,
            value_ends,
        }
    }

    /// Fills in the template and hides its needles at the beginning of a haystack, as [`hide`]
    /// does. The template must have passed [`Template::check`].
    ///
    /// # Errors
    /// [`TaskError::Haystack`]: the texts leave no room for the haystack, or it is too short.
    pub fn ask(
        &self,
        place: Place,
        haystack: &[u32],
        tokenizer: &Tokenizer,
        rng: &mut TaskRng,
    ) -> Result<Question, TaskError> {
        let filled = self.draw(rng);
        let (before, after) = (self.prompt.split_once("{haystack}")).expect("`check` passed");
        let [before, after] =
            [before, after].map(|text| text.replace("{question}", &filled.question));
        let needles = filled.needles.iter().map(String::as_str);
        let texts = PromptTexts {
            before: &before,
            needles: needles.zip(filled.depths(place.depth)).collect(),
            after: &after,
            answer: filled.answer_parts(),
        };
        let prompt = hide(&texts, place, haystack, tokenizer).map_err(|reason| {
            let task = self.name.clone();
            TaskError::Haystack { task, reason }
        })?;
        Ok(Question {
            prompt,
            answer: filled.answer,
            values: filled.values,
        })
    }
}

/// A template from a config: a task outside the registry, known in records by the template's name.
/// It has no settings there, since the digest of its prompts covers them.
impl Variant for Template {
    fn name(&self) -> &'static str {
        "template"
    }

    fn summary(&self) -> &'static str {
        "needles, question and answer from a table of texts"
    }
}

impl EvaluationTask for Template {
    fn template(&self) -> Option<Template> {
        Some(self.clone())
    }
}

#[cfg(test)]
mod tests;
