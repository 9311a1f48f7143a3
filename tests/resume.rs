//! A number depends on its cell alone: not on kills, other lengths, threads, or what was at the path before.

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

#[test]
fn a_killed_run_continues_to_the_same_numbers() {
    let perplexity = "lengths = [64, 256, 1024]\nmax_tokens = 2048";
    let whole = workspace(perplexity);
    succeed(whole.path(), &["run", "run.toml"]);
    let expected = records(&whole.path().join("runs/run"));

    let dir = workspace(perplexity);
    let run = dir.path().join("runs/run");
    let lines = || {
        let text = std::fs::read_to_string(run.join("records.jsonl"));
        text.map_or(0, |text| text.lines().count())
    };
    // Killed as soon as it has written something, again and again until it gets through.
    let mut kills = 0;
    loop {
        let before = lines();
        let mut child = shared::longspan()
            .current_dir(dir.path())
            .args(["run", "run.toml"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if lines() > before {
                child.kill().unwrap(); // SIGKILL
                child.wait().unwrap();
                break None;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        };
        match status {
            Some(status) => {
                assert!(status.success());
                break;
            }
            None => kills += 1,
        }
    }
    assert!(kills >= 2, "the run was over before it could be killed");
    // A line cut short, as by a kill within a write.
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
}

#[test]
fn neither_other_lengths_nor_the_number_of_threads_change_a_number() {
    let dir = workspace("lengths = [300, 65, 129]\nmax_tokens = 1200");
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
        let mut alone = alone.iter();
        let same = alone.find(|other| other["key"] == record["key"]).unwrap();
        assert_eq!(timeless(record), timeless(same.clone()));
    }
}

/// Same path, other weights: numbers of the old checkpoint must not be shown for the new one.
#[test]
fn a_replaced_checkpoint_gets_numbers_of_its_own() {
    let dir = workspace("lengths = [64]\nmax_tokens = 256");
    let old = succeed(dir.path(), &["run", "run.toml"]);
    let model = dir.path().join("model");
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    let config = shared::micro();
    let f32 = longspan_model::WeightType::F32;
    longspan_model::write_random_checkpoint(&model, &config, f32, 2, usize::MAX).unwrap();
    let new = succeed(dir.path(), &["run", "run.toml"]);
    assert_eq!(records(&dir.path().join("runs/run")).len(), 6);
    assert_ne!(old, new);
    assert_eq!(
        succeed(dir.path(), &["run", "run.toml", "--out", "fresh"])
            .lines()
            .nth(9),
        new.lines().nth(9)
    );
    assert_eq!(succeed(dir.path(), &["report", "runs/run"]), new);
}
