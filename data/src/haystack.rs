//! Prompts with needles hidden in a haystack, assembled from token ids.
//!
//! Each text is tokenized on its own and the ids are concatenated. Tokenizing the concatenated text
//! could merge tokens across the seams, and its length would not be known in advance.

use thiserror::Error;

use crate::tokenizer::Tokenizer;

/// A needle moves to a sentence end by at most one part in this many of the haystack.
const NEAR: usize = 20;

/// The size of a prompt and the depth of its needle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Tokens fed when the last answer token is scored: the prompt and the answer, without the last
    /// answer token, which is only a target.
    pub fed: usize,
    /// Tokens kept free for an answer longer than the expected one.
    pub spare: usize,
    /// Fraction of the haystack before the needle, 0 to 1.
    pub depth: f64,
}

/// The texts of a prompt, apart from its haystack.
///
/// In `before` and `after` the name of a special token stands for that token; in needles and answer
/// it is ordinary text.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptTexts<'a> {
    /// What precedes the haystack.
    pub before: &'a str,
    /// Each needle with its depth: the fraction of the haystack before it, 0 to 1.
    pub needles: Vec<(&'a str, f64)>,
    /// What follows the haystack, the question included.
    pub after: &'a str,
    /// The expected answer, in the parts that are scored separately.
    pub answer: Vec<&'a str>,
}

/// A haystack with its needles and the question, as token ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Everything before the answer.
    pub ids: Vec<u32>,
    /// The parts of the answer.
    pub answer: Vec<Vec<u32>>,
    /// Fraction of the haystack before a needle placed at [`Place::depth`].
    pub depth: f64,
}

/// A prompt cannot have the length asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HaystackError {
    /// The other texts leave no token for the haystack.
    #[error(
        "needles, question and answer take {taken} of {fed} tokens and leave none for the haystack; \
         raise the length or shorten the texts"
    )]
    NoRoom {
        /// Tokens of everything except the haystack.
        taken: usize,
        /// Tokens to feed.
        fed: usize,
    },

    /// The haystack is shorter than the room for it.
    #[error(
        "the haystack has {found} tokens, but {fed} fed tokens need {needed} of it; give more text or \
         lower the length"
    )]
    TooShort {
        /// Tokens of the haystack.
        found: usize,
        /// Tokens of the haystack that the prompt needs.
        needed: usize,
        /// Tokens to feed.
        fed: usize,
    },
}

/// Hides needles in the beginning of a haystack. The prompt has exactly
/// `place.fed + 1 - answer - place.spare` tokens, where `answer` is the number of answer tokens.
///
/// A needle goes to the sentence end nearest to its depth, or exactly to its depth if there is no
/// sentence end within a twentieth of the haystack. Needles at one place are ordered by depth.
///
/// # Errors
/// The texts leave no room for the haystack, or the haystack is shorter than that room.
pub fn hide(
    texts: &PromptTexts,
    place: Place,
    haystack: &[u32],
    tokenizer: &Tokenizer,
) -> Result<Prompt, HaystackError> {
    let before = tokenizer.encode_with_special(texts.before);
    let after = tokenizer.encode_with_special(texts.after);
    let needles: Vec<(Vec<u32>, f64)> = (texts.needles.iter())
        .map(|&(needle, depth)| (tokenizer.encode(needle), depth))
        .collect();
    let answer: Vec<Vec<u32>> = (texts.answer.iter())
        .map(|part| tokenizer.encode(part))
        .collect();

    let fixed = before.len()
        + needles.iter().map(|(ids, _)| ids.len()).sum::<usize>()
        + after.len()
        + answer.iter().map(Vec::len).sum::<usize>();
    // The last answer token is not fed.
    let taken = (fixed + place.spare).saturating_sub(1);
    if taken >= place.fed {
        return Err(HaystackError::NoRoom {
            taken,
            fed: place.fed,
        });
    }
    let room = place.fed - taken;
    let Some(haystack) = haystack.get(..room) else {
        return Err(HaystackError::TooShort {
            found: haystack.len(),
            needed: room,
            fed: place.fed,
        });
    };

    let mut placed: Vec<(usize, f64, &[u32])> = (needles.iter())
        .map(|(ids, depth)| (sentence_end(haystack, *depth, tokenizer), *depth, &ids[..]))
        .collect();
    placed.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));

    let mut ids = before;
    let mut done = 0;
    for (at, _, needle) in placed {
        ids.extend(&haystack[done..at]);
        ids.extend(needle);
        done = at;
    }
    ids.extend(&haystack[done..]);
    ids.extend(after);
    Ok(Prompt {
        ids,
        answer,
        depth: sentence_end(haystack, place.depth, tokenizer) as f64 / room as f64,
    })
}

/// The number of tokens before the sentence end nearest to a depth.
fn sentence_end(haystack: &[u32], depth: f64, tokenizer: &Tokenizer) -> usize {
    let n = haystack.len();
    let exact = ((depth * n as f64).round() as usize).min(n);
    let text = |at: usize| tokenizer.decode(&haystack[at..=at]).unwrap_or_default();
    let ends = |at: usize| {
        at == 0 || at == n || {
            let before = text(at - 1);
            // A full stop ends a sentence only before white space, not inside a number.
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
