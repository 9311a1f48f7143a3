//! Reference values of `tests/golden`.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, TensorData};
use safetensors::SafeTensors;
use serde_json::{Value, json};

/// A file or folder of `tests/golden`.
pub fn golden(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden")
        .join(name);
    assert!(path.exists(), "{}: missing", path.display());
    path
}

/// The checkpoints of a family that have reference values.
pub fn family(name: &str) -> Vec<PathBuf> {
    let list = golden(&format!("families/{name}.txt"));
    let text = std::fs::read_to_string(list).unwrap();
    text.lines().map(golden).collect()
}

/// The cases of a checkpoint.
pub fn cases(folder: &Path) -> Vec<Value> {
    let text = std::fs::read(folder.join("expected.json")).unwrap();
    let mut file: Value = serde_json::from_slice(&text).unwrap();
    serde_json::from_value(file["cases"].take()).unwrap()
}

/// A case as a `[[method]]` table.
pub fn method(case: &Value) -> Value {
    let factor = &case["factor"];
    let rope = match case["method"].as_str().unwrap() {
        "none" => json!({"kind": "none"}),
        "dynamic_ntk_qwen" => json!({"kind": "dynamic_ntk"}),
        "dynamic_hf" => json!({"kind": "dynamic_ntk_hf", "factor": factor}),
        kind => json!({"kind": kind, "factor": factor}),
    };
    let logn = match (&case["logn"], &case["logn_visible"]) {
        (Value::Bool(true), Value::Bool(true)) => json!({"length": "visible"}),
        (logn, _) => json!(logn == &json!(true)),
    };
    let mut table = json!({"name": case["case"], "rope": rope, "logn": logn});
    if let Some(windows) = case["windows"].as_array() {
        let layers = windows.iter().map(|window| {
            if window.is_null() {
                json!("full")
            } else {
                window.clone()
            }
        });
        let layers: Vec<Value> = layers.collect();
        let per_layer = case["per_layer_ntk"] == json!(true);
        let alpha = if per_layer { "per_layer" } else { "global" };
        table["window"] = json!({"layers": layers, "alpha": alpha});
    }
    if let Some(sinks) = case.get("sinks") {
        table["sinks"] = sinks.clone();
    }
    table
}

/// The tensors of an `expected.safetensors`.
pub struct Expected(Vec<u8>);

impl Expected {
    pub fn read(folder: &Path) -> Self {
        Self(std::fs::read(folder.join("expected.safetensors")).unwrap())
    }

    /// The values of a tensor; `None` if there is no tensor of this name.
    pub fn get(&self, name: &str) -> Option<Vec<f64>> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.tensor(name).ok().map(floats)
    }

    /// The values of a tensor.
    #[track_caller]
    pub fn values(&self, name: &str) -> Vec<f64> {
        self.get(name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// A tensor of token ids.
    #[track_caller]
    pub fn ids(&self, name: &str) -> Vec<u32> {
        self.values(name).iter().map(|&id| id as u32).collect()
    }
}

/// The values of a tensor of the reference.
fn floats(tensor: safetensors::tensor::TensorView) -> Vec<f64> {
    let dtype = match tensor.dtype() {
        safetensors::Dtype::F32 => DType::F32,
        safetensors::Dtype::F64 => DType::F64,
        safetensors::Dtype::I32 => DType::I32,
        other => panic!("{other:?} is not a type of the reference"),
    };
    let data = TensorData::from_bytes_vec(tensor.data().to_vec(), tensor.shape().to_vec(), dtype);
    data.iter::<f64>().collect()
}
