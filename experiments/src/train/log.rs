//! `train.jsonl`: a line every few steps, and what is said about them.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use longspan_model::StepLoss;
use serde::{Deserialize, Serialize};

use super::config::TrainConfig;
use super::figure::figure;
use super::probe::Probed;
use crate::log;
use crate::plot::draw_losses;
use crate::report;

/// Averages over the steps since the line before.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Steps done.
    pub step: u64,
    /// Tokens scored in all.
    pub tokens: u64,
    /// Seconds of training in all.
    pub seconds: f64,
    /// Weighted loss, nats.
    pub loss: f64,
    /// Largest norm of the gradient, before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Tokens per second.
    pub tokens_per_second: f64,
    /// Unweighted mean loss by source, nats.
    pub sources: BTreeMap<String, f64>,
    /// What was measured after this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probed>,
}

impl Line {
    /// For a log.
    pub fn brief(&self) -> String {
        let mut text = format!(
            "step {}, loss {:.3}, {:.0} tokens/s",
            self.step, self.loss, self.tokens_per_second
        );
        if let Some(probe) = &self.probe {
            text += &format!(", {probe}");
        }
        text
    }
}

/// What is gathered for the next line.
#[derive(Default)]
pub struct Entry {
    steps: u64,
    loss: f64,
    gradient_norm: f64,
    learning_rate: f64,
    seconds: f64,
    tokens: u64,
    sources: BTreeMap<String, (f64, u64)>,
}

impl Entry {
    /// Adds a step; `names` are the sources of its sequences.
    pub fn add<'a>(
        &mut self,
        step: &StepLoss,
        names: impl Iterator<Item = &'a str>,
        learning_rate: f64,
        seconds: f64,
    ) {
        self.steps += 1;
        self.loss += step.loss;
        self.gradient_norm = self.gradient_norm.max(step.gradient_norm);
        self.learning_rate = learning_rate;
        self.seconds += seconds;
        for (name, nll) in names.zip(&step.nll) {
            let source = self.sources.entry(name.to_owned()).or_default();
            source.0 += nll.iter().map(|&x| f64::from(x)).sum::<f64>();
            source.1 += nll.len() as u64;
            self.tokens += nll.len() as u64;
        }
    }

    /// The line after `step` steps, given tokens and seconds before it.
    pub fn finish(self, step: u64, (tokens, seconds): (u64, f64), probe: Option<Probed>) -> Line {
        let mean = |(sum, count): (f64, u64)| sum / count.max(1) as f64;
        Line {
            step,
            tokens: tokens + self.tokens,
            seconds: seconds + self.seconds,
            loss: self.loss / self.steps.max(1) as f64,
            gradient_norm: self.gradient_norm,
            learning_rate: self.learning_rate,
            tokens_per_second: self.tokens as f64 / self.seconds.max(1e-9),
            sources: (self.sources.into_iter())
                .map(|(name, sum)| (name, mean(sum)))
                .collect(),
            probe,
        }
    }
}

/// The lines of a training and their file.
pub struct Log {
    path: PathBuf,
    file: File,
    lines: Vec<Line>,
    /// Where the lines that were found end in the file, bytes.
    ends: Vec<u64>,
}

impl Log {
    /// Opens or starts the log of a folder, and keeps other processes from it.
    ///
    /// # Errors
    /// A training that goes on at this moment; a line that is none. The last one may be cut short.
    pub fn open(out: &Path) -> Result<Self> {
        let path = out.join("train.jsonl");
        let mut file = log::open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "{}: another longspan is training in this folder; wait for it, or give --out",
                out.display()
            ),
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
            // A kill cut the last line short; its steps are done again.
            if !text.ends_with(b"\n") {
                break;
            }
            let line = serde_json::from_slice(text).with_context(|| {
                let (path, line) = (path.display(), i + 1);
                format!("{path}:{line}: damaged; delete the line, and training goes on without it")
            })?;
            lines.push(line);
            ends.push(end);
        }
        Ok(Log {
            path,
            file,
            lines,
            ends,
        })
    }

    /// The last step that is in the log.
    pub fn last_step(&self) -> u64 {
        self.lines.last().map_or(0, |line| line.step)
    }

    /// Tokens and seconds so far.
    pub fn totals(&self) -> (u64, f64) {
        self.lines
            .last()
            .map_or((0, 0.0), |line| (line.tokens, line.seconds))
    }

    /// Forgets the lines after a step: they are written again.
    pub fn rewind(&mut self, step: u64) -> Result<()> {
        let kept = self.lines.partition_point(|line| line.step <= step);
        self.lines.truncate(kept);
        let end = kept.checked_sub(1).map_or(0, |last| self.ends[last]);
        (self.file.set_len(end)).with_context(|| self.path.display().to_string())
    }

    /// Adds a line and waits until it is on disk: a state must not be newer than the log.
    pub fn append(&mut self, line: Line) -> Result<()> {
        let text = serde_json::to_string(&line)? + "\n";
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data())
            .with_context(|| self.path.display().to_string())?;
        self.lines.push(line);
        Ok(())
    }

    /// The end of the training in words.
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

    /// Writes the figure of the losses.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn report(&self, out: &Path, config: &TrainConfig) -> Result<()> {
        let name = report::file_name(&out.to_string_lossy()).to_owned();
        match figure(&name, &self.lines, config) {
            Some(figure) => draw_losses(&figure, &out.join("loss.svg"), &out.join("loss.png"))
                .context("drawing the figure of the losses"),
            None => {
                crate::tell("warning: no finite loss in train.jsonl: no figure");
                Ok(())
            }
        }
    }
}
