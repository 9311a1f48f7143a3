//! `state/`: the saved state that a training continues from. A new state is written completely
//! before the previous one is removed.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use longspan_model::{Architecture, Trainer};

use super::config::TrainConfig;
use crate::folder::FolderError;

/// File with the digest of the state's other files: a flipped bit in them would change the
/// training silently.
const DIGEST: &str = "blake3";

/// A complete saved state.
pub struct State {
    folder: PathBuf,
    /// Steps done.
    pub step: u64,
}

impl State {
    /// The newest state in the folder of a training, if there is one.
    ///
    /// # Errors
    /// `state/` cannot be read.
    pub fn newest(out: &Path) -> Result<Option<Self>> {
        let states = entries(out)?.into_iter().filter_map(|folder| {
            let step = folder.file_name()?.to_str()?.strip_prefix("step-")?;
            let step = step.parse().ok()?;
            Some(State { folder, step })
        });
        Ok(states.max_by_key(|state| state.step))
    }

    /// Restores the trainer.
    ///
    /// # Errors
    /// The state is damaged or of another model.
    pub fn resume(
        &self,
        config: &TrainConfig,
        model: &Architecture,
        device: &Device,
    ) -> Result<Trainer> {
        let path = self.folder.join(DIGEST);
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        ensure!(
            digest(&self.folder).is_ok_and(|found| found == written),
            "{}: damaged (its files do not have the digest in {DIGEST}); replace it with a good \
             copy, or delete the whole training and start over",
            self.folder.display()
        );
        let trainer = Trainer::resume(&self.folder, &config.optimizer, device)?;
        if trainer.config() != model {
            let problem = format!(
                "{}: a state of {:?}, but config and vocabulary {} make {model:?}; restore the \
                 vocabulary, or use another folder",
                self.folder.display(),
                trainer.config(),
                config.tokenizer.display()
            );
            return Err(FolderError::Training { problem }.into());
        }
        Ok(trainer)
    }

    /// Writes the state after `step` steps, then removes all others.
    ///
    /// # Errors
    /// A file cannot be written or removed.
    pub fn save(out: &Path, trainer: &Trainer, step: u64) -> Result<()> {
        let folder = out.join("state").join(format!("step-{step}"));
        let half = folder.with_extension("half");
        let write = || -> Result<()> {
            if half.exists() {
                std::fs::remove_dir_all(&half)?;
            }
            trainer.save(&half)?;
            std::fs::write(half.join(DIGEST), digest(&half)?)?;
            for file in std::fs::read_dir(&half)? {
                File::open(file?.path())?.sync_all()?;
            }
            Ok(std::fs::rename(&half, &folder)?)
        };
        write().with_context(|| format!("{}: cannot be written", folder.display()))?;
        for old in entries(out)? {
            let name = old.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("step-") && old != folder {
                std::fs::remove_dir_all(&old).with_context(|| old.display().to_string())?;
            }
        }
        Ok(())
    }
}

/// Entries of `state/`; empty before the first state.
fn entries(out: &Path) -> Result<Vec<PathBuf>> {
    let folder = out.join("state");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let list = || -> std::io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(&folder)?;
        entries.map(|entry| Ok(entry?.path())).collect()
    };
    list().with_context(|| folder.display().to_string())
}

/// Digest of all files of a state except the digest file.
fn digest(folder: &Path) -> Result<String> {
    let mut files: Vec<PathBuf> = (std::fs::read_dir(folder)?)
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    files.retain(|file| file.file_name().is_some_and(|name| name != DIGEST));
    files.sort();
    let mut hasher = blake3::Hasher::new();
    for file in files {
        hasher.update_mmap(file)?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}
