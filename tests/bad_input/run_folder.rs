//! Run folders: of something else, of another config, damaged, or in use.

use crate::RUN;
use crate::shared::{fail, succeed, workspace};

#[test]
fn a_folder_of_something_else_is_named_and_kept() {
    let dir = workspace("lengths = [64]\nmax_tokens = 128");
    std::fs::write(dir.path().join("file"), "").unwrap();
    fail(
        dir.path(),
        &["run", "run.toml", "--out", "file/run"],
        &["file/run"],
    );

    // The folder of a training.
    std::fs::create_dir(dir.path().join("trained")).unwrap();
    let config = dir.path().join("trained/config.toml");
    std::fs::write(&config, "seed = 1\n").unwrap();
    let out = [&RUN[..], &["--out", "trained"]].concat();
    fail(dir.path(), &out, &["trained", "something other than a run"]);
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "seed = 1\n");
    // A config that is run in its own folder keeps its comments.
    let written = std::fs::read_to_string(dir.path().join("run.toml")).unwrap() + "# why\n";
    let own = dir.path().join("config.toml");
    std::fs::write(&own, &written).unwrap();
    succeed(dir.path(), &["run", "config.toml", "--out", "."]);
    assert_eq!(std::fs::read_to_string(&own).unwrap(), written);
}

#[test]
fn another_config_is_refused_with_the_key_and_both_values() {
    let dir = workspace("lengths = [64]\nmax_tokens = 128");
    succeed(dir.path(), &RUN);
    for (set, words) in [
        (
            "perplexity.max_tokens=256",
            &["perplexity.max_tokens", "128", "256"][..],
        ),
        ("method.2.sinks=5", &["method.2.sinks", "4", "5"]),
        ("model.dtype=bf16", &["model.dtype", "bf16"]),
    ] {
        let args = ["run", "run.toml", "--set", set];
        fail(
            dir.path(),
            &args,
            &[&["another config", "--out"], words].concat(),
        );
    }
}

/// Only a cut last line is dropped: any other may hold hours of work.
#[test]
fn damaged_records_are_named_and_kept() {
    let dir = workspace("lengths = [64]\nmax_tokens = 128");
    succeed(dir.path(), &RUN);
    let path = dir.path().join("runs/run/records.jsonl");
    let good = std::fs::read_to_string(&path).unwrap();
    let damaged = good.replacen("{\"key\"", "{\"kex\"", 1);
    std::fs::write(&path, &damaged).unwrap();
    fail(dir.path(), &RUN, &["records.jsonl:1"]);
    fail(dir.path(), &["report", "runs/run"], &["records.jsonl:1"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), damaged);
    fail(dir.path(), &["report", "model"], &["model/records.jsonl"]);
}

#[test]
fn a_folder_in_use_is_refused() {
    let dir = workspace("lengths = [64]\nmax_tokens = 128");
    succeed(dir.path(), &RUN);
    let held = std::fs::File::open(dir.path().join("runs/run/records.jsonl")).unwrap();
    held.lock().unwrap();
    fail(dir.path(), &RUN, &["another longspan is writing", "--out"]);
}
