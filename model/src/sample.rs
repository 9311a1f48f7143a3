//! Chooses the next token from logits.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// Draws the next token, after repetition penalty, temperature, top-k and top-p in this order,
/// which is that of Hugging Face's `generate` (transformers, `generation/logits_process.py`).
#[derive(Clone, Debug)]
pub struct Sampler {
    /// Divides the logits; 0 takes the most probable token and ignores top-k and top-p.
    pub temperature: f64,
    /// Keeps this number of the most probable tokens; 0 for all.
    pub top_k: usize,
    /// Keeps the fewest most probable tokens that together reach this probability; 1 for all
    /// (arXiv 1904.09751).
    pub top_p: f64,
    /// Divides positive logits of tokens seen before, multiplies negative ones; 1 for no penalty
    /// (arXiv 1909.05858).
    pub repetition_penalty: f64,
    rng: Xoshiro256PlusPlus,
}

impl Sampler {
    /// Takes the most probable token each time.
    pub fn greedy() -> Self {
        Sampler {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            rng: Xoshiro256PlusPlus::seed_from_u64(0),
        }
    }

    /// Sets the seed of the draws.
    pub fn seeded(mut self, seed: u64) -> Self {
        self.rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        self
    }

    /// The next token after `seen`. Among equal logits the lowest id comes first.
    pub fn choose(&mut self, logits: &[f32], seen: &[u32]) -> u32 {
        let mut logits: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
        self.penalise(&mut logits, seen);
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let before = |&a: &u32, &b: &u32| {
            logits[b as usize]
                .total_cmp(&logits[a as usize])
                .then(a.cmp(&b))
        };
        if self.temperature == 0.0 {
            return order.into_iter().min_by(before).expect("a vocabulary");
        }
        let kept = match self.top_k {
            0 => order.len(),
            k => k.min(order.len()),
        };
        if kept < order.len() {
            order.select_nth_unstable_by(kept - 1, before);
            order.truncate(kept);
        }
        order.sort_unstable_by(before);
        let most = logits[order[0] as usize];
        let weights: Vec<f64> = (order.iter())
            .map(|&id| ((logits[id as usize] - most) / self.temperature).exp())
            .collect();
        // The fewest tokens that reach top_p; at least one.
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let mut nucleus = weights.len();
        for (i, weight) in weights.iter().enumerate() {
            sum += weight;
            if sum >= self.top_p * total {
                nucleus = i + 1;
                break;
            }
        }
        let weights = &weights[..nucleus];
        let mut at = self.rng.random::<f64>() * weights.iter().sum::<f64>();
        for (id, weight) in order.iter().zip(weights) {
            at -= weight;
            if at < 0.0 {
                return *id;
            }
        }
        order[nucleus - 1]
    }

    fn penalise(&self, logits: &mut [f64], seen: &[u32]) {
        if self.repetition_penalty == 1.0 {
            return;
        }
        let mut seen = seen.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            let logit = &mut logits[id as usize];
            *logit = if *logit > 0.0 {
                *logit / self.repetition_penalty
            } else {
                *logit * self.repetition_penalty
            };
        }
    }
}

/// Index of the largest logit, the first among equals; `None` if one is not finite.
pub(crate) fn largest(logits: &[f32]) -> Option<u32> {
    let mut best = 0;
    for (i, &x) in logits.iter().enumerate() {
        if !x.is_finite() {
            return None;
        }
        if x > logits[best] {
            best = i;
        }
    }
    Some(best as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_logit_wins() {
        assert_eq!(largest(&[0.0, 2.0, 2.0, -1.0]), Some(1));
        assert_eq!(largest(&[-3.0, -2.0]), Some(1));
        assert_eq!(largest(&[0.0, f32::NAN]), None);
    }

    fn sampler(temperature: f64, top_k: usize, top_p: f64) -> Sampler {
        Sampler {
            temperature,
            top_k,
            top_p,
            ..Sampler::greedy().seeded(1)
        }
    }

    /// Frequency of each token in 20,000 draws.
    fn shares(mut sampler: Sampler, logits: &[f32]) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..20_000 {
            counts[sampler.choose(logits, &[]) as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    fn close(shares: &[f64], expected: &[f64]) {
        for (share, expected) in shares.iter().zip(expected) {
            assert!((share - expected).abs() < 0.015, "{shares:?}");
        }
    }

    /// Probabilities 0.1, 0.5, 0.15, 0.25.
    fn logits() -> [f32; 4] {
        [0.1f32, 0.5, 0.15, 0.25].map(f32::ln)
    }

    #[test]
    fn draws_follow_the_probabilities() {
        close(
            &shares(sampler(1.0, 0, 1.0), &logits()),
            &[0.1, 0.5, 0.15, 0.25],
        );
        let squares = [0.01, 0.25, 0.0225, 0.0625].map(|x| x / 0.345);
        close(&shares(sampler(0.5, 0, 1.0), &logits()), &squares);
    }

    #[test]
    fn only_the_most_probable_are_drawn() {
        let two = [0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0];
        close(&shares(sampler(1.0, 2, 1.0), &logits()), &two);
        close(&shares(sampler(1.0, 0, 0.7), &logits()), &two);
        close(
            &shares(sampler(1.0, 0, 0.3), &logits()),
            &[0.0, 1.0, 0.0, 0.0],
        );
        // Top-k leaves a probability of 0.9, of which 0.5 is more than 0.55.
        close(
            &shares(sampler(1.0, 3, 0.55), &logits()),
            &[0.0, 1.0, 0.0, 0.0],
        );
    }

    #[test]
    fn what_was_said_is_less_probable() {
        let mut greedy = Sampler::greedy();
        assert_eq!(greedy.choose(&[1.0, 1.5, -1.0, 1.5], &[]), 1);
        greedy.repetition_penalty = 2.0;
        assert_eq!(greedy.choose(&[1.0, 1.5, -1.0, 1.5], &[1, 1]), 3);
        assert_eq!(greedy.choose(&[1.0, 1.5, -1.0, 1.5], &[1, 3]), 0);
        assert_eq!(greedy.choose(&[-1.0, -1.5, -3.0], &[0]), 1);
    }

    #[test]
    fn a_seed_gives_the_same_draws() {
        let draw = |seed| {
            let mut sampler = sampler(1.0, 0, 1.0).seeded(seed);
            (0..50)
                .map(|_| sampler.choose(&logits(), &[]))
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
