//! Needles: facts hidden in a long text and asked for at its end.
//!
//! A [`NeedleTask`] has templates and the sets from which their keys and values are drawn;
//! [`NeedleTask::draw`] fills them in. [`NeedleTask::presets`] are tasks from the literature.

use rand::Rng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::draw::Draw;
use crate::haystack::{self, HaystackError, Place, Prompt, PromptTexts};
use crate::tokenizer::Tokenizer;

/// Most needles in one prompt. Drawing compares each with all others: quadratic time.
const MOST_NEEDLES: usize = 10_000;

/// A kind of needle: `[[needle.task]]` in a run config.
///
/// `{key}` and `{value}` in the templates are replaced by a drawn key and value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeedleTask {
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

/// Needles, question and answer, drawn for one trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needle {
    /// Texts to hide. The first [`Needle::values`]`.len()` are asked for and keep this order in the
    /// haystack; the others may be anywhere. [`Needle::depths`] places all of them.
    pub needles: Vec<String>,
    /// The key of the needles asked for, then the key of each other needle. Empty if the needle
    /// template has no `{key}`.
    pub keys: Vec<String>,
    /// The question.
    pub question: String,
    /// The answer.
    pub answer: String,
    /// The values asked for, in the order of the answer.
    pub values: Vec<String>,
    /// The end of each value in the answer, in bytes.
    value_ends: Vec<usize>,
}

impl Needle {
    /// The answer, cut after each value except the last: one part per value.
    pub fn answer_parts(&self) -> Vec<&str> {
        let last = self.value_ends.len() - 1;
        let mut start = 0;
        let ends = self.value_ends.iter().enumerate();
        ends.map(|(i, &end)| {
            let end = if i == last { self.answer.len() } else { end };
            let part = &self.answer[start..end];
            start = end;
            part
        })
        .collect()
    }

    /// The depth of each needle, 0 to 1, with one of those asked for at `depth`. Needles are evenly
    /// spaced and wrap around at the end.
    pub fn depths(&self, depth: f64) -> Vec<f64> {
        let (count, asked) = (self.needles.len(), self.values.len());
        let slots = (0..count).map(|i| {
            let slot = depth + i as f64 / count as f64;
            if i > 0 && slot >= 1.0 {
                slot - 1.0
            } else {
                slot
            }
        });
        let mut depths: Vec<f64> = slots.collect();
        // Needles asked for stand in the order of the answer.
        depths[..asked].sort_by(f64::total_cmp);
        depths
    }
}

/// A needle cannot be drawn or hidden.
#[derive(Debug, Error)]
pub enum NeedleError {
    /// The keys of a task contradict each other.
    #[error("task {task:?}: {problem}")]
    Task {
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
}

impl NeedleTask {
    /// Tasks from the literature, by name:
    ///
    /// - `pass-key`: one number, stated twice (after Landmark Attention, arXiv 2305.16300).
    /// - `fact`: the number of a named thing (RULER's single needle, arXiv 2404.06654).
    /// - `multi-key`: four such facts, one of which is asked for (RULER's multi-key).
    /// - `multi-value`: four numbers of one thing, all asked for (RULER's multi-value).
    /// - `san-francisco`: Greg Kamradt's sentence (gkamradt/LLMTest_NeedleInAHaystack).
    pub fn presets() -> Vec<NeedleTask> {
        let task = |name: &str, needle: &str, question: &str| NeedleTask {
            name: name.to_owned(),
            needle: needle.to_owned(),
            question: question.to_owned(),
            answer: " {value}".to_owned(),
            separator: None,
            key: None,
            value: Draw::Digits(5),
            needles: 1,
            asked: 1,
            prompt: plain_prompt(),
        };
        let keyed = |name, needle, question| NeedleTask {
            key: Some(Draw::Words(1)),
            ..task(name, needle, question)
        };
        let fact = |name| {
            keyed(
                name,
                " The magic number of {key} is {value}.",
                "What is the magic number of {key}? The magic number of {key} is",
            )
        };
        vec![
            task(
                "pass-key",
                " The pass key is {value}. Remember it. {value} is the pass key.",
                "What is the pass key? The pass key is",
            ),
            fact("fact"),
            NeedleTask {
                needles: 4,
                ..fact("multi-key")
            },
            NeedleTask {
                needles: 4,
                asked: 4,
                ..keyed(
                    "multi-value",
                    " One magic number of {key} is {value}.",
                    "What are all the magic numbers of {key}? The magic numbers of {key} are",
                )
            },
            NeedleTask {
                value: Draw::List(vec![
                    "eat a sandwich and sit in Dolores Park on a sunny day".to_owned(),
                ]),
                ..task(
                    "san-francisco",
                    " The best thing to do in San Francisco is {value}.",
                    "What is the best thing to do in San Francisco? The best thing to do in San \
                     Francisco is",
                )
            },
        ]
    }

    /// Checks that the templates fit together and that keys and values can be drawn.
    ///
    /// # Errors
    /// [`NeedleError::Task`] names the wrong key and its value.
    pub fn check(&self) -> Result<(), NeedleError> {
        self.check_templates()?;
        self.check_counts()?;
        self.check_keys()?;
        self.check_sets()
    }

