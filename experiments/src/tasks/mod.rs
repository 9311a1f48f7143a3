//! Evaluation tasks: questions about a long text, their answers, and what counts as right.
//!
//! A task is one file that exports `Task` and its name in the registry below; the tests of this
//! module then ask for `tests/golden/tasks/NAME.json`. A task that hides needles in a haystack
//! returns a [`Template`] and nothing else; one that builds its prompts in another way (variable
//! tracking, word counts) writes [`check`](EvaluationTask::check) and
//! [`question`](EvaluationTask::question).
//!
//! Record keys contain a digest of the prompts, so a change of a task's texts, or of the order in
//! which it draws, makes every record of the task obsolete.

mod consistency;
mod draw;
mod filled;
mod scorer;
mod template;
mod words;

use anyhow::Context;
use longspan_data::{HaystackError, Place, Prompt, Tokenizer};
use longspan_rope::{Axis, OptionError, Options, Variant, parse, registry};
use serde::Deserialize;
use thiserror::Error;

pub use draw::Draw;
pub use filled::Filled;
pub use scorer::Scorer;
pub use template::Template;

registry! {
    /// Every task, in the order in which help texts list them.
    pub static TASKS: [dyn EvaluationTask] = Task;
    pass_key, fact, multi_key, multi_value, san_francisco
}

/// The generator from which tasks draw. Each trial has its own, seeded by the seed of the run, the
/// depth and the number of the trial.
pub type TaskRng = rand::rngs::Xoshiro256PlusPlus;

/// A kind of question about a long text.
pub trait EvaluationTask: Variant {
    /// The texts of a task that hides needles; `None` for a task of another form. Training hides
    /// several needles of one template in a sequence.
    fn template(&self) -> Option<Template> {
        None
    }

    /// False if a depth means nothing to the task. It is then asked at depth 0 only.
    fn has_depth(&self) -> bool {
        true
    }

    /// Checks what can be checked without text. By default a task takes no options, and its
    /// [`template`](EvaluationTask::template), if it has one, must pass [`Template::check`].
    ///
    /// # Errors
    /// An option is unknown, missing or out of range; a template contradicts itself.
    fn check(&self, options: &Options) -> Result<(), TaskError> {
        let NoOptions {} = parse(self, options)?;
        self.template().map_or(Ok(()), |template| template.check())
    }

    /// The question of one trial: a prompt of exactly `place.fed + 1 - answer - place.spare`
    /// tokens, `answer` being those of the answer. The trial depends on nothing but the arguments.
    /// `options` have passed [`check`](EvaluationTask::check).
    ///
    /// By default [`Template::ask`]. A task without a template must define it.
    ///
    /// # Errors
    /// The texts do not fit into `place.fed` tokens, or the haystack is too short.
    fn question(
        &self,
        place: Place,
        haystack: &[u32],
        tokenizer: &Tokenizer,
        rng: &mut TaskRng,
        options: &Options,
    ) -> Result<Question, TaskError> {
        let NoOptions {} = parse(self, options)?;
        let template = (self.template()).expect("a task without a template defines `question`");
        template.ask(place, haystack, tokenizer, rng)
    }

    /// True for each value of the question that a generated text gets right. By default
    /// [`values_found`].
    fn judge(&self, question: &Question, text: &str) -> Vec<bool> {
        values_found(&question.values, text)
    }
}

impl Axis for dyn EvaluationTask {
    const DEFAULT: &'static str = "pass-key";

    fn registry() -> &'static [&'static Self] {
        TASKS
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoOptions {}

/// One trial: what a model is asked, and what it should answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The prompt and the expected answer as token ids. Each part of the answer is scored on its
    /// own; each has at least one token.
    pub prompt: Prompt,
    /// The expected answer.
    pub answer: String,
    /// The values that the answer must contain; at least one.
    pub values: Vec<String>,
}

/// A task cannot be used, or a question cannot be built.
#[derive(Debug, Error)]
pub enum TaskError {
    /// The parts of a template contradict each other.
    #[error("task {task:?}: {problem}")]
    Template {
        /// Name of the task.
        task: String,
        /// What is wrong and what to do.
        problem: String,
    },

    /// A prompt cannot have the length asked for.
    #[error("task {task:?}: {reason}")]
    Haystack {
        /// Name of the task.
        task: String,
        /// The reason.
        reason: HaystackError,
    },

    /// An option is unknown, missing or out of range.
    #[error(transparent)]
    Options(#[from] OptionError),
}

/// The template of a registered task.
///
/// # Errors
/// No task has this name and a template.
pub fn template(name: &str) -> anyhow::Result<Template> {
    let templates: Vec<Template> = TASKS.iter().filter_map(|task| task.template()).collect();
    let names: Vec<&str> = templates.iter().map(|t| t.name.as_str()).collect();
    let names = names.join(", ");
    (templates.into_iter())
        .find(|template| template.name == name)
        .with_context(|| format!("no needle task {name:?}; there are {names}"))
}

/// True for each value that occurs in a text, in upper or lower case (RULER, arXiv 2404.06654).
pub fn values_found(values: &[String], text: &str) -> Vec<bool> {
    let text = text.to_lowercase();
    let found = |value: &String| text.contains(&value.trim().to_lowercase());
    values.iter().map(found).collect()
}

#[cfg(test)]
mod tests;
