//! `longspan run`: passes, records, tables, figures.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};
use longspan_data::Tokenizer;
use longspan_model::{Checkpoint, Transformer, Architecture, sequences_together};

use crate::cells::{self, Cell, Pass};
use crate::config::{PerplexityConfig, RunConfig};
use crate::device::DeviceName;
use crate::floor::{self, Floor};
use crate::memory::{self, Memory};
use crate::needle::NeedleRun;
use crate::open;
use crate::plan::Planned;
use crate::protocol::{self, TokenStream};
use crate::records::{PassLosses, Record, RunFolder};
use crate::report;

/// How many more rows the published models have than their vocabulary has tokens: at most 213.
const VOCABULARY_SLACK: usize = 512;
/// What the passes of this file measure, in plans and refusals.
pub const PERPLEXITY: &str = "perplexity";
/// Progress is counted in units of 2^20 operations, so that sums over a sweep stay small.
pub const SHIFT: u32 = 20;

/// Runs a config to its end, continuing where a former run of it stopped.
pub fn run(
    path: &Path,
    set: &[String],
    out: Option<PathBuf>,
    device: DeviceName,
    memory_limit: Option<ByteSize>,
) -> Result<()> {
    let device = device.open()?;
    let config = RunConfig::load(path, set)?;
    let out = out.unwrap_or_else(|| {
        Path::new("runs").join(path.file_stem().unwrap_or_else(|| "run".as_ref()))
    });
    let sweep = Sweep::new(&config, path)?;
    let mut folder = RunFolder::open(&out, &config)?;
    let limit = memory::limit(memory_limit, &device);
    let mut memory = Memory::new(limit, sweep.weight_bytes()?);
    let model = open::model(
        sweep.checkpoint,
        (config.model.dtype, config.model.activations),
        &device,
    )?;

    // The folder may hold records of a checkpoint or a text that stood at the same path before.
    let mut keys = Vec::new();
    if let Some(perplexity) = &sweep.perplexity {
        keys.extend(perplexity.keys(&model));
    }
    if let Some(needle) = &sweep.needle {
        keys.extend(needle.keys(&model));
    }
    folder.write_cells(&keys)?;
    if let Some(perplexity) = &sweep.perplexity {
        perplexity.run(&model, &mut folder, &mut memory)?;
        floor::write(&out, &perplexity.floors)?;
    }
    if let Some(needle) = &sweep.needle {
        needle.run(&model, &mut folder.needle, &mut memory)?;
    }
    memory::write(&out, &memory.refused)?;
    let (mut perplexities, mut needles) = (folder.perplexity.records, folder.needle.records);
    perplexities.retain(|record| keys.contains(&record.key));
    needles.retain(|record| keys.contains(&record.key));
    if perplexities.is_empty() && needles.is_empty() {
        bail!("every cell was refused: none fits in the memory limit of {limit}");
    }
    report::write(&out, &perplexities, &needles, &config)
}

/// A config with its files opened and checked: all but the model's weights is read.
pub struct Sweep<'a> {
    config: &'a RunConfig,
    checkpoint: Checkpoint,
    perplexity: Option<PerplexityRun<'a>>,
    needle: Option<NeedleRun<'a>>,
}

