//! What users and old run folders rely on, word by word: help texts, lists, a table, record keys,
//! and that a run folder made by an earlier version continues without computing.
//!
//! `LONGSPAN_BLESS=1 cargo test --workspace --features train-tokenizer,wgpu --test snapshots`
//! rewrites `tests/snapshots/*.txt`. Keys and the table change only with `EVALUATION` or `NEEDLE`
//! (CONTRIBUTING.md, "Change a number").

mod shared;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use shared::{longspan, needles, records, succeed};

/// A file or folder of `tests/snapshots`.
fn snapshot(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/snapshots")
        .join(name)
}

/// Compares a text with the snapshot of this name, or writes it with `LONGSPAN_BLESS=1`.
#[track_caller]
fn check(name: &str, text: &str) {
    let path = snapshot(name);
    if std::env::var("LONGSPAN_BLESS").is_ok_and(|value| value == "1") {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    if let Some(difference) = first_difference(&stored, text) {
        panic!(
            "tests/snapshots/{name} differs. {difference}\n\
             If the change is meant, run this test again with LONGSPAN_BLESS=1, which rewrites the file."
        );
    }
}

/// The first line in which two texts differ.
fn first_difference(stored: &str, text: &str) -> Option<String> {
    let (mut old, mut new) = (stored.lines(), text.lines());
    for line in 1.. {
        match (old.next(), new.next()) {
            (None, None) => break,
            (old, new) if old == new => {}
            (old, new) => {
                let or_end = |line: Option<&str>| line.unwrap_or("(end)").to_owned();
                return Some(format!(
                    "Line {line}:\nstored: {}\nnow:    {}",
                    or_end(old),
                    or_end(new)
                ));
            }
        }
    }
    (stored != text).then(|| "Line ends differ.".to_owned())
}

/// Help of a command, wrapped at 100 columns.
fn help(command: &[&str]) -> String {
    let output = longspan()
        .args(command)
        .arg("--help")
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The program, then every command that its help lists. Without `train-tokenizer` there is one
/// less.
#[cfg(feature = "train-tokenizer")]
#[test]
fn help_texts() {
    let all = help(&[]);
    let commands = all.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    let names: Vec<&str> = commands
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .map(|line| line.split(' ').next().unwrap())
        .filter(|&name| name != "help")
        .collect();
    assert!(names.contains(&"run") && names.contains(&"train-tokenizer"));
    let mut text = format!("$ longspan --help\n{all}");
    for name in names {
        write!(text, "\n$ longspan {name} --help\n{}", help(&[name])).unwrap();
    }
    check("help.txt", &text);
}

#[test]
fn lists() {
    let dir = tempfile::tempdir().unwrap();
    check("list.txt", &succeed(dir.path(), &["list"]));
}

/// Copies the folder `tests/snapshots/run`: a config, its text, and the run folder `out` that
/// version 0.1.0 made of it before methods had patterns and scales.
fn old_run() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["", "out", "out/nll"] {
        let (from, to) = (snapshot("run").join(name), dir.path().join(name));
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(&from).unwrap() {
            let from = entry.unwrap().path();
            if from.is_file() {
                std::fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
            }
        }
    }
    dir
}

/// The names and keys of all records of a run folder.
fn keys(run: &Path) -> String {
    let mut text = String::new();
    for record in records(run) {
        let pass = record["nll_file"].as_str().unwrap();
        writeln!(
            text,
            "{} at {}: {}, {pass}",
            record["method"], record["length"], record["key"]
        )
        .unwrap();
    }
    for record in needles(run) {
        writeln!(
            text,
            "{} at {}, {}: {}",
            record["method"], record["length"], record["task"], record["key"]
        )
        .unwrap();
    }
    text
}

/// Largest difference of a loss that another order of float32 sums may make, nats.
const ROUNDING: f64 = 1e-4;

#[test]
fn a_run_has_the_same_keys_numbers_and_tables_as_before() {
    let dir = old_run();
    let (old, new) = (dir.path().join("out"), dir.path().join("new"));
    let stdout = succeed(dir.path(), &["run", "run.toml", "--out", "new"]);
    check("keys.txt", &keys(&new));
    let table = std::fs::read_to_string(new.join("table.md")).unwrap();
    check("table.txt", &table);
    assert!(stdout.contains(&table), "{stdout}");
    let (old, new) = (records(&old), records(&new));
    assert_eq!(old.len(), new.len());
    for (old, new) in old.iter().zip(&new) {
        let [was, is] = [old, new].map(|record| record["nll"].as_f64().unwrap());
        assert!(
            (was - is).abs() < ROUNDING,
            "{}: {was}, {is}",
            old["method"]
        );
    }
}

#[test]
fn a_run_folder_made_before_continues_without_computing() {
    let dir = old_run();
    let read = |name: &str| std::fs::read(dir.path().join("out").join(name)).unwrap();
    let files = ["records.jsonl", "needle.jsonl", "table.csv"];
    let before = files.map(read);
    let stdout = succeed(dir.path(), &["run", "run.toml", "--out", "out"]);
    assert!(files.map(read) == before, "records or numbers changed");
    let table = std::fs::read_to_string(dir.path().join("out/table.md")).unwrap();
    check("table.txt", &table);
    assert_eq!(succeed(dir.path(), &["report", "out"]), stdout);
}
