//! Source of kind `echo`.

use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;

use super::weighted::WeightedIds;
use crate::train::text::{TokenizedText, choose};

/// A stretch of text, then other text and parts of that stretch in turn; `len` tokens or more.
pub fn echo(texts: &[&TokenizedText], len: usize, rng: &mut Xoshiro256PlusPlus) -> WeightedIds {
    // Log-uniform lengths: mostly short stretches, some long ones.
    let most = (len / 3).max(9) as f64;
    let span = (8f64 * (most / 8.0).powf(rng.random())) as usize;
    let first = choose(texts, rng).stretch(span, rng);
    let mut sequence = WeightedIds::default();
    sequence.push(first, 1.0);
    while sequence.len() < len {
        let other = rng.random_range(0..=span);
        sequence.push(choose(texts, rng).stretch(other, rng), 1.0);
        let start = rng.random_range(0..=span - 4);
        sequence.push(&first[start..], 1.0);
    }
    sequence
}
