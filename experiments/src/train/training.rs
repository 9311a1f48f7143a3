//! A training and its folder: opened or continued, run to the last step, finished.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use burn::tensor::Device;
use indicatif::{ProgressBar, ProgressStyle};
use longspan_data::Tokenizer;
use longspan_model::families::qwen;
use longspan_model::{Architecture, Trainer, WeightType};

use super::config::{Sizes, TrainConfig};
use super::figure::figure;
use super::line::StepSums;
use super::log::TrainLog;
use super::minutes::steps_in;
use super::mixture::Mixture;
use super::probe::Probe;
use super::state::State;
use crate::config::overrides::difference;
use crate::folder::{FolderError, write_whole};
use crate::tables::file_name;

/// Steps between progress messages where no progress bar is shown.
const MESSAGE_EVERY: u64 = 100;

/// An open training, after its last saved state.
pub struct Training {
    /// The config as stored in the folder, with `steps` in place of `minutes`.
    config: TrainConfig,
    out: PathBuf,
    tokenizer: Tokenizer,
    mixture: Mixture,
    probe: Option<Probe>,
    log: TrainLog,
    trainer: Trainer,
    /// Steps done when opened.
    start: u64,
    /// Steps of the whole training.
    steps: u64,
}

impl Training {
    /// Opens the training in a folder, or starts it. Nothing but the folder is created before the
    /// config, the vocabulary and the texts are known to be valid.
    ///
    /// # Errors
    /// The vocabulary or a text is not valid; the folder is in use, damaged or of another config.
    pub fn open(mut config: TrainConfig, out: PathBuf) -> Result<Self> {
        let tokenizer = Tokenizer::from_file(&config.tokenizer)?;
        let architecture = architecture(&config.model, tokenizer.vocab_size());
        let device = Device::flex();
        let new_trainer = |config: &TrainConfig| {
            let (initial, optimizer) = (&config.initial, &config.optimizer);
            Trainer::new(
                architecture.clone(),
                initial,
                optimizer,
                config.seed,
                &device,
            )
        };

        std::fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
        let stored = out.join("config.toml");
        if stored.exists() {
            continue_config(&mut config, &stored, &out)?;
        }
        log::info!("reading the texts");
        let mixture = Mixture::open(&config, &tokenizer)?;
        let probe = Probe::open(&config, &tokenizer)?;
        if let Some(minutes) = config.schedule.minutes.take() {
            let steps = steps_in(minutes, &config, &mixture, &tokenizer, new_trainer(&config))?;
            config.schedule.steps = Some(steps);
        }
        let steps = (config.schedule.steps).expect("checked: either steps or minutes");
        config.schedule.check_warmup(steps)?;

        let mut log = TrainLog::open(&out)?;
        write_whole(&stored, toml::to_string(&config)?.as_bytes())?;
        let state = State::newest(&out)?;
        let trainer = match &state {
            Some(state) => state.resume(&config, &architecture, &device)?,
            None => new_trainer(&config),
        };
        let start = state.map_or(0, |state| state.step);
        check_log(&log, start, &config, &out)?;
        log.rewind(start)?;
        if start > 0 {
            log::info!("continuing after step {start} of {steps}");
        }
        Ok(Training {
            config,
            out,
            tokenizer,
            mixture,
            probe,
            log,
            trainer,
            start,
            steps,
        })
    }

