//! Bad GPTQ checkpoints: exit code 2 and a message that names the file, the key or tensor, and both values.

mod shared;

use std::path::Path;

use longspan_model::{Quantization, WeightType, write_random_checkpoint};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use shared::{fail, succeed};

const RUN: [&str; 2] = ["run", "run.toml"];
const LAYER: &str = "transformer.h.1.mlp.w2";

/// Name, type, shape and bytes of a tensor.
type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

/// A folder with an Int4 model in groups of 32.
fn workspace() -> tempfile::TempDir {
    let dir = shared::workspace("lengths = [64]");
    let mut config = shared::micro();
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

/// Changes the weights of a good checkpoint and expects `words` in the error.
#[track_caller]
fn broken(change: impl FnOnce(&mut Vec<Stored>), words: &[&str]) {
    let dir = workspace();
    let path = dir.path().join("model/model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let stored = tensors.iter().map(|(name, view)| {
        let (shape, data) = (view.shape().to_vec(), view.data().to_vec());
        (name.to_owned(), view.dtype(), shape, data)
    });
    let mut weights: Vec<Stored> = stored.collect();
    change(&mut weights);
    let views = weights.iter().map(|(name, dtype, shape, data)| {
        let view = TensorView::new(*dtype, shape.clone(), data).unwrap();
        (name.clone(), view)
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(&path, bytes).unwrap();
    fail(dir.path(), &RUN, words);
}

fn find<'a>(weights: &'a mut [Stored], part: &str) -> &'a mut Stored {
    let name = format!("{LAYER}.{part}");
    weights.iter_mut().find(|w| w.0 == name).unwrap()
}

#[test]
fn a_good_one_runs_and_its_records_name_the_type() {
    let dir = workspace();
    succeed(dir.path(), &RUN);
    let records = shared::records(&dir.path().join("runs/run"));
    assert!(records.iter().all(|record| record["dtype"] == "int4"));
    assert_eq!(records.len(), 3);
}

#[test]
fn a_bad_value_of_the_config_is_named() {
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
        let dir = workspace();
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
        let dir = workspace();
        change_config(dir.path(), |config| {
            config["quantization_config"]
                .as_object_mut()
                .unwrap()
                .remove(key);
        });
        let words = ["config.json", "quantization_config", key, "missing"];
        fail(dir.path(), &RUN, &words);
    }
    let dir = workspace();
    change_config(dir.path(), |c| c["intermediate_size"] = json!(2 * 178));
    let words = [
        "config.json",
        "bits = 4",
        "intermediate_size is 178",
        "8 values",
    ];
    fail(dir.path(), &RUN, &words);
}

#[test]
fn a_bad_tensor_is_named() {
    let name = format!("{LAYER}.qzeros");
    broken(
        |w| w.retain(|w| w.0 != name),
        &["model.safetensors", &format!("{name} is missing")],
    );
    broken(
        |w| w.retain(|w| !w.0.ends_with("w2.g_idx")),
        &["model.safetensors", "g_idx is missing"],
    );
    broken(
        |w| find(w, "qweight").2 = vec![176, 8],
        &["w2.qweight", "[176, 8]", "[8, 176]"],
    );
    broken(
        |w| find(w, "qweight").1 = Dtype::F32,
        &["w2.qweight is F32", "I32"],
    );
    broken(
        |w| find(w, "g_idx").3[4 * 5..4 * 6].copy_from_slice(&2i32.to_le_bytes()),
        &[
            "w2.g_idx",
            "holds 2 at flat index 5",
            "64 inputs",
            "2 groups",
        ],
    );
    broken(
        |w| find(w, "g_idx").3[4 * 5..4 * 6].copy_from_slice(&(-1i32).to_le_bytes()),
        &["w2.g_idx", "holds -1 at flat index 5"],
    );
    broken(
        |w| find(w, "g_idx").3[4 * 5..4 * 6].copy_from_slice(&1i32.to_le_bytes()),
        &["w2.g_idx", "puts 31 inputs in group 0", "implies 32"],
    );
    broken(
        |w| find(w, "scales").3[2 * 7..2 * 8].copy_from_slice(&[0, 0x7c]),
        &["w2.scales", "inf", "index 7"],
    );
    broken(
        |w| {
            w.push((
                format!("{LAYER}.weight"),
                Dtype::F32,
                vec![176, 64],
                vec![0; 4 * 176 * 64],
            ))
        },
        &["w2.weight is not part of the model"],
    );
}

#[test]
fn a_type_of_packed_matrices_cannot_be_chosen() {
    let dir = workspace();
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
