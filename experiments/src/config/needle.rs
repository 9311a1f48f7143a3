//! `[needle]` of a run config: tasks at lengths and depths.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use longspan_data::{Place, Tokenizer};
use longspan_rope::{Axis, Choice, Options};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::tasks::{EvaluationTask, Question, Scorer, TASKS, TaskError, TaskRng, Template};

/// Fewest trials per cell: of 4 right out of 4, the 95 % interval is 51 to 100 %.
const FEWEST_KEYS: usize = 5;
/// Most depths: more than a figure can show.
const MOST_DEPTHS: usize = 1000;

/// `[needle]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeedleConfig {
    /// Context lengths: tokens fed when the last answer token is scored. Ascending.
    pub lengths: Vec<usize>,
    /// Where in the haystack the needle stands: a number of depths, evenly spaced, or a list;
    /// default: 5.
    #[serde(default = "five_depths")]
    pub depths: Depths,
    /// Trials per cell, each with its own key, value and haystack; at least 5; default: 5.
    #[serde(default = "fewest_keys")]
    pub keys: usize,
    /// Seed from which keys and values are drawn; default: 0.
    #[serde(default)]
    pub seed: u32,
    /// The tasks: names, or tables of a `kind` and its options; default: those of
    /// `[[needle.task]]`, or `pass-key`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskEntry>,
    /// One scorer or a list: `teacher-forced`, `generate`; default: `teacher-forced`.
    #[serde(default = "teacher_forced")]
    pub scorer: Scorers,
    /// Mean score that a length must reach to count as mastered; default: 0.85.
    #[serde(default = "threshold")]
    pub threshold: f64,
    /// Tasks besides the built-in ones: `[[needle.task]]`.
    #[serde(rename = "task", default, skip_serializing_if = "Vec::is_empty")]
    pub own: Vec<Template>,
}

/// An entry of `tasks`: `"fact"`, or `{ kind = "fact" }` with the task's options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a task is a name, such as \"pass-key\", or a table of its kind and options, such as { kind = \"pass-key\" }"
)]
pub enum TaskEntry {
    /// A built-in task without options, or one of `[[needle.task]]`.
    Name(String),
    /// A task with options.
    Table(Choice<dyn EvaluationTask>),
}

/// A task of a run and its name in records and tables.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTask {
    /// The name.
    pub name: String,
    choice: Choice<dyn EvaluationTask>,
}

/// `depths = 5` or `depths = [0, 0.5, "75%"]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "depths are a number of them, such as 5, or a list of fractions and percentages, such as [0, 0.5, \"75%\"]"
)]
pub enum Depths {
    /// This many, evenly spaced.
    Count(usize),
    /// Each depth.
    List(Vec<Depth>),
}

/// A fraction of the haystack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Depth {
    /// 0 to 1.
    Fraction(f64),
    /// `"0%"` to `"100%"`.
    Percent(String),
}

/// `scorer = "teacher-forced"` or `scorer = ["teacher-forced", "generate"]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a scorer or a list of scorers: teacher-forced, generate"
)]
pub enum Scorers {
    /// One.
    One(Scorer),
    /// Several.
    Many(Vec<Scorer>),
}

fn five_depths() -> Depths {
    Depths::Count(5)
}

fn fewest_keys() -> usize {
    FEWEST_KEYS
}

fn teacher_forced() -> Scorers {
    Scorers::One(Scorer::TeacherForced)
}

fn threshold() -> f64 {
    0.85
}

impl TaskEntry {
    /// The name of the task.
    fn name(&self) -> &str {
        match self {
            TaskEntry::Name(name) => name,
            TaskEntry::Table(choice) => choice.kind(),
        }
    }
}

impl NamedTask {
    fn variant(&self) -> &dyn EvaluationTask {
        (self.choice.variant()).expect("`NeedleConfig::tasks` found it")
    }

    /// The task's part of the key of a record, besides its prompts: its name, with its options if
    /// it has any.
    pub fn identity(&self) -> Value {
        if self.choice.options().is_empty() {
            json!(self.name)
        } else {
            json!(self.choice)
        }
    }

