//! The program end to end: runs, scores, reports.

mod shared;

use std::path::Path;

use safetensors::SafeTensors;
use serde_json::{Value, json};
use shared::{records, succeed, workspace};

#[test]
fn a_run_leaves_everything_it_promises() {
    let dir = workspace("lengths = [32, 64, 128]\nmax_tokens = 1024");
    let stdout = succeed(dir.path(), &["run", "run.toml"]);
    let run = dir.path().join("runs/run");
    for file in ["config.toml", "table.md", "table.csv", "ppl.svg", "ppl.png"] {
        assert!(run.join(file).metadata().unwrap().len() > 0, "{file}");
    }
    assert!(
        std::fs::read(run.join("ppl.png"))
            .unwrap()
            .starts_with(b"\x89PNG")
    );
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

    // Nothing is computed twice, and a report can be made again.
    let before = std::fs::read(run.join("records.jsonl")).unwrap();
    assert_eq!(succeed(dir.path(), &["run", "run.toml"]), stdout);
    assert_eq!(std::fs::read(run.join("records.jsonl")).unwrap(), before);
    std::fs::remove_file(run.join("table.md")).unwrap();
    assert_eq!(succeed(dir.path(), &["report", "runs/run"]), stdout);
    assert!(run.join("table.md").exists());
}

