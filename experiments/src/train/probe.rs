//! Periodic evaluation during training: recall of needles and held-out perplexity, at the trained
//! length under plain RoPE.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, ensure};
use longspan_attention::Method;
use longspan_data::{Corpus, Place, Prompt, Tokenizer};
use longspan_model::Transformer;
use longspan_rope::Length;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::config::TrainConfig;
use crate::tasks::template;

/// Most windows of a held-out text.
const WINDOWS: usize = 48;

/// Results of one probe.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProbeResults {
    /// By task: share of answers whose tokens are all the most probable ones.
    pub recall: BTreeMap<String, f64>,
    /// Perplexity by text.
    pub perplexity: BTreeMap<String, f64>,
}

impl fmt::Display for ProbeResults {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let recall = (self.recall.iter()).map(|(name, x)| format!("{name} {:.0} %", 100.0 * x));
        let perplexity = (self.perplexity.iter()).map(|(name, x)| format!("{name} ppl {x:.2}"));
        f.write_str(&recall.chain(perplexity).collect::<Vec<_>>().join(", "))
    }
}

/// Prompts and windows of text, the same for every evaluation of a training.
pub struct Probe {
    /// Steps between evaluations.
    pub every: u64,
    length: usize,
    prompts: BTreeMap<String, Vec<Prompt>>,
    windows: BTreeMap<String, Vec<Vec<u32>>>,
}

impl Probe {
    /// Prepares the probe of a config; `None` if the config has none.
    ///
    /// # Errors
    /// A text cannot be read or is too short, or a needle does not fit.
    pub fn open(config: &TrainConfig, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let Some(probe) = &config.probe else {
            return Ok(None);
        };
        let length = config.model.trained;
        let mut windows = BTreeMap::new();
        for (name, path) in &probe.text {
            windows.insert(name.clone(), cut_windows(path, length, tokenizer)?);
        }
        let haystacks: Vec<&Vec<u32>> = windows.values().flatten().collect();
        let mut prompts = BTreeMap::new();
        for name in &probe.tasks {
            let drawn = draw_prompts(
                name,
                probe.trials,
                length,
                &haystacks,
                config.seed,
                tokenizer,
            );
            prompts.insert(name.clone(), drawn.context("probe.tasks")?);
        }
        Ok(Some(Probe {
            every: probe.every,
            length,
            prompts,
            windows,
        }))
    }

    /// Evaluates a model.
    ///
    /// # Errors
    /// A token is not in the model's vocabulary.
    pub fn run(&self, model: &Transformer) -> Result<ProbeResults> {
        let plan = model.plan(&Method::named("plain"), Length::whole(self.length))?;
        let mut results = ProbeResults::default();
        for (name, windows) in &self.windows {
            let (mut sum, mut count) = (0.0, 0);
            for ids in windows {
                let nll = model.nll(ids, &plan)?;
                sum += nll.iter().map(|&x| f64::from(x)).sum::<f64>();
                count += nll.len();
            }
            // JSON has no infinity.
            let perplexity = (sum / count as f64).exp().min(f64::MAX);
            results.perplexity.insert(name.clone(), perplexity);
        }
        for (name, prompts) in &self.prompts {
            let mut right = 0;
            for prompt in prompts {
                let answer: Vec<u32> = prompt.answer.concat();
                // The last answer token is a target only.
                let ids = [&prompt.ids[..], &answer[..answer.len() - 1]].concat();
                let rows = ids.len() - answer.len()..ids.len();
                let best = model.most_likely(&ids, &plan, rows)?;
                right += usize::from(best.into_iter().eq(answer.into_iter().map(Some)));
            }
            let share = right as f64 / prompts.len() as f64;
            results.recall.insert(name.clone(), share);
        }
        Ok(results)
    }
}

/// Cuts up to [`WINDOWS`] windows of `length` tokens from a text, spread over its first documents
/// and, within each document, over its length.
fn cut_windows(path: &str, length: usize, tokenizer: &Tokenizer) -> Result<Vec<Vec<u32>>> {
    let documents: Vec<Vec<u32>> = (Corpus::open(path, "text")?.documents())
        .take(WINDOWS)
        .map(|document| Ok(tokenizer.encode(&document?.text)))
        .collect::<Result<_>>()?;
    let per_document = WINDOWS.div_ceil(documents.len().max(1));
    let windows: Vec<Vec<u32>> = (documents.iter())
        .flat_map(|ids| {
            let stride = (ids.len() / per_document).max(length);
            ids.chunks(stride)
                .filter_map(|chunk| chunk.get(..length))
                .map(<[u32]>::to_vec)
        })
        .take(WINDOWS)
        .collect();
    ensure!(
        !windows.is_empty(),
        "{path}: no document of {length} tokens"
    );
    Ok(windows)
}

/// Draws the prompts of a task: one per trial, depths evenly spaced from 0 to 1.
fn draw_prompts(
    task: &str,
    trials: usize,
    length: usize,
    haystacks: &[&Vec<u32>],
    seed: u64,
    tokenizer: &Tokenizer,
) -> Result<Vec<Prompt>> {
    let task = template(task)?;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed ^ 0x0070_726F_6265);
    (0..trials)
        .map(|trial| {
            let place = Place {
                fed: length,
                spare: 0,
                depth: trial as f64 / (trials - 1).max(1) as f64,
            };
            let haystack = haystacks[trial * 7 % haystacks.len()];
            Ok(task.ask(place, haystack, tokenizer, &mut rng)?.prompt)
        })
        .collect()
}
