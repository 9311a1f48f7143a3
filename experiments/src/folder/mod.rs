//! The run folder: config, records, per-token losses. No reader ever sees half of a file.

mod error;
mod files;
pub mod log;
mod nll;
mod record;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::config::RunConfig;
use crate::config::overrides::difference;
use log::Log;

pub use error::FolderError;
pub use files::{partial, write_whole};
pub use nll::{NllFiles, PassLosses};
pub use record::{PerplexityRecord, Provenance, Record, TaskRecord, Trial};
pub(crate) use record::{percent, score_text};

/// Files of a run folder.
const CONFIG: &str = "config.toml";
const RECORDS: &str = "records.jsonl";
const TASKS: &str = "needle.jsonl";
/// Keys of the cells that a run consists of.
const CELLS: &str = "cells.json";

/// A run folder opened for writing; a lock keeps other processes out.
pub struct RunFolder {
    dir: Option<PathBuf>,
    /// Perplexities found and written.
    pub perplexity: Log<PerplexityRecord>,
    /// Task records found and written.
    pub tasks: Log<TaskRecord>,
    /// Per-token losses.
    pub nll: NllFiles,
}

impl RunFolder {
    /// No folder: records stay in memory.
    pub fn in_memory() -> Self {
        RunFolder {
            dir: None,
            perplexity: Log::in_memory(),
            tasks: Log::in_memory(),
            nll: NllFiles::new(None),
        }
    }

    /// Opens or creates a folder for this config, and mends a line that a kill cut short.
    ///
    /// # Errors
    /// A folder of another config, one that another process writes to, one that cannot be written,
    /// or damaged records.
    pub fn open(dir: &Path, config: &RunConfig) -> Result<Self> {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("run folder {}: cannot be written", dir.display()))?;
        // This file carries the lock, also for a run without perplexities.
        let records_path = dir.join(RECORDS);
        let file = lock(dir, &records_path)?;
        let mut perplexity = Log::read(&records_path, Some(file))?;
        let tasks_path = dir.join(TASKS);
        let tasks_file = tasks_path.exists().then(|| log::open(&tasks_path));
        let mut tasks = Log::read(&tasks_path, tasks_file.transpose()?)?;
        // A folder without a record belongs to no config yet.
        let taken = !perplexity.records.is_empty() || !tasks.records.is_empty();
        claim(dir, config, taken)?;
        perplexity.mend()?;
        tasks.mend()?;
        Ok(RunFolder {
            dir: Some(dir.to_owned()),
            perplexity,
            tasks,
            nll: NllFiles::new(Some(dir)),
        })
    }

    /// Where the folder is; `None` for a run in memory.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Writes the keys of the run's cells for [`load_records`]: the records may hold others, of a
    /// checkpoint or a text that stood at the same path before.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_cells(&self, keys: &[String]) -> Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let text = serde_json::to_string_pretty(keys)?;
        write_whole(&dir.join(CELLS), text.as_bytes())
    }
}

/// Opens the file of records and locks it.
fn lock(dir: &Path, path: &Path) -> Result<File> {
    let file = log::open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let dir = dir.to_owned();
            Err(FolderError::Locked { dir }.into())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Checks that a folder is this config's, and writes the config there.
fn claim(dir: &Path, config: &RunConfig, taken: bool) -> Result<()> {
    let path = dir.join(CONFIG);
    let asked = toml::Table::try_from(config)?;
    if path.exists() && taken {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut found: toml::Table =
            toml::from_str(&text).with_context(|| path.display().to_string())?;
        let mut measured = asked.clone();
        // No record depends on these.
        found.remove("published");
        measured.remove("published");
        if let Some(difference) = difference("", &found.into(), &measured.into()) {
            let dir = dir.to_owned();
            return Err(FolderError::OtherConfig { dir, difference }.into());
        }
    }
    if path.exists() && !taken {
        let dir = dir.to_owned();
        let found = RunConfig::load(&path, &[]).context(FolderError::NotARun { dir })?;
        // The same config, written by hand, keeps its comments.
        if found == *config {
            return Ok(());
        }
    }
    write_whole(&path, toml::to_string(&asked)?.as_bytes())
}

/// The config of a run folder.
///
/// # Errors
/// No config, or one that this version refuses.
pub fn load_config(dir: &Path) -> Result<RunConfig> {
    RunConfig::load(&dir.join(CONFIG), &[])
}

/// The records of a run folder's cells, for a report; all records if it has no `cells.json`.
///
/// # Errors
/// No records, or damaged ones.
pub fn load_records(dir: &Path) -> Result<(Vec<PerplexityRecord>, Vec<TaskRecord>)> {
    let mut perplexity: Vec<PerplexityRecord> = log::load(&dir.join(RECORDS))?;
    let tasks_path = dir.join(TASKS);
    let mut tasks: Vec<TaskRecord> = if tasks_path.exists() {
        log::load(&tasks_path)?
    } else {
        Vec::new()
    };
    let cells = dir.join(CELLS);
    if let Ok(text) = std::fs::read_to_string(&cells) {
        let keys: Vec<String> =
            serde_json::from_str(&text).with_context(|| cells.display().to_string())?;
        perplexity.retain(|record| keys.contains(&record.provenance.key));
        tasks.retain(|record| keys.contains(&record.provenance.key));
    }
    ensure!(
        !perplexity.is_empty() || !tasks.is_empty(),
        "{}: no records yet",
        dir.display()
    );
    Ok((perplexity, tasks))
}
