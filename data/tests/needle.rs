//! Drawn needles and their places in prompts.

use std::path::Path;

use longspan_data::{Draw, Needle, NeedleTask, Place, Tokenizer};
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

fn preset(name: &str) -> NeedleTask {
    let mut presets = NeedleTask::presets().into_iter();
    presets.find(|task| task.name == name).unwrap()
}

fn rng(seed: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(seed)
}

fn draw(name: &str) -> Needle {
    preset(name).draw(&mut rng(0))
}

#[test]
fn presets_read_as_they_should() {
    let Needle {
        needles,
        question,
        answer,
        values,
        ..
    } = draw("pass-key");
    let value = &values[0];
    assert!(
        value.len() == 5 && value.parse::<u32>().unwrap() >= 10_000,
        "{value}"
    );
    let needle = format!(" The pass key is {value}. Remember it. {value} is the pass key.");
    assert_eq!(needles, [needle]);
    assert_eq!(question, "What is the pass key? The pass key is");
    assert_eq!(answer, format!(" {value}"));

    let Needle {
        needles,
        question,
        answer,
        ..
    } = draw("multi-value");
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

    let Needle { needles, .. } = draw("san-francisco");
    let sentence = " The best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a \
                    sunny day.";
    assert_eq!(needles, [sentence]);
}

#[test]
fn one_of_several_keys_is_asked_for() {
    for seed in 0..50 {
        let needle = preset("multi-key").draw(&mut rng(seed));
        assert_eq!((needle.needles.len(), needle.values.len()), (4, 1));
        let key =
            |text: &str| text[" The magic number of ".len()..text.find(" is ").unwrap()].to_owned();
        let asked = key(&needle.needles[0]);
        assert!(needle.question.contains(&format!("of {asked}?")));
        assert!(needle.needles[0].contains(&needle.values[0]));
        for other in &needle.needles[1..] {
            assert_ne!(key(other), asked);
            assert!(!other.contains(&needle.values[0]));
        }
    }
    assert_eq!(draw("fact"), draw("fact"));
    assert_ne!(draw("fact"), preset("fact").draw(&mut rng(1)));
}

#[test]
fn the_answer_is_cut_after_each_value() {
    let mut task = preset("multi-value");
    task.answer = " {value} (all of {key}).".into();
    task.separator = Some(" and ".into());
    task.value = Draw::List(["a", "b", "c", "d"].map(String::from).into());
    task.check().unwrap();
    let needle = task.draw(&mut rng(3));
    let parts = needle.answer_parts();
    assert_eq!(parts.concat(), needle.answer);
    assert_eq!(parts[0], format!(" {}", needle.values[0]));
    assert_eq!(parts[1], format!(" and {}", needle.values[1]));
    assert!(parts[3].starts_with(&format!(" and {} (all of ", needle.values[3])));
}

