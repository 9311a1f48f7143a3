//! Built-in text: generated articles that look like LaTeX mathematics and have a known entropy.
//!
//! # The text
//! An article is a sequence of sentences from [`SENTENCES`], drawn independently by their weights.
//! A sentence with `<new>` introduces a notion. Notions are numbered 1, 2, ... in the order of the
//! text and have four attributes: name, symbol, quantity and value, all uniform and independent. A
//! sentence with `<ref>` refers back to notion `t - lag`, where `t` is the number of notions so far
//! and `lag` is drawn from 1 to `t - 1` with weights close to `1 / (lag + 1)^2`, and repeats some
//! of its attributes. Such sentences start after [`OPENING`] notions; after [`STATEMENTS`] notions
//! the article ends. The text depends only on integers and a fixed random generator, so it is the
//! same on every machine.
//!
//! The text can be parsed in only one way: numbers have three digits, values six, no start of a
//! sentence (up to its first slot) is a prefix of another, and no word is a prefix of another word
//! of its kind. The probability of the text is therefore the product of the probabilities of its
//! choices; each choice is a [`Piece`].
//!
//! # The loss given `text[from..]`
//! The loss of a piece given `text[from..]` is the loss of the best reader who also knows the state
//! of the writer at `from`: the number of notions, the position in the sentence, the number printed
//! last, and the whole of a word that `from` cuts in two. The probabilities of this reader are
//! exact:
//!
//! - a sentence has its weight over the sum of weights, because sentences are independent;
//! - a number has the weight of its lag over the sum up to `t - 1`. The state and the labels since
//!   then give `t`; nothing else in the missing text matters;
//! - an attribute of notion `i` that occurs in `text[from..]` before has probability 1. The number
//!   of the notion is printed before the attribute each time, so the reader can match the two;
//! - any other attribute has one over the number of its possible texts. It is independent of all
//!   other choices and none depends on it, so nothing in `text[from..]` tells anything about it.
//!
//! A model that reads `text[from..]` without the state knows less, so its expected loss is at least
//! this. The number of missing bytes is unknown to both.

mod words;

use std::ops::Range;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

use crate::document::Document;
use words::*;

/// Number of articles of the corpus `builtin:articles`; their seeds start at 0.
const HELD_OUT: u64 = 64;
/// Notions per article, which make about 200,000 bytes.
const STATEMENTS: usize = 225;
/// Notions introduced before the first sentence with `<ref>`.
const OPENING: usize = 10;
/// The weight of a lag is this over the square of the lag plus one, rounded down. More than half of
/// the references have a lag of 1 or 2, one in fifty a lag above 60.
const LAG_WEIGHT: u64 = 1_000_000_000;

const HEAD: &str = "\\documentclass{article}\n\\begin{document}\n";
const END: &str = "\\end{document}\n";

/// A generated article and the choices that made it.
pub struct Article {
    /// The text, ASCII.
    pub text: String,
    pieces: Vec<Piece>,
}

/// A range of an article that holds one random choice. The text between pieces is certain.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Byte range in the text.
    pub range: Range<usize>,
    /// Negative log likelihood if no earlier copy is visible, nats.
    nats: f64,
    /// End of the last earlier copy.
    copy_end: Option<usize>,
}

impl Piece {
    /// The exact negative log likelihood given the text from byte `from` to the start of the piece,
    /// in nats.
    pub fn nll(&self, from: usize) -> f64 {
        match self.copy_end {
            Some(end) if end > from => 0.0,
            _ => self.nats,
        }
    }
}

impl Article {
    /// Generates the article of a seed, about 200,000 bytes.
    pub fn write(seed: u64) -> Self {
        let mut writer = Writer::new(seed);
        while writer.notions.len() < STATEMENTS {
            writer.sentence();
        }
        Self {
            text: writer.text + END,
            pieces: writer.pieces,
        }
    }

    /// The pieces in text order; they do not overlap.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The pieces that start at byte `from` or later, each with its exact negative log likelihood
    /// (nats) given the state of the writer at `from` and the text from there to the piece. The
    /// first piece is found by binary search.
    pub fn nll(&self, from: usize) -> impl Iterator<Item = (Range<usize>, f64)> {
        let first = self
            .pieces
            .partition_point(|piece| piece.range.start < from);
        let pieces = self.pieces[first..].iter();
        pieces.map(move |piece| (piece.range.clone(), piece.nll(from)))
    }
}

/// The articles of the corpus `builtin:articles`, in order; generated lazily.
pub fn held_out_articles() -> impl Iterator<Item = Article> + Send {
    (0..HELD_OUT).map(Article::write)
}

/// An endless stream of articles for training, generated lazily. None of them is in the corpus
/// `builtin:articles`, and two seeds give different articles.
pub fn training_articles(seed: u64) -> impl Iterator<Item = Article> + Send {
    let mut seeds = Xoshiro256PlusPlus::seed_from_u64(seed);
    std::iter::repeat_with(move || Article::write(seeds.next_u64() | 1 << 63))
}

/// The documents of the corpus `builtin:articles`.
pub(crate) fn documents() -> impl Iterator<Item = Document> + Send {
    (1..).zip(held_out_articles()).map(|(number, article)| {
        let source = format!("article {number}");
        let text = article.text;
        Document { source, text }
    })
}

/// An attribute of a notion.
struct Attribute {
    text: String,
    /// The number of possible texts.
    space: usize,
    /// End of the last copy in the article.
    copy_end: Option<usize>,
}

/// Name, symbol, quantity and value.
type Notion = [Attribute; 4];

/// The state of an article under construction.
struct Writer {
    rng: Xoshiro256PlusPlus,
    text: String,
    pieces: Vec<Piece>,
    notions: Vec<Notion>,
    /// The notion number printed last, from 1.
    number: usize,
}

