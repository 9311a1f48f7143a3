//! Needles hidden in a haystack, in token space.
//!
//! Pieces are tokenized on their own and their ids put together: text put together first could be cut into
//! other tokens at the seams, and its length would not be known beforehand.

use crate::{Needle, NeedleError, NeedleTask, Tokenizer};

/// A sentence end within this fraction of the haystack is near enough to hide a needle there.
const NEAR: usize = 20;

/// Where a needle goes and how long everything is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Tokens fed when the last answer token is scored: the prompt and the answer but for that token, which is
    /// only a target.
    pub fed: usize,
    /// Tokens kept free for an answer that is longer than the expected one.
    pub spare: usize,
    /// Fraction of the haystack before the needle, 0 to 1.
    pub depth: f64,
}

/// A haystack with its needles and the question, as token ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// All up to the answer.
    pub ids: Vec<u32>,
    /// The answer, a part for each value asked for.
    pub answer: Vec<Vec<u32>>,
    /// Fraction of the haystack before the needle that was to stand at [`Place::depth`].
    pub depth: f64,
}

impl NeedleTask {
    /// Hides needles in the first tokens of a haystack and asks for them. The prompt has exactly
    /// `place.fed + 1 - answer - place.spare` tokens, `answer` those of the answer.
    ///
    /// A needle goes to the sentence end nearest to its depth, or exactly to its depth when there is none within a
    /// twentieth of the haystack.
    ///
    /// # Errors
    /// A length that the other texts fill; a haystack that is too short.
    pub fn hide(
        &self,
        needle: &Needle,
        place: Place,
        haystack: &[u32],
        tokenizer: &Tokenizer,
    ) -> Result<Prompt, NeedleError> {
        let (head, tail) = (self.prompt.split_once("{haystack}")).expect("`check` passed");
        let [head, tail] = [head, tail].map(|text| {
            tokenizer.encode_with_special(&text.replace("{question}", &needle.question))
        });
        let encode = |text: &String| tokenizer.encode(text);
        let needles: Vec<Vec<u32>> = needle.needles.iter().map(encode).collect();
        let answer: Vec<Vec<u32>> = (needle.answer_parts().into_iter())
            .map(|part| tokenizer.encode(part))
            .collect();

        let taken = [&head, &tail].map(Vec::len).iter().sum::<usize>()
            + (needles.iter().chain(&answer).map(Vec::len)).sum::<usize>()
            + place.spare
            - 1;
        if taken >= place.fed {
            return Err(NeedleError::NoRoom {
                task: self.name.clone(),
                taken,
                fed: place.fed,
            });
        }
        let room = place.fed - taken;
        let Some(haystack) = haystack.get(..room) else {
            return Err(NeedleError::HaystackTooShort {
                task: self.name.clone(),
                found: haystack.len(),
                needed: room,
                fed: place.fed,
            });
        };
        let depths = needle.depths(place.depth);
        let boundary = |depth: f64| sentence_end(haystack, depth, tokenizer);
        let mut order: Vec<(usize, f64, &Vec<u32>)> = (depths.iter().zip(&needles))
            .map(|(&depth, needle)| (boundary(depth), depth, needle))
            .collect();
        order.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));

        let mut ids = head;
        let mut done = 0;
        for (at, _, needle) in order {
            ids.extend(&haystack[done..at]);
            ids.extend(needle);
            done = at;
        }
        ids.extend(&haystack[done..]);
        ids.extend(tail);
        Ok(Prompt {
            ids,
            answer,
            depth: boundary(place.depth) as f64 / room as f64,
        })
    }
}

/// The place in a haystack, in tokens from its start, that follows a sentence and is nearest to a depth.
fn sentence_end(haystack: &[u32], depth: f64, tokenizer: &Tokenizer) -> usize {
    let n = haystack.len();
    let exact = ((depth * n as f64).round() as usize).min(n);
    let text = |at: usize| tokenizer.decode(&haystack[at..=at]).unwrap_or_default();
    let ends = |at: usize| {
        at == 0 || at == n || {
            let before = text(at - 1);
            // A full stop inside a number or a command ends no sentence.
            before.ends_with(['\n', '。'])
                || before.ends_with(['.', '!', '?']) && text(at).starts_with(char::is_whitespace)
        }
    };
    (0..=n / NEAR)
        .flat_map(|away| {
            [
                exact.checked_sub(away),
                Some(exact + away).filter(|&at| at <= n),
            ]
        })
        .flatten()
        .find(|&at| ends(at))
        .unwrap_or(exact)
}
