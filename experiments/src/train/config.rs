//! The training config: TOML file, then `--set`, then checks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use longspan_attention::Method;
use longspan_model::{Initial, Optimizer};
use serde::{Deserialize, Serialize};

use crate::config;

/// A whole training. Paths are relative to the working directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Seed of the parameters and of every batch.
    #[serde(default)]
    pub seed: u64,
    /// Vocabulary file.
    pub tokenizer: PathBuf,
    /// Sizes.
    pub model: ModelConfig,
    /// Parameters before the first step.
    #[serde(default)]
    pub initial: Initial,
    /// AdamW and clipping.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// How long, how fast, how often.
    pub schedule: Schedule,
    /// What sequences are made of.
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
    /// The mixture of sources over time.
    #[serde(rename = "phase")]
    pub phases: Vec<Phase>,
    /// What is measured on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
}

/// `[model]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Number of layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Size of a head.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Trained length in tokens: the longest sequence of a phase.
    pub trained: usize,
    /// Base of the rotary frequencies.
    #[serde(default = "rope_base")]
    pub rope_base: f64,
}

fn rope_base() -> f64 {
    1e4
}

/// `[schedule]`. The learning rate rises linearly over `warmup` steps and falls along half a cosine to its
/// final value (arXiv 1608.03983).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Steps in all; or give `minutes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Minutes in all: the number of steps follows from a measurement at the start, and is written to
    /// the run's config, which gives the same training again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minutes: Option<f64>,
    /// Tokens of a batch; a step takes `accumulate` batches.
    pub batch_tokens: usize,
    /// Batches whose gradients are added up in a step.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Learning rate that the last steps come to; 0 is allowed.
    pub final_learning_rate: f64,
    /// Steps to the highest learning rate.
    pub warmup: u64,
    /// Steps between lines of train.jsonl.
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
    /// That warming up leaves steps to train in.
    ///
    /// # Errors
    /// When it does not.
    pub fn check_warmup(&self, steps: u64) -> Result<()> {
        ensure!(
            self.warmup < steps,
            "schedule.warmup = {} of steps = {steps}; warm up in fewer steps",
            self.warmup
        );
        Ok(())
    }

    /// The learning rate of a step, the first being 0, out of `steps`.
    pub fn learning_rate(&self, step: u64, steps: u64) -> f64 {
        let (high, low) = (self.learning_rate, self.final_learning_rate);
        if step < self.warmup {
            return high * (step + 1) as f64 / self.warmup as f64;
        }
        let share = (step - self.warmup) as f64 / (steps - self.warmup).max(1) as f64;
        low + (high - low) * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
    }
}

/// `[[source]]`: what a sequence can be made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Name in mixtures and in the log.
    pub name: String,
    /// Kind.
    #[serde(flatten)]
    pub kind: SourceKind,
}

/// Kinds of sources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SourceKind {
    /// Stretches of documents.
    Text {
        /// File, folder, glob or `builtin:articles` (those for training, never the held-out ones).
        path: String,
        /// JSON field or Parquet column that holds the text.
        #[serde(default = "text_field")]
        text_field: String,
        /// Documents to read, at most; default: all, and `builtin:articles` has no end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        documents: Option<usize>,
    },
    /// Needles of the built-in tasks, several in a haystack, each asked for later.
    Recall {
        /// Names of the tasks.
        tasks: Vec<String>,
        /// Text sources that the haystack is taken from.
        haystack: Vec<String>,
        /// Weight of the loss of answers; that of the haystack is 1, of needles and questions 0.3.
        #[serde(default = "answer_weight")]
        answer_weight: f64,
    },
    /// Random keys with values of digits, in a new order again and again: what is needed to recall and
    /// nothing else. Only what can be known counts. (Braces, since serde lets a bare variant have any key.)
    Pairs {},
    /// A stretch of text, some other text, and parts of the first stretch again.
    Echo {
        /// Text sources.
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
    /// Where it ends, as a share of all steps; the last one ends at 1.
    pub until: f64,
    /// Lengths of sequences in tokens; each step draws one.
    pub lengths: Vec<usize>,
    /// Weight of each source.
    pub mixture: BTreeMap<String, f64>,
    /// The attention of the batches; default: plain.
    #[serde(default = "plain")]
    pub attention: Vec<Attention>,
}

fn plain() -> Vec<Attention> {
    vec![Attention {
        share: 1.0,
        method: Method::named("plain"),
    }]
}

/// A method under which a share of a phase's steps is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// Weight among the phase's.
    pub share: f64,
    /// The method.
    #[serde(flatten)]
    pub method: Method,
}

/// `[probe]`: needles at the trained length under plain RoPE, and held-out perplexity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Steps between probes; a multiple of `log_every`.
    pub every: u64,
    /// Needle tasks.
    pub tasks: Vec<String>,
    /// Trials of each.
    #[serde(default = "trials")]
    pub trials: usize,
    /// Held-out texts, by name: file, folder, glob or `builtin:articles`.
    #[serde(default)]
    pub text: BTreeMap<String, String>,
}

fn trials() -> usize {
    20
}

impl TrainConfig {
    /// Reads a config and applies `--set KEY=VALUE` overrides.
    ///
    /// # Errors
    /// Anything that is unknown, missing, or contradicts something else in the config.
    pub fn load(path: &Path, set: &[String]) -> Result<Self> {
        let mut config: TrainConfig = config::read(path, set)?;
        config.check().with_context(|| path.display().to_string())?;
        Ok(config)
    }

    /// The phase of a step.
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
