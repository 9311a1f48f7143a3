//! `longspan run`: passes, records, tables, figures.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use longspan_model::Qwen;

use crate::ALLOCATED;
use crate::cells::{self, Cell, Pass};
use crate::config::RunConfig;
use crate::floor;
use crate::open;
use crate::protocol::{self, TokenStream};
use crate::records::{PassLosses, Record, RunFolder};
use crate::report;

/// How many more rows the published models have than their vocabulary has tokens: at most 213.
const VOCABULARY_SLACK: usize = 512;

/// Runs a config to its end, continuing where a former run of it stopped.
pub fn run(path: &Path, set: &[String], out: Option<PathBuf>) -> Result<()> {
    let config = RunConfig::load(path, set)?;
    let out = out.unwrap_or_else(|| {
        Path::new("runs").join(path.file_stem().unwrap_or_else(|| "run".as_ref()))
    });
    let checkpoint = open::checkpoint(&config.model.path)?;
    let tokenizer = open::tokenizer(&config.model.path, config.model.tokenizer.as_deref())?;
    let vocabulary = checkpoint.config.vocab_size;
    if tokenizer.vocab_size() + VOCABULARY_SLACK < vocabulary {
        crate::tell(format_args!(
            "warning: the vocabulary has {} tokens, the model {vocabulary}; is it this model's and whole?",
            tokenizer.vocab_size()
        ));
    }
    let stream = cells::read_tokens(&config, &tokenizer, vocabulary)?;
    let cells = cells::cells(&config, &stream);
    let floors = floor::floors(&config, &tokenizer, &stream, &cells)?;
    let passes = cells::passes(&config, &checkpoint.config.geometry(), &cells)
        .with_context(|| path.display().to_string())?;
    let mut folder = RunFolder::open(&out, &config)?;
    let model = open::model(checkpoint, config.model.dtype)?;

    let mut keys = vec![String::new(); cells.len()];
    for pass in &passes {
        for &cell in &pass.cells {
            keys[cell] = cells[cell].key(&config, &model, &stream, pass.length);
        }
    }
    let name = |cell: usize| config.methods[cells[cell].method].name.as_str();
    let missing = |folder: &RunFolder, pass: &Pass| {
        let cells = pass.cells.iter().copied();
        cells
            .filter(|&cell| !folder.has(&keys[cell], name(cell)))
            .collect::<Vec<_>>()
    };
    let todo: Vec<&Pass> = passes
        .iter()
        .filter(|pass| !missing(&folder, pass).is_empty())
        .collect();
    let to_compute: usize = todo.iter().map(|pass| missing(&folder, pass).len()).sum();
    if to_compute < cells.len() {
        crate::tell(format_args!(
            "{} of {} cells are in {} already",
            cells.len() - to_compute,
            cells.len(),
            out.display()
        ));
    }

    folder.write_cells(&keys)?;
    floor::write(&out, &floors)?;

    let bar = progress_bar(&todo, &model);
    for pass in todo {
        let name = &config.methods[pass.method].name;
        bar.set_message(format!("{name}, {} tokens", pass.length));
        let key = pass.key(&config, &model, &stream);
        let losses = match folder.read_nll(&key, pass.starts.len(), pass.length) {
            Some(losses) => {
                bar.inc(pass.starts.len() as u64 * cost(&model, pass.length));
                losses
            }
            None => {
                let losses = execute(&config, &model, &stream, pass, &bar)
                    .with_context(|| format!("method \"{name}\", {} tokens", pass.length))?;
                folder.write_nll(&key, pass.length, &pass.starts, &stream, &losses)?;
                losses
            }
        };
        for index in missing(&folder, pass) {
            let identity = Identity {
                config: &config,
                model: &model,
                tokenizer: tokenizer.digest(),
                stream: &stream,
                cell_key: &keys[index],
                pass_key: &key,
            };
            let record = record(&identity, &cells[index], pass, &losses);
            if bar.is_hidden() {
                crate::tell(report::one_line(&record));
            }
            folder.append(record)?;
        }
    }
    bar.finish_and_clear();
    // The folder may hold records of a checkpoint or a text that stood at the same path before.
    let mut records = folder.records;
    records.retain(|record| keys.contains(&record.key));
    report::write(&out, &records, &floors, &config)
}