impl<'a> Sweep<'a> {
    /// Opens everything that the config of the file at `path` names.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub fn new(config: &'a RunConfig, path: &Path) -> Result<Self> {
        let mut checkpoint = open::checkpoint(&config.model.path)?;
        if let Some(trained) = config.model.trained {
            checkpoint.set_trained(trained);
        }
        let tokenizer = open::tokenizer(&config.model.path, config.model.tokenizer.as_deref())?;
        let tokenizer = Rc::new(tokenizer);
        let vocabulary = checkpoint.config.vocab_size;
        if tokenizer.vocab_size() + VOCABULARY_SLACK < vocabulary {
            crate::tell(format_args!(
                "warning: the vocabulary has {} tokens, the model {vocabulary}; is it this model's and whole?",
                tokenizer.vocab_size()
            ));
        }
        let perplexity = config.perplexity.as_ref();
        let perplexity = perplexity
            .map(|table| PerplexityRun::new(config, table, tokenizer.clone(), &checkpoint.config))
            .transpose()
            .with_context(|| path.display().to_string())?;
        let needle = config.needle.as_ref();
        let needle = needle
            .map(|table| NeedleRun::new(config, table, tokenizer.clone(), &checkpoint.config))
            .transpose()
            .with_context(|| path.display().to_string())?;
        Ok(Sweep {
            config,
            checkpoint,
            perplexity,
            needle,
        })
    }

    /// Bytes of the weights as the run holds them.
    ///
    /// # Errors
    /// A checkpoint whose type cannot be told.
    pub fn weight_bytes(&self) -> Result<u64> {
        let dtype = self.checkpoint.matrix_type(self.config.model.dtype)?;
        Ok(self.checkpoint.config.weight_bytes(dtype))
    }

    /// All passes, in the order in which they run.
    ///
    /// # Errors
    /// Prompts that cannot be made.
    pub fn planned(&self) -> Result<Vec<Planned>> {
        let mut planned = Vec::new();
        if let Some(perplexity) = &self.perplexity {
            planned.extend(perplexity.planned());
        }
        if let Some(needle) = &self.needle {
            planned.extend(needle.planned()?);
        }
        Ok(planned)
    }
}

/// The perplexity part of a run.
struct PerplexityRun<'a> {
    config: &'a RunConfig,
    perplexity: &'a PerplexityConfig,
    tokenizer: Rc<Tokenizer>,
    stream: TokenStream,
    cells: Vec<Cell>,
    floors: Vec<Floor>,
    passes: Vec<Pass>,
}

impl<'a> PerplexityRun<'a> {
    fn new(
        config: &'a RunConfig,
        perplexity: &'a PerplexityConfig,
        tokenizer: Rc<Tokenizer>,
        model: &Architecture,
    ) -> Result<Self> {
        let stream = cells::read_tokens(config, perplexity, &tokenizer, model.vocab_size)?;
        let cells = cells::cells(config, perplexity, &stream);
        let floors = floor::floors(config, &tokenizer, &stream, &cells)?;
        let passes = cells::passes(config, perplexity, model, &cells)?;
        Ok(Self {
            config,
            perplexity,
            tokenizer,
            stream,
            cells,
            floors,
            passes,
        })
    }

    /// The key of each cell.
    fn keys(&self, model: &Transformer) -> Vec<String> {
        let mut keys = vec![String::new(); self.cells.len()];
        for pass in &self.passes {
            let method = &self.config.methods[pass.method];
            for &cell in &pass.cells {
                keys[cell] =
                    self.cells[cell].key(method, self.perplexity, model, &self.stream, pass.length);
            }
        }
        keys
    }

    fn planned(&self) -> impl Iterator<Item = Planned> {
        self.passes.iter().map(|pass| {
            let served = pass.cells.iter().map(|&cell| self.cells[cell].length);
            let mut serves: Vec<usize> = served.collect();
            serves.sort_unstable();
            serves.dedup();
            Planned {
                what: PERPLEXITY,
                method: self.config.methods[pass.method].name.clone(),
                length: pass.length,
                passes: pass.starts.len(),
                serves,
                cost: pass.cost,
            }
        })
    }

