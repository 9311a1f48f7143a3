//! Records: the result of a cell, as one JSON object a line.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::protocols::{Average, ProtocolName, SeOver};
use crate::tasks::Scorer;

/// A line of a file of records.
pub trait Record: Serialize + serde::de::DeserializeOwned {
    /// Key, origin and cost of the result.
    fn provenance(&self) -> &Provenance;

    /// The finished cell in one line, for a terminal.
    fn one_line(&self) -> String;
}

/// The fields that all kinds of records have: what determines the number, and what it cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Digest of all that determines the number.
    pub key: String,
    /// Name of the method.
    pub method: String,
    /// Context length, tokens.
    pub length: usize,
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
    /// Digest of the tokens fed and scored, or of all prompts and answers.
    pub data_digest: String,
    /// Types in which weights and activations are held.
    pub dtype: String,
    /// Kind of device.
    pub device: String,
    /// Trained length of the model, tokens.
    pub trained_length: usize,
    /// Version of the program.
    pub version: String,
    /// Seconds of the passes.
    pub seconds: f64,
    /// Tokens fed per second.
    pub tokens_per_second: f64,
    /// Peak memory during the passes, weights included, bytes: of the heap, or of a GPU.
    pub peak_bytes: usize,
}

/// One line of `records.jsonl`: the perplexity of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PerplexityRecord {
    /// Key, origin and cost. `length` is the number of tokens of a window.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// Protocol.
    pub protocol: ProtocolName,
    /// The protocol with its settings, as text.
    pub protocol_detail: String,
    /// How losses were averaged.
    pub average: Average,
    /// Tokens of the first forward call, if it was not the whole window.
    pub prefill: Option<usize>,
    /// Length of the pass that the losses come from: longer than `length` when one pass served
    /// several lengths.
    pub pass_length: usize,
    /// Losses of the pass, relative to the run folder.
    pub nll_file: String,
    /// `exp(nll)`; null when it is not finite.
    pub perplexity: Option<f64>,
    /// Mean negative log likelihood, nats per token; null when it is not finite.
    pub nll: Option<f64>,
    /// Standard error of `nll`.
    pub nll_se: Option<f64>,
    /// The unit that the standard error takes as independent.
    pub se_over: SeOver,
    /// Windows fed.
    pub windows: usize,
    /// Tokens fed.
    pub fed: usize,
    /// Tokens scored.
    pub scored: usize,
}

impl PerplexityRecord {
    /// The perplexity with its standard error; a star marks an error over tokens, which is too
    /// small.
    pub fn number(&self) -> String {
        let Some(perplexity) = self.perplexity else {
            return "not finite".to_owned();
        };
        let Some(se) = self.nll_se else {
            return format!("{perplexity:.3}");
        };
        let error = perplexity * se;
        let star = match self.se_over {
            SeOver::Groups => "",
            SeOver::Tokens => "*",
        };
        match perplexity {
            p if p >= 1e6 => format!("{p:.2e} ±{error:.0e}{star}"),
            p if p >= 100.0 => format!("{p:.1} ±{error:.1}{star}"),
            p => format!("{p:.3} ±{error:.3}{star}"),
        }
    }
}

impl Record for PerplexityRecord {
    fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    fn one_line(&self) -> String {
        let Provenance {
            method,
            length,
            seconds,
            tokens_per_second,
            ..
        } = &self.provenance;
        format!(
            "{method}, {length} tokens, {}: perplexity {} ({seconds:.1} s, {tokens_per_second:.0} tokens/s)",
            self.protocol.name(),
            self.number()
        )
    }
}

/// One line of `needle.jsonl`: the trials of a cell of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Key, origin and cost. `length` is the number of tokens fed when the last answer token
    /// is scored.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// Name of the task.
    pub task: String,
    /// How answers were judged.
    pub scorer: Scorer,
    /// Fraction of the haystack before the needle, as asked.
    pub depth: f64,
    /// The depth achieved, mean over the trials.
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
}

/// One question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The right answer.
    pub expected: String,
    /// The model's answer: the most likely tokens in place of the right ones (`teacher-forced`), or
    /// what it wrote.
    pub given: String,
    /// Fraction of the values that were right.
    pub score: f64,
    /// Fraction of the haystack before the needle.
    pub depth: f64,
}

/// A fraction in percent, with a decimal where it has one.
pub fn percent(fraction: f64) -> String {
    format!("{} %", (fraction * 1000.0).round() / 10.0)
}

/// A score in percent with its interval.
pub fn score_text(score: f64, (low, high): (f64, f64)) -> String {
    let percent = |fraction: f64| format!("{:.0}", fraction * 100.0);
    format!("{} ({}–{})", percent(score), percent(low), percent(high))
}

impl Record for TaskRecord {
    fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    fn one_line(&self) -> String {
        let Provenance {
            method,
            length,
            seconds,
            ..
        } = &self.provenance;
        format!(
            "{method}, {length} tokens, {} at depth {}, {}: {} ({seconds:.1} s)",
            self.task,
            percent(self.depth),
            self.scorer.name(),
            score_text(self.score, self.interval),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_percent() {
        assert_eq!(score_text(0.84, (0.653, 0.936)), "84 (65–94)");
        assert_eq!([0.5, 1.0 / 3.0].map(percent), ["50 %", "33.3 %"]);
    }
}
