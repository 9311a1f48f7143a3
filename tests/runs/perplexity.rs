//! Perplexities: from text and a config to records, tables and figures.

use std::path::Path;

use serde_json::{Value, json};

use crate::shared::{json_lines, records, succeed, workspace};

/// The text of all documents of [`workspace`].
fn text(dir: &Path) -> String {
    let documents = json_lines(&dir.join("text.jsonl"));
    let texts = documents
        .iter()
        .map(|document| document["text"].as_str().unwrap());
    texts.collect()
}

/// The record of a cell.
#[track_caller]
fn find<'a>(records: &'a [Value], method: &str, protocol: &str, length: u64) -> &'a Value {
    let record = records.iter().find(|record| {
        record["method"] == method && record["protocol"] == protocol && record["length"] == length
    });
    record.unwrap_or_else(|| panic!("no record of {method}, {protocol}, {length}"))
}

#[test]
fn a_run_writes_records_tables_and_figures() {
    let dir = workspace("lengths = [32, 64, 128]\nmax_tokens = 1024");
    let stdout = succeed(dir.path(), &["run", "run.toml"]);
    let run = dir.path().join("runs/run");
    for file in ["config.toml", "table.md", "table.csv"] {
        assert!(run.join(file).metadata().unwrap().len() > 0, "{file}");
    }
    for (figure, quantity) in [("ppl", "perplexity"), ("time", "milliseconds per token")] {
        let path = |extension: &str| run.join(figure).with_extension(extension);
        let svg = std::fs::read_to_string(path("svg")).unwrap();
        assert!(svg.contains(quantity), "{figure}");
        assert!(std::fs::read(path("png")).unwrap().starts_with(b"\x89PNG"));
    }
    assert!(stdout.contains("| windows + sinks |"), "{stdout}");
    let records = records(&run);
    assert_eq!(records.len(), 9);
    for record in &records {
        let length = record["length"].as_u64().unwrap();
        assert_eq!(record["fed"], json!(1024));
        assert_eq!(record["scored"], json!(1024 / length * (length - 1)));
        assert_eq!(record["trained_length"], json!(64));
        let nll = record["nll"].as_f64().unwrap();
        assert_eq!(record["perplexity"].as_f64().unwrap(), nll.exp());
        assert!(record["nll_se"].as_f64().unwrap() > 0.0);
        assert!(record["peak_bytes"].as_u64().unwrap() > 100_000);
        assert!(record["tokens_per_second"].as_f64().unwrap() > 0.0);
        assert!(run.join(record["nll_file"].as_str().unwrap()).exists());
    }
    let csv = std::fs::read_to_string(run.join("table.csv")).unwrap();
    assert_eq!(csv.lines().count(), 10);

    // Nothing is computed twice, and a report is written from the records.
    let before = std::fs::read(run.join("records.jsonl")).unwrap();
    assert_eq!(succeed(dir.path(), &["run", "run.toml"]), stdout);
    assert_eq!(std::fs::read(run.join("records.jsonl")).unwrap(), before);
    std::fs::remove_file(run.join("table.md")).unwrap();
    assert_eq!(succeed(dir.path(), &["report", "runs/run"]), stdout);
    assert!(run.join("table.md").exists());
}

/// Packed perplexity against the losses of `score` on the same windows.
#[test]
fn packed_perplexity_is_what_the_scores_give() {
    let dir = workspace("lengths = [50, 120]\nmax_tokens = 600");
    succeed(dir.path(), &["run", "run.toml"]);
    // In a vocabulary of bytes the ids are the bytes.
    let ids = text(dir.path()).into_bytes();
    let config = std::fs::read_to_string(dir.path().join("run.toml")).unwrap();
    let methods = &config[config.find("[[method]]").unwrap()..];
    std::fs::write(dir.path().join("methods.toml"), methods).unwrap();
    for length in [50, 120] {
        let windows: String = ids[..600 / length * length]
            .chunks(length)
            .map(|window| format!("{window:?}\n"))
            .collect();
        std::fs::write(dir.path().join("ids.jsonl"), windows).unwrap();
        let args = "score --model model --methods methods.toml --tokens ids.jsonl --out nll.jsonl";
        succeed(dir.path(), &args.split(' ').collect::<Vec<_>>());
        let lines = json_lines(&dir.path().join("nll.jsonl"));
        for record in records(&dir.path().join("runs/run")) {
            if record["length"] != json!(length) {
                continue;
            }
            let nll: Vec<f64> = lines
                .iter()
                .filter(|line| line["method"] == record["method"])
                .flat_map(|line| line["nll"].as_array().unwrap().clone())
                .map(|x| x.as_f64().unwrap())
                .collect();
            assert_eq!(json!(nll.len()), record["scored"]);
            let mean = nll.iter().sum::<f64>() / nll.len() as f64;
            assert!(
                (mean - record["nll"].as_f64().unwrap()).abs() < 1e-6,
                "{record}"
            );
        }
    }
}

#[test]
fn two_names_for_the_same_settings_are_two_rows() {
    let dir = workspace("lengths = [64]\nmax_tokens = 256");
    let set = "method.2={ name = \"plain again\" }";
    let stdout = succeed(dir.path(), &["run", "run.toml", "--set", set]);
    assert!(stdout.contains("| plain again "), "{stdout}");
    let records = records(&dir.path().join("runs/run"));
    assert_eq!(records.len(), 3);
    assert_eq!(records[0]["nll_file"], records[2]["nll_file"]); // computed once
}