    /// Runs the remaining steps; logs, evaluates and saves at the intervals of the config.
    ///
    /// # Errors
    /// The loss is not finite, or a file cannot be written.
    pub fn run(&mut self) -> Result<()> {
        let bar = progress_bar(self.start, self.steps);
        let (log_every, save_every) = (
            self.config.schedule.log_every,
            self.config.schedule.save_every,
        );
        let mut sums = StepSums::default();
        for step in self.start..self.steps {
            self.step(step, &mut sums)?;
            bar.inc(1);
            let done = step + 1;
            if self.is_due(log_every, done) {
                self.log_line(done, std::mem::take(&mut sums), &bar)?;
            }
            if self.is_due(save_every, done) {
                State::save(&self.out, &self.trainer, done)?;
                self.draw_figure()?;
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Writes `model/` and the figure; returns a summary in words.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn finish(&self) -> Result<String> {
        let folder = self.out.join("model");
        self.trainer.export(&folder, WeightType::Bf16)?;
        let tokenizer = &self.config.tokenizer;
        let vocabulary =
            std::fs::read(tokenizer).with_context(|| tokenizer.display().to_string())?;
        write_whole(&folder.join("qwen.tiktoken"), &vocabulary)?;
        // `run` draws nothing when the training was complete already.
        self.draw_figure()?;
        let (summary, out) = (self.log.summary(), self.out.display());
        Ok(format!("{summary}\nwritten to {out}"))
    }

    /// True if `done` is a multiple of `every` or the last step.
    fn is_due(&self, every: u64, done: u64) -> bool {
        done.is_multiple_of(every) || done == self.steps
    }

    fn step(&mut self, step: u64, sums: &mut StepSums) -> Result<()> {
        let began = Instant::now();
        let config = &self.config;
        let drawn = (self.mixture).draw(config, step, self.steps, &self.tokenizer);
        let rate = config.schedule.learning_rate(step, self.steps);
        let loss = (self.trainer)
            .step(&drawn.batches, drawn.method, rate)
            .with_context(|| format!("step {step}"))?;
        let names = (drawn.sources.iter()).map(|&source| self.mixture.name(source));
        sums.add(&loss, names, rate, began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Appends the line after `done` steps to the log and shows it, with the probe if it is due.
    fn log_line(&mut self, done: u64, sums: StepSums, bar: &ProgressBar) -> Result<()> {
        let results = match &self.probe {
            Some(probe) if self.is_due(probe.every, done) => {
                Some(probe.run(&self.trainer.model())?)
            }
            _ => None,
        };
        let line = sums.finish(done, self.log.totals(), results);
        bar.set_message(line.brief());
        if bar.is_hidden() && (line.probe.is_some() || done.is_multiple_of(MESSAGE_EVERY)) {
            log::info!("{}", line.brief());
        }
        self.log.append(line)
    }

    fn draw_figure(&self) -> Result<()> {
        let out = self.out.to_string_lossy();
        let Some(figure) = figure(file_name(&out), self.log.lines(), &self.config) else {
            log::warn!("no finite loss in train.jsonl: no figure");
            return Ok(());
        };
        let saved = figure.paint().and_then(|page| page.save(&self.out, "loss"));
        saved.context("drawing the figure of the losses")
    }
}

/// The architecture of a model of some sizes; the epsilon is that of the published models.
fn architecture(sizes: &Sizes, vocab_size: usize) -> Architecture {
    Architecture {
        family: &qwen::Family,
        vocab_size,
        hidden_size: sizes.heads * sizes.head_dim,
        layers: sizes.layers,
        heads: sizes.heads,
        head_dim: sizes.head_dim,
        ffn: sizes.ffn,
        trained: sizes.trained,
        rope_base: sizes.rope_base,
        epsilon: 1e-6,
        quantization: None,
    }
}

/// Checks that a config is the one stored in the folder. A config with `minutes` takes over the
/// steps that were measured when the training began.
fn continue_config(config: &mut TrainConfig, stored: &Path, out: &Path) -> Result<()> {
    let before = TrainConfig::load(stored, &[]).with_context(|| FolderError::Training {
        problem: format!(
            "{}: its config is not that of a training by this version; use another folder",
            out.display()
        ),
    })?;
    if config.schedule.steps.is_none() && before.schedule.steps.is_some() {
        config.schedule.steps = before.schedule.steps;
        config.schedule.minutes = None;
    }
    let found = toml::Value::try_from(&before)?;
    let asked = toml::Value::try_from(&*config)?;
    if let Some(difference) = difference("", &found, &asked) {
        let dir = out.to_owned();
        return Err(FolderError::OtherConfig { dir, difference }.into());
    }
    Ok(())
}

/// Checks that the log matches a state of `start` steps, 0 for none. A log that ends before the
/// state is continued with a warning.
fn check_log(log: &TrainLog, start: u64, config: &TrainConfig, out: &Path) -> Result<()> {
    let logged = log.last_step();
    // Before the first state, a kill leaves up to `save_every` steps and no model.
    let new = logged <= config.schedule.save_every && !out.join("model").exists();
    if start == 0 && !new {
        let problem = format!(
            "{}: holds a model or steps up to {logged} in train.jsonl, but no state to continue \
             from; put the folder state back, or use another folder",
            out.display()
        );
        return Err(FolderError::Training { problem }.into());
    }
    if logged < start {
        log::warn!(
            "{}: the state is of step {start}, train.jsonl ends at step {logged}: the lines \
             between are missing, and its totals lack their tokens and seconds",
            out.display()
        );
    }
    Ok(())
}

fn progress_bar(start: u64, steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %, {eta} left: {msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(steps).with_style(style);
    bar.set_position(start);
    bar
}
