//! Answers of a model, and how right they are.

use std::ops::Range;

use anyhow::Result;
use longspan_attention::Method;
use longspan_data::{Prompt, Tokenizer};
use longspan_model::{CacheType, DecodeOptions, Decoder, PassPlan, Stale, Transformer};
use longspan_rope::Length;

/// A method over a model, with the plan of the last pass: passes of one length in a row share it.
pub struct Laid<'a> {
    model: &'a Transformer,
    method: &'a Method,
    plan: Option<(Length, PassPlan)>,
    /// Tokens fed so far.
    pub fed: usize,
}

impl<'a> Laid<'a> {
    /// Nothing is planned yet.
    pub fn new(model: &'a Transformer, method: &'a Method) -> Self {
        Self {
            model,
            method,
            plan: None,
            fed: 0,
        }
    }

    /// The most likely token after each position in `rows` of a pass over `ids`; none where the logits are not
    /// finite. Of equal ones the first.
    fn most_likely(
        &mut self,
        ids: &[u32],
        prefill: usize,
        rows: Range<usize>,
    ) -> Result<Vec<Option<u32>>> {
        let length = Length {
            total: ids.len(),
            prefill,
        };
        let plan = match self.plan.take() {
            Some((planned, plan)) if planned == length => plan,
            _ => self.model.plan(self.method, length)?,
        };
        let hidden = self.model.hidden(ids, &plan)?;
        self.plan = Some((length, plan));
        self.fed += ids.len();
        let width = hidden.dims()[1];
        let logits = self.model.logits(hidden.slice([rows, 0..width]));
        let vocabulary = logits.dims()[1];
        let logits: Vec<f32> =
            (logits.into_data().try_to_vec()).expect("logits are read back as f32");
        Ok(logits.chunks(vocabulary).map(largest).collect())
    }
}

/// Index of the largest value.
fn largest(row: &[f32]) -> Option<u32> {
    let mut best = 0;
    for (i, &x) in row.iter().enumerate() {
        if !x.is_finite() {
            return None;
        }
        if x > row[best] {
            best = i;
        }
    }
    Some(best as u32)
}

/// The most likely token in place of each answer token, given all before it of the right answer.
///
/// # Errors
/// A token outside the vocabulary; a method that does not fit.
pub fn teacher_forced(laid: &mut Laid, prompt: &Prompt) -> Result<Vec<Option<u32>>> {
    let answer = prompt.answer.concat();
    // The last answer token is only a target.
    let ids = [&prompt.ids[..], &answer[..answer.len() - 1]].concat();
    let n = ids.len();
    laid.most_likely(&ids, n, prompt.ids.len() - 1..n)
}

/// For each part of the answer whether all of it was most likely.
pub fn parts_right(prompt: &Prompt, given: &[Option<u32>]) -> Vec<bool> {
    let mut given = given.iter();
    let right = prompt.answer.iter().map(|part| {
        // All of a part is taken, right or wrong.
        let pairs: Vec<bool> = part
            .iter()
            .zip(given.by_ref().take(part.len()))
            .map(|(a, b)| Some(*a) == *b)
            .collect();
        pairs.len() == part.len() && pairs.into_iter().all(|same| same)
    });
    right.collect()
}

/// How [`generate`] keeps keys and values: exactly.
pub fn options(capacity: usize) -> DecodeOptions {
    DecodeOptions {
        cache: CacheType::F32,
        stale: Stale::Recompute,
        capacity,
    }
}

/// What the model writes after each prompt, always the most likely token: at most `spare` tokens more than the
/// right answer has, and no more once `done` says so. The prompt is the first call; keys and values are kept, and
/// computed anew where the method treats what was read in another way at the new length.
///
/// # Errors
/// A token outside the vocabulary; a method that does not fit.
pub fn generate(
    laid: &mut Laid,
    prompts: &[&Prompt],
    spare: usize,
    done: impl Fn(usize, &[u32]) -> bool,
) -> Result<Vec<Vec<u32>>> {
    let mut written = Vec::new();
    for (i, prompt) in prompts.iter().enumerate() {
        let most = prompt.answer.iter().map(Vec::len).sum::<usize>() + spare;
        let options = options(prompt.ids.len() + most);
        let mut decoder = Decoder::new(laid.model, laid.method, options)?;
        let mut hidden = decoder.prompt(&prompt.ids)?;
        let mut text = Vec::new();
        // Without finite logits there is nothing to write.
        while let Some(next) = largest(&decoder.logits(hidden)) {
            text.push(next);
            if text.len() == most || done(i, &text) {
                break;
            }
            hidden = decoder.feed(&[next])?;
        }
        laid.fed += decoder.ids().len();
        written.push(text);
    }
    Ok(written)
}

