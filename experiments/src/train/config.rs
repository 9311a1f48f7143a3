//! The training config, key by key.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use longspan_attention::Method;
use longspan_model::{Initial, Optimizer};
use serde::{Deserialize, Serialize};

/// A training config. Paths are relative to the working directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Seed of the parameters, the batches and the built-in articles.
    #[serde(default)]
    pub seed: u64,
    /// Vocabulary file.
    pub tokenizer: PathBuf,
    /// Sizes of the model.
    pub model: Sizes,
    /// Initialization of the parameters.
    #[serde(default)]
    pub initial: Initial,
    /// AdamW and gradient clipping.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// Steps, batch size, learning rate, and intervals of logging and saving.
    pub schedule: Schedule,
    /// Sources of training sequences.
    #[serde(rename = "source")]
    pub sources: Vec<SourceConfig>,
    /// Stretches of the training, in order.
    #[serde(rename = "phase")]
    pub phases: Vec<Phase>,
    /// Periodic evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeConfig>,
}

/// `[model]`: the sizes of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// Layers.
    pub layers: usize,
    /// Attention heads of a layer.
    pub heads: usize,
    /// Size of a head.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Trained length in tokens: the longest sequence of any phase.
    pub trained: usize,
    /// Base of the rotary frequencies.
    #[serde(default = "rope_base")]
    pub rope_base: f64,
}

fn rope_base() -> f64 {
    1e4
}

/// `[schedule]`. The learning rate rises linearly over `warmup` steps, then falls along half a
/// cosine to its final value (arXiv 1608.03983).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Steps of the training. Exactly one of `steps` and `minutes` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Minutes of the training. The number of steps is measured at the start and replaces `minutes`
    /// in the stored config, which reproduces the training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minutes: Option<f64>,
    /// Tokens of a batch: `batch_tokens / length` sequences, rounded down.
    pub batch_tokens: usize,
    /// Batches of a step, whose gradients are summed.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Learning rate at the end; may be 0.
    pub final_learning_rate: f64,
    /// Steps until the highest learning rate.
    pub warmup: u64,
    /// Steps between lines of `train.jsonl`.
    #[serde(default = "log_every")]
    pub log_every: u64,
    /// Steps between saved states; a multiple of `log_every`.
    #[serde(default = "save_every")]
    pub save_every: u64,
}

fn one() -> usize {
    1
}

fn log_every() -> u64 {
    10
}

fn save_every() -> u64 {
    500
}

impl Schedule {
    /// Checks that the warmup ends before the training does.
    ///
    /// # Errors
    /// `warmup` is `steps` or more.
    pub fn check_warmup(&self, steps: u64) -> Result<()> {
        ensure!(
            self.warmup < steps,
            "schedule.warmup = {} of steps = {steps}; warm up in fewer steps",
            self.warmup
        );
        Ok(())
    }

    /// Learning rate of a step, counted from 0, of a training of `steps`.
    pub fn learning_rate(&self, step: u64, steps: u64) -> f64 {
        let (high, low) = (self.learning_rate, self.final_learning_rate);
        if step < self.warmup {
            return high * (step + 1) as f64 / self.warmup as f64;
        }
        let share = (step - self.warmup) as f64 / (steps - self.warmup).max(1) as f64;
        low + (high - low) * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
    }
}

/// `[[source]]`: a source of training sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceConfig {
    /// Name in `mixture` and in `train.jsonl`.
    pub name: String,
    /// Kind, with its options.
    #[serde(flatten)]
    pub kind: SourceKind,
}

/// Kinds of sources, with their options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SourceKind {
    /// Stretches of documents of more than `model.trained` tokens.
    Text {
        /// File, folder, glob or `builtin:articles` (training articles, never the held-out ones).
        path: String,
        /// JSON field or Parquet column of the text.
        #[serde(default = "text_field")]
        text_field: String,
        /// Most documents to read; default: all. Required for `builtin:articles`, which is endless.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        documents: Option<usize>,
    },
    /// Needles of built-in tasks, several in a haystack, each with its question later on.
    Recall {
        /// Names of the tasks.
        tasks: Vec<String>,
        /// Names of the text sources of the haystack.
        haystack: Vec<String>,
        /// Loss weight of answers; haystack has 1, needles and questions 0.3.
        #[serde(default = "answer_weight")]
        answer_weight: f64,
    },
    /// Random keys with values of digits, repeated in a new order each round: pure recall. Only
    /// values after the first round carry loss.
    // Braces: serde accepts unknown keys in a unit variant.
    Pairs {},
    /// A stretch of text, then other text and parts of that stretch in turn.
    Echo {
        /// Names of the text sources.
        from: Vec<String>,
    },
}

fn text_field() -> String {
    "text".to_owned()
}

fn answer_weight() -> f64 {
    5.0
}

/// `[[phase]]`: a stretch of the training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// End of the phase as a share of all steps; the last phase ends at 1.
    pub until: f64,
    /// Sequence lengths in tokens; each step draws one.
    pub lengths: Vec<usize>,
    /// Weight of each source, by name; each sequence draws one.
    pub mixture: BTreeMap<String, f64>,
    /// Methods, of which each step draws one; default: plain.
    #[serde(default = "plain")]
    pub attention: Vec<AttentionShare>,
}

fn plain() -> Vec<AttentionShare> {
    vec![AttentionShare {
        share: 1.0,
        method: Method::named("plain"),
    }]
}

/// A method, and the share of a phase's steps that train under it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionShare {
    /// Weight among the methods of the phase.
    pub share: f64,
    /// The method.
    #[serde(flatten)]
    pub method: Method,
}

/// `[probe]`: needles and held-out perplexity, at the trained length under plain RoPE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeConfig {
    /// Steps between probes; a multiple of `log_every`.
    pub every: u64,
    /// Names of needle tasks.
    pub tasks: Vec<String>,
    /// Prompts per task.
    #[serde(default = "trials")]
    pub trials: usize,
    /// Held-out texts by name: file, folder, glob or `builtin:articles`.
    #[serde(default)]
    pub text: BTreeMap<String, String>,
}

fn trials() -> usize {
    20
}

impl TrainConfig {
    /// Phase of a step, counted from 0, of a training of `steps`.
    pub fn phase(&self, step: u64, steps: u64) -> &Phase {
        let share = (step as f64 + 0.5) / steps as f64;
        let mut phases = self.phases.iter();
        phases
            .find(|phase| share < phase.until)
            .unwrap_or_else(|| self.phases.last().expect("checked"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_in_a_line_and_falls_in_half_a_cosine() {
        let schedule = Schedule {
            steps: Some(110),
            minutes: None,
            batch_tokens: 8,
            accumulate: 1,
            learning_rate: 2e-3,
            final_learning_rate: 4e-4,
            warmup: 10,
            log_every: 10,
            save_every: 10,
        };
        for (step, rate) in [
            (0, 2e-4),
            (4, 1e-3),
            (9, 2e-3),
            (10, 2e-3),
            (35, 1.765685424949238e-3), // a quarter: 4e-4 + 8e-4 (1 + cos 45°)
            (60, 1.2e-3),
            (
                109,
                4e-4 + 8e-4 * (1.0 - (std::f64::consts::PI / 100.0).cos()),
            ),
        ] {
            let found = schedule.learning_rate(step, 110);
            assert!(
                (found - rate).abs() < 1e-12,
                "step {step}: {found}, not {rate}"
            );
        }
        let cold = Schedule {
            warmup: 0,
            ..schedule
        };
        assert_eq!(cold.learning_rate(0, 110), 2e-3);
    }
}