/// The packed perplexity, put together from `score` by hand.
#[test]
fn packed_perplexity_is_what_the_scores_give() {
    let dir = workspace("lengths = [50, 120]\nmax_tokens = 600");
    succeed(dir.path(), &["run", "run.toml"]);
    let text = std::fs::read_to_string(dir.path().join("text.jsonl")).unwrap();
    let documents = text.lines().map(|line| {
        let document: Value = serde_json::from_str(line).unwrap();
        document["text"].as_str().unwrap().to_owned()
    });
    // In a vocabulary of bytes the ids are the bytes.
    let ids: Vec<u8> = documents.flat_map(String::into_bytes).collect();
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
        let lines = std::fs::read_to_string(dir.path().join("nll.jsonl")).unwrap();
        let lines: Vec<Value> = lines
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
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
    let pass = |method: &str, length: u64| {
        let mut records = nested.iter();
        let is = |r: &&Value| r["method"] == json!(method) && r["length"] == json!(length);
        records.find(is).unwrap()["pass_length"].as_u64().unwrap()
    };
    for method in ["plain", "windows + sinks"] {
        assert_eq!([32, 64, 128].map(|n| pass(method, n)), [128; 3], "{method}");
    }
    // Trained at 64: dynamic NTK is the same at 32 and 64, and another at 128.
    assert_eq!([32, 64, 128].map(|n| pass("ntk + logn", n)), [64, 64, 128]);

    // The shared numbers are those of a pass of their own.
    for length in ["32", "64"] {
        let set = format!("perplexity.lengths=[{length}]");
        // Windows start every 128 tokens in both runs: 8 documents, cut to n.
        let text = std::fs::read_to_string(dir.path().join("text.jsonl")).unwrap();
        let all: String = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|document| document["text"].as_str().unwrap().to_owned())
            .collect();
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
            let mut shared = nested.iter();
            let same = |r: &&Value| r["method"] == own["method"] && r["length"] == own["length"];
            let shared = shared.find(same).unwrap();
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
    let find = |protocol: &str, length: u64| {
        let is = |r: &&Value| {
            r["method"] == json!("plain")
                && r["protocol"] == json!(protocol)
                && r["length"] == json!(length)
        };
        records.iter().find(is).unwrap()
    };
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

/// Scoring token by token with Qwen's published code freezes alpha at 1: plain RoPE under another name.
#[test]
fn alpha_frozen_at_a_prefill_of_one_token_is_plain_rope() {
    let dir = workspace("lengths = [50, 256]\nmax_tokens = 512");
    let frozen =
        "method.2={ name = \"frozen\", rope = { kind = \"dynamic_ntk\", freeze = \"prefill\" } }";
    let logn = "method.1.logn=false";
    let args = ["run", "run.toml", "--set", frozen, "--set", logn];
    let nll = |dir: &Path, method: &str, length: u64| {
        let records = records(dir);
        let is = |r: &&Value| r["method"] == json!(method) && r["length"] == json!(length);
        records.iter().find(is).unwrap()["nll"].as_f64().unwrap()
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
fn score_equals_the_reference() {
    let Some(folder) = shared::path("golden/micro") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let methods = r#"
[[method]]
name = "plain"
[[method]]
name = "qwen_full_layer_alpha"
rope = { kind = "dynamic_ntk" }
logn = true
window = { layers = [64, 128, 256, "full"], alpha = "per_layer" }
"#;
    std::fs::write(dir.path().join("methods.toml"), methods).unwrap();
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let ids = expected.tensor("ids.500").unwrap().data().to_vec();
    let ids: Vec<i32> = ids
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&b| i32::from_le_bytes(b))
        .collect();
    // A line of one token and an empty one score nothing.
    let lines = format!("{:?}\n{:?}\n[7]\n[]\n", &ids[..500], &ids[500..]);
    std::fs::write(dir.path().join("ids.jsonl"), lines).unwrap();
    let model = folder.to_string_lossy().into_owned();
    let args = ["score", "--model", &model, "--methods", "methods.toml"];
    succeed(
        dir.path(),
        &[&args[..], &["--tokens", "ids.jsonl", "--out", "nll.jsonl"]].concat(),
    );
    let lines = std::fs::read_to_string(dir.path().join("nll.jsonl")).unwrap();
    let lines: Vec<Value> = lines
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 8);
    for line in &lines {
        let (method, doc) = (
            line["method"].as_str().unwrap(),
            line["doc"].as_u64().unwrap(),
        );
        let nll = line["nll"].as_array().unwrap();
        if doc > 1 {
            assert_eq!((nll.len(), &line["tokens"]), (0, &json!(3 - doc)));
            continue;
        }
        let want = expected.tensor(&format!("nll.{method}.500")).unwrap();
        assert_eq!(nll.len(), 499);
        let wide = want.dtype() == safetensors::Dtype::F64;
        for (i, got) in nll.iter().enumerate() {
            let at = doc as usize * 499 + i;
            let want = if wide {
                f64::from_le_bytes(want.data()[8 * at..8 * at + 8].try_into().unwrap())
            } else {
                f32::from_le_bytes(want.data()[4 * at..4 * at + 4].try_into().unwrap()) as f64
            };
            let error = (got.as_f64().unwrap() - want).abs();
            assert!(error < 1e-4, "{method} {doc} {i}: {got} against {want}");
        }
    }
    succeed(
        dir.path(),
        &[
            &args[..],
            &[
                "--method",
                "plain",
                "--tokens",
                "ids.jsonl",
                "--out",
                "one.jsonl",
            ],
        ]
        .concat(),
    );
    let one = std::fs::read_to_string(dir.path().join("one.jsonl")).unwrap();
    let all = std::fs::read_to_string(dir.path().join("nll.jsonl")).unwrap();
    assert_eq!(
        one.lines().collect::<Vec<_>>(),
        all.lines().take(4).collect::<Vec<_>>()
    );
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

#[test]
fn tokenize_round_trips_and_list_names_every_method() {
    let dir = tempfile::tempdir().unwrap();
    shared::write_vocabulary(&dir.path().join("bytes.tiktoken"));
    let args = ["tokenize", "--tokenizer", "bytes.tiktoken"];
    let ids = succeed(dir.path(), &[&args[..], &["caf\u{e9}<|im_end|>"]].concat());
    assert_eq!(
        ids,
        "[99,97,102,195,169,60,124,105,109,95,101,110,100,124,62]\n"
    );
    let special = succeed(
        dir.path(),
        &[&args[..], &["--special", "a<|im_end|>"]].concat(),
    );
    assert_eq!(special, "[97,258]\n");
    let text = succeed(dir.path(), &[&args[..], &["--decode", ids.trim()]].concat());
    assert_eq!(text, "caf\u{e9}<|im_end|>\n");
    let list = succeed(dir.path(), &["list", "methods"]);
    for method in longspan_rope::METHODS {
        assert!(
            list.contains(&format!("\n{:<15} ", method.name())),
            "{list}"
        );
    }
}

/// Every shipped config is one that the program takes, and the quickstart runs.
#[test]
fn shipped_configs_are_valid() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let dir = workspace("lengths = [64]");
    let mut count = 0;
    for entry in std::fs::read_dir(&configs).unwrap() {
        let path = entry.unwrap().path();
        let config = path.to_string_lossy().into_owned();
        // On the small model and text: a window schedule for other layers is the one thing that
        // cannot hold there.
        let output = shared::run_in(
            dir.path(),
            &[
                "run",
                &config,
                "--set",
                "model.path=model",
                "--set",
                "data.path=text.jsonl",
                "--set",
                "perplexity.lengths=[64]",
            ],
        );
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() || stderr.contains("window.layers covers"),
            "{stderr}"
        );
        count += 1;
    }
    assert!(count >= 4);
    let quickstart = configs.join("quickstart.toml");
    let args = [
        "run",
        &quickstart.to_string_lossy(),
        "--set",
        "perplexity.lengths=[64,128]",
    ];
    let stdout = succeed(dir.path(), &args);
    assert!(stdout.contains("random weights"), "{stdout}");
}