    /// [`EvaluationTask::check`].
    ///
    /// # Errors
    /// As [`EvaluationTask::check`].
    pub fn check(&self) -> Result<(), TaskError> {
        self.variant().check(self.choice.options())
    }

    /// [`EvaluationTask::question`].
    ///
    /// # Errors
    /// As [`EvaluationTask::question`].
    pub fn question(
        &self,
        place: Place,
        haystack: &[u32],
        tokenizer: &Tokenizer,
        rng: &mut TaskRng,
    ) -> Result<Question, TaskError> {
        let options = self.choice.options();
        (self.variant()).question(place, haystack, tokenizer, rng, options)
    }

    /// [`EvaluationTask::judge`].
    pub fn judge(&self, question: &Question, text: &str) -> Vec<bool> {
        self.variant().judge(question, text)
    }
}

impl NeedleConfig {
    /// The longest context.
    pub fn longest(&self) -> usize {
        self.lengths.last().copied().unwrap_or(0)
    }

    /// The scorers as a list.
    pub fn scorers(&self) -> Vec<Scorer> {
        match &self.scorer {
            Scorers::One(scorer) => vec![*scorer],
            Scorers::Many(list) => list.clone(),
        }
    }

    /// The depths as fractions.
    ///
    /// # Errors
    /// One that is outside 0 to 1, or out of order.
    pub fn depths(&self) -> Result<Vec<f64>> {
        let list = match &self.depths {
            Depths::Count(1) => return Ok(vec![0.5]),
            Depths::Count(count) => {
                ensure!(
                    (1..=MOST_DEPTHS).contains(count),
                    "needle.depths = {count}; give 1 to {MOST_DEPTHS}"
                );
                return Ok((0..*count).map(|i| i as f64 / (count - 1) as f64).collect());
            }
            Depths::List(list) => list,
        };
        ensure!(!list.is_empty(), "needle.depths is an empty list");
        let mut depths: Vec<f64> = Vec::new();
        for depth in list {
            let (text, fraction) = match depth {
                Depth::Fraction(fraction) => (fraction.to_string(), Some(*fraction)),
                Depth::Percent(text) => {
                    let number = text
                        .trim()
                        .strip_suffix('%')
                        .map(|number| number.trim().parse());
                    let fraction = number.and_then(|n: Result<f64, _>| Some(n.ok()? / 100.0));
                    (format!("{text:?}"), fraction)
                }
            };
            let fraction = fraction.filter(|fraction| (0.0..=1.0).contains(fraction));
            let fraction = fraction.with_context(|| {
                format!("needle.depths: {text}; give a fraction from 0 to 1, or a percentage such as \"25%\"")
            })?;
            let last = depths.last().copied().unwrap_or(-1.0);
            ensure!(
                fraction > last,
                "needle.depths: {text} after {last}; give depths in ascending order, each once"
            );
            depths.push(fraction);
        }
        Ok(depths)
    }

    /// The depths at which a task is measured: [`depths`](NeedleConfig::depths), or 0 alone for a
    /// task without depths.
    ///
    /// # Errors
    /// As [`depths`](NeedleConfig::depths).
    pub fn depths_of(&self, task: &NamedTask) -> Result<Vec<f64>> {
        if task.variant().has_depth() {
            self.depths()
        } else {
            Ok(vec![0.0])
        }
    }

    /// The names of the tasks to run.
    ///
    /// # Errors
    /// As [`tasks`](NeedleConfig::tasks).
    pub fn task_names(&self) -> Result<Vec<String>> {
        let names = self.tasks()?.into_iter().map(|task| task.name);
        Ok(names.collect())
    }

