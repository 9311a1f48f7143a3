//! Tables of a run: rows of methods, columns of lengths, as Markdown and CSV.

#[cfg(test)]
pub(crate) mod example;
mod markdown;
pub mod perplexity;
pub mod tasks;

use anyhow::Result;

use crate::config::RunConfig;
use crate::folder::{PerplexityRecord, TaskRecord};
use crate::measure::perplexity::floor::Floor;

pub use markdown::{file_name, head, length_labels, padded};

/// All tables of a run, which figures are drawn from.
pub struct RunTables<'a> {
    /// The config of the run.
    pub config: &'a RunConfig,
    /// A table for each protocol that has records.
    pub perplexity: Vec<perplexity::Table<'a>>,
    /// A table for each pair of task and scorer that has records.
    pub tasks: Vec<tasks::Table<'a>>,
}

impl<'a> RunTables<'a> {
    /// Sorts records into tables.
    ///
    /// # Errors
    /// The config names a task that is not known.
    pub fn new(
        config: &'a RunConfig,
        perplexities: &'a [PerplexityRecord],
        floors: &'a [Floor],
        tasks: &'a [TaskRecord],
    ) -> Result<Self> {
        Ok(RunTables {
            config,
            perplexity: perplexity::tables(config, perplexities, floors),
            tasks: tasks::tables(config, tasks)?,
        })
    }
}
