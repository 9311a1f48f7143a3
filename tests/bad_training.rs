//! Bad input of `train` and `train-tokenizer`: exit code 2, a message that helps, and nothing is lost.

mod shared;

use std::path::Path;

use shared::{fail, succeed};

const TRAIN: [&str; 4] = ["train", "train.toml", "--out", "out"];

fn workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    shared::write_training(dir.path());
    dir
}

/// Expects an error from the config with an override.
#[track_caller]
fn bad(dir: &Path, set: &str, words: &[&str]) {
    fail(dir, &[&TRAIN[..], &["--set", set]].concat(), words);
    assert!(!dir.join("out/train.jsonl").exists(), "{set}: begun");
}

#[test]
fn an_unknown_key_is_named_in_every_table() {
    let dir = workspace();
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
        bad(
            dir.path(),
            &format!("{table}layerz=1"),
            &["train.toml", "unknown field `layerz`"],
        );
    }
    bad(
        dir.path(),
        "phase.1.attention.1.rope={ kind = \"yarn\", factor = 2.0, layerz = 1 }",
        &["phase.1.attention", "layerz"],
    );
}

#[test]
fn a_bad_size_is_named() {
    let dir = workspace();
    for (set, words) in [
        ("model.layers=0", &["model.layers = 0", "1 to 4096"][..]),
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
    ] {
        bad(dir.path(), set, words);
    }
}

#[test]
fn a_bad_optimizer_or_schedule_is_named() {
    let dir = workspace();
    for (set, words) in [
        (
            "optimizer.beta_1=1.0",
            &["optimizer.beta_1 = 1", "below 1"][..],
        ),
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
    ] {
        bad(dir.path(), set, words);
    }
    let config = std::fs::read_to_string(dir.path().join("train.toml")).unwrap();
    for minutes in ["", "minutes = -1.0", "minutes = inf"] {
        let config = config.replace("steps = 40", minutes);
        std::fs::write(dir.path().join("train.toml"), config).unwrap();
        fail(dir.path(), &TRAIN, &["schedule", "minutes"]);
    }
    // What only shows in training.
    std::fs::write(dir.path().join("train.toml"), config).unwrap();
    let args = [&TRAIN[..], &["--set", "schedule.learning_rate=1e30"]].concat();
    fail(
        dir.path(),
        &args,
        &["step ", "the loss is", "lower the learning rate"],
    );
}