    /// The tasks to run, in the order of the config.
    ///
    /// # Errors
    /// A name is unknown, stands twice or stands for two tasks; a task of `[[needle.task]]` is not
    /// used.
    pub fn tasks(&self) -> Result<Vec<NamedTask>> {
        self.check_own()?;
        let mut entries = self.tasks.clone();
        if entries.is_empty() {
            let own = self.own.iter().map(|template| template.name.clone());
            entries = own.map(TaskEntry::Name).collect();
        }
        if entries.is_empty() {
            let default = <dyn EvaluationTask as Axis>::DEFAULT;
            entries.push(TaskEntry::Name(default.to_owned()));
        }
        let mut tasks: Vec<NamedTask> = Vec::new();
        for entry in &entries {
            let task = self.named(entry)?;
            ensure!(
                !tasks.iter().any(|other| other.name == task.name),
                "needle.tasks: {:?} stands twice",
                task.name
            );
            tasks.push(task);
        }
        Ok(tasks)
    }

    /// Checks that the names in `[[needle.task]]` differ from all others, and that each is used.
    fn check_own(&self) -> Result<()> {
        for (i, template) in self.own.iter().enumerate() {
            let name = &template.name;
            ensure!(
                !TASKS.iter().any(|task| task.name() == name),
                "needle.task.{i} has the name of a built-in task, {name:?}; give it another"
            );
            ensure!(
                !self.own[..i].iter().any(|other| other.name == *name),
                "two [[needle.task]] are named {name:?}; make the names differ"
            );
            ensure!(
                self.tasks.is_empty() || self.tasks.iter().any(|entry| entry.name() == name),
                "needle.task {name:?} has no effect, since needle.tasks does not name it; add it \
                 there, or remove it"
            );
        }
        Ok(())
    }

    /// The task that an entry of `tasks` names.
    fn named(&self, entry: &TaskEntry) -> Result<NamedTask> {
        let name = entry.name().to_owned();
        let choice = match entry {
            TaskEntry::Name(kind) => Choice::named(kind, Options::new()),
            TaskEntry::Table(choice) => choice.clone(),
        };
        if choice.variant().is_ok() {
            return Ok(NamedTask { name, choice });
        }
        let Some(own) = self.own.iter().find(|template| template.name == name) else {
            let own = self.own.iter().map(|template| template.name.as_str());
            let known: Vec<&str> = TASKS.iter().map(|task| task.name()).chain(own).collect();
            bail!(
                "needle.tasks: {name:?} is not known; there are {}, and those of [[needle.task]]",
                known.join(", ")
            );
        };
        ensure!(
            choice.options().is_empty(),
            "needle.tasks: {name:?} is a [[needle.task]] and takes no options; change its texts there"
        );
        let choice = Choice::own(Arc::new(own.clone()) as Arc<dyn EvaluationTask>);
        Ok(NamedTask { name, choice })
    }

    /// Checks everything that can be checked without model and text.
    ///
    /// # Errors
    /// The key that is wrong, and what to give instead.
    pub fn check(&self) -> Result<()> {
        ensure!(
            !self.lengths.is_empty(),
            "needle.lengths is empty; give context lengths such as [1024, 2048]"
        );
        ensure!(
            self.lengths[0] >= 2,
            "needle.lengths: {}; give 2 tokens or more",
            self.lengths[0]
        );
        for pair in self.lengths.windows(2) {
            ensure!(
                pair[0] < pair[1],
                "needle.lengths: {} after {}; give lengths in ascending order, each once",
                pair[1],
                pair[0]
            );
        }
        ensure!(
            self.keys >= FEWEST_KEYS,
            "needle.keys = {}; fewer than {FEWEST_KEYS} trials say too little about a cell, give \
             {FEWEST_KEYS} or more",
            self.keys
        );
        ensure!(
            self.threshold > 0.0 && self.threshold <= 1.0,
            "needle.threshold = {}; give a mean score above 0 and up to 1, such as 0.85",
            self.threshold
        );
        let scorers = self.scorers();
        ensure!(!scorers.is_empty(), "needle.scorer is an empty list");
        for (i, scorer) in scorers.iter().enumerate() {
            ensure!(
                !scorers[..i].contains(scorer),
                "needle.scorer: {} stands twice",
                scorer.name()
            );
        }
        self.depths()?;
        for task in self.tasks()? {
            let own = self.own.iter().any(|template| template.name == task.name);
            let key = if own { "needle.task" } else { "needle.tasks" };
            task.check().context(key)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
