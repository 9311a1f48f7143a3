//! The run folder: config, records, per-token losses. Nothing in it is ever half-written for a reader.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{self, RunConfig};
use crate::log::{self, Log};
use crate::needle::NeedleRecord;
use crate::protocol::{Average, Protocol, SeOver, TokenStream};

/// One line of `records.jsonl`: a cell's number and all that identifies it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Digest of all that determines the number.
    pub key: String,
    /// Name of the method.
    pub method: String,
    /// Tokens per window.
    pub length: usize,
    /// Protocol.
    pub protocol: Protocol,
    /// What the protocol does, in words.
    pub protocol_detail: String,
    /// How losses were averaged.
    pub average: Average,
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
    /// Digest of the tokens fed and scored.
    pub data_digest: String,
    /// Type in which weights were held.
    pub dtype: String,
    /// Kind of device.
    pub device: String,
    /// Trained length of the model, tokens.
    pub trained_length: usize,
    /// Tokens of the first forward call, when it was not the whole window.
    pub prefill: Option<usize>,
    /// Length of the pass that the losses come from: longer than `length` when one pass served several
    /// lengths.
    pub pass_length: usize,
    /// Losses of the pass, relative to the run folder.
    pub nll_file: String,
    /// Version of the program.
    pub version: String,
    /// `exp(nll)`; null when it is not finite.
    pub perplexity: Option<f64>,
    /// Mean negative log likelihood, nats per token; null when it is not finite.
    pub nll: Option<f64>,
    /// Standard error of `nll`.
    pub nll_se: Option<f64>,
    /// What the standard error takes as independent.
    pub se_over: SeOver,
    /// Windows fed.
    pub windows: usize,
    /// Tokens fed.
    pub fed: usize,
    /// Tokens scored.
    pub scored: usize,
    /// Seconds of the pass.
    pub seconds: f64,
    /// Tokens fed by the pass per second.
    pub tokens_per_second: f64,
    /// Most memory in use during the pass, weights included, bytes: of the heap, or of a GPU.
    pub peak_bytes: usize,
}

impl log::Keyed for Record {
    fn key(&self) -> (&str, &str) {
        (&self.key, &self.method)
    }
}

/// A run folder opened for writing; a lock keeps other processes out.
pub struct RunFolder {
    dir: PathBuf,
    /// Perplexities found and written.
    pub perplexity: Log<Record>,
    /// Needles found and written.
    pub needle: Log<NeedleRecord>,
}

/// The files of records in a run folder.
const RECORDS: &str = "records.jsonl";
const NEEDLES: &str = "needle.jsonl";

