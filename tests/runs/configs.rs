//! The configs in `experiments/configs`: each is run as shipped, on less text or at fewer lengths.
//! The config of a training, `tiny.toml`, is in `tests/train.rs`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use longspan_model::{WeightType, write_random_checkpoint};
use serde_json::Value;

use crate::shared::{fail, micro, needles, records, succeed, write_text, write_vocabulary};

/// Configs on the built-in model and text, with overrides that make them small.
const BUILT_IN: [(&str, &[&str]); 4] = [
    (
        "quickstart",
        &[
            "perplexity.max_tokens=1024",
            "perplexity.lengths=[256,512]",
            "needle.lengths=[256]",
            "needle.depths=2",
        ],
    ),
    ("longer-context", &["perplexity.max_tokens=1024"]),
    (
        "methods",
        &["perplexity.max_tokens=512", "perplexity.lengths=[256,512]"],
    ),
    ("needle", &["needle.lengths=[256]", "needle.depths=2"]),
];

/// Configs for a published checkpoint and the user's text.
const FOR_A_CHECKPOINT: [&str; 3] = ["frequency-methods", "qwen-table3", "window-ablation"];

/// Path of a config.
fn shipped(name: &str) -> PathBuf {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    configs.join(name).with_extension("toml")
}

/// Names of the methods of a config.
fn methods(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(shipped(name)).unwrap();
    let config: toml::Table = toml::from_str(&text).unwrap();
    let methods = config["method"].as_array().unwrap().iter();
    methods
        .map(|method| method["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Runs a config in `dir` with overrides; returns its standard output.
fn run(dir: &Path, name: &str, sets: &[&str]) -> String {
    let config = shipped(name);
    let mut args = vec!["run", config.to_str().unwrap()];
    args.extend(sets.iter().flat_map(|set| ["--set", set]));
    succeed(dir, &args)
}

/// Checks that there is one record for each method and other key, each method with its own
/// settings.
#[track_caller]
fn assert_complete(records: &[Value], methods: &[String], per_method: usize) {
    assert_eq!(records.len(), methods.len() * per_method);
    for method in methods {
        let of_method = records.iter().filter(|record| record["method"] == **method);
        assert_eq!(of_method.count(), per_method, "{method}");
    }
    let settings = records.iter().map(|record| record["settings"].to_string());
    assert_eq!(
        settings.collect::<HashSet<_>>().len(),
        methods.len(),
        "two methods have the same settings"
    );
}

#[test]
fn every_config_is_tested_and_names_itself() {
    let mut names: Vec<String> = std::fs::read_dir(shipped("tiny").parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    let mut tested = vec!["tiny"];
    tested.extend(BUILT_IN.map(|(name, _)| name));
    tested.extend(FOR_A_CHECKPOINT);
    tested.sort();
    assert_eq!(names, tested);
    for name in names {
        let text = std::fs::read_to_string(shipped(&name)).unwrap();
        let command = if name == "tiny" { "train" } else { "run" };
        let line = format!("#   longspan {command} experiments/configs/{name}.toml");
        assert!(text.contains(&line), "{name}.toml does not say: {line}");
    }
}

#[test]
fn configs_on_built_in_data_run() {
    let dir = tempfile::tempdir().unwrap();
    for (name, sets) in BUILT_IN {
        let stdout = run(dir.path(), name, sets);
        let folder = dir.path().join("runs").join(name);
        let methods = methods(name);
        let text = std::fs::read_to_string(shipped(name)).unwrap();
        if text.contains("[perplexity]") {
            assert!(stdout.contains("| floor (exact) "), "{name}: {stdout}");
            let per_method = if name == "longer-context" { 3 } else { 2 };
            assert_complete(&records(&folder), &methods, per_method);
        }
        if text.contains("[needle]") {
            assert!(stdout.contains("# Needle in a haystack"), "{stdout}");
            let tasks = if name == "quickstart" { 1 } else { 2 };
            assert_complete(&needles(&folder), &methods, 2 * tasks);
        }
    }
}

/// On a random model of Qwen-7B's 32 layers, trained at 64 tokens.
#[test]
fn configs_for_a_checkpoint_run() {
    let dir = tempfile::tempdir().unwrap();
    write_text(dir.path());
    let mut config = micro();
    config.layers = 32;
    let model = dir.path().join("deep");
    write_random_checkpoint(&model, &config, WeightType::F32, 3, usize::MAX).unwrap();
    write_vocabulary(&model.join("bytes.tiktoken"));
    let ours = ["model.path=deep", "data.path=text.jsonl"];
    for name in FOR_A_CHECKPOINT {
        // The only mistake left is that our text is too short for it.
        let path = shipped(name);
        let mut args = vec!["run", path.to_str().unwrap()];
        args.extend(ours.iter().flat_map(|set| ["--set", set]));
        fail(dir.path(), &args, &["2 documents hold", "give more text"]);

        let twice_the_trained_length = [&ours[..], &["perplexity.lengths=[128]"]].concat();
        let stdout = run(dir.path(), name, &twice_the_trained_length);
        let records = records(&dir.path().join("runs").join(name));
        assert_complete(&records, &methods(name), 1);
        for record in &records {
            assert_eq!(record["dtype"], "bf16", "{name}");
            assert_eq!(record["fed"], 17 * 128, "{name}");
        }
        if name == "frequency-methods" {
            // Past the trained length every method gives another number.
            let nll = records.iter().map(|record| record["nll"].to_string());
            assert_eq!(nll.collect::<HashSet<_>>().len(), records.len());
        }
        if name == "qwen-table3" {
            assert_eq!(stdout.matches("| published: ").count(), 6, "{stdout}");
            assert!(stdout.contains("2645.09"), "{stdout}");
        }
    }
}
