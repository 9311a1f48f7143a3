//! Tasks by context length and depth.

mod answer;
mod grid;

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};
use longspan_attention::Method;
use longspan_data::Tokenizer;
use longspan_model::{Architecture, Decoder, PassCost};
use longspan_rope::Length;
use serde_json::json;

use super::keys::{digest, model_identity};
use super::{Measure, Output, Pass, Todo, plans};
use crate::config::{NeedleConfig, RunConfig};
use crate::folder::{Provenance, TaskRecord, Trial};
use crate::memory;
use crate::session::{Identity, LanguageModel, Session, exact_cache};
use crate::tasks::{Question, Scorer};
use grid::{GridPoint, Prompts, SPARE};

pub use answer::wilson;

/// Raised when a change of the program changes what is asked or how it is judged for the same
/// prompts.
const NEEDLE: u32 = 1;

/// All cells of `[needle]`.
pub struct Tasks {
    config: Rc<RunConfig>,
    tokenizer: Rc<Tokenizer>,
    prompts: Prompts,
    grid: Vec<GridPoint>,
    cells: Vec<Cell>,
    passes: Vec<Pass>,
}

/// A method at a point of the grid.
struct Cell {
    method: usize,
    /// Index into the grid.
    point: usize,
}

impl Tasks {
    /// Builds and checks all prompts, and plans the passes.
    ///
    /// # Errors
    /// Text or prompts that do not fit the lengths; a method that does not fit the model.
    pub fn new(
        config: Rc<RunConfig>,
        needle: NeedleConfig,
        tokenizer: Rc<Tokenizer>,
        model: &Architecture,
    ) -> Result<Self> {
        let trials = needle.keys;
        let vocabulary = model.vocab_size;
        let prompts = Prompts::new(&config.data, needle.clone(), tokenizer.clone(), vocabulary)?;
        let grid = prompts.grid(vocabulary)?;
        let costs = costs(&config.methods, &needle, model)?;
        let (mut cells, mut passes) = (Vec::new(), Vec::new());
        // By length and method, so that cells of one plan follow each other.
        let mut start = 0;
        for points in grid.chunk_by(|a, b| a.length == b.length) {
            let length = points[0].length;
            for method in 0..config.methods.len() {
                let first = cells.len();
                cells.extend((start..start + points.len()).map(|point| Cell { method, point }));
                passes.push(Pass {
                    method,
                    length,
                    sequences: points.len() * trials,
                    cells: (first..cells.len()).collect(),
                    serves: vec![length],
                    cost: costs[&(method, length)],
                });
            }
            start += points.len();
        }
        Ok(Tasks {
            config,
            tokenizer,
            prompts,
            grid,
            cells,
            passes,
        })
    }

    /// Asks the model the questions of a cell.
    fn ask<M: LanguageModel>(
        &self,
        session: &mut Session<M>,
        cell: &Cell,
        key: &str,
    ) -> Result<TaskRecord> {
        let point = &self.grid[cell.point];
        let questions = self.prompts.at(point)?;
        let device = session.model().device();
        memory::start_peak(&device);
        let (start, before) = (Instant::now(), session.fed);
        let answers = self.answers(session, point, &questions)?;
        let seconds = start.elapsed().as_secs_f64();
        let trials: Vec<Trial> = (questions.iter().zip(&answers))
            .map(|(question, (given, right))| Trial {
                expected: question.answer.clone(),
                given: given.clone(),
                score: fraction(right),
                depth: question.prompt.depth,
            })
            .collect();
        let mean =
            |value: fn(&Trial) -> f64| trials.iter().map(value).sum::<f64>() / trials.len() as f64;
        let score = mean(|trial| trial.score);
        let right = || answers.iter().flat_map(|answer| &answer.1);
        let model = session.model().identity();
        let method = session.method();
        Ok(TaskRecord {
            provenance: Provenance {
                key: key.to_owned(),
                method: method.name.clone(),
                length: point.length,
                settings: method.settings(),
                model: self.config.model.path.clone(),
                checkpoint: model.checkpoint,
                tokenizer: self.tokenizer.digest().to_owned(),
                data: self.config.data.path.clone(),
                data_digest: point.digest.clone(),
                dtype: model.dtype,
                device: model.device,
                trained_length: model.trained,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                seconds,
                tokens_per_second: (session.fed - before) as f64 / seconds,
                peak_bytes: memory::peak(&device),
            },
            task: self.prompts.name(point).to_owned(),
            scorer: point.scorer,
            depth: point.depth,
            achieved_depth: mean(|trial| trial.depth),
            score,
            interval: wilson(score, trials.len()),
            correct: right().filter(|&&right| right).count(),
            asked: right().count(),
            trials,
        })
    }