    fn run(&self, model: &Transformer, folder: &mut RunFolder, memory: &mut Memory) -> Result<()> {
        let keys = self.keys(model);
        let name = |cell: usize| self.config.methods[self.cells[cell].method].name.as_str();
        let missing = |folder: &RunFolder, pass: &Pass| {
            let cells = pass.cells.iter().copied();
            cells
                .filter(|&cell| !folder.perplexity.has(&keys[cell], name(cell)))
                .collect::<Vec<_>>()
        };
        let todo: Vec<&Pass> = self
            .passes
            .iter()
            .filter(|pass| !missing(folder, pass).is_empty())
            .collect();
        let to_compute: usize = todo.iter().map(|pass| missing(folder, pass).len()).sum();
        if to_compute < keys.len() {
            crate::tell(format_args!(
                "{} of {} cells are there already",
                keys.len() - to_compute,
                keys.len()
            ));
        }

        let bar = progress_bar(&todo);
        for pass in todo {
            let method = &self.config.methods[pass.method];
            let name = &method.name;
            bar.set_message(format!("{name}, {} tokens", pass.length));
            let windows = pass.starts.len() as u64;
            if !memory.fits(PERPLEXITY, name, pass.length, pass.cost.bytes) {
                bar.inc((windows * pass.cost.operations) >> SHIFT);
                continue;
            }
            let key = pass.key(method, self.perplexity, model, &self.stream);
            let losses = match folder.read_nll(&key, pass.starts.len(), pass.length) {
                Some(losses) => {
                    bar.inc((windows * pass.cost.operations) >> SHIFT);
                    losses
                }
                None => {
                    let losses = self
                        .execute(model, pass, &bar)
                        .with_context(|| format!("method \"{name}\", {} tokens", pass.length))?;
                    folder.write_nll(&key, pass.length, &pass.starts, &self.stream, &losses)?;
                    losses
                }
            };
            for index in missing(folder, pass) {
                let record = self.record(
                    model,
                    (&keys[index], &self.cells[index]),
                    (&key, pass),
                    &losses,
                );
                if bar.is_hidden() {
                    crate::tell(report::one_line(&record));
                }
                folder.perplexity.append(record)?;
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Feeds the windows of a pass.
    fn execute(&self, model: &Transformer, pass: &Pass, bar: &ProgressBar) -> Result<PassLosses> {
        let device = model.device();
        memory::start_peak(&device);
        let start = Instant::now();
        let method = &self.config.methods[pass.method];
        let plan = model.plan(method, cells::lengths_of(self.perplexity, pass.length))?;
        let mut nll = Vec::with_capacity(pass.starts.len());
        for starts in pass.starts.chunks(sequences_together(pass.length)) {
            let window = |&start: &usize| &self.stream.ids[start..start + pass.length];
            let ids: Vec<u32> = starts.iter().flat_map(window).copied().collect();
            let losses = model.nll(&ids, &plan)?;
            nll.extend(losses.chunks(pass.length - 1).map(<[f32]>::to_vec));
            bar.inc((starts.len() as u64 * pass.cost.operations) >> SHIFT);
        }
        Ok(PassLosses {
            nll,
            seconds: start.elapsed().as_secs_f64(),
            peak_bytes: memory::peak(&device),
        })
    }

    /// The record of a cell from the losses of its pass, each with its key.
    fn record(
        &self,
        model: &Transformer,
        (cell_key, cell): (&str, &Cell),
        (pass_key, pass): (&str, &Pass),
        losses: &PassLosses,
    ) -> Record {
        let config = self.config;
        let method = &config.methods[cell.method];
        let nll: Vec<&[f32]> = losses
            .nll
            .iter()
            .map(|nll| &nll[..cell.length - 1])
            .collect();
        let score = protocol::score(cell.protocol.average(), &cell.windows, &nll);
        let finite = |x: f64| x.is_finite().then_some(x);
        Record {
            key: cell_key.to_owned(),
            method: method.name.clone(),
            length: cell.length,
            protocol: cell.protocol,
            protocol_detail: cell.protocol.describe(self.perplexity),
            average: cell.protocol.average(),
            settings: method.settings(),
            model: config.model.path.clone(),
            checkpoint: model.digest().to_owned(),
            tokenizer: self.tokenizer.digest().to_owned(),
            data: config.data.path.clone(),
            data_digest: cell.data_digest(&self.stream),
            dtype: model.types(),
            device: model.device_kind().to_owned(),
            trained_length: model.config().trained,
            prefill: self.perplexity.prefill,
            pass_length: pass.length,
            nll_file: RunFolder::nll_file(pass_key),
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
}

fn progress_bar(passes: &[&Pass]) -> ProgressBar {
    let total = passes
        .iter()
        .map(|pass| (pass.starts.len() as u64 * pass.cost.operations) >> SHIFT)
        .sum();
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %, {eta} left: {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style)
}