/// Which values occur in a text, in upper or lower case.
pub fn values_found(values: &[String], text: &str) -> Vec<bool> {
    let text = text.to_lowercase();
    let found = |value: &String| text.contains(&value.trim().to_lowercase());
    values.iter().map(found).collect()
}

/// The text of ids; those beyond the vocabulary, which a model may have rows for, are left out.
pub fn text_of(tokenizer: &Tokenizer, ids: impl Iterator<Item = u32>) -> String {
    let known = ids.filter(|&id| (id as usize) < tokenizer.vocab_size());
    let known: Vec<u32> = known.collect();
    tokenizer.decode(&known).unwrap_or_default()
}

/// Wilson's 95 % interval for a mean of `trials` outcomes between 0 and 1 (E. B. Wilson, JASA 22, 1927). With outcomes
/// other than 0 and 1 it is too wide, never too narrow.
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
    use longspan_model::WeightType;

    use super::*;
    use crate::open;

    #[test]
    fn intervals_are_wilsons() {
        // Values of R's binom::binom.wilson and of statsmodels' proportion_confint(method="wilson").
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
    fn values_are_found_in_any_case() {
        let values = ["Dolores Park", " 123"].map(String::from);
        assert_eq!(values_found(&values, "in DOLORES park, 124"), [true, false]);
        assert_eq!(values_found(&values, "123"), [false, true]);
    }

    #[test]
    fn parts_are_judged_on_their_own() {
        let answer = vec![vec![1, 2], vec![3], vec![4, 5]];
        let prompt = Prompt {
            ids: vec![0],
            answer,
            depth: 0.0,
        };
        let given = |ids: [u32; 5]| ids.map(Some);
        assert_eq!(parts_right(&prompt, &given([1, 2, 3, 4, 5])), [true; 3]);
        assert_eq!(
            parts_right(&prompt, &given([9, 2, 3, 4, 9])),
            [false, true, false]
        );
        assert_eq!(parts_right(&prompt, &[None; 5]), [false; 3]);
    }

    #[test]
    fn the_largest_logit_wins() {
        assert_eq!(largest(&[0.0, 2.0, 2.0, -1.0]), Some(1));
        assert_eq!(largest(&[-3.0, -2.0]), Some(1));
        assert_eq!(largest(&[0.0, f32::NAN]), None);
    }

    /// What a model writes by itself is right for both scorers, and anything else is wrong for both.
    #[test]
    fn the_models_own_words_are_right_under_both_scorers() {
        let checkpoint = open::checkpoint("builtin:random").unwrap();
        let model = open::model(checkpoint, (None, WeightType::F32), &Device::flex()).unwrap();
        for rope in ["none", "dynamic_ntk"] {
            let text = format!("name = \"m\"\nrope = {{ kind = \"{rope}\" }}\nlogn = true");
            let method: Method = toml::from_str(&text).unwrap();
            let mut laid = Laid::new(&model, &method);
            let ids: Vec<u32> = (0..50).map(|i| i * i % 256).collect();
            let mut prompt = Prompt {
                ids,
                answer: vec![vec![0; 2], vec![0; 3]],
                depth: 0.0,
            };
            let never = |_: usize, _: &[u32]| false;
            let written = generate(&mut laid, &[&prompt], 0, never).unwrap().remove(0);
            assert_eq!(written.len(), 5);
            assert_eq!(laid.fed, 50 + 4);
            prompt.answer = vec![written[..2].to_vec(), written[2..].to_vec()];
            let given = teacher_forced(&mut laid, &prompt).unwrap();
            assert_eq!(given, written.iter().copied().map(Some).collect::<Vec<_>>());
            assert_eq!(parts_right(&prompt, &given), [true, true]);

            // A wrong first part: the model goes its own way, and is forced back for the second.
            prompt.answer[0][0] = (prompt.answer[0][0] + 1) % 256;
            let given = teacher_forced(&mut laid, &prompt).unwrap();
            assert!(!parts_right(&prompt, &given)[0]);
            let again = generate(&mut laid, &[&prompt, &prompt], 2, |i, _| i == 1).unwrap();
            assert_eq!(again[0][..5], written);
            assert_eq!((again[0].len(), again[1].len()), (7, 1));
        }
    }
}
