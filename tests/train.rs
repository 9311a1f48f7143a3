//! `longspan train`: the model depends on the config alone, not on kills or threads.

mod shared;

use std::path::Path;

use serde_json::Value;
use shared::{fail, json_lines, longspan, run_in, succeed, tiny_folder};
use shared::{training_workspace, write_config, write_text};

const TRAIN: [&str; 4] = ["train", "train.toml", "--out", "out"];

/// The lines of train.jsonl without the fields that differ from run to run.
fn lines(out: &Path) -> Vec<Value> {
    let mut lines = json_lines(&out.join("train.jsonl"));
    for line in &mut lines {
        for key in ["seconds", "tokens_per_second"] {
            assert!(line.as_object_mut().unwrap().remove(key).is_some());
        }
    }
    lines
}

fn weights(out: &Path) -> Vec<u8> {
    std::fs::read(out.join("model/model.safetensors")).unwrap()
}

/// Checks that two trainings gave the same numbers and the same model, bit for bit.
#[track_caller]
fn assert_same(a: &Path, b: &Path) {
    assert_eq!(lines(a), lines(b));
    assert!(weights(a) == weights(b), "the models differ");
}

/// Kills a training whenever its log has a new line, until it finishes; returns the number of
/// kills.
fn train_with_kills(dir: &Path) -> usize {
    let log = dir.join("out/train.jsonl");
    let mut kills = 0;
    let mut furthest = 0;
    loop {
        let mut child = longspan()
            .current_dir(dir)
            .args(TRAIN)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let killed = loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                break false;
            }
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            // Lines that are written again do not count, so each run comes further.
            if text.lines().count() > furthest {
                furthest = text.lines().count();
                child.kill().unwrap(); // SIGKILL
                child.wait().unwrap();
                break true;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        };
        if !killed {
            return kills;
        }
        kills += 1;
    }
}

