//! Weight files: tensors, shards, and files that are not safetensors.

use safetensors::tensor::Dtype;
use serde_json::Value;

use crate::RUN;
use crate::shared::{Stored, fail, find, read_tensors, records, succeed, workspace, write_tensors};

/// Changes the tensors of a good checkpoint; running with `args` must then be refused.
#[track_caller]
fn broken(args: &[&str], change: impl FnOnce(&mut Vec<Stored>), words: &[&str]) {
    let dir = workspace("lengths = [64]");
    let path = dir.path().join("model/model.safetensors");
    let mut tensors = read_tensors(&path);
    change(&mut tensors);
    write_tensors(&path, &tensors);
    fail(dir.path(), args, words);
}

#[test]
fn a_broken_tensor_is_named() {
    broken(
        &RUN,
        |t| t.retain(|t| t.name != "transformer.h.1.mlp.w2.weight"),
        &[
            "model.safetensors",
            "transformer.h.1.mlp.w2.weight is missing",
        ],
    );
    broken(
        &RUN,
        |t| t.push(Stored::zeros("extra.weight", Dtype::F32, &[1])),
        &["model.safetensors", "extra.weight is not part of the model"],
    );
    broken(
        &RUN,
        |t| find(t, "lm_head.weight").shape = vec![64, 464],
        &["lm_head.weight", "[64, 464]", "[464, 64]"],
    );
    broken(
        &RUN,
        |t| find(t, "transformer.h.0.attn.c_attn.bias").dtype = Dtype::I32,
        &["transformer.h.0.attn.c_attn.bias is I32"],
    );
}

#[test]
fn a_value_that_is_not_finite_is_named() {
    for (value, word) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
        broken(
            &RUN,
            |t| find(t, "transformer.ln_f.weight").set(7, &value.to_le_bytes()),
            &[
                "model.safetensors",
                "transformer.ln_f.weight",
                word,
                "index 7",
            ],
        );
    }
    // Finite in f32, not in f16.
    broken(
        &["run", "run.toml", "--set", "model.dtype=f16"],
        |t| find(t, "lm_head.weight").set(0, &70000f32.to_le_bytes()),
        &["lm_head.weight", "70000", "f16", "wider"],
    );
}

#[test]
fn a_broken_file_is_named() {
    let dir = workspace("lengths = [64]");
    let path = dir.path().join("model/model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let mut header = whole.clone();
    header[..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    for bytes in [&whole[..whole.len() - 1000], &header, &whole[..5]] {
        std::fs::write(&path, bytes).unwrap();
        fail(
            dir.path(),
            &RUN,
            &["model.safetensors", "not a valid safetensors"],
        );
    }
    std::fs::remove_file(&path).unwrap();
    fail(
        dir.path(),
        &RUN,
        &["model: no model.safetensors", "Hugging Face"],
    );
    fail(
        dir.path(),
        &["run", "run.toml", "--set", "model.path=none"],
        &["none", "no such folder"],
    );
}

#[test]
fn whole_shards_load_and_a_missing_one_is_named() {
    let dir = workspace("lengths = [64]\nmax_tokens = 128");
    succeed(dir.path(), &["run", "run.toml", "--out", "single"]);
    let model = dir.path().join("model");
    let tensors = read_tensors(&model.join("model.safetensors"));
    let (first, second) = tensors.split_at(7);
    let mut map = serde_json::Map::new();
    for (part, file) in [(first, "a.safetensors"), (second, "b.safetensors")] {
        write_tensors(&model.join(file), part);
        map.extend(part.iter().map(|t| (t.name.clone(), Value::from(file))));
    }
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    let index = serde_json::json!({"metadata": {}, "weight_map": map}).to_string();
    std::fs::write(model.join("model.safetensors.index.json"), index).unwrap();
    succeed(dir.path(), &["run", "run.toml", "--out", "sharded"]);
    let first_record = |run: &str| records(&dir.path().join(run)).remove(0);
    // The same weights in other shards are the same checkpoint: even the keys agree.
    let (single, sharded) = (first_record("single"), first_record("sharded"));
    assert_eq!(single["key"], sharded["key"]);
    assert_eq!(single["nll"], sharded["nll"]);

    std::fs::remove_file(model.join("b.safetensors")).unwrap();
    fail(
        dir.path(),
        &RUN,
        &["b.safetensors: missing", "index.json", &second[0].name],
    );
    write_tensors(&model.join("b.safetensors"), &tensors);
    fail(
        dir.path(),
        &RUN,
        &["a.safetensors", "b.safetensors", "is in"],
    );
    let pointer = "version https://git-lfs.github.com/spec/v1\n";
    std::fs::write(model.join("b.safetensors"), pointer).unwrap();
    fail(dir.path(), &RUN, &["b.safetensors", "git lfs pull"]);

    write_tensors(&model.join("model.safetensors"), &tensors);
    fail(
        dir.path(),
        &RUN,
        &["index.json", "model.safetensors", "two checkpoints"],
    );
}

#[test]
fn a_checkpoint_is_not_overwritten() {
    let dir = workspace("lengths = [64]");
    let path = dir.path().join("model/model.safetensors");
    let before = std::fs::read(&path).unwrap();
    let args = ["random-checkpoint", "model", "--shape", "micro"];
    fail(dir.path(), &args, &["model", "another folder"]);
    assert!(std::fs::read(&path).unwrap() == before);
}
