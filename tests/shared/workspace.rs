//! Folders with a small model, text and a config, and the records that runs leave in them.

use std::path::{Path, PathBuf};

use base64::Engine;
use longspan_model::{Architecture, Shape, WeightType, write_random_checkpoint};
use serde_json::Value;

/// The folder of the built-in model.
pub fn tiny_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tiny")
}

/// The smallest shape, with 2 layers and a trained length of 64.
pub fn micro() -> Architecture {
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

/// A config with three methods over `dir/model` and `dir/text.jsonl`; `perplexity` is the body of
/// that table.
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

/// A folder with [`write_model`], [`write_text`] and [`write_config`].
pub fn workspace(perplexity: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path());
    write_text(dir.path());
    write_config(dir.path(), perplexity);
    dir
}

/// A file of one JSON object a line.
pub fn json_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

/// The perplexity records of a run folder.
pub fn records(run: &Path) -> Vec<Value> {
    json_lines(&run.join("records.jsonl"))
}

/// The needle records of a run folder.
pub fn needles(run: &Path) -> Vec<Value> {
    json_lines(&run.join("needle.jsonl"))
}

/// A record without the fields that differ from run to run.
pub fn timeless(mut record: Value) -> Value {
    for key in ["seconds", "tokens_per_second", "peak_bytes"] {
        assert!(record.as_object_mut().unwrap().remove(key).is_some());
    }
    record
}
