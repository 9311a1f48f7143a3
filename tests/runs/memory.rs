//! Memory: the estimate of `plan`, and cells that do not fit.

use crate::shared::{fail, records, run_in, succeed};

/// Two lengths of one method. Windows keep the longer one cheap in time, not in memory.
const CONFIG: &str = r#"
[model]
path = "builtin:tiny"

[data]
path = "builtin:articles"

[perplexity]
lengths = [256, 16384]
max_tokens = 16384

[[method]]
name = "windows | sinks"
window = { layers = [64, 64, 64, 64, 64, 64] }
sinks = 4
"#;

fn workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.toml"), CONFIG).unwrap();
    dir
}

/// Cells of a row of a Markdown table.
fn row<'a>(table: &'a str, column: usize, value: &str) -> Vec<&'a str> {
    let rows = table.lines().map(|line| {
        let cells: Vec<&str> = line
            .split(" | ")
            .map(|cell| cell.trim_matches(['|', ' ']))
            .collect();
        cells
    });
    let mut found = rows.filter(|cells| cells.get(column) == Some(&value));
    found
        .next()
        .unwrap_or_else(|| panic!("no {value} in {table}"))
}

fn mebibytes(text: &str) -> f64 {
    let (number, unit) = text.split_once(' ').unwrap();
    assert_eq!(unit, "MiB", "{text}");
    number.parse().unwrap()
}

#[test]
fn a_plan_lists_every_pass_and_bounds_its_memory() {
    let dir = workspace();
    let plan = succeed(dir.path(), &["plan", "c.toml"]);
    assert!(!dir.path().join("runs").exists(), "plan computes nothing");
    let (short, long) = (row(&plan, 2, "256"), row(&plan, 2, "16384"));
    assert_eq!(
        short[..5],
        ["windows \\| sinks", "perplexity", "256", "256", "64"]
    );
    assert_eq!(long[3..5], ["16K", "1"]);
    let estimate = mebibytes(long[7]);
    assert!(mebibytes(short[7]) < estimate);

    succeed(dir.path(), &["run", "c.toml"]);
    let found = records(&dir.path().join("runs/c"));
    let longest = found.iter().find(|record| record["length"] == 16384);
    let peak = longest.unwrap()["peak_bytes"].as_f64().unwrap() / f64::from(1 << 20);
    assert!(
        estimate > peak && estimate < 1.7 * peak,
        "estimated {estimate} MiB, measured {peak}"
    );
}

#[test]
fn a_static_method_needs_one_pass_for_nested_lengths() {
    let dir = workspace();
    let set = ["perplexity.nested=true", "perplexity.lengths=[256,512]"];
    let args = ["plan", "c.toml", "--set", set[0], "--set", set[1]];
    let plan = succeed(dir.path(), &args);
    let row = row(&plan, 2, "512");
    assert_eq!(row[3..5], ["256 512", "32"]);
    assert!(!plan.contains("| 256 |"), "{plan}");
}

#[test]
fn a_cell_that_does_not_fit_is_refused_and_the_others_run() {
    let dir = workspace();
    let run = ["run", "c.toml", "--memory-limit", "64MiB"];
    let plan = ["plan", "c.toml", "--memory-limit", "64MiB"];
    let plan = succeed(dir.path(), &plan);
    assert!(row(&plan, 2, "16384")[7].ends_with("(refused)"), "{plan}");

    let output = run_in(dir.path(), &run);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    for word in [
        "refused",
        "windows | sinks",
        "16384 tokens",
        "64.0 MiB",
        "raise the limit",
        "--memory-limit",
    ] {
        assert!(stderr.contains(word), "no {word} in {stderr}");
    }
    assert_eq!(records(&dir.path().join("runs/c")).len(), 1);
    let table = || std::fs::read_to_string(dir.path().join("runs/c/table.md")).unwrap();
    assert!(
        table().contains("- refused: windows | sinks at 16384 tokens"),
        "{}",
        table()
    );

    // With more memory the gap is filled.
    succeed(dir.path(), &["run", "c.toml", "--memory-limit", "4GiB"]);
    assert_eq!(records(&dir.path().join("runs/c")).len(), 2);
    assert!(!table().contains("refused"), "{}", table());
}

#[test]
fn a_limit_that_refuses_every_cell_is_an_error() {
    let dir = workspace();
    let run = |limit| ["run", "c.toml", "--memory-limit", limit];
    let words = ["every cell was refused", "1.0 MiB", "--memory-limit"];
    fail(dir.path(), &run("1MiB"), &words);
    fail(dir.path(), &run("lots"), &["lots", "--memory-limit"]);
}
