//! A number depends on its cell alone: not on kills, threads, other lengths with passes of their
//! own, or an earlier checkpoint at the same path.

mod shared;

use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;
use shared::{records, succeed, timeless, workspace};

/// Tensors `nll` of all files of a run folder, by file name.
fn losses(run: &Path) -> HashMap<String, Vec<u8>> {
    std::fs::read_dir(run.join("nll"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let nll = SafeTensors::deserialize(&bytes).unwrap();
            let nll = nll.tensor("nll").unwrap().data().to_vec();
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                nll,
            )
        })
        .collect()
}

/// Kills a run whenever it has written a record, until it finishes; returns the number of kills.
fn run_with_kills(dir: &Path) -> usize {
    let lines = || {
        let text = std::fs::read_to_string(dir.join("runs/run/records.jsonl"));
        text.map_or(0, |text| text.lines().count())
    };
    let mut kills = 0;
    loop {
        let before = lines();
        let mut child = shared::longspan()
            .current_dir(dir)
            .args(["run", "run.toml"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                return kills;
            }
            if lines() > before {
                child.kill().unwrap(); // SIGKILL
                child.wait().unwrap();
                kills += 1;
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

#[test]
fn a_killed_run_continues_to_the_same_numbers() {
    let perplexity = "lengths = [64, 256, 1024]\nmax_tokens = 2048";
    let whole = workspace(perplexity);
    succeed(whole.path(), &["run", "run.toml"]);
    let expected = records(&whole.path().join("runs/run"));

    // On a loaded machine a run can finish between two looks at its records; then try again.
    let dir = (0..10)
        .map(|_| workspace(perplexity))
        .find(|dir| run_with_kills(dir.path()) >= 2)
        .expect("a run that could be killed twice");
    let run = dir.path().join("runs/run");
    // A line cut short, as by a kill during a write.
    let path = run.join("records.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 20]).unwrap();
    let output = shared::run_in(dir.path(), &["run", "run.toml"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("warning: ") && stderr.contains("cut short"),
        "{stderr}"
    );

    let resumed = records(&run);
    assert_eq!(
        resumed.into_iter().map(timeless).collect::<Vec<_>>(),
        expected.into_iter().map(timeless).collect::<Vec<_>>()
    );
    assert_eq!(losses(&run), losses(&whole.path().join("runs/run")));

    // A whole record without its line end is kept.
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.trim_end()).unwrap();
    succeed(dir.path(), &["run", "run.toml"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn neither_other_lengths_nor_the_number_of_threads_change_a_number() {
    let perplexity =
        "lengths = [300, 65, 129]\nmax_tokens = 1200\nprotocol = [\"packed\", \"half\"]";
    let dir = workspace(perplexity);
    succeed(dir.path(), &["run", "run.toml", "--out", "sweep"]);
    let mut alone = Vec::new();
    for length in ["300", "65", "129"] {
        let set = format!("perplexity.lengths=[{length}]");
        let output = shared::longspan()
            .current_dir(dir.path())
            .args(["run", "run.toml", "--out", length, "--set", &set])
            .env("RAYON_NUM_THREADS", "1")
            .output()
            .unwrap();
        assert!(output.status.success());
        alone.extend(records(&dir.path().join(length)));
    }
    let sweep = records(&dir.path().join("sweep"));
    assert_eq!(sweep.len(), alone.len());
    for record in sweep {
        let same = alone.iter().find(|other| other["key"] == record["key"]);
        assert_eq!(timeless(record), timeless(same.unwrap().clone()));
    }
}

/// Numbers of one checkpoint must not be shown for another one at the same path.
#[test]
fn a_replaced_checkpoint_gets_numbers_of_its_own() {
    let dir = workspace("lengths = [64]\nmax_tokens = 256");
    let file = dir.path().join("model/model.safetensors");
    let old_weights = std::fs::read(&file).unwrap();
    let old = succeed(dir.path(), &["run", "run.toml"]);
    let f32 = longspan_model::WeightType::F32;
    let other = dir.path().join("other");
    longspan_model::write_random_checkpoint(&other, &shared::micro(), f32, 2, usize::MAX).unwrap();
    std::fs::copy(other.join("model.safetensors"), &file).unwrap();
    let new = succeed(dir.path(), &["run", "run.toml"]);
    assert_eq!(records(&dir.path().join("runs/run")).len(), 6);
    assert_ne!(old, new);
    assert_eq!(succeed(dir.path(), &["report", "runs/run"]), new);
    // With the first weights back, nothing is computed and the first numbers are shown.
    std::fs::write(&file, old_weights).unwrap();
    assert_eq!(succeed(dir.path(), &["run", "run.toml"]), old);
    assert_eq!(records(&dir.path().join("runs/run")).len(), 6);
    assert_eq!(succeed(dir.path(), &["report", "runs/run"]), old);
}

/// The order of options in a table is not part of their meaning.
#[test]
fn options_in_another_order_are_the_same_cell() {
    let dir = workspace("lengths = [64]\nmax_tokens = 256");
    let yarn = |options: &str| format!("method.1.rope={{ kind = \"yarn\", {options} }}");
    let set = yarn("factor = 4.0, ramp = \"paper\"");
    succeed(dir.path(), &["run", "run.toml", "--set", &set]);
    let set = yarn("ramp = \"paper\", factor = 4.0");
    succeed(dir.path(), &["run", "run.toml", "--set", &set]);
    assert_eq!(records(&dir.path().join("runs/run")).len(), 3);
}
