//! Answers of a model, and which of their values are right.

use anyhow::Result;
use longspan_data::{Prompt, Tokenizer};

use crate::session::{LanguageModel, Session};

/// The most likely token in place of each answer token, given the expected answer before it.
///
/// # Errors
/// A token is outside the vocabulary, the method does not fit the model, or the pass fails.
pub fn teacher_forced<M: LanguageModel>(
    session: &mut Session<M>,
    prompt: &Prompt,
) -> Result<Vec<Option<u32>>> {
    let answer = prompt.answer.concat();
    // The last answer token is only a target.
    let ids = [&prompt.ids[..], &answer[..answer.len() - 1]].concat();
    let n = ids.len();
    session.most_likely(&ids, n, prompt.ids.len() - 1..n)
}

/// Greedy generation after a prompt: up to `spare` tokens more than the expected answer has, ending
/// early once `done` returns true for the tokens so far.
///
/// # Errors
/// As [`teacher_forced`].
pub fn generate<M: LanguageModel>(
    session: &mut Session<M>,
    prompt: &Prompt,
    spare: usize,
    done: &mut dyn FnMut(&[u32]) -> bool,
) -> Result<Vec<u32>> {
    let most = prompt.answer.iter().map(Vec::len).sum::<usize>() + spare;
    session.generate(&prompt.ids, most, done)
}

/// True for each part of the expected answer all of whose tokens are the most likely ones.
pub fn parts_right(prompt: &Prompt, likely: &[Option<u32>]) -> Vec<bool> {
    let mut at = 0;
    let right = prompt.answer.iter().map(|part| {
        let likely = &likely[at..at + part.len()];
        at += part.len();
        part.iter().map(|&id| Some(id)).eq(likely.iter().copied())
    });
    right.collect()
}

/// The text of token ids. A model may have rows beyond the vocabulary; their ids are left out.
pub fn text_of(tokenizer: &Tokenizer, ids: impl Iterator<Item = u32>) -> String {
    let known = ids.filter(|&id| (id as usize) < tokenizer.vocab_size());
    let known: Vec<u32> = known.collect();
    tokenizer.decode(&known).unwrap_or_default()
}

/// Wilson's 95 % interval for a mean of `trials` outcomes between 0 and 1 (E. B. Wilson, JASA 22,
/// 1927). It is conservative for outcomes other than 0 and 1: never too narrow.
pub fn wilson(mean: f64, trials: usize) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    let n = trials as f64;
    let centre = mean + Z * Z / (2.0 * n);
    let half = Z * (mean * (1.0 - mean) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    (
        ((centre - half) / scale).max(0.0),
        ((centre + half) / scale).min(1.0),
    )
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use longspan_attention::Method;
    use longspan_model::WeightType;

    use super::*;
    use crate::open;

    fn prompt(ids: Vec<u32>, answer: Vec<Vec<u32>>) -> Prompt {
        Prompt {
            ids,
            answer,
            depth: 0.0,
        }
    }

    #[test]
    fn intervals_are_wilsons() {
        // From R's binom::binom.wilson and statsmodels' proportion_confint(method="wilson").
        for (correct, trials, low, high) in [
            (0, 5, 0.0, 0.434482),
            (5, 5, 0.565518, 1.0),
            (8, 10, 0.490162, 0.943318),
            (1, 10, 0.017876, 0.404150),
            (50, 100, 0.403832, 0.596168),
        ] {
            let (a, b) = wilson(correct as f64 / trials as f64, trials);
            assert!((a - low).abs() < 1e-6 && (b - high).abs() < 1e-6, "{a} {b}");
        }
    }

    #[test]
    fn parts_are_judged_on_their_own() {
        let prompt = prompt(vec![0], vec![vec![1, 2], vec![3], vec![4, 5]]);
        let given = |ids: [u32; 5]| ids.map(Some);
        assert_eq!(parts_right(&prompt, &given([1, 2, 3, 4, 5])), [true; 3]);
        assert_eq!(
            parts_right(&prompt, &given([9, 2, 3, 4, 9])),
            [false, true, false]
        );
        assert_eq!(parts_right(&prompt, &[None; 5]), [false; 3]);
    }

    #[test]
    fn ids_beyond_the_vocabulary_have_no_text() {
        let tokenizer = Tokenizer::bytes();
        let beyond = tokenizer.vocab_size() as u32;
        assert_eq!(text_of(&tokenizer, [104, beyond, 105].into_iter()), "hi");
    }

    /// A model's own generation is right under both scorers; anything else is wrong under both.
    #[test]
    fn the_models_own_words_are_right_under_both_scorers() {
        let checkpoint = open::checkpoint("builtin:random").unwrap();
        let model = open::model(checkpoint, (None, WeightType::F32), &Device::flex()).unwrap();
        for rope in ["none", "dynamic_ntk"] {
            let text = format!("name = \"m\"\nrope = {{ kind = \"{rope}\" }}\nlogn = true");
            let method: Method = toml::from_str(&text).unwrap();
            let mut session = Session::new(&model, &method);
            let ids: Vec<u32> = (0..50).map(|i| i * i % 256).collect();
            let mut asked = prompt(ids, vec![vec![0; 2], vec![0; 3]]);
            let written = generate(&mut session, &asked, 0, &mut |_| false).unwrap();
            assert_eq!(written.len(), 5);
            assert_eq!(session.fed, 50 + 4);
            asked.answer = vec![written[..2].to_vec(), written[2..].to_vec()];
            let likely = teacher_forced(&mut session, &asked).unwrap();
            assert_eq!(
                likely,
                written.iter().copied().map(Some).collect::<Vec<_>>()
            );
            assert_eq!(parts_right(&asked, &likely), [true, true]);

            // A wrong first part: generation takes the model's own, teacher forcing the expected
            // one.
            asked.answer[0][0] = (asked.answer[0][0] + 1) % 256;
            let likely = teacher_forced(&mut session, &asked).unwrap();
            assert!(!parts_right(&asked, &likely)[0]);
            let again = generate(&mut session, &asked, 2, &mut |_| false).unwrap();
            assert_eq!(again[..5], written);
            assert_eq!(again.len(), 7);
            let one = generate(&mut session, &asked, 2, &mut |_| true).unwrap();
            assert_eq!(one, written[..1]);
        }
    }
}
