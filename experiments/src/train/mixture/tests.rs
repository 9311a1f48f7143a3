//! Tests of all kinds of sources.

use longspan_data::{held_out_articles, training_articles};

use super::*;

/// Every kind of source, over the built-in vocabulary.
fn config() -> TrainConfig {
    let text = format!(
        r#"
seed = 5
tokenizer = "{}/../model/tiny/qwen.tiktoken"

[model]
layers = 2
heads = 2
head_dim = 16
ffn = 48
trained = 256

[schedule]
steps = 100
batch_tokens = 768
accumulate = 2
learning_rate = 1e-3
final_learning_rate = 1e-4
warmup = 10

[[source]]
name = "articles"
kind = "text"
path = "builtin:articles"
documents = 2

[[source]]
name = "recall"
kind = "recall"
tasks = ["pass-key", "fact", "multi-key", "multi-value"]
haystack = ["articles"]

[[source]]
name = "pairs"
kind = "pairs"

[[source]]
name = "echo"
kind = "echo"
from = ["articles"]

[[phase]]
until = 0.5
lengths = [64, 192]
mixture = {{ pairs = 1.0, recall = 2.0, echo = 4.0, articles = 1.0 }}

[[phase]]
until = 1.0
lengths = [256]
mixture = {{ recall = 0.75, articles = 0.25 }}
attention = [{{ share = 1.0, name = "plain" }}, {{ share = 3.0, name = "logn", logn = true }}]
"#,
        env!("CARGO_MANIFEST_DIR")
    );
    let mut config: TrainConfig = toml::from_str(&text).unwrap();
    config.check().unwrap();
    config
}

fn open() -> (TrainConfig, Tokenizer, Mixture) {
    let config = config();
    let tokenizer = Tokenizer::from_file(&config.tokenizer).unwrap();
    let mixture = Mixture::open(&config, &tokenizer).unwrap();
    (config, tokenizer, mixture)
}

fn rng(seed: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(seed)
}

#[test]
fn batches_are_a_pure_function_of_the_step() {
    let (config, tokenizer, mixture) = open();
    let (_, _, again) = open();
    let forward: Vec<_> = (0..100)
        .map(|step| mixture.draw(&config, step, 100, &tokenizer))
        .collect();
    for step in (0..100).rev() {
        let found = again.draw(&config, step, 100, &tokenizer);
        assert_eq!(found, forward[step as usize], "step {step}");
    }
    for pair in forward.windows(2) {
        assert_ne!(pair[0].batches, pair[1].batches);
    }
    let mut other = config.clone();
    other.seed = 6;
    let other = Mixture::open(&other, &tokenizer).unwrap();
    let found = other.draw(&config, 0, 100, &tokenizer);
    assert_ne!(found.batches, forward[0].batches);
}

#[test]
fn sequences_have_the_shape_of_their_phase() {
    let (config, tokenizer, mixture) = open();
    for step in 0..100 {
        let StepData {
            batches,
            sources,
            method,
        } = mixture.draw(&config, step, 100, &tokenizer);
        let phase = config.phase(step, 100);
        assert!(std::ptr::eq(phase, &config.phases[usize::from(step >= 50)]));
        assert!(phase.attention.iter().any(|share| share.method == *method));
        assert_eq!(batches.len(), 2);
        assert_eq!(sources.len(), batches.iter().map(Vec::len).sum::<usize>());
        let length = batches[0][0].weights.len();
        assert!(phase.lengths.contains(&length));
        for batch in &batches {
            assert_eq!(batch.len(), 768 / length);
            for sequence in batch {
                assert_eq!(sequence.ids.len(), length + 1);
                assert_eq!(sequence.weights.len(), length);
                let known = |&id: &u32| (id as usize) < tokenizer.vocab_size();
                assert!(sequence.ids.iter().all(known));
            }
        }
    }
}

#[test]
fn shares_are_respected() {
    let (config, tokenizer, mixture) = open();
    let mut counts = [[0f64; 4]; 2];
    let mut methods = [0f64; 2];
    for step in 0..4000 {
        let drawn = mixture.draw(&config, step, 4000, &tokenizer);
        let phase = usize::from(step >= 2000);
        for source in drawn.sources {
            counts[phase][source] += 1.0;
        }
        methods[usize::from(drawn.method.name == "logn")] += phase as f64;
    }
    // Within 6 standard deviations; exactly 0 for a share of 0.
    let check = |counts: &[f64], shares: &[f64]| {
        let total: f64 = counts.iter().sum();
        for (&count, &share) in counts.iter().zip(shares) {
            let spread = (total * share * (1.0 - share)).sqrt();
            assert!((count - total * share).abs() <= 6.0 * spread, "{counts:?}");
        }
    };
    // A step of long sequences has fewer of them; the shares are the same.
    check(&counts[0], &[0.125, 0.25, 0.125, 0.5]);
    check(&counts[1], &[0.25, 0.75, 0.0, 0.0]);
    check(&methods, &[0.25, 0.75]);
}

/// Every stretch of a text between two marks, with its offset.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Vec<(usize, &'a str)> {
    let starts = text.match_indices(before).map(|(at, _)| at + before.len());
    starts
        .filter_map(|at| Some((at, text[at..].split_once(after)?.0)))
        .collect()
}

