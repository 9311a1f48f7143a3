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
    /// Last learning rate.
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
        /// Documents to read, at most.
        #[serde(default = "documents")]
        documents: usize,
    },
    /// Needles of the built-in tasks, several in a haystack, each asked for later.
    Recall {
        /// Names of the tasks.
        tasks: Vec<String>,
        /// Text sources that the haystack is taken from.
        haystack: Vec<String>,
        /// Weight of the loss of answers; that of the haystack is 1, of needles and questions 0.3.
        #[serde(default = "answer_weight")]
        answer_weight: f32,
    },
    /// Random keys with values of digits, in a new order again and again: what is needed to recall and
    /// nothing else. Only what can be known counts.
    Pairs,
    /// A stretch of text, some other text, and parts of the first stretch again.
    Echo {
        /// Text sources.
        from: Vec<String>,
    },
}

fn text_field() -> String {
    "text".to_owned()
}

fn documents() -> usize {
    usize::MAX
}

fn answer_weight() -> f32 {
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
        let config: TrainConfig = config::read(path, set)?;
        config.check().with_context(|| path.display().to_string())?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let Schedule {
            steps,
            minutes,
            batch_tokens,
            log_every,
            save_every,
            ..
        } = self.schedule;
        ensure!(
            steps.is_some() != minutes.is_some(),
            "schedule: give either steps or minutes"
        );
        ensure!(steps != Some(0), "schedule.steps = 0; give 1 or more");
        ensure!(
            minutes.is_none_or(|minutes| minutes > 0.0),
            "schedule.minutes = {}; give more than 0",
            minutes.unwrap_or(0.0)
        );
        ensure!(
            self.schedule.accumulate > 0,
            "schedule.accumulate = 0; give 1 or more"
        );
        for (key, rate) in [
            ("learning_rate", self.schedule.learning_rate),
            ("final_learning_rate", self.schedule.final_learning_rate),
        ] {
            ensure!(
                rate.is_finite() && rate > 0.0,
                "schedule.{key} = {rate}; give a number above 0"
            );
        }
        if let Some(steps) = steps {
            ensure!(
                self.schedule.warmup < steps,
                "schedule.warmup = {} of steps = {steps}; warm up in fewer steps",
                self.schedule.warmup
            );
        }
        ensure!(
            log_every > 0 && save_every > 0 && save_every.is_multiple_of(log_every),
            "schedule.save_every = {save_every} must be a multiple of log_every = {log_every}"
        );
        if let Some(probe) = &self.probe {
            ensure!(
                probe.every > 0 && probe.every.is_multiple_of(log_every),
                "probe.every = {} must be a multiple of schedule.log_every = {log_every}",
                probe.every
            );
        }
        for (i, source) in self.sources.iter().enumerate() {
            ensure!(
                self.sources[..i]
                    .iter()
                    .all(|other| other.name != source.name),
                "two sources are named {:?}; make them differ",
                source.name
            );
        }
        ensure!(
            !self.phases.is_empty(),
            "no [[phase]]; add one with until = 1.0"
        );
        let mut start = 0.0;
        for (i, phase) in self.phases.iter().enumerate() {
            let last = i + 1 == self.phases.len();
            ensure!(
                phase.until > start && phase.until <= 1.0 && (!last || phase.until == 1.0),
                "phase {i}: until = {} follows {start}; the ends must rise, the last one to 1",
                phase.until
            );
            start = phase.until;
            ensure!(!phase.lengths.is_empty(), "phase {i}: lengths is empty");
            for &length in &phase.lengths {
                ensure!(
                    (8..=self.model.trained).contains(&length),
                    "phase {i}: length {length}; give 8 to model.trained = {}",
                    self.model.trained
                );
                ensure!(
                    length <= batch_tokens,
                    "phase {i}: length {length} is more than schedule.batch_tokens = {batch_tokens}"
                );
            }
            ensure!(
                phase.mixture.values().sum::<f64>() > 0.0
                    && phase.mixture.values().all(|&weight| weight >= 0.0),
                "phase {i}: mixture needs weights of 0 or more, not all 0"
            );
            ensure!(
                phase.attention.iter().map(|a| a.share).sum::<f64>() > 0.0
                    && phase.attention.iter().all(|a| a.share >= 0.0),
                "phase {i}: attention needs shares of 0 or more, not all 0"
            );
            for name in phase.mixture.keys() {
                ensure!(
                    self.sources.iter().any(|source| source.name == *name),
                    "phase {i}: mixture names {name:?}, and no [[source]] has that name"
                );
            }
        }
        ensure!(
            self.phases
                .iter()
                .any(|phase| phase.lengths.contains(&self.model.trained)),
            "no phase has the length model.trained = {}; a model is trained at the longest length it sees",
            self.model.trained
        );
        Ok(())
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
