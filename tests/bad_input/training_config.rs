//! Keys of a training config: sizes, optimizer and schedule.

use std::path::Path;

use crate::Mistakes;
use crate::shared::{fail, training_workspace};

pub const TRAIN: [&str; 4] = ["train", "train.toml", "--out", "out"];

/// Trains with each override of `train.toml`, which must be refused.
#[track_caller]
pub fn refused(dir: &Path, mistakes: &Mistakes) {
    for (set, words) in mistakes {
        fail(dir, &[&TRAIN[..], &["--set", set]].concat(), words);
        assert!(
            !dir.join("out/train.jsonl").exists(),
            "{set}: the training was started"
        );
    }
}

#[test]
fn an_unknown_key_of_any_table_is_named() {
    let dir = training_workspace();
    for table in [
        "",
        "model.",
        "initial.",
        "optimizer.",
        "schedule.",
        "source.0.",
        "source.1.",
        "source.2.",
        "source.3.",
        "phase.0.",
        "phase.1.attention.0.",
        "probe.",
    ] {
        let set = format!("{table}layerz=1");
        refused(
            dir.path(),
            &[(&set, &["train.toml", "unknown field `layerz`"])],
        );
    }
    refused(
        dir.path(),
        &[(
            "phase.1.attention.1.rope={ kind = \"yarn\", factor = 2.0, layerz = 1 }",
            &["phase.1.attention", "layerz"],
        )],
    );
}

#[test]
fn a_bad_size_is_named() {
    let dir = training_workspace();
    refused(
        dir.path(),
        &[
            ("model.layers=0", &["model.layers = 0", "1 to 4096"]),
            ("model.layers=100000000", &["model.layers = 100000000"]),
            ("model.heads=0", &["model.heads = 0"]),
            (
                "model.heads=1000000000000",
                &["model.heads = 1000000000000"],
            ),
            ("model.head_dim=0", &["model.head_dim = 0"]),
            ("model.head_dim=15", &["model.head_dim = 15", "even"]),
            ("model.ffn=0", &["model.ffn = 0"]),
            ("model.trained=7", &["model.trained = 7", "8"]),
            ("model.rope_base=nan", &["model.rope_base = NaN"]),
            ("model.rope_base=1.0", &["model.rope_base = 1", "above 1"]),
            ("initial.matrices=nan", &["initial.matrices = NaN"]),
            ("initial.embedding=0.0", &["initial.embedding = 0"]),
            ("initial.head=-0.1", &["initial.head = -0.1"]),
            ("initial.offset_bias=inf", &["initial.offset_bias = inf"]),
            (
                "initial.offsets=[[1],[1],[2]]",
                &["initial.offsets has 3 layers", "model.layers = 2"],
            ),
            (
                "initial.offsets=[[],[1,2,3]]",
                &["initial.offsets.1 has 3 heads", "model.heads = 2"],
            ),
            (
                "initial.offsets=[[96]]",
                &["initial.offsets.0: 96", "model.trained = 96"],
            ),
            (
                "initial.offset_planes=9",
                &["initial.offset_planes = 9", "model.head_dim = 16", "1 to 8"],
            ),
            (
                "initial.fades=[[1.0],[1.0],[1.0]]",
                &["initial.fades has 3 layers", "model.layers = 2"],
            ),
            (
                "initial.fades=[[],[1.0,1.0,1.0]]",
                &["initial.fades.1 has 3 heads", "model.heads = 2"],
            ),
            (
                "initial.fades=[[-1.0]]",
                &["initial.fades.0 = -1", "0 or more"],
            ),
            (
                "initial.fades=[[1.0]]",
                &[
                    "initial.fades",
                    "initial.offset_planes",
                    "model.trained = 96",
                ],
            ),
            ("seed=-1", &["seed", "-1"]),
        ],
    );
}

#[test]
fn a_bad_optimizer_or_schedule_is_named() {
    let dir = training_workspace();
    refused(
        dir.path(),
        &[
            ("optimizer.beta_1=1.0", &["optimizer.beta_1 = 1", "below 1"]),
            ("optimizer.beta_2=-0.5", &["optimizer.beta_2 = -0.5"]),
            ("optimizer.epsilon=0.0", &["optimizer.epsilon = 0"]),
            ("optimizer.clip=0.0", &["optimizer.clip = 0", "above 0"]),
            ("optimizer.clip=nan", &["optimizer.clip = NaN"]),
            (
                "optimizer.weight_decay=-0.1",
                &["optimizer.weight_decay = -0.1"],
            ),
            (
                "schedule.learning_rate=0.0",
                &["schedule.learning_rate = 0"],
            ),
            (
                "schedule.learning_rate=nan",
                &["schedule.learning_rate = NaN"],
            ),
            (
                "schedule.learning_rate=-1.0",
                &["schedule.learning_rate = -1"],
            ),
            (
                "schedule.final_learning_rate=0.01",
                &[
                    "schedule.final_learning_rate = 0.01",
                    "learning_rate = 0.003",
                ],
            ),
            (
                "schedule.minutes=1",
                &["schedule", "either steps or minutes"],
            ),
            ("schedule.steps=0", &["schedule.steps = 0"]),
            (
                "schedule.warmup=40",
                &["schedule.warmup = 40", "steps = 40"],
            ),
            ("schedule.accumulate=0", &["schedule.accumulate = 0"]),
            ("schedule.log_every=0", &["schedule.log_every = 0"]),
            (
                "schedule.save_every=5",
                &["schedule.save_every = 5", "log_every = 2"],
            ),
            (
                "schedule.batch_tokens=63",
                &["phase.0.lengths: 64", "schedule.batch_tokens = 63"],
            ),
        ],
    );
    let config = std::fs::read_to_string(dir.path().join("train.toml")).unwrap();
    for minutes in ["", "minutes = -1.0", "minutes = inf"] {
        let config = config.replace("steps = 40", minutes);
        std::fs::write(dir.path().join("train.toml"), config).unwrap();
        fail(dir.path(), &TRAIN, &["schedule", "minutes"]);
    }
    // A loss that overflows.
    std::fs::write(dir.path().join("train.toml"), config).unwrap();
    let args = [&TRAIN[..], &["--set", "schedule.learning_rate=1e30"]].concat();
    fail(
        dir.path(),
        &args,
        &["step ", "the loss is", "lower the learning rate"],
    );
}
