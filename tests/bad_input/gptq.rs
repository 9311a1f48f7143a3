//! GPTQ checkpoints.

use std::path::Path;

use longspan_model::{Quantization, WeightType, write_random_checkpoint};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use crate::RUN;
use crate::shared::{
    Stored, fail, find, micro, read_tensors, records, succeed, workspace, write_tensors,
};

const LAYER: &str = "transformer.h.1.mlp.w2";

/// A folder with an Int4 model in groups of 32, config and text.
fn packed_workspace() -> tempfile::TempDir {
    let dir = workspace("lengths = [64]");
    let mut config = micro();
    config.quantization = Some(Quantization {
        bits: 4,
        group_size: Some(32),
        desc_act: true,
    });
    let model = dir.path().join("model");
    write_random_checkpoint(&model, &config, WeightType::F16, 1, usize::MAX).unwrap();
    dir
}

fn change_config(dir: &Path, change: impl FnOnce(&mut Value)) {
    let path = dir.join("model/config.json");
    let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(path, config.to_string()).unwrap();
}

/// Changes the tensors of a good checkpoint, which must then be refused.
#[track_caller]
fn broken(change: impl FnOnce(&mut Vec<Stored>), words: &[&str]) {
    let dir = packed_workspace();
    let path = dir.path().join("model/model.safetensors");
    let mut tensors = read_tensors(&path);
    change(&mut tensors);
    write_tensors(&path, &tensors);
    fail(dir.path(), &RUN, words);
}

/// The tensor `part` of [`LAYER`].
fn part<'a>(tensors: &'a mut [Stored], part: &str) -> &'a mut Stored {
    find(tensors, &format!("{LAYER}.{part}"))
}

#[test]
fn a_good_checkpoint_runs_and_its_records_name_the_type() {
    let dir = packed_workspace();
    succeed(dir.path(), &RUN);
    let records = records(&dir.path().join("runs/run"));
    assert!(records.iter().all(|record| record["dtype"] == "int4"));
    assert_eq!(records.len(), 3);
}

#[test]
fn a_bad_quantization_config_is_named() {
    for (key, value) in [
        ("bits", json!(3)),
        ("bits", json!("4")),
        ("quant_method", json!("awq")),
        ("group_size", json!(0)),
        ("group_size", json!(-2)),
        ("desc_act", json!("yes")),
        ("checkpoint_format", json!("gptq_v2")),
        ("is_marlin_format", json!(true)),
        ("lm_head", json!(true)),
    ] {
        let dir = packed_workspace();
        change_config(dir.path(), |c| {
            c["quantization_config"][key] = value.clone()
        });
        let words = [
            "config.json",
            "quantization_config",
            key,
            &value.to_string(),
        ];
        fail(dir.path(), &RUN, &words);
    }
    for key in ["bits", "quant_method", "group_size", "desc_act"] {
        let dir = packed_workspace();
        change_config(dir.path(), |config| {
            let quantization = config["quantization_config"].as_object_mut().unwrap();
            quantization.remove(key).unwrap();
        });
        let words = ["config.json", "quantization_config", key, "missing"];
        fail(dir.path(), &RUN, &words);
    }
    let dir = packed_workspace();
    change_config(dir.path(), |c| c["intermediate_size"] = json!(2 * 178));
    let words = ["config.json", "bits = 4", "is 178", "8 values"];
    fail(dir.path(), &RUN, &words);
}

#[test]
fn a_bad_packed_tensor_is_named() {
    let name = format!("{LAYER}.qzeros");
    broken(
        |t| t.retain(|t| t.name != name),
        &["model.safetensors", &format!("{name} is missing")],
    );
    broken(
        |t| t.retain(|t| !t.name.ends_with("w2.g_idx")),
        &["model.safetensors", "g_idx is missing"],
    );
    broken(
        |t| part(t, "qweight").shape = vec![176, 8],
        &["w2.qweight", "[176, 8]", "[8, 176]"],
    );
    broken(
        |t| part(t, "qweight").dtype = Dtype::F32,
        &["w2.qweight is F32", "I32"],
    );
    broken(
        |t| part(t, "g_idx").set(5, &2i32.to_le_bytes()),
        &[
            "w2.g_idx",
            "holds 2 at flat index 5",
            "64 inputs",
            "2 groups",
        ],
    );
    broken(
        |t| part(t, "g_idx").set(5, &(-1i32).to_le_bytes()),
        &["w2.g_idx", "holds -1 at flat index 5"],
    );
    broken(
        |t| part(t, "g_idx").set(5, &1i32.to_le_bytes()),
        &["w2.g_idx", "puts 31 inputs in group 0", "implies 32"],
    );
    broken(
        |t| part(t, "scales").set(7, &[0, 0x7c]),
        &["w2.scales", "inf", "index 7"],
    );
    let weight = Stored::zeros(&format!("{LAYER}.weight"), Dtype::F32, &[176, 64]);
    broken(|t| t.push(weight), &["w2.weight is not part of the model"]);
}

#[test]
fn a_dtype_of_packed_matrices_is_refused() {
    let dir = packed_workspace();
    let set = ["run", "run.toml", "--set", "model.dtype=f32"];
    fail(
        dir.path(),
        &set,
        &["model", "dtype f32", "GPTQ", "leave dtype out"],
    );
    let plan = ["plan", "run.toml", "--set", "model.dtype=f32"];
    fail(dir.path(), &plan, &["model", "dtype f32", "GPTQ"]);
    let args = [
        "random-checkpoint",
        "other",
        "--shape",
        "micro",
        "--quant",
        "int3",
    ];
    fail(dir.path(), &args, &["int3", "int4 and int8"]);
}
