//! Source of kind `recall`: needles with their questions in a haystack.

use anyhow::Result;
use longspan_data::Tokenizer;
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

use super::weighted::WeightedIds;
use crate::tasks::{Template, template};
use crate::train::text::{TokenizedText, choose};

/// Loss weight of needles and questions, which are not predictable.
const UNPREDICTABLE: f32 = 0.3;

/// Shares of haystack in a sequence, one of which is drawn: from none, which leaves most room to
/// recall, to almost all.
const HAYSTACK_SHARES: [f64; 5] = [0.0, 0.0, 0.3, 0.6, 0.9];

/// Needle tasks and the loss weight of their answers.
pub struct Recall {
    tasks: Vec<Template>,
    answer_weight: f32,
}

/// The needles of one trial with their question, as token ids.
struct Fact {
    /// The keys of the needles, or the template of a needle without keys. Facts of one sequence
    /// share none of these.
    about: Vec<String>,
    needles: Vec<Vec<u32>>,
    /// The question asks for this many of the needles, the first ones, in this order.
    asked: usize,
    question: Vec<u32>,
    answer: Vec<u32>,
}

/// A needle or a question with its answer, at a time that orders them in the sequence: up to 1 in
/// the haystack, above 1 after its end.
struct Event {
    time: f64,
    tokens: WeightedIds,
}

impl Recall {
    /// Looks up the built-in tasks of some names.
    ///
    /// # Errors
    /// There is no such task.
    pub fn new(tasks: &[String], answer_weight: f32) -> Result<Self> {
        Ok(Recall {
            tasks: (tasks.iter())
                .map(|name| template(name))
                .collect::<Result<_>>()?,
            answer_weight,
        })
    }

    /// Tokens of the shortest fact, one fact drawn per task.
    pub fn shortest(&self, tokenizer: &Tokenizer, rng: &mut Xoshiro256PlusPlus) -> usize {
        let lengths = (self.tasks.iter()).map(|task| Fact::draw(task, tokenizer, rng).len());
        lengths.min().expect("checked: not empty")
    }

    /// Needles at random places of a haystack, each asked for after it, in half of the sequences
    /// after the end of the haystack; `len` tokens or more.
    pub fn sequence(
        &self,
        haystack: &[&TokenizedText],
        len: usize,
        tokenizer: &Tokenizer,
        rng: &mut Xoshiro256PlusPlus,
    ) -> WeightedIds {
        let share = HAYSTACK_SHARES[rng.random_range(0..HAYSTACK_SHARES.len())];
        let room = ((1.0 - share) * len as f64) as usize;
        let facts = self.draw_facts(room, len, tokenizer, rng);
        let taken: usize = facts.iter().map(Fact::len).sum();
        let events = self.order(&facts, rng);
        let rest = len.saturating_sub(taken);
        let text = choose(haystack, rng).stretch(rest, rng);
        spread(events, text, rng)
    }

    /// Draws facts that fit into `room` tokens, or a single one that fits into `len`.
    fn draw_facts(
        &self,
        room: usize,
        len: usize,
        tokenizer: &Tokenizer,
        rng: &mut Xoshiro256PlusPlus,
    ) -> Vec<Fact> {
        let mut facts: Vec<Fact> = Vec::new();
        let mut taken = 0;
        for _ in 0..len / 8 {
            let task = &self.tasks[rng.random_range(0..self.tasks.len())];
            let fact = Fact::draw(task, tokenizer, rng);
            // With two facts about one key, the question would be ambiguous.
            if facts.iter().any(|known| known.overlaps(&fact)) {
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
        facts
    }

    /// Draws the time of every needle and question and sorts them by it.
    fn order(&self, facts: &[Fact], rng: &mut Xoshiro256PlusPlus) -> Vec<Event> {
        let questions_last = rng.random::<bool>();
        let mut events: Vec<Event> = Vec::new();
        for fact in facts {
            let (a, b): (f64, f64) = (rng.random(), rng.random());
            let (from, to) = (a.min(b), a.max(b));
            let mut times: Vec<f64> = fact
                .needles
                .iter()
                .map(|_| from * rng.random::<f64>())
                .collect();
            // Asked needles keep the order of the answer; the others may stand anywhere.
            times[..fact.asked].sort_by(f64::total_cmp);
            for (time, needle) in times.into_iter().zip(&fact.needles) {
                let mut tokens = WeightedIds::default();
                tokens.push(needle, UNPREDICTABLE);
                events.push(Event { time, tokens });
            }
            let mut tokens = WeightedIds::default();
            tokens.push(&fact.question, UNPREDICTABLE);
            tokens.push(&fact.answer, self.answer_weight);
            let time = if questions_last {
                1.0 + rng.random::<f64>()
            } else {
                to
            };
            events.push(Event { time, tokens });
        }
        events.sort_by(|a, b| a.time.total_cmp(&b.time));
        events
    }
}

/// Spreads events over a text, which is cut at random places; events after its end follow it.
fn spread(events: Vec<Event>, text: &[u32], rng: &mut Xoshiro256PlusPlus) -> WeightedIds {
    let within = events.iter().filter(|event| event.time <= 1.0).count();
    let mut cuts: Vec<usize> = (0..within)
        .map(|_| rng.random_range(0..=text.len()))
        .collect();
    cuts.sort_unstable();
    let ends = cuts.into_iter().chain(std::iter::repeat(text.len()));
    let mut sequence = WeightedIds::default();
    let mut done = 0;
    for (event, end) in events.into_iter().zip(ends) {
        sequence.push(&text[done..end], 1.0);
        done = end;
        sequence.append(event.tokens);
    }
    sequence.push(&text[done..], 1.0);
    sequence
}

impl Fact {
    fn draw(task: &Template, tokenizer: &Tokenizer, rng: &mut Xoshiro256PlusPlus) -> Self {
        let needle = task.draw(rng);
        let encode = |text: &String| tokenizer.encode(text);
        let (_, tail) = (task.prompt.split_once("{haystack}")).expect("checked: in every prompt");
        let question = tail.replace("{question}", &needle.question);
        Fact {
            asked: needle.values.len(),
            needles: needle.needles.iter().map(encode).collect(),
            question: tokenizer.encode_with_special(&question),
            answer: encode(&needle.answer),
            about: if needle.keys.is_empty() {
                vec![task.needle.clone()]
            } else {
                needle.keys
            },
        }
    }

    fn overlaps(&self, other: &Fact) -> bool {
        self.about.iter().any(|about| other.about.contains(about))
    }

    /// Tokens of needles, question and answer.
    fn len(&self) -> usize {
        self.needles.iter().map(Vec::len).sum::<usize>() + self.question.len() + self.answer.len()
    }
}
