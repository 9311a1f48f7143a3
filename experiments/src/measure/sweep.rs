//! A run: a config with its files opened and checked, and its measurements.

use std::rc::Rc;

use anyhow::Result;
use burn::tensor::Device;
use bytesize::ByteSize;
use indicatif::ProgressBar;
use longspan_data::Tokenizer;
use longspan_model::{Checkpoint, PassCost};

use super::perplexity::Perplexity;
use super::tasks::Tasks;
use super::{Measure, Pass};
use crate::config::RunConfig;
use crate::folder::{PerplexityRecord, RunFolder, TaskRecord};
use crate::measure::perplexity::floor;
use crate::memory::{self, Memory, Refused};
use crate::open;
use crate::session::LanguageModel;

/// How many more rows published models have than their vocabulary has tokens: at most 213.
const VOCABULARY_SLACK: usize = 512;

/// A config with everything opened and checked but the model's weights.
pub struct Sweep {
    config: Rc<RunConfig>,
    checkpoint: Checkpoint,
    perplexity: Option<Perplexity>,
    tasks: Option<Tasks>,
}

/// Options of a run.
pub struct RunOptions {
    /// The device that computes.
    pub device: Device,
    /// Passes that need more are refused; default: the memory that is free, on a GPU none.
    pub memory_limit: Option<ByteSize>,
    /// Progress bar; if it is hidden, each finished cell is logged.
    pub progress: ProgressBar,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions {
            device: Device::flex(),
            memory_limit: None,
            progress: ProgressBar::hidden(),
        }
    }
}

/// The records of a sweep's cells.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// Records of `[perplexity]`.
    pub perplexity: Vec<PerplexityRecord>,
    /// Records of `[needle]`.
    pub tasks: Vec<TaskRecord>,
    /// Passes that were refused.
    pub refused: Vec<Refused>,
}

/// No cell of a run fits in memory.
#[derive(Debug, thiserror::Error)]
#[error("every cell was refused: none fits in the memory limit of {limit}")]
pub struct AllRefused {
    limit: ByteSize,
}

/// Passes of one method at one length, before they run.
pub struct Planned {
    /// The measurement: "perplexity" or "needle".
    pub what: &'static str,
    /// Name of the method.
    pub method: String,
    /// Tokens of a sequence.
    pub length: usize,
    /// Most sequences that they feed.
    pub sequences: usize,
    /// Lengths of the cells that they fill.
    pub serves: Vec<usize>,
    /// Cost of one sequence.
    pub cost: PassCost,
}

impl Sweep {
    /// Checks a config and opens the files that it names.
    ///
    /// # Errors
    /// [`RunConfig::check`] fails; the model's folder, the vocabulary or the text is unusable; a
    /// method does not fit the model.
    pub fn open(mut config: RunConfig) -> Result<Self> {
        config.check()?;
        let mut checkpoint = open::checkpoint(&config.model.path)?;
        if let Some(trained) = config.model.trained {
            checkpoint.set_trained(trained);
        }
        let tokenizer = open::tokenizer(&config.model.path, config.model.tokenizer.as_deref())?;
        let tokenizer: Rc<Tokenizer> = Rc::new(tokenizer);
        let config = Rc::new(config);
        let model = &checkpoint.config;
        if tokenizer.vocab_size() + VOCABULARY_SLACK < model.vocab_size {
            log::warn!(
                "the vocabulary has {} tokens, the model {}; is it this model's and whole?",
                tokenizer.vocab_size(),
                model.vocab_size
            );
        }
        let perplexity = config.perplexity.clone();
        let perplexity = perplexity
            .map(|table| Perplexity::new(config.clone(), table, tokenizer.clone(), model))
            .transpose()?;
        let needle = config.needle.clone();
        let tasks = needle
            .map(|table| Tasks::new(config.clone(), table, tokenizer.clone(), model))
            .transpose()?;
        Ok(Sweep {
            config,
            checkpoint,
            perplexity,
            tasks,
        })
    }

    /// The config.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// Bytes of the weights as the run holds them.
    ///
    /// # Errors
    /// The type of the weights cannot be told, or is not possible.
    pub fn weight_bytes(&self) -> Result<u64> {
        let dtype = self.checkpoint.matrix_type(self.config.model.dtype)?;
        Ok(self.checkpoint.config.weight_bytes(dtype))
    }

    /// All passes, in the order in which they run.
    pub fn planned(&self) -> Vec<Planned> {
        fn of<T: Measure>(measure: &T) -> impl Iterator<Item = Planned> {
            let planned = |pass: &Pass| Planned {
                what: T::NAME,
                method: measure.methods()[pass.method].name.clone(),
                length: pass.length,
                sequences: pass.sequences,
                serves: pass.serves.clone(),
                cost: pass.cost,
            };
            measure.passes().iter().map(planned)
        }
        let perplexity = self.perplexity.iter().flat_map(of);
        perplexity.chain(self.tasks.iter().flat_map(of)).collect()
    }

    /// Runs everything on the CPU and keeps the records in memory.
    ///
    /// # Errors
    /// As [`run`](Sweep::run).
    pub fn measure(self) -> Result<Results> {
        self.run(&mut RunFolder::in_memory(), &RunOptions::default())
    }

    /// Fills the cells that a folder has no record of.
    ///
    /// # Errors
    /// A model that cannot be read; a pass that fails; a record that cannot be written; a memory
    /// limit under which every cell is refused.
    pub fn run(self, folder: &mut RunFolder, options: &RunOptions) -> Result<Results> {
        let (device, progress) = (&options.device, &options.progress);
        let limit = memory::limit(options.memory_limit, device);
        let mut memory = Memory::new(limit, self.weight_bytes()?);
        let types = (self.config.model.dtype, self.config.model.activations);
        let model = open::model(self.checkpoint, types, device)?;
        let identity = model.identity();

        // The folder may hold records of a checkpoint or a text that stood at the same path before.
        let mut keys = Vec::new();
        keys.extend(self.perplexity.iter().flat_map(|p| p.keys(&identity)));
        keys.extend(self.tasks.iter().flat_map(|t| t.keys(&identity)));
        folder.write_cells(&keys)?;
        if let Some(perplexity) = &self.perplexity {
            let output = (&mut folder.perplexity, &folder.nll);
            super::run(perplexity, &model, output, &mut memory, progress)?;
            if let Some(dir) = folder.dir() {
                floor::write(dir, &perplexity.floors)?;
            }
        }
        if let Some(tasks) = &self.tasks {
            let output = (&mut folder.tasks, &folder.nll);
            super::run(tasks, &model, output, &mut memory, progress)?;
        }
        if let Some(dir) = folder.dir() {
            memory::write(dir, &memory.refused)?;
        }
        let ours = |key: &String| keys.contains(key);
        let perplexity = folder.perplexity.records.iter();
        let tasks = folder.tasks.records.iter();
        let results = Results {
            perplexity: perplexity
                .filter(|record| ours(&record.provenance.key))
                .cloned()
                .collect(),
            tasks: tasks
                .filter(|record| ours(&record.provenance.key))
                .cloned()
                .collect(),
            refused: memory.refused,
        };
        if results.perplexity.is_empty() && results.tasks.is_empty() {
            return Err(AllRefused { limit }.into());
        }
        Ok(results)
    }
}
