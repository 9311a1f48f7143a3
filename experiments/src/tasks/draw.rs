//! The sets from which keys and values of needles are drawn.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::words::WORDS;

/// A set of texts to draw from: `"digits:5"`, `"letters:4"`, `"words"`, `"words:2"` or a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "DrawText", into = "DrawText")]
pub enum Draw {
    /// Numbers of this many digits; the first is not 0.
    Digits(usize),
    /// Strings of this many lower-case letters.
    Letters(usize),
    /// This many common nouns, separated by spaces.
    Words(usize),
    /// The texts in this list.
    List(Vec<String>),
}

/// [`Draw`] as written in a config.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "\"digits:5\", \"letters:4\", \"words\", \"words:2\" or a list of strings"
)]
enum DrawText {
    Name(String),
    List(Vec<String>),
}

impl TryFrom<DrawText> for Draw {
    type Error = String;

    fn try_from(text: DrawText) -> Result<Self, String> {
        let name = match text {
            DrawText::List(list) => return Ok(Draw::List(list)),
            DrawText::Name(name) => name,
        };
        let (kind, count) = match name.split_once(':') {
            Some((kind, count)) => (kind, count.parse().ok()),
            None if name == "words" => ("words", Some(1)),
            None => (name.as_str(), None),
        };
        match (kind, count) {
            ("digits", Some(count @ 1..=1000)) => Ok(Draw::Digits(count)),
            ("letters", Some(count @ 1..=1000)) => Ok(Draw::Letters(count)),
            ("words", Some(count @ 1..=1000)) => Ok(Draw::Words(count)),
            _ => Err(format!(
                "{name:?} is nothing to draw from; give \"digits:5\", \"letters:4\", \"words\" or \
                 \"words:2\" (with a number from 1 to 1000), or a list of strings"
            )),
        }
    }
}

impl From<Draw> for DrawText {
    fn from(draw: Draw) -> Self {
        match draw {
            Draw::Digits(count) => DrawText::Name(format!("digits:{count}")),
            Draw::Letters(count) => DrawText::Name(format!("letters:{count}")),
            Draw::Words(1) => DrawText::Name("words".to_owned()),
            Draw::Words(count) => DrawText::Name(format!("words:{count}")),
            Draw::List(list) => DrawText::List(list),
        }
    }
}

impl Draw {
    /// Draws one text.
    fn draw(&self, rng: &mut impl Rng) -> String {
        let mut letter = |first: u8, count: usize| char::from(first + below(rng, count) as u8);
        match self {
            Draw::Digits(count) => (0..*count)
                .map(|place| match place {
                    0 => letter(b'1', 9),
                    _ => letter(b'0', 10),
                })
                .collect(),
            Draw::Letters(count) => (0..*count).map(|_| letter(b'a', 26)).collect(),
            Draw::Words(count) => {
                let words: Vec<&str> = (0..*count)
                    .map(|_| WORDS[below(rng, WORDS.len())])
                    .collect();
                words.join(" ")
            }
            Draw::List(list) => list[below(rng, list.len())].clone(),
        }
    }

    /// Draws `count` different texts; does not return if `count` exceeds [`Draw::variety`].
    pub(crate) fn draw_different(&self, count: usize, rng: &mut impl Rng) -> Vec<String> {
        let mut drawn: Vec<String> = Vec::with_capacity(count);
        while drawn.len() < count {
            let next = self.draw(rng);
            if !drawn.contains(&next) {
                drawn.push(next);
            }
        }
        drawn
    }

    /// The size of the set; saturates at `usize::MAX`.
    pub(crate) fn variety(&self) -> usize {
        let power = |base: usize, count: usize| base.saturating_pow(count.min(64) as u32);
        match self {
            Draw::Digits(count) => power(10, count.saturating_sub(1)).saturating_mul(9),
            Draw::Letters(count) => power(26, *count),
            Draw::Words(count) => power(WORDS.len(), *count),
            Draw::List(list) => list.len(),
        }
    }
}

/// Draws from 0 to `end - 1`. `rand`'s own ranges may change between its versions.
fn below(rng: &mut impl Rng, end: usize) -> usize {
    ((u128::from(rng.next_u64()) * end as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::tasks::TaskRng;

    #[test]
    fn sets_are_read_and_written_as_in_a_config() {
        let parse = |text: &str| serde_json::from_str::<Draw>(text);
        for (text, draw) in [
            ("\"digits:7\"", Draw::Digits(7)),
            ("\"letters:4\"", Draw::Letters(4)),
            ("\"words\"", Draw::Words(1)),
            ("\"words:2\"", Draw::Words(2)),
            ("[\"x\"]", Draw::List(vec!["x".into()])),
        ] {
            assert_eq!(parse(text).unwrap(), draw);
            assert_eq!(serde_json::to_string(&draw).unwrap(), text);
        }
        for text in ["\"digits\"", "\"digits:0\"", "\"uuid\"", "\"words:x\""] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("digits:5"), "{error}");
        }
    }

    #[test]
    fn texts_have_the_form_of_their_set() {
        for seed in 0..50 {
            let rng = &mut TaskRng::seed_from_u64(seed);
            let digits = Draw::Digits(5).draw(rng);
            assert!(digits.len() == 5 && digits.parse::<u32>().unwrap() >= 10_000);
            let letters = Draw::Letters(4).draw(rng);
            assert!(letters.len() == 4 && letters.bytes().all(|b| b.is_ascii_lowercase()));
            let words = Draw::Words(2).draw(rng);
            assert_eq!(words.split(' ').count(), 2, "{words}");
            assert!(words.split(' ').all(|word| WORDS.contains(&word)));
        }
    }

    #[test]
    fn a_whole_set_is_drawn_without_repeats() {
        let set = Draw::Digits(1);
        let mut drawn = set.draw_different(set.variety(), &mut TaskRng::seed_from_u64(0));
        drawn.sort();
        assert_eq!(drawn, ["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    }
}
