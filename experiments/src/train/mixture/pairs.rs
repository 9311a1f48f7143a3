//! Source of kind `pairs`.

use anyhow::{Result, bail};
use longspan_data::Tokenizer;
use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;

use super::weighted::WeightedIds;

/// Token ids that pairs consist of.
pub struct Pairs {
    /// The ids of `0` to `9`.
    digits: Vec<u32>,
    /// The id of a space.
    space: u32,
    /// Keys are drawn from the ids below this one: all but the special tokens.
    ordinary: u32,
}

impl Pairs {
    /// Looks up the tokens in a vocabulary.
    ///
    /// # Errors
    /// A digit or the space is not a single token.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let single = |text: &str| match tokenizer.encode(text).as_slice() {
            [id] => Ok(*id),
            ids => bail!(
                "{text:?} is {} tokens of this vocabulary; sources of kind pairs need it to be one",
                ids.len()
            ),
        };
        Ok(Pairs {
            digits: (0..10)
                .map(|digit| single(&digit.to_string()))
                .collect::<Result<_>>()?,
            space: single(" ")?,
            ordinary: tokenizer.ranks() as u32,
        })
    }

    /// Random keys and their digits, repeated in a new order each round; `len` tokens or more.
    pub fn sequence(&self, len: usize, rng: &mut Xoshiro256PlusPlus) -> WeightedIds {
        let tokens = |least: usize, most: usize, rng: &mut Xoshiro256PlusPlus| -> Vec<u32> {
            let count = rng.random_range(least..=most);
            (0..count)
                .map(|_| rng.random_range(0..self.ordinary))
                .collect()
        };
        let (before, between, after) = (tokens(0, 3, rng), tokens(0, 2, rng), tokens(0, 2, rng));
        let count = rng.random_range(1..=(len / 20).clamp(1, 8));
        let mut pairs: Vec<(Vec<u32>, Vec<u32>)> = Vec::new();
        while pairs.len() < count {
            let key = [before.clone(), tokens(1, 3, rng), between.clone()].concat();
            // The type decides what the generator draws.
            let digits: i32 = rng.random_range(4..=5);
            let value = (0..digits).map(|_| self.digits[rng.random_range(0..10)]);
            let value = std::iter::once(self.space).chain(value).collect();
            if pairs.iter().all(|known| known.0 != key) {
                pairs.push((key, value));
            }
        }
        let mut sequence = WeightedIds::default();
        // In the first round no value can be known.
        let mut weight = 0.0;
        while sequence.len() < len {
            pairs.shuffle(rng);
            for (key, value) in &pairs {
                sequence.push(key, 0.0);
                sequence.push(value, weight);
                sequence.push(&after, 0.0);
            }
            weight = 1.0;
        }
        sequence
    }
}
