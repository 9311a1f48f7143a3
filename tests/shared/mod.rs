//! What the tests that span crates have in common.
#![allow(dead_code)] // each test binary uses a part

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine;
use burn::tensor::{DType, TensorData};
use longspan_model::{QwenConfig, Shape, WeightType, write_random_checkpoint};
use serde_json::{Value, json};

/// `../shared/<name>` beside the repository; `None`, with a line that says so, when it is absent.
pub fn path(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared")
        .join(name);
    if !path.exists() {
        // Written past the test runner, which keeps back what `println` prints in a test that passes.
        let line = format!("skipped: {name} is not beside the repository (1 check)\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return None;
    }
    Some(path)
}

/// The first wgpu device; `None`, with a line that says so, when there is none. With
/// `LONGSPAN_GPU_TESTS=strict` that fails.
#[cfg(feature = "wgpu")]
pub fn wgpu(test: &str) -> Option<burn::tensor::Device> {
    let devices = burn::tensor::Device::enumerate(burn::tensor::DeviceType::Wgpu);
    let device = devices.into_vec().into_iter().next();
    if device.is_none() {
        let strict = std::env::var("LONGSPAN_GPU_TESTS").is_ok_and(|value| value == "strict");
        assert!(!strict, "{test}: wgpu finds no device");
        let line = format!("skipped: {test}: wgpu finds no device (1 check)\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    device
}

/// The program, to be given arguments.
pub fn longspan() -> Command {
    Command::new(env!("CARGO_BIN_EXE_longspan"))
}

/// Runs the program in a folder.
pub fn run_in(dir: &Path, args: &[&str]) -> Output {
    longspan().current_dir(dir).args(args).output().unwrap()
}

/// Runs the program, which must succeed, and returns its standard output.
#[track_caller]
pub fn succeed(dir: &Path, args: &[&str]) -> String {
    let output = run_in(dir, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the program, which must end with exit code 2 and a message that holds all `words`.
#[track_caller]
pub fn fail(dir: &Path, args: &[&str], words: &[&str]) {
    let output = run_in(dir, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    for word in words {
        assert!(
            stderr.contains(word),
            "{args:?}: no \"{word}\" in: {stderr}"
        );
    }
}

/// The smallest model with the vocabulary of [`write_vocabulary`].
pub fn micro() -> QwenConfig {
    let mut config = Shape::Micro.config();
    config.layers = 2;
    config.trained = 64;
    config
}

/// A random checkpoint with a vocabulary of single bytes, in `dir/model`.
pub fn write_model(dir: &Path) {
    let model = dir.join("model");
    write_random_checkpoint(&model, &micro(), WeightType::F32, 1, usize::MAX).unwrap();
    write_vocabulary(&model.join("bytes.tiktoken"));
}

/// A vocabulary in which every byte is a token.
pub fn write_vocabulary(path: &Path) {
    let lines = (0..=255u8).map(|byte| {
        let token = base64::engine::general_purpose::STANDARD.encode([byte]);
        format!("{token} {byte}\n")
    });
    std::fs::write(path, lines.collect::<String>()).unwrap();
}

/// Two documents of 900 and 1,300 bytes in `dir/text.jsonl`.
pub fn write_text(dir: &Path) {
    let document = |seed: usize, len: usize| -> String {
        let letters = (0..len).map(|i| b"abcdefgh ijklm\n"[(i * i + seed * i / 3) % 15] as char);
        serde_json::json!({"text": letters.collect::<String>()}).to_string()
    };
    let text = document(1, 900) + "\n" + &document(2, 1300) + "\n";
    std::fs::write(dir.join("text.jsonl"), text).unwrap();
}

/// A config with three methods over `dir/model` and `dir/text.jsonl`; `perplexity` is the body of its table.
pub fn write_config(dir: &Path, perplexity: &str) {
    let config = format!(
        r#"
[model]
path = "model"

[data]
path = "text.jsonl"

[perplexity]
{perplexity}

[[method]]
name = "plain"

[[method]]
name = "ntk + logn"
rope = {{ kind = "dynamic_ntk" }}
logn = true

[[method]]
name = "windows + sinks"
window = {{ layers = [[1, 40], [1, 100]] }}
sinks = 4
"#
    );
    std::fs::write(dir.join("run.toml"), config).unwrap();
}

/// A folder with model, text and config.
pub fn workspace(perplexity: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path());
    write_text(dir.path());
    write_config(dir.path(), perplexity);
    dir
}

/// The records of a run folder.
pub fn records(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("records.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A record without what differs from run to run.
pub fn timeless(mut record: Value) -> Value {
    for key in ["seconds", "tokens_per_second", "peak_bytes"] {
        assert!(record.as_object_mut().unwrap().remove(key).is_some());
    }
    record
}

/// A case of `expected.json` as a `[[method]]` table.
pub fn method(case: &Value) -> Value {
    let factor = &case["factor"];
    let rope = match case["method"].as_str().unwrap() {
        "none" => json!({"kind": "none"}),
        "dynamic_ntk_qwen" => json!({"kind": "dynamic_ntk"}),
        "dynamic_hf" => json!({"kind": "dynamic_ntk_hf", "factor": factor}),
        kind => json!({"kind": kind, "factor": factor}),
    };
    let logn = match (&case["logn"], &case["logn_visible"]) {
        (Value::Bool(true), Value::Bool(true)) => json!({"length": "visible"}),
        (logn, _) => json!(logn == &json!(true)),
    };
    let mut table = json!({"name": case["case"], "rope": rope, "logn": logn});
    if let Some(windows) = case["windows"].as_array() {
        let layers: Vec<Value> = windows
            .iter()
            .map(|w| {
                if w.is_null() {
                    json!("full")
                } else {
                    w.clone()
                }
            })
            .collect();
        let per_layer = case["per_layer_ntk"] == json!(true);
        let alpha = if per_layer { "per_layer" } else { "global" };
        table["window"] = json!({"layers": layers, "alpha": alpha});
    }
    if let Some(sinks) = case.get("sinks") {
        table["sinks"] = sinks.clone();
    }
    table
}

/// The values of a tensor of the reference.
pub fn floats(tensor: safetensors::tensor::TensorView) -> Vec<f64> {
    let data = TensorData::from_bytes_vec(
        tensor.data().to_vec(),
        tensor.shape().to_vec(),
        match tensor.dtype() {
            safetensors::Dtype::F32 => DType::F32,
            safetensors::Dtype::F64 => DType::F64,
            safetensors::Dtype::I32 => DType::I32,
            other => panic!("expected.safetensors holds {other:?}"),
        },
    );
    data.iter::<f64>().collect()
}

/// A training that is over in seconds, with every kind of source, in `dir/train.toml`.
pub fn write_training(dir: &Path) {
    let vocabulary = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tiny/qwen.tiktoken");
    std::fs::copy(vocabulary, dir.join("tiny.tiktoken")).unwrap();
    let config = r#"
seed = 3
tokenizer = "tiny.tiktoken"

[model]
layers = 2
heads = 2
head_dim = 16
ffn = 48
trained = 96

[initial]
matrices = 0.06
embedding = 0.2
offsets = [[1, 2]]

[schedule]
steps = 40
batch_tokens = 192
accumulate = 2
learning_rate = 3e-3
final_learning_rate = 3e-4
warmup = 5
log_every = 2
save_every = 4

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
until = 0.4
lengths = [60, 64]
mixture = { pairs = 0.4, recall = 0.3, echo = 0.2, articles = 0.1 }

[[phase]]
until = 1.0
lengths = [96]
mixture = { recall = 0.4, echo = 0.1, articles = 0.5 }
attention = [{ share = 3.0, name = "plain" }, { share = 1.0, name = "logn", logn = true }]

[probe]
every = 10
tasks = ["fact"]
trials = 3
text = { articles = "builtin:articles" }
"#;
    std::fs::write(dir.join("train.toml"), config).unwrap();
}
