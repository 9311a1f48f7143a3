//! What a needle cell leaves behind.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::Scorer;
use crate::log::Keyed;

/// One line of `needle.jsonl`: a cell's trials and all that identifies them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeedleRecord {
    /// Digest of all that determines the trials.
    pub key: String,
    /// Name of the method.
    pub method: String,
    /// Name of the task.
    pub task: String,
    /// How answers were judged.
    pub scorer: Scorer,
    /// Tokens fed when the last answer token is scored.
    pub length: usize,
    /// Fraction of the haystack before the needle, as asked.
    pub depth: f64,
    /// The same as achieved, the mean over the trials.
    pub achieved_depth: f64,
    /// Mean over the trials of the fraction of values that were right.
    pub score: f64,
    /// Wilson's 95 % interval of `score`.
    pub interval: (f64, f64),
    /// Values that were right.
    pub correct: usize,
    /// Values asked for.
    pub asked: usize,
    /// Each trial.
    pub trials: Vec<Trial>,
    /// The method's settings.
    pub settings: Value,
    /// `model.path` of the config.
    pub model: String,
    /// Digest of configuration and weights.
    pub checkpoint: String,
    /// Digest of the vocabulary.
    pub tokenizer: String,
    /// `data.path` of the config.
    pub data: String,
    /// Digest of all prompts and answers.
    pub data_digest: String,
    /// Type in which weights were held.
    pub dtype: String,
    /// Kind of device.
    pub device: String,
    /// Trained length of the model, tokens.
    pub trained_length: usize,
    /// Version of the program.
    pub version: String,
    /// Seconds of the cell's passes.
    pub seconds: f64,
    /// Tokens fed by them per second.
    pub tokens_per_second: f64,
    /// Most memory in use during them, weights included, bytes: of the heap, or of a GPU.
    pub peak_bytes: usize,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The right answer.
    pub expected: String,
    /// What the model gave: the most likely tokens in place of the answer's (`teacher-forced`), or what it wrote.
    pub given: String,
    /// Fraction of the values that were right.
    pub score: f64,
    /// Fraction of the haystack before the needle.
    pub depth: f64,
}

impl Keyed for NeedleRecord {
    fn key(&self) -> (&str, &str) {
        (&self.key, &self.method)
    }
}
