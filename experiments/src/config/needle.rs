//! `[needle]` of a run config.

use anyhow::{Context, Result, bail, ensure};
use longspan_data::NeedleTask;
use serde::{Deserialize, Serialize};

/// Fewer trials than this say nothing about a cell: 4 of 4 is anything from 51 to 100 %.
const FEWEST_KEYS: usize = 5;
/// More are more than a figure shows.
const MOST_DEPTHS: usize = 1000;

/// `[needle]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeedleConfig {
    /// Context lengths: tokens fed when the last answer token is scored. Ascending.
    pub lengths: Vec<usize>,
    /// Where in the haystack the needle stands: so many places from its start to its end, or a list.
    #[serde(default = "five_depths")]
    pub depths: Depths,
    /// Trials per cell, each with a key, a value and a haystack of its own.
    #[serde(default = "fewest_keys")]
    pub keys: usize,
    /// Seed of what is drawn.
    #[serde(default)]
    pub seed: u32,
    /// Which tasks are run, by name; default: those of `[[needle.task]]`, or `pass-key`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
    /// One scorer or a list.
    #[serde(default = "teacher_forced")]
    pub scorer: Scorers,
    /// Mean score from which on a length counts as mastered.
    #[serde(default = "threshold")]
    pub threshold: f64,
    /// Tasks beside the presets: `[[needle.task]]`.
    #[serde(rename = "task", default, skip_serializing_if = "Vec::is_empty")]
    pub own: Vec<NeedleTask>,
}

/// `depths = 5` or `depths = [0, 0.5, "75%"]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "depths are a number of them, such as 5, or a list of fractions and percentages, such as [0, 0.5, \"75%\"]"
)]
pub enum Depths {
    /// So many, evenly apart.
    Count(usize),
    /// These.
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

/// How an answer is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scorer {
    /// The right answer is fed; each of its tokens must be the most likely one at its place
    /// (jzhang38/EasyContext). One pass.
    TeacherForced,
    /// The model writes on, always the most likely token; the values must occur in what it wrote, in any case and
    /// order (RULER).
    Generate,
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

impl Scorer {
    /// Name in configs, records and tables.
    pub fn name(self) -> &'static str {
        match self {
            Scorer::TeacherForced => "teacher-forced",
            Scorer::Generate => "generate",
        }
    }

    /// What counts as right, in words.
    pub fn describe(self) -> &'static str {
        match self {
            Scorer::TeacherForced => {
                "the answer is fed, and every token of a value must be the most likely one at its place"
            }
            Scorer::Generate => {
                "the most likely token is written again and again, and a value must occur in the text, in upper or lower case"
            }
        }
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

    /// The tasks to run, in the order of the config.
    ///
    /// # Errors
    /// A name that is not known, or that stands for two tasks.
    pub fn tasks(&self) -> Result<Vec<NeedleTask>> {
        let presets = NeedleTask::presets();
        for (i, task) in self.own.iter().enumerate() {
            let same = |other: &NeedleTask| other.name == task.name;
            ensure!(
                !presets.iter().any(same),
                "needle.task.{i} has the name of a built-in task, {:?}; give it another",
                task.name
            );
            ensure!(
                !self.own[..i].iter().any(same),
                "two [[needle.task]] are named {:?}; make the names differ",
                task.name
            );
            ensure!(
                self.tasks.is_empty() || self.tasks.contains(&task.name),
                "needle.task {:?} has no effect, since needle.tasks does not name it; add it there, or remove it",
                task.name
            );
        }
        let mut names: Vec<&str> = self.tasks.iter().map(String::as_str).collect();
        if names.is_empty() {
            names = self.own.iter().map(|task| task.name.as_str()).collect();
        }
        if names.is_empty() {
            names = vec!["pass-key"];
        }
        let known = || presets.iter().chain(&self.own);
        let mut tasks: Vec<NeedleTask> = Vec::new();
        for name in names {
            let Some(task) = known().find(|task| task.name == name) else {
                let known: Vec<&str> = known().map(|task| task.name.as_str()).collect();
                bail!(
                    "needle.tasks: {name:?} is not known; there are {}, and those of [[needle.task]]",
                    known.join(", ")
                );
            };
            ensure!(!tasks.contains(task), "needle.tasks: {name:?} stands twice");
            tasks.push(task.clone());
        }
        Ok(tasks)
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
            task.check().context("needle.task")?;
        }
        Ok(())
    }
}
