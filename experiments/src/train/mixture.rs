//! Training sequences: a pure function of (config, step), so that a resumed training sees the same ones.

use anyhow::{Context, Result, bail, ensure};
use longspan_data::{NeedleTask, Tokenizer};
use longspan_model::Sequence;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::config::{Phase, SourceKind, TrainConfig};
use super::text::Text;

/// Weight of the loss of needles and questions, which cannot be known beforehand.
const ASIDE: f32 = 0.3;

/// The sources, read and encoded.
pub struct Mixture {
    sources: Vec<(String, Source)>,
    digits: Vec<u32>,
    ordinary: u32,
    blank: u32,
    seed: u64,
}

enum Source {
    Text(Text),
    Recall {
        tasks: Vec<NeedleTask>,
        haystack: Vec<usize>,
        answer_weight: f32,
    },
    Pairs,
    Echo {
        from: Vec<usize>,
    },
}

/// One needle with its question, as token ids.
struct Fact {
    /// What it is about: its keys, or its template if that has none.
    about: Vec<String>,
    needles: Vec<Vec<u32>>,
    /// The first so many needles are asked for, in this order.
    asked: usize,
    question: Vec<u32>,
    answer: Vec<u32>,
}

impl Mixture {
    /// Reads all texts of a config.
    ///
    /// # Errors
    /// A source that cannot be read or is too short; a task that does not exist or fits into no sequence.
    pub fn open(config: &TrainConfig, tokenizer: &Tokenizer) -> Result<Self> {
        let index = |names: &[String]| -> Vec<usize> {
            let find = |name: &String| {
                let found = config.sources.iter().position(|s| s.name == *name);
                found.expect("checked")
            };
            names.iter().map(find).collect()
        };
        let mut sources = Vec::new();
        for source in &config.sources {
            let name = source.name.clone();
            let read = match &source.kind {
                SourceKind::Text {
                    path,
                    text_field,
                    documents,
                } => {
                    // What is shorter cannot give a whole sequence.
                    let need = config.model.trained + 1;
                    let (documents, seed) = (*documents, config.seed);
                    let text = Text::read(path, text_field, documents, seed, need, tokenizer);
                    Source::Text(text.with_context(|| format!("source {name:?}"))?)
                }
                SourceKind::Recall {
                    tasks,
                    haystack,
                    answer_weight,
                } => Source::Recall {
                    tasks: tasks.iter().map(|name| task(name)).collect::<Result<_>>()?,
                    haystack: index(haystack),
                    answer_weight: *answer_weight as f32,
                },
                SourceKind::Pairs {} => Source::Pairs,
                SourceKind::Echo { from } => Source::Echo { from: index(from) },
            };
            sources.push((name, read));
        }
        let single = |text: &str| match tokenizer.encode(text).as_slice() {
            [id] => Ok(*id),
            ids => bail!(
                "{text:?} is {} tokens of this vocabulary; one is needed",
                ids.len()
            ),
        };
        let mixture = Mixture {
            sources,
            digits: (0..10)
                .map(|d| single(&d.to_string()))
                .collect::<Result<_>>()?,
            blank: single(" ")?,
            ordinary: tokenizer.ranks() as u32,
            seed: config.seed,
        };
        mixture.check_room(config, tokenizer)?;
        Ok(mixture)
    }

