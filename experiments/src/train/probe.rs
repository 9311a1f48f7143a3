//! What a training is watched by: recall of needles and held-out perplexity, at the trained length.

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
use super::mixture::task;

/// Windows of held-out text whose perplexity is measured.
const WINDOWS: usize = 48;

/// A probe's results.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Probed {
    /// Share of answers all of whose tokens are the most probable ones, by task.
    pub recall: BTreeMap<String, f64>,
    /// Perplexity, by text.
    pub perplexity: BTreeMap<String, f64>,
}

impl fmt::Display for Probed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let recall = self
            .recall
            .iter()
            .map(|(name, x)| format!("{name} {:.0} %", 100.0 * x));
        let perplexity = (self.perplexity.iter()).map(|(name, x)| format!("{name} ppl {x:.2}"));
        f.write_str(&recall.chain(perplexity).collect::<Vec<_>>().join(", "))
    }
}

/// Prompts and windows, the same for every probe of a training.
pub struct Prober {
    /// Steps between probes.
    pub every: u64,
    length: usize,
    prompts: BTreeMap<String, Vec<Prompt>>,
    windows: BTreeMap<String, Vec<Vec<u32>>>,
}

impl Prober {
    /// Makes what a config asks for.
    ///
    /// # Errors
    /// A text that cannot be read or is too short; a task that does not exist.
    pub fn open(config: &TrainConfig, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let Some(probe) = &config.probe else {
            return Ok(None);
        };
        let length = config.model.trained;
        let mut windows = BTreeMap::new();
        for (name, path) in &probe.text {
            let documents: Vec<Vec<u32>> = (Corpus::open(path, "text")?.documents())
                .take(WINDOWS)
                .map(|document| Ok(tokenizer.encode(&document?.text)))
                .collect::<Result<_>>()?;
            // Spread over the documents and, within each, over its length.
            let per_document = WINDOWS.div_ceil(documents.len().max(1));
            let cut: Vec<Vec<u32>> = (documents.iter())
                .flat_map(|ids| {
                    let stride = (ids.len() / per_document).max(length);
                    ids.chunks(stride)
                        .filter_map(|chunk| chunk.get(..length))
                        .map(<[u32]>::to_vec)
                })
                .take(WINDOWS)
                .collect();
            ensure!(!cut.is_empty(), "{path}: no document of {length} tokens");
            windows.insert(name.clone(), cut);
        }
        let mut prompts = BTreeMap::new();
        ensure!(
            probe.tasks.is_empty() || !windows.is_empty(),
            "probe.tasks need a probe.text for their haystack"
        );
        let haystacks: Vec<&Vec<u32>> = windows.values().flatten().collect();
        for name in &probe.tasks {
            let task = task(name)?;
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(config.seed ^ 0x0070_726F_6265);
            let trials = (0..probe.trials).map(|trial| {
                let place = Place {
                    fed: length,
                    spare: 0,
                    depth: trial as f64 / (probe.trials - 1).max(1) as f64,
                };
                let haystack = haystacks[trial * 7 % haystacks.len()];
                Ok(task.hide(&task.draw(&mut rng), place, haystack, tokenizer)?)
            });
            let trials: Result<_> = trials.collect();
            prompts.insert(name.clone(), trials.context("probe.tasks")?);
        }
        Ok(Some(Prober {
            every: probe.every,
            length,
            prompts,
            windows,
        }))
    }

    /// Measures a model.
    ///
    /// # Errors
    /// When the model does not know a token.
    pub fn probe(&self, model: &Transformer) -> Result<Probed> {
        let length = Length {
            total: self.length,
            prefill: self.length,
        };
        let plan = model.plan(&Method::named("plain"), length)?;
        let mut probed = Probed::default();
        for (name, windows) in &self.windows {
            let (mut sum, mut count) = (0.0, 0);
            for ids in windows {
                let nll = model.nll(ids, &plan)?;
                sum += nll.iter().map(|&x| f64::from(x)).sum::<f64>();
                count += nll.len();
            }
            probed
                .perplexity
                // JSON has no infinity.
                .insert(name.clone(), (sum / count as f64).exp().min(f64::MAX));
        }
        for (name, prompts) in &self.prompts {
            let mut right = 0;
            for prompt in prompts {
                let answer: Vec<u32> = prompt.answer.concat();
                let ids = [&prompt.ids[..], &answer[..answer.len() - 1]].concat();
                let hidden = model.hidden(&ids, &plan)?;
                let [n, width] = hidden.dims();
                let rows = hidden.slice([n - answer.len()..n, 0..width]);
                let best = model.logits(rows).argmax(1).into_data();
                let best = best.iter::<i64>().map(|id| id as u32);
                right += usize::from(best.eq(answer));
            }
            let share = right as f64 / prompts.len() as f64;
            probed.recall.insert(name.clone(), share);
        }
        Ok(probed)
    }
}
