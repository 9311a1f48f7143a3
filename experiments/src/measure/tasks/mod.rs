//! The needle part of a run: cells, passes, records.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use longspan_data::{Needle, Prompt, Tokenizer};
use longspan_model::{Decoder, PassCost, Transformer, Architecture};
use longspan_rope::Length;
use serde_json::json;

use super::cells::{GridPoint, Prompts, SPARE};
use super::config::{NeedleConfig, Scorer};
use super::record::{NeedleRecord, Trial};
use super::score::{self, Laid};
use crate::cells;
use crate::config::RunConfig;
use crate::log::Log;
use crate::memory::{self, Memory};
use crate::plan::Planned;
use crate::run::SHIFT;

/// Raised when a change of the program changes what is asked or how it is judged for the same prompts.
const NEEDLE: u32 = 1;
/// What the passes of this file measure, in plans and refusals.
pub const NEEDLE_CELLS: &str = "needle";

/// All cells of `[needle]`.
pub struct NeedleRun<'a> {
    config: &'a RunConfig,
    tokenizer: Rc<Tokenizer>,
    prompts: Prompts<'a>,
    grid: Vec<GridPoint>,
    /// What a pass costs, by method and length.
    costs: HashMap<(usize, usize), PassCost>,
}

/// A method at a place in the grid.
struct Cell<'a> {
    method: usize,
    point: &'a GridPoint,
    key: String,
}

impl<'a> NeedleRun<'a> {
    /// Builds and checks everything but the model's weights.
    ///
    /// # Errors
    /// Text or prompts that do not do; a method that does not fit the model.
    pub fn new(
        config: &'a RunConfig,
        needle: &'a NeedleConfig,
        tokenizer: Rc<Tokenizer>,
        model: &Architecture,
    ) -> Result<Self> {
        let prompts = Prompts::new(config, needle, tokenizer.clone(), model.vocab_size)?;
        let grid = prompts.grid(model.vocab_size)?;
        let mut costs = HashMap::new();
        for (index, method) in config.methods.iter().enumerate() {
            for &total in &needle.lengths {
                let plans = cells::plans(
                    &model.geometry(),
                    method,
                    Length {
                        total,
                        prefill: total,
                    },
                )?;
                let mut cost = model.pass_cost(&plans, 1);
                if needle.scorers().contains(&Scorer::Generate) {
                    let options = score::options(total);
                    cost.bytes += Decoder::cache_bytes(model, method, options)?;
                }
                costs.insert((index, total), cost);
            }
        }
        Ok(Self {
            config,
            tokenizer,
            prompts,
            grid,
            costs,
        })
    }

    /// All passes, by length and method.
    ///
    /// # Errors
    /// Prompts that cannot be made.
    pub fn planned(&self) -> Result<Vec<Planned>> {
        let mut planned = Vec::new();
        for points in self.grid.chunk_by(|a, b| a.length == b.length) {
            let length = points[0].length;
            let mut count = 0;
            for point in points {
                count += self.prompts.at(point)?.len();
            }
            let methods = self.config.methods.iter().enumerate();
            planned.extend(methods.map(|(method, settings)| Planned {
                what: NEEDLE_CELLS,
                method: settings.name.clone(),
                length,
                passes: count,
                serves: vec![length],
                cost: self.costs[&(method, length)],
            }));
        }
        Ok(planned)
    }

    /// The keys of all cells.
    pub fn keys(&self, model: &Transformer) -> Vec<String> {
        self.cells(model).into_iter().map(|cell| cell.key).collect()
    }

