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

/// Every case of the reference, through the program.
#[test]
fn score_equals_the_reference() {
    let Some(folder) = shared::path("golden/micro") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let cases = std::fs::read(folder.join("expected.json")).unwrap();
    let cases: Value = serde_json::from_slice(&cases).unwrap();
    let cases = cases["cases"].as_array().unwrap();
    let model = folder.to_string_lossy().into_owned();
    let args = [
        "score",
        "--model",
        &model,
        "--methods",
        "methods.toml",
        "--tokens",
        "ids.jsonl",
    ];
    let (mut sum, mut count) = (0.0, 0);
    for length in [1, 33, 64, 65, 128, 129, 500] {
        let cases: Vec<&Value> = cases
            .iter()
            .filter(|c| c["length"] == json!(length))
            .collect();
        assert_eq!(cases.len(), 14);
        let methods: Vec<Value> = cases.iter().map(|case| shared::method(case)).collect();
        let methods = toml::to_string(&json!({"method": methods})).unwrap();
        std::fs::write(dir.path().join("methods.toml"), methods).unwrap();
        let ids = shared::floats(expected.tensor(&format!("ids.{length}")).unwrap());
        let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
        let lines = format!("{:?}\n{:?}\n[]\n", &ids[..length], &ids[length..]);
        std::fs::write(dir.path().join("ids.jsonl"), lines).unwrap();
        succeed(dir.path(), &[&args[..], &["--out", "nll.jsonl"]].concat());
        let lines = std::fs::read_to_string(dir.path().join("nll.jsonl")).unwrap();
        let lines: Vec<Value> = lines
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        assert_eq!(lines.len(), 14 * 3);
        for (line, at) in lines.iter().zip(0..) {
            let (method, doc) = (line["method"].as_str().unwrap(), at % 3);
            assert_eq!(
                (method, &line["doc"]),
                (cases[at / 3]["case"].as_str().unwrap(), &json!(doc))
            );
            let nll = line["nll"].as_array().unwrap();
            if doc == 2 || length == 1 {
                assert!(nll.is_empty());
                continue;
            }
            assert_eq!((nll.len(), &line["tokens"]), (length - 1, &json!(length)));
            let want = shared::floats(expected.tensor(&format!("nll.{method}.{length}")).unwrap());
            for (got, want) in nll.iter().zip(&want[doc * (length - 1)..]) {
                let error = (got.as_f64().unwrap() - want).abs();
                assert!(error < 2e-3, "{method} {length}: {got} against {want}");
                (sum, count) = (sum + error, count + 1);
            }
        }
    }
    assert!(
        count > 20_000 && sum < 1e-4 * count as f64,
        "{sum} over {count}"
    );
    let one = [&args[..], &["--method", "linear_x4", "--out", "one.jsonl"]].concat();
    succeed(dir.path(), &one);
    let one = std::fs::read_to_string(dir.path().join("one.jsonl")).unwrap();
    let all = std::fs::read_to_string(dir.path().join("nll.jsonl")).unwrap();
    let of_method = all.lines().filter(|line| line.contains("\"linear_x4\""));
    assert_eq!(
        one.lines().collect::<Vec<_>>(),
        of_method.collect::<Vec<_>>()
    );
}

/// What a link points to is written, the link stays; a reader that goes away is no error.
#[cfg(unix)]
#[test]
fn scores_go_through_links_and_pipes() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("methods.toml", "[[method]]\nname = \"plain\"\n");
    write("ids.jsonl", &"[1, 2, 3, 4]\n".repeat(3000));
    write("target.jsonl", "");
    std::os::unix::fs::symlink("target.jsonl", dir.path().join("link.jsonl")).unwrap();
    let args = [
        "score",
        "--model",
        "builtin:random",
        "--methods",
        "methods.toml",
    ];
    let args = [&args[..], &["--tokens", "ids.jsonl", "--out"]].concat();
    succeed(dir.path(), &[&args[..], &["link.jsonl"]].concat());
    let link = dir.path().join("link.jsonl");
    assert!(link.symlink_metadata().unwrap().is_symlink());
    let text = std::fs::read_to_string(dir.path().join("target.jsonl")).unwrap();
    assert_eq!(text.lines().count(), 3000);

    let mut child = shared::longspan()
        .current_dir(dir.path())
        .args([&args[..], &["/dev/stdout"]].concat())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{error}");
    assert!(!error.contains("error"), "{error}");
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
    let tasks = succeed(dir.path(), &["list", "tasks"]);
    for task in longspan::tasks::TASKS {
        assert!(
            tasks.contains(&format!("name = {:?}\n", task.name())),
            "{tasks}"
        );
    }
}

/// Every shipped config is one that the program takes, for a model of the layers it is written for.
#[test]
fn shipped_configs_are_valid() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let dir = workspace("lengths = [64]");
    let mut config = shared::micro();
    config.layers = 32; // Qwen-7B's
    let model = dir.path().join("deep");
    let f32 = longspan_model::WeightType::F32;
    longspan_model::write_random_checkpoint(&model, &config, f32, 3, usize::MAX).unwrap();
    shared::write_vocabulary(&model.join("bytes.tiktoken"));
    let mut count = 0;
    for entry in std::fs::read_dir(&configs).unwrap() {
        let path = entry.unwrap().path();
        // Those on built-in data are run below and in needle.rs, that of a training in train.rs.
        let elsewhere = [
            "quickstart.toml",
            "longer-context.toml",
            "needle.toml",
            "tiny.toml",
        ];
        if elsewhere.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        let config = path.to_string_lossy().into_owned();
        let on_ours = ["--set", "model.path=deep", "--set", "data.path=text.jsonl"];
        // As it is, all that is wrong is that our text is too short for it.
        let args = [&["run", &config][..], &on_ours].concat();
        shared::fail(dir.path(), &args, &["2 documents hold", "give more text"]);
        let short = ["--set", "perplexity.lengths=[64]"];
        succeed(dir.path(), &[&args[..], &short].concat());
        count += 1;
    }
    assert!(count >= 3);
    let longer = configs.join("longer-context.toml");
    let longer = longer.to_string_lossy().into_owned();
    let fewer = ["--set", "perplexity.max_tokens=1024"];
    let stdout = succeed(dir.path(), &[&["run", &longer][..], &fewer].concat());
    assert!(stdout.contains("## last_k"), "{stdout}");
    // The README's first command, with fewer tokens.
    let quickstart = configs.join("quickstart.toml");
    let fewer = [
        "perplexity.max_tokens=1024",
        "perplexity.lengths=[256,512]",
        "needle.lengths=[256]",
        "needle.depths=2",
    ];
    let quickstart = quickstart.to_string_lossy().into_owned();
    let mut args = vec!["run", &quickstart];
    args.extend(fewer.iter().flat_map(|set| ["--set", set]));
    let stdout = succeed(dir.path(), &args);
    assert!(
        stdout.contains("floor (exact)") && stdout.contains("# Needle in a haystack"),
        "{stdout}"
    );
}

#[test]
fn devices_are_listed_with_what_the_others_take() {
    let dir = tempfile::tempdir().unwrap();
    let stdout = succeed(dir.path(), &["devices"]);
    assert!(stdout.starts_with("cpu "), "{stdout}");
    assert!(stdout.contains("--features rocm"), "{stdout}");
    assert_eq!(stdout.contains("--features wgpu"), !cfg!(feature = "wgpu"));
}
