//! The batches of each step: a pure function of config, texts and step, so that a resumed training
//! sees the same sequences.

mod echo;
mod pairs;
mod recall;
mod weighted;

use anyhow::{Context, Result, ensure};
use longspan_attention::Method;
use longspan_data::Tokenizer;
use longspan_model::Sequence;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::config::{Phase, SourceConfig, SourceKind, TrainConfig};
use super::text::TokenizedText;
use echo::echo;
use pairs::Pairs;
use recall::Recall;
use weighted::WeightedIds;

/// The sources of a training, read and encoded.
pub struct Mixture {
    /// In the order of the config, with their names.
    sources: Vec<(String, SequenceSource)>,
    seed: u64,
}

/// A source of sequences. Texts of other sources are given by their index.
enum SequenceSource {
    Text(TokenizedText),
    Recall {
        recall: Recall,
        haystack: Vec<usize>,
    },
    Pairs(Pairs),
    Echo {
        from: Vec<usize>,
    },
}

/// What a step trains on.
#[derive(Debug, PartialEq)]
pub struct StepData<'a> {
    /// Batches whose gradients are summed.
    pub batches: Vec<Vec<Sequence>>,
    /// Index of the source of each sequence, over all batches.
    pub sources: Vec<usize>,
    /// Method of the step.
    pub method: &'a Method,
}

impl Mixture {
    /// Reads the sources of a config.
    ///
    /// # Errors
    /// A source cannot be read, or its sequences do not fit a phase.
    pub fn open(config: &TrainConfig, tokenizer: &Tokenizer) -> Result<Self> {
        let open = |source: &SourceConfig| -> Result<(String, SequenceSource)> {
            let opened = open_source(source, config, tokenizer)?;
            Ok((source.name.clone(), opened))
        };
        let mixture = Mixture {
            sources: config.sources.iter().map(open).collect::<Result<_>>()?,
            seed: config.seed,
        };
        mixture.check_room(config, tokenizer)?;
        Ok(mixture)
    }

    /// Checks that the shortest sequences of each phase have room for a needle task.
    fn check_room(&self, config: &TrainConfig, tokenizer: &Tokenizer) -> Result<()> {
        for (name, source) in &self.sources {
            let SequenceSource::Recall { recall, .. } = source else {
                continue;
            };
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.seed);
            let least = recall.shortest(tokenizer, &mut rng);
            for (i, phase) in config.phases.iter().enumerate() {
                let shortest = *phase.lengths.iter().min().expect("checked: not empty");
                let used = phase.mixture.get(name).is_some_and(|&weight| weight > 0.0);
                ensure!(
                    !used || least <= shortest + 1,
                    "phase.{i}.lengths: {shortest} tokens have no room for source {name:?}, whose \
                     shortest task takes {least}; give longer ones or leave it out of \
                     phase.{i}.mixture"
                );
            }
        }
        Ok(())
    }

    /// Draws the batches of a step, counted from 0, of a training of `steps`.
    pub fn draw<'a>(
        &self,
        config: &'a TrainConfig,
        step: u64,
        steps: u64,
        tokenizer: &Tokenizer,
    ) -> StepData<'a> {
        let phase = config.phase(step, steps);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(
            self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (step + 1),
        );
        let length = phase.lengths[rng.random_range(0..phase.lengths.len())];
        let shares: Vec<f64> = phase.attention.iter().map(|a| a.share).collect();
        let method = &phase.attention[draw_index(&shares, &mut rng)].method;
        let count = config.schedule.batch_tokens / length;
        let mut sources = Vec::new();
        let batches = (0..config.schedule.accumulate)
            .map(|_| {
                let sequences = (0..count).map(|_| {
                    let source = self.draw_source(phase, &mut rng);
                    sources.push(source);
                    self.sequence(source, length, tokenizer, &mut rng)
                });
                sequences.collect()
            })
            .collect();
        StepData {
            batches,
            sources,
            method,
        }
    }

    /// Name of a source.
    pub fn name(&self, source: usize) -> &str {
        &self.sources[source].0
    }

    fn draw_source(&self, phase: &Phase, rng: &mut Xoshiro256PlusPlus) -> usize {
        let weights: Vec<f64> = (self.sources.iter())
            .map(|(name, _)| phase.mixture.get(name).copied().unwrap_or(0.0))
            .collect();
        draw_index(&weights, rng)
    }

    /// A sequence of `length + 1` ids.
    fn sequence(
        &self,
        source: usize,
        length: usize,
        tokenizer: &Tokenizer,
        rng: &mut Xoshiro256PlusPlus,
    ) -> Sequence {
        let len = length + 1;
        let tokens = match &self.sources[source].1 {
            SequenceSource::Text(text) => {
                let mut tokens = WeightedIds::default();
                tokens.push(text.stretch(len, rng), 1.0);
                tokens
            }
            SequenceSource::Recall { recall, haystack } => {
                recall.sequence(&self.texts(haystack), len, tokenizer, rng)
            }
            SequenceSource::Pairs(pairs) => pairs.sequence(len, rng),
            SequenceSource::Echo { from } => echo(&self.texts(from), len, rng),
        };
        tokens.into_sequence(len)
    }

    /// The text sources at some indices.
    fn texts(&self, indices: &[usize]) -> Vec<&TokenizedText> {
        let text = |&index: &usize| match &self.sources[index].1 {
            SequenceSource::Text(text) => text,
            _ => unreachable!("checked: only text sources are named"),
        };
        indices.iter().map(text).collect()
    }
}

fn open_source(
    source: &SourceConfig,
    config: &TrainConfig,
    tokenizer: &Tokenizer,
) -> Result<SequenceSource> {
    let indices = |names: &[String]| -> Vec<usize> {
        let index = |name: &String| {
            let found = config.sources.iter().position(|s| s.name == *name);
            found.expect("checked: the source exists")
        };
        names.iter().map(index).collect()
    };
    Ok(match &source.kind {
        SourceKind::Text {
            path,
            text_field,
            documents,
        } => {
            // Every document must fill the longest sequence and its last target.
            let need = config.model.trained + 1;
            let (documents, seed) = (*documents, config.seed);
            let text = TokenizedText::read(path, text_field, documents, seed, need, tokenizer);
            SequenceSource::Text(text.with_context(|| format!("source {:?}", source.name))?)
        }
        SourceKind::Recall {
            tasks,
            haystack,
            answer_weight,
        } => SequenceSource::Recall {
            recall: Recall::new(tasks, *answer_weight as f32)?,
            haystack: indices(haystack),
        },
        SourceKind::Pairs {} => SequenceSource::Pairs(Pairs::new(tokenizer)?),
        SourceKind::Echo { from } => SequenceSource::Echo {
            from: indices(from),
        },
    })
}

/// Draws an index with probability proportional to its weight.
fn draw_index(weights: &[f64], rng: &mut Xoshiro256PlusPlus) -> usize {
    let mut at = rng.random::<f64>() * weights.iter().sum::<f64>();
    for (i, &weight) in weights.iter().enumerate() {
        if at < weight {
            return i;
        }
        at -= weight;
    }
    // Rounding got past the end: the last index that can be drawn.
    weights
        .iter()
        .rposition(|&weight| weight > 0.0)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