    /// That the shortest sequences have room for one of the tasks at least.
    fn check_room(&self, config: &TrainConfig, tokenizer: &Tokenizer) -> Result<()> {
        for (name, source) in &self.sources {
            let Source::Recall { tasks, .. } = source else {
                continue;
            };
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.seed);
            let sizes = (tasks.iter()).map(|task| Fact::draw(task, tokenizer, &mut rng).len());
            let least = sizes.min().expect("checked");
            for (i, phase) in config.phases.iter().enumerate() {
                let shortest = *phase.lengths.iter().min().expect("checked");
                let used = phase.mixture.get(name).is_some_and(|&weight| weight > 0.0);
                ensure!(
                    !used || least <= shortest + 1,
                    "phase.{i}.lengths: {shortest} tokens have no room for source {name:?}, whose shortest \
                     task takes {least}; give longer ones or leave it out of phase.{i}.mixture"
                );
            }
        }
        Ok(())
    }

    /// The batches of a step: for each sequence the index of its source. Also the attention's index.
    pub fn batches(
        &self,
        config: &TrainConfig,
        step: u64,
        steps: u64,
        tokenizer: &Tokenizer,
    ) -> (Vec<Vec<Sequence>>, Vec<usize>, usize) {
        let phase = config.phase(step, steps);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(
            self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (step + 1),
        );
        let length = phase.lengths[rng.random_range(0..phase.lengths.len())];
        let shares: Vec<f64> = phase.attention.iter().map(|a| a.share).collect();
        let attention = weighted(&shares, &mut rng);
        let count = config.schedule.batch_tokens / length;
        let mut drawn = Vec::new();
        let batches = (0..config.schedule.accumulate)
            .map(|_| {
                let sequences = (0..count).map(|_| {
                    let source = self.draw_source(phase, &mut rng);
                    drawn.push(source);
                    self.sequence(source, length, tokenizer, &mut rng)
                });
                sequences.collect()
            })
            .collect();
        (batches, drawn, attention)
    }

    /// Name of a source.
    pub fn name(&self, source: usize) -> &str {
        &self.sources[source].0
    }

    fn draw_source(&self, phase: &Phase, rng: &mut Xoshiro256PlusPlus) -> usize {
        let weights: Vec<f64> = (self.sources.iter())
            .map(|(name, _)| phase.mixture.get(name).copied().unwrap_or(0.0))
            .collect();
        weighted(&weights, rng)
    }

    /// A sequence of `length + 1` ids.
    fn sequence(
        &self,
        source: usize,
        length: usize,
        tokenizer: &Tokenizer,
        rng: &mut Xoshiro256PlusPlus,
    ) -> Sequence {
        let mut marked = match &self.sources[source].1 {
            Source::Text(text) => {
                let ids = text.stretch(length + 1, rng);
                ids.iter().map(|&id| (id, 1.0)).collect()
            }
            Source::Recall {
                tasks,
                haystack,
                answer_weight,
            } => self.recall(tasks, haystack, *answer_weight, length + 1, tokenizer, rng),
            Source::Pairs => self.pairs(length + 1, rng),
            Source::Echo { from } => self.echo(from, length + 1, rng),
        };
        marked.truncate(length + 1);
        assert_eq!(marked.len(), length + 1);
        Sequence {
            ids: marked.iter().map(|token| token.0).collect(),
            weights: marked[1..].iter().map(|token| token.1).collect(),
        }
    }

    fn text(&self, among: &[usize], rng: &mut Xoshiro256PlusPlus) -> &Text {
        match &self.sources[among[rng.random_range(0..among.len())]].1 {
            Source::Text(text) => text,
            _ => unreachable!("only text sources are named"),
        }
    }

    /// Needles at random places of a haystack, each asked for somewhere after it, in half of the
    /// sequences after all of them.
    fn recall(
        &self,
        tasks: &[NeedleTask],
        haystack: &[usize],
        answer_weight: f32,
        len: usize,
        tokenizer: &Tokenizer,
        rng: &mut Xoshiro256PlusPlus,
    ) -> Vec<(u32, f32)> {
        // The share of haystack: none, so that there is much to recall, up to almost all.
        let share = [0.0, 0.0, 0.3, 0.6, 0.9][rng.random_range(0..5)];
        let room = ((1.0 - share) * len as f64) as usize;
        let mut facts: Vec<Fact> = Vec::new();
        let mut taken = 0;
        for _ in 0..len / 8 {
            let task = &tasks[rng.random_range(0..tasks.len())];
            let fact = Fact::draw(task, tokenizer, rng);
            // Two facts about one thing would leave open which of them is asked for.
            if facts
                .iter()
                .any(|known| known.about.iter().any(|x| fact.about.contains(x)))
            {
                continue;
            }
            let size = fact.len();
            if taken + size > if facts.is_empty() { len } else { room } {
                if facts.is_empty() {
                    continue; // another task may be shorter
                }
                break;
            }
            taken += size;
            facts.push(fact);
        }
        // (time, tokens), put in order of time.
        let apart = rng.random::<bool>();
        let mut events: Vec<(f64, Vec<(u32, f32)>)> = Vec::new();
        for fact in &facts {
            let (a, b): (f64, f64) = (rng.random(), rng.random());
            let (from, to) = (a.min(b), a.max(b));
            let mut times: Vec<f64> = fact
                .needles
                .iter()
                .map(|_| from * rng.random::<f64>())
                .collect();
            // The order of the answer; the others may stand before and after.
            times[..fact.asked].sort_by(f64::total_cmp);
            for (time, needle) in times.into_iter().zip(&fact.needles) {
                events.push((time, needle.iter().map(|&id| (id, ASIDE)).collect()));
            }
            let question = fact.question.iter().map(|&id| (id, ASIDE));
            let answer = fact.answer.iter().map(|&id| (id, answer_weight));
            let time = if apart { 1.0 + rng.random::<f64>() } else { to };
            events.push((time, question.chain(answer).collect()));
        }
        events.sort_by(|a, b| a.0.total_cmp(&b.0));
        // The rest is haystack, cut at random places between the events. Questions at the end follow
        // each other.
        let rest = len.saturating_sub(taken);
        let text = self.text(haystack, rng).stretch(rest, rng);
        let between = events.iter().filter(|event| event.0 <= 1.0).count();
        let mut cuts: Vec<usize> = (0..between).map(|_| rng.random_range(0..=rest)).collect();
        cuts.sort_unstable();
        let mut sequence = Vec::with_capacity(len);
        let mut done = 0;
        let mut cuts = cuts.into_iter();
        for (time, tokens) in events {
            let to = if time <= 1.0 {
                cuts.next().expect("one each")
            } else {
                rest
            };
            sequence.extend(text[done..to].iter().map(|&id| (id, 1.0)));
            done = to;
            sequence.extend(tokens);
        }
        sequence.extend(text[done..].iter().map(|&id| (id, 1.0)));
        sequence
    }

    /// Random keys and their digits, all of them again and again.
    fn pairs(&self, len: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<(u32, f32)> {
        let tokens = |most: usize, least: usize, rng: &mut Xoshiro256PlusPlus| -> Vec<u32> {
            let count = rng.random_range(least..=most);
            (0..count)
                .map(|_| rng.random_range(0..self.ordinary))
                .collect()
        };
        let (before, between, after) = (tokens(3, 0, rng), tokens(2, 0, rng), tokens(2, 0, rng));
        let count = rng.random_range(1..=(len / 20).clamp(1, 8));
        let mut pairs: Vec<(Vec<u32>, Vec<u32>)> = Vec::new();
        while pairs.len() < count {
            let key = [before.clone(), tokens(3, 1, rng), between.clone()].concat();
            let digits = rng.random_range(4..=5);
            let value = (0..digits).map(|_| self.digits[rng.random_range(0..10)]);
            let value = std::iter::once(self.blank).chain(value).collect();
            if pairs.iter().all(|known| known.0 != key) {
                pairs.push((key, value));
            }
        }
        let mut sequence = Vec::with_capacity(2 * len);
        let mut known = false;
        while sequence.len() < len {
            pairs.shuffle(rng);
            for (key, value) in &pairs {
                let weight = if known { 1.0 } else { 0.0 };
                sequence.extend(key.iter().map(|&id| (id, 0.0)));
                sequence.extend(value.iter().map(|&id| (id, weight)));
                sequence.extend(after.iter().map(|&id| (id, 0.0)));
            }
            known = true;
        }
        sequence
    }

    /// A stretch of text, then other text and parts of the first stretch in turn.
    fn echo(&self, from: &[usize], len: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<(u32, f32)> {
        // Log-uniform lengths: short spans often, long ones too.
        let most = (len / 3).max(9) as f64;
        let span = (8f64 * (most / 8.0).powf(rng.random())) as usize;
        let first = self.text(from, rng).stretch(span, rng).to_vec();
        let mut sequence: Vec<(u32, f32)> = first.iter().map(|&id| (id, 1.0)).collect();
        while sequence.len() < len {
            let other = rng.random_range(0..=span);
            let other = self.text(from, rng).stretch(other, rng);
            sequence.extend(other.iter().map(|&id| (id, 1.0)));
            let start = rng.random_range(0..=span - 4);
            sequence.extend(first[start..].iter().map(|&id| (id, 1.0)));
        }
        sequence
    }
}

impl Fact {
    fn draw(task: &NeedleTask, tokenizer: &Tokenizer, rng: &mut Xoshiro256PlusPlus) -> Self {
        let needle = task.draw(rng);
        let encode = |text: &String| tokenizer.encode(text);
        let (_, tail) = task.prompt.split_once("{haystack}").expect("checked");
        let question = tail.replace("{question}", &needle.question);
        let keyed = !needle.keys.is_empty();
        Fact {
            about: if keyed {
                needle.keys.clone()
            } else {
                vec![task.needle.clone()]
            },
            asked: needle.values.len(),
            needles: needle.needles.iter().map(encode).collect(),
            question: tokenizer.encode_with_special(&question),
            answer: encode(&needle.answer),
        }
    }

    fn len(&self) -> usize {
        self.needles.iter().map(Vec::len).sum::<usize>() + self.question.len() + self.answer.len()
    }
}

fn weighted(weights: &[f64], rng: &mut Xoshiro256PlusPlus) -> usize {
    let mut at = rng.random::<f64>() * weights.iter().sum::<f64>();
    for (i, &weight) in weights.iter().enumerate() {
        if at < weight {
            return i;
        }
        at -= weight;
    }
    // Rounding: the last one that can be drawn.
    weights
        .iter()
        .rposition(|&weight| weight > 0.0)
        .unwrap_or(0)
}

/// The preset of a name.
pub fn task(name: &str) -> Result<NeedleTask> {
    let presets = NeedleTask::presets();
    let names: Vec<&str> = presets.iter().map(|task| task.name.as_str()).collect();
    let found = presets.iter().find(|task| task.name == name).cloned();
    found.with_context(|| format!("no needle task {name:?}; there are {}", names.join(", ")))
}

#[cfg(test)]
mod tests;
