//! Needles: facts to be hidden in a long text and asked for at its end.
//!
//! A [`NeedleTask`] is a set of templates and what fills them; [`NeedleTask::draw`] fills them. The tasks that
//! people compare are [`NeedleTask::presets`].

use rand::Rng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::draw::Draw;

/// Needles of one prompt; each is compared with all others, and more would hardly fit.
const MOST_NEEDLES: usize = 10_000;

/// A kind of needle: `[[needle.task]]` of a run config.
///
/// `{key}` and `{value}` in the templates are filled by what is drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeedleTask {
    /// Names the task in configs, tables and file names.
    pub name: String,
    /// One needle, with `{value}` and, if there is something to tell needles apart, `{key}`.
    pub needle: String,
    /// The question. A base model answers best when it ends with the beginning of the answer's sentence.
    pub question: String,
    /// The answer, with `{value}`: the one asked for, or all of them with `separator` between.
    pub answer: String,
    /// What stands between the values of an answer with several; default `", "`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub separator: Option<String>,
    /// What keys are drawn from; default `words`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Draw>,
    /// What values are drawn from; default `digits:5`.
    #[serde(default = "five_digits")]
    pub value: Draw,
    /// Needles in the haystack.
    #[serde(default = "one")]
    pub needles: usize,
    /// How many of them are asked for. These have one key, the others a key each.
    #[serde(default = "one")]
    pub asked: usize,
    /// The whole prompt, with `{haystack}` and `{question}`; names of special tokens stand for these tokens.
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
    /// Texts to hide. The first [`Needle::values`]`.len()` are asked for and stand in the haystack in
    /// this order; the rest may stand anywhere. [`Needle::depths`] places all.
    pub needles: Vec<String>,
    /// What the needles are about: the key of those asked for, then one for each of the rest. Empty if
    /// needles have none.
    pub keys: Vec<String>,
    /// The question.
    pub question: String,
    /// The answer.
    pub answer: String,
    /// The values asked for, in the order of the answer.
    pub values: Vec<String>,
    /// Where each value ends in the answer, bytes.
    value_ends: Vec<usize>,
}

impl Needle {
    /// The answer cut after each value but the last: as many parts as values.
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

    /// The depth of each needle, 0 to 1, when one that is asked for stands at `depth`: all of them lie
    /// evenly apart, wrapping around at the end.
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
        // The order of the asked ones is the order of the answer.
        depths[..asked].sort_by(f64::total_cmp);
        depths
    }
}

/// Why a needle cannot be drawn or hidden.
#[derive(Debug, Error)]
pub enum NeedleError {
    /// A task contradicts itself.
    #[error("task {task:?}: {problem}")]
    Task {
        /// Name of the task.
        task: String,
        /// What is wrong and what to do.
        problem: String,
    },

    /// A length that needle, question and answer fill on their own.
    #[error(
        "task {task:?}: needles, question and answer take {taken} of {fed} tokens and leave none for the \
         haystack; raise the length or shorten the texts"
    )]
    NoRoom {
        /// Name of the task.
        task: String,
        /// Tokens of all but the haystack.
        taken: usize,
        /// Tokens to be fed.
        fed: usize,
    },

    /// Too little text.
    #[error(
        "task {task:?}: the haystack has {found} tokens, {fed} fed tokens need {needed} of it; give more \
         text or lower the length"
    )]
    HaystackTooShort {
        /// Name of the task.
        task: String,
        /// Tokens of the haystack.
        found: usize,
        /// Tokens of it that are needed.
        needed: usize,
        /// Tokens to be fed.
        fed: usize,
    },
}

impl NeedleTask {
    /// The tasks that people compare, by name:
    ///
    /// - `pass-key`: one number, said twice (after Landmark Attention, arXiv 2305.16300).
    /// - `fact`: the number of a named thing (RULER's single needle, arXiv 2404.06654).
    /// - `multi-key`: four such facts, one of them asked for (RULER's multi-key).
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

