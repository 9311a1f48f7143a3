//! The grid of lengths, tasks, scorers and depths, and the questions at each of its points.

use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use longspan_data::{Corpus, Place, Tokenizer};
use rand::SeedableRng;

use crate::config::{DataConfig, NamedTask, NeedleConfig};
use crate::measure::check_ids;
use crate::tasks::{Question, Scorer, TaskRng};

/// Tokens that a model may generate beyond the length of the expected answer.
pub const SPARE: usize = 8;

/// A point of the grid, at which every method has a cell.
#[derive(Clone, Debug)]
pub struct GridPoint {
    /// Index into the tasks of the run.
    pub task: usize,
    /// How the task is scored.
    pub scorer: Scorer,
    /// Tokens fed when the last answer token is scored.
    pub length: usize,
    /// Fraction of the haystack before the needle.
    pub depth: f64,
    /// Digest of prompts, answers and values.
    pub digest: String,
}

/// Builds the prompts of a run.
pub struct Prompts {
    needle: NeedleConfig,
    tokenizer: Rc<Tokenizer>,
    /// The tasks, in the order of the config.
    tasks: Vec<NamedTask>,
    /// The beginning of the corpus, documents concatenated.
    haystack: Vec<u32>,
}

impl Prompts {
    /// Reads as much of the corpus as the trials need.
    ///
    /// # Errors
    /// A document cannot be read, the corpus is too short, or a token id is outside the model's
    /// `vocabulary`.
    pub fn new(
        data: &DataConfig,
        needle: NeedleConfig,
        tokenizer: Rc<Tokenizer>,
        vocabulary: usize,
    ) -> Result<Self> {
        let (longest, keys) = (needle.longest(), needle.keys);
        let enough = keys.saturating_mul(longest);
        let mut haystack = Vec::new();
        for document in Corpus::open(&data.path, &data.text_field)?.documents() {
            let document = document?;
            let ids = tokenizer.encode(&document.text);
            check_ids(&document.source, &ids, &tokenizer, vocabulary)?;
            haystack.extend(ids);
            if haystack.len() >= enough {
                haystack.truncate(enough);
                break;
            }
        }
        ensure!(
            haystack.len() >= (longest - 1).saturating_add(keys),
            "data.path = \"{}\": all documents hold {} tokens together, needle.lengths asks for {longest} and \
             needle.keys for {keys} different stretches; lower the length or give more text",
            data.path,
            haystack.len()
        );
        if haystack.len() < enough {
            log::warn!(
                "data.path = \"{}\": {} tokens are less than needle.keys = {keys} times {longest}: the \
                 haystacks of different keys overlap",
                data.path,
                haystack.len()
            );
        }
        Ok(Self {
            tasks: needle.tasks()?,
            needle,
            tokenizer,
            haystack,
        })
    }

    /// Every point of the grid, by length, task, scorer and depth.
    ///
    /// # Errors
    /// A question does not fit into its length, or a token id is outside the model's `vocabulary`.
    pub fn grid(&self, vocabulary: usize) -> Result<Vec<GridPoint>> {
        let mut grid = Vec::new();
        for &length in &self.needle.lengths {
            for (index, task) in self.tasks.iter().enumerate() {
                for scorer in self.needle.scorers() {
                    for depth in self.needle.depths_of(task)? {
                        let mut point = GridPoint {
                            task: index,
                            scorer,
                            length,
                            depth,
                            digest: String::new(),
                        };
                        let questions = self.at(&point)?;
                        let name = format!("needle.task {:?}", task.name);
                        for Question { prompt, .. } in &questions {
                            let ids = [&prompt.ids[..], &prompt.answer.concat()].concat();
                            check_ids(&name, &ids, &self.tokenizer, vocabulary)?;
                        }
                        point.digest = digest_of(&questions);
                        grid.push(point);
                    }
                }
            }
        }
        Ok(grid)
    }

    /// The task of a point.
    pub fn task(&self, point: &GridPoint) -> &NamedTask {
        &self.tasks[point.task]
    }

    /// The name of the task of a point.
    pub fn name(&self, point: &GridPoint) -> &str {
        &self.task(point).name
    }

    /// The trials at a point. What a trial draws depends only on the seed, the depth and the
    /// trial's number, so methods, lengths and scorers get the same questions; its haystack depends
    /// only on its number.
    ///
    /// # Errors
    /// A question does not fit into its length.
    pub fn at(&self, point: &GridPoint) -> Result<Vec<Question>> {
        let task = self.task(point);
        let spare = match point.scorer {
            Scorer::TeacherForced => 0,
            Scorer::Generate => SPARE,
        };
        let place = Place {
            fed: point.length,
            spare,
            depth: point.depth,
        };
        let keys = self.needle.keys;
        let slack = self.haystack.len() - self.needle.longest();
        let trials = (0..keys).map(|trial| {
            let haystack = &self.haystack[trial * slack / (keys - 1)..];
            let rng = &mut rng(self.needle.seed, point.depth, trial);
            let question = task.question(place, haystack, &self.tokenizer, rng);
            question.with_context(|| format!("needle.lengths: {}", point.length))
        });
        trials.collect()
    }
}

fn rng(seed: u32, depth: f64, trial: usize) -> TaskRng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(&depth.to_le_bytes());
    hasher.update(&(trial as u64).to_le_bytes());
    TaskRng::from_seed(*hasher.finalize().as_bytes())
}

/// Digest of everything that is fed and everything that is expected.
fn digest_of(questions: &[Question]) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |bytes: &mut dyn Iterator<Item = u8>| {
        let bytes: Vec<u8> = bytes.collect();
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(&bytes);
    };
    for Question { prompt, values, .. } in questions {
        for ids in std::iter::once(&prompt.ids).chain(&prompt.answer) {
            add(&mut ids.iter().flat_map(|id| id.to_le_bytes()));
        }
        for value in values {
            add(&mut value.bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests;
