//! Sources, phases and the probe of a training config.

use crate::shared::{fail, training_workspace, write_text};
use crate::training_config::{TRAIN, refused};

#[test]
fn a_bad_source_is_named() {
    let dir = training_workspace();
    refused(
        dir.path(),
        &[
            ("tokenizer=none.tiktoken", &["none.tiktoken"]),
            (
                "source.0.kind=poems",
                &["poems", "text", "recall", "pairs", "echo"],
            ),
            ("source.0.documents=0", &["source.0.documents = 0"]),
            ("source.3.name=pairs", &["two sources are named \"pairs\""]),
            ("source.1.tasks=[]", &["source.1.tasks is empty"]),
            (
                "source.1.tasks=[\"key\"]",
                &["source.1.tasks", "\"key\"", "pass-key"],
            ),
            ("source.1.haystack=[]", &["source.1.haystack is empty"]),
            (
                "source.1.haystack=[\"pairs\"]",
                &["source.1.haystack", "\"pairs\"", "kind text"],
            ),
            (
                "source.3.from=[\"books\"]",
                &["source.3.from", "\"books\"", "kind text"],
            ),
            (
                "source.1.answer_weight=nan",
                &["source.1.answer_weight = NaN"],
            ),
            (
                "source.1.answer_weight=-1.0",
                &["source.1.answer_weight = -1"],
            ),
            ("source.0.path=none.jsonl", &["none.jsonl", "no such file"]),
        ],
    );
}

#[test]
fn a_bad_phase_is_named() {
    let dir = training_workspace();
    refused(
        dir.path(),
        &[
            ("phase.0.until=1.0", &["phase.1.until = 1 after 1"]),
            ("phase.0.until=nan", &["phase.0.until = NaN"]),
            (
                "phase.1.until=0.9",
                &["phase.1.until = 0.9", "the last at 1.0"],
            ),
            ("phase.0.lengths=[]", &["phase.0.lengths is empty"]),
            (
                "phase.0.lengths=[97]",
                &["phase.0.lengths: 97", "model.trained = 96"],
            ),
            (
                "phase.0.lengths=[16]",
                &["phase.0.lengths: 16", "\"recall\"", "phase.0.mixture"],
            ),
            ("phase.0.lengths=[7]", &["phase.0.lengths: 7", "8 to"]),
            ("phase.1.lengths=[64]", &["model.trained = 96", "lengths"]),
            (
                "phase.0.mixture.books=1.0",
                &["phase.0.mixture", "\"books\"", "[[source]]"],
            ),
            ("phase.0.mixture.echo=inf", &["phase.0.mixture = inf"]),
            (
                "phase.0.mixture={ echo = 0.0 }",
                &["phase.0.mixture", "above 0"],
            ),
            ("phase.1.attention=[]", &["phase.1.attention"]),
            (
                "phase.1.attention.0.share=-1.0",
                &["phase.1.attention: share = -1"],
            ),
            (
                "phase.1.attention.0.name=logn",
                &["phase.1.attention", "two methods", "\"logn\""],
            ),
            (
                "phase.1.attention.0.window=[8]",
                &["phase.1.attention", "window", "1", "2"],
            ),
            ("phase=[]", &["no [[phase]]"]),
        ],
    );
}

#[test]
fn a_bad_probe_is_named() {
    let dir = training_workspace();
    refused(
        dir.path(),
        &[
            ("probe.every=3", &["probe.every = 3", "log_every = 2"]),
            ("probe.trials=0", &["probe.trials = 0"]),
            (
                "probe.tasks=[\"key\"]",
                &["probe.tasks", "\"key\"", "pass-key"],
            ),
            ("probe.text={}", &["probe.text is empty"]),
            (
                "probe.text.articles=none.jsonl",
                &["none.jsonl", "no such file"],
            ),
            // 96 tokens do not hold four needles of four numbers.
            (
                "probe.tasks=[\"multi-value\"]",
                &["probe.tasks", "96", "raise the length"],
            ),
        ],
    );
}

#[test]
fn text_that_is_too_short_or_endless_is_named() {
    let dir = training_workspace();
    write_text(dir.path());
    let mut args = TRAIN.to_vec();
    for set in [
        "source.0.path=text.jsonl",
        "model.trained=2000",
        "phase.1.lengths=[2000]",
        "schedule.batch_tokens=2000",
    ] {
        args.extend(["--set", set]);
    }
    fail(
        dir.path(),
        &args,
        &["source \"articles\"", "text.jsonl", "2001"],
    );
    let path = dir.path().join("train.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, config.replace("documents = 2", "")).unwrap();
    fail(
        dir.path(),
        &TRAIN,
        &["source.0.path", "no end", "documents = 100"],
    );
}
