//! Folders of trainings: damaged, of something else, or in use.

use std::path::{Path, PathBuf};

use crate::shared::{fail, run_in, succeed, training_workspace};
use crate::training_config::TRAIN;

/// Copies a folder.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, to).unwrap();
        }
    }
}

/// A finished training in `whole`, and copies of it in `out`.
struct Trained {
    dir: tempfile::TempDir,
    whole: PathBuf,
    out: PathBuf,
}

impl Trained {
    fn new() -> Self {
        let dir = training_workspace();
        succeed(dir.path(), &TRAIN);
        let [whole, out] = ["whole", "out"].map(|name| dir.path().join(name));
        std::fs::rename(&out, &whole).unwrap();
        Self { dir, whole, out }
    }

    /// Makes `out` a copy of the finished training.
    fn restore(&self) {
        if self.out.exists() {
            std::fs::remove_dir_all(&self.out).unwrap();
        }
        copy(&self.whole, &self.out);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.out.join("train.jsonl")).unwrap()
    }

    /// Damages a copy, whose training must then be refused and leave log and model as they are.
    #[track_caller]
    fn damaged(&self, damage: impl FnOnce(), words: &[&str]) {
        self.restore();
        damage();
        let before = self.log();
        fail(self.dir.path(), &TRAIN, words);
        assert_eq!(self.log(), before);
        let model = |folder: &Path| std::fs::read(folder.join("model/model.safetensors")).unwrap();
        assert!(model(&self.out) == model(&self.whole), "the model changed");
    }
}

#[test]
fn a_damaged_folder_is_named_and_kept() {
    let trained = Trained::new();
    damaged_state(&trained);
    damaged_log_and_config(&trained);
    another_vocabulary(&trained);
    log_without_its_end(&trained);
}

fn damaged_state(trained: &Trained) {
    let words = &["state/step-40", "damaged", "blake3"];
    let file = |name: &str| trained.out.join("state/step-40").join(name);
    for name in [
        "optimizer.bpk",
        "model.safetensors",
        "config.json",
        "blake3",
    ] {
        let cut = || {
            let bytes = std::fs::read(file(name)).unwrap();
            std::fs::write(file(name), &bytes[..bytes.len() / 2]).unwrap();
        };
        trained.damaged(cut, words);
        trained.damaged(|| std::fs::remove_file(file(name)).unwrap(), words);
    }
    let flip_a_bit = || {
        let mut bytes = std::fs::read(file("optimizer.bpk")).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(file("optimizer.bpk"), bytes).unwrap();
    };
    trained.damaged(flip_a_bit, words);
    trained.damaged(
        || std::fs::remove_dir_all(trained.out.join("state")).unwrap(),
        &["out: ", "no state", "put the folder state back"],
    );
}

fn damaged_log_and_config(trained: &Trained) {
    let cut_third_line = || {
        let log = trained.log();
        let third = log.lines().nth(2).unwrap();
        let cut = log.replace(third, &third[..30]);
        std::fs::write(trained.out.join("train.jsonl"), cut).unwrap();
    };
    trained.damaged(
        cut_third_line,
        &["train.jsonl:3", "damaged", "delete the line"],
    );
    let config = trained.out.join("config.toml");
    trained.damaged(
        || std::fs::write(config, "[data]\npath = \"x\"\n").unwrap(),
        &["--out", "out/config.toml", "data"],
    );
}

fn another_vocabulary(trained: &Trained) {
    let path = trained.dir.path().join("tiny.tiktoken");
    let vocabulary = std::fs::read_to_string(&path).unwrap();
    let drop_last_token = || {
        let (rest, _) = vocabulary.trim_end().rsplit_once('\n').unwrap();
        std::fs::write(&path, rest).unwrap();
    };
    trained.damaged(
        drop_last_token,
        &["state/step-40", "2048", "2047", "tiny.tiktoken"],
    );
    std::fs::write(path, vocabulary).unwrap();
}

/// The model does not depend on the log: training continues, with a warning.
fn log_without_its_end(trained: &Trained) {
    trained.restore();
    let log = trained.log();
    let first = log.lines().next().unwrap().to_owned() + "\n";
    std::fs::write(trained.out.join("train.jsonl"), first).unwrap();
    let output = run_in(trained.dir.path(), &TRAIN);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("warning: out: the state is of step 40, train.jsonl ends at step 2"),
        "{stderr}"
    );
    // A line cut short by a kill is dropped.
    std::fs::write(trained.out.join("train.jsonl"), log.clone() + "{\"step\":").unwrap();
    succeed(trained.dir.path(), &TRAIN);
    assert_eq!(trained.log(), log);
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let dir = training_workspace();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    for out in ["file", "file/out"] {
        fail(dir.path(), &["train", "train.toml", "--out", out], &[out]);
    }
    // A folder that holds a model already, of whatever origin.
    std::fs::create_dir_all(dir.path().join("mine/model")).unwrap();
    let args = ["train", "train.toml", "--out", "mine"];
    fail(dir.path(), &args, &["mine: ", "model", "--out"]);
    // One process at a time.
    let log = dir.path().join("out/train.jsonl");
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    let held = std::fs::File::create(&log).unwrap();
    held.lock().unwrap();
    fail(dir.path(), &TRAIN, &["out: ", "another longspan", "--out"]);
    drop(held);
    fail(dir.path(), &["train", "none.toml"], &["none.toml"]);
}