#[test]
fn a_bad_source_or_phase_or_probe_is_named() {
    let dir = workspace();
    for (set, words) in [
        (
            "source.0.kind=poems",
            &["poems", "text", "recall", "pairs", "echo"][..],
        ),
        ("source.0.documents=0", &["source.0.documents = 0"]),
        ("source.3.name=pairs", &["two sources are named \"pairs\""]),
        ("source.1.tasks=[]", &["source.1.tasks is empty"]),
        (
            "source.1.tasks=[\"key\"]",
            &["source.1.tasks", "\"key\"", "pass-key"],
        ),
        ("source.1.haystack=[]", &["source.1.haystack is empty"]),
        (
            "source.1.haystack=[\"pairs\"]",
            &["source.1.haystack", "\"pairs\"", "kind text"],
        ),
        (
            "source.3.from=[\"books\"]",
            &["source.3.from", "\"books\"", "kind text"],
        ),
        (
            "source.1.answer_weight=nan",
            &["source.1.answer_weight = NaN"],
        ),
        (
            "source.1.answer_weight=-1.0",
            &["source.1.answer_weight = -1"],
        ),
        ("source.0.path=none.jsonl", &["none.jsonl", "no such file"]),
        ("phase.0.until=1.0", &["phase.1.until = 1 after 1"]),
        ("phase.0.until=nan", &["phase.0.until = NaN"]),
        (
            "phase.1.until=0.9",
            &["phase.1.until = 0.9", "the last at 1.0"],
        ),
        ("phase.0.lengths=[]", &["phase.0.lengths is empty"]),
        (
            "phase.0.lengths=[97]",
            &["phase.0.lengths: 97", "model.trained = 96"],
        ),
        (
            "phase.0.lengths=[16]",
            &["phase.0.lengths: 16", "\"recall\"", "phase.0.mixture"],
        ),
        ("phase.0.lengths=[7]", &["phase.0.lengths: 7", "8 to"]),
        ("phase.1.lengths=[64]", &["model.trained = 96", "lengths"]),
        (
            "phase.0.mixture.books=1.0",
            &["phase.0.mixture", "\"books\"", "[[source]]"],
        ),
        ("phase.0.mixture.echo=inf", &["phase.0.mixture = inf"]),
        (
            "phase.0.mixture={ echo = 0.0 }",
            &["phase.0.mixture", "above 0"],
        ),
        ("phase.1.attention=[]", &["phase.1.attention"]),
        (
            "phase.1.attention.0.share=-1.0",
            &["phase.1.attention: share = -1"],
        ),
        (
            "phase.1.attention.0.name=logn",
            &["phase.1.attention", "two methods", "\"logn\""],
        ),
        (
            "phase.1.attention.0.window=[8]",
            &["phase.1.attention", "window", "1", "2"],
        ),
        ("phase=[]", &["no [[phase]]"]),
        ("probe.every=3", &["probe.every = 3", "log_every = 2"]),
        ("probe.trials=0", &["probe.trials = 0"]),
        (
            "probe.tasks=[\"key\"]",
            &["probe.tasks", "\"key\"", "pass-key"],
        ),
        ("probe.text={}", &["probe.text is empty"]),
        (
            "probe.text.articles=none.jsonl",
            &["none.jsonl", "no such file"],
        ),
        // 96 tokens are too few for four needles of four numbers.
        (
            "probe.tasks=[\"multi-value\"]",
            &["probe.tasks", "96", "raise the length"],
        ),
        ("tokenizer=none.tiktoken", &["none.tiktoken"]),
    ] {
        bad(dir.path(), set, words);
    }
    shared::write_text(dir.path());
    let args = [
        "--set",
        "source.0.path=text.jsonl",
        "--set",
        "model.trained=2000",
    ];
    let more = [
        "--set",
        "phase.1.lengths=[2000]",
        "--set",
        "schedule.batch_tokens=2000",
    ];
    let args = [&TRAIN[..], &args, &more].concat();
    fail(
        dir.path(),
        &args,
        &["source \"articles\"", "text.jsonl", "2001"],
    );
    let config = std::fs::read_to_string(dir.path().join("train.toml")).unwrap();
    let config = config.replace("documents = 2", "");
    std::fs::write(dir.path().join("train.toml"), config).unwrap();
    fail(
        dir.path(),
        &TRAIN,
        &["source.0.path", "no end", "documents = 100"],
    );
}

/// Copies a folder with what is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => std::fs::copy(entry.path(), to).map(drop).unwrap(),
        }
    }
}

