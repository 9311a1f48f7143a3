//! Published numbers next to measured ones, and an override of the trained length.

use crate::shared::{fail, records, succeed, workspace};
use serde_json::{Value, json};

const PUBLISHED: &str = r#"
[[published]]
name = "theirs"
source = "their README"
perplexity = { "64" = 5.00, 2048 = 2645.09 }

[[published]]
name = "theirs + ntk"
source = "their report"
method = "ntk + logn"
perplexity = { 32 = 4.23 }
"#;

/// The perplexity column of a row of a table.
fn cells(table: &str, row: &str) -> Vec<String> {
    let line = table.lines().find(|line| line.contains(row)).unwrap();
    let cells = line.trim_matches('|').split('|').skip(1);
    cells.map(|cell| cell.trim().to_owned()).collect()
}

#[test]
fn published_rows_stand_below_the_measured_ones() {
    let dir = workspace("lengths = [32, 64]\nmax_tokens = 512\nprotocol = [\"half\", \"packed\"]");
    let alone = succeed(dir.path(), &["run", "run.toml"]);
    assert!(!alone.contains("published"), "{alone}");
    let run = dir.path().join("runs/run");
    let read = |file: &str| std::fs::read_to_string(run.join(file)).unwrap();
    let measured = read("records.jsonl");

    // They may be added to a finished run: no record depends on them.
    let config = dir.path().join("run.toml");
    let text = std::fs::read_to_string(&config).unwrap() + PUBLISHED;
    std::fs::write(&config, text).unwrap();
    let stdout = succeed(dir.path(), &["run", "run.toml"]);
    assert_eq!(read("records.jsonl"), measured);
    let (half, packed) = stdout.split_once("## packed").unwrap();
    assert!(!half.contains("published"), "{half}");
    assert_eq!(cells(packed, "| method")[..], ["32", "64", "2K"]);
    assert_eq!(cells(packed, "| plain")[2], "-");
    assert_eq!(
        cells(packed, "| published: theirs  ")[..],
        ["-", "5.00", "2645.09"]
    );
    assert_eq!(
        cells(packed, "| published: theirs + ntk")[..],
        ["4.23", "-", "-"]
    );
    assert!(
        packed.contains("(theirs): not measured here, but taken from their README"),
        "{packed}"
    );
    assert!(packed.contains("(theirs + ntk): not measured here, but taken from their report"));
    let csv = read("table.csv");
    assert!(
        csv.contains("packed,published: theirs,2048,2645.09,,"),
        "{csv}"
    );
    assert_eq!(csv.matches("published").count(), 3);
    assert_eq!(
        read("ppl-packed.svg").matches("published: theirs").count(),
        2
    );
    assert!(!read("ppl.svg").contains("published"));

    // A report reads them from the folder's config.
    std::fs::remove_file(run.join("table.md")).unwrap();
    assert_eq!(succeed(dir.path(), &["report", "runs/run"]), stdout);
    assert!(read("table.md").contains("published: theirs"));

    // Any other key of the config must stay.
    let args = ["run", "run.toml", "--set", "method.2.sinks=5"];
    fail(dir.path(), &args, &["another config", "method.2.sinks"]);
}

/// An override of the trained length gives the same cells as a `config.json` with that length.
#[test]
fn a_trained_length_of_the_config_replaces_the_models() {
    let dir = workspace("lengths = [64]\nmax_tokens = 256");
    let run = |out: &str, trained: Option<usize>| -> Vec<Value> {
        let set = trained.map(|trained| format!("model.trained={trained}"));
        let mut args = vec!["run", "run.toml", "--out", out];
        args.extend(set.iter().flat_map(|set| ["--set", set]));
        succeed(dir.path(), &args);
        records(&dir.path().join(out))
    };
    let keys = |records: &[Value]| -> Vec<Value> {
        records.iter().map(|record| record["key"].clone()).collect()
    };
    let (plain, same, shorter) = (run("none", None), run("64", Some(64)), run("32", Some(32)));
    assert_eq!(keys(&plain), keys(&same));
    assert_eq!(shorter[1]["trained_length"], json!(32));
    assert_eq!(plain[0]["nll"], shorter[0]["nll"]); // plain RoPE
    assert_ne!(plain[1]["nll"], shorter[1]["nll"]); // ntk + logn
    let path = dir.path().join("model/config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["seq_length"] = json!(32);
    std::fs::write(&path, config.to_string()).unwrap();
    let stored = run("stored", None);
    assert_eq!(keys(&stored), keys(&shorter));
    assert_eq!(stored[1]["nll"], shorter[1]["nll"]);
}
