//! Training of small models from scratch, in the architecture and the folder layout of the
//! published ones.
//!
//! The config and the texts determine the result bit for bit, whatever the number of threads, and
//! however often the training was killed and continued.

mod check;
mod config;
mod figure;
mod line;
mod log;
mod minutes;
mod mixture;
mod probe;
mod state;
mod text;
mod training;

use std::path::{Path, PathBuf};

use anyhow::Result;

use config::TrainConfig;
use training::Training;

/// Trains a model to the end, continuing from the last saved state of the same config. Returns a
/// summary in words.
///
/// `path` is the config and `set` overrides its keys, as `KEY=VALUE`. The training belongs to the
/// folder `out`, by default `runs/train/` and the config's name.
///
/// # Errors
/// The config, the vocabulary or a text is not valid; the folder is in use, damaged or of another
/// config; the loss is not finite.
pub fn train(path: &Path, set: &[String], out: Option<PathBuf>) -> Result<String> {
    let config = TrainConfig::load(path, set)?;
    let name = path.file_stem().unwrap_or_else(|| "train".as_ref());
    let out = out.unwrap_or_else(|| Path::new("runs").join("train").join(name));
    let mut training = Training::open(config, out)?;
    training.run()?;
    training.finish()
}