#[test]
fn answers_stand_after_their_needles_in_their_order() {
    let (config, tokenizer, mixture) = open();
    let SourceKind::Recall { answer_weight, .. } = config.sources[1].kind else {
        panic!("the second source is recall");
    };
    let (mut answers, mut lists, mut keyless) = (0, 0, 0);
    for seed in 0..400 {
        let sequence = mixture.sequence(1, 256, &tokenizer, &mut rng(seed));
        let text = tokenizer.decode(&sequence.ids).unwrap();
        assert!(text.matches(" Remember it.").count() <= 1, "{text}");
        keyless += text.matches("What is the pass key?").count();
        let mut at = 1;
        let weights = &sequence.weights;
        while let Some(start) = (at..257).find(|&i| weights[i - 1] == answer_weight as f32) {
            let run = (start..257).take_while(|&i| weights[i - 1] == answer_weight as f32);
            at = start + run.count();
            let before = tokenizer.decode(&sequence.ids[..start]).unwrap();
            let answer = tokenizer.decode(&sequence.ids[start..at]).unwrap();
            let values: Vec<&str> = answer.trim().split(", ").collect();
            // All needles of the asked key, which must give the values of the answer.
            let (_, question) = before.rsplit_once("What ").unwrap();
            let opening = match question.split_once("magic number") {
                None => "The pass key is".to_owned(),
                Some((_, of)) => {
                    let of = of.trim_start_matches('s');
                    let key = of.split_once('?').unwrap().0;
                    format!("magic number{key} is")
                }
            };
            let told = between(&before, &(opening.clone() + " "), ".");
            let told: Vec<&str> = told.into_iter().map(|(_, value)| value).collect();
            assert_eq!(told, values, "{opening}: {text}");
            // No other value of the key stands anywhere in the sequence.
            for (_, told) in between(&text, &(opening.clone() + " "), ".") {
                let same = values.iter().any(|value| told.starts_with(value));
                assert!(same, "{opening}: {text}");
            }
            answers += 1;
            lists += usize::from(values.len() == 4);
        }
    }
    assert!(
        answers > 500 && lists > 50 && keyless > 50,
        "{answers} {lists} {keyless}"
    );
}

/// The order of the needles does not tell which one is asked for.
#[test]
fn the_asked_needle_may_stand_anywhere_among_the_others() {
    let (_, tokenizer, mixture) = open();
    let recall = Recall::new(&["multi-key".to_owned()], 5.0).unwrap();
    let mut places = [0; 4];
    for seed in 0..400 {
        let sequence = recall.sequence(&mixture.texts(&[0]), 140, &tokenizer, &mut rng(seed));
        let text = tokenizer.decode(&sequence.ids).unwrap();
        let (before, question) = text.split_once("\nWhat is the magic number of ").unwrap();
        let asked = question.split_once('?').unwrap().0;
        let told = between(before, " The magic number of ", " is");
        places[told.iter().position(|told| told.1 == asked).unwrap()] += 1;
    }
    assert!(places.iter().all(|&place| place > 50), "{places:?}");
}

/// At a length that only some tasks fit, these are drawn.
#[test]
fn short_sequences_recall_too() {
    let (_, tokenizer, mixture) = open();
    for seed in 0..200 {
        let sequence = mixture.sequence(1, 64, &tokenizer, &mut rng(seed));
        assert!(sequence.weights.contains(&5.0), "seed {seed}");
    }
}

/// Copying what followed the longest earlier match of the context predicts every weighted value.
#[test]
fn values_of_pairs_are_known_after_the_first_round() {
    let (_, tokenizer, _) = open();
    let pairs = Pairs::new(&tokenizer).unwrap();
    let space = tokenizer.encode(" ")[0];
    let mut values = 0;
    for seed in 0..100 {
        let WeightedIds { ids, weights } = pairs.sequence(257, &mut rng(seed));
        assert!(weights.iter().all(|&weight| weight == 0.0 || weight == 1.0));
        let mut at = 0;
        while let Some(start) = (at..ids.len()).find(|&i| weights[i] == 1.0) {
            at = (start..ids.len())
                .find(|&i| weights[i] == 0.0 || i > start && ids[i] == space)
                .unwrap_or(ids.len());
            let value = &ids[start..at];
            let said = |from: usize| {
                let back = ids[..from].iter().rev().zip(ids[..start].iter().rev());
                back.take_while(|(a, b)| a == b).count()
            };
            let longest = (0..start).map(said).max().unwrap();
            let mut places = (0..start).filter(|&from| said(from) == longest);
            assert!(
                longest > 0 && places.any(|from| ids[from..].starts_with(value)),
                "seed {seed} at {start}"
            );
            values += 1;
        }
    }
    assert!(values > 500, "{values}");
}

#[test]
fn echoes_repeat_the_first_stretch() {
    let (_, _, mixture) = open();
    for seed in 0..100 {
        let WeightedIds { ids, weights } = echo(&mixture.texts(&[0]), 257, &mut rng(seed));
        assert!(ids.len() >= 257);
        assert!(weights.iter().all(|&weight| weight == 1.0));
        // The first stretch and the sequence end alike.
        let first = (8..=85).find(|&span| {
            let end = &ids[span - 4..span];
            ids.ends_with(end)
        });
        assert!(first.is_some(), "seed {seed}");
    }
}

#[test]
fn held_out_articles_are_never_trained_on() {
    let (config, tokenizer, mixture) = open();
    let mut training = training_articles(config.seed).map(|a| tokenizer.encode(&a.text));
    let text = mixture.texts(&[0])[0];
    let whole = [training.next().unwrap(), training.next().unwrap()].concat();
    let stretch = text.stretch(256, &mut rng(1));
    assert!(whole.windows(256).any(|window| window == stretch));
    for article in held_out_articles() {
        let ids = tokenizer.encode(&article.text);
        assert!(ids.windows(256).all(|window| window != stretch));
    }
}