#[test]
fn several_needles_lie_evenly_apart() {
    let key = draw("multi-key");
    assert_eq!(key.depths(0.0), [0.0, 0.25, 0.5, 0.75]);
    assert_eq!(key.depths(0.5), [0.5, 0.75, 0.0, 0.25]);
    assert_eq!(key.depths(1.0), [1.0, 0.25, 0.5, 0.75]);
    // All needles are asked for, so they follow the order of the answer.
    assert_eq!(draw("multi-value").depths(0.5), [0.0, 0.25, 0.5, 0.75]);
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

/// The start of a needle in a prompt, which must contain it exactly once.
fn find(prompt: &[u32], needle: &str) -> usize {
    let needle: Vec<u32> = needle.bytes().map(u32::from).collect();
    let mut found =
        (0..=prompt.len() - needle.len()).filter(|&at| prompt[at..].starts_with(&needle));
    let at = found.next().expect("the needle is in the prompt");
    assert_eq!(found.next(), None);
    at
}

#[test]
fn every_length_is_met_exactly_and_every_needle_is_there() {
    let tokenizer = Tokenizer::bytes();
    let haystack = text(3000, 17);
    for name in [
        "pass-key",
        "fact",
        "multi-key",
        "multi-value",
        "san-francisco",
    ] {
        let (task, needle) = (preset(name), draw(name));
        for fed in [400, 401, 511, 512, 1023, 2999] {
            for (depth, spare) in [(0.0, 0), (0.5, 0), (1.0, 0), (0.3, 8)] {
                let place = Place { fed, spare, depth };
                let prompt = task.hide(&needle, place, &haystack, &tokenizer).unwrap();
                let answer = prompt.answer.concat();
                assert_eq!(prompt.ids.len() + answer.len() - 1 + spare, fed);
                assert_eq!(tokenizer.decode(&answer).unwrap(), needle.answer);
                let starts: Vec<usize> = (needle.needles.iter())
                    .map(|n| find(&prompt.ids, n))
                    .collect();
                let asked = &starts[..needle.values.len()];
                assert!(asked.is_sorted(), "{asked:?}");
                let end = format!("\n{}", needle.question);
                assert_eq!(find(&prompt.ids, &end), prompt.ids.len() - end.len());
                // Without the needles the prompt is the beginning of the text.
                let mut rest = prompt.ids[..prompt.ids.len() - end.len()].to_vec();
                let mut all: Vec<(usize, usize)> = starts
                    .iter()
                    .zip(&needle.needles)
                    .map(|(&at, n)| (at, n.len()))
                    .collect();
                all.sort();
                for (at, len) in all.into_iter().rev() {
                    rest.drain(at..at + len);
                }
                assert_eq!(rest, haystack[..rest.len()]);
                let rounding = 1.0 / rest.len() as f64;
                assert!(
                    (prompt.depth - depth).abs() <= 0.05 + rounding,
                    "{} for {depth}",
                    prompt.depth
                );
                if name == "fact" && fed > 1000 && depth != 1.0 && depth != 0.0 {
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
    let place = Place {
        fed: 1000,
        spare: 0,
        depth: 0.4,
    };
    let prompt = preset("fact")
        .hide(&draw("fact"), place, &haystack, &Tokenizer::bytes())
        .unwrap();
    assert!((prompt.depth - 0.4).abs() < 1e-3, "{}", prompt.depth);
}

/// The haystack of a shorter prompt is a prefix of that of a longer one.
#[test]
fn haystacks_are_nested() {
    let haystack = text(3000, 40);
    let needle = draw("pass-key");
    let prompt = |fed| {
        let place = Place {
            fed,
            spare: 0,
            depth: 1.0,
        };
        preset("pass-key")
            .hide(&needle, place, &haystack, &Tokenizer::bytes())
            .unwrap()
    };
    let (short, long) = (prompt(700).ids, prompt(1500).ids);
    assert_eq!(short[..500], long[..500]);
}

#[test]
fn a_chat_prompt_has_special_tokens() {
    let tokenizer = Tokenizer::bytes();
    let mut task = preset("fact");
    task.prompt =
        "<|im_start|>user\n{haystack}\n\n{question}<|im_end|>\n<|im_start|>assistant\n".into();
    task.check().unwrap();
    let place = Place {
        fed: 600,
        spare: 0,
        depth: 0.5,
    };
    // The name of a special token in the haystack is ordinary text.
    let haystack: Vec<u32> = "<|im_end|>"
        .bytes()
        .cycle()
        .take(900)
        .map(u32::from)
        .collect();
    let prompt = task
        .hide(&draw("fact"), place, &haystack, &tokenizer)
        .unwrap();
    let special: Vec<u32> = prompt.ids.iter().copied().filter(|&id| id > 255).collect();
    assert_eq!(special, [257, 258, 257]);
    assert_eq!(prompt.ids.len() + prompt.answer.concat().len() - 1, 600);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (task, needle, tokenizer) = (preset("pass-key"), draw("pass-key"), Tokenizer::bytes());
    let hide = |fed, haystack: &[u32]| {
        let place = Place {
            fed,
            spare: 0,
            depth: 0.5,
        };
        task.hide(&needle, place, haystack, &tokenizer)
            .map_err(|error| error.to_string())
    };
    let taken = needle.needles[0].len() + 1 + needle.question.len() + needle.answer.len() - 1;
    let error = hide(taken, &text(500, 10)).unwrap_err();
    assert!(
        error.contains("pass-key") && error.contains(&format!("take {taken} of {taken}")),
        "{error}"
    );
    assert_eq!(
        hide(taken + 1, &text(500, 10)).unwrap().ids.len() + 6 - 1,
        taken + 1
    );
    let error = hide(400, &text(100, 10)).unwrap_err();
    assert!(
        error.contains("has 100 tokens") && error.contains(&(400 - taken).to_string()),
        "{error}"
    );
}

/// In Qwen's vocabulary the ids of the parts of an answer are the ids of the whole answer.
#[test]
fn answers_in_parts_are_answers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/qwen/qwen.tiktoken");
    if !path.exists() {
        println!("skipped: qwen/qwen.tiktoken is not in ../shared");
        return;
    }
    let tokenizer = Tokenizer::from_file(&path).unwrap();
    let mut own = preset("multi-value");
    own.value = Draw::Words(2);
    for task in NeedleTask::presets().into_iter().chain([own]) {
        for seed in 0..20 {
            let needle = task.draw(&mut rng(seed));
            let parts = needle.answer_parts().into_iter();
            let parts: Vec<u32> = parts.flat_map(|part| tokenizer.encode(part)).collect();
            assert_eq!(parts, tokenizer.encode(&needle.answer), "{}", needle.answer);
        }
    }
}

#[test]
fn tasks_that_contradict_themselves_are_refused() {
    let refused = |name: &str, change: fn(&mut NeedleTask), words: &[&str]| {
        let mut task = preset(name);
        task.check().unwrap();
        change(&mut task);
        let error = task.check().unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "no {word:?} in {error}");
        }
    };
    refused("fact", |t| t.name = "a/b".into(), &["a/b", "file names"]);
    refused(
        "fact",
        |t| t.needle = " {key}".into(),
        &["needle", "{value}"],
    );
    refused("fact", |t| t.answer = "x".into(), &["answer", "{value}"]);
    refused(
        "fact",
        |t| t.answer = "{value}{value}".into(),
        &["more than once"],
    );
    refused(
        "fact",
        |t| t.prompt = "{haystack}".into(),
        &["prompt", "{question}"],
    );
    refused("fact", |t| t.asked = 2, &["asked = 2", "needles = 1"]);
    refused("fact", |t| t.asked = 0, &["asked = 0"]);
    refused("pass-key", |t| t.needles = 2, &["needles = 2", "{key}"]);
    refused(
        "pass-key",
        |t| t.key = Some(Draw::Words(1)),
        &["key has no effect"],
    );
    refused(
        "pass-key",
        |t| t.question = "{key}?".into(),
        &["question", "{key}"],
    );
    refused(
        "pass-key",
        |t| t.separator = Some(",".into()),
        &["separator"],
    );
    refused(
        "multi-key",
        |t| t.value = Draw::List(vec!["a".into()]),
        &["value", "1 different", "need 4"],
    );
    refused(
        "multi-key",
        |t| t.key = Some(Draw::List(vec!["a".into(); 4])),
        &["\"a\"", "twice"],
    );
    refused(
        "multi-key",
        |t| t.value = Draw::List(vec![" ".into(); 4]),
        &["\" \"", "blank"],
    );
}

#[test]
fn what_is_drawn_can_be_named() {
    let parse = |text: &str| serde_json::from_str::<Draw>(text);
    for (text, draw) in [
        ("\"digits:7\"", Draw::Digits(7)),
        ("\"letters:4\"", Draw::Letters(4)),
        ("\"words\"", Draw::Words(1)),
        ("\"words:2\"", Draw::Words(2)),
        ("[\"x\"]", Draw::List(vec!["x".into()])),
    ] {
        assert_eq!(parse(text).unwrap(), draw);
        let again = serde_json::to_string(&draw).unwrap();
        assert_eq!(parse(&again).unwrap(), draw);
    }
    for text in ["\"digits\"", "\"digits:0\"", "\"uuid\"", "\"words:x\""] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains("digits:5"), "{error}");
    }
    let mut task = preset("fact");
    task.key = Some(Draw::Letters(4));
    task.value = Draw::Words(2);
    let value = &task.draw(&mut rng(0)).values[0];
    assert_eq!(value.split(' ').count(), 2, "{value}");
}
