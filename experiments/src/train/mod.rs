//! `longspan train`: a model from scratch, in the same architecture and folder layout as the published ones.

mod check;
mod config;
mod figure;
mod log;
mod mixture;
mod probe;
mod state;
mod text;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use indicatif::{ProgressBar, ProgressStyle};
use longspan_data::Tokenizer;
use longspan_model::{Architecture, Trainer, WeightType};

use crate::config::difference;
use crate::records::write_whole;
use config::TrainConfig;
use log::{Entry, Log};
use mixture::Mixture;
use probe::Prober;
use state::State;

/// Steps of each phase that are run to find how many fit into the minutes given.
const MEASURED_STEPS: u64 = 6;

/// Trains to the end, continuing where a former training of the same config stopped.
pub fn train(path: &Path, set: &[String], out: Option<PathBuf>) -> Result<()> {
    let mut config = TrainConfig::load(path, set)?;
    let name = path.file_stem().unwrap_or_else(|| "train".as_ref());
    let out = out.unwrap_or_else(|| Path::new("runs").join("train").join(name));
    let tokenizer = Tokenizer::from_file(&config.tokenizer)?;
    let model = model_config(&config, &tokenizer);
    let device = Device::flex();
    std::fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    let stored = out.join("config.toml");
    let before: Option<TrainConfig> = match stored.exists() {
        true => Some(TrainConfig::load(&stored, &[]).context(
            "this folder has a config that is none of a training of this version; give another one with --out",
        )?),
        false => None,
    };
    if let Some(before) = &before {
        // The number of steps that the minutes came to.
        if config.schedule.steps.is_none() && before.schedule.steps.is_some() {
            config.schedule.steps = before.schedule.steps;
            config.schedule.minutes = None;
        }
        let (there, now) = (
            toml::Value::try_from(before)?,
            toml::Value::try_from(&config)?,
        );
        if let Some(difference) = difference("", &there, &now) {
            bail!(
                "{}: a training with another config: {difference}; give another folder with --out",
                out.display()
            );
        }
    }
    crate::tell("reading the texts");
    let mixture = Mixture::open(&config, &tokenizer)?;
    let prober = Prober::open(&config, &tokenizer)?;
    let steps = match config.schedule.steps {
        Some(steps) => steps,
        None => {
            let trainer = || {
                let (initial, optimizer) = (&config.initial, &config.optimizer);
                Trainer::new(model.clone(), initial, optimizer, config.seed, &device)
            };
            measure(&config, &mixture, &tokenizer, trainer())?
        }
    };
    config.schedule.steps = Some(steps);
    config.schedule.minutes = None;
    config.schedule.check_warmup(steps)?;

    let mut log = Log::open(&out)?;
    write_whole(&stored, toml::to_string(&config)?.as_bytes())?;
    let state = State::newest(&out)?;
    let mut trainer = match &state {
        Some(state) => state.resume(&config, &model, &device)?,
        None => Trainer::new(
            model,
            &config.initial,
            &config.optimizer,
            config.seed,
            &device,
        ),
    };
    let start = state.map_or(0, |state| state.step);
    let logged = log.last_step();
    ensure!(
        start > 0 || logged <= config.schedule.save_every && !out.join("model").exists(),
        "{}: holds a model or steps up to {logged} in train.jsonl, but no state to go on from; put the folder \
         state back, or give another folder with --out",
        out.display()
    );
    if logged < start {
        crate::tell(format_args!(
            "warning: {}: the state is of step {start}, train.jsonl ends at step {logged}: what is between \
             is missing in it and in its sums",
            out.display()
        ));
    }
    log.rewind(start)?;
    if start > 0 {
        crate::tell(format_args!("going on after step {start} of {steps}"));
    }
    let bar = ProgressBar::new(steps).with_style(
        ProgressStyle::with_template("{bar:30} {percent:>3} %, {eta} left: {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.set_position(start);
    let mut entry = Entry::default();
    for step in start..steps {
        let began = Instant::now();
        let (batches, drawn, attention) = mixture.batches(&config, step, steps, &tokenizer);
        let rate = config.schedule.learning_rate(step, steps);
        let method = &config.phase(step, steps).attention[attention].method;
        let loss = trainer
            .step(&batches, method, rate)
            .with_context(|| format!("step {step}"))?;
        let names = drawn.iter().map(|&source| mixture.name(source));
        entry.add(&loss, names, rate, began.elapsed().as_secs_f64());
        bar.inc(1);
        let done = step + 1;
        if done.is_multiple_of(config.schedule.log_every) || done == steps {
            let probed = match &prober {
                Some(prober) if done.is_multiple_of(prober.every) || done == steps => {
                    Some(prober.probe(&trainer.model())?)
                }
                _ => None,
            };
            let line = std::mem::take(&mut entry).finish(done, log.totals(), probed);
            bar.set_message(line.brief());
            if bar.is_hidden() && (line.probe.is_some() || done.is_multiple_of(100)) {
                crate::tell(line.brief());
            }
            log.append(line)?;
        }
        if done.is_multiple_of(config.schedule.save_every) || done == steps {
            State::save(&out, &trainer, done)?;
            log.report(&out, &config)?;
        }
    }
    bar.finish_and_clear();
    let folder = out.join("model");
    trainer.export(&folder, WeightType::Bf16)?;
    let vocabulary =
        std::fs::read(&config.tokenizer).with_context(|| config.tokenizer.display().to_string())?;
    write_whole(&folder.join("qwen.tiktoken"), &vocabulary)?;
    // Once more, for a training that had ended already.
    log.report(&out, &config)?;
    crate::print(&format!(
        "{}\nwritten to {}\n",
        log.summary(),
        out.display()
    ))
}

fn model_config(config: &TrainConfig, tokenizer: &Tokenizer) -> Architecture {
    let model = &config.model;
    Architecture {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: model.heads * model.head_dim,
        layers: model.layers,
        heads: model.heads,
        head_dim: model.head_dim,
        ffn: model.ffn,
        trained: model.trained,
        rope_base: model.rope_base,
        epsilon: 1e-6,
        quantization: None,
    }
}

/// How many steps fit into the config's minutes, from the first steps of each phase.
fn measure(
    config: &TrainConfig,
    mixture: &Mixture,
    tokenizer: &Tokenizer,
    mut trainer: Trainer,
) -> Result<u64> {
    const SCALE: u64 = 1_000_000;
    let (mut start, mut per_step) = (0.0, 0.0);
    for phase in &config.phases {
        let first = (start * SCALE as f64) as u64;
        let mut began = Instant::now();
        for step in first..=first + MEASURED_STEPS {
            // The first one warms up.
            if step == first + 1 {
                began = Instant::now();
            }
            let (batches, _, attention) = mixture.batches(config, step, SCALE, tokenizer);
            // Rounded, the first steps may belong to the phase before.
            let attention = &config.phase(step, SCALE).attention[attention];
            trainer.step(&batches, &attention.method, 1e-6)?;
        }
        let seconds = began.elapsed().as_secs_f64() / MEASURED_STEPS as f64;
        per_step += seconds * (phase.until - start);
        start = phase.until;
    }
    let minutes = config
        .schedule
        .minutes
        .expect("measured for the minutes given");
    let steps = ((minutes * 60.0 / per_step) as u64).max(1);
    crate::tell(format_args!(
        "{minutes} minutes at {per_step:.3} s a step: {steps} steps"
    ));
    Ok(steps)
}
