//! The built-in model: what its card promises, on less text.

use crate::shared::{needles, records, succeed};

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

/// Method, length, perplexity, and needles found of 18.
const MEASURED: [(&str, u64, f64, f64); 4] = [
    ("plain", 256, 2.5742, 18.0),
    ("plain", 1024, 6.1616, 0.0),
    ("ntk + logn", 256, 2.5742, 18.0),
    ("ntk + logn", 1024, 2.3149, 16.0),
];

#[test]
fn the_built_in_model_reads_and_recalls() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("run.toml"), CONFIG).unwrap();
    let stdout = succeed(dir.path(), &["run", "run.toml"]);
    assert!(!stdout.contains("random weights"), "{stdout}");
    let run = dir.path().join("runs/run");
    let (records, needles) = (records(&run), needles(&run));
    for (method, length, perplexity, found) in MEASURED {
        let is =
            |record: &&serde_json::Value| record["method"] == method && record["length"] == length;
        let record = records.iter().find(is).unwrap();
        let measured = record["perplexity"].as_f64().unwrap();
        assert!(
            (measured / perplexity - 1.0).abs() < 1e-3,
            "{method} at {length}: {measured} instead of {perplexity}"
        );
        let correct = needles
            .iter()
            .filter(is)
            .map(|r| r["correct"].as_f64().unwrap());
        let correct: f64 = correct.sum();
        // Rounding may change a close decision.
        assert!(
            (correct - found).abs() <= 1.0,
            "{method} at {length}: {correct} needles of 18 instead of {found}"
        );
    }
}