    /// Every cell, by length and method, so that passes of one plan follow each other.
    fn cells(&self, model: &Transformer) -> Vec<Cell<'_>> {
        let mut cells = Vec::new();
        for points in self.grid.chunk_by(|a, b| a.length == b.length) {
            for (method, settings) in self.config.methods.iter().enumerate() {
                let identity = cells::model_identity(settings, None, model);
                cells.extend(points.iter().map(|point| Cell {
                    method,
                    point,
                    key: cells::digest(json!({
                        "needle": NEEDLE,
                        "model": identity,
                        "task": self.prompts.tasks[point.task].name,
                        "scorer": point.scorer,
                        "length": point.length,
                        "depth": point.depth,
                        "spare": SPARE,
                        "data": point.digest,
                    })),
                }));
            }
        }
        cells
    }

    /// Fills the cells that have no record yet.
    ///
    /// # Errors
    /// A pass that fails; a record that cannot be written.
    pub fn run(
        &self,
        model: &Transformer,
        log: &mut Log<NeedleRecord>,
        memory: &mut Memory,
    ) -> Result<()> {
        let cells = self.cells(model);
        let name = |cell: &Cell| self.config.methods[cell.method].name.as_str();
        let todo: Vec<&Cell> = (cells.iter())
            .filter(|cell| !log.has(&cell.key, name(cell)))
            .collect();
        if todo.len() < cells.len() {
            let done = cells.len() - todo.len();
            crate::tell(format_args!(
                "{done} of {} needle cells are there already",
                cells.len()
            ));
        }
        let prompts_of = |cell: &Cell| self.prompts.at(cell.point);
        let work = |cell: &Cell, prompts: &[(Needle, Prompt)]| {
            let cost = self.costs[&(cell.method, cell.point.length)];
            (prompts.len() as u64 * cost.operations) >> SHIFT
        };
        let mut total = 0;
        for cell in &todo {
            total += work(cell, &prompts_of(cell)?);
        }
        let style = ProgressStyle::with_template("{bar:30} {percent:>3} %, {eta} left: {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total).with_style(style);
        let same_pass =
            |a: &&Cell, b: &&Cell| a.method == b.method && a.point.length == b.point.length;
        for group in todo.chunk_by(same_pass) {
            let (method, length) = (group[0].method, group[0].point.length);
            let need = self.costs[&(method, length)].bytes;
            if !memory.fits(NEEDLE_CELLS, name(group[0]), length, need) {
                for cell in group {
                    bar.inc(work(cell, &prompts_of(cell)?));
                }
                continue;
            }
            let mut laid = Laid::new(model, &self.config.methods[method]);
            for cell in group {
                let task = &self.prompts.tasks[cell.point.task].name;
                bar.set_message(format!("{}, {length} tokens, {task}", name(cell)));
                let prompts = prompts_of(cell)?;
                let record = self
                    .ask(model, &mut laid, cell, &prompts)
                    .with_context(|| {
                        format!("method \"{}\", {length} tokens, task {task}", name(cell))
                    })?;
                bar.inc(work(cell, &prompts));
                if bar.is_hidden() {
                    crate::tell(super::one_line(&record));
                }
                log.append(record)?;
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Puts the questions of a cell to the model.
    fn ask(
        &self,
        model: &Transformer,
        laid: &mut Laid,
        cell: &Cell,
        prompts: &[(Needle, Prompt)],
    ) -> Result<NeedleRecord> {
        let device = model.device();
        memory::start_peak(&device);
        let (start, before) = (Instant::now(), laid.fed);
        let text = |ids: &[u32]| score::text_of(&self.tokenizer, ids.iter().copied());
        let found = |needle: &Needle, ids: &[u32]| score::values_found(&needle.values, &text(ids));
        // What each trial gave, and which of its values are right.
        let answers: Vec<(String, Vec<bool>)> = match cell.point.scorer {
            Scorer::TeacherForced => {
                let mut answers = Vec::new();
                for (_, prompt) in prompts {
                    let given = score::teacher_forced(laid, prompt)?;
                    let shown = score::text_of(&self.tokenizer, given.iter().copied().flatten());
                    answers.push((shown, score::parts_right(prompt, &given)));
                }
                answers
            }
            Scorer::Generate => {
                let ids: Vec<&Prompt> = prompts.iter().map(|(_, prompt)| prompt).collect();
                let done = |trial: usize, written: &[u32]| {
                    let last = written.last();
                    last.is_some_and(|&id| self.tokenizer.is_special(id))
                        || found(&prompts[trial].0, written)
                            .into_iter()
                            .all(|found| found)
                };
                let written = score::generate(laid, &ids, SPARE, done)?;
                let judged = prompts.iter().zip(written);
                judged
                    .map(|((needle, _), ids)| (text(&ids), found(needle, &ids)))
                    .collect()
            }
        };
        let seconds = start.elapsed().as_secs_f64();

        let trials = prompts
            .iter()
            .zip(&answers)
            .map(|((needle, prompt), (given, right))| Trial {
                expected: needle.answer.clone(),
                given: given.clone(),
                score: fraction(right),
                depth: prompt.depth,
            });
        let trials: Vec<Trial> = trials.collect();
        let mean =
            |value: fn(&Trial) -> f64| trials.iter().map(value).sum::<f64>() / trials.len() as f64;
        let score = mean(|trial| trial.score);
        let right = || answers.iter().flat_map(|answer| &answer.1);
        let method = &self.config.methods[cell.method];
        Ok(NeedleRecord {
            key: cell.key.clone(),
            method: method.name.clone(),
            task: self.prompts.tasks[cell.point.task].name.clone(),
            scorer: cell.point.scorer,
            length: cell.point.length,
            depth: cell.point.depth,
            achieved_depth: mean(|trial| trial.depth),
            score,
            interval: score::wilson(score, trials.len()),
            correct: right().filter(|&&right| right).count(),
            asked: right().count(),
            settings: method.settings(),
            model: self.config.model.path.clone(),
            checkpoint: model.digest().to_owned(),
            tokenizer: self.tokenizer.digest().to_owned(),
            data: self.config.data.path.clone(),
            data_digest: cell.point.digest.clone(),
            dtype: model.types(),
            device: model.device_kind().to_owned(),
            trained_length: model.config().trained,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seconds,
            tokens_per_second: (laid.fed - before) as f64 / seconds,
            peak_bytes: memory::peak(&device),
            trials,
        })
    }
}

fn fraction(right: &[bool]) -> f64 {
    right.iter().filter(|&&right| right).count() as f64 / right.len() as f64
}