/// Relative cost of a window of `n` tokens, for the ETA: multiply-adds of weights and of attention.
fn cost(model: &Qwen, n: usize) -> u64 {
    let config = model.config();
    let layer = 4 * config.hidden_size.pow(2) + 3 * config.hidden_size * config.ffn;
    let per_token =
        config.layers * (layer + n * config.hidden_size) + config.vocab_size * config.hidden_size;
    (n as u64 * per_token as u64) >> 10
}

fn progress_bar(passes: &[&Pass], model: &Qwen) -> ProgressBar {
    let total = passes
        .iter()
        .map(|pass| pass.starts.len() as u64 * cost(model, pass.length))
        .sum();
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %, {eta} left: {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style)
}

/// Feeds the windows of a pass.
fn execute(
    config: &RunConfig,
    model: &Qwen,
    stream: &TokenStream,
    pass: &Pass,
    bar: &ProgressBar,
) -> Result<PassLosses> {
    ALLOCATED.reset_peak_usage();
    let start = Instant::now();
    let method = &config.methods[pass.method];
    let plan = model.plan(method, cells::lengths_of(config, pass.length))?;
    let mut nll = Vec::with_capacity(pass.starts.len());
    for &window in &pass.starts {
        nll.push(model.nll(&stream.ids[window..window + pass.length], &plan)?);
        bar.inc(cost(model, pass.length));
    }
    Ok(PassLosses {
        nll,
        seconds: start.elapsed().as_secs_f64(),
        peak_bytes: ALLOCATED.peak_usage(),
    })
}

struct Identity<'a> {
    config: &'a RunConfig,
    model: &'a Qwen,
    tokenizer: &'a str,
    stream: &'a TokenStream,
    cell_key: &'a str,
    pass_key: &'a str,
}

fn record(identity: &Identity, cell: &Cell, pass: &Pass, losses: &PassLosses) -> Record {
    let (config, model) = (identity.config, identity.model);
    let method = &config.methods[cell.method];
    let nll: Vec<&[f32]> = losses
        .nll
        .iter()
        .map(|nll| &nll[..cell.length - 1])
        .collect();
    let score = protocol::score(cell.protocol.average(), &cell.windows, &nll);
    let finite = |x: f64| x.is_finite().then_some(x);
    Record {
        key: identity.cell_key.to_owned(),
        method: method.name.clone(),
        length: cell.length,
        protocol: cell.protocol,
        protocol_detail: cell.protocol.describe(&config.perplexity),
        average: cell.protocol.average(),
        settings: cells::settings(method),
        model: config.model.path.clone(),
        checkpoint: model.digest().to_owned(),
        tokenizer: identity.tokenizer.to_owned(),
        data: config.data.path.clone(),
        data_digest: cell.data_digest(identity.stream),
        dtype: model.dtype().name().to_owned(),
        device: "cpu".to_owned(),
        trained_length: model.config().trained,
        prefill: config.perplexity.prefill,
        pass_length: pass.length,
        nll_file: RunFolder::nll_file(identity.pass_key),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        perplexity: finite(score.nll.exp()),
        nll: finite(score.nll),
        nll_se: finite(score.nll_se),
        se_over: score.se_over,
        windows: cell.windows.len(),
        fed: cell.windows.len() * cell.length,
        scored: score.scored,
        seconds: losses.seconds,
        tokens_per_second: (pass.starts.len() * pass.length) as f64 / losses.seconds,
        peak_bytes: losses.peak_bytes,
    }
}
