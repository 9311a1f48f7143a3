//! What a template draws, and where its needles end up.

use rand::SeedableRng;

use super::*;
use crate::tasks::{TASKS, template};

fn rng(seed: u64) -> TaskRng {
    TaskRng::seed_from_u64(seed)
}

fn filled(name: &str) -> Filled {
    template(name).unwrap().draw(&mut rng(0))
}

/// The question of seed 0, in the byte vocabulary.
fn ask(template: &Template, place: Place, haystack: &[u32]) -> Result<Question, TaskError> {
    template.ask(place, haystack, &Tokenizer::bytes(), &mut rng(0))
}

/// `fed` tokens with nothing kept free.
fn place(fed: usize, depth: f64) -> Place {
    Place {
        fed,
        spare: 0,
        depth,
    }
}

#[test]
fn needles_of_one_key_have_a_value_each() {
    let Filled {
        needles,
        question,
        answer,
        ..
    } = filled("multi-value");
    let end = needles[0].find(" is ").unwrap();
    let key = &needles[0][" One magic number of ".len()..end];
    let numbers: Vec<&str> = answer[1..].split(", ").collect();
    assert_eq!(numbers.len(), 4);
    for (needle, number) in needles.iter().zip(numbers) {
        assert_eq!(needle, &format!(" One magic number of {key} is {number}."));
    }
    assert_eq!(
        question,
        format!("What are all the magic numbers of {key}? The magic numbers of {key} are")
    );
}

#[test]
fn one_of_several_keys_is_asked_for() {
    for seed in 0..50 {
        let filled = template("multi-key").unwrap().draw(&mut rng(seed));
        assert_eq!((filled.needles.len(), filled.values.len()), (4, 1));
        let key =
            |text: &str| text[" The magic number of ".len()..text.find(" is ").unwrap()].to_owned();
        let asked = key(&filled.needles[0]);
        assert!(filled.question.contains(&format!("of {asked}?")));
        assert!(filled.needles[0].contains(&filled.values[0]));
        for other in &filled.needles[1..] {
            assert_ne!(key(other), asked);
            assert!(!other.contains(&filled.values[0]));
        }
    }
}

#[test]
fn a_seed_is_a_trial() {
    let fact = template("fact").unwrap();
    assert_eq!(fact.draw(&mut rng(0)), fact.draw(&mut rng(0)));
    assert_ne!(fact.draw(&mut rng(0)), fact.draw(&mut rng(1)));
}

/// A text with a sentence end every `sentence` bytes.
fn text(len: usize, sentence: usize) -> Vec<u32> {
    let byte = |i: usize| match i % sentence {
        0 => b' ',
        at if at + 1 == sentence => b'.',
        at => b'a' + (at % 20) as u8,
    };
    (0..len).map(|i| u32::from(byte(i))).collect()
}

/// The position of a text in a prompt that contains it once.
fn find(prompt: &[u32], needle: &str) -> usize {
    let needle: Vec<u32> = needle.bytes().map(u32::from).collect();
    let mut found =
        (0..=prompt.len() - needle.len()).filter(|&at| prompt[at..].starts_with(&needle));
    let at = found.next().expect("the needle is in the prompt");
    assert_eq!(found.next(), None);
    at
}

/// The haystack of a prompt: its ids before `end` without the needles, which start at `starts`.
fn without_needles(prompt: &[u32], end: usize, starts: &[usize], needles: &[String]) -> Vec<u32> {
    let mut rest = prompt[..end].to_vec();
    let mut all: Vec<(usize, usize)> = (starts.iter().zip(needles))
        .map(|(&at, needle)| (at, needle.len()))
        .collect();
    all.sort();
    for (at, len) in all.into_iter().rev() {
        rest.drain(at..at + len);
    }
    rest
}

