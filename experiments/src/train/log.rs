//! `train.jsonl`: the losses of a training, one JSON object a line, appended to while it runs.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::line::Line;
use crate::folder::FolderError;
use crate::folder::log::open;

/// `train.jsonl`, open and locked.
pub struct TrainLog {
    path: PathBuf,
    file: File,
    lines: Vec<Line>,
    /// End of each line read by [`TrainLog::open`], in bytes from the start of the file.
    ends: Vec<u64>,
}

impl TrainLog {
    /// Opens or creates the log in a folder and locks it against other processes.
    ///
    /// A last line without its line feed was cut short by a kill and is ignored.
    ///
    /// # Errors
    /// Another process trains in this folder, or a line is damaged.
    pub fn open(out: &Path) -> Result<Self> {
        let path = out.join("train.jsonl");
        let mut file = open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let dir = out.to_owned();
                return Err(FolderError::Locked { dir }.into());
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| path.display().to_string());
            }
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .with_context(|| path.display().to_string())?;
        let (mut lines, mut ends) = (Vec::new(), Vec::new());
        let mut end = 0;
        for (i, text) in bytes.split_inclusive(|&b| b == b'\n').enumerate() {
            end += text.len() as u64;
            if !text.ends_with(b"\n") {
                break;
            }
            let line = serde_json::from_slice(text).with_context(|| {
                let (path, line) = (path.display(), i + 1);
                format!(
                    "{path}:{line}: damaged; delete the line, and training continues without it"
                )
            })?;
            lines.push(line);
            ends.push(end);
        }
        Ok(TrainLog {
            path,
            file,
            lines,
            ends,
        })
    }

    /// All lines, in order of their steps.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Step of the last line; 0 for an empty log.
    pub fn last_step(&self) -> u64 {
        self.lines.last().map_or(0, |line| line.step)
    }

    /// Tokens and seconds up to the last line.
    pub fn totals(&self) -> (u64, f64) {
        self.lines
            .last()
            .map_or((0, 0.0), |line| (line.tokens, line.seconds))
    }

    /// Removes the lines after a step, whose steps run again. Must precede the first append.
    ///
    /// # Errors
    /// The file cannot be truncated.
    pub fn rewind(&mut self, step: u64) -> Result<()> {
        let kept = self.lines.partition_point(|line| line.step <= step);
        self.lines.truncate(kept);
        let end = kept.checked_sub(1).map_or(0, |last| self.ends[last]);
        (self.file.set_len(end)).with_context(|| self.path.display().to_string())
    }

    /// Appends a line and waits until it is on disk, so that no saved state is newer than the log.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&mut self, line: Line) -> Result<()> {
        let text = serde_json::to_string(&line)? + "\n";
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data())
            .with_context(|| self.path.display().to_string())?;
        self.lines.push(line);
        Ok(())
    }

    /// Steps, tokens, time and last loss of the training.
    pub fn summary(&self) -> String {
        let Some(last) = self.lines.last() else {
            return "nothing was trained".to_owned();
        };
        format!(
            "{} steps, {:.2} million tokens in {:.1} minutes, last loss {:.3}{}",
            last.step,
            last.tokens as f64 / 1e6,
            last.seconds / 60.0,
            last.loss,
            last.probe
                .as_ref()
                .map_or(String::new(), |probe| format!(", {probe}"))
        )
    }
}