impl RunFolder {
    /// Opens or creates a folder for this config, and mends a line cut short by a kill.
    ///
    /// # Errors
    /// A folder of another config, one that another process writes to, one that cannot be written, or
    /// damaged records.
    pub fn open(dir: &Path, config: &RunConfig) -> Result<Self> {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("run folder {}: cannot be written", dir.display()))?;
        let config_path = dir.join("config.toml");
        // This file carries the lock, also of a run without perplexities.
        let records_path = dir.join(RECORDS);
        let file = log::open(&records_path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "{}: another longspan is writing to this run folder; wait for it, or give --out",
                dir.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| records_path.display().to_string());
            }
        }
        let mut perplexity = Log::read(&records_path, Some(file))?;
        let needle_path = dir.join(NEEDLES);
        let needle_file = needle_path.exists().then(|| log::open(&needle_path));
        let mut needle = Log::read(&needle_path, needle_file.transpose()?)?;
        let asked = toml::Table::try_from(config)?;
        // A folder without a record belongs to nobody yet.
        let taken = !perplexity.records.is_empty() || !needle.records.is_empty();
        // A config that was written by hand, and is the one asked for, stays as it is.
        let mut rewritten = true;
        if config_path.exists() && !taken {
            let found = RunConfig::load(&config_path, &[]).with_context(|| {
                format!(
                    "{}: holds something else than a run; give another --out",
                    dir.display()
                )
            })?;
            rewritten = found != *config;
        }
        if config_path.exists() && taken {
            let text = std::fs::read_to_string(&config_path)
                .with_context(|| config_path.display().to_string())?;
            let mut found: toml::Table =
                toml::from_str(&text).with_context(|| config_path.display().to_string())?;
            let mut measured = asked.clone();
            // No record depends on these.
            found.remove("published");
            measured.remove("published");
            let (found, measured) = (found.into(), measured.into());
            if let Some(difference) = config::difference("", &found, &measured) {
                bail!(
                    "run folder {} belongs to another config: {difference}; give another --out, or \
                     delete the folder",
                    dir.display()
                );
            }
        }
        if rewritten {
            write_whole(&config_path, toml::to_string(&asked)?.as_bytes())?;
        }
        perplexity.mend()?;
        needle.mend()?;
        Ok(RunFolder {
            dir: dir.to_owned(),
            perplexity,
            needle,
        })
    }

    /// Leaves the keys of the run's cells for `longspan report`: the records may hold others, of a
    /// checkpoint or a text that stood at the same path before.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_cells(&self, keys: &[String]) -> Result<()> {
        let text = serde_json::to_string_pretty(keys)?;
        write_whole(&self.dir.join(CELLS), text.as_bytes())
    }

    /// Where the losses of a pass are, relative to the folder.
    pub fn nll_file(pass_key: &str) -> String {
        format!("nll/{}.safetensors", &pass_key[..24])
    }

    /// Writes the losses of a pass: `nll` `[windows, n - 1]` (nats, of positions `1..n`), `window_start`
    /// `[windows]` and `document_start` `[documents]` (offsets in the token stream, so that
    /// document and position of each loss follow).
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_nll(
        &self,
        pass_key: &str,
        length: usize,
        starts: &[usize],
        stream: &TokenStream,
        losses: &PassLosses,
    ) -> Result<()> {
        let bytes_of = |offsets: &[usize]| -> Vec<u8> {
            let words = offsets.iter().map(|&offset| offset as u64);
            words.flat_map(u64::to_le_bytes).collect()
        };
        let nll: Vec<u8> = losses
            .nll
            .iter()
            .flatten()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let window_start = bytes_of(starts);
        let document_start = bytes_of(&stream.document_start);
        let view = |dtype, shape: Vec<usize>, bytes| {
            TensorView::new(dtype, shape, bytes).context("losses as safetensors")
        };
        let tensors = [
            (
                "nll",
                view(Dtype::F32, vec![starts.len(), length - 1], &nll)?,
            ),
            (
                "window_start",
                view(Dtype::U64, vec![starts.len()], &window_start)?,
            ),
            (
                "document_start",
                view(
                    Dtype::U64,
                    vec![stream.document_start.len()],
                    &document_start,
                )?,
            ),
        ];
        let metadata = [
            ("pass", pass_key.to_owned()),
            ("seconds", losses.seconds.to_string()),
            ("peak_bytes", losses.peak_bytes.to_string()),
        ];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
        let bytes = safetensors::serialize(tensors, Some(metadata.into_iter().collect()))?;
        let path = self.dir.join(Self::nll_file(pass_key));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        write_whole(&path, &bytes)
    }

    /// The losses of a pass, if a former run left them whole.
    pub fn read_nll(&self, pass_key: &str, windows: usize, length: usize) -> Option<PassLosses> {
        let bytes = std::fs::read(self.dir.join(Self::nll_file(pass_key))).ok()?;
        let (_, header) = SafeTensors::read_metadata(&bytes).ok()?;
        let metadata = header.metadata().as_ref()?;
        if metadata.get("pass")? != pass_key {
            return None;
        }
        let tensors = SafeTensors::deserialize(&bytes).ok()?;
        let nll = tensors.tensor("nll").ok()?;
        if nll.shape() != [windows, length - 1] || nll.dtype() != Dtype::F32 {
            return None;
        }
        let values = nll.data().as_chunks::<4>().0.iter();
        let values: Vec<f32> = values.map(|&bytes| f32::from_le_bytes(bytes)).collect();
        Some(PassLosses {
            nll: values.chunks(length - 1).map(<[f32]>::to_vec).collect(),
            seconds: metadata.get("seconds")?.parse().ok()?,
            peak_bytes: metadata.get("peak_bytes")?.parse().ok()?,
        })
    }
}

/// What a pass yields.
pub struct PassLosses {
    /// For each window the losses of positions `1..n`, nats.
    pub nll: Vec<Vec<f32>>,
    /// Time of the pass.
    pub seconds: f64,
    /// Largest heap, bytes.
    pub peak_bytes: usize,
}

/// The name under which a file is written until it is whole.
pub fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Writes beside the file and renames, so that nobody ever sees half of it.
///
/// # Errors
/// When it cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = partial(path);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        std::fs::rename(&beside, path)
    };
    write().with_context(|| format!("{}: cannot be written", path.display()))
}

/// Keys of the cells that a run consists of.
const CELLS: &str = "cells.json";

/// Records of the cells of a run folder, for a report; all of them where no run left its cells.
///
/// # Errors
/// No records, or damaged ones.
pub fn load_records(dir: &Path) -> Result<(Vec<Record>, Vec<NeedleRecord>)> {
    let mut perplexity: Vec<Record> = log::load(&dir.join(RECORDS))?;
    let needles = dir.join(NEEDLES);
    let mut needle: Vec<NeedleRecord> = match needles.exists() {
        true => log::load(&needles)?,
        false => Vec::new(),
    };
    let cells = dir.join(CELLS);
    if let Ok(text) = std::fs::read_to_string(&cells) {
        let keys: Vec<String> =
            serde_json::from_str(&text).with_context(|| cells.display().to_string())?;
        perplexity.retain(|record| keys.contains(&record.key));
        needle.retain(|record| keys.contains(&record.key));
    }
    ensure!(
        !perplexity.is_empty() || !needle.is_empty(),
        "{}: no records yet",
        dir.display()
    );
    Ok((perplexity, needle))
}