#[test]
fn a_killed_training_ends_at_the_same_model() {
    let whole = training_workspace();
    succeed(whole.path(), &TRAIN);
    let expected = whole.path().join("out");
    let found = lines(&expected);
    let steps: Vec<u64> = found.iter().map(|l| l["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=20).map(|i| 2 * i).collect::<Vec<_>>());
    for line in &found {
        let probed = line["step"].as_u64().unwrap().is_multiple_of(10);
        assert_eq!(line.get("probe").is_some(), probed, "{line}");
    }
    let loss = |i: usize| found[i]["loss"].as_f64().unwrap();
    assert!(loss(19) < loss(0) - 1.0, "{} to {}", loss(0), loss(19));
    let ppl = |i: usize| found[i]["probe"]["perplexity"]["articles"].as_f64();
    assert!(ppl(19) < ppl(4), "{:?} to {:?}", ppl(4), ppl(19));

    // On a loaded machine a training can finish between two looks at its log; then try again.
    let dir = (0..10)
        .map(|_| training_workspace())
        .find(|dir| train_with_kills(dir.path()) >= 4)
        .expect("a training that could be killed four times");
    let out = dir.path().join("out");
    assert_same(&out, &expected);
    for file in ["loss.svg", "loss.png"] {
        assert!(out.join(file).exists(), "{file}");
    }

    // A finished training is not trained further.
    let log = std::fs::read(out.join("train.jsonl")).unwrap();
    let said = succeed(dir.path(), &TRAIN);
    assert!(said.starts_with("40 steps"), "{said}");
    assert_eq!(std::fs::read(out.join("train.jsonl")).unwrap(), log);
    assert_same(&out, &expected);

    // Any other config is refused, with the key and both values.
    for (set, words) in [
        (
            "schedule.learning_rate=0.01",
            ["schedule.learning_rate", "0.003", "0.01"],
        ),
        ("schedule.steps=50", ["schedule.steps", "40", "50"]),
        (
            "optimizer.beta_2=0.99",
            ["optimizer.beta_2", "0.95 there", "0.99 now"],
        ),
        (
            "phase.0.mixture.echo=0.9",
            ["phase.0.mixture.echo", "0.2", "0.9"],
        ),
        ("source.0.documents=3", ["source.0.documents", "2", "3"]),
    ] {
        let args = [&TRAIN[..], &["--set", set]].concat();
        fail(dir.path(), &args, &words);
    }
    assert_same(&out, &expected);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let dir = training_workspace();
    for threads in ["1", "2", "5"] {
        let output = longspan()
            .current_dir(dir.path())
            .args(["train", "train.toml", "--out", threads])
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .unwrap();
        assert!(output.status.success());
    }
    assert_same(&dir.path().join("1"), &dir.path().join("2"));
    assert_same(&dir.path().join("1"), &dir.path().join("5"));
}

/// A text without `documents` is read whole, and the written config is one that trains the same.
#[test]
fn minutes_become_steps_in_the_written_config() {
    let dir = training_workspace();
    write_text(dir.path());
    let config = std::fs::read_to_string(dir.path().join("train.toml")).unwrap();
    let config = config.replace("steps = 40", "minutes = 0.005");
    let config = config.replace("documents = 2", "");
    let config = config.replace("builtin:articles", "text.jsonl");
    std::fs::write(dir.path().join("minutes.toml"), config).unwrap();
    let by_minutes = ["train", "minutes.toml", "--out", "by-minutes"];
    let set = ["--set", "schedule.warmup=0"];
    succeed(dir.path(), &[&by_minutes[..], &set].concat());
    let out = dir.path().join("by-minutes");
    let written = std::fs::read_to_string(out.join("config.toml")).unwrap();
    let written: toml::Table = toml::from_str(&written).unwrap();
    assert!(written["schedule"].get("minutes").is_none());
    let steps = written["schedule"]["steps"].as_integer().unwrap();
    assert_eq!(lines(&out).last().unwrap()["step"], steps);
    // The same command continues with the steps that were found the first time.
    let said = succeed(dir.path(), &[&by_minutes[..], &set].concat());
    assert!(said.starts_with(&format!("{steps} steps")), "{said}");
    succeed(
        dir.path(),
        &["train", "by-minutes/config.toml", "--out", "again"],
    );
    assert_same(&out, &dir.path().join("again"));
}

#[test]
fn a_trained_model_runs_and_scores() {
    let dir = training_workspace();
    succeed(dir.path(), &TRAIN);
    write_text(dir.path());
    write_config(dir.path(), "lengths = [32, 96]\nmax_tokens = 192");
    let set = ["--set", "model.path=out/model"];
    let table = succeed(dir.path(), &[&["run", "run.toml"][..], &set].concat());
    assert!(table.contains("ntk + logn"), "{table}");
    let methods = "[[method]]\nname = \"plain\"\n";
    std::fs::write(dir.path().join("methods.toml"), methods).unwrap();
    std::fs::write(
        dir.path().join("text.txt"),
        "Let $x_1$ be a group. ".repeat(9),
    )
    .unwrap();
    succeed(
        dir.path(),
        &[
            "score",
            "--model",
            "out/model",
            "--methods",
            "methods.toml",
            "--method",
            "plain",
            "--text",
            "text.txt",
            "--out",
            "nll.jsonl",
        ],
    );
    let text = std::fs::read_to_string(dir.path().join("nll.jsonl")).unwrap();
    let scored: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let nll = scored["nll"].as_array().unwrap();
    assert!(nll.iter().all(|x| x.as_f64().unwrap().is_finite()));
    let tokens = scored["tokens"].as_u64().unwrap();
    assert_eq!(nll.len() as u64 + 1, tokens);
}

/// The shipped config, with fewer steps and built-in text only.
#[test]
fn the_shipped_config_trains() {
    let dir = tempfile::tempdir().unwrap();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/tiny.toml");
    let vocabulary = tiny_folder().join("qwen.tiktoken");
    let tokenizer = format!("tokenizer={}", vocabulary.display());
    let mut args = vec!["train", config.to_str().unwrap(), "--set", &tokenizer];
    for set in [
        "schedule.steps=3",
        "schedule.warmup=1",
        "source.0.path=builtin:articles",
        "source.0.documents=1",
        "source.1.documents=1",
        "probe.text.arxiv=builtin:articles",
        "probe.trials=2",
    ] {
        args.extend(["--set", set]);
    }
    let said = succeed(dir.path(), &args);
    assert!(said.contains("written to runs/train/tiny"), "{said}");
    // A model of the shipped one's shape.
    let config = |folder: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap()
    };
    let trained = dir.path().join("runs/train/tiny/model");
    assert_eq!(config(&trained), config(&tiny_folder()));
}

/// A learned vocabulary encodes any text, and a model can be trained with it.
#[cfg(feature = "train-tokenizer")]
#[test]
fn a_learned_vocabulary_round_trips_and_trains() {
    let dir = training_workspace();
    write_text(dir.path());
    let args = ["train-tokenizer", "own.tiktoken", "--size", "400"];
    let text = [
        "--bytes",
        "100000",
        "--text",
        "builtin:articles",
        "text.jsonl",
    ];
    let said = run_in(dir.path(), &[&args[..], &text].concat());
    let stderr = String::from_utf8_lossy(&said.stderr);
    assert!(
        stderr.contains("wrote own.tiktoken: 400 tokens, 608"),
        "{stderr}"
    );
    let text = "caf\u{e9} \\frac{1}{2}\n\t\u{6570}\u{1f600} <|im_end|>";
    let tokenize = ["tokenize", "--tokenizer", "own.tiktoken"];
    let ids = succeed(dir.path(), &[&tokenize[..], &[text]].concat());
    let back = succeed(
        dir.path(),
        &[&tokenize[..], &["--decode", ids.trim()]].concat(),
    );
    assert_eq!(back.trim_end_matches('\n'), text);
    // The same command gives the same file.
    let again = ["train-tokenizer", "again.tiktoken", "--size", "400"];
    let texts = [
        "--bytes",
        "100000",
        "--text",
        "builtin:articles",
        "text.jsonl",
    ];
    succeed(dir.path(), &[&again[..], &texts].concat());
    let file = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    assert!(file("own.tiktoken") == file("again.tiktoken"));
    let set = [
        "--set",
        "tokenizer=own.tiktoken",
        "--set",
        "schedule.steps=6",
    ];
    // With fewer merges than the shipped vocabulary, needles take more tokens.
    let probe = ["--set", "probe.tasks=[]", "--set", "phase.0.lengths=[90]"];
    succeed(dir.path(), &[&TRAIN[..], &set, &probe].concat());
    let config = std::fs::read_to_string(dir.path().join("out/model/config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["vocab_size"], 608);
    assert!(file("own.tiktoken") == file("out/model/qwen.tiktoken"));
}