#[test]
fn a_damaged_folder_is_named_and_kept() {
    let dir = workspace();
    succeed(dir.path(), &TRAIN);
    let whole = dir.path().join("whole");
    std::fs::rename(dir.path().join("out"), &whole).unwrap();
    let out = dir.path().join("out");
    let log = std::fs::read_to_string(whole.join("train.jsonl")).unwrap();
    let damage = |change: &dyn Fn(), words: &[&str]| {
        if out.exists() {
            std::fs::remove_dir_all(&out).unwrap();
        }
        copy(&whole, &out);
        change();
        let before = std::fs::read(out.join("train.jsonl")).unwrap();
        fail(dir.path(), &TRAIN, words);
        assert!(std::fs::read(out.join("train.jsonl")).unwrap() == before);
        let model = |out: &Path| std::fs::read(out.join("model/model.safetensors")).unwrap();
        assert!(model(&out) == model(&whole));
    };
    let state = out.join("state/step-40");
    let damaged = &["state/step-40", "damaged", "blake3"];
    let file = |name: &str| state.join(name);
    for name in [
        "optimizer.bpk",
        "model.safetensors",
        "config.json",
        "blake3",
    ] {
        damage(
            &|| {
                let bytes = std::fs::read(file(name)).unwrap();
                std::fs::write(file(name), &bytes[..bytes.len() / 2]).unwrap();
            },
            damaged,
        );
        damage(&|| std::fs::remove_file(file(name)).unwrap(), damaged);
    }
    damage(
        &|| {
            let mut bytes = std::fs::read(file("optimizer.bpk")).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(file("optimizer.bpk"), bytes).unwrap();
        },
        damaged,
    );
    damage(
        &|| std::fs::remove_dir_all(out.join("state")).unwrap(),
        &["out: ", "no state", "put the folder state back"],
    );
    damage(
        &|| {
            let third = log.lines().nth(2).unwrap();
            let cut = log.replace(third, &third[..30]);
            std::fs::write(out.join("train.jsonl"), cut).unwrap();
        },
        &["train.jsonl:3", "damaged", "delete the line"],
    );
    damage(
        &|| std::fs::write(out.join("config.toml"), "[data]\npath = \"x\"\n").unwrap(),
        &["--out", "out/config.toml", "data"],
    );

    // Another vocabulary at the same path.
    std::fs::remove_dir_all(&out).unwrap();
    copy(&whole, &out);
    let vocabulary = std::fs::read_to_string(dir.path().join("tiny.tiktoken")).unwrap();
    let shorter = vocabulary
        .rsplit_once("\n")
        .unwrap()
        .0
        .rsplit_once('\n')
        .unwrap()
        .0;
    std::fs::write(dir.path().join("tiny.tiktoken"), shorter).unwrap();
    fail(
        dir.path(),
        &TRAIN,
        &["state/step-40", "2048", "2047", "tiny.tiktoken"],
    );
    std::fs::write(dir.path().join("tiny.tiktoken"), vocabulary).unwrap();

    // A log that lacks its end is no loss of the model: training goes on, with a warning.
    std::fs::write(
        out.join("train.jsonl"),
        log.lines().next().unwrap().to_owned() + "\n",
    )
    .unwrap();
    let output = shared::run_in(dir.path(), &TRAIN);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("warning: out: the state is of step 40, train.jsonl ends at step 2"),
        "{stderr}"
    );
    // As is one whose last line was cut short.
    std::fs::write(out.join("train.jsonl"), log.clone() + "{\"step\":").unwrap();
    succeed(dir.path(), &TRAIN);
    assert_eq!(
        std::fs::read_to_string(out.join("train.jsonl")).unwrap(),
        log
    );
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let dir = workspace();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    fail(
        dir.path(),
        &["train", "train.toml", "--out", "file"],
        &["file"],
    );
    fail(
        dir.path(),
        &["train", "train.toml", "--out", "file/out"],
        &["file/out"],
    );
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

#[cfg(feature = "train-tokenizer")]
#[test]
fn a_bad_vocabulary_order_is_named() {
    let dir = workspace();
    shared::write_text(dir.path());
    let train = |args: &[&str], words: &[&str]| {
        fail(dir.path(), &[&["train-tokenizer"], args].concat(), words);
    };
    let text = ["--text", "text.jsonl"];
    train(
        &["tiny.tiktoken", "--size", "300", text[0], text[1]],
        &["tiny.tiktoken: exists"],
    );
    train(
        &["new.tiktoken", "--size", "255", text[0], text[1]],
        &["255", "256"],
    );
    train(
        &["new.tiktoken", "--size", "99999", text[0], text[1]],
        &["tokens of 99999", "--size"],
    );
    train(
        &["no/new.tiktoken", "--size", "300", text[0], text[1]],
        &["no/new.tiktoken", "folder"],
    );
    train(
        &["new.tiktoken", "--size", "300", "--text", "none.jsonl"],
        &["none.jsonl"],
    );
    train(&["new.tiktoken", "--size", "300"], &["--text"]);
    train(
        &[
            "new.tiktoken",
            "--size",
            "300",
            "--bytes",
            "0",
            text[0],
            text[1],
        ],
        &["text.jsonl: no text"],
    );
    assert!(!dir.path().join("new.tiktoken").exists());
}