    /// Checks that the templates fit together and that there is enough to draw from.
    ///
    /// # Errors
    /// [`NeedleError::Task`] says which key is wrong.
    pub fn check(&self) -> Result<(), NeedleError> {
        let ensure = |good: bool, problem: String| match good {
            true => Ok(()),
            false => Err(NeedleError::Task {
                task: self.name.clone(),
                problem,
            }),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        ensure(
            !self.name.is_empty() && self.name.chars().all(plain),
            "the name becomes part of file names; give it letters, digits, - and _".to_owned(),
        )?;
        for (key, template) in [("needle", &self.needle), ("answer", &self.answer)] {
            ensure(
                template.contains("{value}"),
                format!("{key} = {template:?} lacks {{value}}; say where the value stands in it"),
            )?;
        }
        ensure(
            self.answer.matches("{value}").count() == 1,
            format!(
                "answer = {:?} has {{value}} more than once; give it once, several values are joined by \
                 separator",
                self.answer
            ),
        )?;
        for part in ["{haystack}", "{question}"] {
            ensure(
                self.prompt.matches(part).count() == 1,
                format!("prompt = {:?} must have {part} exactly once", self.prompt),
            )?;
        }
        ensure(
            self.needles <= MOST_NEEDLES,
            format!("needles = {}; give {MOST_NEEDLES} at most", self.needles),
        )?;
        ensure(
            (1..=self.needles).contains(&self.asked),
            format!(
                "asked = {} of needles = {}; ask for at least one, and for no more than there are",
                self.asked, self.needles
            ),
        )?;
        let keyed = self.needle.contains("{key}");
        for (key, template) in [("question", &self.question), ("answer", &self.answer)] {
            ensure(
                keyed || !template.contains("{key}"),
                format!(
                    "{key} = {template:?} has {{key}}, needle = {:?} has none",
                    self.needle
                ),
            )?;
        }
        ensure(
            self.asked == self.needles || keyed && self.question.contains("{key}"),
            format!(
                "needles = {} and asked = {}: needle and question must have {{key}}, which tells the needles \
                 apart",
                self.needles, self.asked
            ),
        )?;
        ensure(
            keyed || self.key.is_none(),
            "key has no effect, since needle has no {key}; remove it".to_owned(),
        )?;
        ensure(
            self.asked > 1 || self.separator.is_none(),
            "separator has no effect with asked = 1; remove it".to_owned(),
        )?;
        let keys = self.needles - self.asked + 1;
        for (key, draw, needed) in [
            ("key", self.keys(), if keyed { keys } else { 0 }),
            ("value", &self.value, self.needles),
        ] {
            if let Draw::List(list) = draw {
                for (i, entry) in list.iter().enumerate() {
                    ensure(
                        !entry.trim().is_empty() && !list[..i].contains(entry),
                        format!("{key}: {entry:?} is blank or stands twice in the list"),
                    )?;
                }
            }
            ensure(
                draw.variety() >= needed,
                format!(
                    "{key} has {} different ones to draw from, needles = {} and asked = {} need {needed}",
                    draw.variety(),
                    self.needles,
                    self.asked
                ),
            )?;
        }
        Ok(())
    }

    fn keys(&self) -> &Draw {
        const WORD: Draw = Draw::Words(1);
        self.key.as_ref().unwrap_or(&WORD)
    }

    /// Fills the templates; the task must have passed [`NeedleTask::check`].
    pub fn draw(&self, rng: &mut impl Rng) -> Needle {
        // One key for all that are asked for, one for each of the others.
        let keys = match self.needle.contains("{key}") {
            true => (self.keys()).draw_different(self.needles - self.asked + 1, rng),
            false => Vec::new(),
        };
        let values = self.value.draw_different(self.needles, rng);
        let key = |i: usize| keys.get(i).map_or("", String::as_str);
        let key_of = |i: usize| key((i + 1).saturating_sub(self.asked));
        let needles = values.iter().enumerate().map(|(i, value)| {
            let text = self.needle.replace("{key}", key_of(i));
            text.replace("{value}", value)
        });
        let needles = needles.collect();
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
}
