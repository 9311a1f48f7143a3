//! From a config and its text to prompts, and from them to keys.

use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use longspan_data::{Corpus, Needle, NeedleTask, Place, Prompt, Tokenizer};
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

use super::config::{NeedleConfig, Scorer};
use crate::cells::check_ids;
use crate::config::RunConfig;

/// Tokens that a model may write beyond those of the right answer.
pub const SPARE: usize = 8;

/// A place in the grid of lengths and depths; every method has a cell there.
#[derive(Clone, Debug)]
pub struct GridPoint {
    /// Index into the tasks.
    pub task: usize,
    /// How it is judged.
    pub scorer: Scorer,
    /// Tokens fed when the last answer token is scored.
    pub length: usize,
    /// Fraction of the haystack before the needle.
    pub depth: f64,
    /// Digest of the prompts and answers.
    pub digest: String,
}

/// What prompts are made of.
pub struct Prompts<'a> {
    needle: &'a NeedleConfig,
    tokenizer: Rc<Tokenizer>,
    /// The tasks, in the order of the config.
    pub tasks: Vec<NeedleTask>,
    /// Tokens of the corpus.
    haystack: Vec<u32>,
}

impl<'a> Prompts<'a> {
    /// Reads as much of the corpus as the trials need.
    ///
    /// # Errors
    /// A broken corpus, too little text, an id outside the model's vocabulary.
    pub fn new(
        config: &'a RunConfig,
        needle: &'a NeedleConfig,
        tokenizer: Rc<Tokenizer>,
        vocabulary: usize,
    ) -> Result<Self> {
        let data = &config.data;
        let (longest, keys) = (needle.longest(), needle.keys);
        let mut haystack = Vec::new();
        for document in Corpus::open(&data.path, &data.text_field)?.documents() {
            let document = document?;
            let ids = tokenizer.encode(&document.text);
            check_ids(&document.source, &ids, &tokenizer, vocabulary)?;
            haystack.extend(ids);
            if haystack.len() >= keys.saturating_mul(longest) {
                haystack.truncate(keys.saturating_mul(longest));
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
        if haystack.len() < keys.saturating_mul(longest) {
            crate::tell(format_args!(
                "warning: data.path = \"{}\": {} tokens are less than needle.keys = {keys} times {longest}: the \
                 haystacks of different keys overlap",
                data.path,
                haystack.len()
            ));
        }
        Ok(Self {
            needle,
            tokenizer,
            tasks: needle.tasks()?,
            haystack,
        })
    }

    /// Every place in the grid, by length, task, scorer and depth.
    ///
    /// # Errors
    /// A length that is too short for its needles, or prompts with ids outside the model's vocabulary.
    pub fn grid(&self, vocabulary: usize) -> Result<Vec<GridPoint>> {
        let mut grid = Vec::new();
        for &length in &self.needle.lengths {
            for task in 0..self.tasks.len() {
                for scorer in self.needle.scorers() {
                    for depth in self.needle.depths()? {
                        let digest = String::new();
                        let mut point = GridPoint {
                            task,
                            scorer,
                            length,
                            depth,
                            digest,
                        };
                        let prompts = self.at(&point)?;
                        for (_, prompt) in &prompts {
                            let ids = [&prompt.ids[..], &prompt.answer.concat()].concat();
                            let name = format!("needle.task {:?}", self.tasks[task].name);
                            check_ids(&name, &ids, &self.tokenizer, vocabulary)?;
                        }
                        point.digest = digest_of(&prompts);
                        grid.push(point);
                    }
                }
            }
        }
        Ok(grid)
    }

    /// The trials at a place in the grid. Each is a pure function of the seed, its number and the depth, so that
    /// methods, lengths and scorers are asked the same; its haystack depends on its number alone.
    ///
    /// # Errors
    /// A length that is too short for its needles.
    pub fn at(&self, point: &GridPoint) -> Result<Vec<(Needle, Prompt)>> {
        let task = &self.tasks[point.task];
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
            let needle = task.draw(&mut rng(self.needle.seed, point.depth, trial));
            let haystack = &self.haystack[trial * slack / (keys - 1)..];
            let prompt = task.hide(&needle, place, haystack, &self.tokenizer);
            let prompt = prompt.with_context(|| format!("needle.lengths: {}", point.length))?;
            Ok((needle, prompt))
        });
        trials.collect()
    }
}

fn rng(seed: u32, depth: f64, trial: usize) -> Xoshiro256PlusPlus {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(&depth.to_le_bytes());
    hasher.update(&(trial as u64).to_le_bytes());
    Xoshiro256PlusPlus::from_seed(*hasher.finalize().as_bytes())
}

/// Digest of all that is fed and all that is expected.
fn digest_of(prompts: &[(Needle, Prompt)]) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |bytes: &mut dyn Iterator<Item = u8>| {
        let bytes: Vec<u8> = bytes.collect();
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(&bytes);
    };
    for (needle, prompt) in prompts {
        for ids in std::iter::once(&prompt.ids).chain(&prompt.answer) {
            add(&mut ids.iter().flat_map(|id| id.to_le_bytes()));
        }
        for value in &needle.values {
            add(&mut value.bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}