impl Writer {
    fn new(seed: u64) -> Self {
        Self {
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            text: HEAD.to_owned(),
            pieces: Vec::new(),
            notions: Vec::new(),
            number: 0,
        }
    }

    fn sentence(&mut self) {
        let sentences = sentences(self.notions.len());
        let total = sentences.clone().map(|sentence| sentence.0).sum();
        let mut draw = self.below(total);
        for (weight, sentence) in sentences {
            if draw < weight {
                return self.write(sentence, nats(total, weight));
            }
            draw -= weight;
        }
    }

    /// Writes a sentence with its slots filled. The text before the first slot is the piece that
    /// tells which sentence was chosen.
    fn write(&mut self, sentence: &str, nats_of_choice: f64) {
        for (i, part) in sentence.split(['<', '>']).enumerate() {
            match (i, part) {
                (0, start) => self.piece(start, nats_of_choice, None),
                (_, "new") => {
                    let notion = self.draw_notion();
                    self.notions.push(notion);
                    self.number = self.notions.len();
                    self.text += &format!("{:03}", self.number);
                }
                (_, "ref") => self.refer(),
                (_, "name") => self.attribute(0),
                (_, "symbol") => self.attribute(1),
                (_, "quantity") => self.attribute(2),
                (_, "value") => self.attribute(3),
                (_, "topic") => {
                    let topic = self.pick(&TOPICS);
                    self.piece(topic, nats(TOPICS.len() as u64, 1), None);
                }
                (_, between) => self.text += between,
            }
        }
    }

    fn draw_notion(&mut self) -> Notion {
        let [a, b] = [(); 2].map(|()| self.pick(&SYLLABLES));
        let name = format!("{a}{b} {}", self.pick(&NOUNS));
        let letter = self.pick(&LETTERS);
        let [a, b] = [(); 2].map(|()| self.pick(&SUBSCRIPTS));
        let symbol = format!("{letter}_{{{a}{b}}}");
        let quantity = self.pick(&QUANTITIES).to_owned();
        let value = VALUES.start + self.below(VALUES.len() as u64) as usize;
        let value = format!("{}{{,}}{:03}", value / 1000, value % 1000);
        let attribute = |text, space| Attribute {
            text,
            space,
            copy_end: None,
        };
        [
            attribute(name, SYLLABLES.len().pow(2) * NOUNS.len()),
            attribute(symbol, LETTERS.len() * SUBSCRIPTS.len().pow(2)),
            attribute(quantity, QUANTITIES.len()),
            attribute(value, VALUES.len()),
        ]
    }

    fn refer(&mut self) {
        let newest = self.notions.len();
        let total = (1..newest).map(lag_weight).sum();
        let mut draw = self.below(total);
        let mut lag = 1;
        while draw >= lag_weight(lag) {
            draw -= lag_weight(lag);
            lag += 1;
        }
        self.number = newest - lag;
        let number = format!("{:03}", self.number);
        self.piece(&number, nats(total, lag_weight(lag)), None);
    }

    fn attribute(&mut self, index: usize) {
        let attribute = &mut self.notions[self.number - 1][index];
        let text = attribute.text.clone();
        let copy_end = attribute.copy_end.replace(self.text.len() + text.len());
        let nats = nats(attribute.space as u64, 1);
        self.piece(&text, nats, copy_end);
    }

    fn piece(&mut self, text: &str, nats: f64, copy_end: Option<usize>) {
        let start = self.text.len();
        self.text += text;
        self.pieces.push(Piece {
            range: start..self.text.len(),
            nats,
            copy_end,
        });
    }

    fn pick(&mut self, words: &[&'static str]) -> &'static str {
        words[self.below(words.len() as u64) as usize]
    }

    /// Draws from 0 to `end - 1`, uniform up to `end / 2^64`. `rand`'s own ranges may change
    /// between its versions.
    fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.rng.next_u64()) * u128::from(end)) >> 64) as u64
    }
}

/// The sentences possible after this many notions, with their weights.
fn sentences(notions: usize) -> impl Iterator<Item = (u64, &'static str)> + Clone {
    let can_refer = notions >= OPENING;
    let possible = move |sentence: &(u64, &str)| can_refer || !sentence.1.contains("<ref>");
    SENTENCES.into_iter().filter(possible)
}

fn lag_weight(lag: usize) -> u64 {
    LAG_WEIGHT / (lag as u64 + 1).pow(2)
}

/// The negative log likelihood of a choice by its weight.
fn nats(total: u64, weight: u64) -> f64 {
    (total as f64 / weight as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum of probabilities given as nats.
    fn sum(nats: impl Iterator<Item = f64>) -> f64 {
        nats.map(|nats| (-nats).exp()).sum()
    }

    #[test]
    fn probabilities_sum_to_one() {
        for notions in [0, OPENING - 1, OPENING, STATEMENTS - 1] {
            let sentences = sentences(notions);
            let total = sentences.clone().map(|sentence| sentence.0).sum();
            let all = sum(sentences.map(|sentence| nats(total, sentence.0)));
            assert!((all - 1.0).abs() < 1e-12, "{notions} notions: {all}");
        }
        for newest in [2, 3, 10, STATEMENTS] {
            let total = (1..newest).map(lag_weight).sum();
            let all = sum((1..newest).map(|lag| nats(total, lag_weight(lag))));
            assert!((all - 1.0).abs() < 1e-12, "notion {newest}: {all}");
        }
    }

    #[test]
    fn draws_are_uniform() {
        let mut writer = Writer::new(1);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[writer.below(7) as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| count.abs_diff(10_000) < 450),
            "{counts:?}"
        );
    }
}
