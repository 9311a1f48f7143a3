//! The `[needle]` table of a run config.

use crate::RUN;
use crate::shared::{fail, workspace};

/// Adds each body to `[needle]` of a good config, which must then be refused.
#[track_caller]
fn refused(mistakes: &[(&str, &[&str])]) {
    let dir = workspace("lengths = [64]\nmax_tokens = 128");
    let path = dir.path().join("run.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    for (needle, words) in mistakes {
        std::fs::write(&path, format!("{config}\n[needle]\n{needle}\n")).unwrap();
        fail(dir.path(), &RUN, words);
        assert!(
            !dir.path().join("runs").exists(),
            "{needle}: the run was started"
        );
    }
}

#[test]
fn bad_lengths_are_named() {
    refused(&[
        ("", &["lengths"]),
        ("lengths = []", &["needle.lengths is empty"]),
        (
            "lengths = [300, 200]",
            &["needle.lengths", "200 after 300", "ascending"],
        ),
        ("lengths = [200, 200]", &["needle.lengths", "200 after 200"]),
        ("lengths = [1, 200]", &["needle.lengths: 1", "2 tokens"]),
        (
            "lengths = [64]",
            &[
                "needle.lengths: 64",
                "pass-key",
                "of 64 tokens",
                "raise the length",
            ],
        ),
        (
            "lengths = [2300]",
            &[
                "text.jsonl",
                "2200 tokens",
                "needle.lengths",
                "2300",
                "more text",
            ],
        ),
    ]);
}

#[test]
fn bad_depths_are_named() {
    for (depths, words) in [
        ("0", &["needle.depths = 0"][..]),
        (
            "4611686018427387904",
            &["needle.depths = 4611686018427387904", "1 to 1000"],
        ),
        ("[]", &["needle.depths", "empty"]),
        ("-3", &["depths are a number"]),
        ("[0, 50]", &["needle.depths: 50", "25%"]),
        ("[-0.1]", &["needle.depths: -0.1", "0 to 1"]),
        ("[nan]", &["needle.depths: NaN"]),
        ("[\"120%\"]", &["needle.depths: \"120%\""]),
        ("[\"half\"]", &["needle.depths: \"half\""]),
        ("[0.5, 0.2]", &["needle.depths: 0.2 after 0.5"]),
    ] {
        refused(&[(&format!("lengths = [200]\ndepths = {depths}"), words)]);
    }
}

#[test]
fn bad_trials_scorers_and_tasks_are_named() {
    refused(&[
        (
            "lengths = [200]\nkeys = 4",
            &["needle.keys = 4", "give 5 or more"],
        ),
        (
            "lengths = [200]\nthreshold = 85",
            &["needle.threshold = 85", "up to 1"],
        ),
        (
            "lengths = [200]\nscorer = \"judge\"",
            &["teacher-forced, generate"],
        ),
        ("lengths = [200]\nscorer = []", &["needle.scorer", "empty"]),
        (
            "lengths = [200]\ntasks = [\"passkey\"]",
            &["\"passkey\" is not known", "pass-key, fact"],
        ),
        (
            "lengths = [200]\ntasks = [\"fact\", \"fact\"]",
            &["\"fact\" stands twice"],
        ),
        ("lengths = [200]\nneedles = 3", &["unknown field `needles`"]),
    ]);
}

#[test]
fn a_bad_task_of_the_config_is_named() {
    let task = |body: &str| format!("lengths = [200]\n[[needle.task]]\nname = \"own\"\n{body}");
    let own = |body: &str| {
        let texts = "needle = \" {key} {value}\"\nquestion = \"{key}?\"\nanswer = \"{value}\"\n";
        task(&(texts.to_owned() + body))
    };
    refused(&[
        (
            &task("question = \"\"\nanswer = \"{value}\""),
            &["missing field `needle`"],
        ),
        (
            &task("needle = \"x\"\nquestion = \"\"\nanswer = \"{value}\""),
            &["own", "needle", "lacks {value}"],
        ),
        (
            &own("value = \"uuid\""),
            &["\"uuid\" is nothing to draw from", "digits:5"],
        ),
        (&own("value = 5"), &["digits:5"]),
        (
            &own("needles = 2\nvalue = [\"a\"]"),
            &["own", "value has 1 different", "need 2"],
        ),
        (&own("asked = 2"), &["own", "asked = 2 of needles = 1"]),
        (
            &own("needles = 4611686018427387904"),
            &["own", "needles = 4611686018427387904", "at most"],
        ),
        (
            &own("prompt = \"{question}\""),
            &["own", "{haystack} exactly once"],
        ),
        (
            &own("").replace("\"own\"", "\"fact\""),
            &["needle.task.0", "\"fact\"", "another"],
        ),
        (
            &own("").replace("[200]", "[200]\ntasks = [\"fact\"]"),
            &["\"own\" has no effect"],
        ),
    ]);
}

#[test]
fn a_config_that_measures_nothing_is_refused() {
    let dir = workspace("lengths = [64]\nmax_tokens = 128");
    let path = dir.path().join("run.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let start = config.find("[perplexity]").unwrap();
    let end = config.find("[[method]]").unwrap();
    std::fs::write(&path, config[..start].to_owned() + &config[end..]).unwrap();
    fail(
        dir.path(),
        &RUN,
        &["run.toml", "neither [perplexity] nor [needle]"],
    );
}
