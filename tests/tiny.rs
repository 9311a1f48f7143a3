//! The shipped model: what its card promises, on a part small enough for a test.

mod shared;

use std::path::Path;

use serde_json::Value;
use shared::succeed;

const CONFIG: &str = r#"
[model]
path = "builtin:tiny"

[data]
path = "builtin:articles"

[perplexity]
lengths = [256, 1024]
max_tokens = 4096

[needle]
lengths = [256, 1024]
depths = [0.1, 0.5, 0.9]
keys = 6

[[method]]
name = "plain"

[[method]]
name = "ntk + logn"
rope = { kind = "dynamic_ntk" }
logn = true
"#;

fn records(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn the_shipped_model_reads_and_recalls() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("run.toml"), CONFIG).unwrap();
    let stdout = succeed(dir.path(), &["run", "run.toml"]);
    assert!(!stdout.contains("random weights"), "{stdout}");

    let run = dir.path().join("runs/run");
    let floor = std::fs::read_to_string(run.join("table.csv")).unwrap();
    assert!(floor.contains("floor"), "{floor}");
    for record in records(&run.join("records.jsonl")) {
        let perplexity = record["perplexity"].as_f64().unwrap();
        let expected = match (record["method"].as_str(), record["length"].as_u64()) {
            (Some("plain"), Some(1024)) => 5.0..10.0,
            _ => 2.2..3.6,
        };
        assert!(expected.contains(&perplexity), "{record}");
    }
    // Needles found, out of 18, by method and length.
    let needles = records(&run.join("needle.jsonl"));
    let found = |method: &str, length: u64| -> f64 {
        let cells = needles
            .iter()
            .filter(|r| r["method"] == method && r["length"] == length);
        cells.map(|r| r["correct"].as_f64().unwrap()).sum()
    };
    let (trained, plain, scaled) = (
        found("plain", 256),
        found("plain", 1024),
        found("ntk + logn", 1024),
    );
    assert!(trained >= 17.0, "{trained} of 18 at the trained length");
    assert!(
        scaled >= 12.0 && plain <= 2.0,
        "at 1024 tokens: {scaled} with ntk + logn, {plain} without"
    );
}