    /// For each question the model's answer, and which of its values are right.
    fn answers<M: LanguageModel>(
        &self,
        session: &mut Session<M>,
        point: &GridPoint,
        questions: &[Question],
    ) -> Result<Vec<(String, Vec<bool>)>> {
        let text = |ids: &[u32]| answer::text_of(&self.tokenizer, ids.iter().copied());
        let task = self.prompts.task(point);
        let answer = |question: &Question| match point.scorer {
            Scorer::TeacherForced => {
                let given = answer::teacher_forced(session, &question.prompt)?;
                let shown = answer::text_of(&self.tokenizer, given.iter().copied().flatten());
                Ok((shown, answer::parts_right(&question.prompt, &given)))
            }
            Scorer::Generate => {
                let mut done = |written: &[u32]| {
                    let special = written
                        .last()
                        .is_some_and(|&id| self.tokenizer.is_special(id));
                    special
                        || task
                            .judge(question, &text(written))
                            .iter()
                            .all(|&right| right)
                };
                let written = answer::generate(session, &question.prompt, SPARE, &mut done)?;
                let written = text(&written);
                let right = task.judge(question, &written);
                Ok((written, right))
            }
        };
        questions.iter().map(answer).collect()
    }
}

/// Cost of a pass, by method and length.
fn costs(
    methods: &[Method],
    needle: &NeedleConfig,
    model: &Architecture,
) -> Result<HashMap<(usize, usize), PassCost>> {
    let mut costs = HashMap::new();
    for (index, method) in methods.iter().enumerate() {
        for &total in &needle.lengths {
            let plans = plans(&model.geometry(), method, Length::whole(total))?;
            let mut cost = model.pass_cost(&plans, 1);
            if needle.scorers().contains(&Scorer::Generate) {
                cost.bytes += Decoder::cache_bytes(model, method, exact_cache(total))?;
            }
            costs.insert((index, total), cost);
        }
    }
    Ok(costs)
}

fn fraction(right: &[bool]) -> f64 {
    right.iter().filter(|&&right| right).count() as f64 / right.len() as f64
}

impl Measure for Tasks {
    type Record = TaskRecord;

    const NAME: &'static str = "needle";

    fn methods(&self) -> &[Method] {
        &self.config.methods
    }

    fn passes(&self) -> &[Pass] {
        &self.passes
    }

    fn keys(&self, model: &Identity) -> Vec<String> {
        let key = |cell: &Cell| {
            let point = &self.grid[cell.point];
            digest(json!({
                "needle": NEEDLE,
                "model": model_identity(&self.config.methods[cell.method], None, model),
                "task": self.prompts.task(point).identity(),
                "scorer": point.scorer,
                "length": point.length,
                "depth": point.depth,
                "spare": SPARE,
                "data": point.digest,
            }))
        };
        self.cells.iter().map(key).collect()
    }

    fn sequences(&self, pass: &Pass, cells: &[usize]) -> usize {
        pass.sequences / pass.cells.len() * cells.len()
    }

    fn execute<M: LanguageModel>(
        &self,
        session: &mut Session<M>,
        todo: &Todo,
        output: &mut Output<TaskRecord>,
    ) -> Result<()> {
        let trials = todo.pass.sequences / todo.pass.cells.len();
        for &index in &todo.missing {
            let cell = &self.cells[index];
            let task = self.prompts.name(&self.grid[cell.point]);
            let method = &session.method().name;
            output.show(format!("{method}, {} tokens, {task}", todo.pass.length));
            let record = self
                .ask(session, cell, &todo.keys[index])
                .with_context(|| format!("task {task}"))?;
            output.advance(trials, todo.pass.cost);
            output.record(record)?;
        }
        Ok(())
    }
}