    fn ensure(&self, good: bool, problem: String) -> Result<(), NeedleError> {
        let task = self.name.clone();
        good.then_some(())
            .ok_or(NeedleError::Task { task, problem })
    }

    /// Checks the name and that each template has its placeholders.
    fn check_templates(&self) -> Result<(), NeedleError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        self.ensure(
            !self.name.is_empty() && self.name.chars().all(plain),
            "the name becomes part of file names; use letters, digits, - and _".to_owned(),
        )?;
        for (key, template) in [("needle", &self.needle), ("answer", &self.answer)] {
            self.ensure(
                template.contains("{value}"),
                format!("{key} = {template:?} lacks {{value}}; put it where the value belongs"),
            )?;
        }
        self.ensure(
            self.answer.matches("{value}").count() == 1,
            format!(
                "answer = {:?} has {{value}} more than once; give it once, separator joins several \
                 values",
                self.answer
            ),
        )?;
        for part in ["{haystack}", "{question}"] {
            self.ensure(
                self.prompt.matches(part).count() == 1,
                format!("prompt = {:?} must have {part} exactly once", self.prompt),
            )?;
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<(), NeedleError> {
        self.ensure(
            self.needles <= MOST_NEEDLES,
            format!("needles = {}; give {MOST_NEEDLES} at most", self.needles),
        )?;
        self.ensure(
            (1..=self.needles).contains(&self.asked),
            format!(
                "asked = {} of needles = {}; ask for at least one and at most all of them",
                self.asked, self.needles
            ),
        )
    }

    /// Checks that `{key}` tells needles apart where it must, and that no setting is without
    /// effect.
    fn check_keys(&self) -> Result<(), NeedleError> {
        let keyed = self.needle.contains("{key}");
        for (key, template) in [("question", &self.question), ("answer", &self.answer)] {
            self.ensure(
                keyed || !template.contains("{key}"),
                format!(
                    "{key} = {template:?} has {{key}}, but needle = {:?} has none; add it to needle or \
                     remove it from {key}",
                    self.needle
                ),
            )?;
        }
        self.ensure(
            self.asked == self.needles || keyed && self.question.contains("{key}"),
            format!(
                "needles = {} and asked = {}: needle and question must have {{key}}, which tells the \
                 needles apart",
                self.needles, self.asked
            ),
        )?;
        self.ensure(
            keyed || self.key.is_none(),
            "key has no effect, since needle has no {key}; remove it".to_owned(),
        )?;
        self.ensure(
            self.asked > 1 || self.separator.is_none(),
            "separator has no effect with asked = 1; remove it".to_owned(),
        )
    }

    /// Checks that the sets of keys and values are large enough, without blank or repeated texts.
    fn check_sets(&self) -> Result<(), NeedleError> {
        let keyed = self.needle.contains("{key}");
        let keys = self.needles - self.asked + 1;
        for (key, draw, needed) in [
            ("key", self.keys(), if keyed { keys } else { 0 }),
            ("value", &self.value, self.needles),
        ] {
            if let Draw::List(list) = draw {
                for (i, entry) in list.iter().enumerate() {
                    self.ensure(
                        !entry.trim().is_empty() && !list[..i].contains(entry),
                        format!("{key}: {entry:?} is blank or stands twice in the list"),
                    )?;
                }
            }
            self.ensure(
                draw.variety() >= needed,
                format!(
                    "{key} has {} different ones to draw from, but needles = {} and asked = {} need \
                     {needed}",
                    draw.variety(),
                    self.needles,
                    self.asked
                ),
            )?;
        }
        Ok(())
    }

    /// The set from which keys are drawn.
    fn keys(&self) -> &Draw {
        const WORD: Draw = Draw::Words(1);
        self.key.as_ref().unwrap_or(&WORD)
    }

    /// Fills in the templates. The task must have passed [`NeedleTask::check`].
    pub fn draw(&self, rng: &mut impl Rng) -> Needle {
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
        Needle {
            needles,
            question: self.question.replace("{key}", key(0)),
            keys,
            answer,
            values: asked,
            value_ends,
        }
    }

    /// Hides needles at the beginning of a haystack, as [`haystack::hide`] does, and asks for them.
    ///
    /// # Errors
    /// [`NeedleError::Haystack`]: the texts leave no room for the haystack, or it is too short.
    pub fn hide(
        &self,
        needle: &Needle,
        place: Place,
        haystack: &[u32],
        tokenizer: &Tokenizer,
    ) -> Result<Prompt, NeedleError> {
        let (before, after) = (self.prompt.split_once("{haystack}")).expect("`check` passed");
        let [before, after] =
            [before, after].map(|text| text.replace("{question}", &needle.question));
        let needles = needle.needles.iter().map(String::as_str);
        let texts = PromptTexts {
            before: &before,
            needles: needles.zip(needle.depths(place.depth)).collect(),
            after: &after,
            answer: needle.answer_parts(),
        };
        haystack::hide(&texts, place, haystack, tokenizer).map_err(|reason| NeedleError::Haystack {
            task: self.name.clone(),
            reason,
        })
    }
}
