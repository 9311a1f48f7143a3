//! Needles in a haystack: from a config to records, tables and heatmaps.

use std::path::Path;

use crate::shared::{fail, needles, records, run_in, succeed, timeless, write_model, write_text};
use serde_json::{Value, json};

/// A model, text, and a config with two methods; `needle` is the body of its table.
fn workspace(needle: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path());
    write_text(dir.path());
    write_config(dir.path(), needle);
    dir
}

fn write_config(dir: &Path, needle: &str) {
    let config = format!(
        r#"
[model]
path = "model"

[data]
path = "text.jsonl"

[[method]]
name = "plain"

[[method]]
name = "ntk + logn"
rope = {{ kind = "dynamic_ntk", freeze = "prefill" }}
logn = true

[needle]
{needle}
"#
    );
    std::fs::write(dir.join("run.toml"), config).unwrap();
}

#[test]
fn a_run_writes_records_tables_and_heatmaps() {
    let dir = workspace("lengths = [200, 300]\ndepths = [0, \"50%\", 1]\nkeys = 6");
    let stdout = succeed(dir.path(), &["run", "run.toml"]);
    let run = dir.path().join("runs/run");
    for file in ["needle.md", "needle.csv", "needle.svg", "needle.png"] {
        assert!(run.join(file).metadata().unwrap().len() > 0, "{file}");
    }
    assert!(!run.join("table.md").exists() && !run.join("nll").exists());
    assert!(stdout.contains("## pass-key, teacher-forced"), "{stdout}");
    assert!(
        stdout.contains("| effective |") && stdout.contains("18 trials"),
        "{stdout}"
    );
    let records = needles(&run);
    assert_eq!(records.len(), 2 * 2 * 3);
    for record in &records {
        assert_eq!(record["asked"], json!(6));
        let trials = record["trials"].as_array().unwrap();
        assert_eq!(trials.len(), 6);
        let expected: Vec<&Value> = trials.iter().map(|trial| &trial["expected"]).collect();
        for (i, value) in expected.iter().enumerate() {
            assert!(!expected[..i].contains(value), "{expected:?}");
        }
        let achieved = record["achieved_depth"].as_f64().unwrap();
        assert!((achieved - record["depth"].as_f64().unwrap()).abs() < 0.06);
        assert_eq!(record["trained_length"], json!(64));
    }
    // The same questions for every method and at every length.
    let asked = |method: &str, length: u64, depth: f64| {
        let record = records.iter().find(|r| {
            (&r["method"], &r["length"], &r["depth"])
                == (&json!(method), &json!(length), &json!(depth))
        });
        let trials = record.unwrap()["trials"].as_array().unwrap().iter();
        trials
            .map(|trial| trial["expected"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(asked("plain", 200, 0.5), asked("ntk + logn", 300, 0.5));
    assert_ne!(asked("plain", 200, 0.5), asked("plain", 200, 1.0));
    let csv = std::fs::read_to_string(run.join("needle.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 12);

    // Nothing is computed twice, and a report is written from the records.
    let before = std::fs::read(run.join("needle.jsonl")).unwrap();
    assert_eq!(succeed(dir.path(), &["run", "run.toml"]), stdout);
    assert_eq!(std::fs::read(run.join("needle.jsonl")).unwrap(), before);
    std::fs::remove_file(run.join("needle.svg")).unwrap();
    assert_eq!(succeed(dir.path(), &["report", "runs/run"]), stdout);
    assert!(run.join("needle.svg").exists());
}

#[test]
fn one_run_may_have_perplexities_and_needles() {
    let dir = workspace("lengths = [200]\ndepths = 1");
    let perplexity = [
        "--set",
        "perplexity.lengths=[64]",
        "--set",
        "perplexity.max_tokens=256",
    ];
    let args = [&["run", "run.toml"][..], &perplexity].concat();
    let stdout = succeed(dir.path(), &args);
    let run = dir.path().join("runs/run");
    assert_eq!((records(&run).len(), needles(&run).len()), (2, 2));
    assert!(
        stdout.contains("# Perplexity") && stdout.contains("# Needle"),
        "{stdout}"
    );
    assert_eq!(succeed(dir.path(), &["report", "runs/run"]), stdout);

    // The perplexities alone are the same cells.
    let mut config = std::fs::read_to_string(dir.path().join("run.toml")).unwrap();
    config.truncate(config.find("[needle]").unwrap());
    std::fs::write(dir.path().join("alone.toml"), config).unwrap();
    succeed(
        dir.path(),
        &[&["run", "alone.toml"][..], &perplexity].concat(),
    );
    let alone = dir.path().join("runs/alone");
    let numbers = |run: &Path| records(run).into_iter().map(timeless).collect::<Vec<_>>();
    assert_eq!(numbers(&alone), numbers(&run));
    assert!(!alone.join("needle.jsonl").exists());
}

#[test]
fn every_task_runs_under_both_scorers() {
    let needle = "lengths = [500]\ndepths = [0.5]\nscorer = [\"teacher-forced\", \"generate\"]\n\
                  tasks = [\"pass-key\", \"fact\", \"multi-key\", \"multi-value\", \"san-francisco\", \"chat\"]\n\
                  [[needle.task]]\nname = \"chat\"\nneedle = \" {key} likes {value}.\"\n\
                  question = \"What does {key} like?\"\nanswer = \"{value}\"\n\
                  key = [\"Ada\", \"Carl\"]\nvalue = \"words:2\"\nneedles = 2\n\
                  prompt = \"<|im_start|>user\\n{haystack}\\n{question}<|im_end|>\\n<|im_start|>assistant\\n\"";
    let dir = workspace(needle);
    succeed(dir.path(), &["run", "run.toml"]);
    let run = dir.path().join("runs/run");
    let records = needles(&run);
    assert_eq!(records.len(), 2 * 6 * 2);
    for record in &records {
        let asked = if record["task"] == json!("multi-value") {
            20
        } else {
            5
        };
        assert_eq!(record["asked"], json!(asked), "{record}");
    }
    for file in [
        "needle-chat.svg",
        "needle-chat-generate.png",
        "needle-multi-value.png",
    ] {
        assert!(run.join(file).exists(), "{file}");
    }
}

#[test]
fn a_cut_record_is_computed_again_to_the_same_number() {
    let dir = workspace("lengths = [200, 300]\ndepths = 2\nscorer = \"generate\"");
    succeed(dir.path(), &["run", "run.toml"]);
    let path = dir.path().join("runs/run/needle.jsonl");
    let whole = needles(&dir.path().join("runs/run"));
    let text = std::fs::read_to_string(&path).unwrap();
    let third = text.match_indices('\n').nth(2).unwrap().0;
    std::fs::write(&path, &text[..third - 30]).unwrap();
    let output = run_in(dir.path(), &["run", "run.toml"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stderr.contains("cut short"),
        "{stderr}"
    );
    assert!(stderr.contains("2 of 8 needle cells"), "{stderr}");
    let again = needles(&dir.path().join("runs/run"));
    let timeless = |records: Vec<Value>| records.into_iter().map(timeless).collect::<Vec<_>>();
    assert_eq!(timeless(again), timeless(whole));

    std::fs::write(&path, text.replacen("{\"key\"", "{\"kex\"", 1)).unwrap();
    fail(
        dir.path(),
        &["run", "run.toml"],
        &["needle.jsonl:1", "damaged"],
    );
}

/// A cell is identified by its prompts, answers and model, not by labels or thresholds.
#[test]
fn keys_follow_the_prompts() {
    let own = "lengths = [200]\ndepths = 1\n[[needle.task]]\nname = \"own\"\nneedle = \" It is {value}.\"\n\
               question = \"What is it? It is\"\nanswer = \" {value}\"\n";
    let dir = workspace(own);
    let mut count = 0;
    let mut key = |set: &str| {
        count += 1;
        let out = format!("run{count}");
        let set: &[&str] = if set.is_empty() { &[] } else { &["--set", set] };
        succeed(
            dir.path(),
            &[&["run", "run.toml", "--out", &out][..], set].concat(),
        );
        needles(&dir.path().join(out))[0]["key"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let mut keys = vec![key("")];
    assert_eq!(keys[0], key("needle.threshold=0.5"));
    assert_eq!(keys[0], key("method.0.name=another"));
    for set in [
        "needle.task.0.needle=\" It was {value}.\"",
        "needle.task.0.question=\"What? It is\"",
        "needle.task.0.answer=\"  {value}\"",
        "needle.task.0.value=digits:6",
        "needle.task.0.prompt=\"{haystack}\\n\\n{question}\"",
        "needle.seed=1",
        "needle.keys=6",
        "needle.depths=[0.25]",
        "needle.lengths=[201]",
        "needle.scorer=generate",
        "model.dtype=bf16",
    ] {
        let new = key(set);
        assert!(!keys.contains(&new), "{set}");
        keys.push(new);
    }
    // The same config on other text.
    let text = std::fs::read_to_string(dir.path().join("text.jsonl")).unwrap();
    std::fs::write(dir.path().join("text.jsonl"), text.replace('a', "z")).unwrap();
    assert!(!keys.contains(&key("")));
}