#[test]
fn every_length_is_met_exactly_and_every_needle_is_there() {
    let tokenizer = Tokenizer::bytes();
    let haystack = text(3000, 17);
    for template in TASKS.iter().filter_map(|task| task.template()) {
        let filled = template.draw(&mut rng(0));
        for fed in [400, 401, 511, 512, 1023, 2999] {
            for (depth, spare) in [(0.0, 0), (0.5, 0), (1.0, 0), (0.3, 8)] {
                let place = Place { fed, spare, depth };
                let question = ask(&template, place, &haystack).unwrap();
                assert_eq!(question.answer, filled.answer);
                assert_eq!(question.values, filled.values);
                let prompt = question.prompt;
                let answer = prompt.answer.concat();
                assert_eq!(prompt.ids.len() + answer.len() - 1 + spare, fed);
                assert_eq!(tokenizer.decode(&answer).unwrap(), filled.answer);
                let starts: Vec<usize> = (filled.needles.iter())
                    .map(|needle| find(&prompt.ids, needle))
                    .collect();
                let asked = &starts[..filled.values.len()];
                assert!(asked.is_sorted(), "{asked:?}");
                let tail = format!("\n{}", filled.question);
                let end = find(&prompt.ids, &tail);
                assert_eq!(end, prompt.ids.len() - tail.len());
                let rest = without_needles(&prompt.ids, end, &starts, &filled.needles);
                assert_eq!(rest, haystack[..rest.len()]);
                let rounding = 1.0 / rest.len() as f64;
                assert!(
                    (prompt.depth - depth).abs() <= 0.05 + rounding,
                    "{} for {depth}",
                    prompt.depth
                );
                if template.name == "fact" && fed > 1000 && depth != 1.0 && depth != 0.0 {
                    assert_eq!(prompt.ids[starts[0] - 1], u32::from(b'.'));
                    assert_eq!(prompt.depth, starts[0] as f64 / rest.len() as f64);
                }
                if depth == 0.0 || depth == 1.0 {
                    assert_eq!(prompt.depth, depth);
                }
            }
        }
    }
}

#[test]
fn without_a_sentence_end_the_depth_is_exact() {
    let haystack: Vec<u32> = (0..2000).map(|i| u32::from(b"3.14159"[i % 7])).collect();
    let question = ask(&template("fact").unwrap(), place(1000, 0.4), &haystack).unwrap();
    let depth = question.prompt.depth;
    assert!((depth - 0.4).abs() < 1e-3, "{depth}");
}

/// The haystack of a shorter length is the beginning of a longer one's.
#[test]
fn haystacks_are_nested() {
    let (task, haystack) = (template("pass-key").unwrap(), text(3000, 40));
    let ids = |fed| ask(&task, place(fed, 1.0), &haystack).unwrap().prompt.ids;
    assert_eq!(ids(700)[..500], ids(1500)[..500]);
}

#[test]
fn a_chat_prompt_has_special_tokens() {
    let mut task = template("fact").unwrap();
    task.prompt =
        "<|im_start|>user\n{haystack}\n\n{question}<|im_end|>\n<|im_start|>assistant\n".into();
    task.check().unwrap();
    // A special token's name in the haystack stays text.
    let haystack: Vec<u32> = "<|im_end|>"
        .bytes()
        .cycle()
        .take(900)
        .map(u32::from)
        .collect();
    let prompt = ask(&task, place(600, 0.5), &haystack).unwrap().prompt;
    let special: Vec<u32> = prompt.ids.iter().copied().filter(|&id| id > 255).collect();
    assert_eq!(special, [257, 258, 257]);
    assert_eq!(prompt.ids.len() + prompt.answer.concat().len() - 1, 600);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (task, filled) = (template("pass-key").unwrap(), filled("pass-key"));
    let refused = |fed, haystack: &[u32]| {
        let error = ask(&task, place(fed, 0.5), haystack).unwrap_err();
        error.to_string()
    };
    let taken = filled.needles[0].len() + 1 + filled.question.len() + filled.answer.len() - 1;
    let error = refused(taken, &text(500, 10));
    assert!(
        error.contains("pass-key") && error.contains(&format!("take {taken} of {taken}")),
        "{error}"
    );
    let fits = ask(&task, place(taken + 1, 0.5), &text(500, 10)).unwrap();
    assert_eq!(fits.prompt.ids.len() + 6 - 1, taken + 1);
    let error = refused(400, &text(100, 10));
    assert!(
        error.contains("has 100 tokens") && error.contains(&(400 - taken).to_string()),
        "{error}"
    );
}