#[test]
fn one_pass_serves_all_lengths_of_a_static_method() {
    let perplexity = "lengths = [32, 64, 128]\nmax_tokens = 1024\nnested = true";
    let dir = workspace(perplexity);
    succeed(dir.path(), &["run", "run.toml"]);
    let nested = records(&dir.path().join("runs/run"));
    let pass =
        |method: &str, length: u64| find(&nested, method, "packed", length)["pass_length"].clone();
    for method in ["plain", "windows + sinks"] {
        let passes = [32, 64, 128].map(|n| pass(method, n));
        assert_eq!(json!(passes), json!([128, 128, 128]), "{method}");
    }
    // Trained at 64: dynamic NTK is the same at 32 and 64, and differs at 128.
    let passes = [32, 64, 128].map(|n| pass("ntk + logn", n));
    assert_eq!(json!(passes), json!([64, 64, 128]));

    // A length with a pass of its own gives the same numbers.
    for length in ["32", "64"] {
        let set = format!("perplexity.lengths=[{length}]");
        // Windows start every 128 tokens in both runs: 8 documents, cut to n.
        let all = text(dir.path());
        let pieces: String = (0..8)
            .map(|k| json!({"text": &all[128 * k..128 * (k + 1)]}).to_string() + "\n")
            .collect();
        std::fs::write(dir.path().join("pieces.jsonl"), pieces).unwrap();
        let args = ["run", "run.toml", "--out", length, "--set", &set];
        let more = [
            "--set",
            "data.path=pieces.jsonl",
            "--set",
            "perplexity.protocol=truncate",
        ];
        let nested_off = ["--set", "perplexity.nested=false"];
        succeed(dir.path(), &[&args[..], &more, &nested_off].concat());
        for own in records(&dir.path().join(length)) {
            let method = own["method"].as_str().unwrap();
            let shared = find(&nested, method, "packed", own["length"].as_u64().unwrap());
            assert_eq!(own["scored"], shared["scored"]);
            let difference = own["nll"].as_f64().unwrap() - shared["nll"].as_f64().unwrap();
            assert!(difference.abs() < 1e-6, "{own}\n{shared}");
        }
    }
}

#[test]
fn every_protocol_runs_and_shares_passes_where_windows_agree() {
    let perplexity = "lengths = [64, 256]\nmax_tokens = 1024\nstride = 100\nlast = 30\n\
         protocol = [\"packed\", \"half\", \"truncate\", \"sliding\", \"last_k\"]";
    let dir = workspace(perplexity);
    let stdout = succeed(dir.path(), &["run", "run.toml"]);
    let run = dir.path().join("runs/run");
    let records = records(&run);
    assert_eq!(records.len(), 3 * 5 * 2);
    for protocol in ["packed", "half", "truncate", "sliding", "last_k"] {
        assert!(stdout.contains(&format!("## {protocol}\n")), "{stdout}");
    }
    let find = |protocol: &str, length| find(&records, "plain", protocol, length);
    assert_eq!(find("packed", 64)["nll_file"], find("half", 64)["nll_file"]);
    assert_ne!(
        find("packed", 64)["perplexity"],
        find("half", 64)["perplexity"]
    );
    assert_eq!(find("truncate", 64)["pass_length"], json!(256));
    assert_eq!(find("last_k", 64)["scored"], json!(60)); // two documents
    assert_eq!(find("sliding", 256)["average"], json!("windows"));
    assert!(run.join("ppl-sliding.svg").exists());
}

/// Qwen's published code, scoring token by token, freezes alpha at 1: plain RoPE under another
/// name.
#[test]
fn alpha_frozen_at_a_prefill_of_one_token_is_plain_rope() {
    let dir = workspace("lengths = [50, 256]\nmax_tokens = 512");
    let frozen =
        "method.2={ name = \"frozen\", rope = { kind = \"dynamic_ntk\", freeze = \"prefill\" } }";
    let logn = "method.1.logn=false";
    let args = ["run", "run.toml", "--set", frozen, "--set", logn];
    let nll = |run: &Path, method: &str, length| {
        find(&records(run), method, "packed", length)["nll"].clone()
    };
    let out = ["--out", "one", "--set", "perplexity.prefill=1"];
    succeed(dir.path(), &[&args[..], &out].concat());
    let one = dir.path().join("one");
    assert_eq!(nll(&one, "frozen", 256), nll(&one, "plain", 256));
    assert_ne!(nll(&one, "ntk + logn", 256), nll(&one, "plain", 256));
    // With the whole window as prefill, freezing changes nothing.
    succeed(dir.path(), &[&args[..], &["--out", "whole"]].concat());
    let whole = dir.path().join("whole");
    assert_eq!(nll(&whole, "frozen", 256), nll(&whole, "ntk + logn", 256));
}

#[test]
fn weights_held_in_a_narrow_type_give_nearly_the_same_loss() {
    let dir = workspace("lengths = [128]\nmax_tokens = 1024");
    for dtype in ["f32", "bf16", "f16"] {
        let set = format!("model.dtype={dtype}");
        succeed(
            dir.path(),
            &["run", "run.toml", "--out", dtype, "--set", &set],
        );
    }
    let nll = |dtype: &str| records(&dir.path().join(dtype))[0]["nll"].as_f64().unwrap();
    let (full, bf16, f16) = (nll("f32"), nll("bf16"), nll("f16"));
    assert!(
        bf16 != full && (bf16 - full).abs() < 0.02 * full,
        "{full} {bf16}"
    );
    assert!(
        f16 != full && (f16 - full).abs() < 0.004 * full,
        "{full} {f16}"
    );
}
